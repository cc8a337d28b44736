"""``mainstay exec``: one command under limits, with no daemon and no config. The same launch, watch, verdict and report as the daemon's."""

import contextlib
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from supervisor import proctree
from supervisor.adapters import guard
from supervisor.adapters.clock import Clock
from supervisor.adapters.sampler import Sampler
from supervisor.asking import Asking
from supervisor.command import FORWARDED, OURS_FAILED, Started, Stream, cache_dir, remove_run_dir, wait_for_exec
from supervisor.core import outcome
from supervisor.core.evidence import Breach, Evidence, Fault, Look, OomVictim, Verdict
from supervisor.core.jobs import Expect, Job, Launch, Limits, OutputAction
from supervisor.core.model import Mono, Outcome
from supervisor.core.redact import SLACK_BYTES
from supervisor.evidence import Gatherer
from supervisor.keeper import launch
from supervisor.ports import DepthReader
from supervisor.streams import OutputError
from supervisor.watch import Watch

LIMIT_STRUCK: Final = 124
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
KEY: Final = "1.1"
CLEAR_S: Final = 5.0
TAIL_BYTES: Final = 16 * 1024
CHUNK: Final = 65536
TURNS: Final = 16  # pieces of output per round, so that a flood does not keep the watch from looking
DRAIN_S: Final = 1.0  # for our reader to take the last words of a command that was killed
TTY_ROOM: Final = 256  # what a terminal takes at once when it takes anything


class OneShot:
    """One command, one attempt, policy "never"."""

    def __init__(self, started: Started, limits: Limits, *, name: str | None = None, expect: Expect = Expect()) -> None:  # noqa: B008 - frozen
        """*name* and *expect* are a job's, where it is one that runs here."""
        self._job = name
        self._name = name or os.path.basename(started.plan.argv[0])
        self._expect = expect
        self._limits = limits
        self._clock = Clock()
        self._watch = Watch(self._clock, self._on_breach)
        self._started = started
        self._run_dir = started.run_dir
        self._plan = started.plan
        self._streams = started.streams
        self._child = started.child
        self._tail = bytearray()
        self._written = 0
        self._killed_for: str | None = None
        self._asked = Asking()

    def run(self) -> tuple[int, Verdict, Evidence]:
        """See it to its end: (exit code for our caller, verdict, what it rests on)."""
        try:
            return self._run()
        finally:
            remove_run_dir(self._run_dir)

    def _run(self) -> tuple[int, Verdict, Evidence]:
        started_mono = self._started.started_mono
        gatherer = Gatherer(guard.read_last_words, _oom_victims, faults=_fault_of)
        wait_for_exec(self._started)
        stage = self._started.failure
        status, cpu_s, max_rss = self._supervise(self._started.wake, Mono(started_mono)) if stage is None else _reap_now(self._child)
        leftovers = self._clear()
        self._drain()
        subject = self._watch.remove(KEY)
        killed = status & 0x7F
        record = {
            "key": KEY,
            "pid": self._child.pid,
            "code": None if killed or stage is not None else status >> 8,
            "signal": killed or None,
            "launch_error": launch.launch_error_text(self._plan, *stage) if stage is not None else None,
            "killed_for": self._killed_for,
            "asked_to_stop": bool(self._asked),
            "cpu_s": cpu_s,
            "max_rss_bytes": max_rss,
            "output_bytes": self._written,
            "leftovers": leftovers,
            "started_mono": started_mono,
            "ended_mono": time.monotonic(),
        }
        evidence = gatherer.gather(record, subject, self._started.oom_kills, self._run_dir)
        verdict = outcome.judge(self._limits, self._expect, evidence)
        code = self._asked.exit_code() if self._killed_for == "stop" and killed == signal.SIGKILL else _exit_code(verdict, evidence, stage)
        return code, verdict, evidence

    # ---------------------------------------------------------------- while it runs

    def _supervise(self, wake: int, started: Mono) -> tuple[int, float, int]:
        child = self._child
        sampler = Sampler(child.pid, None, _eye, guard.Guards(self._run_dir))
        self._watch.add(KEY, self._limits, sampler, started, page=self._run_dir + "/page")
        while True:
            readable = [wake, *(stream.pipe for stream in self._streams if stream.is_open and not stream.unsent)]
            writable = [stream.target for stream in self._streams if stream.unsent]
            ready, _, _ = select.select(readable, writable, [], self._patience())
            if wake in ready:
                self._on_signals(wake)
            self._pump_all()
            ended = proctree.reap(child.pid)
            if ended is not None:
                self._reap_orphans()
                return ended[1:]
            self._reap_orphans()
            # Whatever their environment says: all that come to us are the command's.
            self._watch.find_strays(os.getpid(), (child.pid,), at_once=True, owner=KEY)
            self._watch.run()
            self._see_to_the_asking()

    def _patience(self) -> float:
        due = self._watch.next_due()
        waits = [1.0]
        if due is not None:
            waits.append(due - time.monotonic())
        asked = self._asked.next_due()
        if asked is not None and self._killed_for is None:
            waits.append(asked - time.monotonic())
        return max(0.0, min(waits))

    def _on_signals(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(os.read(wake, 4096)):
                if number in FORWARDED:
                    if number != signal.SIGINT or not _shares_terminal():
                        proctree.signal_process(self._child.pid, number)  # Ctrl-C has reached it by itself
                    self._asked.hear(number, time.monotonic())

    def _see_to_the_asking(self) -> None:
        if self._killed_for is not None:
            return
        now = time.monotonic()
        notice = self._asked.notice(self._name, now)
        if self._asked.is_over(now):
            self._kill("stop")
            notice = self._asked.last_word(self._name)
        if notice is not None and select.select([], [sys.stderr], [], 0)[1]:  # the watch must not wait for our own reader
            sys.stderr.write(f"mainstay: {notice}\n")

    def _reap_orphans(self) -> None:
        """Descendants that were orphaned came to us; collect the dead ones, but never the command itself."""
        for pid in proctree.own_children():
            if pid != self._child.pid:
                proctree.reap(pid)

    def _on_breach(self, _key: str, breach: Breach, _look: Look | None) -> None:
        self._kill(breach.limit.value)

    def _kill(self, reason: str) -> None:
        self._killed_for = self._killed_for or reason
        self._clear(everything=True)

    def _clear(self, *, everything: bool = False) -> int:
        """End whatever of the tree still lives; how many processes were hit."""
        ended: set[int] = set()
        deadline = time.monotonic() + CLEAR_S
        while time.monotonic() < deadline:
            hit = proctree.kill_round(proctree.own_children)
            ended |= hit
            self._reap_orphans()
            if not hit or (everything and not proctree.own_children()):
                break
            time.sleep(0.001)
        return len(ended)

    # ---------------------------------------------------------------- output

    def _pump_all(self) -> bool:
        """Take what is there and pass on what our own reader takes, waiting for neither: the watch must go on. True if more may be there now."""
        more = [self._pump(stream) for stream in self._streams]  # each of them has its turn
        return any(more)

    def _pump(self, stream: Stream) -> bool:
        return all(self._send(stream) and self._take(stream) for _ in range(TURNS))

    def _take(self, stream: Stream) -> bool:
        """The next piece of what the command wrote."""
        if not stream.is_open:
            return False
        try:
            data = os.read(stream.pipe, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            _hang_up(stream)
            return False
        self._written += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES - SLACK_BYTES :]
        self._watch.output(KEY, self._written)
        limit = self._limits.output_bytes
        over = max(0, self._written - limit) if limit is not None else 0
        stream.unsent = memoryview(data)[: max(0, len(data) - over)]
        return True

    def _send(self, stream: Stream) -> bool:
        """Pass on; True once nothing waits any more."""
        while stream.unsent:
            if not select.select([], [stream.target], [], 0)[1]:
                return False
            try:
                sent = os.write(stream.target, stream.unsent[: _room(stream.target)])
            except BlockingIOError:
                return False
            except OSError:  # our reader has gone: the command hears of it as it would without us
                stream.unsent = memoryview(b"")
                _hang_up(stream)
                return False
            stream.unsent = stream.unsent[sent:]
        return True

    def _drain(self) -> None:
        """After the end: the rest of the output, as long as our reader takes it, but not for long after a kill or beyond the time limit."""
        time_s = self._limits.time_s
        deadline = self._started.started_mono + time_s if time_s is not None else None
        if deadline is not None or self._killed_for is not None:
            deadline = max(deadline or 0.0, time.monotonic() + DRAIN_S)
        while True:
            more = self._pump_all()
            waiting = [stream.target for stream in self._streams if stream.unsent]
            if not (more or waiting) or (deadline is not None and time.monotonic() >= deadline):
                return
            patience = None if deadline is None else max(0.0, deadline - time.monotonic())
            if waiting and self._started.wake in select.select([self._started.wake], waiting, [], patience)[0]:
                self._on_signals(self._started.wake)
                if self._asked:
                    return

    # ---------------------------------------------------------------- the end

    def report(self, evidence: Evidence) -> dict[str, object]:
        """The dossier, without the secrets that the command was given."""
        from supervisor.core import dossier, redact

        job = Job(self._name, Launch(tuple(self._plan.argv), self._plan.directory, self._plan.environment))
        redactor = redact.Redactor(redact.secrets_of(job, {}))
        evidence = replace(redactor.facts(evidence), progress=evidence.progress)
        verdict = outcome.judge(self._limits, self._expect, evidence)
        did = []
        if evidence.exit.killed_for is not None and evidence.exit.killed_for != "stop":
            did.append("stopped all of its processes, looked at them, then killed them")
        if evidence.exit.leftovers:
            did.append(f"ended {evidence.exit.leftovers} processes that it had left behind")
        name = self._name
        is_cut = evidence.exit.signal is not None or evidence.exit.killed_for is not None
        occasion = dossier.Occasion(
            name,
            0,
            1,
            datetime.fromtimestamp(self._started.started_wall, UTC),
            datetime.now(UTC),
            self._limits,
            output=redactor.end_of_output(self._tail.decode(errors="surrogateescape"), TAIL_BYTES, is_cut=is_cut),
            output_seen=bool(self._streams),
            containment={"memory": "poll", "processes": "poll", "kill": "poll"},
        )
        named = replace(verdict, fingerprint=outcome.fingerprint_of(self._job or _called(self._plan.argv), verdict, evidence))
        return dossier.make_report(occasion, named, evidence, did=did)


def _called(argv: Sequence[str]) -> str:
    """What runs, whichever Python runs it: the same bug has the same name under another release."""
    name = os.path.basename(argv[0])
    if not name.startswith("python"):
        return name
    return next((os.path.basename(word).removesuffix(".py") for word in argv[1:] if not word.startswith("-")), "python")


def _shares_terminal() -> bool:
    """Whether a Ctrl-C there reaches the command as it reaches us."""
    try:
        return os.getpgrp() == os.tcgetpgrp(0)
    except OSError:  # stdin is no terminal, or not the one that controls us
        return False


def _hang_up(stream: Stream) -> None:
    if stream.is_open:
        stream.is_open = False
        os.close(stream.pipe)


def _room(target: int) -> int:
    """How much can be written without waiting to what select(2) calls writable."""
    mode = os.fstat(target).st_mode
    if stat.S_ISREG(mode):
        return CHUNK
    return TTY_ROOM if os.isatty(target) else select.PIPE_BUF


def _oom_victims(main: int, others: Collection[int], since_mono_s: float) -> tuple[OomVictim, ...] | None:
    """The kernel's log, loaded only when its count of OOM kills has risen."""
    from supervisor.adapters.kernellog import oom_victims

    return oom_victims(main, others, since_mono_s)


def _fault_of(pid: int, since_mono_s: float) -> Fault | None:
    """See ``kernellog``, which only a crash has a use for."""
    from supervisor.adapters.kernellog import fault_of

    return fault_of(pid, since_mono_s)


def _eye(pid: int) -> DepthReader:
    """An eye; loaded when the first one is wanted, for many a command is over before that."""
    from supervisor.adapters.eye import Eye

    return Eye(pid, cache_dir())


def _reap_now(child: launch.Child) -> tuple[int, float, int]:
    """A child that failed before its exec is about to end."""
    _, status, usage = os.wait4(child.pid, 0)
    return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _exit_code(verdict: Verdict, evidence: Evidence, stage: tuple[str, int] | None) -> int:
    if stage is not None:
        return NOT_FOUND if stage[0] == "exec" and stage[1] in (2, 20) else CANNOT_EXECUTE
    if verdict.limit is not None:
        return LIMIT_STRUCK
    facts = evidence.exit
    if facts.signal is not None:
        return 128 + facts.signal
    return facts.code if facts.code is not None else OURS_FAILED


def main(started: Started, limits: Mapping[str, Any], report_path: str | None) -> int:
    """See a command to its end under *limits* (fields of ``Limits``); write the report, explain a bad end on stderr; the exit code."""
    wanted = Limits(**({"memory_bytes": None, "time_s": None, "output_action": OutputAction.KILL} | dict(limits)))
    shot = OneShot(started, wanted)
    try:
        code, verdict, evidence = shot.run()
    except OSError as err:
        place = f"{err.filename}: " if err.filename else ""
        sys.stderr.write(f"mainstay exec: {place}{err.strerror}\n")
        return OURS_FAILED
    if report_path is None and not verdict.outcome.is_bad:
        return code
    try:
        return _tell(code, shot.report(evidence), report_path)
    except ValueError as err:  # ours to mend, but how the command ended is known and is what we are asked for
        sys.stderr.write(f"mainstay exec: its end cannot be told, which is a bug of Mainstay: {type(err).__name__}: {err}\n")
        return code or OURS_FAILED


def _tell(code: int, report: Mapping[str, object], path: str | None) -> int:
    """Write the report, explain a bad end; the exit code."""
    from supervisor.core import explain

    if path is not None:
        try:
            _write_report(path, report)
        except (OSError, OutputError, ValueError) as err:
            why = err.strerror if isinstance(err, OSError) else err
            sys.stderr.write(f"mainstay exec: the report could not be written to {path}: {why}\n")
            code = code or OURS_FAILED
    if Outcome(str(report["outcome"])).is_bad:
        sys.stderr.write(explain.screen(report) if code == LIMIT_STRUCK else f"mainstay exec: {explain.one_line(report)}\n")
    return code


def _write_report(path: str, report: Mapping[str, object]) -> None:
    import json

    text = json.dumps(report, ensure_ascii=path == "-" and sys.stdout.isatty(), indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    from supervisor.reportfile import write_report

    write_report(path, text)
