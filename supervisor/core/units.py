"""Sizes, durations and ratios as people write them: parse ("512MiB", "1h30m", "10%") and print, each the inverse of the other.

Every ``ValueError`` says what was found and what to write. Where the text stood is the caller's to add.
"""

import math
import re

MAX_SIZE = 2**60
MAX_DURATION_S = 10 * 366 * 86400.0

SIZE_PATTERN = r"[0-9]{1,19}(\.[0-9]{1,6})?(B|KiB|MiB|GiB|TiB)"
DURATION_PATTERN = r"([0-9]{1,12}(w|d|h|ms|m|s))*[0-9]{1,12}(\.[0-9]{1,9})?(w|d|h|ms|m|s)"
RATIO_PATTERN = r"[0-9]{1,3}(\.[0-9]{1,15})?%"

SIZE_FORM = "a number with B, KiB, MiB, GiB or TiB, e.g. 512MiB"
DURATION_FORM = "a number with ms, s, m, h, d or w, e.g. 90s or 1h30m"
RATIO_FORM = "a percentage from 0% to 100%, e.g. 10%"

_SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE_SPELLINGS = {"b": "B", "byte": "B", "bytes": "B"} | {
    spelling: unit
    for unit in ("KiB", "MiB", "GiB", "TiB")
    for letter in [unit[0].lower()]
    for spelling in (letter, letter + "b", letter + "ib")
}
_NS = 10**9
_DURATION_UNITS = {"w": 7 * 86400 * _NS, "d": 86400 * _NS, "h": 3600 * _NS, "m": 60 * _NS, "s": _NS, "ms": 10**6}
_DURATION_SPELLINGS = {
    spelling: unit
    for unit, spellings in {
        "w": "w week weeks",
        "d": "d day days",
        "h": "h hr hrs hour hours",
        "m": "m min mins minute minutes",
        "s": "s sec secs second seconds",
        "ms": "ms msec millis milliseconds",
    }.items()
    for spelling in spellings.split()
}
_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,6}))?(B|KiB|MiB|GiB|TiB)")
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(w|d|h|ms|m|s)")
_RATIO = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,15}))?%")
_LOOSE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)")
_CLOCK = re.compile(r"([0-9]{1,3}):([0-5][0-9])")


def parse_size(text: str) -> int:
    """Bytes of "512MiB". Units are B, KiB, MiB, GiB, TiB; a fraction is rounded down to whole bytes; at most 1 EiB."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(_size_complaint(text))
    whole, fraction, unit = found.groups()
    size = _scaled(whole, fraction, _SIZE_UNITS[unit])
    if size > MAX_SIZE:
        raise ValueError(f"{quoted(text)} is more than any machine has; write at most 1048576TiB")
    return size


def format_size(size: int) -> str:
    """The shortest exact text in one unit: 536870912 is "512MiB", 1000 is "1000B"."""
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"{size} is not a number of bytes from 0 to 1 EiB")
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def parse_duration(text: str) -> float:
    """Seconds of "1h30m": units w, d, h, m, s, ms, largest first, each at most once; the last may have decimals; at most ten years."""
    if not _DURATION.fullmatch(text):
        raise ValueError(_duration_complaint(text))
    order = list(_DURATION_UNITS)
    total, last = 0, -1
    for whole, fraction, unit in _DURATION_PART.findall(text):
        if order.index(unit) <= last:
            raise ValueError(f"{quoted(text)} has its units out of order; write the largest first and each once, e.g. 1h30m")
        last = order.index(unit)
        total += _scaled(whole, fraction, _DURATION_UNITS[unit])
    if total > MAX_DURATION_S * _NS:
        raise ValueError(f"{quoted(text)} is longer than ten years; write at most 3660d")
    return total / _NS


def format_duration(seconds: float) -> str:
    """The exact text to the nanosecond: 5400.0 is "1h30m", 0.25 is "250ms", 90.5 is "1m30.5s". Days are the largest unit, but for whole
    weeks from 52w on.
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_DURATION_S):
        raise ValueError(f"{seconds} is not a number of seconds from 0 to ten years")
    numerator, denominator = seconds.as_integer_ratio()
    left = (2 * numerator * _NS + denominator) // (2 * denominator)  # rounded; floats lose nanoseconds above 100 days
    if 0 < left < _NS:
        return f"{_decimal(left, 10**6)}ms"
    weeks, beside = divmod(left, _DURATION_UNITS["w"])
    if weeks >= 52 and not beside:
        return f"{weeks}w"
    parts = []
    for unit in ("d", "h", "m"):
        count, left = divmod(left, _DURATION_UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if left or not parts:
        parts.append(f"{_decimal(left, _NS)}s")
    return "".join(parts)


def parse_ratio(text: str) -> float:
    """0.1 of "10%"; from 0% to 100%."""
    found = _RATIO.fullmatch(text)
    if not found:
        raise ValueError(f"{quoted(text)} is not a percentage; write {_ratio_mend(text)}")
    whole, fraction = found[1], found[2] or ""
    ratio: float = int(whole + fraction) / (100 * 10 ** len(fraction))
    if ratio > 1:
        raise ValueError(f"{quoted(text)} is more than 100%; write {RATIO_FORM}")
    return ratio


def format_ratio(ratio: float) -> str:
    """Inverse of ``parse_ratio``: 0.1 is "10%", to fifteen decimals of a percent."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"{ratio} is not a ratio from 0 to 1")
    for digits in range(16):  # the shortest text that reads back as the same number
        text = _decimal(round(ratio * 100 * 10**digits), 10**digits)
        if int(text.replace(".", "")) / (100 * 10 ** len(text.partition(".")[2])) == ratio:
            break
    return f"{text}%"


def quoted(text: str, most: int = 60) -> str:
    """*text* in double quotes on one line, unprintable characters escaped, cut after *most* characters: fit for a message."""
    cut = text if len(text) <= most else text[:most] + "..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut) + '"'


def _scaled(whole: str, fraction: str | None, unit: int) -> int:
    """(whole.fraction) * unit, rounded down, in integers: floats would round "0.1" twice."""
    fraction = fraction or ""
    scaled: int = int(whole + fraction) * unit // 10 ** len(fraction)
    return scaled


def _decimal(count: int, scale: int) -> str:
    """The decimal text of count / scale without trailing zeros; *scale* is a power of ten."""
    whole, rest = divmod(count, scale)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(scale)) - 1).rstrip('0')}"


def _size_complaint(text: str) -> str:
    loose = _LOOSE.fullmatch(text.strip())
    if loose and not loose[2]:
        return f"{quoted(text)} has no unit; write {loose[1]}MiB, or {loose[1]}B if bytes are meant"
    if loose and loose[2].lower() in _SIZE_SPELLINGS:
        return f"{quoted(text)} is not a size; write {loose[1]}{_SIZE_SPELLINGS[loose[2].lower()]}"
    if text.startswith("-"):
        return f"{quoted(text)} is negative; write {SIZE_FORM}"
    return f"{quoted(text)} is not a size; write {SIZE_FORM}"


def _duration_complaint(text: str) -> str:
    loose = _LOOSE.fullmatch(text.strip())
    clock = _CLOCK.fullmatch(text)
    if clock:
        return f"{quoted(text)} can be read two ways; write {int(clock[1])}m{int(clock[2])}s or {int(clock[1])}h{int(clock[2])}m"
    if loose and not loose[2]:
        return f"{quoted(text)} has no unit; write {loose[1]}s, {loose[1]}m or {loose[1]}h (units: ms, s, m, h, d, w)"
    if loose and loose[2].lower() in _DURATION_SPELLINGS:
        return f"{quoted(text)} is not a duration; write {loose[1]}{_DURATION_SPELLINGS[loose[2].lower()]}"
    if text.startswith("-"):
        return f"{quoted(text)} is negative; write {DURATION_FORM}"
    return f"{quoted(text)} is not a duration; write {DURATION_FORM}"


def _ratio_mend(text: str) -> str:
    loose = _LOOSE.fullmatch(text.strip().removesuffix("%").strip())
    if not loose or loose[2]:
        return RATIO_FORM
    number = float(loose[1])
    if "%" not in text and number <= 1:
        return f"{number * 100:.6g}%"
    return f"{loose[1]}%" if number <= 100 else RATIO_FORM
