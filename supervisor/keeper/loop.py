"""The keeper's loop: one epoll over the brain's socket, the children's pipes and signals. No threads, nothing that can block.

It starts, holds, ends and reaps children and keeps the brain alive; it decides nothing that the brain can decide.
"""

import contextlib
import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from supervisor import procfs, proctree, wire
from supervisor.errors import WireError
from supervisor.keeper import cgroup, launch
from supervisor.keeper.attempt import Attempt
from supervisor.keeper.brain import Brain
from supervisor.keeper.output import Capture
from supervisor.keeper.records import Records
from supervisor.keeper.say import say
from supervisor.sdnotify import Notifier

PING_S: Final = 2.0  # the systemd watchdog is fed at this rhythm, so WatchdogSec must be some times longer
OUTPUT_S: Final = 1.0  # how often the brain hears how much was written
CLEAR_EVERY_S: Final = 0.002  # between two rounds of ending a tree
CLEAR_FOR_S: Final = 5.0  # then what still lives is called unkillable (uninterruptible sleep)
STOP_MARGIN_S: Final = 1.0  # beyond the longest grace, until we no longer wait for the brain to stop the jobs

_FATAL_FDS: Final = select.EPOLLHUP | select.EPOLLERR


class Keeper:
    """The half of Mainstay that owns the children."""

    def __init__(self, state_dir: str, brain_argv: list[str]) -> None:
        self.epoch = os.urandom(6).hex()
        self.boot_id = procfs.boot_id()
        self._state_dir = state_dir
        self._records = Records(state_dir)
        self._attempts: dict[str, Attempt] = {}
        self._by_pid: dict[int, Attempt] = {}
        self._owner: dict[tuple[int, int], str] = {}  # (pid, start time) of an orphan → the attempt it belongs to, "" for nobody's
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._new: set[int] = set()  # descriptors watched since the last poll
        self._notify = Notifier()
        self._brain = Brain(brain_argv)
        self._jobs_group: str | None = None
        self._output_timer = False
        self._stopping = False
        self._stop_deadline = 0.0
        self._exit_code: int | None = None
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    # ---------------------------------------------------------------- the loop

    def run(self) -> int:
        """Until everything is stopped; the exit code."""
        launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
        launch.close_on_exec_all()
        self._find_cgroup()
        self._catch_signals()
        self._start_brain()
        self._every(PING_S, self._ping)
        while self._exit_code is None:
            self._round()
        self._notify.stopping()
        return self._exit_code

    def _round(self) -> None:
        """Wait for something, and see to all of it. A number that a handler gave back and another took anew has no event yet."""
        ready = self._poll.poll(self._patience())
        self._new.clear()
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None and fd not in self._new:
                handler(events)
        self._run_timers()

    def _find_cgroup(self) -> None:
        own = cgroup.delegated()
        if own is None:
            return
        try:
            self._jobs_group = cgroup.prepare(own)
        except OSError as err:
            say("cgroup_unusable", path=own, error=str(err))

    def _catch_signals(self) -> None:
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._watch(self._wake_read, self._on_signal)

    def _on_signal(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(os.read(self._wake_read, 4096)):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._ask_to_stop()
                elif number == signal.SIGHUP:
                    self._send({"op": wire.RELOAD})
        self._reap()  # whatever came: a SIGCHLD may hide behind a full pipe

    def _watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._new.add(fd)
        self._poll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_number, action))

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self._after(seconds, again)

        self._after(seconds, again)

    def _patience(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 3600.0

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    # ---------------------------------------------------------------- the brain

    def _start_brain(self) -> None:
        try:
            sock = self._brain.start()
        except OSError as err:
            say("brain_start_failed", error=str(err))
            self._after(self._brain.delay_s(), self._start_brain)
            return
        self._watch(sock.fileno(), self._on_brain)
        self._send(
            {
                "op": wire.HELLO,
                "version": wire.VERSION,
                "epoch": self.epoch,
                "boot_id": self.boot_id,
                "keeper_pid": os.getpid(),
                "cgroup": self._jobs_group,
                "restarts": self._brain.restarts,
                "stopping": self._stopping,
                "live": [attempt.public() for attempt in self._attempts.values() if attempt.started or attempt.status is None],
                "ended": self._records.kept(),
            }
        )

    def _send(self, message: wire.Message) -> None:
        self._brain.send(message)
        self._poll_for_writing()

    def _poll_for_writing(self) -> None:
        fd = self._brain.fileno()
        if fd in self._handlers:
            self._poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if self._brain.has_unsent else 0))

    def _on_brain(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._brain.flush()
            self._poll_for_writing()
        if not events & (select.EPOLLIN | _FATAL_FDS):
            return
        try:
            messages, alive = self._brain.receive()
        except WireError as err:
            say("brain_unintelligible", error=str(err))
            self._brain.kill()
            return
        for message in messages:
            self._obey(message)
        if not alive:  # all that it had said before it died was obeyed; only now may the next one start
            self._unwatch(self._brain.fileno())
            self._brain.hang_up()

    def _obey(self, message: wire.Message) -> None:
        verb = _VERBS.get(message["op"])
        if verb is None:
            say("message_unknown", op=message["op"])
            return
        try:
            verb(self, message)
        except (KeyError, TypeError, ValueError) as err:
            say("message_unusable", op=message["op"], error=repr(err))

    def _on_brain_exit(self, status: int) -> None:
        fd = self._brain.fileno()
        if fd in self._handlers:
            self._on_brain(select.EPOLLIN)  # its last words
            self._unwatch(fd)
        code = os.waitstatus_to_exitcode(status)
        self._brain.ended()
        if self._exit_code is not None:
            return
        if not self._brain.was_ready and not self._attempts and code >= 0:
            self._exit_code = code  # it never came up and said why; there is nothing to keep
            return
        delay = self._brain.delay_s()
        say("brain_died", code=code, restart_after_s=round(delay, 3), live_attempts=len(self._attempts))
        self._after(delay, self._start_brain)

    def _ping(self) -> None:
        if self._brain.is_silent():
            say("brain_silent", pid=self._brain.pid)
            self._brain.kill()
        self._send({"op": wire.PING})
        if self._stopping and time.monotonic() > self._stop_deadline:
            self._give_up_waiting()

    # ---------------------------------------------------------------- what the brain asks for

    def _spawn(self, message: wire.Message) -> None:
        key = message["key"]
        known = self._attempts.get(key)
        if known is not None:  # asked twice: the first asker died before it heard the answer
            if known.started:
                self._send({"op": wire.STARTED, "attempt": known.public()})
            return
        ended = self._records.get(key)
        if ended is not None:
            self._send({"op": wire.ENDED, "record": ended})
            return
        plan = launch.Plan.from_message(message["plan"])
        group, pipe = None, (-1, -1)
        try:
            if self._jobs_group is not None and plan.cgroup is not None:
                group = cgroup.create(self._jobs_group, key, plan.cgroup)
            pipe = launch.output_pipe()
            child = launch.fork_child(plan, group, stdio=(self._null, pipe[1], pipe[1]))
        except OSError as err:
            self._record_failed_launch(key, f"cannot start a process for {plan.argv[0]!r}: {err}")
            if group is not None:
                cgroup.remove(group)
            if pipe[0] >= 0:
                os.close(pipe[0])
            return
        finally:
            if pipe[1] >= 0:
                os.close(pipe[1])
        self._hold(key, plan, child, pipe[0], group)

    def _hold(self, key: str, plan: launch.Plan, child: launch.Child, output: int, group: str | None) -> None:
        """From now on this child is ours to watch and to end."""
        stat = procfs.read_stat(child.pid)
        plan = replace(plan, environment={})  # it has been handed over; a thousand of them are 6 MiB
        attempt = Attempt(key, plan, child, stat.started if stat else 0, time.monotonic(), time.time(), group)
        self._attempts[key] = attempt
        self._by_pid[child.pid] = attempt
        self._watch(child.errors, lambda _events: self._on_exec(attempt))
        path = plan.output or os.devnull
        attempt.capture = Capture(output, path, plan.output_max_bytes, plan.output_limit_bytes, drop=plan.output_drop)
        self._watch(output, lambda _events: self._on_output(attempt))

    def _record_failed_launch(self, key: str, why: str) -> None:
        now_mono, now_wall = time.monotonic(), time.time()
        self._keep_record(
            {
                "key": key,
                "launch_error": why,
                "started_mono": now_mono,
                "started_wall": now_wall,
                "ended_mono": now_mono,
                "ended_wall": now_wall,
            }
        )

    def _on_exec(self, attempt: Attempt) -> None:
        self._unwatch(attempt.child.errors)
        failure = launch.read_error(attempt.child)
        if failure is None:
            attempt.started = True
            self._send({"op": wire.STARTED, "attempt": attempt.public()})
        else:
            attempt.launch_error = launch.launch_error_text(attempt.plan, *failure)

    def _ask(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["key"])
        if attempt is None or attempt.status is not None:
            return
        attempt.asked_to_stop = True
        number = getattr(signal, "SIG" + message["signal"])
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(attempt.pid, number)
            os.killpg(attempt.pid, signal.SIGCONT)  # a stopped process would not see it

    def _kill(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["key"])
        if attempt is None:
            return
        if attempt.killed_for is None and attempt.status is None:
            attempt.killed_for = message["reason"]
        self._clear(attempt)

    def _forget(self, message: wire.Message) -> None:
        self._records.forget(message["key"])

    def _pong(self, _message: wire.Message) -> None:
        self._brain.answered()
        self._notify.watchdog()

    def _ready(self, message: wire.Message) -> None:
        self._brain.was_ready = True
        self._notify.ready(message.get("status", ""))
        if self._stopping:
            self._send({"op": wire.SHUTDOWN})

    def _status(self, message: wire.Message) -> None:
        self._notify.status(message["status"])

    def _bye(self, message: wire.Message) -> None:
        if not self._attempts:
            self._exit_code = int(message.get("code", 0))

    # ---------------------------------------------------------------- output

    def _on_output(self, attempt: Attempt) -> None:
        capture = attempt.capture
        if capture is None or capture.pipe < 0:
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

    # ---------------------------------------------------------------- ends

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            usage = proctree.reap(found.si_pid)
            if usage is None:
                return
            attempt = self._by_pid.get(found.si_pid)
            if attempt is not None:
                self._on_main_exit(attempt, *usage)
            elif found.si_pid == self._brain.pid:
                self._on_brain_exit(usage[0])
            # else: an orphan of some job, adopted by us as the subreaper; it is gone now

    def _on_main_exit(self, attempt: Attempt, status: int, cpu_s: float, max_rss_bytes: int) -> None:
        attempt.ended_mono, attempt.ended_wall = time.monotonic(), time.time()
        attempt.status, attempt.cpu_s, attempt.max_rss_bytes = status, cpu_s, max_rss_bytes
        del self._by_pid[attempt.pid]
        if attempt.child.errors >= 0:
            self._on_exec(attempt)
        self._clear(attempt)

    def _clear(self, attempt: Attempt) -> None:
        """End what is left of the attempt's tree, a round at a time, and write the exit record when nothing is."""
        if attempt.key not in self._attempts:
            return
        now = time.monotonic()
        if attempt.clearing_since is None:
            attempt.clearing_since = now
        hit = self._kill_round(attempt)
        if attempt.status is not None and attempt.killed_for is None:
            attempt.leftovers += hit
        if hit or attempt.status is None:
            if now - attempt.clearing_since < CLEAR_FOR_S:
                self._after(CLEAR_EVERY_S, lambda: self._clear(attempt))
                return
            attempt.unkillable = [pid for pid in self._roots(attempt) if procfs.read_stat(pid) is not None]
            say("tree_unkillable", key=attempt.key, pids=attempt.unkillable)
            if attempt.status is None:
                attempt.clearing_since = None
                self._after(CLEAR_FOR_S, lambda: self._clear(attempt))
                return
        self._finish(attempt)

    def _kill_round(self, attempt: Attempt) -> int:
        if attempt.cgroup is not None:
            members = cgroup.processes(attempt.cgroup)
            if members:
                cgroup.kill(attempt.cgroup)
            return len(members)
        return proctree.kill_round(lambda: self._roots(attempt))

    def _roots(self, attempt: Attempt) -> list[int]:
        """Where the attempt's processes hang in the tree: its main process while it lives, and orphans of it that came to us."""
        roots = [] if attempt.status is not None else [attempt.pid]
        if attempt.cgroup is not None:
            return cgroup.processes(attempt.cgroup)
        strangers = (pid for pid in proctree.own_children() if pid not in self._by_pid and pid != self._brain.pid)
        return roots + [pid for pid in strangers if self._owner_of(pid) == attempt.key]

    def _owner_of(self, pid: int) -> str:
        stat = procfs.read_stat(pid)
        if stat is None:
            return ""
        identity = (pid, stat.started)
        owner = self._owner.get(identity)
        if owner is None:
            if len(self._owner) > 4096:
                self._owner.clear()
            owner = self._owner[identity] = self._find_owner(pid, stat.session)
        return owner

    def _find_owner(self, pid: int, session: int) -> str:
        for attempt in self._attempts.values():
            if attempt.pid == session:
                return attempt.key
        run = procfs.environment_value(pid, "MAINSTAY_RUN")
        number = procfs.environment_value(pid, "MAINSTAY_ATTEMPT")
        key = f"{run}.{number}"
        return key if key in self._attempts else ""

    def _finish(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        figures: dict[str, int] = {}
        if attempt.capture is not None:
            if attempt.capture.pipe >= 0:
                self._unwatch(attempt.capture.pipe)
            attempt.capture.close()
        if attempt.cgroup is not None:
            figures = cgroup.figures(attempt.cgroup)
            self._remove_group(attempt.cgroup, 50)
        self._keep_record(attempt.record(figures))

    def _remove_group(self, path: str, tries: int) -> None:
        """A group can be removed once its last zombie is reaped, which for strangers in it may take a moment."""
        if not cgroup.remove(path) and tries:
            self._after(0.02, lambda: self._remove_group(path, tries - 1))

    def _keep_record(self, record: dict[str, Any]) -> None:
        trouble = self._records.write(record)
        if trouble is not None:
            say("exit_record_not_written", key=record["key"], error=trouble)
        self._send({"op": wire.ENDED, "record": record})

    # ---------------------------------------------------------------- the end of it all

    def _ask_to_stop(self) -> None:
        if self._stopping:
            self._give_up_waiting()  # asked twice: now
            return
        self._stopping = True
        grace = max((attempt.plan.grace_s for attempt in self._attempts.values()), default=0.0)
        self._stop_deadline = time.monotonic() + grace + STOP_MARGIN_S
        self._after(grace + STOP_MARGIN_S, self._give_up_waiting)
        self._notify.stopping()
        if not self._brain.was_ready and not self._attempts:
            self._exit_code = 0
        self._send({"op": wire.SHUTDOWN})

    def _give_up_waiting(self) -> None:
        """The brain did not stop the jobs in time (or somebody asked twice): end every tree ourselves; the records tell why."""
        if self._exit_code is not None:
            return
        for attempt in list(self._attempts.values()):
            if attempt.killed_for is None and attempt.status is None:
                attempt.killed_for = "stop"
            self._clear(attempt)
        if self._attempts:
            self._after(0.05, self._give_up_waiting)
        else:
            self._after(STOP_MARGIN_S / 2, self._leave)  # the brain may still write them down

    def _leave(self) -> None:
        if self._exit_code is None:
            self._exit_code = 0


_VERBS: Final[dict[str, Callable[[Keeper, wire.Message], None]]] = {
    wire.SPAWN: Keeper._spawn,  # noqa: SLF001 - the table of this class
    wire.SIGNAL: Keeper._ask,  # noqa: SLF001
    wire.KILL: Keeper._kill,  # noqa: SLF001
    wire.FORGET: Keeper._forget,  # noqa: SLF001
    wire.PONG: Keeper._pong,  # noqa: SLF001
    wire.READY: Keeper._ready,  # noqa: SLF001
    wire.STATUS: Keeper._status,  # noqa: SLF001
    wire.BYE: Keeper._bye,  # noqa: SLF001
}
