"""Watches every live attempt: one heap of due looks, one pass per wake-up. What it sees goes to the engine as breaches and to the verdict as evidence.

It runs in the brain's own loop and not in a thread or process of its own: a look costs some ten microseconds, and the loop has nothing in it
that takes longer than a kill (measured in bench/). ``mainstay exec`` uses it as it is.
"""

import heapq
import math
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from supervisor import procfs, proctree
from supervisor.core import limits as rules
from supervisor.core import study
from supervisor.core.evidence import Breach, Cycle, Look, Study, Waiting
from supervisor.core.jobs import Limits
from supervisor.core.model import LimitName, Mono
from supervisor.ports import Clock, Sampler
from supervisor.progressfile import read_signs

LOOKS_PER_S: Final = 200.0  # what all looks at quiet jobs together may cost
QUIET_MIN_S: Final = 0.1
QUIET_MAX_S: Final = 5.0
FIRST_LOOK_S: Final = 0.004  # an interpreter needs some ms until it can be seen
BEAT_S: Final = 0.05  # quiet jobs are looked at in beats
STRAYS_S: Final = 1.0
AGAIN_S: Final = 0.5  # until a breach is told again that nobody took up
PAGE_S: Final = 1.0  # between two reads of a page that no limit depends on
TASKS_S: Final = 0.1  # between two looks at what a guard that was asked has found
RESTED_S: Final = 0.2  # a thread that computes all the time shows it at the next tick of the scheduler, within 10 ms
TRUST_S: Final = 60.0  # how long a tree that shows no sign of change goes without a full sample
PIDS_KEPT: Final = 1024
CAUGHT_OUT: Final = 60  # looks at most, until one finds a job that swallows RecursionErrors down in its cycle (at 7 % each, at worst)
CAUGHT_OUT_S: Final = 0.007
GLIMPSES_PER_S: Final = 120.0  # close looks at all attempts together; each takes about a millisecond
GLIMPSES_AT_ONCE: Final = 12.0
PROCESSES_STUDIED: Final = 4
THREADS_TOLD: Final = 64
QUIETER: Final = 2.0
CORES: Final = os.cpu_count() or 1


class Subject(Struct):
    """One attempt under watch, and all that was seen of it."""

    key: str
    limits: Limits
    sampler: Sampler
    started: Mono
    page: str | None
    can_arm: bool
    session: int
    watched: rules.Watched = field(default_factory=rules.Watched)
    armed: bool = False
    output_bytes: int = 0
    breach: Breach | None = None
    look: Look | None = None
    soft_look: Look | None = None
    caught: Breach | None = None  # what it is to be ended for, once a look has found it in its cycle
    tries: int = 0  # to find a job in the cycle whose RecursionErrors it swallows
    signature: bytes = b""
    looked_at: float = 0.0
    judged_at: float = 0.0
    rests_until: float = 0.0  # while its signature stays as it is
    pause_s: float = 0.0  # until the next look, as the limits want it; longer and longer while it is quiet
    due: float = 0.0
    gone: bool = False
    untold: Breach | None = None  # told already, and not taken up
    asked_for_tasks: bool = False  # its guards, for tasks that start each other
    tasks: Cycle | None = None
    tasks_read_at: float = 0.0
    page_read_at: float = 0.0
    heartbeat: float | None = None  # CLOCK_MONOTONIC seconds of the job's last sign of life
    record: tuple[str | None, int] = (None, 0)
    record_at: float | None = None  # since when that record is seen in work
    records: int = 0  # finished, as its page last said
    glimpses: tuple[study.Glimpse, ...] = ()
    studied_at: Mono | None = None
    asked: bool = False  # the guard, for want of an eye
    pids: set[int] = field(default_factory=set)  # of the processes that were seen in its tree

    @property
    def trust_s(self) -> float:
        """How long it goes without a full sample while it shows no sign of change. A page can change without a tick of CPU."""
        return TRUST_S if self.limits.stall_s is None else self.limits.stall_s / 8

    @property
    def is_settled(self) -> bool:
        """Nothing more to look for: it is gone, or its end is on the way."""
        return self.gone or self.breach is not None

    def study(self) -> Study | None:
        """What the looks before the line say together."""
        return study.summarize(self.glimpses, self.limits, self.breach.limit if self.breach is not None else None)


class Watch:
    """All live attempts. ``on_breach`` is called once per attempt, after its tree was stopped and looked at."""

    def __init__(self, clock: Clock, on_breach: Callable[[str, Breach, Look | None], None]) -> None:
        self._clock = clock
        self._on_breach = on_breach
        self._subjects: dict[str, Subject] = {}
        self._heap: list[tuple[float, str]] = []
        self._strays_at = 0.0
        self._purse, self._purse_at = GLIMPSES_AT_ONCE, clock.mono()
        self._roll: bytes | None = None  # the keeper's children when strays were last sought; None: who is ours has changed since
        self._foreign: dict[tuple[int, int], str | None] = {}
        self.looks = 0

    def add(self, key: str, limits: Limits, sampler: Sampler, started: Mono, *, page: str | None = None, can_arm: bool = True) -> None:
        """Watch this attempt from now on; *started* counts for its time limit."""
        subject = Subject(key, limits, sampler, started, page, can_arm, sampler.pid)
        self._subjects[key] = subject
        self._roll = None
        self._foreign = {orphan: owner for orphan, owner in self._foreign.items() if owner}  # this one may be whose they are
        self._push(subject, Mono(self._clock.mono() + FIRST_LOOK_S))

    def remove(self, key: str) -> Subject | None:
        """No longer; what was seen."""
        subject = self._subjects.pop(key, None)
        self._roll = None
        if subject is not None:
            subject.sampler.close()
        return subject

    def subject(self, key: str) -> Subject | None:
        return self._subjects.get(key)

    def subjects(self) -> Mapping[str, Subject]:
        return self._subjects

    def output(self, key: str, written: int) -> None:
        """The keeper counted so many bytes; a look is due if that crosses the line."""
        subject = self._subjects.get(key)
        if subject is None:
            return
        subject.output_bytes = written
        limit = subject.limits.output_bytes
        if limit is not None and written > limit:
            subject.signature = b""
            self._push(subject, self._clock.mono())

    def next_due(self) -> float | None:
        """When the next look is due, on the monotonic clock."""
        while self._heap and self._is_stale(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self) -> None:
        """Take every look that is due."""
        now, dmax = self._clock.mono(), self._dmax()
        try:
            while (due := self.next_due()) is not None and due <= now:
                self._look(self._subjects[heapq.heappop(self._heap)[1]], dmax)
                now = self._clock.mono()
        finally:
            proctree.as_usual()  # a look at a crowd goes first

    def tell_again(self, key: str) -> None:
        """Whoever was told of this breach failed at it: the tree stays stopped, and they are told once more."""
        subject = self._subjects.get(key)
        if subject is not None and subject.breach is not None:
            subject.untold, subject.breach = subject.breach, None
            self._push(subject, Mono(self._clock.mono() + AGAIN_S))

    def find_strays(self, keeper_pid: int, known: Iterable[int], *, at_once: bool = False, owner: str | None = None) -> None:
        """Orphans that came to the keeper belong to the tree they were born in, or all to *owner*; asked for about once a second."""
        now = self._clock.mono()
        if not self._subjects or (now - self._strays_at < STRAYS_S and not at_once):
            return
        self._strays_at = now
        roll = procfs.children_text(keeper_pid)
        if roll == self._roll:
            return
        self._roll = roll
        mains = {subject.session: subject for subject in self._subjects.values()}
        strays: dict[str, list[int]] = {}
        for pid in set(map(int, roll.split())) - mains.keys() - set(known):
            whose = self._owner(pid, mains) if owner is None else owner
            if whose is None:
                self._roll = None  # ask again: it was about to execute another program
            elif whose:
                strays.setdefault(whose, []).append(pid)
        for subject in self._subjects.values():
            found = tuple(strays.get(subject.key, ()))
            if found != subject.sampler.strays:
                subject.sampler.strays = found
                subject.signature = b""

    def _owner(self, pid: int, mains: Mapping[int, Subject]) -> str | None:
        """The key of its attempt, "" for nobody's, None if that cannot be told now."""
        stat = procfs.read_stat(pid)
        if stat is None:
            return ""
        identity = (pid, stat.started)
        owner = self._foreign.get(identity)
        if owner is None:
            if len(self._foreign) > 4096:
                self._foreign.clear()
            by_session = mains.get(stat.session)
            owner = by_session.key if by_session is not None else procfs.claimed_attempt(pid)
            if owner is None and identity in self._foreign:
                owner = ""  # no exec takes that long: it has none, or is not ours to read
            self._foreign[identity] = owner
        return owner

    # ---------------------------------------------------------------- one look

    def _is_stale(self, due: float, key: str) -> bool:
        subject = self._subjects.get(key)
        return subject is None or subject.is_settled or subject.due != due

    def _push(self, subject: Subject, due: Mono) -> None:
        subject.due = due
        heapq.heappush(self._heap, (due, subject.key))

    def _dmax(self) -> float:
        return min(QUIET_MAX_S, max(QUIET_MIN_S, len(self._subjects) / LOOKS_PER_S))

    def _look(self, subject: Subject, dmax: float) -> None:
        self.looks += 1
        if subject.untold is not None:
            subject.breach, subject.untold = subject.untold, None
            self._on_breach(subject.key, subject.breach, subject.look)
            return
        now = self._clock.mono()
        if subject.caught is not None and subject.sampler.is_alive():
            self._again(subject, subject.caught, now)
            return
        signature = subject.sampler.signature(rested=now - subject.looked_at >= RESTED_S)
        subject.looked_at = now
        quiet = bool(signature) and signature == subject.signature and now - subject.judged_at < subject.trust_s
        if quiet:
            # Not at once for long: a process that only computes or waits for some milliseconds shows no sign either, and may be about to grow on.
            subject.pause_s = min(dmax, QUIETER * max(subject.pause_s, rules.LOOK_MIN_S))
            later = _together(now + dmax) if subject.pause_s >= dmax else Mono(now + subject.pause_s)
            if now < subject.rests_until:  # what a thousand that sleep cost
                self._push(subject, Mono(min(later, subject.rests_until)))
                return
        deadline = rules.deadline(subject.limits, subject.watched, subject.started)
        if quiet and (deadline is None or now < deadline):
            self._glimpse(subject, now)
            self._push(subject, Mono(min(at for at in (later, deadline, self._next_glimpse(subject)) if at is not None)))
            return
        subject.signature = signature
        sample = subject.sampler.sample(now, subject.output_bytes, self._progress(subject, now))
        if sample is None:
            if subject.sampler.is_blind:
                self._push(subject, Mono(now + dmax))
                return
            subject.gone = True
            return
        subject.judged_at = now
        if len(subject.pids) < PIDS_KEPT:
            subject.pids.update(subject.sampler.members())
        self._ask(subject, sample)
        judged = rules.judge(
            subject.limits,
            subject.watched,
            sample,
            subject.started,
            now,
            armed=subject.armed,
            tasks_run_away=subject.tasks is not None,
            dmax=dmax,
            cores=CORES,
        )
        subject.watched = judged.watched
        subject.pause_s = judged.next_look_s
        subject.rests_until = study.rests_until(subject.limits, judged.watched, subject.started, subject.studied_at)
        for breach in judged.breaches:
            if breach.limit is LimitName.MEMORY_SOFT:
                self._soft(subject)
        if sample.depth > rules.RECURSION_FRAMES and subject.soft_look is None and judged.hard is None:
            # Only the C stack or memory ends it now, and a crash leaves no stack to look at.
            _, subject.soft_look = self._see(subject)
        self._glimpse(subject, now)
        if judged.hard is not None:
            self._hard(subject, judged.hard)
            return
        self._push(subject, Mono(self._soonest(subject, now, now + judged.next_look_s)))

    # ---------------------------------------------------------------- looks before a line

    def _glimpse(self, subject: Subject, now: Mono) -> None:
        """One look of a study, if it is time for one."""
        if not study.is_due(subject.limits, subject.watched, subject.started, now, subject.studied_at, subject.glimpses):
            return
        subject.studied_at = now
        if not self._affords(now):
            return
        spots = tuple(spot for pid in _worth_seeing(subject.sampler) for spot in subject.sampler.eye(pid).glimpse())
        if not subject.asked and 2 * len(subject.glimpses) >= study.LOOKS and not any(spot.frames for spot in spots):
            subject.asked = True  # nobody sees from outside (Yama, another user): the guard still can tell
            subject.sampler.ask_guard()
        last = subject.watched.last
        taken = (*subject.glimpses, study.Glimpse(now, last.memory_bytes if last is not None else 0, spots))
        subject.glimpses = study.lasting(taken, now, is_growing=subject.watched.soft_told)

    def _soonest(self, subject: Subject, now: Mono, at: float) -> float:
        """The next look: as the limits want it, or sooner for a study."""
        pause_s = study.cpu_look_s(subject.limits, subject.watched, CORES)
        wanted = [at, self._next_glimpse(subject), None if pause_s is None else now + max(pause_s, rules.LOOK_MIN_S)]
        return max(min(each for each in wanted if each is not None), now + rules.LOOK_MIN_S)

    def _next_glimpse(self, subject: Subject) -> Mono | None:
        return study.next_at(subject.limits, subject.watched, subject.started, subject.studied_at)

    def _affords(self, now: Mono) -> bool:
        """Whether one more close look may be taken: all attempts together get GLIMPSES_PER_S, or a thousand that hang would hold up the limits of the rest."""
        self._purse = min(GLIMPSES_AT_ONCE, self._purse + (now - self._purse_at) * GLIMPSES_PER_S)
        self._purse_at = now
        if self._purse < 1:
            return False
        self._purse -= 1
        return True

    def _progress(self, subject: Subject, now: float) -> object:
        """What differs once the job got on: its own signs of life where it gives any, else what it writes."""
        if subject.page is None or (subject.limits.stall_s is None and now - subject.page_read_at < PAGE_S):
            return subject.output_bytes
        subject.page_read_at = now
        page = read_signs(subject.page)
        if page is None or not page.says_anything:
            return subject.output_bytes
        if (page.record_in_work, page.seq) != subject.record:
            subject.record, subject.record_at = (page.record_in_work, page.seq), now
        subject.heartbeat, subject.records = page.heartbeat_mono, page.records
        return page.pulse

    def _ask(self, subject: Subject, sample: rules.Sample) -> None:
        """While memory grows: have the job's guards tell whether tasks start each other, and hear what they found."""
        last = subject.watched.last
        if rules.asks(last.memory_bytes if last is not None else 0, sample.memory_bytes, subject.limits.memory_bytes):
            subject.asked_for_tasks = subject.sampler.ask_guard() or subject.asked_for_tasks
        if subject.asked_for_tasks and subject.tasks is None and sample.at - subject.tasks_read_at >= TASKS_S:
            subject.tasks_read_at = sample.at
            subject.tasks = subject.sampler.tasks()

    def _soft(self, subject: Subject) -> None:
        """While there is still room: let the next allocations fail in the job itself, and see what it is doing."""
        if subject.can_arm and subject.limits.memory_bytes is not None:
            subject.armed = subject.sampler.arm(subject.limits.memory_bytes)
        subject.asked_for_tasks = subject.sampler.ask_guard() or subject.asked_for_tasks
        _, subject.soft_look = self._see(subject)

    def _hard(self, subject: Subject, breach: Breach) -> None:
        """Stop the whole tree, look at it, and hand it over to be killed."""
        urgent = breach.limit in (LimitName.MEMORY, LimitName.RECURSION, LimitName.PROCESSES)
        threads = () if urgent else self._threads(subject.sampler)  # a stopped process no longer shows what it waited for
        stopped = proctree.freeze(lambda: _roots(subject.sampler))
        subject.breach = breach
        seen, look = self._see(subject, () if urgent else _worth_seeing(subject.sampler))
        came_up = breach.limit is LimitName.RECURSION and look.cycle is None and bool(look.stacks) and look.depth < breach.measured / 2
        if came_up and subject.tries < CAUGHT_OUT:
            # It had just come up for the next turn: what names the bug is down there.
            subject.tries += 1
            subject.breach, subject.caught = None, breach
            let_go(stopped)
            self._push(subject, Mono(self._clock.mono() + CAUGHT_OUT_S))
            return
        from supervisor.core.waiting import process_words  # not at the top: exec starts without it

        # Place and wait are told in one sentence, so they are of one process.
        words = look.waiting if urgent else process_words([thread.what for thread in threads if thread.pid == seen])
        subject.look = replace(look, waiting=words, threads=threads[:THREADS_TOLD])
        self._on_breach(subject.key, breach, subject.look)

    def _again(self, subject: Subject, breach: Breach, now: Mono) -> None:
        """Look once more for the cycle of one that was let go; for the last time if it uses the respite to fill its memory."""
        line = subject.limits.memory_bytes
        if line is not None:
            sample = subject.sampler.sample(now, subject.output_bytes, None)
            if sample is not None and sample.memory_bytes > line:
                subject.tries = CAUGHT_OUT
        self._hard(subject, breach)

    def _threads(self, sampler: Sampler) -> tuple[Waiting, ...]:
        """What the threads of the tree do."""
        found: list[Waiting] = []
        for pid in _worth_seeing(sampler):
            found += sampler.eye(pid).threads()
        return tuple(found)

    def _see(self, subject: Subject, among: tuple[int, ...] = ()) -> tuple[int, Look]:
        """The deepest interpreter of the tree, or *among* some of it, is the one to ask; without one, the main process. Which it was, and what it showed."""
        deepest, depth = subject.sampler.pid, -1
        for pid in among or dict.fromkeys((*subject.sampler.members()[:8], subject.sampler.deepest)):
            seen = subject.sampler.eye(pid).depth()
            if seen is not None and seen.frames > depth:
                deepest, depth = pid, seen.frames
        return deepest, subject.sampler.eye(deepest).look()


def _worth_seeing(sampler: Sampler) -> tuple[int, ...]:
    """The processes of a tree that are looked at closely: the main one, the deepest interpreter, and a few more."""
    return tuple(dict.fromkeys((sampler.pid, sampler.deepest, *sampler.members())))[:PROCESSES_STUDIED]


def _together(at: float) -> float:
    """The next beat at or after *at*: looks at quiet jobs share a wake-up, which costs more than the look."""
    return math.ceil(at / BEAT_S) * BEAT_S


def _roots(sampler: Sampler) -> tuple[int, ...]:
    """Below these the tree hangs. A main process that has ended is none of them: its pid may be somebody else's by now."""
    return (sampler.pid, *sampler.strays) if sampler.is_alive() else sampler.strays


def let_go(pids: Iterable[int]) -> None:
    """SIGCONT to processes that an earlier brain may have left stopped."""
    for pid in pids:
        proctree.signal_process(pid, signal.SIGCONT)
