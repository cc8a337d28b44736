"""Files that mean harm or were cut short: only a ``Config`` or a ``ConfigError`` ever comes out, soon and in little memory."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from config_examples import GOOD, HERE
from hypothesis import given
from hypothesis import strategies as st

from supervisor import errors
from supervisor.config import document
from supervisor.config.kinds import Context, Kind
from supervisor.config.load import _Reader
from supervisor.config.problems import Report
from supervisor.config.schema import JOB, RECEIVERS, SUPERVISOR
from supervisor.config.times import CronExpression
from supervisor.core.settings import Config

SECONDS = 5  # for one file; the usual is a few milliseconds


def outcome(text):
    """The config, or the problems; anything else is a failure of the test. Reads text as ``load`` does after reading the file."""
    started = time.process_time()
    try:
        result = _Reader("/nowhere/config.yaml", Report("config.yaml")).config(text)
        assert isinstance(result, Config)
    except errors.ConfigError as err:
        result = err.problems
        assert result
        assert all(line.startswith(("config.yaml:", "/")) and "\n" not in line and line.isprintable() for line in result)
    assert time.process_time() - started < SECONDS
    return result


@pytest.mark.parametrize("name", ["example", "defaults", "shapes"])
def test_a_file_cut_at_any_byte_is_a_config_or_an_error(name):
    text = (HERE / "good" / f"{name}.yaml").read_text()
    for end in range(len(text)):
        outcome(text[:end])


def test_a_file_cut_within_a_line_is_an_error_or_at_least_a_warning():
    text = (HERE / "good" / "example.yaml").read_text()
    for end in range(1, len(text)):
        result = outcome(text[:end])
        if isinstance(result, Config) and text[end - 1] != "\n":
            assert any("is the file complete?" in line for line in result.warnings)


TROUBLE = [*"\0\x1b\t\n #:-{}[],&*!|>'\"%@`~?<\\.0eE_+/\u2028\ufeff", "no", "null", "true", "<<: ", "*a", "&a ", "!!int ", "---\n", "...\n", "1_0", "0x1f", ".inf",
           "9" * 400, "é" * 50, "- " * 40, "{" * 40, "[" * 40, "? ", "'", '"\\ud800"', '"\\U00110000"', "=", "%YAML 9.9\n"]  # fmt: skip


WORD = re.compile(r"[^\s{}\[\],:#\"']+")
WORDS = [
    "no",
    "null",
    "none",
    "~",
    "true",
    "010",
    "1_0",
    "-1",
    "0",
    "1e9",
    "1w",
    "0s",
    "99999d",
    "1B",
    "9999TiB",
    "100%",
    "''",
    "[]",
    "{}",
    "[a]",
    "{a: b}",
] * 3


def mutant(rng, text, others):
    """*text* with one to three accidents: words exchanged, cut, doubled, swapped, sprinkled, spliced."""
    for _ in range(rng.randint(1, 3)):
        a, b = sorted(rng.randint(0, len(text)) for _ in range(2))
        b = min(b, a + 200)
        match rng.randrange(12):
            case 0:
                text = text[:a] + text[b:]
            case 1:
                text = text[:b] + text[a:b] + text[b:]
            case 2:
                text = text[:a] + rng.choice(TROUBLE) + text[a:]
            case 3:
                text = text[:a] + rng.choice(TROUBLE) + text[b:]
            case 4:
                other = rng.choice(others)
                c = rng.randint(0, len(other))
                text = text[:a] + other[c : c + 100] + text[a:]
            case 5:
                lines = text.splitlines(keepends=True) or [""]
                i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[i], lines[j] = lines[j], lines[i]
                text = "".join(lines)
            case _:  # half of the accidents leave the YAML whole
                words = list(WORD.finditer(text))
                if words:
                    word = rng.choice(words)
                    text = text[: word.start()] + rng.choice(WORD.findall(rng.choice(others)) + WORDS) + text[word.end() :]
    return text


@pytest.mark.parametrize("seed", range(6))
def test_mutants_of_good_files_are_configs_or_errors(seed):
    rng = random.Random(seed)
    texts = [param.values[0].read_text() for param in GOOD]
    loaded = sum(isinstance(outcome(mutant(rng, rng.choice(texts), texts)), Config) for _ in range(500))
    assert 0 < loaded < 500  # the accidents are neither all harmless nor all the same


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_an_error(text):
    outcome(text)


def scalars(kinds):
    for shape in kinds:
        for key in shape:
            kind = key.kind
            while hasattr(kind, "kind"):
                kind = kind.kind
            if hasattr(kind, "keys"):
                yield from scalars([kind])
            elif isinstance(kind, Kind):
                yield key.name, kind


@pytest.mark.parametrize(("name", "kind"), sorted(scalars([SUPERVISOR, JOB, *RECEIVERS.values()]), key=lambda pair: pair[0]))
def test_any_value_is_read_or_refused_in_one_line_with_a_mend(name, kind):
    rng = random.Random(name)
    pieces = [
        *TROUBLE,
        "1",
        "5m",
        "512MiB",
        "10%",
        "http://",
        "[::1]",
        "host:1",
        "@daily",
        "* * * * *",
        "L",
        "5#6",
        "1-2/3",
        "TERM",
        "UTC",
        "a",
        "B",
    ]
    for _ in range(150):
        node = document.Scalar(1, 1, "key", "".join(rng.choices(pieces, k=rng.randint(0, 6))), rng.random() < 0.5)
        value, refusal = read_or_refused(kind, node)
        if refusal is None:
            kind.plain(value)


def read_or_refused(kind, node):
    """(value, None) or (None, the refusal), which is one short line with a mend."""
    try:
        return kind.read(node, Context(Report("x"), "/nowhere")), None
    except ValueError as err:
        refusal = str(err)
    assert "; " in refusal
    assert "\n" not in refusal
    assert len(refusal) < 500
    return None, refusal


@given(st.lists(st.text("0123456789*/,-#LW@ SUNMONJAN", min_size=1, max_size=8), min_size=5, max_size=5))
def test_any_cron_expression_is_taken_or_refused_soon(fields):
    node = document.Scalar(1, 1, "key", " ".join(fields), False)
    started = time.process_time()
    read_or_refused(CronExpression(), node)
    assert time.process_time() - started < SECONDS


BOMBS = {
    "billion laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)),
    "merge chain": "a: &a {x: 1}\n" + "".join(f"k{n}: &k{n} {{<<: [*a, *a]}}\n" for n in range(30)),
    "self reference": "jobs: &a {b: *a}\n",
    "brackets": "[" * 500_000,
    "braces": "{" * 500_000,
    "dashes": "- " * 500_000,
    "question marks": "? " * 500_000,
    "huge number": "jobs: {a: {command: [x], nice: " + "9" * 900_000 + "}}\n",
    "huge text": "jobs: {a: {command: " + "x" * 900_000 + "}}\n",
    "huge key": "jobs: {" + "x" * 900_000 + ": {}}\n",
    "huge indentation": "".join(" " * n + f"a{n}:\n" for n in range(1200)),
    "many keys": "jobs:\n" + "".join(f"  {n}:\n" for n in range(120_000)),
    "many quotes": "'" * 900_001,
    "one long unknown key in a job": "jobs: {a: {command: [x], " + "memory_" * 100_000 + ": 1}}\n",
    "huge cron": "jobs: {a: {command: [x], schedule: {cron: '" + "1," * 300_000 + "1 * * * *'}}}\n",
    "huge url": "jobs: {a: {command: [x]}}\nreceivers: {r: {type: webhook, url: 'http://" + "a@" * 300_000 + "'}}\n",
    "huge duration": "jobs: {a: {command: [x], limits: {time: " + "1s" * 300_000 + "}}}\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(name):
    assert not isinstance(outcome(BOMBS[name]), Config)


def test_bombs_take_little_memory(folder):
    code = (
        "import resource, sys\nfrom supervisor.config.load import load\nfrom supervisor.errors import ConfigError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load(sys.argv[1])\nexcept ConfigError:\n    pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    for name in ("billion laughs", "merge chain", "brackets", "huge number", "huge key", "huge url"):
        path = folder / "bomb.yaml"
        path.write_text(BOMBS[name])
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True)
        assert int(done.stdout) < 64, name


def test_loading_a_small_config_imports_little(folder):
    path = folder / "config.yaml"
    path.write_text("jobs:\n  a: {command: [x], schedule: {every: 1m}}\n")
    code = (
        "import sys\nfrom supervisor.config.load import load\nload(sys.argv[1])\nprint(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=True)
    heavy = {
        "prometheus_client",
        "starlette",
        "uvicorn",
        "asyncio",
        "sqlite3",
        "structlog",
        "psutil",
        "difflib",
        "cronsim",
        "zoneinfo",
        "json",
    }
    assert set(done.stdout.split()) & heavy == set()


def test_every_bad_file_starts_with_its_message():
    for path in (Path(HERE) / "bad").glob("*.yaml"):
        assert path.read_text().startswith("# "), path
