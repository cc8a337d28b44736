"""Another process's memory as bounded reads, each of which works or raises ``LayoutError``; knows nothing of Python."""

import errno
import os
import struct
from typing import Self

from supervisor.errors import GoneError, LayoutError

_POINTER = struct.Struct("<Q")
_LOWEST = 0x1000  # the first page is never mapped: a smaller "pointer" is a torn or wrong read
_HIGHEST = 1 << 56


class Memory:
    """``/proc/PID/mem``, open for reading. The kernel asks for the same permission as for attaching a debugger."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def of(cls, pid: int, proc: str = "/proc") -> Self:
        """Open it. ``GoneError`` if there is no such process, ``LayoutError`` if we may not read it."""
        path = f"{proc}/{pid}/mem"
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.ESRCH):
                raise GoneError(f"process {pid} has gone") from err
            raise LayoutError(f"{path} cannot be opened ({err.strerror}): not our child, another user, or ptrace is restricted") from err

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def some(self, address: int, size: int) -> bytes:
        """Up to *size* bytes at *address*, fewer where the mapping ends. ``LayoutError`` if nothing is there."""
        if not _LOWEST <= address < _HIGHEST:
            raise LayoutError(f"0x{address:x} is not an address")
        if self._fd < 0:
            raise GoneError("this view of the process was closed")
        try:
            data = os.pread(self._fd, size, address)
        except OSError as err:
            if err.errno == errno.ESRCH:
                raise GoneError("the process has gone") from err
            raise LayoutError(f"0x{address:x} cannot be read: {err.strerror}") from err
        if not data:
            # The kernel answers 0 bytes once the address space was given up: at exit, or by execve.
            raise GoneError("the process has ended or runs another program now")
        return data

    def read(self, address: int, size: int) -> bytes:
        """Exactly *size* bytes at *address*."""
        data = self.some(address, size)
        if len(data) != size:
            raise LayoutError(f"0x{address:x}: {len(data)} of {size} bytes are mapped")
        return data

    def pointer(self, address: int) -> int:
        return int(_POINTER.unpack(self.read(address, 8))[0])
