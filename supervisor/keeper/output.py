"""Moves what a child writes from its pipe to a file, without copying it through us (splice), and turns the file over when it is large."""

import contextlib
import os
from typing import Final

CHUNK: Final = 1 << 20
RETRY_PUMPS: Final = 64  # how often the file is passed over after it failed
TURNS: Final = 8  # chunks per wake-up, so that one flood does not starve the other pipes


class Capture:
    """One pipe and the file it goes to. ``written`` counts all bytes read, ``dropped`` those that are not on disk (any more)."""

    __slots__ = (
        "_drop",
        "_file",
        "_limit",
        "_max",
        "_null",
        "_size",
        "_skip",
        "_turned_over",
        "dropped",
        "over_limit",
        "path",
        "pipe",
        "written",
    )

    def __init__(self, pipe: int, path: str, max_bytes: int, limit_bytes: int | None = None, *, drop: bool = False) -> None:
        self.pipe = pipe
        self.path = path
        self.written = 0
        self.dropped = 0
        self.over_limit = False
        self._max = max_bytes
        self._limit = limit_bytes
        self._drop = drop
        self._null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self._size = 0
        self._turned_over = 0
        self._skip = 0  # pumps to go until a file that failed is tried again
        self._file = self._open()

    def _open(self) -> int:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._size = os.lseek(fd, 0, os.SEEK_END)  # not O_APPEND: splice refuses it
        except OSError:
            self._skip = RETRY_PUMPS  # no room or no folder: the job goes on, its output is counted as dropped
            return -1
        return fd

    def pump(self, turns: int = TURNS) -> bool:
        """Move what is there; False at end of file."""
        self._skip = max(0, self._skip - 1)
        for _ in range(turns):
            target = self._target()
            try:
                moved = os.splice(self.pipe, target, CHUNK, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                return True
            except OSError:
                if target == self._null:
                    return False
                os.close(self._file)  # disk full or an I/O error: let the job go on, count the loss
                self._file = -1
                self._skip = RETRY_PUMPS
                continue
            if moved == 0:
                return False
            self.written += moved
            if target == self._null:
                self.dropped += moved
            else:
                self._size += moved
                if self._size >= self._max:
                    self._turn_over()
            if self._limit is not None and self.written > self._limit:
                self.over_limit = True
        return True

    def _target(self) -> int:
        stored_out = self._drop and self._limit is not None and self.written >= self._limit
        if stored_out:
            return self._null
        if self._file < 0 and not self._skip:
            self._file = self._open()
        return self._null if self._file < 0 else self._file

    def _turn_over(self) -> None:
        os.close(self._file)
        with contextlib.suppress(OSError):
            os.replace(self.path, self.path + ".1")
        self.dropped += self._turned_over
        self._turned_over = self._size
        self._file = self._open()

    def drain(self) -> None:
        """Take what is left in the pipe without waiting for anybody who still holds it."""
        for _ in range(64):
            before = self.written
            if not self.pump() or self.written == before:
                break

    def close(self) -> None:
        """Let go of the pipe and the file."""
        for fd in (self.pipe, self._file, self._null):
            if fd >= 0:
                os.close(fd)
        self.pipe = self._file = self._null = -1
