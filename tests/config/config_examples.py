"""The example files as test parameters, and their data as any reader of YAML 1.2 would see it."""

import re
from pathlib import Path

import pytest

from supervisor.config import document
from supervisor.config.problems import Report

HERE = Path(__file__).parent
GOOD = [pytest.param(path, id=path.stem) for path in sorted((HERE / "good").glob("*.yaml"))]
BAD = [pytest.param(path, id=path.stem) for path in sorted((HERE / "bad").glob("*.yaml"))]


def data(text):
    """Plain Python values of *text*; None when it is no YAML that we take."""
    report = Report("x")
    node = document.parse(text, report)
    return None if node is None or report.failed else _plain(node)


def _plain(node):
    if isinstance(node, document.Mapping):
        return {name: _plain(item) for name, item in node.items.items()}
    if isinstance(node, document.Sequence):
        return [_plain(item) for item in node.items]
    if not node.plain:
        return node.text
    if node.is_null:
        return None
    if node.text in ("true", "false"):
        return node.text == "true"
    if re.fullmatch(r"-?[0-9]+", node.text):
        return int(node.text)
    if re.fullmatch(r"-?[0-9]+\.[0-9]+", node.text):
        return float(node.text)
    return node.text
