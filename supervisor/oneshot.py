"""``mainstay exec``: one command under limits, with no daemon and no config. The same launch, watch, verdict and report as the daemon's."""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from supervisor import proctree
from supervisor.adapters import guard
from supervisor.adapters.clock import Clock
from supervisor.adapters.eye import Eye
from supervisor.adapters.sampler import Sampler
from supervisor.core import explain, outcome
from supervisor.core.model import Breach, Evidence, Expect, Limits, Look, Mono, Outcome, OutputAction, Verdict
from supervisor.evidence import Gatherer
from supervisor.keeper import launch
from supervisor.page import create_page
from supervisor.watch import Watch

LIMIT_STRUCK: Final = 124
OURS_FAILED: Final = 125
CANNOT_EXECUTE: Final = 126
NOT_FOUND: Final = 127
KEY: Final = "1.1"
GRACE_S: Final = 10.0
CLEAR_S: Final = 5.0
TAIL_BYTES: Final = 16 * 1024
CHUNK: Final = 65536
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass(slots=True)
class Stream:
    """One of the command's outputs, passed on to ours while it is counted."""

    pipe: int
    target: int
    is_open: bool = True


@dataclass(slots=True)
class Ended:
    """What is known once the command is gone."""

    record: dict[str, Any]
    launch_errno: int | None = None
    tail: bytearray = field(default_factory=bytearray)


class OneShot:
    """One command, one attempt, policy "never"."""

    def __init__(self, argv: Sequence[str], limits: Limits, *, use_guard: bool = True) -> None:
        self._limits = limits
        self._clock = Clock()
        self._watch = Watch(self._clock, self._on_breach)
        self._run_dir = tempfile.mkdtemp(prefix="mainstay-exec-")
        create_page(self._run_dir + "/page")
        environment = dict(os.environ) | {
            "MAINSTAY_JOB": os.path.basename(argv[0]),
            "MAINSTAY_RUN": "1",
            "MAINSTAY_ATTEMPT": "1",
            "MAINSTAY_PAGE": self._run_dir + "/page",
        }
        if use_guard:
            environment = guard.arm(environment, self._run_dir, limits.recursion_frames)
        self._plan = launch.Plan(list(argv), environment, os.getcwd(), limits=_rlimits(limits))
        self._streams: list[Stream] = []
        self._tail = bytearray()
        self._written = 0
        self._killed_for: str | None = None
        self._asked = False
        self._kill_at: float | None = None
        self._child: launch.Child | None = None

    def run(self) -> tuple[int, dict[str, object]]:
        """Run it to its end: (exit code for our caller, report)."""
        try:
            return self._run()
        finally:
            shutil.rmtree(self._run_dir, ignore_errors=True)

    def _run(self) -> tuple[int, dict[str, object]]:
        launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
        started_mono, started_wall = time.monotonic(), datetime.now(UTC)
        gatherer = Gatherer(guard.read_last_words)
        oom_before = gatherer.host_oom_kills()
        wake = self._catch_signals()
        stage = self._start()
        status, cpu_s, max_rss = self._supervise(wake, Mono(started_mono)) if stage is None else _reap_now(self._child)
        leftovers = self._clear()
        self._pump_all()
        subject = self._watch.remove(KEY)
        killed = status & 0x7F
        record = {
            "key": KEY,
            "pid": self._child.pid if self._child is not None else None,
            "code": None if killed or stage is not None else status >> 8,
            "signal": killed or None,
            "launch_error": launch.launch_error_text(self._plan, *stage) if stage is not None else None,
            "killed_for": self._killed_for,
            "asked_to_stop": self._asked,
            "cpu_s": cpu_s,
            "max_rss_bytes": max_rss,
            "output_bytes": self._written,
            "leftovers": leftovers,
            "started_mono": started_mono,
            "ended_mono": time.monotonic(),
        }
        evidence = gatherer.gather(record, subject, oom_before, self._run_dir)
        verdict = outcome.judge(self._limits, Expect(), evidence)
        report = self._report(verdict, evidence, started_wall)
        return _exit_code(verdict, evidence, stage), report

    # ---------------------------------------------------------------- start

    def _start(self) -> tuple[str, int] | None:
        """Start the command; (stage, errno) when it could not be."""
        counts = self._limits.output_bytes is not None or self._limits.stall_s is not None
        pipes = [launch.output_pipe(), launch.output_pipe()] if counts else []
        stdio = (None, pipes[0][1], pipes[1][1]) if counts else (None, None, None)
        try:
            self._child = launch.fork_child(self._plan, stdio=stdio, own_session=False)
        finally:
            for _, theirs in pipes:
                os.close(theirs)
        self._streams = [Stream(ours, target) for (ours, _), target in zip(pipes, (1, 2), strict=False)]
        select.select([self._child.errors], [], [])
        return launch.read_error(self._child)

    def _catch_signals(self) -> int:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGCHLD, *_FORWARDED):
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:  # nohup stays nohup
                signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        return read

    # ---------------------------------------------------------------- while it runs

    def _supervise(self, wake: int, started: Mono) -> tuple[int, float, int]:
        child = self._child
        if child is None:
            raise AssertionError
        sampler = Sampler(child.pid, None, lambda pid: Eye(pid, _cache_dir()))
        self._watch.add(KEY, self._limits, sampler, started, page=self._run_dir + "/page")
        while True:
            readable = [wake, *(stream.pipe for stream in self._streams if stream.is_open)]
            ready, _, _ = select.select(readable, [], [], self._patience())
            if wake in ready:
                self._on_signals(wake)
            self._pump_all()
            ended = proctree.reap(child.pid)
            if ended is not None:
                self._reap_orphans()
                return ended
            self._reap_orphans()
            self._watch.find_strays(os.getpid(), ())
            self._watch.run()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill("stop")

    def _patience(self) -> float:
        due = self._watch.next_due()
        waits = [1.0]
        if due is not None:
            waits.append(due - time.monotonic())
        if self._kill_at is not None:
            waits.append(self._kill_at - time.monotonic())
        return max(0.0, min(waits))

    def _on_signals(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(os.read(wake, 4096)):
                if number in _FORWARDED and self._child is not None:
                    if number != signal.SIGINT or os.getpgrp() != os.tcgetpgrp(0) if os.isatty(0) else True:
                        proctree.signal_process(self._child.pid, number)  # Ctrl-C has reached it by itself
                    self._asked = True
                    self._kill_at = self._kill_at or time.monotonic() + GRACE_S

    def _reap_orphans(self) -> None:
        """Descendants that were orphaned came to us; collect the dead ones, but never the command itself."""
        for pid in proctree.own_children():
            if self._child is None or pid != self._child.pid:
                proctree.reap(pid)

    def _on_breach(self, _key: str, breach: Breach, _look: Look | None) -> None:
        self._kill(breach.limit.value)

    def _kill(self, reason: str) -> None:
        self._killed_for = self._killed_for or reason
        self._kill_at = None
        self._clear(everything=True)

    def _clear(self, *, everything: bool = False) -> int:
        """End whatever of the tree still lives; how many processes were hit."""
        ended = 0
        deadline = time.monotonic() + CLEAR_S
        while time.monotonic() < deadline:
            hit = proctree.kill_round(proctree.own_children)
            ended += hit
            self._reap_orphans()
            if not hit or (everything and not proctree.own_children()):
                break
            time.sleep(0.001)
        return ended

    # ---------------------------------------------------------------- output

    def _pump_all(self) -> None:
        for stream in self._streams:
            while stream.is_open:
                try:
                    data = os.read(stream.pipe, CHUNK)
                except BlockingIOError:
                    break
                if not data:
                    stream.is_open = False
                    os.close(stream.pipe)
                    break
                self._pass_on(stream, data)

    def _pass_on(self, stream: Stream, data: bytes) -> None:
        self._written += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        limit = self._limits.output_bytes
        if limit is not None and self._written > limit:
            data = data[: max(0, len(data) - (self._written - limit))]
        with contextlib.suppress(OSError):  # our own reader has gone; the command goes on, as it would behind a closed pipe of tee(1)
            while data:
                data = data[os.write(stream.target, data) :]
        self._watch.output(KEY, self._written)

    # ---------------------------------------------------------------- the end

    def _report(self, verdict: Verdict, evidence: Evidence, started: datetime) -> dict[str, object]:
        did = []
        if evidence.exit.killed_for is not None and evidence.exit.killed_for != "stop":
            did.append("stopped all of its processes, looked at them, then killed them")
        if evidence.exit.leftovers:
            did.append(f"ended {evidence.exit.leftovers} processes that it had left behind")
        name = os.path.basename(self._plan.argv[0])
        return explain.make_report(
            name,
            0,
            1,
            verdict,
            evidence,
            started,
            datetime.now(UTC),
            self._tail.decode(errors="replace"),
            did,
            [],
            None,
            {"memory": "poll", "processes": "poll", "kill": "poll"},
        ) | {"fingerprint": outcome.fingerprint_of(name, verdict, evidence)}


def _rlimits(limits: Limits) -> dict[str, list[int]]:
    from supervisor.adapters.launcher import rlimits

    return rlimits(limits)


def _cache_dir() -> str:
    """Where layouts of interpreters are kept, so that only the first look at each costs a start of it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "mainstay")


def _reap_now(child: launch.Child | None) -> tuple[int, float, int]:
    """A child that failed before its exec is about to end."""
    if child is None:
        return 0, 0.0, 0
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


def main(argv: Sequence[str], limits: Mapping[str, Any], report_path: str | None, *, use_guard: bool = True) -> int:
    """Run *argv* under *limits* (fields of ``Limits``); write the report, explain a bad end on stderr; the exit code."""
    wanted = Limits(**({"memory_bytes": None, "time_s": None, "output_action": OutputAction.KILL} | dict(limits)))
    try:
        code, report = OneShot(argv, wanted, use_guard=use_guard).run()
    except OSError as err:
        sys.stderr.write(f"mainstay exec: {err}\n")
        return OURS_FAILED
    if report_path is not None:
        try:
            _write_report(report_path, report)
        except OSError as err:
            sys.stderr.write(f"mainstay exec: the report could not be written to {report_path}: {err.strerror}\n")
            code = code or OURS_FAILED
    if Outcome(str(report["outcome"])).is_bad:
        sys.stderr.write(explain.screen(report) if code == LIMIT_STRUCK else f"mainstay exec: {explain.one_line(report)}\n")
    return code


def _write_report(path: str, report: Mapping[str, object]) -> None:
    text = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
