"""The keeper's loop: one epoll over the brain's socket, the children's pipes and signals. No threads, nothing that can block.

It starts, holds, ends and reaps children and keeps the brain alive; it decides nothing that the brain can decide.
"""

import contextlib
import heapq
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from supervisor import arming, procfs, proctree, wire
from supervisor.errors import WireError
from supervisor.keeper import cgroup, launch
from supervisor.keeper.attempt import Attempt, Successor
from supervisor.keeper.brain import Brain
from supervisor.keeper.output import Capture
from supervisor.keeper.records import Records
from supervisor.keeper.say import say
from supervisor.sdnotify import Notifier

PING_S: Final = 2.0  # the systemd watchdog is fed at this rhythm, so WatchdogSec must be some times longer
OUTPUT_S: Final = 1.0  # how often the brain hears how much was written
CLEAR_EVERY_S: Final = 0.002  # between the first two rounds of ending a tree; doubles while nothing new appears in it
CLEAR_SLOWEST_S: Final = 0.1
CLEAR_FOR_S: Final = 5.0  # then what still lives is called unkillable (uninterruptible sleep)
STOP_MARGIN_S: Final = 1.0  # beyond the longest grace, until we no longer wait for the brain to stop the jobs
ASK_AFTER_S: Final = 0.5  # what the brain has not asked to stop by then, we ask
BYE_FOR_S: Final = 3.0  # how long the brain may take to close after its BYE
HELLO_ROOM: Final = wire.MAX_MESSAGE - 2**20  # for live attempts and exit records; the rest of the message is small
TELL_EVERY_S: Final = 0.1  # the records that did not fit into HELLO follow at this rhythm
TELL_AT_ONCE: Final = 500
HELD_MAX: Final = 64  # successors that wait, each a copy of us that costs some 0.5 MiB
BREATH_S: Final = 0.01  # after a handler that failed: its descriptor is still ready, and must not make the loop spin

_FATAL_FDS: Final = select.EPOLLHUP | select.EPOLLERR


class Keeper:
    """The half of Mainstay that owns the children."""

    def __init__(self, state_dir: str, brain_argv: list[str]) -> None:
        self.epoch = os.urandom(6).hex()
        self.boot_id = procfs.boot_id()
        self._state_dir = state_dir
        self._records = Records(state_dir, self.boot_id)
        self._attempts: dict[str, Attempt] = {}
        self._by_pid: dict[int, Attempt] = {}
        self._held: dict[int, Attempt] = {}  # pid of a successor that waits → the attempt that it may follow
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
        self._ending_since: float | None = None  # since when we end every tree ourselves
        self._bye_code: int | None = None
        self._untold: list[str] = []  # keys of exit records that did not fit into HELLO
        self._exit_code: int | None = None
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    # ---------------------------------------------------------------- the loop

    def run(self) -> int:
        """Until everything is stopped; the exit code."""
        launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
        launch.close_on_exec_all()
        arming.raise_files()
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
            if handler is not None and fd not in self._new and not self._guarded("descriptor", lambda: handler(events)):  # noqa: B023 - called at once
                time.sleep(BREATH_S)
        self._run_timers()

    def _guarded(self, what: str, action: Callable[[], object]) -> bool:
        """Do it; what goes wrong is said and ends nobody: every job would die with the keeper. False when something did."""
        try:
            action()
        except Exception as err:  # noqa: BLE001 - whatever it is
            say("keeper_handler_failed", doing=what, error=f"{type(err).__name__}: {err}")
            return False
        return True

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
                    self._guarded("stop", self._ask_to_stop)
                elif number == signal.SIGHUP:
                    self._send({"op": wire.RELOAD})
        self._reap()  # whatever came: a SIGCHLD may hide behind a full pipe

    def _watch(self, fd: int, handler: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._poll.register(fd, events)
        self._handlers[fd] = handler
        self._new.add(fd)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_number, action))

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        def again() -> None:
            self._after(seconds, again)  # first: an action that fails is to be done again all the same
            action()

        self._after(seconds, again)

    def _patience(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 3600.0

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._guarded("timer", heapq.heappop(self._timers)[2])

    # ---------------------------------------------------------------- the brain

    def _start_brain(self) -> None:
        try:
            sock = self._brain.start()
        except OSError as err:
            say("brain_start_failed", error=str(err))
            self._after(self._brain.delay_s(), self._start_brain)
            return
        try:
            self._watch(sock.fileno(), self._on_brain)
            self._brain.send(self._hello())
            self._poll_for_writing()
        except (OSError, WireError) as err:
            say("brain_start_failed", error=str(err))
            self._brain.kill()  # its end brings the next one

    def _hello(self) -> wire.Message:
        live = [attempt.public() for attempt in self._attempts.values() if attempt.started or attempt.status is None]
        ended = self._fitting(HELLO_ROOM - len(json.dumps(live)))
        message: wire.Message = {
            "op": wire.HELLO,
            "version": wire.VERSION,
            "epoch": self.epoch,
            "boot_id": self.boot_id,
            "keeper_pid": os.getpid(),
            "cgroup": self._jobs_group,
            "restarts": self._brain.restarts,
            "stopping": self._stopping,
            "live": live,
            "ended": ended,
            "untold": self._untold,
            "doubtful": self._records.doubtful,
            "armed": [attempt.successor.key for attempt in self._held.values() if attempt.successor is not None],
        }
        return message

    def _fitting(self, room: int) -> list[dict[str, Any]]:
        """The newest exit records that fit into *room* bytes, in their order; the others will be told one by one."""
        kept = sorted(self._records.kept(), key=lambda record: "next" in record)  # told first: what followed them is known by them alone
        first = len(kept)
        while first and (room := room - len(json.dumps(kept[first - 1])) - 1) >= 0:
            first -= 1
        self._untold = [record["key"] for record in kept[:first]]
        if self._untold:
            say("records_told_later", count=first)
            self._after(TELL_EVERY_S, lambda pid=self._brain.pid: self._tell_untold(pid))  # type: ignore[misc]
        return kept[first:]

    def _tell_untold(self, brain: int) -> None:
        """Some of the records that did not fit into that brain's HELLO, newest first, when it has taken what was sent."""
        if brain != self._brain.pid or not self._untold:
            return
        if self._brain.was_ready and not self._brain.has_unsent:
            now, self._untold = self._untold[-TELL_AT_ONCE:], self._untold[:-TELL_AT_ONCE]
            for key in reversed(now):
                record = self._records.get(key)
                if record is not None:
                    self._send({"op": wire.ENDED, "record": record})
        self._after(TELL_EVERY_S, lambda: self._tell_untold(brain))

    def _send(self, message: wire.Message) -> None:
        try:
            self._brain.send(message)
        except WireError as err:
            say("message_too_large", op=message["op"], error=str(err))
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
        except Exception as err:  # noqa: BLE001 - nothing that the brain asks for may end the keeper
            say("keeper_handler_failed", doing=message["op"], error=f"{type(err).__name__}: {err}")

    def _on_brain_exit(self, status: int) -> None:
        fd = self._brain.fileno()
        if fd in self._handlers:
            self._guarded("last_words", lambda: self._on_brain(select.EPOLLIN))
            self._unwatch(fd)
        code = os.waitstatus_to_exitcode(status)
        self._brain.ended()
        if self._exit_code is not None:
            return
        if self._bye_code is not None:
            self._exit_code = self._bye_code
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
        try:
            self._launch(key, launch.Plan.from_message(message["plan"]))
        except Exception as err:  # noqa: BLE001 - the brain waits for an answer, whatever went wrong
            say("keeper_handler_failed", doing=wire.SPAWN, key=key, error=f"{type(err).__name__}: {err}")
            self._record_failed_launch(key, f"cannot start a process from this plan: {type(err).__name__}: {err}")

    def _launch(self, key: str, plan: launch.Plan) -> None:
        try:
            child, output, group = self._fork(key, plan)
        except OSError as err:
            self._record_failed_launch(key, f"cannot start a process for {plan.argv[0]!r}: {err}")
        else:
            self._hold(key, plan, child, output, group)

    def _fork(self, key: str, plan: launch.Plan, *, held: tuple[int, ...] | None = None) -> tuple[launch.Child, int, str | None]:
        """A child, our end of its output, its group. ``OSError``, and then nothing of it is left."""
        group, pipe, child = None, (-1, -1), None
        try:
            if self._jobs_group is not None and plan.cgroup is not None:
                group = cgroup.create(self._jobs_group, key, plan.cgroup)
            pipe = launch.output_pipe()
            child = launch.fork_child(plan, group, stdio=(self._null, pipe[1], pipe[1]), held=held)
        finally:
            if pipe[1] >= 0:
                os.close(pipe[1])
            if child is None and pipe[0] >= 0:
                os.close(pipe[0])
            if child is None and self._jobs_group is not None and plan.cgroup is not None:
                cgroup.remove(group or cgroup.path_of(self._jobs_group, key))
        return child, pipe[0], group

    def _hold(self, key: str, plan: launch.Plan, child: launch.Child, output: int, group: str | None) -> None:
        """From now on this child is ours to watch and to end. One that cannot be watched is ended at once, as one that failed to start."""
        stat = procfs.read_stat(child.pid)
        plan = plan._replace(environment={})  # it has been handed over; a thousand of them are 6 MiB
        attempt = Attempt(key, plan, child, stat.started if stat else 0, time.monotonic(), time.time(), group)
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
        if attempt.launch_error is not None:  # it is being ended because we cannot watch it
            return
        if failure is None:
            attempt.started = True
            attempt.plan = attempt.plan.carried_out
            self._send({"op": wire.STARTED, "attempt": attempt.public()})
        else:
            attempt.launch_error = launch.launch_error_text(attempt.plan, *failure)

    def _ask(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["key"])
        if attempt is None or attempt.status is not None:
            return
        if self._stopping and attempt.asked_to_stop and message["signal"] == attempt.plan.stop_signal:
            return  # once is enough: some programs take a second request for "without tidying up"
        self._ask_attempt(attempt, message["signal"])

    def _ask_attempt(self, attempt: Attempt, name: str) -> None:
        number = getattr(signal, "SIG" + name)
        attempt.asked_to_stop = True
        self._drop_successor(attempt)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(attempt.pid, number)
            os.killpg(attempt.pid, signal.SIGCONT)  # a stopped process would not see it

    def _kill(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["key"])
        if attempt is None:
            return
        if attempt.killed_for is None and attempt.status is None:
            attempt.killed_for = message["reason"]
            self._drop_successor(attempt)
        self._clear_unless_waiting(attempt)

    def _arm(self, message: wire.Message) -> None:
        """Fork the next attempt ahead, to be let go when this one has ended by itself. Where that cannot be, the brain starts it as always."""
        key, attempt = message["key"], self._attempts.get(message["after"])
        if attempt is None or attempt.status is not None or not attempt.ends_by_itself or attempt.successor is not None:
            return
        if self._stopping or len(self._held) >= HELD_MAX or key in self._attempts or self._records.get(key) is not None:
            return
        plan = launch.Plan.from_message(message["plan"])
        try:
            child, output, group = self._fork(key, plan, held=self._records.prepare(attempt.key, key))
        except OSError as err:
            say("successor_not_forked", key=key, error=str(err))
            return
        attempt.successor = Successor(key, plan._replace(environment={}), child, output, group, frozenset(message["not_after"]))
        self._held[child.pid] = attempt

    def _disarm(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["after"])
        if attempt is not None:
            self._drop_successor(attempt)

    def _drop_successor(self, attempt: Attempt) -> None:
        """It is not to begin: end it where it waits. It is our child and not reaped, so the pid is its own."""
        successor, attempt.successor = attempt.successor, None
        if successor is None or self._held.pop(successor.child.pid, None) is None:
            return
        successor.child.close_gate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(successor.child.pid, signal.SIGKILL)
        os.close(successor.child.errors)
        os.close(successor.output)
        if successor.group is not None:
            self._remove_group(successor.group, 50)

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
        """Everything is stopped: leave with the brain, which may still have rows to write and sockets to close."""
        if not self._attempts and self._bye_code is None:
            self._bye_code = int(message.get("code", 0))
            self._after(BYE_FOR_S, self._leave_after_bye)

    def _leave_after_bye(self) -> None:
        if self._exit_code is None:
            say("brain_slow_to_close", pid=self._brain.pid, waited_s=BYE_FOR_S)
            self._exit_code = self._bye_code

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
                self._guarded("exit", lambda: self._on_main_exit(attempt, *usage))  # noqa: B023 - called at once
            elif found.si_pid in self._held:
                self._drop_successor(self._held[found.si_pid])
            elif found.si_pid == self._brain.pid:
                self._guarded("brain_exit", lambda: self._on_brain_exit(usage[0]))  # noqa: B023
            # else: an orphan of some job, adopted by us as the subreaper; it is gone now

    def _on_main_exit(self, attempt: Attempt, status: int, cpu_s: float, max_rss_bytes: int) -> None:
        attempt.ended_mono, attempt.ended_wall = time.monotonic(), time.time()
        attempt.status, attempt.cpu_s, attempt.max_rss_bytes = status, cpu_s, max_rss_bytes
        del self._by_pid[attempt.pid]
        if attempt.child.errors >= 0:
            self._guarded("exec", lambda: self._on_exec(attempt))
        attempt.clear_pace_s = CLEAR_EVERY_S
        self._clear(attempt)

    def _clear_unless_waiting(self, attempt: Attempt) -> None:
        """Begin to end the tree, or leave it to the round that is due: each round walks /proc, and there is one chain of them at a time."""
        if not attempt.clear_waits:
            self._clear(attempt)

    def _clear_again(self, attempt: Attempt) -> None:
        attempt.clear_waits = False
        self._clear(attempt)

    def _clear_after(self, attempt: Attempt, seconds: float) -> None:
        if not attempt.clear_waits:
            attempt.clear_waits = True
            self._after(seconds, lambda: self._clear_again(attempt))

    def _clear(self, attempt: Attempt) -> None:
        """End what is left of the attempt's tree, a round at a time, and write the exit record when nothing is."""
        if self._attempts.get(attempt.key) is not attempt:
            return
        now = time.monotonic()
        if attempt.clearing_since is None:
            attempt.clearing_since = now
            attempt.clear_pace_s = CLEAR_EVERY_S
        hit = self._kill_round(attempt)
        if attempt.status is not None and attempt.killed_for is None:
            attempt.leftovers += hit
        if hit or attempt.status is None:
            if now - attempt.clearing_since < CLEAR_FOR_S:
                grows = hit > attempt.clear_hits
                attempt.clear_hits = hit
                attempt.clear_pace_s = CLEAR_EVERY_S if grows else min(CLEAR_SLOWEST_S, attempt.clear_pace_s * 2)
                self._clear_after(attempt, attempt.clear_pace_s)
                return
            attempt.unkillable = [pid for pid in self._roots(attempt) if procfs.read_stat(pid) is not None]
            say("tree_unkillable", key=attempt.key, pids=attempt.unkillable)
            if attempt.status is None:
                attempt.clearing_since = None
                self._clear_after(attempt, CLEAR_FOR_S)
                return
        self._finish(attempt)

    def _kill_round(self, attempt: Attempt) -> int:
        """One round; how many processes were hit. A round that fails counts as one that hit something: there has to be another."""
        try:
            if attempt.cgroup is None:
                return proctree.kill_round(lambda: self._roots(attempt))
            members = cgroup.processes(attempt.cgroup)
            if members and not self._guarded("cgroup_kill", lambda: cgroup.kill(str(attempt.cgroup))):
                proctree.kill_round(lambda: cgroup.processes(str(attempt.cgroup)))  # an older kernel has no cgroup.kill
            return len(members)
        except (OSError, ValueError) as err:
            say("keeper_handler_failed", doing="kill", key=attempt.key, error=f"{type(err).__name__}: {err}")
            return 1

    def _roots(self, attempt: Attempt) -> list[int]:
        """Where the attempt's processes hang in the tree: its main process while it lives, and orphans of it that came to us."""
        roots = [] if attempt.status is not None else [attempt.pid]
        if attempt.cgroup is not None:
            return cgroup.processes(attempt.cgroup)
        known, held, brain = self._by_pid, self._held, self._brain.pid
        strangers = (pid for pid in proctree.own_children() if pid not in known and pid not in held and pid != brain)
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
            owner = self._owner[identity] = self._find_owner(pid, stat.session, stat.started)
        return owner

    def _find_owner(self, pid: int, session: int, started: int) -> str:
        """By its session, else by what its environment says, unless it is older than the attempt that it names."""
        for attempt in self._attempts.values():
            if attempt.pid == session:
                return attempt.key
        run = procfs.environment_value(pid, "MAINSTAY_RUN")
        number = procfs.environment_value(pid, "MAINSTAY_ATTEMPT")
        claimed = self._attempts.get(f"{run}.{number}")
        return claimed.key if claimed is not None and started >= claimed.pid_started else ""

    def _finish(self, attempt: Attempt) -> None:
        del self._attempts[attempt.key]
        figures: dict[str, int] = {}
        self._guarded("output", lambda: self._close_output(attempt))
        group = attempt.cgroup
        if group is not None:
            self._guarded("figures", lambda: figures.update(cgroup.figures(group)))
            self._remove_group(group, 50)
        self._keep_record(attempt.record(figures), self._take_successor(attempt))

    def _take_successor(self, attempt: Attempt) -> Successor | None:
        """What is to follow at once, if anything may."""
        successor = attempt.successor
        if successor is not None and not self._stopping and attempt.may_be_followed(successor):
            return successor
        self._drop_successor(attempt)
        return None

    def _begin(self, successor: Successor) -> None:
        """The record that names it is on disk: from now on it is an attempt like any other."""
        del self._held[successor.child.pid]
        successor.child.let_go()
        self._hold(successor.key, successor.plan, successor.child, successor.output, successor.group)

    def _close_output(self, attempt: Attempt) -> None:
        if attempt.capture is not None:
            if attempt.capture.pipe >= 0:
                self._unwatch(attempt.capture.pipe)
            attempt.capture.close()

    def _remove_group(self, path: str, tries: int) -> None:
        """A group can be removed once its last zombie is reaped, which for strangers in it may take a moment."""
        if not cgroup.remove(path) and tries:
            self._after(0.02, lambda: self._remove_group(path, tries - 1))

    def _keep_record(self, record: dict[str, Any], successor: Successor | None = None) -> None:
        """Write down how it ended and what follows, let that begin, and tell the brain, in that order.

        A record that was prepared ahead is noted first, which outlives us; that something may follow is on disk since then, so what follows need
        not wait for the disk again. What cannot be written down is followed by nothing that the brain has not asked for.
        """
        if successor is not None:
            record["next"] = successor.key
            if successor.child.is_ready():
                self._records.confirm(record["key"])
                if self._records.note(record):
                    self._begin(successor)
        trouble = self._records.write(record)
        if trouble is not None:
            say("exit_record_not_written", key=record["key"], error=trouble)
        if successor is not None and successor.child.pid in self._held:
            if trouble is None:
                self._begin(successor)
            else:
                del record["next"]
                self._drop_successor(self._held[successor.child.pid])
        self._send({"op": wire.ENDED, "record": record})

    # ---------------------------------------------------------------- the end of it all

    def _ask_to_stop(self) -> None:
        """The first time, the brain is told and has until ASK_AFTER_S to ask every attempt; the second time (a person's), now."""
        if self._stopping:
            self._end_all()
            return
        self._stopping = True
        grace = max((attempt.plan.grace_s for attempt in self._attempts.values()), default=0.0)
        self._after(ASK_AFTER_S, self._ask_all)
        self._after(grace + STOP_MARGIN_S, self._end_all)
        self._notify.stopping()
        if not self._brain.was_ready and not self._attempts:
            self._exit_code = 0
        self._send({"op": wire.SHUTDOWN})

    def _ask_all(self) -> None:
        """In the brain's place: each attempt that it has not asked is asked by its own signal, and has its own grace."""
        for attempt in list(self._attempts.values()):
            if not attempt.asked_to_stop and attempt.killed_for is None and attempt.status is None:
                self._guarded("ask", lambda: self._ask_attempt(attempt, attempt.plan.stop_signal))  # noqa: B023 - called at once
                self._after(attempt.plan.grace_s, lambda attempt=attempt: self._end(attempt))  # type: ignore[misc]

    def _end(self, attempt: Attempt) -> None:
        if attempt.killed_for is None and attempt.status is None:
            attempt.killed_for = "stop"
            self._drop_successor(attempt)
        self._clear_unless_waiting(attempt)

    def _end_all(self) -> None:
        """The jobs were not stopped in time (or somebody asked twice): end every tree ourselves; the records tell why."""
        if self._ending_since is None:
            self._ending_since = time.monotonic()
            self._end_what_is_left(self._ending_since)

    def _end_what_is_left(self, since: float) -> None:
        if self._exit_code is not None:
            return
        for attempt in list(self._attempts.values()):
            self._guarded("end", lambda: self._end(attempt))  # noqa: B023 - called at once
        if not self._attempts:
            self._after(STOP_MARGIN_S / 2, self._leave)  # the brain may still write them down
        elif time.monotonic() - since < CLEAR_FOR_S + STOP_MARGIN_S:
            self._after(0.05, lambda: self._end_what_is_left(since))
        else:
            pids = [pid for attempt in self._attempts.values() for pid in self._roots(attempt)]
            say("left_unkillable", attempts=list(self._attempts), pids=pids)
            self._exit_code = 1

    def _leave(self) -> None:
        if self._exit_code is None and self._bye_code is None:
            self._exit_code = 0


_VERBS: Final[dict[str, Callable[[Keeper, wire.Message], None]]] = {
    wire.SPAWN: Keeper._spawn,  # noqa: SLF001 - the table of this class
    wire.SIGNAL: Keeper._ask,  # noqa: SLF001
    wire.ARM: Keeper._arm,  # noqa: SLF001
    wire.DISARM: Keeper._disarm,  # noqa: SLF001
    wire.KILL: Keeper._kill,  # noqa: SLF001
    wire.FORGET: Keeper._forget,  # noqa: SLF001
    wire.PONG: Keeper._pong,  # noqa: SLF001
    wire.READY: Keeper._ready,  # noqa: SLF001
    wire.STATUS: Keeper._status,  # noqa: SLF001
    wire.BYE: Keeper._bye,  # noqa: SLF001
}
