"""The keeper: what it hears from the brain and from signals, and what it does about it.

It starts, holds (``holding``), ends and reaps (``ending``) children and keeps the brain alive; it decides nothing that the brain can decide.
All of it is one epoll (``rounds``) over the brain's socket, the children's pipes and signals.
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from supervisor import arming, procfs, proctree, wire
from supervisor.errors import WireError
from supervisor.keeper import launch
from supervisor.keeper.attempt import Successor
from supervisor.keeper.brain import Brain
from supervisor.keeper.ending import CLEAR_FOR_S, Ending
from supervisor.keeper.records import Records
from supervisor.keeper.say import say
from supervisor.sdnotify import Notifier

REAP_S: Final = 0.05  # at one go; then the brain, the timers and the output have their turn
PING_S: Final = 2.0  # the systemd watchdog is fed at this rhythm, so WatchdogSec must be some times longer
STOP_MARGIN_S: Final = 1.0  # beyond the longest grace, until we no longer wait for the brain to stop the jobs
ASK_AFTER_S: Final = 0.5  # what the brain has not asked to stop by then, we ask
RELOAD_TRIES: Final = 2
BYE_FOR_S: Final = 3.0  # how long the brain may take to close after its BYE
HELLO_ROOM: Final = wire.MAX_MESSAGE - 2**20  # for live attempts and exit records; the rest of the message is small
TELL_EVERY_S: Final = 0.1  # the records that did not fit into HELLO follow at this rhythm
TELL_AT_ONCE: Final = 500
HELD_MAX: Final = 64  # successors that wait, each a copy of us that costs some 0.5 MiB
_FATAL_FDS: Final = select.EPOLLHUP | select.EPOLLERR


class Keeper(Ending):
    """The half of Mainstay that owns the children."""

    def __init__(self, state_dir: str, brain_argv: list[str]) -> None:
        self.epoch = os.urandom(6).hex()
        self.boot_id = procfs.boot_id()
        super().__init__(Records(state_dir, self.boot_id), Brain(brain_argv))
        self._notify = Notifier()
        self._ending_since: float | None = None  # since when we end every tree ourselves
        self._bye_code: int | None = None
        self._untold: list[str] = []  # keys of exit records that did not fit into HELLO
        self._exit_code: int | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._reload_tries = 0  # how often a brain may still be told of the last SIGHUP: it may be what the one before died of
        self._reloads_asked = 0  # of this brain, which has not said that they are done

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
        self._catch_up()
        self._notify.stopping()
        return self._exit_code

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
                    self._reload_tries = RELOAD_TRIES
                    if self._brain.is_ready:  # one that is on its way up hears of it when it is
                        self._ask_to_reload()
        self._reap()  # whatever came: a SIGCHLD may hide behind a full pipe

    def _reap(self) -> None:
        """Collect what has ended, for REAP_S at most: one who makes zombies faster than that must not have the loop to himself."""
        until = time.monotonic() + REAP_S
        while time.monotonic() < until:
            found = proctree.reap()
            if found is None:
                return
            self._catch_up()  # it may be one that we have yet to hold
            pid, status, cpu_s, max_rss_bytes = found
            attempt = self._by_pid.get(pid)
            if attempt is not None:
                self._guarded("exit", lambda: self._on_main_exit(attempt, status, cpu_s, max_rss_bytes))  # noqa: B023 - called at once
            elif pid in self._held:
                self._drop_successor(self._held[pid], is_reaped=True)
            elif pid == self._brain.pid:
                self._guarded("brain_exit", lambda: self._on_brain_exit(status))  # noqa: B023
        self._after(0.0, self._reap)

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
        if self._brain.is_ready and not self._brain.has_unsent:
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
        if self._reloads_asked and not self._reload_tries:
            say("reload_given_up", tries=RELOAD_TRIES, consequence="the config in force stays", mend="mainstay reload")
        self._reloads_asked = 0
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

    def _ask(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["key"])
        if attempt is None:
            return
        self._drop_successor(attempt)  # also while what it left is still being ended
        if attempt.status is not None:
            return
        if self._stopping and attempt.asked_to_stop and message["signal"] == attempt.plan.stop_signal:
            return  # once is enough: some programs take a second request for "without tidying up"
        self._ask_attempt(attempt, message["signal"])

    def _kill(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["key"])
        if attempt is None:
            return
        self._drop_successor(attempt)
        if attempt.killed_for is None and attempt.status is None:
            attempt.killed_for = message["reason"]
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
        self._watch(child.gate, lambda _events: self._on_gate(child))

    def _on_gate(self, child: launch.Child) -> None:
        """It is ready, or has died: asked now, when there is time, and not when it is to begin."""
        child.is_ready()
        self._unwatch(child.gate)

    def _disarm(self, message: wire.Message) -> None:
        attempt = self._attempts.get(message["after"])
        if attempt is not None:
            self._drop_successor(attempt)

    def _forget(self, message: wire.Message) -> None:
        self._records.forget(message["key"])

    def _pong(self, _message: wire.Message) -> None:
        self._brain.answered()
        self._notify.watchdog()

    def _ready(self, message: wire.Message) -> None:
        self._brain.was_ready = self._brain.is_ready = True
        self._notify.ready(message.get("status", ""))
        if self._stopping:
            self._send({"op": wire.SHUTDOWN})
        elif self._reload_tries:
            self._ask_to_reload()

    def _ask_to_reload(self) -> None:
        self._reload_tries -= 1
        self._reloads_asked += 1
        self._send({"op": wire.RELOAD})

    def _reloaded(self, _message: wire.Message) -> None:
        self._reloads_asked -= 1
        if not self._reloads_asked:
            self._reload_tries = 0

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
    wire.RELOADED: Keeper._reloaded,  # noqa: SLF001
    wire.STATUS: Keeper._status,  # noqa: SLF001
    wire.BYE: Keeper._bye,  # noqa: SLF001
}
