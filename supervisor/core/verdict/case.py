"""The evidence of one ended attempt, with what can be read out of it: the cycle, how deep, of what it ran out. Which rule makes what of it is for others.

The thresholds say when a fact means something; each has its reason beside it.
"""

from collections.abc import Callable
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.cycle import find_cycle_in_frames
from supervisor.core.evidence import Cycle, CycleKind, Evidence, ExceptionFacts, Frame, Look, Pace
from supervisor.core.jobs import Expect, Limits
from supervisor.core.limits import FILLING_FRAMES, SOFT_SHARE, SWALLOWED, WALL_SHARE, soft_line
from supervisor.core.model import LimitName, Outcome
from supervisor.core.prose import about_duration, base, is_installed, is_own, own_frames
from supervisor.core.verdict.errors import is_memory_error, overrun_of, refusal_of

STEADY_S = 1.0
STEADY_LEVELS = 16
UNHEALTHY_FRAMES = 5000  # no healthy Python stack is deeper; the C stack of 8 MB ends between 1,600 and 40,000 levels
CLIMB_SHARE = 0.8  # of all growth of memory, where it is the stack that grows: what comes and goes beside it is the rest
TASKS_FILL = 0.75  # of the memory limit: below it, tasks that start each other have not filled the memory
AT_LIMIT = 0.25  # of the recursion limit: up to 3.11 calls through C count as well and leave no frame in a traceback
SWALLOWED_ERRORS = 16  # counted by the guard, whose stamps are of as many
SWALLOWED_PER_S = 100.0  # a loop that does nothing else catches hundreds; who rejects bad input has other things to do
RECENT_S = 3.0  # before a limit struck: what was caught earlier is over
RECENT_SHARE = 0.25  # of its whole life, where that is shorter
RESTS = 10  # times as long as from one error to the next: then it has come to other things
SLACK_S = 0.005
UNTOLD_FROM, UNTOLD_S = 64, 0.15  # from so many on the guard tells of them every tenth of a second only
BUSY_SHARE = 0.25  # of the looks that have to find it in the cycle whose RecursionErrors it catches
MEMORY_ERRORS_SEEN = 2
OUT_OF_MEMORY_SHARE = 0.85  # of the limit: a MemoryError of a thread far below is about something else than our line
ROOM_BYTES = 2 * 2**20  # below the line: CPython asks for 1 MiB at once and more, so it is refused before its memory is full to the brim
STILL_S = 0.2  # for which memory did not grow: a refusal and the crash of it are one moment
LOST_C_ERROR = "error return without exception set"  # what is left of an exception that C code lost, out of memory


class Finding(Struct, frozen=True):
    """What one rule found: the outcome, the limit that struck, and the sentence about it (without who and when)."""

    outcome: Outcome
    sentence: str
    limit: LimitName | None = None


class Case(Struct, frozen=True, dict=True):
    """The evidence with what can be read out of it."""

    limits: Limits
    expect: Expect
    evidence: Evidence

    @cached_property
    def cycle(self) -> Cycle | None:
        """What repeated, by the best witness: named by the guard or the look, else found in their frames."""
        words, look = self.evidence.words, self.evidence.look
        if words.lineage is not None:
            script, levels = words.lineage
            return Cycle((Frame(base(script), script, 0),), levels, CycleKind.PROCESSES)
        if words.tasks is not None and self.overrun is None:
            return words.tasks
        named = words.cycle or (look.cycle if look else None)
        if named is not None:
            return named
        for error in (words.exception, words.exception.root if words.exception is not None else None):
            if error is not None and (found := find_cycle_in_frames(error.frames, error.depth, innermost_first=False)):
                return found
        if words.fatal_frames and (
            found := find_cycle_in_frames(words.fatal_frames, max(len(words.fatal_frames), self.evidence.depth_peak))
        ):
            return found
        return _cycle_in(look) or self.climbed

    @cached_property
    def climbed(self) -> Cycle | None:
        """What repeated at the soft line, if memory ended it and had come with a stack that got deeper and deeper: the last look may have come late,
        and found it on its way out or at its traceback."""
        facts = self.evidence
        ended_by_memory = (
            facts.exit.killed_for == LimitName.MEMORY or bool(facts.exit.oom_kills) or self.is_out_of_memory or self.gave_up_at_the_line
        )
        if not ended_by_memory or facts.depth_peak <= FILLING_FRAMES or facts.stack_share < CLIMB_SHARE or facts.soft_look is None:
            return None
        seen = facts.soft_look.cycle or _cycle_in(facts.soft_look)
        return seen and replace(seen, depth=max(seen.depth, facts.depth_peak))

    @cached_property
    def hidden_cycle(self) -> Cycle | None:
        """What called into C code that then called itself and left no frames (json, pickle): the application's function that first went out."""
        ended = self.overrun or self.evidence.words.exception
        frames = ended.frames if ended is not None else ()
        own = set(own_frames(frames) if is_installed(frames) else filter(is_own, frames))
        going_out = (frame for i, frame in enumerate(frames) if frame in own and own.isdisjoint(frames[i + 1 : i + 2]))
        at_frame = next(going_out, None)
        if at_frame is None:
            return None
        return Cycle(
            (at_frame,), self.depth, CycleKind.FRAMES, (f"the levels are in C code that {at_frame.function} called: they have no frames",)
        )

    @cached_property
    def depth(self) -> int:
        """The deepest stack that anybody saw."""
        words, look = self.evidence.words, self.evidence.look
        error = words.exception.depth if words.exception else 0
        if words.exception is not None and words.exception.root is not None:
            error = max(error, words.exception.root.depth)
        named = words.cycle.depth if words.cycle else 0
        return max(self.evidence.depth_peak, look.depth if look else 0, error, named, len(words.fatal_frames))

    @property
    def error(self) -> ExceptionFacts | None:
        """The exception that ended the main thread."""
        found = self.evidence.words.exception
        return found if found is not None and found.where == "main" else None

    @cached_property
    def error_type(self) -> str:
        return self.error.type.rpartition(".")[2] if self.error else ""

    @cached_property
    def overrun(self) -> ExceptionFacts | None:
        """The RecursionError of the interpreter that ended the main thread, wherever it was raised."""
        return overrun_of(self.error) if self.error is not None else None

    @property
    def is_memory_error(self) -> bool:
        return is_memory_error(self.error_type)

    @cached_property
    def refusal(self) -> ExceptionFacts | None:
        """The MemoryError of an allocation that ended the main thread, wherever that was."""
        return refusal_of(self.error) if self.error is not None else None

    @property
    def is_lost_error(self) -> bool:
        """It ended in what C code makes of a MemoryError that it lost. The message is written down last: there may have been no time for it."""
        return (
            self.error is not None and self.error_type == "SystemError" and (not self.error.message or LOST_C_ERROR in self.error.message)
        )

    @property
    def is_out_of_memory(self) -> bool:
        return self.is_memory_error or self.is_lost_error

    @property
    def was_refused_memory(self) -> bool:
        """It stood at its line to the end, where an rlimit that we armed refuses more."""
        line, curve, study = self.limits.memory_bytes, self.evidence.memory_curve, self.evidence.study
        if line is None or not self.evidence.armed:
            return False
        was_told = self.evidence.words.swallowed_memory > 0 or (study is not None and study.memory_errors > 0)
        if not was_told and (peak_bytes(self) < min(WALL_SHARE * line, line - ROOM_BYTES) or self.evidence.full_s >= STILL_S):
            return False  # it had got all that it ever asked for
        last = next((size for _, size in reversed(curve) if size), 0)  # a process that is about to be gone measures nothing
        return last >= (SOFT_SHARE if was_told else OUT_OF_MEMORY_SHARE) * line  # a large piece is refused long before the brim

    @property
    def refused_from_bytes(self) -> float:
        """From where on a MemoryError is our line's doing: from its soft line where we armed an rlimit there, which counts a thread's reserves as well."""
        armed_from = soft_line(self.limits) if self.evidence.armed else None
        return OUT_OF_MEMORY_SHARE * (self.limits.memory_bytes or 0) if armed_from is None else armed_from

    @property
    def gave_up_at_the_line(self) -> bool:
        """It ended by itself with its memory full, and there was no guard to say of what."""
        line = self.limits.memory_bytes
        is_own_end = self.evidence.exit.code is not None and not is_success(self)
        return is_own_end and not self.evidence.words.spoke and line is not None and peak_bytes(self) >= WALL_SHARE * line

    @property
    def swallows(self) -> bool:
        """RecursionErrors were raised and caught over and over, and it did little else when it ended."""
        breach, words, study = self.evidence.breach, self.evidence.words, self.evidence.study
        if breach is not None and breach.detail == SWALLOWED:
            return True
        if not self._goes_on(words.swallowed_recursion, words.swallowed_recursion_at):
            return False
        if study is None or study.looks < 2:
            return self._caught_per_s(words.swallowed_recursion_at) >= SWALLOWED_PER_S
        if study.pace is not Pace.BUSY:
            return False
        turns = {(frame.file, frame.function) for frame in words.cycle.frames} if words.cycle is not None else set()
        if not turns or not study.busy:  # they came from C code, or nobody can look
            return self._caught_per_s(words.swallowed_recursion_at) >= SWALLOWED_PER_S
        inside = sum(line.samples for line in study.busy if (line.frame.file, line.frame.function) in turns)
        return inside >= BUSY_SHARE * study.looks

    def _goes_on(self, caught: int, at: tuple[float, float] | None) -> bool:
        """Whether so many errors were still being caught when the limit struck: those of long ago are nobody's business."""
        if caught < SWALLOWED_ERRORS or at is None or not at[0]:
            return False
        rests_s = RESTS * (at[1] - at[0]) / (SWALLOWED_ERRORS - 1) + (UNTOLD_S if caught >= UNTOLD_FROM else SLACK_S)
        struck = self.evidence.struck_mono
        return struck - at[0] <= min(RECENT_S, RECENT_SHARE * self.evidence.duration_s) and struck - at[1] <= rests_s

    @staticmethod
    def _caught_per_s(at: tuple[float, float] | None) -> float:
        return 0.0 if at is None else (SWALLOWED_ERRORS - 1) / max(at[1] - at[0], 1e-3)

    @property
    def swallows_memory_errors(self) -> bool:
        """MemoryErrors were raised and caught over and over, near its line and to the end; up to 3.11 nobody counts them, and a look catches one in flight
        only by luck."""
        study, words = self.evidence.study, self.evidence.words
        seen = study is not None and study.memory_errors >= MEMORY_ERRORS_SEEN and 2 * study.at_limit > study.looks
        is_near = self.limits.memory_bytes is not None and peak_bytes(self) >= self.refused_from_bytes
        return seen or (is_near and self._goes_on(words.swallowed_memory, words.swallowed_memory_at))

    @property
    def fills_the_stack(self) -> bool:
        """So deep at its end, and so much the same, that the stack itself is what grew; or tasks or processes that make themselves."""
        if self.cycle is None or (self.cycle is self.evidence.words.cycle and self._is_old_cycle):
            return False
        if self.cycle.kind is CycleKind.TASKS:
            line = self.limits.memory_bytes
            ended_by_memory = self.evidence.exit.killed_for == LimitName.MEMORY or bool(self.evidence.exit.oom_kills)
            return ended_by_memory or (line is not None and peak_bytes(self) >= TASKS_FILL * line)
        if self.cycle.kind is not CycleKind.FRAMES or self.climbed is not None:
            return True
        return self._depth_at_end > FILLING_FRAMES and not self._stands_deep

    @property
    def _stands_deep(self) -> bool:
        """As deep as it is, it got no deeper while it ran into another line: in the last second before time or CPU time ran out, or while memory filled from
        the soft line on by what stands below its cycle. Deep is not endless."""
        look, soft, limit = self.evidence.look, self.evidence.soft_look, self.evidence.exit.killed_for
        if limit in (LimitName.TIME, LimitName.CPU, LimitName.STALL):
            return self.evidence.steady_s >= STEADY_S
        if soft is None or not (limit == LimitName.MEMORY or self.is_out_of_memory):
            return False
        # Twice at the same depth may be one moment of a process that had no turn in between: so what fills memory has to stand outside of the cycle.
        at_end = max(
            look.depth if look is not None and look is not soft else 0, self.error.depth if self.error and self.is_out_of_memory else 0
        )
        return abs(at_end - soft.depth) <= STEADY_LEVELS and self._is_below_its_cycle(soft)

    def _is_below_its_cycle(self, look: Look) -> bool:
        """Whether the application's innermost function is none of those that call each other."""
        deepest = max(look.stacks, key=lambda stack: stack.depth, default=None)
        inner = next((frame for frame in deepest.frames if is_own(frame)), None) if deepest is not None else None
        turning = {(frame.file, frame.function) for frame in self.cycle.frames} if self.cycle is not None else set()
        return inner is not None and (inner.file, inner.function) not in turning

    @property
    def _is_old_cycle(self) -> bool:
        """The guard named it at a RecursionError that the job survived, however long ago."""
        return self.evidence.words.swallowed_recursion > 0 and self.overrun is None

    @property
    def _depth_at_end(self) -> int:
        """The best witness of the end: the look, or what ran out of memory before it; else the traceback or the guard's cycle, else the deepest sample."""
        words, look = self.evidence.words, self.evidence.look
        error = self.error.depth if self.error else 0
        if look is not None and look.depth:
            return max(look.depth, error if self.is_out_of_memory else 0)
        return max(error, words.cycle.depth if words.cycle else 0) or self.evidence.depth_peak

    @property
    def was_oom_killed(self) -> bool:
        """The kernel's OOM killer ended the main process: by its log, or, where that cannot be read, by the host's count."""
        victims = self.evidence.oom_victims
        if victims is not None:
            return any(victim.is_main for victim in victims)
        return bool(self.evidence.host_oom_kills)

    @property
    def lost_workers(self) -> int:
        """How many other processes of the tree the kernel's OOM killer ended: by the job's cgroup, else by the kernel's log."""
        return self.evidence.exit.oom_kills or sum(not victim.is_main for victim in self.evidence.oom_victims or ())

    @property
    def runs_away(self) -> bool:
        return self.swallows or self.fills_the_stack

    @property
    def after(self) -> str:
        return f"after {about_duration(self.evidence.duration_s)}"


Rule = Callable[[Case], Finding | None]


def _cycle_in(look: Look | None) -> Cycle | None:
    """What repeats in the stacks of a look, the deepest first."""
    stacks = sorted(look.stacks, key=lambda stack: -stack.depth) if look else ()
    return next((found for stack in stacks if (found := find_cycle_in_frames(stack.frames, stack.depth))), None)


def is_success(case: Case) -> bool:
    """Whether it ended with an exit code that the job's config calls a success."""
    return case.evidence.exit.code is not None and case.evidence.exit.code in case.expect.success_exit_codes


def peak_bytes(case: Case) -> int:
    """The most memory that anybody saw, by our samples, by rusage, or by its cgroup."""
    kernel = case.evidence.exit.memory_peak_bytes
    return max(case.evidence.memory_peak_bytes, case.evidence.exit.max_rss_bytes, kernel or 0)
