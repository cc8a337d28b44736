"""Text by the cells of a terminal: nothing is wider than it was asked to be, and nothing is lost."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.cells import cells, cut, folded, padded

_WIDE = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from("界字🔥e\u0301 \u0308 a  "), max_size=200)


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("plain", 5),
        ("", 0),
        ("界", 2),  # wide
        ("\uff21", 2),  # full-width
        ("🔥", 2),
        ("…→▆│é", 5),  # ambiguous and narrow ones are one cell, as terminals have it outside of East Asian settings
        ("e\u0301", 1),  # a combining mark stands over what is before it
        ("\u20dd", 0),
    ],
)
def test_the_cells_of_characters(text, wide):
    assert cells(text) == wide


def test_a_text_is_cut_and_padded_by_its_cells():
    assert cut("界界界", 6) == "界界界"
    assert (cut("界界界", 5), cut("界界界", 4), cut("abcdef", 4)) == ("界界…", "界…", "abc…")
    assert cut("e\u0301e\u0301e\u0301", 2) == "e\u0301…"
    assert (padded("界", 4), padded("ab", 4), padded("abcdef", 4)) == ("界  ", "ab  ", "abcdef")


def test_lines_are_broken_between_words_and_long_words_within():
    assert folded("ab 界界 cd", 7) == ["ab 界界", "cd"]
    assert folded("ab 界界界界界", 7) == ["ab 界界", "界界界"]
    assert folded("界界 a", 1) == ["界", "界", "a"]  # no room for one: as little too wide as can be
    assert folded("one two three four", 9, most=2) == ["one two", "three …"]
    assert folded("界" * 20, 9, most=2) == ["界界界界", "界界界 …"]


@given(text=_WIDE, width=st.integers(2, 60))
def test_no_line_is_wider_and_no_character_is_lost(text, width):
    lines = folded(text, width)
    assert max(map(cells, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert cells(cut(text, width)) <= width
    short = folded(text, width, most=2)
    assert len(short) <= 2
    assert max(map(cells, short)) <= width


@given(text=st.text("abc -.,", max_size=120).map(str.strip), width=st.integers(1, 40))
def test_plain_text_is_folded_as_the_standard_library_does_it(text, width):
    theirs = [text] if len(text) <= width else textwrap.wrap(text, width, break_on_hyphens=False)
    assert [line.rstrip() for line in folded(text, width)] == [
        line.rstrip() for line in theirs
    ]  # which sometimes leaves the blank before a long word
