"""The command line: sub-commands, exit codes, wiring. Imports the daemon's parts only for the commands that need them."""

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from supervisor import __version__, streams
from supervisor.errors import ConfigError, SupervisorError
from supervisor.options import EXIT_USAGE, Help, Parser, count, duration, whole

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_NO_DAEMON: Final = 69
EXIT_OUR_BUG: Final = 70
EXIT_CONFIG: Final = 78
LARGEST_ID: Final = 10**18 - 1

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    if argv is None:
        streams.settle()
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        options = _parse(given)
        code = int(options.command(options))
        if argv is None and options.command is _exec:
            _leave(code)
        sys.stdout.flush()
        return code
    except ConfigError as err:
        _say(*err.problems)
        return EXIT_CONFIG
    except SupervisorError as err:
        return _refused(err)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `mainstay logs | head`
        streams.abandon_stdout()
        return EXIT_DONE
    except Exception as err:
        if os.environ.get("MAINSTAY_DEBUG"):
            raise
        fault = _fault_of_the_machine(err) if isinstance(err, OSError) and given[-1:] != ["brain"] else None
        if fault is not None:
            _say(f"mainstay: {fault}")
            return EXIT_FAILED
        _say(f"mainstay: this is a bug of Mainstay: {type(err).__name__}: {err}", "set MAINSTAY_DEBUG=1 for the traceback, and report it")
        return EXIT_OUR_BUG


def _fault_of_the_machine(err: OSError) -> str | None:
    """What a command could not know before and cannot mend: in words; None for what may be a mistake of ours."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return f"{err.filename}: {err.strerror}" if err.filename else err.strerror
    try:
        os.getcwd()
    except OSError:
        return "the working directory was removed; change to another"
    return None


def _parse(given: Sequence[str]) -> argparse.Namespace:
    try:
        parser = _parser(only_exec=given[:1] == ["exec"])
        options, unknown = parser.parse_known_args(given)
        if unknown:
            of_command = options.parser if unknown[0] not in given[: given.index(options.called)] else parser
            of_command.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options
    except SystemExit:  # of --help: what it printed must be out before the interpreter goes
        sys.stdout.flush()
        raise


def _refused(err: SupervisorError) -> int:
    from supervisor.client import NoDaemonError

    if isinstance(err, streams.OutputError):
        streams.abandon_stdout()
    _say(f"mainstay: {err}")
    return EXIT_NO_DAEMON if isinstance(err, NoDaemonError) else EXIT_FAILED


def _leave(code: int) -> NoReturn:
    """End at once: taking the interpreter apart takes as long as the rest of a short ``exec``."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, streams.OutputError):
            stream.flush()
    os._exit(code)


def _say(*lines: str) -> None:
    sys.stderr.write("".join(line + "\n" for line in lines))


# ---------------------------------------------------------------- the options


def _parser(*, only_exec: bool = False) -> argparse.ArgumentParser:
    """All commands; or the one that stands before other people's commands and has no time to make the rest."""
    parser = Parser(
        formatter_class=Help,
        prog="mainstay",
        description="Runs your jobs inside limits, knows why they died, restarts them, tells you.",
        epilog="example: mainstay -c config.yaml run; then, in another terminal: mainstay status",
    )
    parser.add_argument("-c", "--config", metavar="CONFIG", help="default: ./config.yaml, then /etc/mainstay/config.yaml")
    parser.add_argument("--version", action="version", version=f"mainstay {__version__}")
    commands = parser.add_subparsers(
        prog="mainstay", metavar="COMMAND", required=True
    )  # named, else argparse loads what it formats usage with
    if only_exec:
        _exec_command(commands)
    else:
        _local_commands(commands)
        _job_commands(commands)
        _reading_commands(commands)
    return parser


def _add(commands: "argparse._SubParsersAction[Parser]", name: str, command: Command, text: str, example: str) -> Parser:
    made = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example: {example}", formatter_class=Help
    )
    made.set_defaults(command=command, parser=made, called=name)
    return made


def _exec_command(commands: "argparse._SubParsersAction[Parser]") -> None:
    once = _add(
        commands,
        "exec",
        _exec,
        "run one command under limits, without daemon or config",
        "mainstay exec --memory 512MiB --time 10m --report /tmp/r.json -- python nightly.py",
    )
    for name, metavar, text in (
        ("memory", "SIZE", "of all its processes together, e.g. 512MiB"),
        ("recursion", "N", "levels of Python calls, e.g. 400"),
        ("time", "D", "wall-clock time, e.g. 90s"),
        ("cpu", "D", "CPU time of all its processes together, e.g. 30s"),
        ("stall", "D", "time without output or another sign of progress, e.g. 5m"),
        ("processes", "N", "processes and threads, e.g. 16"),
        ("output", "SIZE", "what it writes to stdout and stderr, e.g. 10MiB"),
    ):
        once.add_argument(f"--{name}", metavar=metavar, help=f"limit: {text}")
    once.add_argument("--report", metavar="FILE", help="write the dossier as JSON to FILE (- for stdout)")
    once.add_argument("--no-guard", action="store_true", help="do not load the guard into Python processes")
    once.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command and its arguments")


def _local_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    _add(commands, "run", _run, "supervise in the foreground (what systemd starts)", "mainstay -c config.yaml run")
    check = _add(commands, "check", _check, "read the config and print every problem in it", "mainstay check --show")
    shown = check.add_mutually_exclusive_group()
    shown.add_argument("--show", action="store_true", help="print the effective config, and where each value came from")
    shown.add_argument("--schema", action="store_true", help="print the JSON Schema of config.yaml, for editors")
    _exec_command(commands)
    _export_command(commands)
    brain = commands.add_parser("brain", formatter_class=Help)  # started by the keeper, not by people: no help, so it is not listed
    brain.set_defaults(command=_brain, parser=brain, called="brain")


_FAULTS = (
    "recursion",
    "memory",
    "hang",
    "crash",
    "exit",
    "stall",
    "silence",
)  # core.jobs.Fault, which would have to be loaded for every command


def _export_command(commands: "argparse._SubParsersAction[Parser]") -> None:
    export = _add(
        commands,
        "export",
        _export,
        "write alert rules with their tests, routes, dashboards or a unit, from this config",
        "mainstay export prometheus --output monitoring",
    )
    export.add_argument("kind", choices=("prometheus", "alertmanager", "grafana", "systemd"), help="for which program")
    export.add_argument(
        "--output", metavar="DIR", default="monitoring", help="the folder to write to (default monitoring); files of other hands stay"
    )
    export.add_argument("--stdout", action="store_true", help="print the files instead")
    export.add_argument(
        "--selector", metavar="MATCHERS", default='job="mainstay"', help='finds Mainstay\'s targets in Prometheus (default job="mainstay")'
    )
    export.add_argument("--runbook-url", metavar="URL", help="the folder of the runbooks; each alert links to URL/NAME.md")
    export.add_argument("--webhook", metavar="URL", help="of alertmanager: where alerts of every severity are posted")
    export.add_argument("--deadman", metavar="URL", help="of alertmanager: what is called once a minute while the whole way works")
    export.add_argument(
        "--prometheus",
        metavar="URL",
        default="http://127.0.0.1:9090",
        help="of grafana: where it reaches Prometheus (default http://127.0.0.1:9090)",
    )
    export.add_argument(
        "--datasource-uid",
        metavar="UID",
        default="mainstay-prometheus",
        help="of grafana: the data source of the alert rules (default mainstay-prometheus)",
    )


def _job_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    for name, text in (
        ("start", "let the job run again: a service starts, a schedule goes on"),
        ("stop", "stop the job and keep it stopped; waits and says how it ended"),
        ("restart", "stop the job if it runs, and start it again"),
        ("trigger", "run the job once, now; a pause or stop of it stays"),
        ("pause", "leave out its fire times, and do not restart it, until resumed"),
        ("resume", "end a pause"),
    ):
        made = _add(commands, name, _wish, text, f"mainstay {name} nightly")
        made.set_defaults(verb=name)
        made.add_argument("job", metavar="JOB")
        made.add_argument("--json", action="store_true", help="print the answer as JSON")
        if name == "pause":
            made.add_argument("--for", dest="duration", type=duration, metavar="D", help="end the pause by itself after so long, e.g. 2h")
        if name == "trigger":
            made.add_argument("--wait", action="store_true", help="wait until the run has ended: exit code 0 if it succeeded, else 1")
        if name in ("stop", "restart"):
            made.add_argument("--no-wait", action="store_true", help="do not wait until it has ended")
    silence = _add(
        commands,
        "silence",
        _silence,
        "alert nobody about a job for a while; without JOB: list the silences",
        'mainstay silence nightly --for 2h --comment "moving the disk"',
    )
    silence.add_argument("job", nargs="?", metavar="JOB")
    what = silence.add_mutually_exclusive_group()
    what.add_argument(
        "--for", dest="duration", type=duration, metavar="D", help="how long, e.g. 2h; incidents are still recorded, and told then if open"
    )
    what.add_argument("--expire", action="store_true", help="end all silences of the job")
    silence.add_argument("--comment", default="", metavar="TEXT", help="why, for the others")
    silence.add_argument("--json", action="store_true", help="print the answer as JSON")
    drill = _add(
        commands,
        "drill",
        _drill,
        "commit a fault in a stand-in with the job's limits and alert route, and time what follows",
        "mainstay drill user-metrics --fault memory",
    )
    drill.add_argument("job", metavar="JOB")
    drill.add_argument("--fault", choices=_FAULTS, metavar="FAULT", help=f"what to do on purpose: {', '.join(_FAULTS)}")
    drill.add_argument("--last", action="store_true", help="do nothing; show the last result of each fault")
    drill.add_argument(
        "--cap", type=duration, metavar="D", help="lower limits on time to this, and wait no longer for a receiver (default 1m)"
    )
    drill.add_argument(
        "--prometheus", metavar="URL", help="also follow it through the alert rules of this Prometheus, e.g. http://127.0.0.1:9090"
    )
    drill.add_argument("--json", action="store_true", help="print the result as JSON")
    aside = _add(
        commands,
        "quarantine",
        _quarantine,
        "the records that are set aside because they killed the job",
        "mainstay quarantine nightly --replay user-4711",
    )
    aside.add_argument("job", metavar="JOB")
    deed = aside.add_mutually_exclusive_group()
    deed.add_argument("--list", action="store_true", help="all of them (this is the default)")
    deed.add_argument("--show", metavar="KEY", help="one, with the dossier of the death that it is there for")
    deed.add_argument("--release", metavar="KEY", help="take it out: the next attempt is given it again")
    deed.add_argument(
        "--replay", metavar="KEY", help="run the job for it alone, under its limits; released if that ends well, else exit code 1"
    )
    aside.add_argument("--json", action="store_true", help="print JSON")
    reload = _add(commands, "reload", _reload, "take the config anew, whole or not at all", "mainstay reload --plan")
    reload.add_argument("--plan", action="store_true", help="only show what would change, restart or vanish")
    reload.add_argument("--json", action="store_true", help="print the answer as JSON")


def _reading_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    status = _add(commands, "status", _status, "the jobs: state, last outcome, next run, memory against limit", "mainstay status --watch")
    status.add_argument("job", nargs="?", metavar="JOB")
    status.add_argument("--watch", action="store_true", help="keep it live (every second; Ctrl-C ends it)")
    logs = _add(commands, "logs", _logs, "what a job wrote", "mainstay logs nightly -f")
    logs.add_argument("job", metavar="JOB")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it writes, over its next runs too")
    logs.add_argument("-n", type=whole(0, 100_000), default=50, metavar="N", help="the last N lines (default 50)")
    logs.add_argument("--run", type=whole(1, LARGEST_ID), metavar="ID", help="of this run (default: the latest)")
    runs = _add(commands, "runs", _runs, "the ledger: a row per run and per due slot that did not run", "mainstay runs nightly")
    runs.add_argument("job", nargs="?", metavar="JOB")
    runs.add_argument("-n", type=whole(1, 1000), default=20, metavar="N", help="the last N rows (default 20)")
    why = _add(commands, "why", _why, "what happened, in words, with the evidence", "mainstay why nightly")
    why.add_argument("what", nargs="?", metavar="JOB or RUN", help="default: the latest bad end of any job")
    incidents = _add(commands, "incidents", _incidents, "open and past incidents", "mainstay incidents --open")
    incidents.add_argument("--open", action="store_true", help="only those that are open")
    incidents.add_argument("-n", type=whole(1, 1000), default=20, metavar="N", help="the last N (default 20)")
    incident = _add(commands, "incident", _incident, "one incident, with the dossier of its last occurrence", "mainstay incident 7 --ack")
    incident.add_argument("id", type=whole(1, LARGEST_ID), nargs="?", metavar="ID")
    wish = incident.add_mutually_exclusive_group()
    wish.add_argument("--ack", action="store_true", help="somebody is on it: no more reminders")
    wish.add_argument("--resolve", action="store_true", help="close it; the same bug is then a regression when it comes back")
    wish.add_argument("--schema", action="store_true", help="print the JSON Schema of a dossier; needs no ID and no daemon")
    incident.add_argument("--note", metavar="TEXT", default="", help="what to remember with --ack or --resolve")
    incident.add_argument("--fix", metavar="TEXT", default="", help="with --resolve: what mended it, e.g. a commit; a regression names it")
    for made in (status, logs, runs, why, incidents, incident):
        made.add_argument("--json", action="store_true", help="print JSON")


# ---------------------------------------------------------------- commands without a daemon


def _run(options: argparse.Namespace) -> int:
    _without_multiproc()
    from supervisor.config.load import find_config, load
    from supervisor.start import start

    streams.hand_on()
    return start(load(os.path.abspath(find_config(options.config))))


def _without_multiproc() -> None:
    """With this variable the client library would keep Mainstay's own metrics in files, and every job would inherit it."""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)


def _brain(options: argparse.Namespace) -> int:
    _without_multiproc()
    from supervisor.wake import main as brain

    sys.stderr = sys.__stderr__ or sys.stderr  # its log counts the lines that are lost
    return brain(options.config)


def _check(options: argparse.Namespace) -> int:
    from supervisor import checking

    if options.schema:
        return checking.print_schema()
    return checking.check(options.config, show=options.show)


def _export(options: argparse.Namespace) -> int:
    from supervisor.export import export

    return export.run(options)


def _exec(options: argparse.Namespace) -> int:
    from supervisor import command
    from supervisor.absent import hidden
    from supervisor.core.units import parse_duration, parse_size

    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        _say("mainstay exec: no command; write it after --", "example: mainstay exec --time 10m -- python nightly.py")
        return EXIT_USAGE
    limits: dict[str, object] = {}
    for option, key, parse in (
        ("memory", "memory_bytes", parse_size),
        ("output", "output_bytes", parse_size),
        ("time", "time_s", parse_duration),
        ("cpu", "cpu_s", parse_duration),
        ("stall", "stall_s", parse_duration),
        ("recursion", "recursion_frames", count(10, 10_000_000)),  # as the config has it
        ("processes", "processes", count(1, 4_194_304)),
    ):
        text = getattr(options, option)
        if text is None:
            continue
        try:
            limits[key] = parse(text)
        except ValueError as err:
            _say(f"mainstay exec: --{option}: {err}")
            return EXIT_USAGE
        if not limits[key]:
            _say(f"mainstay exec: --{option}: {text} leaves nothing; write more than zero")
            return EXIT_USAGE
    try:
        started = command.start(argv, limits, use_guard=not options.no_guard)
    except OSError as err:
        place = f"{err.filename}: " if err.filename else ""
        _say(f"mainstay exec: {place}{err.strerror}")
        return command.OURS_FAILED
    with hidden("typing_extensions"):  # 9 ms, most of it for inspect; msgspec uses it where it is and does as well without
        from supervisor import oneshot  # while the command starts

    return oneshot.main(started, limits, options.report)


# ---------------------------------------------------------------- commands that ask the daemon


def _wish(options: argparse.Namespace) -> int:
    from supervisor import talk

    if getattr(options, "wait", False):
        return talk.trigger(options.config, options.job, as_json=options.json)
    body = {"for": options.duration} if getattr(options, "duration", None) else {}
    return talk.wish(options.config, options.verb, options.job, body, wait=not getattr(options, "no_wait", True), as_json=options.json)


def _silence(options: argparse.Namespace) -> int:
    from supervisor import talk

    if options.job is None and not (options.duration or options.expire):
        return talk.silences(options.config, as_json=options.json)
    if options.job is None or not (options.duration or options.expire):
        _say("mainstay silence: say which job and how long: mainstay silence JOB --for 2h, or JOB --expire")
        return EXIT_USAGE
    body = {"for": options.duration, "comment": options.comment} if options.duration else {}
    return talk.silence(options.config, options.job, body, as_json=options.json)


def _drill(options: argparse.Namespace) -> int:
    from supervisor import talk

    if options.last:
        return talk.last_drills(options.config, options.job, as_json=options.json)
    if options.fault is None:
        _say(f"mainstay drill: no fault; write --fault with one of {', '.join(_FAULTS)}, or --last")
        return EXIT_USAGE
    given = {"fault": options.fault, "cap": options.cap, "prometheus": options.prometheus}
    return talk.drill(options.config, options.job, {key: value for key, value in given.items() if value is not None}, as_json=options.json)


def _quarantine(options: argparse.Namespace) -> int:
    from supervisor import aside

    for deed, work in ((options.show, aside.show), (options.release, aside.release), (options.replay, aside.replay)):
        if deed is not None:
            return work(options.config, options.job, deed, as_json=options.json)
    return aside.listing(options.config, options.job, as_json=options.json)


def _reload(options: argparse.Namespace) -> int:
    from supervisor import talk

    return talk.reload(options.config, plan=options.plan, as_json=options.json)


def _status(options: argparse.Namespace) -> int:
    from supervisor import talk

    return talk.status(options.config, options.job, watch=options.watch, as_json=options.json)


def _logs(options: argparse.Namespace) -> int:
    from supervisor import talk

    return talk.logs(options.config, options.job, options.run, options.n, follow=options.follow, as_json=options.json)


def _runs(options: argparse.Namespace) -> int:
    from supervisor import talk

    return talk.runs(options.config, options.job, options.n, as_json=options.json)


def _why(options: argparse.Namespace) -> int:
    from supervisor import talk

    return talk.why(options.config, options.what, as_json=options.json)


def _incidents(options: argparse.Namespace) -> int:
    from supervisor import talk

    return talk.incidents(options.config, options.n, open_only=options.open, as_json=options.json)


def _incident(options: argparse.Namespace) -> int:
    if options.schema:
        from supervisor import checking

        return checking.print_dossier_schema()
    verb = "ack" if options.ack else "resolve" if options.resolve else None
    wrong = (
        "which one? write its ID; `mainstay incidents` lists them"
        if options.id is None
        else "--note goes with --ack or --resolve"
        if options.note and verb is None
        else "--fix goes with --resolve"
        if options.fix and verb != "resolve"
        else None
    )
    if wrong is not None:
        _say(f"mainstay incident: {wrong}", "try: mainstay incident --help")
        return EXIT_USAGE
    from supervisor import talk

    said = {name: text for name, text in (("note", options.note), ("fix", options.fix)) if text}
    return talk.incident(options.config, options.id, verb, said, as_json=options.json)
