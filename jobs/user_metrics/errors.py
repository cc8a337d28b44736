"""How a run can fail: one line that names the place and the mend, and an exit code that scripts can tell apart."""

from enum import IntEnum


class Code(IntEnum):
    """Exit codes; the numbers above 2 are those of sysexits.h."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TOO_MANY_REJECTED = 65  # EX_DATAERR: the last good snapshot stays in place
    ALREADY_RUNNING = 75  # EX_TEMPFAIL: try again


class JobError(Exception):
    """The run cannot go on; the text is one line for a person, ``code`` the exit code."""

    def __init__(self, text: str, code: Code = Code.FAILED) -> None:
        super().__init__(text)
        self.code = code


class MetricError(Exception):
    """One metric cannot be had (a bound was reached); the others are not touched by it."""
