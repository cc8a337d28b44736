"""The config in force is the one that was taken, whatever stands in the file when a brain dies."""

import os
import signal

from harness import wait_for

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
