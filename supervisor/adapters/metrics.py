"""The registry of Mainstay's own metrics: holds their values, persists the counters, writes the page.

What exists is declared in ``metrictable``; what jobs wrote themselves comes from ``jobmetrics`` and is only appended here. The
page is kept as ready text per metric and job, and only what changed is written anew: a scrape of a thousand jobs that sleep
costs a join.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import product
from math import inf, isfinite

from supervisor.adapters import ownprocess
from supervisor.adapters.exposition import MetricType, escape, header, label_text, number
from supervisor.adapters.metrictable import TABLE, Declaration, Scope, reference
from supervisor.adapters.series import Buckets, Cells, Grid, Loose, Owners, Values
from supervisor.core.jobs import Cron, Every, Job, Manual, Service
from supervisor.core.model import Wall

__all__ = ["TABLE", "Metrics", "reference"]

Restored = Mapping[tuple[str, str], float]


class _Family:
    """One declared metric: its values by owner (a job, a receiver, or "" for the daemon) and the text made of them."""

    def __init__(self, declared: Declaration, restored: Restored, owners: Owners) -> None:
        self.declared = declared
        self.owners = owners
        self.restored = dict(restored)
        self.header = header(declared.name, declared.type, declared.help)
        self.label_names = frozenset(label.name for label in declared.labels)
        self.blocks: dict[str, str] = {}
        self.stale: set[str] = set()  # of those that have a block
        self.text: str | None = None
        self.changed: set[tuple[str, Values]] = set()
        self.parting: dict[tuple[str, str], float] = {}  # of owners that left with news not yet taken
        self._closed = tuple(product(*(label.values for label in declared.labels)))  # one for all owners
        is_closed = all(label.closed and label.values for label in declared.labels)
        self.cells: Cells = Grid(self._closed) if is_closed else Loose()
        self.buckets = Buckets(len(declared.buckets))
        self._bound_texts = [number(bound) for bound in (*declared.buckets, inf)]

    @property
    def is_histogram(self) -> bool:
        return self.declared.type is MetricType.HISTOGRAM

    # ------------------------------------------------ owners

    def add(self, owner: str) -> None:
        """Gives the new *owner* everything that is known beforehand, at what was restored or else at 0."""
        declared, row = self.declared, self.owners.rows[owner]
        if self.is_histogram:
            self.buckets.set(row, *self._restored_histogram(owner))
        else:
            self.cells.clear(row)
            if declared.persists or declared.zero:
                for values in self._closed:
                    self.cells.put(row, values, self._restored_value(owner, values))
        self.text = None

    def remove(self, owner: str) -> None:
        """Takes *owner*, whose row is free after this, off the page. Its counters are remembered: one that comes back goes on where it was."""
        rows = dict(self._rows(owner))
        self.restored |= rows
        if any(key[0] == owner for key in self.changed):
            self.parting |= rows
        self.changed = {key for key in self.changed if key[0] != owner}
        if not self.is_histogram:
            self.cells.clear(self.owners.rows[owner])
        self.blocks.pop(owner, None)
        self.stale.discard(owner)
        self.text = None

    def touch(self, owner: str) -> None:
        if owner in self.blocks:
            self.stale.add(owner)
        self.text = None

    # ------------------------------------------------ values

    def split(self, labels: Mapping[str, str]) -> tuple[str, Values]:
        """Labels as (owner, values). ``ValueError`` for any that were not declared: a mistake in our own code."""
        declared = self.declared
        given = dict(labels)
        owner = str(given.pop(declared.scope, "")) if declared.scope else ""
        if given.keys() != self.label_names or (declared.scope and not owner):
            wanted = [*([str(declared.scope)] if declared.scope else []), *(label.name for label in declared.labels)]
            raise ValueError(f"{declared.name} has the labels {wanted}, not {list(labels)}")
        for label in declared.labels:
            if label.closed and label.values and given[label.name] not in label.values:
                raise ValueError(f"{declared.name}: {given[label.name]!r} is not a value of {label.name}; declared are {label.values}")
        return owner, tuple(str(given[label.name]) for label in declared.labels)

    def put(self, owner: str, values: Values, value: float) -> None:
        row = self.owners.rows[owner]
        if self.cells.get(row, values) != value:
            self.cells.put(row, values, value)
            self.touch(owner)

    def drop(self, owner: str, values: Values) -> None:
        if self.cells.drop(self.owners.rows[owner], values):
            self.touch(owner)

    def put_alone(self, owner: str, values: Values, value: float) -> None:
        """Set it, and take away all others of *owner*."""
        row = self.owners.rows[owner]
        if dict(self.cells.items(row)) != {values: value}:
            self.cells.clear(row)
            self.cells.put(row, values, value)
            self.touch(owner)

    def raise_by(self, owner: str, values: Values, by: float) -> None:
        row = self.owners.rows[owner]
        was = self.cells.get(row, values)
        if was is None:  # an open label: its value is met for the first time
            was = self._restored_value(owner, values)
        self.cells.put(row, values, was + by)
        self.changed.add((owner, values))
        self.touch(owner)

    def observe(self, owner: str, value: float) -> None:
        self.buckets.observe(self.owners.rows[owner], bisect_left(self.declared.buckets, value), value)
        self.changed.add((owner, ()))
        self.touch(owner)

    # ------------------------------------------------ persistence

    def take_changed(self) -> dict[tuple[str, str], float]:
        found, self.parting = self.parting, {}
        for owner, values in self.changed:
            value = None if self.is_histogram else self.cells.get(self.owners.rows[owner], values)
            if value is None:
                found |= dict(self._rows(owner))
            else:
                found[self.declared.name, self._label_text(owner, values)] = value
        self.changed.clear()
        return found

    def _rows(self, owner: str) -> Iterable[tuple[tuple[str, str], float]]:
        """(series name, label text) → value of all that persists of *owner*."""
        name, row = self.declared.name, self.owners.rows[owner]
        if self.is_histogram:
            counts, labels = self.buckets.counts(row), self._label_text(owner, ())
            for bound, count in zip(self._bound_texts, _cumulative(counts), strict=True):
                yield (f"{name}_bucket", _joined(labels, f'le="{bound}"')), count
            yield (f"{name}_sum", labels), self.buckets.sum(row)
            yield (f"{name}_count", labels), sum(counts)
        elif self.declared.persists:
            for values, value in self.cells.items(row):
                yield (name, self._label_text(owner, values)), value

    def _restored_value(self, owner: str, values: Values) -> float:
        if not self.declared.persists:
            return 0.0
        value = self.restored.get((self.declared.name, self._label_text(owner, values)), 0.0)
        return value if isfinite(value) and value >= 0 else 0.0

    def _restored_histogram(self, owner: str) -> tuple[list[float], float]:
        """(counts, sum) that were persisted, or of an empty one where bounds have changed since or the figures make no sense."""
        name, labels = self.declared.name, self._label_text(owner, ())
        empty = ([0.0] * len(self._bound_texts), 0.0)
        counts: list[float] = []
        below = 0.0
        for bound in self._bound_texts:
            cumulative = self.restored.get((f"{name}_bucket", _joined(labels, f'le="{bound}"')), -1.0)
            if not isfinite(cumulative) or cumulative < below:
                return empty
            counts.append(cumulative - below)
            below = cumulative
        total = self.restored.get((f"{name}_sum", labels), 0.0)
        return (counts, total) if isfinite(total) else empty

    # ------------------------------------------------ text

    def rendered(self) -> str:
        """HELP, TYPE and all samples; empty if there are none."""
        if self.text is None:
            for owner in self.stale if len(self.blocks) == len(self.owners.rows) else self.owners.rows:
                if owner in self.stale or owner not in self.blocks:
                    self.blocks[owner] = self._block(owner)
            self.stale.clear()
            body = "".join(self.blocks.values())
            self.text = self.header + body if body else ""
        return self.text

    def series(self) -> int:
        return (len(self._bound_texts) + 2) * len(self.owners.rows) if self.is_histogram else self.cells.count()

    def _block(self, owner: str) -> str:
        if self.is_histogram:
            return "".join(
                f"{name}{{{labels}}} {number(value)}\n" if labels else f"{name} {number(value)}\n"
                for (name, labels), value in self._rows(owner)
            )
        name, names = self.declared.name, [label.name for label in self.declared.labels]
        first = f'{self.declared.scope}="{escape(owner)}"' if owner else ""
        lines = []
        for values, value in self.cells.items(self.owners.rows[owner]):
            labels = _joined(first, _suffix(names, values)) if names else first
            lines.append(f"{name}{{{labels}}} {number(value)}\n" if labels else f"{name} {number(value)}\n")
        return "".join(lines)

    def _label_text(self, owner: str, values: Values) -> str:
        first = f'{self.declared.scope}="{escape(owner)}"' if owner else ""
        return _joined(first, label_text(zip((label.name for label in self.declared.labels), values, strict=True)))


def _suffix(names: list[str], values: Values) -> str:
    if len(names) == 1:
        value = values[0]
        return f'{names[0]}="{value}"' if value.isidentifier() else f'{names[0]}="{escape(value)}"'
    return label_text(zip(names, values, strict=True))


def _joined(first: str, second: str) -> str:
    return f"{first},{second}" if first and second else first or second


def _cumulative(counts: Iterable[float]) -> Iterable[float]:
    below = 0.0
    for count in counts:
        below += count
        yield below


class Metrics:
    """The values of all declared metrics; any thread may call any method.

    *restored* is what ``changed`` gave in earlier lives: (series name, text between the braces) → value. A name or label that is
    not declared is a mistake in our code and raises ``KeyError`` or ``ValueError``. News of a job or receiver that has left (an
    attempt that ends after a reload took its job away) is let go without a word.
    """

    def __init__(self, restored: Restored) -> None:
        self._lock = threading.Lock()
        by_name: dict[str, dict[tuple[str, str], float]] = {}
        for (name, labels), value in restored.items():
            by_name.setdefault(_base_name(name), {})[name, labels] = value
        self._owners = {scope: Owners() for scope in Scope}
        self._families = {name: _Family(declared, by_name.get(name, {}), self._owners[declared.scope]) for name, declared in TABLE.items()}
        self._add(Scope.DAEMON, "")
        for name in ("mainstay_exposition_series", "mainstay_exposition_duration_seconds"):
            self._families[name].put("", (), 0.0)  # so that they count themselves from the first page on

    # ------------------------------------------------ values

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Raises a counter by *value*. ``ValueError`` if that is negative or not finite."""
        if not isfinite(value) or value < 0:
            raise ValueError(f"{name} cannot be raised by {value}")
        with self._lock:
            family, owner, values = self._find(name, MetricType.COUNTER, labels)
            if owner in family.owners.rows:
                family.raise_by(owner, values, value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Puts a gauge at *value*."""
        with self._lock:
            family, owner, values = self._find(name, MetricType.GAUGE, labels)
            if owner in family.owners.rows:
                family.put(owner, values, float(value))

    def clear(self, name: str, **labels: str) -> None:
        """Makes a gauge vanish: not known, or not so any more."""
        with self._lock:
            family, owner, values = self._find(name, MetricType.GAUGE, labels)
            if owner in family.owners.rows:
                family.drop(owner, values)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds an observation to a histogram. ``ValueError`` if it is not finite: it would spoil the sum for ever."""
        if not isfinite(value):
            raise ValueError(f"{name} cannot observe {value}")
        with self._lock:
            family, owner, _ = self._find(name, MetricType.HISTOGRAM, labels)
            if owner in family.owners.rows:
                family.observe(owner, float(value))

    def state_set(self, name: str, label: str, current: str, **labels: str) -> None:
        """Puts the series of a state set at 1 for *current* and at 0 for all other declared values of *label*."""
        with self._lock:
            family, owner, _ = self._find(name, MetricType.GAUGE, {**labels, label: current})
            states = next(known.values for known in family.declared.labels if known.name == label)
            if owner in family.owners.rows:
                for state in states:
                    _, values = family.split({**labels, label: state})
                    family.put(owner, values, float(state == current))

    def info(self, name: str, **labels: str) -> None:
        """Puts an info metric at 1 with these labels and takes its earlier labels away."""
        with self._lock:
            family, owner, values = self._find(name, MetricType.GAUGE, labels)
            if owner in family.owners.rows:
                family.put_alone(owner, values, 1.0)

    def _find(self, name: str, kind: MetricType, labels: Mapping[str, str]) -> tuple[_Family, str, Values]:
        family = self._families.get(name)
        if family is None:
            raise KeyError(f"{name} is not declared in supervisor.adapters.metrictable")
        if family.declared.type is not kind:
            raise ValueError(f"{name} is a {family.declared.type}, not a {kind}")
        return (family, *family.split(labels))

    # ------------------------------------------------ owners

    def add_job(self, job: Job, configured_at: Wall) -> None:
        """Brings every counter and closed label value of *job* to the page and sets its thresholds; again after a reload."""
        self._add(Scope.JOB, job.name)
        name = job.name
        self.set("mainstay_job_configured_timestamp_seconds", configured_at.timestamp(), job_name=name)
        self.info("mainstay_job_info", job_name=name, kind=_kind(job), severity=job.alerts.severity)
        limits = job.limits
        for limit, size in (("memory", limits.memory_bytes), ("memory_soft", limits.memory_soft_bytes), ("output", limits.output_bytes)):
            self._threshold("mainstay_job_limit_bytes", size, job_name=name, limit=limit)
        for limit, span in (("time", limits.time_s), ("cpu", limits.cpu_s), ("stall", limits.stall_s)):
            self._threshold("mainstay_job_limit_seconds", span, job_name=name, limit=limit)
        self._threshold("mainstay_job_limit_frames", limits.recursion_frames, job_name=name)
        self._threshold("mainstay_job_success_max_age_seconds", job.expect.success_every_s, job_name=name)
        self._threshold("mainstay_job_failure_threshold", job.alerts.after, job_name=name)

    def remove_job(self, name: str) -> None:
        """Takes a job off the page."""
        self._remove(Scope.JOB, name)

    def add_receiver(self, name: str) -> None:
        """Brings every counter of a receiver of alerts to the page."""
        self._add(Scope.RECEIVER, name)

    def remove_receiver(self, name: str) -> None:
        """Takes a receiver off the page."""
        self._remove(Scope.RECEIVER, name)

    def _threshold(self, name: str, value: float | None, **labels: str) -> None:
        if value is None:
            self.clear(name, **labels)
        else:
            self.set(name, value, **labels)

    def _add(self, scope: Scope, owner: str) -> None:
        with self._lock:
            if owner in self._owners[scope].rows:
                return
            self._owners[scope].add(owner)
            for family in self._families.values():
                if family.declared.scope is scope:
                    family.add(owner)

    def _remove(self, scope: Scope, owner: str) -> None:
        with self._lock:
            if owner not in self._owners[scope].rows:
                return
            for family in self._families.values():
                if family.declared.scope is scope:
                    family.remove(owner)
            self._owners[scope].remove(owner)

    # ------------------------------------------------ persistence and page

    def changed(self) -> dict[tuple[str, str], float]:
        """What persists and has changed since the last call: (series name, text between the braces) → value now."""
        with self._lock:
            found: dict[tuple[str, str], float] = {}
            for family in self._families.values():
                if family.changed or family.parting:
                    found |= family.take_changed()
            return found

    def render(self, extra: Iterable[str] = ()) -> bytes:
        """The page in text format 0.0.4; *extra* is more of it, whole families that end in a newline."""
        started = time.perf_counter()
        process = ownprocess.figures()
        with self._lock:
            for name, value in process.items():
                self._families[name].put("", (), value)
            shown = [family for family in self._families.values() if family.declared.exported]
            self._families["mainstay_exposition_series"].put("", (), float(sum(family.series() for family in shown)))
            late = self._families["mainstay_exposition_duration_seconds"]
            texts = [family.rendered() for family in shown if family is not late]
            late.put("", (), time.perf_counter() - started)
            texts.append(late.rendered())
        texts.extend(extra)
        return "".join(texts).encode("utf-8")


def _base_name(series: str) -> str:
    """The declared metric that a persisted series belongs to."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = series.removesuffix(suffix)
        if base in TABLE and TABLE[base].type is MetricType.HISTOGRAM:
            return base
    return series


def _kind(job: Job) -> str:
    match job.schedule.when:
        case Every():
            return "every"
        case Cron():
            return "cron"
        case Manual():
            return "manual"
        case Service():
            return "service"
