"""The three standard streams of a command: descriptors that are really there, output whose loss is said, complaints whose loss is borne.

Whoever starts us may have closed any of the three. The next file, pipe or socket that we open would then stand in its place, and what is written to
stdout would go there.
"""

import io
import os
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from supervisor.errors import SupervisorError

T = TypeVar("T")

_USELESS: Final = (os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)  # EBADF for whoever reads stdin or writes stdout, as from one that is closed


class OutputError(SupervisorError):
    """What was asked for cannot be written to stdout."""

    def __init__(self, err: OSError) -> None:
        super().__init__(f"cannot write the output: {err.strerror}")


class _Output(io.TextIOWrapper):
    """stdout: ``OutputError`` for all but a reader that has gone (``BrokenPipeError``)."""

    def write(self, text: str) -> int:
        return self._told(lambda: super(_Output, self).write(text))

    def flush(self) -> None:
        self._told(super().flush)

    @staticmethod
    def _told(work: Callable[[], T]) -> T:
        try:
            return work()
        except BrokenPipeError:
            raise
        except OSError as err:
            raise OutputError(err) from err


class _Complaints(io.TextIOWrapper):
    """stderr: where nobody can be told, the work goes on and its exit code speaks."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            return


def settle() -> None:
    """Put something in place of each descriptor that is closed (no child inherits it), and our kinds of stream over stdout and stderr."""
    for number, mode in enumerate(_USELESS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode | os.O_CLOEXEC)  # takes the lowest that is free, which is this one
    sys.stdout = _over(1, _Output)
    sys.stderr = _over(2, _Complaints)


def hand_on() -> None:
    """For the next program of this process: what stands in place of a closed descriptor stays, and takes whatever is written to it."""
    for number in range(3):
        if not os.get_inheritable(number):
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, number)
            os.close(null)


def abandon_stdout() -> None:
    """What stdout has not taken by now is dropped: taking the interpreter apart must not stumble over it again."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def _over(number: int, kind: type[io.TextIOWrapper]) -> io.TextIOWrapper:
    """A stream like Python's own, but for characters that its encoding lacks: they are written as escapes."""
    was = sys.stdout if number == 1 else sys.stderr
    buffer = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
    encoding = "utf-8" if was is None else was.encoding
    return kind(buffer, encoding=encoding, errors="backslashreplace", line_buffering=number == 2 or os.isatty(number))
