"""The command: where files go, what it refuses, what it says."""

import os
import subprocess
import sys

import pytest
from promtools import CONFIG

from supervisor.export import export, files
from supervisor.export.document import MARK


def mainstay(folder, *words):
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "config.yaml").chmod(0o600)
    command = [sys.executable, "-I", "-m", "supervisor", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", export.KINDS)
def test_an_export_writes_its_files_and_a_second_one_overwrites_them(kind, tmp_path):
    done = mainstay(tmp_path, "export", kind, "--output", "out")
    assert done.returncode == 0, done.stderr
    written = done.stdout.split()
    assert written
    texts = {path: (tmp_path / path).read_text() for path in written}
    assert all(MARK in text for text in texts.values())
    for path in written:
        (tmp_path / path).write_text(f"# {MARK}\nold\n")
    assert mainstay(tmp_path, "export", kind, "--output", "out").returncode == 0
    assert texts == {path: (tmp_path / path).read_text() for path in written}
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".tmp")]


def test_a_file_of_other_hands_stays_and_nothing_is_written(tmp_path):
    foreign = tmp_path / "out" / "prometheus" / "rules.yml"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("groups: []\n")
    done = mainstay(tmp_path, "export", "prometheus", "--output", "out")
    assert done.returncode == 1
    assert "rules.yml: is there and was not made by an export; move it away" in done.stderr
    assert os.listdir(foreign.parent) == ["rules.yml"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(files.ExportError, match="choose another --output"):
        files.write({"a/b": MARK}, str(tmp_path / "out"))


def test_stdout_has_every_file_below_its_path_and_touches_no_disk(tmp_path):
    done = mainstay(tmp_path, "export", "prometheus", "--stdout", "--selector", 'job="sup"')
    assert done.returncode == 0
    assert "==> prometheus/alerts.yml <==\n" in done.stdout
    assert 'up{job="sup"} == 0' in done.stdout
    assert os.listdir(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--selector", "mainstay"], '--selector: "mainstay" is no selector; write matchers'),
        (["--runbook-url", "runbooks"], '--runbook-url: "runbooks" is no URL'),
        (["--deadman", "javascript:x"], '--deadman: "javascript:x" is no URL'),
    ],
)
def test_a_wrong_option_is_usage_and_says_what_to_write(words, says, tmp_path):
    done = mainstay(tmp_path, "export", "prometheus", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_wrong_config_is_told_as_by_check(tmp_path):
    (tmp_path / "bad.yaml").write_text("jobs: {}\n")
    (tmp_path / "bad.yaml").chmod(0o600)
    done = mainstay(tmp_path, "-c", "bad.yaml", "export", "systemd")
    assert done.returncode == 78
    assert "bad.yaml:1:" in done.stderr


def test_what_is_missing_for_alerts_to_arrive_is_said(tmp_path):
    done = mainstay(tmp_path, "export", "alertmanager")
    assert "alerts go nowhere" in done.stderr
    assert "--deadman URL" in done.stderr
    done = mainstay(tmp_path, "export", "alertmanager", "--webhook", "http://127.0.0.1:1/x", "--deadman", "http://127.0.0.1:1/y")
    assert done.stderr == ""
