"""What the README shows is what is printed: its samples, made anew from the answers of one real run (readme.json)."""

import itertools
import json
from datetime import datetime
from pathlib import Path

import pytest
from test_pages import FENCE, read, shell_lines

from supervisor import tables, talk

TAKEN = json.loads(Path(__file__).with_name("readme.json").read_text(encoding="utf-8"))


class Remembered:
    """A daemon that answers as one did once."""

    def get(self, route, **_query):
        return TAKEN[route.lstrip("/")]


class Then(datetime):
    """The moment at which the answers were given; ages are counted from it."""

    @classmethod
    def now(cls, tz=None):
        return datetime.fromisoformat(TAKEN["status"]["daemon"]["now"]).astimezone(tz)


def sample(command):
    """What the README shows under that command."""
    return next(
        block[len(first) + 1 :] for _, block in FENCE.findall(read("README.md")) if (first := block.partition("\n")[0]) == f"$ {command}"
    )


@pytest.mark.parametrize(
    ("command", "print_it"),
    [
        (".venv/bin/mainstay status", lambda: talk.status(None, None, watch=False, as_json=False)),
        (".venv/bin/mainstay why runaway", lambda: talk.why(None, "runaway", as_json=False)),
    ],
)
def test_a_sample_is_what_is_printed(command, print_it, monkeypatch, capsys):
    monkeypatch.setattr(tables, "datetime", Then)
    monkeypatch.setattr(talk, "_client", lambda _config: Remembered())
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of a test run have it set
    assert print_it() == 0
    assert sample(command) == capsys.readouterr().out


@pytest.mark.parametrize("name", ["README.md", "scripts/welcome.txt"])
def test_who_pastes_the_commands_asks_why_only_of_a_run_that_has_ended(name):
    """All lines are pasted at once: `why` of a run that goes on would be refused."""
    lines = list(shell_lines("\n".join(f"    {line.strip()}" for line in read(name).splitlines())))
    typed = [" ".join(line.split()[1:4]) for line in lines if line.startswith(".venv/bin/mainstay ")]
    assert "why runaway" in [words[:11] for words in typed]
    for before, words in itertools.pairwise(typed):
        if words.startswith("why "):
            assert before == f"trigger {words.split()[1]} --wait"
