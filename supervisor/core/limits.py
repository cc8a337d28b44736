"""Samples against limits: what was crossed, whether it has to end the attempt, and when to look again.

Taking samples, arming rlimits and killing are others' business; verdicts are ``outcome``'s. The adaptive rhythm is the one measured in the
guard's study: half the headroom at four times the present growth, or at a brisk default growth, whichever is sooner.
"""

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.curve import Curve
from supervisor.core.evidence import Breach
from supervisor.core.jobs import Limits, OutputAction
from supervisor.core.model import LimitName, Mono

SOFT_SHARE = 0.75  # of the memory limit, where no soft line is configured: time to arm the rlimit and take a stack
# A stack this deep that meets the memory limit is what fills it (Python alone allows half): no 5 % more for that, and no minutes of unwinding.
FILLING_FRAMES = 2_000
# Of the memory limit, where frames or tasks that start each other fill it: an armed rlimit would let them unwind for minutes just below it.
FILLING_SHARE = 0.95
# Of the memory limit: guards are asked what fills it. For tasks that start each other by turns several times, and before the soft line too.
ASK_SHARES = (0.5, 0.65, 0.8, 0.85, 0.9)
ARMED_SHARE = 1.05  # an armed RLIMIT_DATA becomes a MemoryError at the line itself; killing is for those who ignore it
RECURSION_FRAMES = 50_000  # where none is configured: 50 times Python's own limit, and some 5 MB of frames
OWN_LIMIT_SHARE = 1.1  # deeper than this, Python's own limit has failed (gh-132744, gh-137883, gh-149243)
ERROR_ROOM_FRAMES = 100  # CPython goes up to 50 frames beyond its limit while it makes the RecursionError

NEAR_LIMIT_SHARE = 0.98
SWALLOW_WINDOW_S = 10.0
SWALLOW_HITS = 5
SWALLOW_SPACING_S = 0.1  # one slow unwinding, seen many times at 2 ms a look, is one RecursionError and nobody's business
SWALLOW_LOOK_S = 0.05  # 200 looks in the window: 14 hits at the 7 % that the rarest shape shows

OVER = -1  # Hit.depth: lower than any stack

LOOK_MIN_S = 0.002
LOOK_MAX_S = 0.1
YOUNG_LOOK_S = 0.01  # the first pause; a young attempt's growth is not known yet, so pauses grow with its age
MEMORY_RATE = 250e6  # bytes/s that a quiet job is trusted not to exceed without being looked at again
MEMORY_RATE_FEW = 1e9  # the same with few jobs: one that starts at 2 GB/s right after a look meets its line at the next
FRAMES_RATE = 100e3  # frames/s, for a job whose own recursion limit does not hold the line
PROCESSES_RATE = 50.0
OUTPUT_RATE = 50e6
CPU_LOOK_MIN_S = 0.05  # an idle job just under its CPU limit is not worth 500 looks a second
RATE_DECAY = 0.9

WALL_SHARE = 0.98  # of the memory limit: less is not what we mean by full
# A job whose allocations fail asks the kernel again and again: 85 % of its CPU time was spent there where asyncio caught MemoryErrors for ever.
WALL_S = 2.0
WALL_CPU_S = 0.2
WALL_SYSTEM_SHARE = 0.4
WALL_ERRORS = 200  # MemoryErrors that the job caught meanwhile, as its guard counts them

CLIMBS_MIN = 4  # a stack that goes up and down is found deeper four times in a row by chance once in 24 times

AT_THE_WALL = "at_the_wall"  # Breach.detail: no room for another allocation, and nothing but failed ones any more
SWALLOWED = "swallowed"  # Breach.detail: RecursionErrors are raised and caught for ever
OWN_LIMIT_FAILED = "own_limit_failed"  # Breach.detail: deeper than the interpreter's own limit allows


class Sample(Struct, frozen=True):
    """One look at the whole tree of an attempt. ``shared_bytes`` is the part of ``memory_bytes`` that is shared with others or with files.

    ``depth`` is the deepest Python stack, ``recursion_limit`` that interpreter's own limit (None: not readable), ``recursion_error``
    whether a RecursionError is in flight there. ``progress_token`` is anything that differs once the job got on. ``at_wall``: the rlimit that we
    armed leaves the main process no room; ``system_s`` is its CPU time within the kernel, ``memory_errors`` how many MemoryErrors it caught so far.
    """

    at: Mono
    memory_bytes: int = 0
    shared_bytes: int = 0
    processes: int = 1
    depth: int = 0
    recursion_limit: int | None = None
    recursion_error: bool = False
    cpu_s: float = 0.0
    output_bytes: int = 0
    progress_token: object = 0
    at_wall: bool = False
    system_s: float = 0.0
    memory_errors: int = 0


class Rates(Struct, frozen=True):
    """Growth per second, never negative: the latest, or nine tenths of what it was, whichever is more."""

    memory: float = 0.0
    frames: float = 0.0
    processes: float = 0.0
    output: float = 0.0


class Hit(Struct, frozen=True):
    """A sample that looks like a swallowed RecursionError: ``in_flight`` one was seen, else the stack stood at the limit.

    ``depth`` is where the stack has come to since; OVER once it went down again, so that the next one in flight is another.
    """

    at: Mono
    in_flight: bool
    depth: int = OVER


class Watched(Struct, frozen=True):
    """What is remembered of one attempt from sample to sample. ``Watched()`` before the first.

    ``progress_at`` None means "since it started". The peaks and ``swallowed_seen`` (spaced hits over its whole life) are for the evidence, and so is how
    much of its growth came while the deepest stack got deeper: ``climbed_bytes`` of ``grown_bytes``, in so many ``climbs``. ``deepened_at`` is when the
    deepest stack was last found deeper than ever.
    """

    last: Sample | None = None
    rates: Rates = Rates()
    progress_at: Mono | None = None
    hits: tuple[Hit, ...] = ()
    soft_told: bool = False
    shared_at_soft_bytes: int = 0
    memory_peak_bytes: int = 0
    depth_peak: int = 0
    swallowed_seen: int = 0
    curve: Curve = Curve()
    processes_peak: int = 0
    wall: Sample | None = None  # the first of those since which it stands at the wall
    grown_bytes: int = 0
    climbed_bytes: int = 0
    climbs: int = 0
    deepened_at: Mono | None = None
    grew_at: Mono | None = None

    @property
    def stack_share(self) -> float:
        """How much of all growth of memory came while the deepest stack got deeper, in [0, 1]; 0 where that was seen too seldom to mean anything."""
        return self.climbed_bytes / self.grown_bytes if self.climbs >= CLIMBS_MIN and self.grown_bytes else 0.0


class Judgement(Struct, frozen=True):
    """``breaches`` has every line that is crossed, the soft one only the first time; ``hard`` the one to kill for."""

    watched: Watched
    breaches: tuple[Breach, ...]
    hard: Breach | None
    next_look_s: float


# Which breach names the kill when several lines are crossed at once: causes before their consequences.
GRAVEST_FIRST = (
    LimitName.RECURSION,
    LimitName.PROCESSES,  # before memory: what many share is counted once for each of them, so too many are too large as well
    LimitName.MEMORY,
    LimitName.OUTPUT,
    LimitName.CPU,
    LimitName.STALL,
    LimitName.TIME,
)


def judge(
    limits: Limits,
    watched: Watched,
    sample: Sample,
    started: Mono,
    now: Mono,
    *,
    armed: bool = False,
    tasks_run_away: bool = False,
    dmax: float = LOOK_MAX_S,
    cores: int = 1,
) -> Judgement:
    """Hold *sample* against *limits*, for an attempt that began at *started*.

    *armed*: an rlimit already turns the memory line into a MemoryError, so killing waits for 5 % more of private memory; not so if a deep stack or
    *tasks_run_away* fills it. *dmax* is the longest pause
    between looks that the caller can afford for its number of jobs; *cores* how fast CPU time can pass. Time and stall are judged at
    *now*, everything else at the sample.
    """
    seen = replace(_remember(limits, watched, sample, started), wall=_wall(limits, watched, sample))
    soft = _soft(limits, seen, sample)
    breaches = (*_hard(limits, seen, sample, started, now, armed=armed, tasks=tasks_run_away), *soft)
    if soft:
        seen = replace(seen, soft_told=True, shared_at_soft_bytes=sample.shared_bytes)
    hard = _gravest(breaches) if breaches else None
    bearable = _bearable_bytes(limits.memory_bytes or 0, seen, sample, armed=armed, tasks=tasks_run_away)
    return Judgement(
        seen, breaches, hard, _next_look_s(limits, seen, sample, started, now, bearable_bytes=bearable, dmax=dmax, cores=cores)
    )


def _gravest(breaches: Sequence[Breach]) -> Breach | None:
    by_limit = {breach.limit: breach for breach in breaches}
    return next((by_limit[name] for name in GRAVEST_FIRST if name in by_limit), None)


def soft_line(limits: Limits) -> float | None:
    """The soft memory line in bytes: as configured, else three quarters of the limit, else None."""
    if limits.memory_soft_bytes is not None:
        return limits.memory_soft_bytes
    return None if limits.memory_bytes is None else limits.memory_bytes * SOFT_SHARE


def deadline(limits: Limits, watched: Watched, started: Mono) -> Mono | None:
    """When the next line is crossed by the mere passing of time (time, stall); None when neither is configured."""
    ends = [end for end in (_time_end(limits, started), _stall_end(limits, watched, started)) if end is not None]
    return min(ends, default=None)


# ---------------------------------------------------------------- memory of earlier samples


def _remember(limits: Limits, watched: Watched, sample: Sample, started: Mono) -> Watched:
    last = watched.last
    moved = last is None or last.progress_token != sample.progress_token
    since = watched.progress_at if watched.progress_at is not None else started
    # The step that ends at the wall says nothing: where allocations fail, the stack may be on its way out again.
    is_told = last is not None and (limits.memory_bytes is None or sample.memory_bytes < WALL_SHARE * limits.memory_bytes)
    grown = (
        max(0, sample.memory_bytes - watched.memory_peak_bytes) if is_told else 0
    )  # beyond its peak: what is given back and taken again is no growth
    is_climb = last is not None and grown > 0 and sample.depth > last.depth
    hits, new = _hits(watched.hits, last, sample) if watched.hits or _is_hit(sample) else ((), 0)
    return Watched(
        last=sample,
        rates=_rates(watched.rates, last, sample),
        progress_at=max(since, sample.at) if moved and last is not None else since,
        hits=hits,
        soft_told=watched.soft_told,
        shared_at_soft_bytes=watched.shared_at_soft_bytes,
        memory_peak_bytes=max(watched.memory_peak_bytes, sample.memory_bytes),
        depth_peak=max(watched.depth_peak, sample.depth),
        processes_peak=max(watched.processes_peak, sample.processes),
        swallowed_seen=watched.swallowed_seen + new,
        curve=watched.curve.add(max(0.0, sample.at - started), sample.memory_bytes),
        grown_bytes=watched.grown_bytes + grown,
        climbed_bytes=watched.climbed_bytes + grown * is_climb,
        climbs=watched.climbs + is_climb,
        grew_at=sample.at if sample.memory_bytes > watched.memory_peak_bytes else watched.grew_at,
        deepened_at=sample.at if sample.depth > watched.depth_peak else watched.deepened_at,
    )


def _rates(rates: Rates, last: Sample | None, sample: Sample) -> Rates:
    if last is None or sample.at <= last.at:
        return rates
    span_s = sample.at - last.at

    def rate(before: float, now: float, previous: float) -> float:
        return max((now - before) / span_s, RATE_DECAY * previous, 0.0)

    return Rates(
        memory=rate(last.memory_bytes, sample.memory_bytes, rates.memory),
        frames=rate(last.depth, sample.depth, rates.frames),
        processes=rate(last.processes, sample.processes, rates.processes),
        output=rate(last.output_bytes, sample.output_bytes, rates.output),
    )


def _hits(hits: tuple[Hit, ...], last: Sample | None, sample: Sample) -> tuple[tuple[Hit, ...], int]:
    """The hits within the window, this sample's included, and how many are new (0 or 1)."""
    kept = tuple(hit for hit in hits if sample.at - hit.at <= SWALLOW_WINDOW_S)
    latest = kept[-1] if kept else None
    if not _is_hit(sample):
        if latest is None:
            return kept, 0
        return (*kept[:-1], replace(latest, depth=OVER if sample.depth > latest.depth else sample.depth)), 0
    if latest is not None and (sample.at - latest.at < SWALLOW_SPACING_S or _is_same_error(latest, last, sample)):
        return (*kept[:-1], Hit(latest.at, latest.in_flight or sample.recursion_error, sample.depth)), 0
    return (*kept, Hit(sample.at, sample.recursion_error, sample.depth)), 1


def _is_same_error(latest: Hit, last: Sample | None, sample: Sample) -> bool:
    """Whether it may be the one of the latest hit, on its way up: half a million levels take seconds to unwind on a busy machine, or it never ran since."""
    if not (latest.in_flight and sample.recursion_error):
        return False
    return sample.depth < latest.depth or (last is not None and sample.depth == last.depth > 0 and sample.cpu_s == last.cpu_s > 0)


def _is_hit(sample: Sample) -> bool:
    limit = sample.recursion_limit
    return sample.recursion_error or (limit is not None and limit > 0 and sample.depth >= NEAR_LIMIT_SHARE * limit)


# ---------------------------------------------------------------- the lines


def _soft(limits: Limits, watched: Watched, sample: Sample) -> tuple[Breach, ...]:
    line = soft_line(limits)
    if watched.soft_told or line is None or sample.memory_bytes <= line:
        return ()
    return (Breach(LimitName.MEMORY_SOFT, sample.memory_bytes, line),)


def asks(before_bytes: float, now_bytes: float, line: float | None) -> bool:
    """Whether memory has grown past one of the marks at which guards are asked what fills it."""
    return line is not None and any(before_bytes < share * line <= now_bytes for share in ASK_SHARES)


def _hard(limits: Limits, watched: Watched, sample: Sample, started: Mono, now: Mono, *, armed: bool, tasks: bool) -> tuple[Breach, ...]:
    found = (
        _recursion(limits, watched, sample),
        _memory(limits, watched, sample, armed=armed, tasks=tasks),
        _over(LimitName.PROCESSES, sample.processes, limits.processes),
        _over(LimitName.OUTPUT, sample.output_bytes, limits.output_bytes) if limits.output_action is OutputAction.KILL else None,
        _cpu(limits, sample),
        _passed(LimitName.STALL, limits.stall_s, watched.progress_at, _stall_end(limits, watched, started), now),
        _passed(LimitName.TIME, limits.time_s, started, _time_end(limits, started), now),
    )
    return tuple(breach for breach in found if breach is not None)


def _recursion(limits: Limits, watched: Watched, sample: Sample) -> Breach | None:
    line = RECURSION_FRAMES if limits.recursion_frames is None else limits.recursion_frames
    own = sample.recursion_limit
    if sample.depth > line + _error_room(own, line):
        return Breach(LimitName.RECURSION, sample.depth, line)
    if own is not None and sample.depth > own * OWN_LIMIT_SHARE + ERROR_ROOM_FRAMES:
        return Breach(LimitName.RECURSION, sample.depth, own, OWN_LIMIT_FAILED)
    # A stack that stands at the limit is not enough: without one RecursionError seen it may just be a deep and quiet one.
    if len(watched.hits) >= SWALLOW_HITS and any(hit.in_flight for hit in watched.hits):
        return Breach(LimitName.RECURSION, max(sample.depth, watched.depth_peak), own if own is not None else line, SWALLOWED)
    return None


def _error_room(own: int | None, line: int) -> int:
    """Frames allowed beyond *line* where the interpreter's own limit stands on or below it: the RecursionError is on its way."""
    return ERROR_ROOM_FRAMES if own is not None and own <= line else 0


def _bearable_bytes(line: float, watched: Watched, sample: Sample, *, armed: bool, tasks: bool) -> float:
    """Above it it is enough. A stack deeper than any line of ours is a runaway, for the line was moved out of its way; so are tasks that start each other."""
    if tasks or sample.depth > RECURSION_FRAMES:
        return line * FILLING_SHARE
    return line if sample.depth > FILLING_FRAMES else line + _slack_bytes(line, watched, sample, armed=armed)


def _memory(limits: Limits, watched: Watched, sample: Sample, *, armed: bool, tasks: bool) -> Breach | None:
    line = limits.memory_bytes
    if line is None:
        return None
    if sample.memory_bytes <= _bearable_bytes(line, watched, sample, armed=armed, tasks=tasks):
        return Breach(LimitName.MEMORY, sample.memory_bytes, line, AT_THE_WALL) if armed and _is_stuck(watched.wall, sample) else None
    return Breach(LimitName.MEMORY, sample.memory_bytes, line)


def _wall(limits: Limits, watched: Watched, sample: Sample) -> Sample | None:
    """The sample since which it has stood at the wall; a new span begins where it got on, or where one has passed without a verdict."""
    line, since = limits.memory_bytes, watched.wall
    if line is None or not sample.at_wall or sample.memory_bytes < WALL_SHARE * line:
        return None
    over = watched.last is not None and since is not None and watched.last.at - since.at >= WALL_S
    return sample if since is None or over or since.progress_token != sample.progress_token else since


def _is_stuck(since: Sample | None, sample: Sample) -> bool:
    """Whether all it did since then was to ask for memory that it does not get. One that computes with what it has got is left alone."""
    if since is None or sample.at - since.at < WALL_S:
        return False
    cpu_s, system_s = sample.cpu_s - since.cpu_s, sample.system_s - since.system_s
    busy_asking = cpu_s >= WALL_CPU_S and system_s >= WALL_SYSTEM_SHARE * cpu_s
    return busy_asking or sample.memory_errors - since.memory_errors >= WALL_ERRORS


def _slack_bytes(line: float, watched: Watched, sample: Sample, *, armed: bool) -> float:
    """How far above the line killing waits for the rlimit's MemoryError: not at all for shared pages, which RLIMIT_DATA does not count."""
    if not armed:
        return 0.0
    return max(0.0, line * (ARMED_SHARE - 1) - max(0, sample.shared_bytes - watched.shared_at_soft_bytes))


def _over(limit: LimitName, measured: float, line: float | None) -> Breach | None:
    return None if line is None or measured <= line else Breach(limit, measured, line)


def _cpu(limits: Limits, sample: Sample) -> Breach | None:
    line = limits.cpu_s
    return None if line is None or sample.cpu_s < line else Breach(LimitName.CPU, sample.cpu_s, line)


def _passed(limit: LimitName, line: float | None, since: Mono | None, end: Mono | None, now: Mono) -> Breach | None:
    if line is None or since is None or end is None or now < end:
        return None
    return Breach(limit, max(now - since, line), line)


def _time_end(limits: Limits, started: Mono) -> Mono | None:
    return None if limits.time_s is None else Mono(started + limits.time_s)


def _stall_end(limits: Limits, watched: Watched, started: Mono) -> Mono | None:
    if limits.stall_s is None:
        return None
    return Mono((started if watched.progress_at is None else watched.progress_at) + limits.stall_s)


# ---------------------------------------------------------------- when to look again


def _next_look_s(
    limits: Limits, watched: Watched, sample: Sample, started: Mono, now: Mono, *, bearable_bytes: float, dmax: float, cores: int
) -> float:
    """Seconds until the next look: by headroom and growth, within [2 ms, *dmax*], but never past a deadline that lies ahead."""
    looks = [dmax, max(YOUNG_LOOK_S, 0.5 * (now - started))]
    rates = watched.rates
    if limits.memory_bytes is not None:
        looks.append(_pause_s(bearable_bytes - sample.memory_bytes, rates.memory, MEMORY_RATE_FEW if dmax <= LOOK_MAX_S else MEMORY_RATE))
    looks.append(_frames_pause_s(limits, sample, rates))
    if limits.processes is not None:
        looks.append(_pause_s(limits.processes - sample.processes, rates.processes, PROCESSES_RATE))
    if limits.output_bytes is not None and limits.output_action is OutputAction.KILL:
        looks.append(_pause_s(limits.output_bytes - sample.output_bytes, rates.output, OUTPUT_RATE))
    if limits.cpu_s is not None:
        looks.append(max(CPU_LOOK_MIN_S, (limits.cpu_s - sample.cpu_s) / max(cores, 1)))
    if watched.hits:
        looks.append(SWALLOW_LOOK_S)
    pause_s = max(LOOK_MIN_S, min(looks))
    end = deadline(limits, watched, started)
    return pause_s if end is None or end <= now else min(pause_s, end - now)


def _frames_pause_s(limits: Limits, sample: Sample, rates: Rates) -> float:
    line = RECURSION_FRAMES if limits.recursion_frames is None else limits.recursion_frames
    own = sample.recursion_limit
    if own is None or (own <= line and sample.depth <= own):
        return math.inf  # nothing to be read, or the interpreter holds the line by itself: no hurry
    return _pause_s(line - sample.depth, rates.frames, FRAMES_RATE)


def _pause_s(headroom: float, rate: float, brisk: float) -> float:
    return 0.5 * max(headroom, 0.0) / max(4 * rate, brisk)
