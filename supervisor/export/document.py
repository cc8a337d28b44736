"""Documents as text: YAML and JSON in a stable order, each with the mark by which a later export knows its own files."""

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

MARK: Final = "made by `mainstay export`"


class _Dumper(yaml.SafeDumper):
    """Keeps the order of keys, and long text in blocks that a person can read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def yaml_text(document: Mapping[str, Any], about: str) -> str:
    """*document* as YAML below a comment: what it is, and that it is ours."""
    body = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return f"# {about}\n# This file was {MARK}; a later export overwrites it.\n{body}"


def json_text(document: Mapping[str, Any]) -> str:
    """*document* as JSON; it has to hold the mark itself, JSON knows no comments."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
