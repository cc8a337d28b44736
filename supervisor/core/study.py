"""Looks before a line: when they are due, and what they say together: busy at these lines, slow, or hanging.

A single look cannot tell a loop from a long call or a hang from a slow job. So the last seconds before a limit on time, progress or CPU time are
looked at a dozen times, and memory above its soft line whenever it has grown a little; nothing is looked at while no line is near.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from supervisor.core.evidence import BusyLine, Frame, Pace, Study
from supervisor.core.jobs import Limits
from supervisor.core.limits import SOFT_SHARE, Watched, deadline
from supervisor.core.model import LimitName, Mono
from supervisor.core.prose import is_ours, own_frames

LOOKS = 12
LEAD_S = 2.4  # before a line: looks are 0.2 s apart, of a line that is nearer than twice that in proportion
STEP_MIN_S = 0.02
GROWTH_SHARE = 0.01  # of the memory limit, between two looks above the soft line
GROWTH_LOOKS = 40  # kept while memory grows; a job that goes up and down above its soft line is not looked at for ever
LINES = 8
BUSY_SHARE = 0.5
STILL_LOOKS = 3  # fewer looks at the same instruction prove nothing
AT_LIMIT_SHARE = 0.9
RUNNING = "running"
TICK_S = 0.01


class Spot(Struct, frozen=True):
    """One thread at one moment. ``frames`` innermost first, a couple of dozen at most; ``place`` names the innermost frame's instruction.

    ``may_stand``: that instruction is no jump, so a thread that is found there again and again has not left it. ``switches`` counts how often it was woken.
    """

    pid: int
    thread: int
    what: str
    cpu_ticks: int = 0
    switches: int = 0
    frames: tuple[Frame, ...] = ()
    place: tuple[int, int] = (0, 0)
    may_stand: bool = False
    exception: str | None = None


class Glimpse(Struct, frozen=True):
    """All threads that somebody looked at, at one moment."""

    at: Mono
    memory_bytes: int
    spots: tuple[Spot, ...]


# ---------------------------------------------------------------- when


def next_at(limits: Limits, watched: Watched, started: Mono, last: Mono | None) -> Mono | None:
    """When time or the want of progress makes the next look due; None where neither has a line. It may have passed."""
    end = deadline(limits, watched, started)
    if end is None:
        return None
    lead_s = min(LEAD_S, (end - _since(watched, started)) / 2)
    first = end - lead_s
    return Mono(first if last is None or last < first else last + max(lead_s / LOOKS, STEP_MIN_S))


def is_due(limits: Limits, watched: Watched, started: Mono, now: Mono, last: Mono | None, taken: Sequence[Glimpse]) -> bool:
    """Whether to look at *now*, after the sample in *watched*; *last* is when the last look was taken or let go."""
    at = next_at(limits, watched, started, last)
    if at is not None and now >= at:
        return True
    sample = watched.last
    if sample is None:
        return False
    if limits.cpu_s is not None:
        lead_s = min(LEAD_S, limits.cpu_s / 2)
        if sample.cpu_s >= limits.cpu_s - lead_s and (last is None or now - last >= max(lead_s / LOOKS, STEP_MIN_S)):
            return True
    return _grows(limits, watched, taken)


def rests_until(limits: Limits, watched: Watched, started: Mono, last: Mono | None) -> Mono:
    """Until when a tree that shows no sign of change may be passed over: no line comes near by the mere passing of time, and no look is due. 0: not at all."""
    sample = watched.last
    near_cpu = limits.cpu_s is not None and (sample is None or sample.cpu_s >= limits.cpu_s - min(LEAD_S, limits.cpu_s / 2))
    if near_cpu or watched.soft_told:
        return Mono(0.0)
    ends = (deadline(limits, watched, started), next_at(limits, watched, started, last))
    return min((end for end in ends if end is not None), default=Mono(math.inf))


def _grows(limits: Limits, watched: Watched, taken: Sequence[Glimpse]) -> bool:
    if not watched.soft_told or limits.memory_bytes is None or watched.last is None or len(taken) >= GROWTH_LOOKS:
        return False
    return not taken or watched.last.memory_bytes >= taken[-1].memory_bytes + GROWTH_SHARE * limits.memory_bytes


def cpu_look_s(limits: Limits, watched: Watched, cores: int) -> float | None:
    """The longest pause until the next look that does not pass over the beginning of the study before a limit on CPU time."""
    if limits.cpu_s is None or watched.last is None:
        return None
    lead_s = min(LEAD_S, limits.cpu_s / 2)
    room_s = limits.cpu_s - lead_s - watched.last.cpu_s
    return room_s / max(cores, 1) if room_s > 0 else lead_s / LOOKS


def _since(watched: Watched, started: Mono) -> Mono:
    return started if watched.progress_at is None else max(started, watched.progress_at)


def lasting(taken: Sequence[Glimpse], now: Mono, *, is_growing: bool) -> tuple[Glimpse, ...]:
    """Those worth keeping: while memory grows the newest forty, else the newest dozen that belong together in time."""
    if is_growing:
        return tuple(taken[-GROWTH_LOOKS:])
    return tuple(each for each in taken[-LOOKS - 1 :] if now - each.at <= 2 * LEAD_S)


# ---------------------------------------------------------------- what they say


def summarize(taken: Sequence[Glimpse], limits: Limits, struck: LimitName | None) -> Study | None:
    """What *taken*, oldest first, say together; None if they are none. *struck*: the limit that ended it, if one did."""
    if not taken:
        return None
    taken = _since_it_hangs(taken)
    span_s = taken[-1].at - taken[0].at
    tracks = _tracks(taken)
    ticks = sum(max(0, track[-1].cpu_ticks - track[0].cpu_ticks) for track in tracks)
    share = ticks * TICK_S / span_s if span_s > 0 else 0.0
    growing = struck in (LimitName.MEMORY, LimitName.MEMORY_SOFT) or (struck is None and taken[-1].memory_bytes > _soft(limits))
    return Study(
        pace=_pace(tracks, share),
        looks=len(taken),
        span_s=span_s,
        cpu_share=round(share, 2),
        growing=growing,
        busy=_lines(tracks, len(taken)),
        memory_errors=sum(any((spot.exception or "").endswith("MemoryError") for spot in glimpse.spots) for glimpse in taken),
        at_limit=0 if limits.memory_bytes is None else sum(each.memory_bytes >= AT_LIMIT_SHARE * limits.memory_bytes for each in taken),
    )


def _since_it_hangs(taken: Sequence[Glimpse]) -> Sequence[Glimpse]:
    """The later half alone where nothing moved in it: a hang may have begun amid the looks."""
    half = taken[len(taken) // 2 :]
    return (
        half
        if len(half) >= STILL_LOOKS and _pace(_tracks(half), 0.0) is Pace.HANGING and _pace(_tracks(taken), 0.0) is not Pace.HANGING
        else taken
    )


def _soft(limits: Limits) -> float:
    if limits.memory_soft_bytes is not None:
        return limits.memory_soft_bytes
    return float("inf") if limits.memory_bytes is None else SOFT_SHARE * limits.memory_bytes


def _tracks(taken: Sequence[Glimpse]) -> list[tuple[Spot, ...]]:
    """The spots of each thread, oldest first."""
    tracks: dict[tuple[int, int], list[Spot]] = {}
    for glimpse in taken:
        for spot in glimpse.spots:
            tracks.setdefault((spot.pid, spot.thread), []).append(spot)
    return [tuple(track) for track in tracks.values()]


def _runs(track: Sequence[Spot]) -> bool:
    """Computes most of the time: it was found running, or used the CPU time that others had not taken."""
    return 2 * sum(spot.what.startswith(RUNNING) for spot in track) > len(track)


def _pace(tracks: Iterable[Sequence[Spot]], share: float) -> Pace:
    tracks = list(tracks)
    if share >= BUSY_SHARE or any(_runs(track) for track in tracks):
        return Pace.BUSY
    if any(_moved(track) for track in tracks):
        return Pace.SLOW
    return Pace.HANGING


def _moved(track: Sequence[Spot]) -> bool:
    first, last = track[0], track[-1]
    return first.cpu_ticks != last.cpu_ticks or first.switches != last.switches or any(spot.place != first.place for spot in track)


def _lines(tracks: Iterable[Sequence[Spot]], looks: int) -> tuple[BusyLine, ...]:
    """The application's lines that running threads stood at, most frequent first; a line of several threads counts once a look."""
    counts: Counter[Frame] = Counter()
    standing: dict[Frame, bool] = {}
    for track in tracks:
        if not _runs(track) and track[0].cpu_ticks == track[-1].cpu_ticks:
            continue
        stands = _stands(track)
        for spot in track:
            if spot.frames:
                line = own_frames(spot.frames)[0]
                if is_ours(line):  # torn: it was read while it ran, and showed no more
                    continue
                counts[line] += 1
                standing[line] = standing.get(line, True) and stands
    return tuple(BusyLine(line, min(count, looks), looks, standing[line]) for line, count in counts.most_common(LINES))


def _stands(track: Sequence[Spot]) -> bool:
    """Whether the thread never left one instruction although it used the processor: it is inside a call into C."""
    seen = [spot for spot in track if spot.frames]
    return len(seen) >= STILL_LOOKS and all(spot.may_stand and spot.place == seen[0].place for spot in seen)
