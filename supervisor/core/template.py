"""Templates of notifications: text with ``{fields}`` in it, and nothing else. No expressions, no attributes, no loops, so nothing to escape from.

Rules: ``{{`` and ``}}`` are braces. A line whose fields are all empty is left out, and one with a field of several lines (``evidence``, ``did``,
``will``, ``story``) is written once for each of them, so that ``- {evidence}`` is a list. What a field holds is never read as a template.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

FIELDS: Final[Mapping[str, str]] = {
    "acknowledged_by": "who acknowledged it, where that was said",
    "closed_at": "when it closed, UTC; empty while it is open",
    "closed_because": "why it closed",
    "did": "what Mainstay did, a line each",
    "drill": '"DRILL" in a drill, otherwise empty',
    "duration": "how long it has been open, or was",
    "evidence": "what the verdict rests on, a line each",
    "fingerprint": "the name of the bug",
    "headline": "one line that says it all",
    "host": "the machine that Mainstay runs on",
    "incident": "the number of the incident",
    "job": "the job",
    "kind": "opened, reminder, escalated, acknowledged or closed",
    "link": "the page of the incident; empty without `supervisor.external_url`",
    "occurrences": "how often it was seen",
    "opened_at": "when it opened, UTC",
    "outcome": "the outcome of the run, e.g. memory",
    "run": "the run that it was last seen in",
    "severity": "critical, warning or info",
    "story": "all of it as it is written without a template, a line each",
    "summary": "what happened, in one sentence",
    "will": "what Mainstay will do, a line each",
}
CHARS_MAX: Final = 20_000  # of a rendered text; what a receiver takes is less

Values = Mapping[str, str | tuple[str, ...]]


class Field(Struct, frozen=True):
    name: str


class Template(Struct, frozen=True):
    """A parsed template: for each line its texts and fields. ``text`` is what was written."""

    text: str
    lines: tuple[tuple[str | Field, ...], ...]


class TemplateError(ValueError):
    """A text is no template: ``unknown`` is the name of a field that there is none of, or ""."""

    def __init__(self, message: str, unknown: str = "") -> None:
        super().__init__(message)
        self.unknown = unknown


def parse(text: str) -> Template:
    """The template; ``TemplateError`` says in which line and column of *text* what is wrong."""
    return Template(text, tuple(_parts(line, number) for number, line in enumerate(text.split("\n"), 1)))


def render(template: Template, values: Values, escape: Callable[[str], str] = str) -> str:
    """The text with every field's value, escaped for its receiver, in place of it; at most ``CHARS_MAX`` characters."""
    rendered: list[str] = []
    room = CHARS_MAX
    for line in template.lines:
        for text in _rendered(line, values, escape):
            if len(text) > room:
                return "\n".join([*rendered, "…"])
            rendered.append(text)
            room -= len(text) + 1
    return "\n".join(rendered)


def _rendered(line: tuple[str | Field, ...], values: Values, escape: Callable[[str], str]) -> list[str]:
    held = {part.name: values.get(part.name, "") for part in line if isinstance(part, Field)}
    if held and not any(held.values()):
        return []
    turns = max((len(value) for value in held.values() if isinstance(value, tuple)), default=1)
    return ["".join(part if isinstance(part, str) else escape(_nth(held[part.name], n)) for part in line) for n in range(turns)]


def _nth(value: str | tuple[str, ...], n: int) -> str:
    if isinstance(value, str):
        return value
    return value[n] if n < len(value) else ""


def _parts(line: str, number: int) -> tuple[str | Field, ...]:
    parts: list[str | Field] = []
    text, at = "", 0
    while at < len(line):
        character = line[at]
        if line[at : at + 2] in ("{{", "}}"):
            text, at = text + character, at + 2
        elif character == "{":
            end = line.find("}", at)
            name = line[at + 1 : end] if end > 0 else line[at + 1 :]
            where = f"line {number}, column {at + 1}"
            if end < 0:
                raise TemplateError(f"{where}: {{{name[:40]} has no }} behind it; write it, or {{{{ for the brace itself")
            if name not in FIELDS:
                raise TemplateError(f"{where}: there is no field {{{name[:40]}}}", name)
            parts += [text, Field(name)] if text else [Field(name)]
            text, at = "", end + 1
        elif character == "}":
            raise TemplateError(f"line {number}, column {at + 1}: a lone }}; write }}}} for the brace itself")
        else:
            text, at = text + character, at + 1
    return tuple([*parts, text] if text or not parts else parts)
