"""Writes the generated parts of docs/ anew, from the tables that the program itself reads. ``--check`` only compares, for the tests.

In a page, only what stands between BEGIN and END is ours; the text around it is written by people and kept.
"""

import argparse
import ast
import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor import cli, options
from supervisor.adapters import metrictable
from supervisor.adapters.http import openapi
from supervisor.config import jsonschema, reference
from supervisor.core import dossierform, template
from supervisor.export.alerts import GROUPS, RECORDS
from supervisor.export.definition import Alert, Options, Severity, record_expression

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
WORDS: Final = Path(__file__).resolve().parent / "events.toml"
BEGIN: Final = "<!-- from here on made by `make docs`; do not edit -->\n"
END: Final = "<!-- until here -->\n"

_LEVELS: Final = ("debug", "info", "warning", "error", "exception")
EXIT_CODES: Final = {
    cli.EXIT_DONE: "done; of `exec`: the command ended well",
    cli.EXIT_FAILED: "the thing asked for did not work (no such job, refused, nothing to show)",
    options.EXIT_USAGE: "usage: an unknown command or option, a value without its unit",
    cli.EXIT_NO_DAEMON: "no daemon answers: none runs, it is another user's, or it does not come up; stderr says which",
    cli.EXIT_OUR_BUG: "a bug of ours, or the keeper died and took the jobs with it",
    cli.EXIT_CONFIG: "the configuration is wrong; every problem is on stderr (of `reload`: 1, for then the daemon goes on with the one it has)",
    124: "`exec`: one of our limits ended the command",
    125: "`exec`: Mainstay itself failed, e.g. the report could not be written",
    126: "`exec`: the command cannot be executed",
    127: "`exec`: the command was not found",
}


def page(name: str, title: str, generated: str) -> str:
    """The page *name* as it should be: its own text with the generated part replaced, or a new page of that *title*."""
    path = DOCS / name
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{BEGIN}{END}"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        before, after = text.rstrip() + "\n\n", ""
    return f"{before}{BEGIN}\n{generated.strip()}\n\n{END}{after}"


def pages() -> dict[str, str]:
    """File name → what it should hold."""
    return {
        "configuration.md": page("configuration.md", "config.yaml", reference.reference()),
        "metrics.md": page("metrics.md", "Metrics", metrictable.reference()),
        "commands.md": page("commands.md", "Commands", commands()),
        "notifications.md": page("notifications.md", "Notifications", template_fields()),
        "alerts.md": page("alerts.md", "Alerts", alerts()),
        "events.md": page("events.md", "Events in the log", events()),
        "dossier.md": page("dossier.md", "The dossier", dossierform.reference()),
        "dossier.schema.json": json.dumps(dossierform.schema(), indent=2, ensure_ascii=False) + "\n",
        "http.md": page("http.md", "HTTP", openapi.reference()),
        "openapi.json": json.dumps(openapi.document(), indent=2, ensure_ascii=False) + "\n",
        "config.schema.json": json.dumps(jsonschema.schema(), indent=2, ensure_ascii=False) + "\n",
    }


def template_fields() -> str:
    """The fields of a notification's template."""
    return "\n".join(["| field | what |", "|---|---|", *(f"| `{{{name}}}` | {what} |" for name, what in template.FIELDS.items())])


# ---------------------------------------------------------------- commands


def alerts() -> str:
    """Every alert with when it fires, by whom it is told apart and its runbook; from the table that the rules are made of."""
    lines = []
    for group, members in GROUPS:
        lines += [f"## Group `{group}`", "", "| alert | severity | means | waits | runbook |", "|---|---|---|---|---|"]
        for alert in members:
            severity = "the job's own" if alert.severity is Severity.JOB else alert.severity.value
            lines.append(f"| `{alert.name}` | {severity} | {alert.summary} | {alert.wait} | [runbook](runbooks/{alert.name}.md) |")
        lines += ["", *(line for alert in members for line in _alert_cases(alert)), ""]
    lines += ["## Recorded for the dashboards", "", "| series | expression |", "|---|---|"]
    lines += [f"| `{record.name}` | `{' '.join(record_expression(record, Options()).split())}` |" for record in RECORDS]
    return "\n".join(lines)


def _alert_cases(alert: Alert) -> list[str]:
    fires = "; ".join(case.says for case in alert.cases if case.labels is not None)
    silent = "; ".join(case.says for case in alert.cases if case.labels is None)
    return [f"- `{alert.name}` fires: {fires}." + (f" Silent: {silent}." if silent else "")]


def commands() -> str:
    """Every command with its arguments, from the parser itself. Not ``--help``'s text: that looks different in each Python."""
    lines = ["## Exit codes", "", "| code | means |", "|---|---|"]
    lines += [f"| {code} | {words} |" for code, words in sorted(EXIT_CODES.items())]
    lines += [
        "| 128 + N | `exec`: signal N ended the command, and it was not ours; or N asked us to end (130 for Ctrl-C, 143 for SIGTERM), and the command had to be killed |",
        "| any other | `exec`: the command's own exit code |",
        "",
        "130 stands for Ctrl-C.",
        "",
    ]
    for name, parser in listed_commands().items():
        lines += [*_command(name, parser), ""]
    return "\n".join(lines)


def listed_commands() -> dict[str, argparse.ArgumentParser]:
    """The commands that ``--help`` lists, in its order; what the halves of Mainstay call of each other is left out."""
    choices = next(action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001 - argparse shows its tree nowhere else
    listed = [action.dest for action in choices._choices_actions]  # noqa: SLF001
    return {name: choices.choices[name] for name in listed}


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]  # noqa: SLF001
    yield f"## `mainstay {' '.join([name, *(_usage(action) for action in actions)])}`"
    yield ""
    yield f"{parser.description} {(parser.epilog or '').replace('example: ', 'Example: `')}`."
    explained = [action for action in actions if action.help]
    if explained:
        yield ""
        yield "| argument | meaning |"
        yield "|---|---|"
        yield from (f"| `{_spelled(action)}` | {_cell(action.help or '')} |" for action in explained)


def _usage(action: argparse.Action) -> str:
    """How an argument stands in the usage line: optional ones in brackets."""
    if action.option_strings:
        return f"[{action.option_strings[0]}{_value(action)}]"
    return f"[{_placeholder(action)}]" if action.nargs == "?" else _placeholder(action)


def _spelled(action: argparse.Action) -> str:
    return ", ".join(action.option_strings) + _value(action) if action.option_strings else _placeholder(action)


def _value(action: argparse.Action) -> str:
    return "" if action.nargs == 0 else f" {_placeholder(action)}"


def _placeholder(action: argparse.Action) -> str:
    """What stands for the argument's value, as in ``--help``: its metavar, else the words to choose from, else its own name."""
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper() if action.option_strings else action.dest


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# ---------------------------------------------------------------- events


@dataclass(frozen=True)
class Event:
    """One place in the code that logs: the event's name, its level, the keys beside it, and which half says it."""

    name: str
    level: str
    keys: tuple[str, ...]
    half: str


def events() -> str:
    """Every event with its levels and keys as the code has them, and its meaning from events.toml."""
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))["events"]
    lines = ["| event | level | keys | meaning |", "|---|---|---|---|"]
    found = logged_events()
    for name in sorted(found):
        places = found[name]
        levels = ", ".join(dict.fromkeys(place.level for place in places))
        keys = ", ".join(f"`{key}`" for key in dict.fromkeys(key for place in places for key in place.keys))
        keeper = " *(keeper)*" if any(place.half == "keeper" for place in places) else ""
        lines.append(f"| `{name}` | {levels} | {keys} | {_cell(words.get(name, 'NOT DESCRIBED: add it to scripts/events.toml'))}{keeper} |")
    return "\n".join(lines)


def logged_events() -> dict[str, list[Event]]:
    """Every event that a call in supervisor/ logs, by name."""
    found: dict[str, list[Event]] = {}
    for path in sorted((ROOT / "supervisor").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and (level := _level(call, path)):
                half = "keeper" if path.parent.name == "keeper" else "brain"
                keys = tuple(keyword.arg or "..." for keyword in call.keywords if keyword.arg != "exc_info")
                for name in _names(call):
                    found.setdefault(name, []).append(Event(name, level, keys, half))
    return found


def _level(call: ast.Call, path: Path) -> str:
    """The level of a call that logs, "" of any other."""
    function = call.func
    if isinstance(function, ast.Name) and function.id == "say" and path.parent.name == "keeper":
        return "warning"
    if (
        isinstance(function, ast.Attribute)
        and function.attr in _LEVELS
        and isinstance(function.value, ast.Name)
        and function.value.id == "log"
    ):
        return "error" if function.attr == "exception" else function.attr
    chosen = [part.attr for part in ast.walk(function) if isinstance(part, ast.Attribute) and part.attr in _LEVELS]
    if isinstance(function, ast.IfExp):  # (log.warning if bad else log.info)("attempt_ended", ...)
        return " or ".join(chosen)
    is_getattr = isinstance(function, ast.Call) and isinstance(function.func, ast.Name) and function.func.id == "getattr"
    return "warning or error" if is_getattr and _names(call) else ""


def _names(call: ast.Call) -> tuple[str, ...]:
    """The event's name; of an f-string every name that it can make."""
    if not call.args:
        return ()
    first = call.args[0]
    if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value.isidentifier():
        return (first.value,)
    if isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
        stem = str(first.values[0].value)
        ends = ("opened", "seen", "reminded", "told_late", "escalated", "acknowledged", "held", "summed_up", "closed")
        return tuple(f"{stem}{end}" for end in ends)
    return ()


def main() -> int:
    """0 when the pages are as the code wants them (now)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a page is out of date")
    checking = parser.parse_args().check
    stale = 0
    for name, text in pages().items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if checking:
            print(f"docs/{name} is out of date: make docs")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"docs/{name}")
    return 1 if checking and stale else 0


if __name__ == "__main__":
    sys.exit(main())
