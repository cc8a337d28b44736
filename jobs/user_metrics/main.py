"""The command line: ``run`` (also without the word), ``check``, ``rejected``, ``status``, ``explain``. Every error is one line and an exit code."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from user_metrics.check import Reason
from user_metrics.errors import Code, JobError
from user_metrics.publish import number
from user_metrics.run import STATE_FILE, Report, Settings, dry_run, run
from user_metrics.source import Options
from user_metrics.state import State, Tally

COMMANDS: Final = ("run", "check", "rejected", "status", "explain")
EXAMPLES: Final = """examples:
  python jobs/user_metrics --source data/quantum-se --state var/user_metrics --publish metrics.prom
  python jobs/user_metrics check --source community.db
  python jobs/user_metrics rejected --state var/user_metrics --reason target_missing
  python jobs/user_metrics explain active_users

exit codes: 0 done, 1 it did not work, 2 usage, 65 too many rows rejected (nothing published), 75 another run is using the state
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit code."""
    words = list(arguments)
    if not words or (words[0] not in COMMANDS and words[0] not in ("-h", "--help")):
        words.insert(0, "run")
    try:
        args = _parser().parse_args(words)
        return int(_COMMANDS[args.command](args))
    except JobError as err:
        print(f"user_metrics: {err}", file=sys.stderr)
        return int(err.code)
    except ModuleNotFoundError as err:
        if err.name is None or err.name.split(".")[0] not in ("sqlalchemy", "numpy", "scipy"):
            raise
        print(f"user_metrics: {sys.executable} has no module {err.name}; install SQLAlchemy, numpy and scipy there", file=sys.stderr)
        return int(Code.FAILED)
    except KeyboardInterrupt:
        print("user_metrics: interrupted; what was read is kept, the next run goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Code.FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="user_metrics",
        description="User metrics of a community.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser("run", help="bring state and metrics up to date with the source (the default)")
    _source_arguments(one)
    _state_argument(one)
    one.add_argument(
        "--publish",
        metavar="FILE",
        default=os.environ.get("MAINSTAY_METRICS") or None,
        help="where the metrics go (default: $MAINSTAY_METRICS)",
    )
    one.add_argument("--full", action="store_true", help="forget the state and read everything again")
    one.add_argument("--prefix", default="app", help="of the published metrics (default: app)")
    one.add_argument(
        "--max-reject-ratio", type=_ratio, default=0.05, metavar="R", help="above it the run fails before publishing (default: 0.05)"
    )
    one.add_argument(
        "--max-edges", type=_positive, default=50_000_000, metavar="N", help="edges solved in memory at most (default: 50000000)"
    )
    one.add_argument("--as-of", choices=("last_complete_day", "today"), default="last_complete_day", help="the day that values refer to")
    one.add_argument("--json", action="store_true", help="print the figures as JSON")
    _source_arguments(commands.add_parser("check", help="read and judge the source, change nothing"))
    rejected = commands.add_parser("rejected", help="rows in quarantine")
    _state_argument(rejected)
    rejected.add_argument("--reason", choices=[reason.value for reason in Reason])
    rejected.add_argument("-n", "--limit", type=_positive, default=100, metavar="N", help="at most so many (default: 100)")
    status = commands.add_parser("status", help="last runs, rows, results")
    _state_argument(status)
    explain = commands.add_parser("explain", help="how a metric is defined: its statement per engine")
    explain.add_argument("metric", nargs="?")
    return parser


def _state_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state", default=os.path.join("var", "user_metrics"), metavar="DIR", help="what is kept between runs (default: var/user_metrics)"
    )


def _source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", required=True, metavar="PATH_OR_URL", help="a directory of CSV files, a SQLite file or a database URL")
    parser.add_argument("--users-table", default="users", metavar="NAME", help="table of users(id, created_at, invited_by)")
    parser.add_argument("--events-table", default="events", metavar="NAME", help="table of events(id, ts, type, actor, target)")
    parser.add_argument(
        "--column", action="append", default=[], metavar="TABLE.FIELD=NAME", help="a column with another name, e.g. events.ts=sent_at"
    )
    parser.add_argument("--needs-target", action="append", metavar="TYPE", help="a type of event that must have a target (* for all)")
    parser.add_argument("--system-user", action="append", default=[], metavar="ID", help="an id that is no person")
    parser.add_argument(
        "--overlap", type=_natural, default=10_000, metavar="N", help="keys of a server's table that are read again (default: 10000)"
    )
    parser.add_argument(
        "--batch",
        type=_positive,
        default=int(os.environ.get("BATCH_SIZE") or 10_000),
        metavar="N",
        help="rows per transaction (default: 10000)",
    )
    parser.add_argument(
        "--earliest",
        type=date.fromisoformat,
        default=date(1990, 1, 1),
        metavar="DATE",
        help="older rows are rejected (default: 1990-01-01)",
    )
    parser.add_argument("--future", type=float, default=3600.0, metavar="SECONDS", help="rows further ahead are rejected (default: 3600)")
    parser.add_argument("--type", action="append", default=[], metavar="TYPE", help="an allowed type of event (default: any)")
    parser.add_argument(
        "--unknown-actor", choices=("keep", "reject"), default="keep", help="events of ids without an account (default: keep)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _options(args: argparse.Namespace) -> Options:
    columns = {}
    for text in args.column:
        key, equals, name = text.partition("=")
        if not (equals and name and "." in key):
            raise JobError(f"--column {text}: write TABLE.FIELD=NAME, e.g. events.ts=sent_at", Code.USAGE)
        columns[key] = name
    return Options(
        users_table=args.users_table,
        events_table=args.events_table,
        columns=columns,
        needs_target=None if args.needs_target is None else frozenset(args.needs_target),
        system_users=frozenset(args.system_user),
        overlap=args.overlap,
    )


def _settings(args: argparse.Namespace, **more: object) -> Settings:
    values: dict[str, object] = {
        "source": args.source,
        "state": "",
        "now": time.time(),
        "options": _options(args),
        "batch": args.batch,
        "earliest": datetime(args.earliest.year, args.earliest.month, args.earliest.day, tzinfo=UTC).timestamp(),
        "future_s": args.future,
        "types": frozenset(args.type),
        "reject_unknown_actors": args.unknown_actor == "reject",
    }
    return Settings(**{**values, **more})  # type: ignore[arg-type]  # the names are Settings' own, a typing error here fails every test


def _run(args: argparse.Namespace) -> Code:
    started = time.perf_counter()
    report = run(
        _settings(
            args,
            state=args.state,
            publish=args.publish,
            full=args.full,
            prefix=args.prefix,
            max_reject_ratio=args.max_reject_ratio,
            max_edges=args.max_edges,
            as_of_today=args.as_of == "today",
        )
    )
    if args.json:
        print(json.dumps(_as_json(report), indent=2))
    else:
        _print_tallies(report.tallies, report.skipped)
        _print_samples(report)
        peak_mib = _peak_kib() / 1024
        news = "computed" if report.computed else "nothing new, as computed before"
        print(
            f"{news}{f', published to {args.publish}' if args.publish else ''}; {time.perf_counter() - started:.2f} s, peak memory {peak_mib:.0f} MiB"
        )
    for error in report.errors:
        print(f"user_metrics: {error}; its old value was kept", file=sys.stderr)
    return Code.FAILED if report.errors else Code.OK


def _check(args: argparse.Namespace) -> Code:
    report, state = dry_run(_settings(args))
    with contextlib.closing(state):
        _print_tallies(report.tallies, report.skipped)
        for reject in state.rejects(None, 20):
            print(f"  {reject.place}: {reject.reason}: {_shown(reject.raw)}")
    return Code.OK


def _rejected(args: argparse.Namespace) -> Code:
    with contextlib.closing(_existing(args.state)) as state:
        for reject in state.rejects(args.reason, args.limit):
            print(f"{reject.source}\t{reject.place}\t{reject.reason}\t{_shown(reject.raw)}")
    return Code.OK


def _status(args: argparse.Namespace) -> Code:
    with contextlib.closing(_existing(args.state)) as state:
        _print_status(state)
    return Code.OK


def _print_status(state: State) -> None:
    print(f"state {state.path}, made from {json.loads(state.fact('source') or '[null]')[0]}")
    for started_at, ended_at, result in state.rows("SELECT started_at, ended_at, result FROM run ORDER BY number DESC LIMIT 5"):
        took = f" after {ended_at - started_at:.2f} s" if ended_at else ""
        print(f"run of {datetime.fromtimestamp(started_at, UTC):%Y-%m-%dT%H:%M:%SZ}: {result or 'not ended'}{took}")
    _print_tallies(state.tallies(), 0)
    for name, error in state.rows("SELECT name, error FROM metric WHERE error IS NOT NULL"):
        print(f"{name}: {error}")


def _existing(directory: str) -> State:
    path = os.path.join(directory, STATE_FILE)
    if not os.path.exists(path):
        raise JobError(f"{directory}: there is no state here; run first, or name the directory with --state")
    return State(path)


def _explain(args: argparse.Namespace) -> Code:
    from user_metrics import compute, define

    if args.metric is None:
        for name, text in {**{m.name: m.says for m in define.METRICS.values()}, **compute.GRAPH_METRICS}.items():
            print(f"{name:24}{text}")
    elif args.metric in define.METRICS:
        metric = define.METRICS[args.metric]
        print(f"-- {metric.says}; the day stands for the last complete one")
        today = int(time.time() // 86400)
        for dialect in ("sqlite", "postgresql", "mysql"):
            print(f"\n-- {dialect}\n{define.compiled(metric, today - 1, dialect)};")
    elif args.metric in compute.GRAPH_METRICS:
        print(compute.GRAPH_METRICS[args.metric])
    else:
        raise JobError(f"explain {args.metric}: there is no such metric; `explain` alone lists them", Code.USAGE)
    return Code.OK


_COMMANDS: Final = {"run": _run, "check": _check, "rejected": _rejected, "status": _status, "explain": _explain}


def _shown(raw: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in raw[:200])


def _print_tallies(tallies: Mapping[str, Tally], skipped: int) -> None:
    for name, tally in tallies.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(tally.rejected.items()))
        text = f"{tally.accepted} accepted + {tally.repeated} repeated + {tally.rejected_total} rejected"
        print(f"{name:10}{tally.read:8} read = {text}{f' ({reasons})' if reasons else ''}")
    if skipped:
        print(f"{skipped} rows of kinds that are no events were passed over")


def _print_samples(report: Report) -> None:
    if report.as_of is not None:
        print(f"as of {date(1970, 1, 1) + timedelta(days=report.as_of)}:")
    for sample in report.samples:
        labels = ", ".join(f"{key} {text}" for key, text in sample.labels)
        value = (
            f"{date(1970, 1, 1) + timedelta(seconds=sample.value)}"
            if sample.name.endswith("_timestamp_seconds")
            else number(round(sample.value, 4))
        )
        print(f"  {sample.name}{f' ({labels})' if labels else ''}: {value}")


def _as_json(report: Report) -> dict[str, object]:
    rows = {
        name: {
            "read": tally.read,
            "accepted": tally.accepted,
            "repeated": tally.repeated,
            "late": tally.late,
            "rejected": dict(tally.rejected),
        }
        for name, tally in report.tallies.items()
    }
    as_of = None if report.as_of is None else f"{date(1970, 1, 1) + timedelta(days=report.as_of)}"
    samples = [{"name": sample.name, "labels": dict(sample.labels), "value": sample.value} for sample in report.samples]
    return {
        "rows": rows,
        "skipped": report.skipped,
        "as_of": as_of,
        "computed": report.computed,
        "samples": samples,
        "errors": report.errors,
    }


def _peak_kib() -> int:
    """The most memory we had; getrusage(2) would count what our parent had when it forked us."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0)
