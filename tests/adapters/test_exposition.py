"""The reader and the printer of the text format, against prometheus_client's."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from supervisor.adapters.exposition import Caps, Family, MetricType, RejectReason, Sample, TextError, decode, label_text, number, parse


def read(text: str) -> list[Family]:
    return parse(decode(text.encode()))


def reason(text: str | bytes) -> RejectReason:
    with pytest.raises(TextError) as caught:
        parse(decode(text.encode() if isinstance(text, str) else text))
    return caught.value.reason


def test_a_family_comes_back_with_its_type_help_and_samples():
    text = '# HELP rows_total Rows\\nread \\\\ so far.\n# TYPE rows_total counter\nrows_total{kind="a\\"b\\n\\\\"} 3\nrows_total 1e3\n'
    assert read(text) == [
        Family(
            "rows_total",
            MetricType.COUNTER,
            "Rows\nread \\ so far.",
            [Sample("rows_total", (("kind", 'a"b\n\\'),), 3.0), Sample("rows_total", (), 1000.0)],
        )
    ]


def test_parts_of_histograms_and_summaries_belong_to_their_family():
    text = '# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 2\ns_count 3\n'
    assert [(family.name, len(family.samples)) for family in read(text)] == [("h", 4), ("s", 3)]


def test_a_counter_keeps_the_name_that_the_job_wrote():
    assert [sample.name for family in read("# TYPE rows counter\nrows 5\n") for sample in family.samples] == ["rows"]


def test_a_type_line_as_openmetrics_writes_it_speaks_for_the_total():
    (family,) = read("# HELP rows Rows.\n# TYPE rows counter\nrows_total 5\n# EOF\n")
    assert (family.name, family.type, family.help) == ("rows_total", MetricType.COUNTER, "Rows.")


def test_comments_blank_lines_tabs_and_a_missing_last_newline_are_fine():
    (family,) = read('# a comment\n#\n\n  \t\n\tup_ish\t{ a = "1" , b="2", } \t +Inf')
    assert family.samples == [Sample("up_ish", (("a", "1"), ("b", "2")), math.inf)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a 1 1700000000000\n", RejectReason.TIMESTAMP),
        ("a 1\na 2\n", RejectReason.DUPLICATE),
        ('a{x="1",y="2"} 1\na{y="2",x="1"} 2\n', RejectReason.DUPLICATE),  # the order of labels makes no difference
        ('a{x="1",x="2"} 1\n', RejectReason.DUPLICATE),
        ("a 1\r\n", RejectReason.MALFORMED),
        ("a\x00 1\n", RejectReason.MALFORMED),
        (b'a{x="\xff"} 1\n', RejectReason.MALFORMED),
        ("a\n", RejectReason.MALFORMED),
        ("a{} \n", RejectReason.MALFORMED),
        ("a1_000 1_000\n", RejectReason.MALFORMED),  # Python reads 1_000 as a number, Prometheus does not
        ("a \u0661\n", RejectReason.MALFORMED),  # digits of another script
        ("a 0x10\n", RejectReason.MALFORMED),
        ('a{x="1} 1\n', RejectReason.MALFORMED),
        ('a{x="\\q"} 1\n', RejectReason.MALFORMED),
        ("<html>\n", RejectReason.MALFORMED),
        ('{"quoted.name"} 1\n', RejectReason.MALFORMED),
        ("# TYPE a speed\na 1\n", RejectReason.MALFORMED),
        ("# TYPE a gauge\n# TYPE a gauge\na 1\n", RejectReason.MALFORMED),
        ("a 1\n# TYPE a gauge\n", RejectReason.MALFORMED),
        ("# TYPE\n", RejectReason.MALFORMED),
        ("# TYPE a counter\na -1\n", RejectReason.MALFORMED),
        ("# TYPE a counter\na NaN\n", RejectReason.MALFORMED),
        ("# TYPE h histogram\nh 1\n", RejectReason.MALFORMED),
        ("# TYPE h histogram\nh_bucket 1\n", RejectReason.MALFORMED),
        ('# TYPE h histogram\nh_bucket{le="many"} 1\n', RejectReason.MALFORMED),
        ("# TYPE s summary\ns 1\n", RejectReason.MALFORMED),
        ('a{__name__="b"} 1\n', RejectReason.RESERVED),
        ('a{x="' + "v" * 1025 + '"} 1\n', RejectReason.LIMIT),
        ("n" * 1025 + " 1\n", RejectReason.LIMIT),
        ("a{" + ",".join(f'l{i}="1"' for i in range(31)) + "} 1\n", RejectReason.LIMIT),
        ("".join(f'a{{i="{i}"}} 1\n' for i in range(1001)), RejectReason.LIMIT),
        ("".join(f"# TYPE a{i} gauge\n" for i in range(1001)), RejectReason.LIMIT),
    ],
)
def test_what_a_scrape_would_fall_over_is_refused_with_its_reason(text, expected):
    assert reason(text) is expected


def test_a_refusal_names_the_line():
    with pytest.raises(TextError, match=r"^line 3: b carries a timestamp; leave it out"):
        parse("# c\na 1\nb 1 2\n")


@pytest.mark.parametrize(
    "text",
    [
        'a{x="' + "\\\\" * 500_000,  # a label value that never ends
        "a" + " " * 1_000_000,
        "a{" + 'b="c",' * 150_000,
        'a{x="1"' + " " * 1_000_000,
        "a " + "1" * 1_000_000 + "x",
        "# TYPE a" + " " * 1_000_000 + "x",
        'a{x="1"' + ',x="1"' * 100_000 + "} 1",
    ],
    ids=["endless value", "spaces", "labels", "spaces in labels", "digits", "spaces in a comment", "the same label"],
)
def test_a_hostile_megabyte_is_refused_in_time_that_grows_with_its_length_only(text):
    began = time.thread_time()
    with pytest.raises(TextError):
        parse(text, Caps(samples=10**6, labels=10**6, text=10**7))
    assert time.thread_time() - began < 5  # tens of milliseconds; a quadratic reader takes minutes


_label_value = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\r\0"), max_size=30)
_samples = st.dictionaries(
    st.tuples(
        st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True),
        st.dictionaries(st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True), _label_value, max_size=4).map(
            lambda d: tuple(sorted(d.items()))
        ),
    ),
    st.floats(),
    max_size=20,
)


@given(_samples)
@settings(max_examples=150, deadline=None)
def test_what_is_printed_reads_back_equal_here_and_in_prometheus_client(samples):
    text = "".join(f"{name}{{{label_text(labels)}}} {number(value)}\n" for (name, labels), value in samples.items())
    ours = {(s.name, s.labels): s.value for family in parse(text) for s in family.samples}
    theirs = {(s.name, tuple(sorted(s.labels.items()))): s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert repr(sorted(ours.items())) == repr(sorted(samples.items()))
    assert repr(sorted(theirs.items())) == repr(sorted(samples.items()))


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_and_nothing_else(text):
    try:
        families = parse(decode(text.encode("utf-8", "replace")))
    except TextError:
        return
    assert all(family.samples for family in families)
