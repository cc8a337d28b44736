"""Where in a process a CPython runtime lies: from its executable or libpython, by name of symbol.

Leaves what is *in* the runtime to ``layout``. Binaries are read once and remembered by device, inode and time of change.
"""

import errno
import os
import re
from collections.abc import Iterator

from msgspec import Struct

from supervisor.cpython.elf import Image, read_image
from supervisor.cpython.memory import Memory
from supervisor.errors import GoneError, LayoutError, NotPythonError, NotYetError

TYPE_SYMBOLS = {
    "PyLong_Type": "int",
    "PyBool_Type": "bool",
    "PyFloat_Type": "float",
    "PyUnicode_Type": "str",
    "PyBytes_Type": "bytes",
    "PyByteArray_Type": "bytearray",
    "PyList_Type": "list",
    "PyTuple_Type": "tuple",
    "PyDict_Type": "dict",
    "PySet_Type": "set",
    "PyFrozenSet_Type": "frozenset",
    "PyCell_Type": "cell",
    "_PyNone_Type": "NoneType",
}
_SYMBOLS = ("_PyRuntime", "Py_Version", "PyCode_Type", "PyExc_RecursionError", *TYPE_SYMBOLS)

_LIBRARY = re.compile(r"/libpython3\.\d+[a-z]*\.so[.\d]*( \(deleted\))?$")
_NEEDED = re.compile(r"libpython3\.\d+")
_MAX_REMEMBERED = 256
_MAX_MAPS_BYTES = 4 << 20

FileKey = tuple[int, int, int]
_images: dict[FileKey, Image] = {}


class Binary(Struct, frozen=True):
    """The file that holds the interpreter: the executable itself or a libpython. ``program`` is the executable to start it by.

    ``may_be_run`` is False if somebody other than root or ourselves could have changed either file.
    """

    path: str
    inode: int
    mtime_ns: int
    program: str
    may_be_run: bool


class Target(Struct, frozen=True):
    """A process with a CPython in it: its memory, the addresses of the symbols that we use, the version (major, minor)."""

    pid: int
    memory: Memory
    symbols: dict[str, int]
    version: tuple[int, int]
    binary: Binary

    @property
    def runtime(self) -> int:
        return self.symbols["_PyRuntime"]


def locate(pid: int, proc: str = "/proc") -> Target:
    """Find the interpreter of process *pid*. ``NotPythonError``, ``NotYetError``, ``GoneError`` or ``LayoutError`` if there is none to read."""
    image, base, binary = _image_of(pid, proc)
    if "Py_Version" not in image.symbols:
        raise LayoutError(f"{binary.path} is a Python older than 3.11, which cannot be read from outside")
    bias = image.bias(base)
    symbols = {name: value + bias for name, value in image.symbols.items()}
    missing = [name for name in _SYMBOLS if name not in symbols]
    if missing:
        raise LayoutError(f"{binary.path} does not export {', '.join(missing)}")
    memory = Memory.of(pid, proc)
    try:
        number = memory.pointer(symbols["Py_Version"])
        version = (number >> 24 & 0xFF, number >> 16 & 0xFF)
        if version[0] != 3:
            raise NotYetError(f"the version of {binary.path} reads as {version[0]}.{version[1]}")
    except LayoutError:
        memory.close()
        raise
    return Target(pid, memory, symbols, version, binary)


def _image_of(pid: int, proc: str) -> tuple[Image, int, Binary]:
    """The image that defines the runtime, the address of its first byte in the process, and its file."""
    program, executable, program_stat = _open_image(pid, f"{proc}/{pid}/exe")
    own = executable.symbols
    if "_PyRuntime" in own:
        base = _mapped_at(pid, proc, program_stat)
        return executable, base, _binary(program, program_stat, program, program_stat)
    for start, span, path in _libraries(pid, proc):
        library, stat = _open_library(pid, proc, span, path)
        if "_PyRuntime" in library.symbols:
            return library, start, _binary(path, stat, program, program_stat)
    if any(_NEEDED.match(name) for name in executable.needed):
        raise NotYetError(f"{program} has not loaded its libpython yet")
    raise NotPythonError(f"{program} is not a CPython")


def _binary(path: str, stat: os.stat_result, program: str, program_stat: os.stat_result) -> Binary:
    trusted = all(s.st_uid in (0, os.geteuid()) and not s.st_mode & 0o022 for s in (stat, program_stat))
    return Binary(path, stat.st_ino, stat.st_mtime_ns, program, trusted)


def _open_image(pid: int, link: str) -> tuple[str, Image, os.stat_result]:
    try:
        path = os.readlink(link)
        stat = os.stat(link)
        known = _images.get(_key(stat))
        return path, known or _read(link), stat
    except OSError as err:
        raise _refusal(pid, link, err) from err


def _open_library(pid: int, proc: str, span: str, path: str) -> tuple[Image, os.stat_result]:
    """By its mapping (right even if the file was replaced, needs privilege), else by its path in the process's own root."""
    shown = path.removesuffix(" (deleted)")
    for candidate in (f"{proc}/{pid}/map_files/{span}", f"{proc}/{pid}/root{shown}"):
        try:
            stat = os.stat(candidate)
            known = _images.get(_key(stat))
            return known or _read(candidate), stat
        except OSError as err:
            last = err
    raise LayoutError(f"{path}, mapped by process {pid}, cannot be read ({last.strerror})") from last


def _read(path: str) -> Image:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        image = read_image(fd, _SYMBOLS)
        if len(_images) >= _MAX_REMEMBERED:
            _images.clear()
        _images[_key(os.fstat(fd))] = image
        return image
    finally:
        os.close(fd)


def _key(stat: os.stat_result) -> FileKey:
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


def _maps(pid: int, proc: str) -> Iterator[tuple[str, str, int, int, str]]:
    """(address range, offset, device number, inode, path) of each file mapping, as in proc_pid_maps(5)."""
    try:
        with open(f"{proc}/{pid}/maps", "rb") as file:
            text = file.read(_MAX_MAPS_BYTES).decode(errors="surrogateescape")
    except OSError as err:
        raise _refusal(pid, f"{proc}/{pid}/maps", err) from err
    if not text:
        raise GoneError(f"process {pid} has gone")
    for line in text.splitlines():
        parts = line.split(None, 5)
        if len(parts) == 6 and parts[5].startswith("/"):
            major, minor = parts[3].split(":")
            yield parts[0], parts[2], os.makedev(int(major, 16), int(minor, 16)), int(parts[4]), parts[5]


def _libraries(pid: int, proc: str) -> Iterator[tuple[int, str, str]]:
    for span, offset, _, _, path in _maps(pid, proc):
        if int(offset, 16) == 0 and _LIBRARY.search(path):
            yield int(span.split("-")[0], 16), span, path


def _mapped_at(pid: int, proc: str, stat: os.stat_result) -> int:
    for span, offset, _, inode, _ in _maps(pid, proc):
        # By inode alone: the device differs between stat and maps on overlay and btrfs.
        if inode == stat.st_ino and int(offset, 16) == 0:
            return int(span.split("-")[0], 16)
    raise NotYetError(f"the executable of process {pid} is not mapped yet")


def _refusal(pid: int, path: str, err: OSError) -> LayoutError:
    if err.errno in (errno.ENOENT, errno.ESRCH):
        return GoneError(f"process {pid} has gone")
    return LayoutError(f"{path} cannot be read ({err.strerror})")
