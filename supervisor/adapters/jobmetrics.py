"""The metrics that jobs write themselves: read from a file without trusting it, merged over all jobs, shown beside ours.

A file is taken whole or not at all, and the last good one stays until the job writes another. The rules (docs/metrics.md has
them for users): a series is on the page while the newest good file of its job has it; counters add up over runs, for each run
begins at 0 again; gauges stand as last written; a job that leaves the configuration takes its metrics along.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from math import isfinite

from msgspec import Struct, field

from supervisor.adapters.exposition import (
    Caps,
    Family,
    Labels,
    MetricType,
    RejectReason,
    Sample,
    TextError,
    decode,
    header,
    is_count,
    label_text,
    number,
    parse,
    series_names,
)

MAX_BYTES = 2**20
MAX_SAMPLES_IN_ALL = 100_000  # over all jobs: about 10 MB of page
CAPS = Caps()
_RESERVED = frozenset({"up", "ALERTS", "ALERTS_FOR_STATE"})
_RESERVED_PREFIXES = ("mainstay_", "scrape_")
_OUR_LABELS = frozenset({"job_name", "job", "instance"})
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_SUMMED = "\0"  # behind a job's name: what was summed from its multiprocess files

_Stamp = tuple[int, int, int]
_Series = tuple[str, Labels]
_Claim = tuple[str, MetricType]


TOTALS = "# MAINSTAY TOTALS"  # a line of its own: these counters are the job's own totals, not what one run counted from zero


class Problem(Struct, frozen=True):
    """Something that was not taken: ``reason`` for the counter, ``detail`` for a person, in one line."""

    reason: RejectReason
    detail: str


class _Kept(Struct):
    """What is known of one job: its last good file, and what its counters had reached in the runs before.

    ``totals``: the job keeps its counters itself, over all runs. ``life`` names the run that the values are of; ``last`` holds its counters as written.
    """

    path: str = ""
    life: str = ""
    totals: bool = False
    seen: tuple[_Stamp, str] | None = None  # the file that was looked at last, and the run it was of
    taken_at: float | None = None
    families: list[Family] = field(default_factory=list)
    base: dict[_Series, float] = field(default_factory=dict)
    last: dict[_Series, float] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    samples: int = 0


class JobMetrics:
    """The jobs' own metrics; any thread may call any method.

    *restored* is what ``changed`` gave in earlier lives of the supervisor, so that counters go on where they were.
    """

    def __init__(self, restored: Mapping[tuple[str, str], float] | None = None) -> None:
        self._lock = threading.Lock()
        self._restored = dict(restored or {})
        self._jobs: dict[str, _Kept] = {}
        self._claims: dict[str, dict[str, _Claim]] = {}  # series name → job → the family that has it on the page
        self._lines: list[str] | None = None
        self._changed: dict[tuple[str, str], float] = {}

    def update(self, job: str, path: str, run: int | None = None, owner: int | None = None) -> list[Problem] | None:
        """Takes the file at *path* if it is another than last time (by mtime, size, inode): what was wrong with it; None if there is nothing new.

        *run* tells runs apart whose files have the same path; without it a new path is a new run. *owner*: the uid that the
        file must belong to; without it that of its folder, unless that is ourselves. A file that is not there is no problem: the job wrote none yet.
        """
        with self._lock:
            stamp = _stamp(path)
            if stamp is None:
                return None
            kept = self._jobs.setdefault(job, _Kept())
            life = path if run is None else f"{run}"
            if path == kept.path and kept.seen == (stamp, life):
                return None
            kept.seen, kept.path = (stamp, life), path
            try:
                text = decode(_read(path, _owner_of_folder(path) if owner is None else owner))
                families = parse(text, CAPS)
            except TextError as err:
                return [Problem(err.reason, f"{path}: {err}")]
            kept.totals = TOTALS in text.splitlines()
            return self._take(job, kept, families, life, stamp)

    def put(self, job: str, families: list[Family], taken_at: float) -> list[Problem]:
        """Takes families that somebody else has read and summed (the multiprocess files), beside those of the job's text file.

        They are the job's totals and replace those that were put before. *taken_at*: Unix time.
        """
        with self._lock:
            kept = self._jobs.setdefault(job + _SUMMED, _Kept(path="its multiprocess files", totals=True))
            return self._take(job + _SUMMED, kept, families, "", (int(taken_at * 1e9), 0, 0))

    def drop(self, job: str) -> None:
        """Takes all metrics of *job* off the page and forgets them."""
        with self._lock:
            for key in (job, job + _SUMMED):
                if key in self._jobs:
                    self._set_claims(key, [])
                    del self._jobs[key]
            first = label_text((("job_name", job),))
            forgotten = {key for key in self._restored if key[1] == first or key[1].startswith(f"{first},")}
            self._restored = {key: value for key, value in self._restored.items() if key not in forgotten}
            self._lines = None

    def last_update(self, job: str) -> float | None:
        """The modification time of the last file that was taken, Unix time."""
        with self._lock:
            moments = (kept.taken_at for key in (job, job + _SUMMED) if (kept := self._jobs.get(key)))
            return max((moment for moment in moments if moment is not None), default=None)

    def lines(self) -> list[str]:
        """The page's part: one text per family, with HELP and TYPE, ready to be joined."""
        with self._lock:
            if self._lines is None:
                self._lines = list(self._merged())
            return self._lines

    def changed(self) -> dict[tuple[str, str], float]:
        """What counters had reached when a run gave way to the next, since the last call; to be stored as ``Metrics.changed`` is."""
        with self._lock:
            found, self._changed = self._changed, {}
            return found

    # ------------------------------------------------ taking a file

    def _take(self, job: str, kept: _Kept, families: list[Family], life: str, stamp: _Stamp) -> list[Problem]:
        families, problems = self._allowed(job, families)
        samples = sum(len(family.samples) for family in families)
        if sum(other.samples for name, other in self._jobs.items() if name != job) + samples > MAX_SAMPLES_IN_ALL:
            return [Problem(RejectReason.LIMIT, f"{kept.path}: all jobs together have more than {MAX_SAMPLES_IN_ALL} samples")]
        self._accumulate(job, kept, families, life)
        self._set_claims(job, families)
        kept.families, kept.samples, kept.taken_at = families, samples, stamp[0] / 1e9
        kept.blocks = {family.name: _block(job.removesuffix(_SUMMED), kept, family) for family in families}
        self._lines = None
        return problems

    def _allowed(self, job: str, families: list[Family]) -> tuple[list[Family], list[Problem]]:
        """The families that may be shown, and a problem for each that may not.

        A client library's own ``process_*`` is left out quietly: every file that a library wrote with its defaults has it, and
        ours stand under these names.
        """
        allowed: list[Family] = []
        problems: list[Problem] = []
        own: dict[str, _Claim] = {}
        for family in families:
            if family.name.startswith("process_"):
                continue
            if family.name in _RESERVED or family.name.startswith(_RESERVED_PREFIXES):
                problems.append(Problem(RejectReason.RESERVED, f"{family.name}: the name is taken; choose another"))
                continue
            if self._is_siblings(job, family):
                problems.append(Problem(RejectReason.DUPLICATE, f"{family.name} is in the job's text file and in its multiprocess files"))
                continue
            rival = self._rival(job, own, family)
            if rival is not None:
                problems.append(
                    Problem(RejectReason.CONFLICT, f"{family.name} as {family.type} cannot stand beside {rival[0]} as {rival[1]}")
                )
                continue
            own |= dict.fromkeys(series_names(family.name, family.type), (family.name, family.type))
            allowed.append(family)
        return allowed, problems

    def _is_siblings(self, job: str, family: Family) -> bool:
        """Whether the job has this family on the page already, from its other source."""
        sibling = job.removesuffix(_SUMMED) if job.endswith(_SUMMED) else job + _SUMMED
        return any(sibling in self._claims.get(name, {}) for name in series_names(family.name, family.type))

    def _rival(self, job: str, own: Mapping[str, _Claim], family: Family) -> _Claim | None:
        """What *family* cannot share the page with: another type of the same name, or a family whose ``x_count`` it would be."""
        for name in series_names(family.name, family.type):
            others = (claim for other, claim in self._claims.get(name, {}).items() if other != job)
            claim = own.get(name) or next(others, None)  # one is enough: all that are on the page agree
            if claim is not None and claim != (family.name, family.type):
                return claim
        return None

    def _set_claims(self, job: str, families: list[Family]) -> None:
        kept = self._jobs[job]
        for family in kept.families:
            for name in series_names(family.name, family.type):
                self._claims[name].pop(job, None)
                if not self._claims[name]:
                    del self._claims[name]
        for family in families:
            for name in series_names(family.name, family.type):
                self._claims.setdefault(name, {})[job] = (family.name, family.type)

    def _accumulate(self, job: str, kept: _Kept, families: list[Family], life: str) -> None:
        """Moves the base of each counter up where another run has begun or the counter itself has begun anew."""
        if kept.totals:
            kept.base, kept.last, kept.life = {}, {}, life
            return
        another = life != kept.life and bool(kept.life)
        now = {(sample.name, sample.labels): sample.value for family in families for sample in family.samples if _adds_up(family, sample)}
        for series, value in now.items():
            if series not in kept.base:
                kept.base[series] = self._restored.get(_stored_key(job, series), 0.0)
            before = kept.last.get(series)
            if before is not None and (another or value < before):
                self._fold(job, kept, series, before)
        if another:
            for series in kept.last.keys() - now.keys():
                self._fold(job, kept, series, kept.last[series])
            kept.last = {}
        kept.last |= now
        for series in list(kept.base):  # bounded: what the job has stopped writing goes first
            if len(kept.base) <= CAPS.samples:
                break
            if series not in now:
                del kept.base[series]
                kept.last.pop(series, None)
        kept.life = life

    def _fold(self, job: str, kept: _Kept, series: _Series, value: float) -> None:
        kept.base[series] = kept.base.get(series, 0.0) + value
        self._changed[_stored_key(job, series)] = kept.base[series]

    # ------------------------------------------------ the page

    def _merged(self) -> Iterator[str]:
        """Families over all jobs, the first HELP and the first TYPE for each (a second TYPE was refused when it came)."""
        heads: dict[str, str] = {}
        blocks: dict[str, list[str]] = {}
        for kept in self._jobs.values():
            for family in kept.families:
                heads.setdefault(family.name, header(family.name, family.type, family.help))
                blocks.setdefault(family.name, []).append(kept.blocks[family.name])
        for name, head in heads.items():
            yield head + "".join(blocks[name])


def _adds_up(family: Family, sample: Sample) -> bool:
    """Whether a sample counts up over runs: counters, and what histograms and summaries count and sum."""
    if not isfinite(sample.value):
        return False
    if family.type is MetricType.COUNTER or is_count(family, sample):
        return True
    return family.type in (MetricType.HISTOGRAM, MetricType.SUMMARY) and sample.name == f"{family.name}_sum"


def _shown_labels(job: str, labels: Labels) -> Labels:
    """The job's name first, then the sample's own labels; those that belong to us or to the scrape become ``exported_...``."""
    taken = {name for name, _ in labels}
    shown = [("job_name", job)]
    for name, value in labels:
        fresh = name
        if name in _OUR_LABELS:
            fresh = f"exported_{name}"
            while fresh in taken:
                fresh = f"exported_{fresh}"
            taken.add(fresh)
        shown.append((fresh, value))
    return tuple(shown)


def _block(job: str, kept: _Kept, family: Family) -> str:
    lines = []
    for sample in family.samples:
        base = kept.base.get((sample.name, sample.labels), 0.0) if _adds_up(family, sample) else 0.0
        lines.append(f"{sample.name}{{{label_text(_shown_labels(job, sample.labels))}}} {number(base + sample.value)}\n")
    return "".join(lines)


def _stored_key(job: str, series: _Series) -> tuple[str, str]:
    return series[0], label_text(_shown_labels(job, series[1]))


# ---------------------------------------------------------------- the file


def _owner_of_folder(path: str) -> int | None:
    """The job's user, where its folder has one of its own: a link to somebody else's file is not the job's."""
    with contextlib.suppress(OSError, ValueError):
        uid = os.stat(os.path.dirname(path) or ".").st_uid
        return None if uid == os.geteuid() else uid
    return None


def _stamp(path: str) -> _Stamp | None:
    """(mtime in ns, size, inode) of what stands at *path* itself, without following it; None where nothing stands."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return (0, 0, 0)  # opening it will say what is wrong, once
    return _stamp_of(status)


def _stamp_of(status: os.stat_result) -> _Stamp:
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _read(path: str, owner: int | None) -> bytes:
    """The bytes of a regular file of at most ``MAX_BYTES`` that did not change while it was read; else ``TextError``."""
    try:
        fd = os.open(path, _OPEN)
    except (OSError, ValueError) as err:
        if isinstance(err, OSError) and stat.S_ISLNK(_mode(path)):
            raise TextError(RejectReason.NOT_A_FILE, "is a symbolic link; write the file itself") from err
        raise TextError(RejectReason.UNREADABLE, f"cannot be opened: {err}") from err
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise TextError(RejectReason.NOT_A_FILE, "is not a regular file")
        if owner is not None and before.st_uid != owner:
            raise TextError(RejectReason.NOT_A_FILE, f"belongs to uid {before.st_uid}, not to the job's uid {owner}")
        if before.st_size > MAX_BYTES:
            raise TextError(RejectReason.TOO_LARGE, f"has {before.st_size} bytes; at most {MAX_BYTES} are read")
        raw = _read_all(fd)
        if _stamp_of(os.fstat(fd)) != _stamp_of(before) or len(raw) != before.st_size:
            raise TextError(RejectReason.UNREADABLE, "changed while it was read; write another file and rename it into place")
        return raw
    except OSError as err:
        raise TextError(RejectReason.UNREADABLE, f"cannot be read: {err.strerror}") from err
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    pieces, left = [], MAX_BYTES + 1
    while left > 0 and (piece := os.read(fd, left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _mode(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_mode
    except OSError:
        return 0
