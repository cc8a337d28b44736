"""The values behind the metrics page, kept small: a thousand jobs have a hundred and fifty series each, and most of them never move.

An owner (a job, a receiver, the daemon) has one number for all families of its scope. Where all label values are known beforehand, its values lie
in one row of an array of the family; only a family with open labels keeps a dictionary for each owner. Nothing here knows names or text.
"""

from array import array
from collections.abc import Iterator, Sequence
from math import isnan, nan
from typing import Protocol

Values = tuple[str, ...]  # of the labels beside the owner's, in the order of the declaration


class Owners:
    """Who has series in the families of one scope: name → row, in the order in which they came. Rows are used again."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._free: list[int] = []

    def add(self, owner: str) -> int:
        """The row of a new owner."""
        row = self._free.pop() if self._free else len(self.rows)
        self.rows[owner] = row
        return row

    def remove(self, owner: str) -> None:
        """Its row is free."""
        self._free.append(self.rows.pop(owner))


class Cells(Protocol):
    """The values of one family, by row and label values."""

    def clear(self, row: int) -> None: ...
    def get(self, row: int, values: Values) -> float | None: ...
    def put(self, row: int, values: Values, value: float) -> None: ...
    def drop(self, row: int, values: Values) -> bool: ...
    def items(self, row: int) -> Iterator[tuple[Values, float]]: ...
    def count(self) -> int: ...


class Grid:
    """Values whose labels are all known beforehand: a row of an array for each owner, NaN where there is none."""

    def __init__(self, known: Sequence[Values]) -> None:
        self._known = tuple(known)
        self._places = {values: place for place, values in enumerate(self._known)}
        self._cells = array("d")
        self._filled = 0

    def clear(self, row: int) -> None:
        """Make room for *row*, with nothing in it."""
        width = len(self._known)
        missing = (row + 1) * width - len(self._cells)
        if missing > 0:
            self._cells.extend(array("d", [nan]) * missing)
        self._filled -= sum(1 for _ in self.items(row))
        self._cells[row * width : (row + 1) * width] = array("d", [nan]) * width

    def get(self, row: int, values: Values) -> float | None:
        value = self._cells[row * len(self._known) + self._places[values]]
        return None if isnan(value) else value

    def put(self, row: int, values: Values, value: float) -> None:
        place = row * len(self._known) + self._places[values]
        self._filled += isnan(self._cells[place]) - isnan(value)
        self._cells[place] = value

    def drop(self, row: int, values: Values) -> bool:
        """Take it away; False when it was not there."""
        was = self.get(row, values) is not None
        self.put(row, values, nan)
        return was

    def items(self, row: int) -> Iterator[tuple[Values, float]]:
        begin = row * len(self._known)
        for values, value in zip(self._known, self._cells[begin : begin + len(self._known)], strict=True):
            if not isnan(value):
                yield values, value

    def count(self) -> int:
        """How many values there are."""
        return self._filled


class Loose:
    """Values of labels that are met as they come: a dictionary for each owner."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[Values, float]] = {}

    def clear(self, row: int) -> None:
        """Nothing is in *row*."""
        self._rows[row] = {}

    def get(self, row: int, values: Values) -> float | None:
        return self._rows[row].get(values)

    def put(self, row: int, values: Values, value: float) -> None:
        self._rows[row][values] = value

    def drop(self, row: int, values: Values) -> bool:
        """Take it away; False when it was not there."""
        return self._rows[row].pop(values, None) is not None

    def items(self, row: int) -> Iterator[tuple[Values, float]]:
        yield from self._rows[row].items()

    def count(self) -> int:
        """How many values there are."""
        return sum(map(len, self._rows.values()))


class Buckets:
    """Histograms: for each owner a count per bound and one above them all, not yet cumulative, and the sum of what was observed."""

    def __init__(self, bounds: int) -> None:
        self._width = bounds + 2
        self._cells = array("d")

    def set(self, row: int, counts: Sequence[float], total: float) -> None:
        """Put a whole histogram there."""
        missing = (row + 1) * self._width - len(self._cells)
        if missing > 0:
            self._cells.extend(array("d", [0.0]) * missing)
        self._cells[row * self._width : (row + 1) * self._width] = array("d", [*counts, total])

    def observe(self, row: int, bucket: int, value: float) -> None:
        self._cells[row * self._width + bucket] += 1
        self._cells[(row + 1) * self._width - 1] += value

    def counts(self, row: int) -> Sequence[float]:
        return self._cells[row * self._width : (row + 1) * self._width - 1]

    def sum(self, row: int) -> float:
        return self._cells[(row + 1) * self._width - 1]
