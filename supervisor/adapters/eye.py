"""The outside eye on one process: how deep its Python stands, what its threads are doing, what it waits for.

It decides nothing and never raises: what cannot be seen is said in ``Look.note``. Reading the interpreter is the business of
``cpython``, naming the cycle that of ``core.cycle``.
"""

import contextlib
import os
from enum import StrEnum

from supervisor.adapters.threads import Threads
from supervisor.core import cycle, waiting
from supervisor.core.evidence import Cycle, Frame, Look, Stack, Waiting
from supervisor.core.prose import is_own
from supervisor.core.study import Spot
from supervisor.cpython.reader import Depth, Interpreter, RawFrame, RawStack
from supervisor.errors import GoneError, LayoutError, NotPythonError, NotYetError

MAX_FRAMES = 400
MAX_THREADS = 32
_EAGER_TRIES = 64  # an interpreter is ready some 5 to 20 ms after its start; longer waits are for big machines under load
_LAZY_EVERY = 32
_MAX_REFUSALS = 60  # looks that are 2 ms apart and more: a busy machine may take its time between two half-built states of a start
GLIMPSE_FRAMES = 24  # enough to reach the application's own from the depths of a library


class EyeState(StrEnum):
    """What can be seen of the process at present."""

    STARTING = "starting"  # no interpreter yet; every look tries again
    SEEING = "seeing"
    NOT_PYTHON = "not_python"  # until it executes another program
    BLIND = "blind"  # a Python that cannot be read; the note says why. Until it executes another program
    GONE = "gone"


class Eye:
    """Looks into one process. Attaches by itself when there is something to attach to, and again after an exec."""

    def __init__(self, pid: int, cache_dir: str | None = None, *, proc: str = "/proc") -> None:
        self.pid = pid
        self.state = EyeState.STARTING
        self.note = "the interpreter has not started yet"
        self._cache_dir = cache_dir
        self._proc = proc
        self._interpreter: Interpreter | None = None
        self._program = ""
        self._tries = 0
        self._refusals = 0
        self._threads = Threads(pid, proc)

    @property
    def version(self) -> tuple[int, int] | None:
        """(major, minor) of the Python that is seen, None if none is."""
        return self._interpreter.version if self._interpreter else None

    def close(self) -> None:
        if self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = None

    def depth(self) -> Depth | None:
        """The depth of the deepest thread: some microseconds. None if it cannot be seen now; ``state`` and ``note`` say why."""
        interpreter = self._attached()
        if interpreter is None:
            return None
        try:
            return interpreter.depth()
        except LayoutError as err:
            self._lost(err)
            return None

    def look(self) -> Look:
        """Everything that is to be seen: stacks of all threads, the cycle of the deepest, what they wait for. About 1 ms for 100 frames.

        Call it while the process is stopped and the stacks fit each other exactly.
        """
        words = self._words()
        interpreter = self._attached(patient=False)
        if interpreter is None:
            return Look(waiting=words, note=self.note)
        try:
            return self._look(interpreter, words)
        except LayoutError as err:
            self._lost(err)
            return Look(waiting=words, note=f"the stacks could not be read: {err}")

    # ------------------------------------------------------------ attaching

    def _attached(self, *, patient: bool = True) -> Interpreter | None:
        if self._interpreter is not None or self.state is EyeState.GONE:
            return self._interpreter
        if self.state in (EyeState.NOT_PYTHON, EyeState.BLIND) and self._executable() in ("", self._program):
            return None
        self._tries += 1
        if patient and self._tries > _EAGER_TRIES and self._tries % _LAZY_EVERY:
            return None
        return self._attach()

    def _attach(self) -> Interpreter | None:
        program = self._executable()
        if program != self._program:
            self._program, self._tries, self._refusals = program, 0, 0
        try:
            self._interpreter = Interpreter.attach(self.pid, cache_dir=self._cache_dir, proc=self._proc)
        except GoneError as err:
            # An exec takes the old memory away as an exit does.
            self._say(EyeState.STARTING if self._executable() else EyeState.GONE, err)
        except NotPythonError as err:
            self._say(EyeState.NOT_PYTHON, err)
        except NotYetError as err:
            self._say(EyeState.STARTING, err)
        except LayoutError as err:
            # Half-built structures look like a foreign layout: only a refusal that lasts is believed.
            self._refusals += 1
            self._say(EyeState.BLIND if self._refusals >= _MAX_REFUSALS else EyeState.STARTING, err)
        else:
            self.state, self.note = EyeState.SEEING, ""
            self._tries = self._refusals = 0
        return self._interpreter

    def _say(self, state: EyeState, err: LayoutError) -> None:
        self.state, self.note = state, f"not seen from outside: {err}"

    def _lost(self, err: LayoutError) -> None:
        """A read failed. The process ended, executed something else, finalizes, or changed under us: attach afresh at the next look."""
        self.close()
        self._say(EyeState.STARTING, err)

    def _executable(self) -> str:
        """The program of the process with its inode, so that another one is noticed; "" if there is none."""
        link = f"{self._proc}/{self.pid}/exe"
        try:
            stat = os.stat(link)
            return f"{os.readlink(link)}:{stat.st_dev}:{stat.st_ino}"
        except OSError:
            return ""  # ended, or not ours to see: attaching finds out which

    # ------------------------------------------------------------ looking

    def _look(self, interpreter: Interpreter, words: str) -> Look:
        raw = interpreter.stacks(MAX_FRAMES, MAX_THREADS)
        if not raw:
            return Look(waiting=words, note="no thread's stack could be read")
        deepest = max(raw, key=lambda stack: (len(stack.frames), stack.depth))
        exceptions = [stack.exception for stack in (deepest, *raw) if stack.exception]
        partial = sum(not stack.complete and len(stack.frames) < MAX_FRAMES for stack in raw)
        return Look(
            stacks=tuple(
                _stack(stack) for stack in sorted(raw, key=lambda stack: (stack.thread != self.pid, stack is not deepest, stack.thread))
            ),
            cycle=self._cycle(interpreter, deepest),
            depth=max(_depth(stack) for stack in raw),
            recursion_limit=deepest.limit,
            exception_in_flight=exceptions[0] if exceptions else None,
            waiting=words,
            note=f"{partial} of {len(raw)} stacks changed while they were read and are cut" if partial else "",
        )

    def _cycle(self, interpreter: Interpreter, stack: RawStack) -> Cycle | None:
        """The cycle of a stack. One that lies in the library alone is told apart by who called into it, at the stack's other end."""
        levels = [_level(frame) for frame in stack.frames]
        found = cycle.find_cycle(levels, _depth(stack))
        if found is None or found.origin is not None or any(is_own(frame) for frame in found.frames):
            return found
        outer: list[Frame] = []
        with contextlib.suppress(LayoutError):  # it ran on meanwhile: then its name is the library's alone
            outer = [_frame(frame) for frame in interpreter.outermost(stack.thread)]
        return cycle.find_cycle(levels, _depth(stack), outer)

    # ------------------------------------------------------------ the kernel's side

    def _words(self) -> str:
        """What the threads do, in words, from /proc; "" if nothing is to be seen."""
        return waiting.process_words([thread.what for thread in self._threads.now()])

    def threads(self) -> tuple[Waiting, ...]:
        """What each thread does, with the kernel's own names for it."""
        return tuple(Waiting(self.pid, each.thread, each.what, each.wchan, each.call) for each in self._threads.now())

    def glimpse(self) -> tuple[Spot, ...]:
        """All threads at this moment, without stopping them: some 0.5 ms for an interpreter with a few threads."""
        stacks = self._few_frames()
        spots = []
        for each in self._threads.now():
            raw, may_stand = stacks.pop(each.thread, (None, False))
            spots.append(self._spot(each.thread, each.what, each.cpu_ticks, each.switches, raw, may_stand=may_stand))
        # In a pid namespace of its own the interpreter knows its threads by other numbers than the kernel tells us.
        return (*spots, *(self._spot(thread, "", 0, 0, raw, may_stand=may_stand) for thread, (raw, may_stand) in stacks.items()))

    def _few_frames(self) -> dict[int, tuple[RawStack, bool]]:
        interpreter = self._attached(patient=False)
        if interpreter is None:
            return {}
        try:
            stacks = interpreter.stacks(GLIMPSE_FRAMES, MAX_THREADS)
            return {stack.thread: (stack, bool(stack.frames) and not interpreter.is_jump(stack.frames[0])) for stack in stacks}
        except LayoutError as err:
            self._lost(err)
            return {}

    def _spot(self, thread: int, what: str, cpu_ticks: int, switches: int, raw: RawStack | None, *, may_stand: bool) -> Spot:
        if raw is None or not raw.frames:
            return Spot(self.pid, thread, what, cpu_ticks, switches)
        innermost = raw.frames[0]
        frames = tuple(_frame(frame) for frame in raw.frames)
        return Spot(self.pid, thread, what, cpu_ticks, switches, frames, (innermost.code, innermost.offset), may_stand, raw.exception)


def _depth(stack: RawStack) -> int:
    """The interpreter's own count, which is what it holds against its limit; at least what was seen."""
    return max(stack.depth, len(stack.frames))


def _stack(stack: RawStack) -> Stack:
    # Seen to its end, the frames are the truth: the counter of 3.11 has calls through C in it.
    depth = len(stack.frames) if stack.complete else _depth(stack)
    return Stack(stack.thread, tuple(_frame(frame) for frame in stack.frames), depth)


def _frame(frame: RawFrame) -> Frame:
    return Frame(frame.function, frame.file, frame.line)


def _level(frame: RawFrame) -> cycle.Level:
    arguments = tuple(cycle.Argument(name, value.type, value.identity, value.number, value.length) for name, value in frame.arguments)
    return cycle.Level(_frame(frame), frame.code, arguments)
