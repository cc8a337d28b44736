"""Sizes, durations and ratios: what is accepted, what is refused with which words, and that whatever prints parses back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core import units

SIZES = [
    ("0B", 0),
    ("1B", 1),
    ("1KiB", 1024),
    ("512MiB", 512 * 2**20),
    ("1.5GiB", 3 * 2**29),
    ("0.1KiB", 102),  # whole bytes, rounded down
    ("1048576TiB", 2**60),
]

DURATIONS = [
    ("0s", 0.0),
    ("90s", 90.0),
    ("1h30m", 5400.0),
    ("250ms", 0.25),
    ("0.1s", 0.1),
    ("100ms", 0.1),  # the same number as 0.1s, not almost
    ("1.5h", 5400.0),
    ("1w2d3h4m5s6ms", 7 * 86400 + 2 * 86400 + 3 * 3600 + 4 * 60 + 5.006),
    ("1m30.25s", 90.25),
]

BAD_SIZES = [
    ("512", '"512" has no unit; write 512MiB, or 512B if bytes are meant'),
    ("512MB", '"512MB" is not a size; write 512MiB'),
    ("512 MiB", '"512 MiB" is not a size; write 512MiB'),
    ("5m", '"5m" is not a size; write 5MiB'),
    ("1gb", '"1gb" is not a size; write 1GiB'),
    ("-5MiB", '"-5MiB" is negative; write a number with B, KiB, MiB, GiB or TiB, e.g. 512MiB'),
    ("512MX", '"512MX" is not a size; write a number with B, KiB, MiB, GiB or TiB, e.g. 512MiB'),
    ("inf", '"inf" is not a size; write a number with B, KiB, MiB, GiB or TiB, e.g. 512MiB'),
    ("", '"" is not a size; write a number with B, KiB, MiB, GiB or TiB, e.g. 512MiB'),
    ("1048577TiB", '"1048577TiB" is more than any machine has; write at most 1048576TiB'),
    ("1MiB\n", '"1MiB\\n" is not a size; write 1MiB'),
    ("\u0661MiB", '"\u0661MiB" is not a size; write a number with B, KiB, MiB, GiB or TiB, e.g. 512MiB'),  # a digit, but not one of ours
]

BAD_DURATIONS = [
    ("10", '"10" has no unit; write 10s, 10m or 10h (units: ms, s, m, h, d, w)'),
    ("10 m", '"10 m" is not a duration; write 10m'),
    ("5min", '"5min" is not a duration; write 5m'),
    ("2 Hours", '"2 Hours" is not a duration; write 2h'),
    ("1:30", '"1:30" can be read two ways; write 1m30s or 1h30m'),
    ("-5s", '"-5s" is negative; write a number with ms, s, m, h, d or w, e.g. 90s or 1h30m'),
    ("inf", '"inf" is not a duration; write a number with ms, s, m, h, d or w, e.g. 90s or 1h30m'),
    ("30m1h", '"30m1h" has its units out of order; write the largest first and each once, e.g. 1h30m'),
    ("1s1s", '"1s1s" has its units out of order; write the largest first and each once, e.g. 1h30m'),
    ("99999999999d", '"99999999999d" is longer than ten years; write at most 3660d'),
    ("1.5h30m", '"1.5h30m" is not a duration; write a number with ms, s, m, h, d or w, e.g. 90s or 1h30m'),
]

BAD_RATIOS = [
    ("10", '"10" is not a percentage; write 10%'),
    ("0.1", '"0.1" is not a percentage; write 10%'),
    ("10 %", '"10 %" is not a percentage; write 10%'),
    ("101%", '"101%" is more than 100%; write a percentage from 0% to 100%, e.g. 10%'),
    ("-1%", '"-1%" is not a percentage; write a percentage from 0% to 100%, e.g. 10%'),
    ("ten", '"ten" is not a percentage; write a percentage from 0% to 100%, e.g. 10%'),
]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_a_size_is_read_as_bytes(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_read_as_seconds(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "message"), BAD_SIZES)
def test_a_wrong_size_is_refused_with_what_to_write(text, message):
    with pytest.raises(ValueError) as refusal:
        units.parse_size(text)
    assert str(refusal.value) == message


@pytest.mark.parametrize(("text", "message"), BAD_DURATIONS)
def test_a_wrong_duration_is_refused_with_what_to_write(text, message):
    with pytest.raises(ValueError) as refusal:
        units.parse_duration(text)
    assert str(refusal.value) == message


@pytest.mark.parametrize(("text", "message"), BAD_RATIOS)
def test_a_wrong_ratio_is_refused_with_what_to_write(text, message):
    with pytest.raises(ValueError) as refusal:
        units.parse_ratio(text)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5400.0, "1h30m"),
        (0.25, "250ms"),
        (90.5, "1m30.5s"),
        (90 * 86400.0, "90d"),
        (7 * 86400.0, "7d"),
        (364 * 86400.0, "52w"),
        (0.0005, "0.5ms"),
    ],
)
def test_a_duration_prints_as_a_person_would_write_it(seconds, text):
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (1000, "1000B"), (2**20, "1MiB"), (1536 * 2**20, "1536MiB"), (2**60, "1048576TiB")])
def test_a_size_prints_in_the_largest_unit_that_is_exact(size, text):
    assert units.format_size(size) == text


@pytest.mark.parametrize("bad", [-1, 2**60 + 1])
def test_an_absurd_size_is_not_printed(bad):
    with pytest.raises(ValueError, match="is not a number of bytes"):
        units.format_size(bad)


@pytest.mark.parametrize("bad", [-0.001, math.inf, math.nan, 1e12])
def test_an_absurd_duration_is_not_printed(bad):
    with pytest.raises(ValueError, match="is not a number of seconds"):
        units.format_duration(bad)


@given(st.integers(0, 2**60))
def test_every_size_reads_back_as_itself(size):
    assert units.parse_size(units.format_size(size)) == size


@given(st.integers(0, 10 * 366 * 86400 * 10**9).map(lambda ns: ns / 10**9))
def test_every_duration_to_the_nanosecond_reads_back_as_itself(seconds):
    assert units.parse_duration(units.format_duration(seconds)) == seconds


@given(st.integers(0, 10**6).map(lambda millionths: millionths / 10**6))
def test_every_ratio_reads_back_as_itself(ratio):
    assert units.parse_ratio(units.format_ratio(ratio)) == ratio


def parsed(parse, text):
    """The value, or None for a refusal, which always says what to write."""
    value, refusal = None, "; write "
    try:
        value = parse(text)
    except ValueError as err:
        refusal = str(err)
    assert "; write " in refusal
    return value


@given(st.from_regex(units.DURATION_PATTERN, fullmatch=True) | st.text(max_size=12))
def test_every_accepted_duration_prints_and_reads_back_equal(text):
    value = parsed(units.parse_duration, text)
    assert value is None or units.parse_duration(units.format_duration(value)) == value


@given(st.from_regex(units.SIZE_PATTERN, fullmatch=True) | st.text(max_size=12))
def test_every_accepted_size_prints_and_reads_back_equal(text):
    value = parsed(units.parse_size, text)
    assert value is None or units.parse_size(units.format_size(value)) == value


@given(st.from_regex(units.RATIO_PATTERN, fullmatch=True) | st.text(max_size=8))
def test_every_text_is_a_ratio_from_nought_to_one_or_refused(text):
    value = parsed(units.parse_ratio, text)
    assert value is None or 0 <= value <= 1


def test_a_quoted_text_stays_on_one_line_and_short():
    assert units.quoted("a\x1b[31m\nb") == '"a\\x1b[31m\\nb"'
    assert units.quoted("x" * 100) == '"' + "x" * 60 + '..."'
