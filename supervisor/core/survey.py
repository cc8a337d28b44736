"""What a job is made of at one moment, and what is different from another: code, commit, packages, config, interpreter, input files.

Taken at the start of each attempt (``adapters.surveyor``); the one of the last good run is kept, and a bad end is held against it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Self

import msgspec
from msgspec import Struct, field

from supervisor.core.jobs import Job
from supervisor.core.model import RunId, Wall
from supervisor.core.prose import stamp
from supervisor.core.units import format_duration, format_size

CHANGES_SHOWN: Final = 30
TEXT_MAX: Final = 300
_UNTOLD: Final = frozenset(
    {"name", "description", "alerts", "logs", "dossier", "maintenance", "drill", "enabled"}
)  # change nothing in the job itself
_UNITS: Final = ("_bytes", "_frames", "_s")


class Survey(Struct, frozen=True):
    """``code``: path → digest of what is in it. ``inputs``: path → size or number of entries, in words. ``config``: key → value, secret ones as a digest.

    ``packages``: name → version. ``interpreter`` and ``commit`` are single facts, empty where there is none.
    """

    code: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    interpreter: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        """As JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """From JSON text. ``ValueError`` if it is not one of ours."""
        return msgspec.json.decode(text, type=cls)


def changes(before: Survey | None, now: Survey, since_run: RunId | None, since: Wall | None) -> dict[str, object]:
    """What the dossier says has changed since the last good run."""
    items = [] if before is None else [_item(*one) for one in _differences(before, now)]
    note = "it has no good run yet that it could be compared with" if before is None else "" if items else "nothing that was looked at"
    return {
        "since_run": since_run,
        "since": None if since is None else stamp(since),
        "items": items[:CHANGES_SHOWN],
        "more": max(0, len(items) - CHANGES_SHOWN),
        "note": note,
    }


def config_of(job: Job) -> Iterator[tuple[str, Any]]:
    """The job's config as (key as in the file, value): what bears on how it runs."""
    for name in job.__struct_fields__:
        if name not in _UNTOLD:
            yield from _flat(getattr(job, name), "" if name == "launch" else name)


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Struct):
        for each in value.__struct_fields__:
            yield from _flat(getattr(value, each), f"{name}.{each}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flat(one, f"{name}.{key}")
    else:
        short = next((name.removesuffix(unit) for unit in _UNITS if name.endswith(unit)), name)
        if isinstance(value, int | float) and name.endswith("_bytes"):
            value = format_size(int(value))
        elif isinstance(value, int | float) and name.endswith("_s"):
            value = format_duration(float(value))
        yield "command" if short == "argv" else short, value


def _differences(before: Survey, now: Survey) -> Iterator[tuple[str, str, str | None, str | None]]:
    if before.commit != now.commit:
        yield "commit", "git commit", before.commit or None, now.commit or None
    yield from _of_maps("code", before.code, now.code)
    yield from _of_maps("config", before.config, now.config)
    if before.interpreter != now.interpreter:
        yield "interpreter", "Python", before.interpreter or None, now.interpreter or None
    yield from _of_maps("package", before.packages, now.packages)
    yield from _of_maps("input", before.inputs, now.inputs)


def _of_maps(kind: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str, str | None, str | None]]:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            yield kind, name, before.get(name), now.get(name)


def _item(kind: str, what: str, was: str | None, now: str | None) -> dict[str, object]:
    return {"kind": kind, "what": _short(what), "was": _short(was), "now": _short(now)}


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= TEXT_MAX else "…" + text[1 - TEXT_MAX :]


def in_words(item: Mapping[str, object]) -> str:
    """One change as a person reads it."""
    kind, what, was, now = (item.get(key) for key in ("kind", "what", "was", "now"))
    if kind == "code":
        return f"{what}: {'new file' if was is None else 'is gone' if now is None else 'changed'}"
    label = what if kind in ("interpreter", "commit") else f"{kind} {what}"
    if was is None:
        return f"{label}: new: {now}"
    return f"{label}: {was} is gone" if now is None else f"{label}: {was} → {now}"


def sized(size: int, changed_at: float) -> str:
    """A file's size and time of change, in words."""
    return f"{size:,} bytes of {datetime.fromtimestamp(changed_at).astimezone():%Y-%m-%d %H:%M}"
