"""What the pages show works: links lead somewhere, commands parse, examples load."""

import os
import re
import shlex
import textwrap
from pathlib import Path
from urllib.parse import unquote

import pytest

from supervisor import cli
from supervisor.config.load import load

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CHANGELOG.md", "docs/**/*.md", "systemd/*.md", "monitoring/*.md", "bench/*.md", "tests/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(text):
    """The anchors that a forge makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def shell_lines(text):
    """Lines that a reader would type: indented by four, or after a prompt; without their comments."""
    plain = FENCE.sub(lambda block: block[2] if block[1] == "console" else "", text)
    for line in plain.splitlines():
        typed = line[2:] if line.startswith("$ ") else line[4:] if re.match(r" {4}\S", line) else ""
        for part in re.split(r"\s&&\s", re.sub(r"\s+#.*$", "", typed)):
            if part.strip():
                yield part.strip()


@pytest.mark.parametrize("name", PAGES)
def test_every_local_link_leads_somewhere(name):
    text = read(name)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        found = (ROOT / name).parent / path if path else ROOT / name
        assert found.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{name}: {target}"


@pytest.mark.parametrize("name", PAGES)
def test_every_make_target_exists(name):
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    asked = {line.split()[1] for line in shell_lines(read(name)) if re.match(r"make [a-z]", line)}
    asked |= set(re.findall(r"`make ([a-z]+)`", read(name)))
    assert asked <= targets


@pytest.mark.parametrize("name", PAGES)
def test_every_mainstay_command_parses(name):
    parser = cli._parser()
    for line in shell_lines(read(name)):
        words = shlex.split(re.sub(r"^(\S+ ){5}(?=/)", "", line)) if re.match(r"[*/0-9]+ \S+ \S+ \S+ \S+ /", line) else shlex.split(line)
        if not words or os.path.basename(words[0]) != "mainstay":
            continue
        parser.parse_args(["7" if word == "ID" else word for word in words[1:]])


def test_the_commands_that_the_readme_says_are_checked():
    commands = [line for line in shell_lines(read("README.md")) if "mainstay" in line]
    assert len(commands) > 8


@pytest.mark.parametrize("name", PAGES)
def test_every_example_of_a_config_loads(name, tmp_path, monkeypatch):
    os.chmod(tmp_path, 0o700)
    for number, (language, block) in enumerate(FENCE.findall(read(name))):
        if language == "yaml":
            path = tmp_path / f"{number}.yaml"
            path.write_text(
                re.sub(r"^ +user: .*\n", "", block, flags=re.MULTILINE), encoding="utf-8"
            )  # who lives here differs from host to host
            path.chmod(0o600)
            for variable in re.findall(r"\$\{([A-Z_]+)\}", block):  # the secrets that the reader has
                monkeypatch.setenv(variable, "secret")
            for file in re.findall(r"[a-z]_file: ([\w/.]+)", block):
                secret = tmp_path / file
                secret.parent.mkdir(exist_ok=True, mode=0o700)
                secret.touch(mode=0o600)
                secret.write_text("https://example.org/secret\n", encoding="utf-8")
            assert load(str(path)).jobs


@pytest.mark.parametrize("name", PAGES)
def test_every_python_example_compiles(name):
    for language, block in FENCE.findall(read(name)):
        if language == "python":
            compile(textwrap.dedent(block), name, "exec")


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md", "docs/jobs.md", "docs/limitations.md", "docs/architecture.md"])
def test_every_file_of_ours_that_is_named_exists(name):
    named = re.findall(r"`((?:jobs|supervisor|scripts|systemd|docs|bench|tests)/[\w./@-]+)`", read(name))
    missing = [path for path in named if not (ROOT / path).exists() and "NAME" not in path]
    # jobs/ and logs/ also stand in the state directory
    assert [path for path in missing if not path.startswith("jobs/J")] == []
