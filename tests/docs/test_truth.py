"""What the pages say is so: nothing stands twice, and what is copied from elsewhere is as it is there."""

import re
from collections import Counter

import pytest
from test_pages import FENCE, PAGES, read

OPENING = 45  # characters; an old and a new version of one paragraph begin alike


def openings(text):
    """How the paragraphs and the items of lists begin; tables and code are left out."""
    lines = FENCE.sub("", text).splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        begins = line.startswith(("- ", "**")) or (not before.strip() and line[:1] not in ("", "|", "#", " ", "<"))
        if begins and len(line) > OPENING:
            yield line[:OPENING]


@pytest.mark.parametrize("name", PAGES)
def test_no_paragraph_stands_twice(name):
    twice = [opening for opening, times in Counter(openings(read(name))).items() if times > 1]
    assert twice == [], name


def test_paragraphs_that_stand_twice_would_be_seen():
    old = "- A dossier holds exception messages and the last output, so it may hold data of your users.\n"
    text = f"# Page\n\n{old}{old.replace('.', ': leave them out.')}\n**A report** (`exec --report`, `why --json`, in `incident ID --json`): a.\n**A report** (`exec --report`, `why --json`, in `incident ID --json`): b.\n"
    assert [opening for opening, times in Counter(openings(text)).items() if times > 1] == [
        old[:OPENING],
        "**A report** (`exec --report`, `why --json`, ",
    ]


def test_every_argument_of_a_command_has_a_word_for_it(script, page):
    words = re.findall(r"^(?:## `mainstay (.*)`|\| `(.*?)` \|)", page("commands.md"), re.MULTILINE)
    assert len(words) > 60
    assert [line for pair in words for line in pair if re.search(r"\bNone\b", line)] == []
