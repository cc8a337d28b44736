"""Nothing that people or their scripts rely on is missing from the pages."""

import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime

import pytest

from supervisor import cli, wire
from supervisor.adapters.metrictable import TABLE
from supervisor.config.kinds import Refused
from supervisor.config.schema import JOB, RECEIVERS, SUPERVISOR, ScheduleKind
from supervisor.config.shape import Shape
from supervisor.core import dossier
from supervisor.core.evidence import Evidence, Exit, Verdict
from supervisor.core.model import Outcome, State
from supervisor.export.alerts import ALERTS, WATCHDOG

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def every_key(shape, prefix=""):
    for key in shape:
        yield f"{prefix}{key.name}"
        inner = key.kind.shape if isinstance(key.kind, ScheduleKind) else key.kind
        if isinstance(inner, Shape) and not isinstance(key.kind, Refused):
            yield from every_key(inner, f"{prefix}{key.name}.")


def test_the_generated_pages_are_current(script, page):
    stale = [name for name, text in script.pages().items() if page(name) != text]
    assert not stale, f"make docs would change {stale}"


@pytest.mark.parametrize("shape", [SUPERVISOR, JOB, *RECEIVERS.values()], ids=["supervisor", "job", *RECEIVERS])
def test_every_key_of_the_config_is_in_the_reference(shape, page):
    text = page("configuration.md")
    assert [key for key in every_key(shape) if f"| `{key}` |" not in text] == []


def test_every_metric_is_in_the_reference(page):
    text = page("metrics.md")
    assert [name for name in TABLE if f"| `{name}` |" not in text] == []


def test_every_alert_is_in_the_reference_and_has_a_runbook_with_all_its_parts_and_no_other_has(page, root):
    text = page("alerts.md")
    assert [name for name in ALERTS if f"| `{name}` |" not in text] == []
    assert sorted(path.stem for path in (root / "docs" / "runbooks").glob("*.md")) == sorted(ALERTS)
    for name, alert in ALERTS.items():
        runbook = page(f"runbooks/{name}.md")
        assert runbook.startswith(f"# {name}\n\n{alert.summary}.\n"), name
        assert re.findall(r"^## (.+)$", runbook, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"], name
        assert name == WATCHDOG or re.search(r"^    mainstay ", runbook, re.MULTILINE), f"{name} says no command"


def test_every_event_in_the_code_is_explained_and_no_other(script, page):
    words = tomllib.loads(script.WORDS.read_text(encoding="utf-8"))["events"]
    found = script.logged_events()
    assert sorted(words) == sorted(found)
    text = page("events.md")
    assert [name for name in found if f"| `{name}` |" not in text] == []


def test_no_event_is_logged_that_the_reference_does_not_see(page, root):
    """By the looks of the text, apart from the parser that makes the page."""
    looks = re.compile(r"\b(?:log\.(?:debug|info|warning|error|exception|critical)|say)\(\s*\"(\w+)\"")
    named = {name for path in (root / "supervisor").rglob("*.py") for name in looks.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 40
    text = page("events.md")
    assert [name for name in sorted(named) if f"| `{name}` |" not in text] == []


def test_every_exit_code_of_the_command_line_is_in_the_reference(script, page):
    ours = {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert ours <= script.EXIT_CODES.keys()
    text = page("commands.md")
    assert [code for code in script.EXIT_CODES if f"| {code} |" not in text] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--time", "50ms", "--", "sleep", "30"], 124),
        (["--report", "/nonexistent/report.json", "--", "true"], 125),
        (["--", "/etc/passwd"], 126),
        (["--", "there-is-no-such-command"], 127),
        (["--", "sh", "-c", "kill -TERM $$"], 143),
        (["--", "sh", "-c", "exit 3"], 3),
        (["--time", "5", "--", "true"], 2),
        (["--", "true"], 0),
    ],
)
def test_exec_ends_with_the_codes_that_the_reference_says(arguments, code, tmp_path):
    command = [sys.executable, "-m", "supervisor", "exec", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, cwd=tmp_path)
    assert done.returncode == code, done.stderr.decode()


def test_every_command_and_option_is_in_the_reference(script, page):
    text = page("commands.md")
    for name, parser in script.listed_commands().items():
        assert f"## `mainstay {name}" in text
        for action in parser._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or option in text, f"{name} {option}"


def test_every_outcome_and_state_is_explained(page):
    jobs = page("jobs.md")
    assert [outcome for outcome in Outcome if f"| `{outcome}` |" not in jobs] == []
    architecture = page("architecture.md")
    assert [state for state in State if f"`{state}`" not in architecture] == []


def test_every_field_of_a_report_is_named(page):
    verdict = Verdict(Outcome.FAILED, "It ended.")
    report = dossier.make_report(dossier.Occasion("job", 1, 1, NOW, NOW), verdict, Evidence(Exit(code=1)))
    text = page("dossier.md")
    assert [field for field in report if f"| `{field}` |" not in text] == []


def test_every_message_between_the_halves_stands_in_the_picture(page):
    picture = page("architecture.md")
    verbs = {value for name, value in vars(wire).items() if name.isupper() and isinstance(value, str)} - {wire.STATUS}
    assert [verb for verb in verbs if verb not in picture] == []
