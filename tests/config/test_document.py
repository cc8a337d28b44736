"""YAML as nodes: texts exactly as written, places exactly where they stand."""

import pytest

from supervisor.config import document
from supervisor.config.problems import Report


def tree(text):
    report = Report("x")
    node = document.parse(text, report)
    assert not report.failed, report.problems
    return node


@pytest.mark.parametrize("text", ["no", "010", "1:30", "1_000", "1e3", "0x1f", ".inf", "2024-01-01", "yes", "Null", "=", "+1", "3.10"])
def test_a_plain_value_stays_the_text_that_was_written(text):
    value = tree(f"key: {text}\n").items["key"]
    assert (value.text, value.plain) == (text, True)


def test_a_node_knows_its_place_and_path():
    root = tree("jobs:\n  ä: {command: [x, y]}\n")
    word = root.items["jobs"].items["ä"].items["command"].items[1]
    assert (word.line, word.column, word.path) == (2, 20, "jobs.ä.command[1]")
    key = root.items["jobs"].keys["ä"]
    assert (key.line, key.column, key.path) == (2, 3, "jobs.ä")


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_null_is_only_null_without_quotes(text):
    assert tree(f"key: {text}\n").items["key"].is_null
    assert not tree(f'key: "{text}"\n').items["key"].is_null


def test_what_stands_under_a_refused_key_hides_nothing_after_it():
    report = Report("x")
    root = document.parse("a: 1\na: {b: {c: [1, 2]}}\n? [k, {l: m}]\n: {n: [o]}\nd: 2\n", report)
    assert [line.split("; ")[0] for line in report.problems] == [
        'x:2:1: a: "a" is here twice, first in line 1',
        "x:3:3: a list or map stands where a key is needed",
    ]
    assert {name: node.text for name, node in root.items.items()} == {"a": "1", "d": "2"}


def test_nothing_is_nothing():
    report = Report("x")
    assert document.parse("# only a comment\n", report) is None
    assert not report.failed


def test_the_slow_parser_reads_the_same(monkeypatch):
    import yaml

    text = 'a: [1, "2", {b: no}]\nc: |\n  text\n'
    fast = tree(text)
    monkeypatch.setattr(document, "_Loader", yaml.SafeLoader)
    slow = tree(text)
    assert [node.text for node in fast.items["a"].items[:2]] == [node.text for node in slow.items["a"].items[:2]] == ["1", "2"]
    assert [node.plain for node in slow.items["a"].items[:2]] == [True, False]
    assert fast.items["c"].text == slow.items["c"].text == "text\n"
    assert (fast.items["c"].line, fast.items["c"].column) == (slow.items["c"].line, slow.items["c"].column)
