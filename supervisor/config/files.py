"""Paths as values of config.yaml, and the small files that are read with it: environments and secrets."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.config.document import Scalar
from supervisor.config.kinds import VARIABLE, Context, Json, ScalarKind
from supervisor.config.source import Trust, read_text
from supervisor.core.units import quoted


class Path(ScalarKind):
    """A path; the value is absolute, relative ones start at the directory of the config file."""

    form = "a path, e.g. var or /srv/app"

    def parse(self, node: Scalar, context: Context) -> str:
        return _resolved(node.text, context)

    def schema(self) -> Json:
        return {"type": "string", "minLength": 1}


def _resolved(text: str, context: Context) -> str:
    if not text:
        raise ValueError("is empty; write a path, e.g. var or /srv/app")
    if not text.isprintable():
        raise ValueError(f"{quoted(text)} holds a control character; write a path without it")
    if text.startswith("~"):
        raise ValueError(f"{quoted(text)} starts with ~, which is not expanded; write the whole path")
    return os.path.normpath(os.path.join(context.base, text))


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """What an environment file held when the configuration was read. ``optional``: written with a - before the path."""

    path: str
    optional: bool
    values: Mapping[str, str] = field(repr=False)


class EnvironmentPath(ScalarKind):
    """The path of a file with a KEY=VALUE in each line. ``-`` before it: the file may be missing."""

    form = "the path of a file with KEY=VALUE lines; a - before the path allows it to be missing"

    def parse(self, node: Scalar, context: Context) -> EnvironmentFile:
        optional = node.text.startswith("-")
        path = _resolved(node.text.removeprefix("-"), context)
        if optional and not os.path.lexists(path):
            return EnvironmentFile(path, optional, {})
        if path not in context.texts:
            try:
                text = read_text(path, Trust.ANY)
            except ValueError as err:
                raise ValueError(f"{quoted(path, 200)} {err}") from err
            context.texts[path] = self._values(text, path, node, context)
        return EnvironmentFile(path, optional, context.texts[path])

    @staticmethod
    def _values(text: str, path: str, node: Scalar, context: Context) -> dict[str, str]:
        values: dict[str, str] = {}
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line or line[0] in "#;":
                continue
            name, equals, value = line.partition("=")
            name, value = name.removeprefix("export ").strip(), value.strip()
            if not equals or not re.fullmatch(VARIABLE, name):
                # the line itself may be a secret, so it is not quoted
                context.report.problem_elsewhere(node, f"{path}:{number}:1: is not KEY=VALUE; write one variable in each line")
                continue
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            values[name] = value
        return values

    def plain(self, value: Any) -> Any:
        return ("-" if value.optional else "") + value.path

    def schema(self) -> Json:
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret and the file it came from."""

    path: str
    text: str = field(repr=False)


class SecretPath(ScalarKind):
    """The path of a file that holds a secret; only its owner may be able to read it."""

    form = "the path of a file that holds the secret and that only its owner can read"
    many = False

    def parse(self, node: Scalar, context: Context) -> Secret:
        path = _resolved(node.text, context)
        try:
            text = read_text(path, Trust.SECRET).rstrip("\r\n")
        except ValueError as err:
            raise ValueError(f"{quoted(path, 200)} {err}") from err
        if not text or ("\n" in text and not self.many):
            raise ValueError(f"{quoted(path, 200)} has to hold the secret in one line; write it there")
        return Secret(path, text)

    def plain(self, value: Any) -> Any:
        return value.path

    def schema(self) -> Json:
        return {"type": "string", "minLength": 1}
