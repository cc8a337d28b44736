"""What the pages say is so: nothing stands twice, and what is copied from elsewhere is as it is there."""

import re
from collections import Counter

import pytest
from test_pages import FENCE, PAGES, read

from supervisor.adapters import statedir
from supervisor.adapters.http.shapes import SHAPES
from supervisor.adapters.statedir import StateDir

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


def test_everything_below_the_state_directory_is_explained(page, tmp_path):
    StateDir(str(tmp_path / "state")).create()
    made = {path.name for path in (tmp_path / "state").iterdir()}
    named = {path.split("/")[0] for path in re.findall(r"^ {6}(\S+)", statedir.__doc__, re.MULTILINE)}
    assert made <= named
    section = page("operations.md").partition("## The state directory")[2].partition("\n## ")[0]
    rows = " ".join(line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `"))
    assert [name for name in sorted(named) if f"`{name}" not in rows] == []


def test_how_much_output_is_kept_is_said_alike(page):
    assert "The output of this many attempts is kept" in page("configuration.md")
    assert re.search(r"`logs\.keep` \(20\) attempts", page("operations.md"))


def test_every_command_is_named_where_people_look_for_what_to_do(script, page):
    """`run` and what belongs before it are in the README; what asks a daemon is explained in the operations."""
    operations = page("operations.md")
    assert [
        name
        for name in script.listed_commands()
        if name not in ("exec", "import") and not re.search(rf"`(mainstay )?{name}\b|mainstay {name}\b", operations)
    ] == []


JOB, DRILL = SHAPES["Job"]["properties"], SHAPES["Drill"]["properties"]
LISTED = {  # the rows of the table of shapes, and where the same shape stands in the API's document, which tests/e2e/test_json_shapes.py holds the program to
    "`daemon`": SHAPES["Status"]["properties"]["daemon"],
    "a job": SHAPES["Job"],
    "its `limits`": JOB["limits"],
    "one of its `runs`": JOB["runs"]["items"],
    "its `last`": JOB["last"]["anyOf"][0],
    "its `quiet`": JOB["quiet"]["anyOf"][0],
    "one of its `silences`": JOB["silences"]["items"],
    "a run": SHAPES["Run"],
    "a slot": SHAPES["Slots"]["properties"]["slots"]["items"],
    "an incident": SHAPES["Incidents"]["properties"]["incidents"]["items"],
    "output": SHAPES["Log"],
    "a record": SHAPES["Quarantine"]["properties"]["records"]["items"],
    "a drill": SHAPES["Drill"],
    "one of its `links`": DRILL["links"]["items"],
    "an answer": SHAPES["Done"],
    "one of its `changes`": SHAPES["Done"]["properties"]["changes"]["items"],
}
APART = {
    "a record": {"report"},
    "a drill": {"ok"},
    "an answer": {"ended"},
}  # in the row of what prints it; of the API alone; of the command alone


def test_the_shapes_of_json_have_the_fields_of_the_api(page):
    table = page("commands.md").partition("| shape | fields |\n|---|---|\n")[2]
    rows = dict(line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("| "))
    assert rows.keys() == LISTED.keys()
    for name, cell in rows.items():
        fields = set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cell.partition(". ")[0])))
        assert fields ^ set(LISTED[name]["properties"]) == APART.get(name, set()), name
