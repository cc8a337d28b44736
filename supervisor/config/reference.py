"""The reference of config.yaml as Markdown: every key with what it may be, its default and its meaning, from the loader's own tables."""

from collections.abc import Iterator
from typing import Any

from supervisor.config.kinds import Kind, Nullable, Refused
from supervisor.config.schema import JOB, MAINTENANCE, NAME_FORM, RECEIVERS, SUPERVISOR, ScheduleKind
from supervisor.config.shape import Key, Shape

_HEAD = ["| key | value | default | meaning |", "|---|---|---|---|"]


def reference() -> str:
    """Markdown: a table per part of the file."""
    lines = ["## `supervisor`", "", *_table(SUPERVISOR), ""]
    lines += [
        "## `jobs.NAME` and `defaults`",
        "",
        f"NAME is {NAME_FORM}. Every key may stand under `defaults`, where it holds for all jobs: ",
    ]
    lines[-1] += "maps are joined key by key, anything else in a job replaces the default whole."
    lines += ["", *_table(JOB), ""]
    for name, shape in RECEIVERS.items():
        lines += [f"## `receivers.NAME` of type `{name}`", "", *_table(shape), ""]
    lines += ["## `maintenance.NAME`", "", *_table(MAINTENANCE), ""]
    return "\n".join(lines)


def _table(shape: Shape) -> Iterator[str]:
    yield from _HEAD
    yield from _rows(shape, "")


def _rows(shape: Shape, prefix: str) -> Iterator[str]:
    for key in shape:
        inner = _inner(key.kind)
        if isinstance(key.kind, Refused):
            value, default = "not available", ""
        else:
            value, default = "map" if isinstance(key.kind, Shape) else key.kind.form, _default(key)
        yield f"| `{prefix}{key.name}` | {_cell(value)} | {_cell(default)} | {_cell(key.doc)} |"
        if inner:
            yield from _rows(inner, f"{prefix}{key.name}.")


def _inner(kind: Kind) -> Shape | None:
    if isinstance(kind, ScheduleKind):
        return kind.shape
    if isinstance(kind, Nullable):
        return _inner(kind.kind)
    return kind if isinstance(kind, Shape) else None


def _default(key: Key) -> str:
    if key.required:
        return "has to be written"
    if key.default_note:
        return key.default_note
    if key.default is None:
        return "`null`" if isinstance(key.kind, Nullable) else ""
    return f"`{_text(key.kind.plain(key.default))}`"


def _text(plain: Any) -> str:
    if isinstance(plain, bool):
        return str(plain).lower()
    if isinstance(plain, list):
        return f"[{', '.join(map(str, plain))}]"
    return str(plain) if plain != "" else '""'


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
