"""The config in force is the one that was taken, whatever stands in the file when a brain dies."""

import os
import signal
import socket

import pytest
from harness import free_port, wait_for

CONFIG = """
jobs:
  steady: {command: [sleep, "600"]}
"""


def replaced(mainstay, brain: int) -> int:
    """Kill the brain; the pid of the next one once it answers."""
    os.kill(brain, signal.SIGKILL)

    def next_one() -> int | None:
        try:
            found = mainstay.brain_pid
        except (OSError, AssertionError, KeyError):
            return None
        return found if found != brain else None

    return wait_for(next_one, "the next brain")


def test_a_file_broken_meanwhile_stops_no_brain_however_often_it_dies(make):
    mainstay = make(CONFIG).start()
    pid = mainstay.wait_for_state("steady", "running")["runs"][0]["pid"]
    (mainstay.folder / "config.yaml").write_text("jobs: [this is no config\n")
    for _ in range(3):
        replaced(mainstay, mainstay.brain_pid)
        assert mainstay.wait_for_state("steady", "running")["runs"][0]["pid"] == pid


def test_a_file_changed_meanwhile_is_taken_by_a_reload_only(make):
    mainstay = make(CONFIG).start()
    mainstay.wait_for_state("steady", "running")
    path = mainstay.folder / "config.yaml"
    path.write_text(path.read_text() + '  added: {command: [sleep, "600"], schedule: manual}\n')
    for _ in range(2):
        replaced(mainstay, mainstay.brain_pid)
        mainstay.wait_for_state("steady", "running")
        assert [job["name"] for job in mainstay.status()["jobs"]] == ["steady"]
    assert mainstay.cli("reload").returncode == 0
    replaced(mainstay, mainstay.brain_pid)
    mainstay.wait_for_state("added", "idle")


def test_another_state_dir_is_for_the_next_start_and_not_for_the_next_brain(make):
    mainstay = make(CONFIG).start()
    pid = mainstay.wait_for_state("steady", "running")["runs"][0]["pid"]
    text = mainstay.config.read_text()
    mainstay.config.write_text(text.replace("state_dir: state", "state_dir: elsewhere"))
    assert mainstay.cli("reload").stdout.splitlines()[1:] == ["at the next start: supervisor.state_dir"]
    replaced(mainstay, mainstay.brain_pid)
    assert mainstay.wait_for_state("steady", "running")["runs"][0]["pid"] == pid, "its history knows the job, which goes on"
    assert mainstay.status()["daemon"]["state_dir"] == str(mainstay.state)
    assert not (mainstay.folder / "elsewhere").exists()
    assert mainstay.cli("status").returncode == 0


def test_a_setting_that_was_changed_back_waits_for_nothing(make):
    mainstay = make(CONFIG).start()
    text, here = mainstay.config.read_text(), f"127.0.0.1:{mainstay.port}"
    there = f"127.0.0.1:{free_port()}"
    mainstay.config.write_text(text.replace(here, there))
    planned = mainstay.cli("reload", "--plan").stdout
    assert planned == "no job would change\nat the next start: supervisor.listen\n"
    assert mainstay.post("/reload?plan=1")["settings"] == {"at_once": [], "at_next_start": ["supervisor.listen"]}
    for _ in range(2):
        assert mainstay.cli("reload").stdout.splitlines()[1:] == ["at the next start: supervisor.listen"]
    assert mainstay.status()["daemon"]["listen"] == here, "where it listens, not where it will"
    mainstay.config.write_text(text.replace("{state_dir", "{history: 30d, state_dir"))
    assert mainstay.cli("reload", "--plan").stdout == "no job would change\nat once: supervisor.history\n"
    mainstay.config.write_text(text)
    assert mainstay.cli("reload").stdout == f"{mainstay.config} is in force: 1 jobs\n"
    assert mainstay.cli("reload", "--plan").stdout == "no job would change\n"


def test_a_kept_copy_that_is_not_ours_any_more_is_refused_by_its_own_name(make):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    mainstay = make(CONFIG).start()
    mainstay.wait_for_state("steady", "running")
    kept = mainstay.state / "config.loaded.yaml"
    os.chown(kept, 65534, 65534)
    replaced(mainstay, mainstay.brain_pid)
    (said,) = mainstay.wait_for(lambda: mainstay.log_events("kept_config_refused"), "the refusal")
    assert said["problem"] == f"{kept}: belongs to uid 65534, which could make us run anything as root; run: chown root {kept}"


def test_a_port_that_is_taken_keeps_no_later_brain_from_supervising(make):
    mainstay = make(CONFIG).start()
    pid = mainstay.wait_for_state("steady", "running")["runs"][0]["pid"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = mainstay.config.read_text()
        mainstay.config.write_text(text.replace(f"127.0.0.1:{mainstay.port}", f"127.0.0.1:{port}"))
        assert mainstay.cli("reload").stdout.splitlines()[1:] == ["at the next start: supervisor.listen"]
        replaced(mainstay, mainstay.brain_pid)
        assert mainstay.wait_for_state("steady", "running")["runs"][0]["pid"] == pid
        (said,) = mainstay.log_events("http_tcp_missing")
        assert f"127.0.0.1:{port} is in use" in said["error"]
        assert mainstay.cli("status").returncode == 0
    mainstay.port = port
    mainstay.wait_for(lambda: mainstay.log_events("http_tcp_listening"), "it is free now")
    assert mainstay.http("/healthz")[0] == 200
