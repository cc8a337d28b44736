"""The stretches of the wall clock whose fire times were dealt with, so that none runs twice although somebody sets the clock.

A clock that is only ever right gives one stretch, which grows. A clock that is set begins another one, or comes back into an old one, where
nothing is due until it passes the end. Knows instants only; which fire times there are is ``schedule``'s business.
"""

from datetime import timedelta
from typing import Final

from supervisor.core.model import Wall

Stretch = tuple[Wall, Wall]
STRETCHES_MAX: Final = 8  # more than these, and the two that lie closest become one
SURE: Final = timedelta(days=7)  # a clock that nobody set for so long is right: what it showed ahead of that was not


def place(lived: tuple[Stretch, ...], now: Wall) -> Wall | None:
    """Up to where fire times are dealt with: the end of the latest stretch that began by *now*; None before all of them."""
    begun = [stretch for stretch in lived if stretch[0] <= now]
    return max(begun)[1] if begun else None


def add(lived: tuple[Stretch, ...], begin: Wall, end: Wall) -> tuple[Stretch, ...]:
    """*lived* and from *begin* to *end*, ascending; stretches that touch are one."""
    joined: list[Stretch] = []
    for first, last in sorted((*lived, (begin, end))):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    while len(joined) > STRETCHES_MAX:
        nth = min(range(len(joined) - 1), key=lambda i: joined[i + 1][0] - joined[i][1])
        joined[nth : nth + 2] = [(joined[nth][0], joined[nth + 1][1])]
    return tuple(joined)


def forget_ahead(lived: tuple[Stretch, ...], now: Wall) -> tuple[Stretch, ...]:
    """*lived* without what begins after *now*: the clock was wrong when it showed that, and will show it again when it is true."""
    return tuple(stretch for stretch in lived if stretch[0] <= now)
