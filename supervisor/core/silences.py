"""When nobody is to be alerted: an operator's silences, and the maintenance windows of the config. What is held back meanwhile is ``dispatch``'s.

A silence or a window [start, end) holds back what a person would hear first; it changes nothing about the incident itself.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core import schedule
from supervisor.core.jobs import Job, Schedule, Window
from supervisor.core.model import Wall
from supervisor.core.prose import clean

SILENCES_MAX: Final = 20  # of one job at a time; each is remembered with the job
COMMENT_CHARS: Final = 200
LONGEST: Final = timedelta(days=366)


class Silence(Struct, frozen=True):
    """An operator's wish that nobody is alerted about a job. ``number`` counts the silences of the job."""

    number: int
    starts_at: Wall
    ends_at: Wall
    comment: str = ""


class Quiet(Struct, frozen=True):
    """Nobody is alerted now: ``until`` when, as far as is known, and ``why``, in words."""

    until: Wall
    why: str


def quiet(job: Job, silences: Sequence[Silence], now: Wall) -> Quiet | None:
    """Whether nobody is to be alerted about *job* now; of several reasons the one that lasts longest."""
    return max(_reasons(job, silences, now), key=lambda reason: reason.until, default=None)


def _reasons(job: Job, silences: Sequence[Silence], now: Wall) -> Iterator[Quiet]:
    for silence in silences:
        if silence.starts_at <= now < silence.ends_at:
            yield Quiet(silence.ends_at, f"silenced by an operator{f': {silence.comment}' if silence.comment else ''}")
    for window in job.maintenance:
        end = window_end(window, now)
        if end is not None:
            yield Quiet(end, f"maintenance window {window.name}")


def window_end(window: Window, now: Wall) -> Wall | None:
    """When the window that *now* stands in ends; None outside of it. Two that overlap are one: the later end counts."""
    length = timedelta(seconds=window.for_s)
    try:
        started = schedule.missed(Schedule(window.when), window.name, now - length, now, 1)
    except OverflowError:  # before the year 1 there were no windows
        return None
    return started[-1] + length if started else None


def added(silences: Sequence[Silence], now: Wall, for_s: float, comment: str) -> tuple[Silence, ...]:
    """*silences* and one more, from now on. ``ValueError`` in words when there are too many, or it lasts no time or too long."""
    current = standing(silences, now)
    if len(current) >= SILENCES_MAX:
        raise ValueError(f"it has {SILENCES_MAX} silences already; expire them first")
    if for_s <= 0:
        raise ValueError("a silence of no time silences nobody; write how long, e.g. 2h")
    if timedelta(seconds=for_s) > LONGEST:
        raise ValueError(f"a silence lasts at most {LONGEST.days} days; write a shorter one")
    number = max((silence.number for silence in silences), default=0) + 1
    return (*current, Silence(number, now, now + timedelta(seconds=for_s), clean(comment, COMMENT_CHARS)))


def expired(silences: Sequence[Silence], now: Wall) -> tuple[Silence, ...]:
    """*silences* once an operator has ended all of them: those that stand end now."""
    return tuple(replace(silence, ends_at=min(silence.ends_at, now)) for silence in silences)


def standing(silences: Sequence[Silence], now: Wall) -> tuple[Silence, ...]:
    """Those that are not over."""
    return tuple(silence for silence in silences if now < silence.ends_at)
