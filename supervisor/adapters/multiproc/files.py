"""The files of prometheus_client's multiprocess mode: read without trusting them, summed over the processes of an attempt and over attempts.

A job that asks for it (``metrics: {multiprocess: true}``) gets a directory of its own for each attempt in ``$PROMETHEUS_MULTIPROC_DIR``. The client
library keeps every value in a memory-mapped file there, so it survives SIGKILL without a hook. A file: its used length (int), 4 bytes of padding,
then entries of key length (int), JSON key padded to 8 bytes, value and time (doubles); as in prometheus_client/mmap_dict.py, 0.20 to 0.26.
What a family may look like is checked where text files are: the sums are written as text and read by ``exposition.parse``.
"""

import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct, field

from supervisor.adapters.exposition import MetricType, RejectReason, TextError, header, label_text, number

FILES_MAX: Final = 512  # of one attempt: processes times kinds of metrics
BYTES_MAX: Final = 2**20  # of all files of one attempt that are in use
KEY_MAX: Final = 16 * 1024
_NAME: Final = re.compile(
    r"(counter|histogram|summary|gauge_(?:all|liveall|min|livemin|max|livemax|sum|livesum|mostrecent|livemostrecent))_([A-Za-z0-9.-]{1,64})\.db"
)
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_INT: Final = struct.Struct("=i")
_TWO: Final = struct.Struct("=dd")

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]


class RawFile(Struct, frozen=True):
    """The used bytes of one file. ``identity`` tells it from a later one of the same name."""

    name: str
    identity: str
    data: bytes

    @property
    def kind(self) -> str:
        """counter, histogram, summary or gauge_MODE."""
        return self.name.rpartition("_")[0]

    @property
    def process(self) -> str:
        """Its process, usually a pid."""
        return self.name.rpartition("_")[2].removesuffix(".db")


class Sum(Struct):
    """One family: what its samples add up to. Buckets of a histogram are not cumulative here. ``times``: of gauges that go by the latest."""

    type: str
    help: str
    mode: str = ""
    samples: dict[Series, float] = field(default_factory=dict)
    times: dict[Series, float] = field(default_factory=dict)


Sums = dict[str, Sum]


# ---------------------------------------------------------------- reading


def read_folder(path: str) -> list[RawFile]:
    """The files at *path*, by name. ``TextError`` when there are too many or too large ones, or what looks like one is none.

    Files must be regular and belong to the owner of the directory, unless that is ourselves. An empty list where nothing is.
    """
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as err:
        raise TextError(RejectReason.UNREADABLE, f"cannot be opened: {err.strerror}") from err
    try:
        owner = os.fstat(folder).st_uid
        names = sorted(name for name in _listed(folder) if _NAME.fullmatch(name))
        room, found = BYTES_MAX, []
        for name in names:
            raw = _read_file(folder, name, None if owner == os.geteuid() else owner, room)
            if raw is not None:
                room -= len(raw.data)
                found.append(raw)
        return found
    finally:
        os.close(folder)


def _listed(folder: int) -> list[str]:
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > FILES_MAX:
                raise TextError(RejectReason.LIMIT, f"more than {FILES_MAX} files")
    return names


def _read_file(folder: int, name: str, owner: int | None, room: int) -> RawFile | None:
    try:
        fd = os.open(name, _OPEN, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise TextError(RejectReason.NOT_A_FILE, f"{name}: cannot be opened: {err.strerror}") from err
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise TextError(RejectReason.NOT_A_FILE, f"{name}: is not a regular file")
        if owner is not None and status.st_uid != owner:
            raise TextError(RejectReason.NOT_A_FILE, f"{name}: belongs to uid {status.st_uid}, not to the job's uid {owner}")
        head = os.pread(fd, 4, 0)
        used = _INT.unpack(head)[0] if len(head) == 4 else 0
        if used == 0:
            return None  # made this moment
        if not 8 <= used <= status.st_size:
            raise TextError(RejectReason.MALFORMED, f"{name}: says that {used} of {status.st_size} bytes are used")
        if used > room:
            raise TextError(RejectReason.TOO_LARGE, f"all files together use more than {BYTES_MAX} bytes")
        return RawFile(name, f"{name}:{status.st_ino}", os.pread(fd, used, 0))
    except OSError as err:
        raise TextError(RejectReason.UNREADABLE, f"{name}: cannot be read: {err.strerror}") from err
    finally:
        os.close(fd)


def digest(files: Iterable[RawFile]) -> int:
    """A number that changes with the content, for who looks again and again."""
    value = 0
    for one in files:
        value = zlib.crc32(one.data, zlib.crc32(one.identity.encode(), value))
    return value


def _entries(file: RawFile) -> Iterable[tuple[str, float, float]]:
    """Key, value and time of each entry; ``TextError`` for bytes that the library does not write."""
    data, at = file.data, 8
    while at < len(data):
        length = _INT.unpack_from(data, at)[0] if at + 4 <= len(data) else -1
        end = at + 4 + length + (8 - (length + 4) % 8)
        if not 0 < length <= KEY_MAX or end + 16 > len(data):
            raise TextError(RejectReason.MALFORMED, f"{file.name}: byte {at} begins no entry")
        try:
            key = data[at + 4 : at + 4 + length].decode("utf-8")
        except UnicodeDecodeError as err:
            raise TextError(RejectReason.MALFORMED, f"{file.name}: the key at byte {at} is not UTF-8") from err
        yield key, *_TWO.unpack_from(data, end)
        at = end + 16


def _key(file: RawFile, text: str) -> tuple[str, str, Labels, str]:
    """Family, sample, labels and help of an entry."""
    try:
        family, sample, labels, help_text = json.loads(text)
        named = tuple(sorted(labels.items()))
        plain = all(isinstance(part, str) for pair in named for part in pair)
        if plain and all(isinstance(one, str) for one in (family, sample, help_text)):
            return family, sample, named, help_text
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise TextError(RejectReason.MALFORMED, f"{file.name}: {text[:40]!r} names no sample")


# ---------------------------------------------------------------- adding up


def summed(files: Iterable[RawFile], is_alive: Callable[[str], bool]) -> Sums:
    """The families of one attempt over its processes. ``live`` gauges count while their process does."""
    sums: Sums = {}
    for file in files:
        kind, _, mode = file.kind.partition("_")
        if mode.startswith("live") and not is_alive(file.process):
            continue
        for text, value, at in _entries(file):
            family, sample, labels, help_text = _key(file, text)
            one = sums.setdefault(family, Sum(kind, help_text, mode))
            if (one.type, one.mode) != (kind, mode):
                raise TextError(RejectReason.CONFLICT, f"{file.name}: {family[:80]} is a {one.type} elsewhere")
            if kind == "gauge":
                _gauge(one, (sample, labels), file.process, value, at)
            else:
                one.samples[(sample, labels)] = one.samples.get((sample, labels), 0.0) + value
    return sums


def _gauge(one: Sum, series: Series, process: str, value: float, at: float) -> None:
    mode = one.mode.removeprefix("live")
    before = one.samples.get(series)
    match mode:
        case "all":
            series = (series[0], tuple(sorted((*series[1], ("pid", process)))))
            one.samples[series] = value
        case "sum":
            one.samples[series] = (before or 0.0) + value
        case "mostrecent":
            if before is None or at > one.times.get(series, 0.0):
                one.samples[series], one.times[series] = value, at
        case _:
            pick = min if mode == "min" else max
            one.samples[series] = value if before is None else pick(before, value)


def joined(earlier: Mapping[str, Sum], later: Mapping[str, Sum]) -> Sums:
    """One after the other: what counts adds up, gauges are those of the later, as long as it has any. ``TextError`` for one that changed its type."""
    result = {name: Sum(one.type, one.help, one.mode, dict(one.samples), dict(one.times)) for name, one in earlier.items()}
    for name, one in later.items():
        before = result.get(name)
        if before is None or one.type == "gauge" == before.type:
            result[name] = Sum(one.type, one.help, one.mode, dict(one.samples), dict(one.times))
            continue
        if before.type != one.type:
            raise TextError(RejectReason.CONFLICT, f"{name[:80]} was a {before.type} in an earlier attempt and is a {one.type} now")
        before.help = one.help
        for series, value in one.samples.items():
            before.samples[series] = before.samples.get(series, 0.0) + value
    return result


def without_live(sums: Mapping[str, Sum]) -> Sums:
    """What is kept of an attempt that is over."""
    return {name: one for name, one in sums.items() if not one.mode.startswith("live")}


def as_text(sums: Mapping[str, Sum]) -> str:
    """In the text format 0.0.4; what is no valid name or value in it is found by who parses it."""
    return "".join(_family_text(name, one) for name, one in sums.items() if one.samples)


def _family_text(name: str, one: Sum) -> str:
    if one.type == "counter":
        shown = next(iter(one.samples))[0]  # TYPE stands before the name that the samples have: x_total
        head = header(shown, MetricType.COUNTER, one.help)
        return head + "".join(_line(sample, labels, value) for (sample, labels), value in one.samples.items())
    head = header(name, MetricType(one.type), one.help)
    if one.type != "histogram":
        return head + "".join(_line(sample, labels, value) for (sample, labels), value in one.samples.items())
    return head + _histogram_text(name, one)


def _histogram_text(name: str, one: Sum) -> str:
    buckets: dict[Labels, dict[float, tuple[str, float]]] = {}
    lines: list[str] = []
    for (sample, labels), value in one.samples.items():
        bound = dict(labels).get("le")
        if bound is None or sample != f"{name}_bucket":
            lines.append(_line(sample, labels, value))
            continue
        try:
            upper = float(bound)
        except ValueError:
            raise TextError(RejectReason.MALFORMED, f"{name[:80]}: the bucket {bound[:40]!r} is not a number") from None
        buckets.setdefault(tuple(pair for pair in labels if pair[0] != "le"), {})[upper] = (bound, value)
    for labels, bounds in buckets.items():
        so_far = 0.0
        for _, (bound, value) in sorted(bounds.items()):
            so_far += value
            lines.append(_line(f"{name}_bucket", (*labels, ("le", bound)), so_far))
        lines.append(_line(f"{name}_count", labels, so_far))
    return "".join(lines)


def _line(sample: str, labels: Labels, value: float) -> str:
    return f"{sample}{{{label_text(labels)}}} {number(value)}\n"


# ---------------------------------------------------------------- kept over attempts and over lives of ours


def encode(sums: Mapping[str, Sum]) -> dict[str, Any]:
    """As JSON can hold it."""
    return {
        name: {
            "type": one.type,
            "help": one.help,
            "mode": one.mode,
            "samples": [[sample, [list(pair) for pair in labels], value] for (sample, labels), value in one.samples.items()],
        }
        for name, one in sums.items()
    }


def decode(document: Mapping[str, Any]) -> Sums:
    """What ``encode`` made. ``ValueError``, ``TypeError`` or ``KeyError`` for anything else."""
    return {
        name: Sum(
            str(one["type"]),
            str(one["help"]),
            str(one["mode"]),
            {
                (str(sample), tuple((str(label), str(text)) for label, text in labels)): float(value)
                for sample, labels, value in one["samples"]
            },
        )
        for name, one in document.items()
    }
