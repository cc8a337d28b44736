"""The effective configuration as YAML: every key of every job with its value, where that came from beside it, and no secret in it.

What is printed loads again and means the same, unless a ``***`` stands in it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from supervisor.config.document import NULLS
from supervisor.config.healing import HealShape
from supervisor.config.kinds import MASK, Kind, Nullable
from supervisor.config.process import Mask
from supervisor.config.schema import JOB, MAINTENANCE, SCHEDULE_MAP
from supervisor.config.shape import Key, Section
from supervisor.core.settings import Config
from supervisor.core.units import quoted

_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@%+-]*|[0-9]+(\.[0-9]+)?([A-Za-z][0-9A-Za-z]*|%)")
_RESERVED = NULLS | {"true", "false", "yes", "no", "on", "off", "y", "n", "none"}
_INDENT = "  "
_RIVALS = frozenset({"url", "url_file", "urls", "urls_file", "token", "token_file", "secret", "password"})  # shown where they are written


def show(config: Config) -> str:
    """YAML text; the comment after each value says whether the file, its defaults, the environment or Mainstay decided it."""
    sections = cast("dict[str, Any]", config.sections)
    if not sections:
        raise ValueError("this config was not read from a file, so there is nothing to show")
    lines = [f"# The effective configuration: {quoted(config.path, 4096)}, its defaults, and Mainstay's own defaults."]
    lines += ["supervisor:", *_section(sections["supervisor"], 1)]
    for part in ("jobs", "receivers", "maintenance"):
        if sections[part]:
            lines += ["", f"{part}:"]
        for name, section in sections[part].items():
            lines += [f"{_INDENT}{_scalar(name)}:", *_section(section, 2)]
    return "\n".join(lines) + "\n"


def _section(section: Section, depth: int) -> Iterator[str]:
    for key in section.shape:
        if _is_shown(section, key):
            yield from _entry(section, key, depth)


def _is_shown(section: Section, key: Key) -> bool:
    """False for the key that was not chosen of two, for short forms, and for what this version does not have."""
    if key.name in section.written:
        return True
    if section.shape is JOB and key.name in ("command", "shell", "success_exit_codes", "io_class"):
        return False
    if section.shape in (SCHEDULE_MAP, MAINTENANCE) and key.name in ("every", "cron", "timezone"):
        return key.name == "timezone" and "cron" in section.written
    if isinstance(section.shape, HealShape):
        return key.name == "repeats"
    return not (key.name in _RIVALS and key.default is None)


def _entry(section: Section, key: Key, depth: int) -> Iterator[str]:
    value, pad = section[key.name], _INDENT * depth
    if isinstance(value, Section):
        yield f"{pad}{key.name}:"
        yield from _section(value, depth + 1)
        return
    text = _flow(key.kind.plain(value), quote=isinstance(_inner(key.kind), Mask))
    masked = "; a secret is masked" if MASK in text else ""
    yield f"{pad}{key.name}: {text}  # {section.origin(key.name)}{masked}"


def _inner(kind: Kind) -> Kind:
    return kind.kind if isinstance(kind, Nullable) else kind


def _flow(value: Any, *, quote: bool = False) -> str:
    """*value* on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str):
        return _quoted(value) if quote else _scalar(value)
    return json.dumps(value)


def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED and not re.fullmatch(r"[0-9.]+([eE][0-9]*)?|0[xXoO].*", text):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    """*text* in double quotes with YAML's escapes; JSON's differ beyond the first 65,536 characters."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable() and character < "\U00010000":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
