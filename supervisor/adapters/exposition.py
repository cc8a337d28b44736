"""The Prometheus text format 0.0.4: escape, print and read it.

Which metrics exist and what they mean is the business of ``metrics`` and ``jobmetrics``; this module knows the grammar only.
The reader is our own because it is strict where a scrape is strict (one bad line takes the whole page down), because it keeps
every name as it was written, and because its cost is linear in the text, whatever a hostile file holds.
"""

import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class MetricType(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNTYPED = "untyped"


class RejectReason(StrEnum):
    """Why something that a job wrote is not on the page; the label values of ``mainstay_job_metrics_rejected_total``."""

    UNREADABLE = "unreadable"
    NOT_A_FILE = "not_a_file"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    TIMESTAMP = "timestamp"
    DUPLICATE = "duplicate"
    LIMIT = "limit"
    RESERVED = "reserved"
    CONFLICT = "conflict"


class Caps(Struct, frozen=True):
    """How much one text may hold: samples, labels of a sample, characters of a name or of a label's value."""

    samples: int = 1000
    labels: int = 30
    text: int = 1024


class TextError(ValueError):
    """A text is not the format, or not within the caps: ``reason`` for the counter, the message ("line N: ...") for a person."""

    def __init__(self, reason: RejectReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sample(Struct, frozen=True):
    """One line: the series' own name, its labels sorted by name (unescaped), its value."""

    name: str
    labels: Labels
    value: float


class Family(Struct):
    """A metric with its TYPE and HELP as written (HELP unescaped) and its samples in order of appearance."""

    name: str
    type: MetricType = MetricType.UNTYPED
    help: str = ""
    samples: list[Sample] = field(default_factory=list)


# ---------------------------------------------------------------- printing


def escape(value: str) -> str:
    """A label value as it stands between the quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def label_text(labels: Iterable[tuple[str, str]]) -> str:
    """Labels as they stand between the braces: ``job_name="a",outcome="failed"``; empty for none."""
    return ",".join(f'{name}="{escape(value)}"' for name, value in labels)


def number(value: float) -> str:
    """A sample's value as Prometheus reads it back without loss."""
    if math.isfinite(value):
        return repr(value)
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def header(name: str, kind: MetricType, help_text: str) -> str:
    """The HELP and TYPE lines of a family. A help without text still gets its line: linters ask for one."""
    text = help_text.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def series_names(name: str, kind: MetricType) -> tuple[str, ...]:
    """Every name that samples of such a family may carry."""
    match kind:
        case MetricType.HISTOGRAM:
            return (name, f"{name}_bucket", f"{name}_sum", f"{name}_count")
        case MetricType.SUMMARY:
            return (name, f"{name}_sum", f"{name}_count")
        case _:
            return (name,)


# ---------------------------------------------------------------- reading

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*\"((?:[^\"\\\n]|\\.)*)\"[ \t]*(,|(?=}))")
_CLOSING = re.compile(r"[ \t]*}")
_COMMENT = re.compile(r"#[ \t]+(HELP|TYPE)[ \t]+([a-zA-Z_:][a-zA-Z0-9_:]*)(?:[ \t]+(.*))?$")
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"'}
_OF_FAMILY = {MetricType.HISTOGRAM: ("_bucket", "_sum", "_count"), MetricType.SUMMARY: ("_sum", "_count")}


def decode(raw: bytes) -> str:
    """The text of a metrics file. ``TextError`` for what a scrape would fall over: other encodings, NUL bytes, carriage returns."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise TextError(RejectReason.MALFORMED, f"byte {err.start} is not UTF-8") from err
    for character, called in (("\0", "a NUL byte"), ("\r", "a carriage return; end lines with a newline alone")):
        at = text.find(character)
        if at >= 0:
            raise TextError(RejectReason.MALFORMED, f"line {text.count(chr(10), 0, at) + 1}: {called}")
    return text


def parse(text: str, caps: Caps | None = None) -> list[Family]:
    """The families of a text in order of appearance; all of it, or ``TextError``.

    Stricter than some readers, for the page must suit the strictest: timestamps, duplicate series, a TYPE that comes twice or
    after its samples, impossible samples of a type, counters that are negative or not finite, are errors.
    """
    reading = _Reading(caps or Caps())
    for index, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip(" \t")
        if not stripped:
            continue
        try:
            if stripped[0] == "#":
                reading.comment(stripped)
            else:
                reading.sample(stripped)
        except TextError as err:
            raise TextError(err.reason, f"line {index}: {err}") from err
    return reading.families()


class _Reading:
    """What has been read so far of one text."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._families: dict[str, Family] = {}
        self._typed: set[str] = set()
        self._helped: set[str] = set()
        self._seen: set[tuple[str, Labels]] = set()

    def comment(self, line: str) -> None:
        found = _COMMENT.match(line)
        if found is None:
            if re.match(r"#[ \t]+(HELP|TYPE)(?:[ \t]|$)", line):
                raise TextError(RejectReason.MALFORMED, "a HELP or TYPE line needs the name of a metric")
            return
        word, name, rest = found.group(1), found.group(2), found.group(3) or ""
        self._check_length("metric name", name)
        done = self._helped if word == "HELP" else self._typed
        if name in done:
            raise TextError(RejectReason.MALFORMED, f"a second {word} line for {name}")
        done.add(name)
        if len(done) > self._caps.samples:
            raise TextError(RejectReason.LIMIT, f"more than {self._caps.samples} metrics")
        if word == "HELP":
            self._check_length("help", rest)
            self._family(name).help = _unescape(rest)
        else:
            self._set_type(name, rest.strip(" \t"))

    def _set_type(self, name: str, word: str) -> None:
        family = self._family(name)
        if family.samples:
            raise TextError(RejectReason.MALFORMED, f"the TYPE of {name} comes after its samples")
        if word == "unknown":  # OpenMetrics' word for it
            word = "untyped"
        try:
            family.type = MetricType(word)
        except ValueError as err:
            known = ", ".join(MetricType)
            raise TextError(RejectReason.MALFORMED, f"{word[:40]!r} is not a type of metric; write one of {known}") from err

    def sample(self, line: str) -> None:
        named = _NAME.match(line)
        if named is None:
            raise TextError(RejectReason.MALFORMED, f"{line[:40]!r} does not start with the name of a metric")
        name = named.group()
        self._check_length("metric name", name)
        labels, at = self._labels(line, named.end())
        words = line[at:].split()
        if not words or (at == named.end() and line[at] not in " \t"):
            raise TextError(RejectReason.MALFORMED, f"{name}: a value is missing")
        value = _value(name, words[0])
        if len(words) == 2 and re.fullmatch(r"[+-]?[0-9]+", words[1]):
            raise TextError(RejectReason.TIMESTAMP, f"{name} carries a timestamp; leave it out, the scrape sets the time")
        if len(words) > 1:
            raise TextError(RejectReason.MALFORMED, f"{name}: {words[1][:40]!r} after the value")
        self._take(Sample(name, labels, value))

    def _labels(self, line: str, at: int) -> tuple[Labels, int]:
        """The labels that start at or after *at*, sorted, and where they end."""
        start = at
        while start < len(line) and line[start] in " \t":
            start += 1
        if start >= len(line) or line[start] != "{":
            return (), at
        at = start + 1
        found: dict[str, str] = {}
        while not (closing := _CLOSING.match(line, at)):
            pair = _LABEL.match(line, at)
            if pair is None:
                raise TextError(RejectReason.MALFORMED, f"labels are malformed at {line[at : at + 40]!r}")
            name, value = pair.group(1), _unescape_label(pair.group(2))
            if name in found:
                raise TextError(RejectReason.DUPLICATE, f"label {name} stands twice")
            if name.startswith("__"):
                raise TextError(RejectReason.RESERVED, f"label {name[:40]}: names that begin with two underscores are Prometheus' own")
            self._check_length("label name", name)
            self._check_length("label value", value)
            found[name] = value
            if len(found) > self._caps.labels:
                raise TextError(RejectReason.LIMIT, f"more than {self._caps.labels} labels")
            at = pair.end()
        return tuple(sorted(found.items())), closing.end()

    def _take(self, sample: Sample) -> None:
        if (sample.name, sample.labels) in self._seen:
            labels = f"{{{label_text(sample.labels)[:80]}}}" if sample.labels else ""
            raise TextError(RejectReason.DUPLICATE, f"{sample.name}{labels} stands twice")
        self._seen.add((sample.name, sample.labels))
        if len(self._seen) > self._caps.samples:
            raise TextError(RejectReason.LIMIT, f"more than {self._caps.samples} samples")
        family = self._owner(sample.name)
        _check_sample(family, sample)
        family.samples.append(sample)

    def _owner(self, name: str) -> Family:
        """The family that a series of this name belongs to: its own, or the histogram or summary that it is a part of."""
        if name in self._families:
            return self._families[name]
        for kind, suffixes in _OF_FAMILY.items():
            for suffix in suffixes:
                base = self._families.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
                if base is not None and base.type is kind:
                    return base
        return self._family(name)

    def _family(self, name: str) -> Family:
        return self._families.setdefault(name, Family(name))

    def _check_length(self, what: str, text: str) -> None:
        if len(text) > self._caps.text:
            raise TextError(RejectReason.LIMIT, f"a {what} of {len(text)} characters; at most {self._caps.text} are taken")

    def families(self) -> list[Family]:
        """All that was read and has samples. As OpenMetrics writes them, ``TYPE x counter`` also speaks for ``x_total``."""
        for family in self._families.values():
            total = self._families.get(f"{family.name}_total")
            if family.type is MetricType.COUNTER and not family.samples and total is not None and total.type is MetricType.UNTYPED:
                total.type, total.help = MetricType.COUNTER, total.help or family.help
                for sample in total.samples:
                    _check_sample(total, sample)
        return [family for family in self._families.values() if family.samples]


def _value(name: str, word: str) -> float:
    if _NUMBER.fullmatch(word) is None:
        raise TextError(RejectReason.MALFORMED, f"{name}: {word[:40]!r} is not a number")
    return float(word)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found.group(1), found.group(0)), text) if "\\" in text else text


def _unescape_label(text: str) -> str:
    if "\\" not in text:
        return text
    for found in _ESCAPE.finditer(text):
        if found.group(1) not in _ESCAPES:
            raise TextError(RejectReason.MALFORMED, f'{found.group(0)!r} is not an escape; a label value knows \\\\, \\n and \\"')
    return _unescape(text)


def _check_sample(family: Family, sample: Sample) -> None:
    """``TextError`` if a family of this type cannot have such a sample."""
    labels = dict(sample.labels)
    match family.type:
        case MetricType.HISTOGRAM if sample.name == f"{family.name}_bucket":
            _check_bound(sample, labels, "le")
        case MetricType.SUMMARY if sample.name == family.name:
            _check_bound(sample, labels, "quantile")
        case MetricType.HISTOGRAM if sample.name == family.name:
            raise TextError(RejectReason.MALFORMED, f"{sample.name} is a histogram; write _bucket, _sum and _count")
        case MetricType.COUNTER if not math.isfinite(sample.value) or sample.value < 0:
            raise TextError(RejectReason.MALFORMED, f"{sample.name} is a counter and stands at {number(sample.value)}")
        case _:
            pass
    if is_count(family, sample) and (not math.isfinite(sample.value) or sample.value < 0):
        raise TextError(RejectReason.MALFORMED, f"{sample.name} counts observations and stands at {number(sample.value)}")


def _check_bound(sample: Sample, labels: Mapping[str, str], name: str) -> None:
    if name not in labels or _NUMBER.fullmatch(labels[name]) is None:
        raise TextError(RejectReason.MALFORMED, f"{sample.name}: the label {name} must be a number")


def is_count(family: Family, sample: Sample) -> bool:
    """True for a part of a histogram or summary that counts observations."""
    match family.type:
        case MetricType.HISTOGRAM:
            return sample.name.endswith(("_bucket", "_count")) and sample.name != family.name
        case MetricType.SUMMARY:
            return sample.name == f"{family.name}_count"
        case _:
            return False
