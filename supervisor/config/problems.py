"""Findings in a file, collected so that all are told at once, in the order in which they stand in the file.

What is right and wrong is decided elsewhere; here is only where it stood and how it is said.
"""

from typing import Protocol

from supervisor.core.redact import Redactor
from supervisor.core.units import quoted

MOST = 100  # nobody mends more in one go, and a hostile file of 1 MiB could hold a hundred thousand


class Place(Protocol):
    """Where something stands: line and column from 1, and the key path ("jobs.nightly.limits")."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...
    @property
    def path(self) -> str: ...


class Report:
    """The problems and warnings of one file. The same finding at the same place counts once: defaults are read again for each job."""

    def __init__(self, file: str) -> None:
        self.file = printable(file)
        self._problems: dict[str, tuple[int, int]] = {}
        self._warnings: dict[str, tuple[int, int]] = {}
        self._unsaid = 0

    @property
    def failed(self) -> bool:
        return bool(self._problems)

    @property
    def is_full(self) -> bool:
        """True when further problems are only counted, so that nobody needs to word them well."""
        return len(self._problems) >= MOST

    def problem(self, place: Place, finding: str) -> None:
        """A finding that makes the file unusable."""
        line = self._line(place, finding)
        if self.is_full:
            self._unsaid += line not in self._problems
        else:
            self._problems[line] = (place.line, place.column)

    def problem_elsewhere(self, place: Place, line: str) -> None:
        """A problem in another file (*line* names it) that the text at *place* refers to."""
        self._problems[line] = (place.line, place.column)

    def warn(self, place: Place, finding: str) -> None:
        """A finding that a person should know of, though the file can be used."""
        if len(self._warnings) < MOST:
            self._warnings[self._line(place, finding)] = (place.line, place.column)

    @property
    def problems(self) -> list[str]:
        lines = sorted(self._problems, key=self._problems.__getitem__)
        if self._unsaid:
            lines.append(f"{self.file}: {self._unsaid} more problems are not shown; mend these first")
        return lines

    @property
    def warnings(self) -> list[str]:
        return sorted(self._warnings, key=self._warnings.__getitem__)

    def _line(self, place: Place, finding: str) -> str:
        key = f" {printable(Redactor().text(place.path))}:" if place.path else ""  # environment: {PASSWORD=...} makes a key of it
        return f"{self.file}:{place.line}:{place.column}:{key} {finding}"


def printable(text: str) -> str:
    """*text* on one line, without control characters, cut where it would fill the screen."""
    return quoted(text, most=200)[1:-1]


def suggestion(text: str, known: list[str]) -> str:
    """What to write instead of *text*: the nearest of *known*, or all of them."""
    import difflib

    near = difflib.get_close_matches(text[:64], known, n=1)
    return f"did you mean {near[0]}?" if near else f"write one of: {', '.join(known)}"
