"""The guard from outside: arms a job's environment with it and reads what it left in the report directory.

What it does inside the job is ``supervisor/guard/site``; where what is in its files is told in ``_mainstay_guard/files.py`` there. The
files are written by the job's own process, so nothing in them is trusted: whatever does not fit is as if it had not been written.
"""

import contextlib
import os
import re
import signal
import stat
from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from supervisor import proctree
from supervisor.arming import SITE, arm
from supervisor.core.cycle import Argument, Level, find_cycle
from supervisor.core.evidence import Cycle, ExceptionFacts, Frame, LastWords, MemoryType
from supervisor.core.taskcycle import Pair, Start, find_task_cycle

__all__ = ["SITE", "arm", "ask", "read_last_words", "swallowed", "tasks"]

_T = TypeVar("_T")
_HELLO = re.compile(rb"mainstay-guard 1 (\d{1,3}\.\d{1,3}\.\d{1,3}) pid (\d{1,10}) ppid \d{1,10} depth (\d{1,6}) *\n")
_HELLO_BYTES = 128
_HEX = re.compile(r"[0-9a-f]{1,16}")
_CELL_BYTES = 16
# RecursionErrors, MemoryErrors, limit asked for, finalized, limit, elsewhere, and two pairs of stamps.
_SWALLOWED_RECURSION, _CELLS = 128, 10
_FACTS = {"main": 1024, "thread": 9216, "unraisable": 17408, "lineage": 25600}
_FULL = {"main": 65536, "thread": 131072}
_SWALLOWS = (196608, 262144)
_CENSUS = 327680
_MAX_TYPES = 15
_TASKS = 41984
_ARGUMENTS = 393216
_MAX_RECORD_BYTES = 60000
_FATAL_DUMPS, _ASKED_DUMPS = 524288, 1572864
_MAX_DUMP_BYTES = _ASKED_DUMPS - _FATAL_DUMPS
_READ_BYTES = 65536
_MAX_PROCESSES = 320
_MAX_FRAMES = 512
_MAX_NAME = 500
_MAX_MESSAGE = 2000
_MAX_CHAIN = 8
_MAX_ORIGINS = 8
_MAX_ARGUMENTS = 24
_MAX_KINDS = 256

_ENDS_OF_RECURSION = ("RecursionError", "MemoryError", "SystemError")

_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Aborted": "SIGABRT",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}
_DUMP_FRAMES = 100  # where faulthandler stops; 3.13 does so without its "..."
_FATAL = re.compile(r"^Fatal Python error: (.{1,200})$", re.MULTILINE)
_STACK = re.compile(r"^(?:Current thread 0x[0-9a-f]+|Stack)(?: \[[^\]\n]*\])? \(most recent call first\):$", re.MULTILINE)
_PRINTED = re.compile(r'^  File "(.*)", line (\d{1,9}), in (.*)$')
_AGAIN = re.compile(r"^  \[Previous line repeated (\d{1,9}) more times?\]$")
_SAID = re.compile(r"^([A-Za-z_][\w.]{0,200})(?:: |$)")
_MAX_TEXT = 8000
_FRAME = re.compile(r'^  File "(.*)", line (\d{1,9}|\?\?\?) in (.*)$')


def read_last_words(report_dir: str, pid: int) -> LastWords:
    """What the guard left behind: of the job's main process *pid*, and where that says nothing, of the others of its tree.

    Never raises: what is missing, torn or nonsense leaves its field at the default.
    """
    directory = _open_directory(report_dir)
    if directory is None:
        return LastWords()
    try:
        return _read_tree(directory, pid)
    finally:
        os.close(directory)


class Guards:
    """The guards in the live processes of one attempt, who leave their reports in *report_dir*."""

    __slots__ = ("_report_dir",)

    def __init__(self, report_dir: str) -> None:
        self._report_dir = report_dir

    def swallowed(self, pid: int) -> tuple[int, int]:
        """See ``swallowed``."""
        return swallowed(self._report_dir, pid)

    def ask(self, pid: int) -> bool:
        """See ``ask``."""
        return ask(self._report_dir, pid)

    def tasks(self, pid: int) -> Cycle | None:
        """See ``tasks``."""
        return tasks(self._report_dir, pid)


def swallowed(report_dir: str, pid: int) -> tuple[int, int]:
    """How many RecursionErrors and MemoryErrors the code of the live process *pid* has caught so far (steps of 64 when there are many)."""
    raw = _plain(report_dir, pid, lambda fd: os.pread(fd, 2 * _CELL_BYTES, _SWALLOWED_RECURSION)) or b""
    return _number(raw[:_CELL_BYTES]), _number(raw[_CELL_BYTES:])


def ask(report_dir: str, pid: int) -> bool:
    """Ask the guard in the live process *pid* for its main thread's stack and what fills its memory; True if there is one to ask.

    ``tasks`` has its answer some tenths of a second later; the rest is read when it has ended (``read_stacks``, ``LastWords.memory_types``).
    SIGURG does nothing to a process without a guard.
    """
    hello = _plain(report_dir, pid, lambda fd: _HELLO.fullmatch(os.pread(fd, _HELLO_BYTES, 0)))
    return hello is not None and int(hello[2]) == pid and proctree.signal_process(pid, signal.SIGURG)


def tasks(report_dir: str, pid: int) -> Cycle | None:
    """The asyncio tasks that start each other, as the live process *pid* told when it was asked; None if there are none."""
    return _plain(report_dir, pid, lambda fd: _task_cycle(_record(fd, _TASKS)))


def _plain(report_dir: str, pid: int, read: Callable[[int], _T]) -> _T | None:
    """What *read* makes of the live process's records, None if there are none."""
    try:
        fd = os.open(f"{report_dir}/{pid}.rep", _FLAGS)
    except OSError:
        return None
    try:
        return read(fd) if _is_plain(fd) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def read_stacks(report_dir: str, pid: int) -> tuple[tuple[Frame, ...], ...]:
    """The stacks that process *pid* wrote on demand (signal SIGURG), oldest first, each innermost frame first. Never raises."""
    directory = _open_directory(report_dir)
    if directory is None:
        return ()
    try:
        return tuple(frames for frames, _ in _stacks(_asked_dumps(directory, pid)) if frames)
    finally:
        os.close(directory)


# ---------------------------------------------------------------- the tree


class _Process(Struct, frozen=True):
    """One guarded process: its words, how many guarded interpreters stand above it, and when it last wrote."""

    pid: int
    words: LastWords
    depth: int
    wrote_ns: int


def _read_tree(directory: int, pid: int) -> LastWords:
    processes = {found.pid: found for found in _processes(directory, pid)}
    refusals = [found.words.lineage for found in processes.values() if found.words.lineage is not None]
    lineage = max(refusals, key=lambda refusal: refusal[1], default=None)
    main = processes.pop(pid, None)
    others = sorted(processes.values(), key=lambda found: (found.depth, -found.wrote_ns))
    # Where the main process is no guarded Python (a shell, say), the interpreter nearest to it speaks for the job.
    nearest = replace(others[0].words, spoke=False) if others else LastWords()
    words = nearest if main is None else main.words
    if words.exception is None:
        words = _with_exception_of(others, words)
    asked = next((found.words.asked_frames for found in others if found.words.asked_frames), ())
    types = max((words.memory_types, *(found.words.memory_types for found in others)), key=lambda each: sum(entry.bytes for entry in each))
    tasks = words.tasks or next((found.words.tasks for found in others if found.words.tasks), None)
    return replace(words, lineage=lineage, memory_types=types, asked_frames=words.asked_frames or asked, tasks=tasks)


def _with_exception_of(others: list[_Process], words: LastWords) -> LastWords:
    for found in others:
        facts = found.words.exception
        if facts is not None and facts.where != "unraisable":
            return replace(words, exception=replace(facts, where="child"), cycle=words.cycle or found.words.cycle)
    return words


def _processes(directory: int, main: int) -> Iterator[_Process]:
    """The main process first, so that no flood of other files hides it."""
    pids = [main]
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for count, entry in enumerate(entries):
            name, _, suffix = entry.name.partition(".")
            if suffix == "rep" and name.isascii() and name.isdigit() and len(name) <= 10 and int(name) != main:
                pids.append(int(name))
            if len(pids) > _MAX_PROCESSES or count > 4 * _MAX_PROCESSES:
                break
    for pid in pids:
        found = _process(directory, pid)
        if found is not None:
            yield found


def _process(directory: int, pid: int) -> _Process | None:
    fd = _open(directory, f"{pid}.rep")
    if fd is None:
        return None
    try:
        hello = _HELLO.fullmatch(os.pread(fd, _HELLO_BYTES, 0))
        if hello is None or int(hello[2]) != pid:
            return None
        words = _words(fd, hello[1].decode("ascii"))
        wrote_ns = os.fstat(fd).st_mtime_ns
    except OSError:
        return None
    finally:
        os.close(fd)
    asked = next((frames for frames, _ in reversed(_stacks(_asked_dumps(directory, pid))) if frames), ())
    words = replace(_with_dump(words, _fatal_dumps(directory, pid)), asked_frames=asked)
    return _Process(pid, words, int(hello[3]), wrote_ns)


def _words(fd: int, python: str) -> LastWords:
    cells = os.pread(fd, _CELLS * _CELL_BYTES, _SWALLOWED_RECURSION)
    recursion, memory, asked, finalized, limit, elsewhere, *stamps = (
        _number(cells[i : i + _CELL_BYTES]) for i in range(0, _CELLS * _CELL_BYTES, _CELL_BYTES)
    )
    exception = next((facts for where in ("main", "thread", "unraisable") if (facts := _exception(fd, where)) is not None), None)
    return LastWords(
        spoke=True,
        python=python,
        finalized=finalized == 1,
        exception=exception,
        cycle=_cycle(exception, recursion, fd),
        asked_limit=asked or None,
        swallowed_recursion=recursion,
        swallowed_memory=memory,
        lineage=_lineage(_record(fd, _FACTS["lineage"])),
        memory_types=_types(_record(fd, _CENSUS)),
        tasks=_task_cycle(_record(fd, _TASKS)),
        recursion_limit=limit or None,
        dumps_elsewhere=elsewhere == 1,
        swallowed_recursion_at=_stamps(*stamps[:2]),
        swallowed_memory_at=_stamps(*stamps[2:]),
    )


def _stamps(sixteenth_ms: int, latest_ms: int) -> tuple[float, float] | None:
    return (sixteenth_ms / 1e3, latest_ms / 1e3) if latest_ms else None


def _types(record: dict[str, object] | None) -> tuple[MemoryType, ...]:
    types = record.get("types") if record is not None else None
    found = []
    for entry in types[:_MAX_TYPES] if isinstance(types, list) else ():
        match entry:
            case [str(name), int(count), int(size)] if count >= 0 and 0 <= size < 1 << 50:
                found.append(MemoryType(_clean(name, _MAX_NAME), count, size))
    return tuple(found)


def _cycle(exception: ExceptionFacts | None, recursion: int, fd: int) -> Cycle | None:
    """The cycle of an uncaught exception's stack, if it is of the kind that recursion ends in, else that of the RecursionErrors that were caught."""
    if exception is not None and any(name in text for text in (exception.type, *exception.chain) for name in _ENDS_OF_RECURSION):
        cycle = _cycle_of(exception.frames, exception.depth, _arguments_of(fd, exception.where))
        if cycle is not None:
            return cycle
    if exception is not None and (root := exception.root) is not None and root.type in _ENDS_OF_RECURSION:
        cycle = _cycle_of(root.frames, root.depth, _arguments_of(fd, "root"))
        if cycle is not None:
            return cycle
    if not recursion:
        return None
    looks = [look for look in (_record(fd, offset) for offset in _SWALLOWS) if look is not None]
    latest = max(looks, key=lambda look: _whole(look.get("n")), default=None)
    if latest is None:
        return None
    frames = _frames(latest)
    return _cycle_of(frames, max(len(frames), _whole(latest.get("depth"))), _arguments_of(fd, "swallowed"))


def _cycle_of(frames: tuple[Frame, ...], depth: int, arguments: list[tuple[Argument, ...]]) -> Cycle | None:
    """The cycle of *frames* (outermost first) with what is known of the innermost ones' *arguments* (innermost first)."""
    none: tuple[Argument, ...] = ()
    levels = [Level(frame, 0, arguments[i] if i < len(arguments) else none) for i, frame in enumerate(reversed(frames))]
    return find_cycle(levels, depth)


def _arguments_of(fd: int, where: str) -> list[tuple[Argument, ...]]:
    """What the guard wrote of the arguments of the stack *where*, innermost level first; nothing if it was another stack's."""
    record = _record(fd, _ARGUMENTS)
    levels = record.get("levels") if record is not None and record.get("where") == where else None
    return [_arguments(level) for level in levels[:_MAX_FRAMES]] if isinstance(levels, list) else []


def _arguments(level: object) -> tuple[Argument, ...]:
    found = []
    for argument in level[:_MAX_ARGUMENTS] if isinstance(level, list) else []:
        match argument:
            case [str(name), str(kind), int(identity), (int() | float() | None) as number, (int() | None) as length]:
                plain = None if isinstance(number, bool) else number
                found.append(Argument(_clean(name, 100), _clean(kind, 100), identity, plain, length))
    return tuple(found)


def _task_cycle(record: dict[str, object] | None) -> Cycle | None:
    if record is None:
        return None
    functions = _frames(record, "functions")
    waiting = record.get("tasks")
    if not isinstance(waiting, list) or len(waiting) != len(functions) or len(functions) > _MAX_KINDS:
        return None
    starts, pairs = record.get("starts"), record.get("pairs")
    return find_task_cycle(
        functions,
        [_whole(count) for count in waiting],
        [start for one in (starts if isinstance(starts, list) else [])[:_MAX_KINDS] if (start := _start(one, len(functions)))],
        [pair for one in (pairs if isinstance(pairs, list) else [])[:_MAX_KINDS] if (pair := _pair(one, len(functions)))],
    )


def _start(raw: object, functions: int) -> Start | None:
    match raw:
        case [int(starter), int(line), int(started), int(often)] if 0 <= starter < functions and 0 <= started < functions:
            return Start(starter, _whole(line), started, _whole(often))
    return None


def _pair(raw: object, functions: int) -> Pair | None:
    match raw:
        case [int(starter), given, int(started), handed] if 0 <= starter < functions and 0 <= started < functions:
            return Pair(starter, _arguments(given), started, _arguments(handed))
    return None


def _lineage(record: dict[str, object] | None) -> tuple[str, int] | None:
    if record is None:
        return None
    script, depth = _clean(record.get("script"), _MAX_NAME), _whole(record.get("depth"))
    return (script, depth) if script and depth else None


def _exception(fd: int, where: str) -> ExceptionFacts | None:
    """The fuller record if it belongs to the same exception as the facts (or those are torn), else the facts."""
    facts = _record(fd, _FACTS[where])
    full = _record(fd, _FULL[where]) if where in _FULL else None
    record = full if full is not None and (facts is None or full.get("n") == facts.get("n")) else facts
    if record is None:
        return None
    kind = _clean(record.get("type"), _MAX_NAME)
    if not kind:
        return None
    frames = _frames(record)
    causes = record.get("chain")
    chain = [_clean(cause, _MAX_NAME) for cause in causes[:_MAX_CHAIN]] if isinstance(causes, list) else []
    message = _clean(record.get("message"), _MAX_MESSAGE)
    depth = max(len(frames), _whole(record.get("depth")))
    causes, root = tuple(filter(None, chain)), _root(record.get("root"), where)
    return ExceptionFacts(kind, message, frames, depth, where, causes, _at(record), _raised(record), root, _origins(record, where))


def _at(record: dict[str, object]) -> str:
    told = record.get("at")
    return told if isinstance(told, str) and _HEX.fullmatch(told) else ""


def _origins(record: dict[str, object], where: str) -> tuple[ExceptionFacts, ...]:
    """The other exceptions that tell the bug, as far as they can be read."""
    told, found = record.get("origins"), []
    for one in told[:_MAX_ORIGINS] if isinstance(told, list) else ():
        if isinstance(one, dict) and (kind := _clean(one.get("type"), _MAX_NAME)):
            frames = _frames(one)
            found.append(ExceptionFacts(kind, "", frames, len(frames), where, at=_at(one)))
    return tuple(found)


def _raised(record: dict[str, object]) -> bool | None:
    by_hand = record.get("raised")
    return bool(by_hand) if isinstance(by_hand, int) else None


def _root(record: object, where: str) -> ExceptionFacts | None:
    """What an exception came from: one of the same process, or the text of another's traceback."""
    if not isinstance(record, dict):
        return None
    if isinstance(text := record.get("text"), str):
        return _of_text(text, _whole(record.get("levels")))
    kind = _clean(record.get("type"), _MAX_NAME)
    if not kind:
        return None
    frames = _frames(record)
    depth = max(len(frames), _whole(record.get("depth")))
    return ExceptionFacts(kind, _clean(record.get("message"), _MAX_MESSAGE), frames, depth, where, is_raised=_raised(record))


def _of_text(text: str, levels: int) -> ExceptionFacts | None:
    """A traceback as it is printed, of which the beginning may be missing; *levels* of it were told. Lines that repeat are told once, and then counted."""
    frames: list[Frame] = []
    depth, last = levels, ""
    for line in text[-_MAX_TEXT:].split("\n"):
        if line.startswith("Traceback (most recent call last):"):
            frames, depth = [], levels  # the last one is of what came out
        elif (found := _PRINTED.match(line)) is not None:
            frames.append(Frame(_clean(found[3], _MAX_NAME), _clean(found[1], _MAX_NAME), _whole(int(found[2]))))
        elif (again := _AGAIN.match(line)) is not None and frames:
            frames += [frames[-1]] * min(int(again[1]), _MAX_FRAMES)
            depth += int(again[1])
        elif (said := _SAID.match(line)) is not None:
            last = line if said[1] else last
    kind, _, message = last.partition(": ")
    if not kind:
        return None
    kept = tuple(frames[-_MAX_FRAMES:])
    return ExceptionFacts(_clean(kind, _MAX_NAME), _clean(message, _MAX_MESSAGE), kept, max(len(kept), depth), "child")


def _frames(record: dict[str, object], key: str = "frames") -> tuple[Frame, ...]:
    names, frames = record.get("files"), record.get(key)
    if not isinstance(names, list) or not isinstance(frames, list):
        return ()
    paths = [_clean(path, _MAX_NAME) for path in names[:_MAX_FRAMES]]
    found = []
    for frame in frames[:_MAX_FRAMES]:
        match frame:
            case [str(function), int(place), int(line)] if 0 <= place < len(paths):
                found.append(Frame(_clean(function, _MAX_NAME), paths[place], _whole(line)))
    return tuple(found)


# ---------------------------------------------------------------- faulthandler's dumps


def _with_dump(words: LastWords, text: str) -> LastWords:
    """*words* with the native crash that faulthandler wrote down; a stack without a headline is that of SIGXCPU."""
    fatal = list(_FATAL.finditer(text))
    stacks = _stacks(text[fatal[-1].end() :] if fatal else text)
    if not fatal and not stacks:
        return words
    frames, is_cut = (stacks[0] if fatal else stacks[-1]) if stacks else ((), False)
    error = fatal[-1][1] if fatal else ""
    signal = _SIGNALS.get(error, _clean(error, _MAX_NAME)) if fatal else "SIGXCPU"
    return replace(words, fatal_signal=signal, fatal_frames=frames, fatal_truncated=is_cut)


def _stacks(text: str) -> list[tuple[tuple[Frame, ...], bool]]:
    """The stacks of the threads that wrote a dump, each with whether faulthandler cut it; frames innermost first."""
    stacks = []
    for start in list(_STACK.finditer(text))[-64:]:
        frames: list[Frame] = []
        is_cut = False
        for line in text[start.end() + 1 :].split("\n", _MAX_FRAMES + 1)[:_MAX_FRAMES]:
            found = _FRAME.match(line)
            if found is None:
                is_cut = line == "  ..."
                break
            number = int(found[2]) if found[2].isdigit() else 0
            frames.append(Frame(_clean(found[3], _MAX_NAME), _clean(found[1], _MAX_NAME), _whole(number)))
        stacks.append((tuple(frames), is_cut or len(frames) >= _DUMP_FRAMES))
    return stacks


# ---------------------------------------------------------------- untrusted files

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _open_directory(path: str) -> int | None:
    try:
        return os.open(path, _FLAGS | os.O_DIRECTORY)
    except (OSError, ValueError):
        return None


def _open(directory: int, name: str) -> int | None:
    """A regular file with no second name, or None: a link would make us read for the job what it may not read itself."""
    try:
        fd = os.open(name, _FLAGS, dir_fd=directory)
    except OSError:
        return None
    if _is_plain(fd):
        return fd
    os.close(fd)
    return None


def _is_plain(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _fatal_dumps(directory: int, pid: int) -> str:
    """Of the process's fatal signals. A process that started before these had a place among the records has a file for them."""
    return _text(directory, f"{pid}.rep", _FATAL_DUMPS) or _text(directory, f"{pid}.fh", 0)


def _asked_dumps(directory: int, pid: int) -> str:
    return _text(directory, f"{pid}.rep", _ASKED_DUMPS) or _text(directory, f"{pid}.st", 0)


def _text(directory: int, name: str, offset: int) -> str:
    """What stands at *offset* of a file, up to the first byte that nobody wrote."""
    fd = _open(directory, name)
    if fd is None:
        return ""
    found = b""
    try:
        while len(found) < _MAX_DUMP_BYTES:
            written, hole, _ = os.pread(fd, _READ_BYTES, offset + len(found)).partition(b"\0")
            found += written
            if hole or not written:
                break
    except OSError:
        return ""
    finally:
        os.close(fd)
    return found[:_MAX_DUMP_BYTES].decode("utf-8", "replace")


def _record(fd: int, offset: int) -> dict[str, object] | None:
    """The record at *offset*, if its length line says that it is whole and it is a JSON object."""
    size = _number(os.pread(fd, _CELL_BYTES, offset))
    if not 0 < size <= _MAX_RECORD_BYTES:
        return None
    raw = os.pread(fd, size, offset + _CELL_BYTES)
    if len(raw) != size:
        return None
    import json  # 3 ms that a clean end has no use for

    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _number(cell: bytes) -> int:
    """15 digits and a newline; anything else is 0."""
    return int(cell) if len(cell) == _CELL_BYTES and cell[:-1].isdigit() and cell.endswith(b"\n") else 0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0


def _clean(value: object, most: int) -> str:
    """Text that is safe to store and to print: no half characters, no control characters but newline and tab."""
    if not isinstance(value, str):
        return ""
    text = value[:most].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text)
