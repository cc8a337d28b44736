"""What a job may call: records(), progress(), heartbeat(), checkpoint(), resume(), counter(), gauge().

Standard library only, and harmless without Mainstay: each call does nothing when the environment does not name its channel.

    MAINSTAY_PAGE        the shared page of ``supervisor.page``: record in work, progress, heartbeat
    MAINSTAY_CHECKPOINT  JSON, replaced by rename; given back by ``resume`` after any death
    MAINSTAY_METRICS     Prometheus text format, replaced by rename; re-exported by Mainstay
    MAINSTAY_QUARANTINE  JSON list of record keys that killed the job before; ``records`` leaves them out
    MAINSTAY_ONLY        the one key that ``records`` hands on: a replay (see ``only``)

No call raises because of the channel: a full disk costs the supervisor's view, never the job. Python 3.8 and newer.

One process tells, the first that does; one loop of ``records`` at a time is followed. Others (nested, of another thread or task, of a child) hand
their records on all the same and leave the quarantined ones out, only nobody follows them. All calls may come from any thread.
"""

from __future__ import annotations

import os
import re
import time
from _thread import allocate_lock
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, Final, TypeVar

from supervisor import page as _page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")

CHECKPOINT_MAX_BYTES: Final = 64 * 1024
QUARANTINE_MAX_BYTES: Final = 16 * 2**20
FLUSH_EVERY_S: Final = 1.0  # how often counters and gauges are written at most; the last values are written at exit
_SURELY_WHOLE: Final = 63  # characters that fit on a page whatever they are: 255 bytes, at most four each

_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL_NAME: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


class _Channel:
    """The page of this process, opened at the first use; a forked child has none (the page has one writer)."""

    def __init__(self) -> None:
        self.pid = 0
        self.writer: _page.Writer | None = None
        self.followed = allocate_lock()  # held by the loop of records that is followed
        self.saying = allocate_lock()

    def open(self) -> _page.Writer | None:
        if self.pid != os.getpid():
            self.writer = self._find() if self.pid == 0 else None
            self.pid = os.getpid()
        return self.writer

    def say(self, done: int | None, total: int | None, stage: str) -> None:
        """Progress and a sign of life; left unsaid while another thread says something, for nobody waits here."""
        writer = self.open()
        if writer is not None and self.saying.acquire(False):
            try:
                writer.progress(done, total, stage)
            finally:
                self.saying.release()
            writer.heartbeat(time.monotonic_ns())

    @staticmethod
    def _find() -> _page.Writer | None:
        path = os.environ.get("MAINSTAY_PAGE")
        if not path:
            return None
        try:
            return _page.Writer(path)
        except (OSError, ValueError):
            return None


_channel = _Channel()


def records(iterable: Iterable[T], key: Callable[[T], object] | None = None, total: int | None = None, stage: str = "") -> Iterator[T]:
    """Hand on the records of *iterable*; whatever kills the job, Mainstay then knows which record was in work.

    *key* names a record (a short text, the same in every run; without it, its position counts from 0, and a record that kills is never set aside).
    *total* (its length, where it has one) gives a progress in per cent. Records whose key stands in the quarantine are left out; in a replay, all others
    are. Costs less than a microsecond per record. A loop left by ``break``, ``return`` or an exception leaves its record named until the next one begins
    (they cannot be told apart from here): where it should end early, let *iterable* end.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    wanted, poison = only(), _quarantined()
    writer = _channel.open()
    if writer is None and not poison and wanted is None:
        yield from iterable
        return
    named: Iterable[tuple[str, T]] = (
        ((str(key(item)), item) for item in iterable) if key else ((str(i), item) for i, item in enumerate(iterable))
    )
    if wanted is not None:
        named = ((name, item) for name, item in named if _page.name_of(name).decode() == wanted)
    elif poison:
        named = _spared(named, poison)
    if writer is None or not _channel.followed.acquire(False):
        for _, item in named:
            yield item
        return
    try:
        writer.keyed(key is not None)
        _channel.say(None, total, stage)
        yield from writer.each(named)
    finally:
        _channel.followed.release()


def _spared(named: Iterable[tuple[str, T]], poison: frozenset[str]) -> Iterator[tuple[str, T]]:
    """*named* without the records in *poison*. A short printable name is its own; only others have to be looked up as a page has them."""
    for name, item in named:
        if name in poison or ((not 0 < len(name) <= _SURELY_WHOLE or not name.isprintable()) and _page.name_of(name).decode() in poison):
            continue
        yield name, item


def only() -> str | None:
    """The key of the one record that ``mainstay quarantine --replay`` wants; None in an ordinary run.

    A job that leaves something behind can tell a replay by it. ``resume`` gives nothing in a replay, and what ``checkpoint`` keeps is forgotten.
    """
    return os.environ.get("MAINSTAY_ONLY") or None


def progress(done: int, total: int | None = None, stage: str = "") -> None:
    """*done* of *total* (None: not known) in *stage*, in any unit. Also a heartbeat."""
    _channel.say(max(0, done), total, stage)


def heartbeat() -> None:
    """Proof of life, for a job that has nothing to count."""
    writer = _channel.open()
    if writer is not None:
        writer.heartbeat(time.monotonic_ns())


def checkpoint(value: Mapping[str, Any]) -> None:
    """Keep *value* (JSON, at most 64 KiB) for ``resume``. Replaces the last one whole. ``ValueError`` or ``TypeError`` when it cannot be kept."""
    import json

    data = json.dumps(dict(value)).encode()
    if len(data) > CHECKPOINT_MAX_BYTES:
        raise ValueError(f"a checkpoint of {len(data)} bytes is larger than {CHECKPOINT_MAX_BYTES}; keep a key and read the rest again")
    path = os.environ.get("MAINSTAY_CHECKPOINT")
    if path:
        _replace(path, data, durable=True)
    heartbeat()


def resume() -> dict[str, Any] | None:
    """What the last ``checkpoint`` of this job kept, whichever process made it; None where there is none."""
    value = _read_json("MAINSTAY_CHECKPOINT", CHECKPOINT_MAX_BYTES)
    heartbeat()
    return value if isinstance(value, dict) else None


class Counter:
    """A number that only grows. Counts of one run; Mainstay adds the runs up."""

    def __init__(self, sample: _Sample) -> None:
        self._sample = sample

    def inc(self, amount: float = 1) -> None:
        """Add *amount*. ``ValueError`` if it is negative."""
        if not amount >= 0:
            raise ValueError(f"a counter cannot go down by {amount}; use a gauge")
        self._sample.value += amount
        _registry.changed()


class Gauge:
    """A number that goes up and down."""

    def __init__(self, sample: _Sample) -> None:
        self._sample = sample

    def set(self, value: float) -> None:
        """Is *value* from now on."""
        self._sample.value = float(value)
        _registry.changed()


def counter(name: str, help: str, **labels: str) -> Counter:  # noqa: A002 - the word Prometheus uses
    """The counter *name* (ends in ``_total``) with *labels*. ``ValueError`` for a name that Prometheus does not take."""
    return Counter(_registry.sample(name, help, "counter", labels))


def gauge(name: str, help: str, **labels: str) -> Gauge:  # noqa: A002 - see counter
    """The gauge *name* with *labels*. ``ValueError`` for a name that Prometheus does not take."""
    return Gauge(_registry.sample(name, help, "gauge", labels))


def flush() -> None:
    """Write counters and gauges now rather than within the next second."""
    _registry.write()


class _Sample:
    __slots__ = ("labels", "value")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.value = 0.0


class _Family:
    __slots__ = ("help", "kind", "samples")

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.help = text
        self.samples: dict[str, _Sample] = {}


class _Registry:
    """All counters and gauges of this process, written to $MAINSTAY_METRICS at most once a second and at exit."""

    def __init__(self) -> None:
        self.families: dict[str, _Family] = {}
        self.written_mono = 0.0
        self.pid = 0

    def sample(self, name: str, text: str, kind: str, labels: Mapping[str, str]) -> _Sample:
        if not _METRIC_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a metric name; use letters, digits and underscores")
        for label in labels:
            if not _LABEL_NAME.fullmatch(label):
                raise ValueError(f"{label!r} is not a label name; use letters, digits and underscores")
        family = self.families.setdefault(name, _Family(kind, text))
        if family.kind != kind:
            raise ValueError(f"{name} is a {family.kind} already; give the {kind} another name")
        if self.pid == 0:
            import atexit

            self.pid = os.getpid()
            atexit.register(self.write)
        rendered = ",".join(f'{label}="{_escape(str(value))}"' for label, value in sorted(labels.items()))
        return family.samples.setdefault(rendered, _Sample(rendered))

    def changed(self) -> None:
        now = time.monotonic()
        if now - self.written_mono >= FLUSH_EVERY_S:
            self.written_mono = now
            self.write()

    def write(self) -> None:
        path = os.environ.get("MAINSTAY_METRICS")
        if path and self.families and self.pid == os.getpid():
            _replace(path, self.render().encode(), durable=False)

    def render(self) -> str:
        lines = []
        for name, family in sorted(self.families.items()):
            text = family.help.replace("\\", r"\\").replace("\n", r"\n")
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {family.kind}"]
            lines += [f"{name}{{{s.labels}}} {s.value!r}" if s.labels else f"{name} {s.value!r}" for s in family.samples.values()]
        return "\n".join(lines) + "\n"


_registry = _Registry()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _quarantined() -> frozenset[str]:
    keys = _read_json("MAINSTAY_QUARANTINE", QUARANTINE_MAX_BYTES)
    return frozenset(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else frozenset()


def _read_json(variable: str, limit: int) -> Any:
    """The JSON value in the file that *variable* names; None where there is none, or nothing that can be read."""
    path = os.environ.get(variable)
    if not path:
        return None
    import json

    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
        return json.loads(data) if len(data) <= limit else None
    except (OSError, ValueError, RecursionError):
        return None


def _replace(path: str, data: bytes, *, durable: bool) -> None:
    """Put *data* at *path* in one step. A disk that does not take it leaves the old file: the job goes on."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
    except OSError:
        return
