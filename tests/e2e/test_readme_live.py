"""What the README has a newcomer do, done: the commands of "Try this" and what they print, of the job that comes with Mainstay."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Mainstay

ROOT = Path(__file__).resolve().parent.parent.parent
JOBS = f"""
receivers:
  ops: {{type: alertmanager, url: 'http://127.0.0.1:1'}}
jobs:
  runaway:
    command: [{sys.executable}, {ROOT}/jobs/runaway.py, --source, source]
    schedule: manual
    limits: {{memory: 300MiB, recursion: 400, time: 1m}}
    restart: {{when: never}}
    alerts: {{to: [ops]}}
"""


@pytest.fixture
def mainstay(tmp_path: Path) -> Iterator[Mainstay]:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "users.csv").write_text("id,created_at\na,2026-01-01\nb,2026-01-01\n")
    (tmp_path / "source" / "events.csv").write_text("id,ts,type,actor,target\n1,2026-01-02,message,a,b\n2,2026-01-03,message,b,a\n")
    daemon = Mainstay(tmp_path, JOBS)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def sections(text: str) -> dict[str, str]:
    """Heading → its text in one line, with a # for each number: what does not differ from run to run."""
    head, *parts = re.split(r"\n(?=[A-Z][^\n]*\n  )", re.sub(r"\S*/jobs/runaway.py", "runaway.py", text))
    plain = {"": head, **{part.partition("\n")[0]: part.partition("\n")[2] for part in parts}}
    return {
        re.sub(r"\d+", "#", title): re.sub(r"\d[\d.,:]*( ?(?:[KMG]iB|m?s)\b)?", "#", " ".join(body.split()))
        for title, body in plain.items()
    }


def test_the_commands_of_the_readme_and_what_it_shows_of_them(mainstay: Mainstay) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "    .venv/bin/mainstay trigger runaway --wait " in readme
    ran = mainstay.cli("trigger", "runaway", "--wait")
    assert (ran.returncode, ran.stderr) == (1, ""), ran
    why = mainstay.cli("why", "runaway")  # at once, as who pastes both lines
    assert (why.returncode, why.stderr) == (0, ""), why
    printed, shown = sections(why.stdout), sections(readme.partition("$ .venv/bin/mainstay why runaway\n")[2].partition("```")[0])
    assert list(printed) == list(shown)
    for title in ("", "What changed", "What Mainstay did", "What it does next", "How to override"):
        assert printed[title] == shown[title], title
    for title in ("Evidence", "What called itself (frames, # levels)"):  # how much was seen from outside differs
        assert printed[title].partition("#")[0] == shown[title].partition("#")[0], title
    assert printed["Last output"].endswith("RecursionError: maximum recursion depth exceeded")
    assert shown["Last output"].endswith("RecursionError: maximum recursion depth exceeded")
