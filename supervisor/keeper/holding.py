"""What is started and held: a child for each attempt, forked into its group, its output captured, and the successors that wait behind a gate.

How an attempt's tree is ended stands in ``ending``; whom the keeper tells of it, in ``loop``.
"""

import abc
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final

from supervisor import procfs, wire
from supervisor.keeper import cgroup, launch
from supervisor.keeper.attempt import Attempt, Successor
from supervisor.keeper.output import Capture
from supervisor.keeper.rounds import Rounds
from supervisor.keeper.say import say

OUTPUT_S: Final = 1.0  # how often the brain hears how much was written


class Holding(Rounds, abc.ABC):
    """The attempts that live. They are ended, and the brain is told, by who builds on it."""

    def __init__(self) -> None:
        super().__init__()
        self._attempts: dict[str, Attempt] = {}
        self._by_pid: dict[int, Attempt] = {}
        self._held: dict[int, Attempt] = {}  # pid of a successor that waits → the attempt that it may follow
        self._jobs_group: str | None = None
        self._output_timer = False
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    @abc.abstractmethod
    def _send(self, message: wire.Message) -> None:
        """Tell the brain."""

    @abc.abstractmethod
    def _clear(self, attempt: Attempt) -> None:
        """End its tree."""

    @abc.abstractmethod
    def _record_failed_launch(self, key: str, why: str) -> None:
        """It never began."""

    def _find_cgroup(self) -> None:
        own = cgroup.delegated()
        if own is None:
            return
        try:
            self._jobs_group = cgroup.prepare(own)
        except OSError as err:
            say("cgroup_unusable", path=own, error=str(err))

    def _launch(self, key: str, plan: launch.Plan) -> None:
        try:
            child, output, group = self._fork(key, plan)
        except OSError as err:
            self._record_failed_launch(key, f"cannot start a process for {plan.argv[0]!r}: {err}")
        else:
            self._hold(key, plan, child, output, group, (time.monotonic(), time.time()))

    def _fork(self, key: str, plan: launch.Plan, *, held: tuple[int, ...] | None = None) -> tuple[launch.Child, int, str | None]:
        """A child, our end of its output, its group. ``OSError``, and then nothing of it is left."""
        group, pipe, child = None, (-1, -1), None
        try:
            if self._jobs_group is not None and plan.cgroup is not None:
                group = cgroup.create(self._jobs_group, key, plan.cgroup)
            pipe = launch.output_pipe()
            child = launch.fork_child(plan, group, stdio=(self._null, pipe[1], pipe[1]), held=held)
            stat = procfs.read_stat(child.pid)
            child.started = stat.started if stat else 0
        finally:
            if pipe[1] >= 0:
                os.close(pipe[1])
            if child is None and pipe[0] >= 0:
                os.close(pipe[0])
            if child is None and self._jobs_group is not None and plan.cgroup is not None:
                cgroup.remove(group or cgroup.path_of(self._jobs_group, key))
        return child, pipe[0], group

    def _hold(self, key: str, plan: launch.Plan, child: launch.Child, output: int, group: str | None, begun: tuple[float, float]) -> None:
        """From *begun* on (CLOCK_MONOTONIC, Unix time) this child is ours to watch and to end. One that cannot be watched is ended at once, as one
        that failed to start."""
        plan = plan._replace(environment={})  # it has been handed over; a thousand of them are 6 MiB
        attempt = Attempt(key, plan, child, *begun, group)
        self._attempts[key] = attempt
        self._by_pid[child.pid] = attempt
        try:
            self._capture(attempt, output)
            self._watch(child.errors, lambda _events: self._on_exec(attempt))
        except Exception as err:  # noqa: BLE001 - the child runs already: it must not be forgotten
            say("keeper_handler_failed", doing=wire.SPAWN, key=key, error=f"{type(err).__name__}: {err}")
            attempt.launch_error = f"cannot watch the process for {plan.argv[0]!r}: {err}"
            self._clear(attempt)

    def _capture(self, attempt: Attempt, output: int) -> None:
        plan = attempt.plan
        try:
            path = plan.output or os.devnull
            attempt.capture = Capture(output, path, plan.output_max_bytes, plan.output_limit_bytes, drop=plan.output_drop)
        except Exception:
            os.close(output)
            raise
        self._watch(output, lambda events: self._on_output(attempt, events))

    def _on_exec(self, attempt: Attempt) -> None:
        self._unwatch(attempt.child.errors)
        failure = launch.read_error(attempt.child)
        if attempt.launch_error is not None:  # it is being ended because we cannot watch it
            return
        if failure is None:
            attempt.started = True
            attempt.plan = attempt.plan.carried_out
            self._send({"op": wire.STARTED, "attempt": attempt.public()})
        else:
            attempt.launch_error = launch.launch_error_text(attempt.plan, *failure)

    def _drop_successor(self, attempt: Attempt, *, is_reaped: bool = False) -> None:
        """It is not to begin: end it where it waits. Until it is reaped its pid is its own."""
        successor, attempt.successor = attempt.successor, None
        if successor is None or self._held.pop(successor.child.pid, None) is None:
            return
        self._unwatch(successor.child.gate)
        successor.child.close_gate()
        if not is_reaped:
            os.kill(successor.child.pid, signal.SIGKILL)
        os.close(successor.child.errors)
        os.close(successor.output)
        if successor.group is not None:
            self._remove_group(successor.group, 50)

    def _begin(self, successor: Successor) -> Callable[[], None]:
        """The record that names it is written: it goes on to its exec. To be done next: hold it, as any other attempt."""
        key, plan, child, output, group, _ = successor
        del self._held[child.pid]
        self._unwatch(child.gate)
        begun = time.monotonic(), time.time()
        child.let_go()
        return lambda: self._hold(key, plan, child, output, group, begun)

    def _remove_group(self, path: str, tries: int) -> None:
        """A group can be removed once its last zombie is reaped, which for strangers in it may take a moment."""
        if not cgroup.remove(path) and tries:
            self._after(0.02, lambda: self._remove_unused_group(path, tries - 1))

    def _remove_unused_group(self, path: str, tries: int) -> None:
        """Unless it was made for an attempt of the same key meanwhile."""
        held = (attempt.successor.group for attempt in self._held.values() if attempt.successor is not None)
        if path not in {attempt.cgroup for attempt in self._attempts.values()} | set(held):
            self._remove_group(path, tries)

    # ---------------------------------------------------------------- output

    def _on_output(self, attempt: Attempt, events: int) -> None:
        capture = attempt.capture
        if capture is None or capture.pipe < 0:
            return
        if not events & select.EPOLLIN:  # nobody holds its other end
            self._unwatch(capture.pipe)
            return
        was_over = capture.over_limit
        if not capture.pump():
            self._unwatch(capture.pipe)
        if capture.over_limit and not was_over:
            self._tell_output()
        elif not self._output_timer:
            self._output_timer = True
            self._after(OUTPUT_S, self._tell_output)

    def _tell_output(self) -> None:
        self._output_timer = False
        counts = {}
        for attempt in self._attempts.values():
            capture = attempt.capture
            if capture is not None and capture.written != attempt.reported_bytes:
                attempt.reported_bytes = capture.written
                counts[attempt.key] = [capture.written, capture.dropped]
        if counts:
            self._send({"op": wire.OUTPUT, "counts": counts})
