"""Writes the file of ``exec --report``: whole or not at all, for its owner alone. Devices, pipes and descriptors are written to as they are."""

import contextlib
import os
import stat
from typing import Final

LINKS_MAX: Final = 40  # as the kernel's MAXSYMLINKS


def write_report(path: str, text: str) -> None:
    """*text* as the file *path*, which is a new one (0600) even where there was one, or a link. ``OSError``; then what was there is untouched.

    Where *path* leads to no file of its own (a FIFO, /dev/stdout) *text* is written behind what was written there before.
    """
    data = text.encode()
    if _is_replaceable(path):
        _replace(path, data)
    else:
        _write(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC), data)


def _replace(path: str, data: bytes) -> None:
    draft = os.path.join(os.path.dirname(path), f".mainstay-report-{os.urandom(8).hex()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, data, to_disk=True)
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _write(fd: int, data: bytes, *, to_disk: bool = False) -> None:
    with os.fdopen(fd, "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        if to_disk:
            os.fsync(file)  # some file systems tell only here that there is no room; and a rename may reach the disk before what it names


def _is_replaceable(path: str) -> bool:
    """Whether another file may take the place of *path*: a regular one, a link to one or to nothing, or nothing. Not a name of our own descriptors."""
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
    for _ in range(LINKS_MAX):
        folder = os.path.dirname(path)
        if (os.path.realpath(folder) + "/").startswith("/proc/") or os.path.realpath(folder) == "/dev":  # /dev/fd is /proc/self/fd
            return False
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:  # the end of the chain
            break
    return True
