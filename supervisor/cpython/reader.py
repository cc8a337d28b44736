"""A live CPython seen from outside: depth and limit, the stacks of its threads, the exception in flight.

The process is not stopped and does not notice; so everything read may be half changed, every loop is bounded, every pointer is
checked, and what does not hold together is read again. Offsets come from ``layout``, decoding from ``objects`` and ``lines``.
"""

import os
import struct
from collections import deque
from collections.abc import Iterator
from typing import Self

from msgspec import Struct

from supervisor.cpython.calibration import calibrate
from supervisor.cpython.layout import Layout, layout_of, read_offsets
from supervisor.cpython.lines import line_at
from supervisor.cpython.memory import Memory
from supervisor.cpython.objects import Objects, Value
from supervisor.cpython.target import TYPE_SYMBOLS, Target, locate
from supervisor.errors import GoneError, LayoutError, NotYetError

_MAX_THREADS = 256
_MAX_INTERPRETERS = 16
_MAX_CODES = 4096
_MAX_ARGUMENTS = 24
_MAX_TABLE_BYTES = 1 << 20
_CHUNK_BYTES = 16 << 10  # the size CPython gives a data-stack chunk unless one frame needs more
_MAX_CHUNK_BYTES = 1 << 20
_CHUNKS_AHEAD = 4
_MAX_LEVELS = 150_000
OVERRUN_WORDS = ("maximum recursion depth exceeded", "Stack overflow")
_TRIES = 6  # a walk of a running, fast-changing stack fails in about 1 % of tries
_CHECKS = 40
_SMALLEST_LIMIT, _LARGEST_LIMIT = 1, 1 << 31
_FRAME_OF_C = 3  # owners from here on are no Python frames but the interpreter's own
_CO_VARARGS, _CO_VARKEYWORDS = 4, 8
# JUMP_BACKWARD in its specialised and instrumented forms too (Include/opcode.h, opcode_ids.h)
_JUMPS = {(3, 11): (38, 134, 140), (3, 12): (134, 140, 246), (3, 13): (77, 78, 249), (3, 14): (75, 76, 175, 176, 253)}

_U64 = struct.Struct("<Q")
_PAIR = struct.Struct("<ii")
_COUNTS = struct.Struct("<iii")


class Depth(Struct, frozen=True):
    """How deep the deepest thread stands. ``frames`` is what the interpreter itself counts (3.11: calls through C too), ``limit`` where
    it means to stop; ``recursion_error``: in some thread a RecursionError is being raised at this moment."""

    frames: int
    limit: int
    recursion_error: bool
    thread: int


class RawFrame(Struct, frozen=True):
    """One level: ``function`` is the qualified name, ``code`` the address of its code object (same function, same address), ``offset`` that of its
    instruction in the bytecode."""

    function: str
    file: str
    line: int
    code: int
    arguments: tuple[tuple[str, Value], ...] = ()
    offset: int = 0


class RawStack(Struct, frozen=True):
    """One thread's stack, innermost frame first. ``depth`` is the interpreter's count, ``exception`` the type's name of the
    exception in flight; ``complete`` is False if the stack changed under us in every try or is longer than asked for."""

    thread: int
    frames: tuple[RawFrame, ...]
    depth: int
    limit: int
    exception: str | None
    complete: bool


class _Code(Struct, frozen=True):
    function: str
    file: str
    first_line: int
    table: bytes
    argument_names: tuple[str, ...]
    lines: dict[int, int]


class Interpreter:
    """The CPython of one process, from ``attach`` to ``close``. Every method may raise ``LayoutError``, nothing else."""

    def __init__(self, target: Target, layout: Layout) -> None:
        self.pid = target.pid
        self.version = target.version
        self._target = target
        self._memory = target.memory
        self._layout = layout
        symbols = target.symbols
        self._objects = Objects(target.memory, layout, {symbols[name]: kind for name, kind in TYPE_SYMBOLS.items()})
        self._code_type = symbols["PyCode_Type"]
        self._codes: dict[tuple[int, bytes], _Code] = {}
        self._recursion_error = target.memory.pointer(symbols["PyExc_RecursionError"])
        self._last_limit = 0
        self._span = _interpreter_span(layout)

    @classmethod
    def attach(cls, pid: int, *, cache_dir: str | None = None, proc: str = "/proc") -> Self:
        """Look into process *pid*. Takes under 1 ms the first time for a binary, 0.2 ms later; a calibration (3.14 and later) once 200 ms.

        ``NotYetError``: still starting, try again in some milliseconds. ``NotPythonError``: not before it has executed another program.
        ``GoneError``: ended. Another ``LayoutError``: cannot be read, the text says why; only one that lasts is to be believed, for an exec that is not
        over looks like a foreign layout too (Linux first maps the whole file in one piece, so for an instant the data is not where it belongs).
        """
        target = locate(pid, proc)
        try:
            interpreter = cls(target, _layout(target, cache_dir, proc))
            interpreter._check(proc)
        except LayoutError:
            target.memory.close()
            raise
        return interpreter

    def close(self) -> None:
        self._memory.close()

    # ------------------------------------------------------------ depth

    def depth(self) -> Depth:
        """The deepest thread and whether a RecursionError is in flight: three reads of 8 to 304 bytes for one thread."""
        for _ in range(_TRIES - 1):
            try:
                return self._depth()
            except (GoneError, NotYetError):
                raise
            except LayoutError:
                continue  # a thread ended while we walked the list
        return self._depth()

    def _depth(self) -> Depth:
        frames, limit, thread, error = -1, 0, 0, False
        at = self._layout.thread_native_id
        for address, block in self._threads(_MAX_THREADS):
            its_frames, its_limit = self._counters(address, block)
            if its_frames > frames:
                frames, limit, thread = its_frames, its_limit, _U64.unpack_from(block, at)[0]
            error = error or self._overruns(address, block, is_deep=2 * its_frames >= its_limit)
        if frames < 0:
            raise NotYetError("the interpreter has no threads")
        return Depth(frames, limit, error, thread)

    def _counters(self, address: int, block: bytes) -> tuple[int, int]:
        """(depth, limit) of a thread. setrecursionlimit writes the pair in two steps, so a new limit is read twice."""
        remaining, limit = _PAIR.unpack_from(block, self._layout.thread_recursion)
        if limit != self._last_limit:
            again, limit_again = _PAIR.unpack(self._memory.read(address + self._layout.thread_recursion, 8))
            if limit_again - again < limit - remaining:
                remaining, limit = again, limit_again
            self._last_limit = limit
        return max(0, limit - remaining), limit

    def _overruns(self, address: int, block: bytes, *, is_deep: bool) -> bool:
        """Whether a RecursionError of the interpreter's own is in flight in a thread: one that the job raised by hand has other words. One that is gone before
        it is read counts where the stack *is_deep*."""
        if self._exception_type(block) != self._recursion_error:
            return False
        at = self._layout.thread_exception or 0
        try:
            error = self._memory.pointer(address + at + 8) if self._layout.exception_is_type else _U64.unpack_from(block, at)[0]
            said = self._objects.message(error)
            is_still = self._memory.pointer(address + at) == _U64.unpack_from(block, at)[0]
        except GoneError:
            raise
        except LayoutError:
            return is_deep
        if said is not None and (is_still or said.startswith(OVERRUN_WORDS)):
            return said.startswith(OVERRUN_WORDS)
        return is_deep

    def _exception_type(self, block: bytes) -> int:
        """The address of the type of the exception in flight, 0 if there is none."""
        at = self._layout.thread_exception
        if at is None:
            return 0
        exception: int = _U64.unpack_from(block, at)[0]
        if not exception or self._layout.exception_is_type:
            return exception
        try:
            return self._memory.pointer(exception + 8)
        except GoneError:
            raise
        except LayoutError:
            return 0  # handled, freed and unmapped since we looked

    # ------------------------------------------------------------ threads

    def _threads(self, most: int) -> Iterator[tuple[int, bytes]]:
        """(address, first bytes) of the thread states of all interpreters of the process."""
        layout, memory = self._layout, self._memory
        start, size = self._span
        size_of_thread = layout.thread_size
        interpreter = memory.pointer(self._target.runtime + layout.interpreters_head)
        if not interpreter:
            raise NotYetError("the interpreter is not initialised yet")
        for _ in range(_MAX_INTERPRETERS):
            heads = memory.read(interpreter + start, size)
            thread = _U64.unpack_from(heads, layout.interpreter_threads - start)[0]
            while thread and most:
                block = memory.read(thread, size_of_thread)
                yield thread, block
                thread = _U64.unpack_from(block, layout.thread_next)[0]
                most -= 1
            interpreter = _U64.unpack_from(heads, layout.interpreter_next - start)[0]
            if not interpreter:
                return

    # ------------------------------------------------------------ stacks

    def stacks(self, max_frames: int = 400, max_threads: int = 32) -> list[RawStack]:
        """The stacks of up to *max_threads* threads, at most *max_frames* innermost frames each, newest thread first."""
        result = []
        for address, _ in list(self._threads(max_threads)):
            try:
                result.append(self._stack(address, max_frames))
            except GoneError:
                raise
            except LayoutError:
                continue  # this thread ended meanwhile
        return result

    def _stack(self, address: int, max_frames: int) -> RawStack:
        longest: list[RawFrame] = []
        whole = False
        block = self._memory.read(address, self._layout.thread_size)
        for frames, ended in self._tries(address, max_frames):
            if ended is not None:
                longest, whole = frames, ended
                break
            if len(frames) > len(longest):
                longest = frames
        depth, limit = self._counters(address, block)
        thread = _U64.unpack_from(block, self._layout.thread_native_id)[0]
        return RawStack(thread, tuple(longest), depth, limit, self._exception_name(block), whole)

    def _tries(self, address: int, max_frames: int) -> Iterator[tuple[list[RawFrame], bool | None]]:
        """(frames, was the outermost reached) of one walk after the other; None where the frames did not hold together.

        A copy fits the innermost frame read just before it if the stack has grown meanwhile, and the one read just after if it has
        shrunk: both are tried.
        """
        at = self._layout.thread_chunk
        for _ in range(_TRIES):
            block = self._memory.read(address, self._layout.thread_size)
            before = self._top_frame(block)
            copy = _Copy(self._memory, self._layout, _U64.unpack_from(block, at)[0])
            after = self._top_frame(self._memory.read(address, self._layout.thread_size))
            for start in (before, after):
                frames: list[RawFrame] = []
                try:
                    yield frames, self._walk(copy, start, max_frames, frames)
                except GoneError:
                    raise
                except LayoutError:
                    yield frames, None

    def outermost(self, thread: int, count: int = 16) -> tuple[RawFrame, ...]:
        """The *count* outermost frames of *thread*, innermost of them first: who began it all. Only while the process is stopped; some 100 ms for 100,000
        levels, and nothing beyond 150,000."""
        layout = self._layout
        for _, block in self._threads(_MAX_THREADS):
            if _U64.unpack_from(block, layout.thread_native_id)[0] != thread:
                continue
            copy = _Copy(self._memory, layout, _U64.unpack_from(block, layout.thread_chunk)[0])
            frame, last = self._top_frame(block), deque[int](maxlen=2 * count)
            for _ in range(_MAX_LEVELS):
                if not frame:
                    break
                last.append(frame)
                data, at = copy.find(frame)
                copy.forget_but(_CHUNKS_AHEAD)
                frame = _U64.unpack_from(data, at + layout.frame_previous)[0]
            else:
                return ()
            frames: list[RawFrame] = []
            self._walk(_Copy(self._memory, layout, 0), last[0], 2 * count, frames)
            return tuple(frames[-count:])
        return ()

    def _exception_name(self, block: bytes) -> str | None:
        kind = self._exception_type(block)
        try:
            return self._objects.type_name(kind) if kind else None
        except GoneError:
            raise
        except LayoutError:
            return None

    def _walk(self, copy: "_Copy", frame: int, max_frames: int, frames: list[RawFrame]) -> bool:
        """Append *frame* and its callers to *frames*; True if the outermost was reached. ``LayoutError`` if they do not hold together."""
        layout = self._layout
        codes: dict[int, _Code] = {}
        values: dict[int, Value | None] = {}
        for _ in range(2 * max_frames + 64):
            if not frame:
                return True
            if len(frames) >= max_frames:
                return False
            data, at = copy.find(frame)
            if data[at + layout.frame_owner] < _FRAME_OF_C:
                address = _U64.unpack_from(data, at + layout.frame_code)[0] & layout.pointer_mask
                code = codes.get(address)
                if code is None:
                    code = codes[address] = self._code(address)
                if (
                    code.file != code.function
                ):  # else a shim that 3.13 and later put between a class and its __init__; tracebacks hide it too
                    offset = _U64.unpack_from(data, at + layout.frame_instruction)[0] - address - layout.code_bytecode
                    line = _line(code, offset)
                    arguments = self._arguments(code, data, at + layout.frame_locals, values)
                    frames.append(RawFrame(code.function, code.file, line, address, arguments, offset))
            previous = _U64.unpack_from(data, at + layout.frame_previous)[0]
            if previous == frame:
                raise LayoutError("a frame is its own caller")
            frame = previous
        return False

    def _top_frame(self, block: bytes) -> int:
        frame: int = _U64.unpack_from(block, self._layout.thread_frame)[0]
        if self._layout.cframe_frame is None or not frame:
            return frame
        top = self._memory.pointer(frame + self._layout.cframe_frame)
        if not top:
            # 3.11 and 3.12 link this structure, which lies on the C stack, just before they fill it.
            top = self._memory.pointer(frame + self._layout.cframe_frame)
        return top

    # ------------------------------------------------------------ code

    def _code(self, address: int) -> _Code:
        """The code object at *address*; decoded once, as long as the pointers in it stay the same."""
        layout = self._layout
        raw = self._memory.read(address, layout.code_linetable + 8)
        if _U64.unpack_from(raw, 8)[0] != self._code_type:
            raise LayoutError("a frame's code is not a code object")
        key = (address, raw[layout.code_argcount :])
        known = self._codes.get(key)
        if known is None:
            if len(self._codes) >= _MAX_CODES:
                self._codes.clear()
            known = self._codes[key] = self._decode_code(raw)
        return known

    def _decode_code(self, raw: bytes) -> _Code:
        layout, objects = self._layout, self._objects
        table = _U64.unpack_from(raw, layout.code_linetable)[0]
        size = self._memory.pointer(table + 16)
        if size > _MAX_TABLE_BYTES:
            raise LayoutError("a location table has an impossible size")
        return _Code(
            function=objects.text(_U64.unpack_from(raw, layout.code_qualname)[0]),
            file=objects.text(_U64.unpack_from(raw, layout.code_filename)[0], 1000),
            first_line=_PAIR.unpack_from(raw, layout.code_first_line)[0],
            table=self._memory.read(table + 32, size) if size else b"",
            argument_names=self._argument_names(raw),
            lines={},
        )

    def _argument_names(self, raw: bytes) -> tuple[str, ...]:
        layout = self._layout
        positional, _, keyword = _COUNTS.unpack_from(raw, layout.code_argcount)
        flags = _PAIR.unpack_from(raw, layout.code_flags)[0]
        count = positional + keyword + bool(flags & _CO_VARARGS) + bool(flags & _CO_VARKEYWORDS)
        names = _U64.unpack_from(raw, layout.code_names)[0]
        if not 0 < count <= self._memory.pointer(names + 16):
            return ()
        count = min(count, _MAX_ARGUMENTS)
        items = self._memory.read(names + layout.tuple_items, 8 * count)  # 3.14 keeps a tuple's hash in front of them
        return tuple(self._objects.text(name, 100) for name in struct.unpack(f"<{count}Q", items))

    def is_jump(self, frame: RawFrame) -> bool:
        """Whether *frame* stands at a jump backwards; True also where that is not known. A loop of nothing else never leaves its one instruction."""
        jumps = _JUMPS.get(self.version)
        if jumps is None or frame.offset < 0:
            return True
        return self._memory.read(frame.code + self._layout.code_bytecode + frame.offset, 1)[0] in jumps

    def _arguments(self, code: _Code, data: bytes, at: int, values: dict[int, Value | None]) -> tuple[tuple[str, Value], ...]:
        result = []
        mask = self._layout.pointer_mask
        for i, name in enumerate(code.argument_names):
            if at + 8 * i + 8 > len(data):
                break
            address = _U64.unpack_from(data, at + 8 * i)[0] & mask
            if address not in values:
                values[address] = self._objects.value(address) if address else None
            value = values[address]
            if value is not None:
                result.append((name, value))
        return tuple(result)

    # ------------------------------------------------------------ self-check

    def _check(self, proc: str) -> None:
        """See that what the offsets lead to is an interpreter of this very process. ``LayoutError`` if not."""
        threads = list(self._threads(_MAX_THREADS))
        if not threads:
            raise NotYetError("the interpreter has no threads yet")
        self._check_threads([block for _, block in threads], _task_ids(self.pid, proc))
        empty = 0
        for _ in range(_CHECKS):
            stacks = self.stacks(max_frames=1)
            if any(stack.frames and stack.frames[0].file for stack in stacks):
                return
            empty += all(stack.complete for stack in stacks)
            if empty >= _TRIES:
                break
        if empty:
            raise NotYetError("the interpreter runs no Python code yet")
        raise LayoutError("no innermost frame can be read: this build has another layout, or its stack changes too fast")

    def _check_threads(self, blocks: list[bytes], tasks: set[int] | None) -> None:
        if not self._recursion_error:
            raise NotYetError("the interpreter has no exceptions yet")
        ids = {_U64.unpack_from(block, self._layout.thread_native_id)[0] for block in blocks}
        if tasks is not None and not ids & tasks:
            # Also a forked copy of another Python that has not executed its own program yet.
            raise NotYetError("the interpreter's threads are not threads of this process")
        for block in blocks:
            _, limit = _PAIR.unpack_from(block, self._layout.thread_recursion)
            if not _SMALLEST_LIMIT <= limit < _LARGEST_LIMIT:
                raise LayoutError(f"the recursion limit reads as {limit}: this build has another layout")


def _line(code: _Code, offset: int) -> int:
    line = code.lines.get(offset)
    if line is None:
        line = code.lines[offset] = line_at(code.table, code.first_line, offset)
    return line


class _Copy:
    """A thread's data stack, copied chunk by chunk: frames read one by one from a running process would not fit each other."""

    def __init__(self, memory: Memory, layout: Layout, newest: int) -> None:
        self._memory = memory
        self._layout = layout
        self._next = newest
        self._chunks: list[tuple[int, int, bytes]] = []
        for _ in range(_CHUNKS_AHEAD):
            self._load()

    def _load(self) -> bool:
        if not self._next:
            return False
        start = self._next
        raw = self._memory.some(start, _CHUNK_BYTES)
        if len(raw) < 16:
            raise LayoutError("a chunk of the data stack ends in the middle")
        previous, size = struct.unpack_from("<QQ", raw, 0)
        if _CHUNK_BYTES < size <= _MAX_CHUNK_BYTES:
            raw = self._memory.some(start, size)
        self._chunks.append((start, start + len(raw), raw))
        self._next = previous
        return True

    def forget_but(self, newest: int) -> None:
        """Give the chunks back that were read before the last *newest* ones: a walk to the other end does not come back to them."""
        del self._chunks[:-newest]

    def find(self, frame: int) -> tuple[bytes, int]:
        """(bytes, offset in them) of the frame at *frame*."""
        size = self._layout.frame_locals
        for start, end, raw in reversed(self._chunks):
            if start <= frame and frame + size <= end:
                return raw, frame - start
        alone = self._memory.some(frame, size + 8 * _MAX_ARGUMENTS)
        if len(alone) < size:
            raise LayoutError("a frame ends in the middle")
        # Frames of generators and of the interpreter lie elsewhere; one that a thread owns must be in a chunk further down.
        if alone[self._layout.frame_owner] == 0 and self._load():
            start, end, raw = self._chunks[-1]
            if start <= frame and frame + size <= end:
                return raw, frame - start
        return alone, 0


def _interpreter_span(layout: Layout) -> tuple[int, int]:
    """(offset, size) of the stretch of an interpreter state that holds both ``next`` and the list of threads."""
    low, high = sorted((layout.interpreter_next, layout.interpreter_threads))
    return low, high + 8 - low


def _layout(target: Target, cache_dir: str | None, proc: str) -> Layout:
    version, memory = target.version, target.memory

    def first_thread(its_memory: Memory, runtime: int) -> int:
        offsets = read_offsets(version, its_memory, runtime)
        interpreter = its_memory.pointer(runtime + offsets["runtime.interpreters_head"])
        return its_memory.pointer(interpreter + offsets["interpreter.threads_head"])

    return layout_of(version, memory, target.runtime, lambda: calibrate(target.binary, first_thread, cache_dir, proc))


def _task_ids(pid: int, proc: str) -> set[int] | None:
    """The thread ids of the process; None if it lives in a pid namespace of its own and so counts otherwise than we do."""
    try:
        with open(f"{proc}/{pid}/status", encoding="ascii", errors="replace") as file:
            spaces = [line for line in file if line.startswith("NSpid:")]
        if spaces and len(spaces[0].split()) > 2:
            return None
        return {int(name) for name in os.listdir(f"{proc}/{pid}/task")}
    except OSError as err:
        raise GoneError(f"process {pid} has gone") from err
