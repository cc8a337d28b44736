"""The state directory: what jobs left behind goes without holding anybody up, and nothing else goes."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from supervisor.adapters.statedir import StateDir, write_quarantine
from supervisor.progressfile import parse_progress

BOUND_S = 60.0


@pytest.fixture
def places(tmp_path: Path) -> StateDir:
    made = StateDir(str(tmp_path / "state"))
    made.create()
    return made


def emptied(places: StateDir) -> bool:
    """Wait until the trash is; whether it is."""
    return places._trash.join(BOUND_S) and os.listdir(os.path.join(places.path, "trash")) == []


def nest(folder: str, depth: int) -> None:
    """A folder in a folder in a folder..., deeper than any path can name."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        fd, old = os.open("d", os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    os.close(fd)


def test_three_thousand_nested_folders_are_deleted_beside_the_loop(places):
    places.prepare("job", "1.1", -1, -1)
    nest(places.run("1.1"), 3000)
    places.prepare("job", "1.1", -1, -1)  # the same attempt, asked for once more
    assert os.listdir(places.run("1.1")) == ["page"]
    places.forget_run("1.1")
    assert not os.path.exists(places.run("1.1"))
    assert emptied(places)


def test_a_symlink_that_a_job_left_is_removed_and_not_followed(places, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("precious")
    places.prepare("job", "1.1", -1, -1)
    os.symlink(kept, places.run("1.1") + "/link")
    os.mkdir(places.run("1.1") + "/folder")
    os.symlink(kept, places.run("1.1") + "/folder/link")
    places.forget_run("1.1")
    os.symlink(kept, places.run("2.1"))
    places.forget_run("2.1")
    assert emptied(places)
    assert (kept / "file").read_text() == "precious"


def test_a_folder_that_its_job_has_closed_goes_too(places):
    places.prepare("job", "1.1", -1, -1)
    os.makedirs(places.run("1.1") + "/a/b")
    (Path(places.run("1.1")) / "a" / "b" / "file").touch()
    for folder in ("/a/b", "/a", ""):
        os.chmod(places.run("1.1") + folder, 0)
    places.forget_run("1.1")
    assert emptied(places)


def test_what_is_not_there_is_no_reason_to_complain_and_leaves_no_thread(places):
    places.forget_run("7.1")
    assert not [thread for thread in threading.enumerate() if thread.name == "trash"]


def test_a_start_sweeps_what_no_living_attempt_owns(places):
    for key in ("1.1", "2.1", "3.1"):
        places.prepare("job", key, -1, -1)
    os.makedirs(os.path.join(places.path, "trash", "of an earlier life", "deep"))
    places.sweep_runs({"2.1"})
    assert os.listdir(os.path.join(places.path, "runs")) == ["2.1"]
    assert emptied(places)


def test_the_newest_attempts_keep_their_output_although_all_are_of_one_run(places):
    places.prepare("service", "1.1", -1, -1)
    for attempt in range(1, 31):
        for end in ("", ".1"):
            Path(places.log("service", f"1.{attempt}") + end).touch()
    places.prune_logs("service", 5)
    assert places.attempts_with_output("service") == [(1, number) for number in range(26, 31)]
    assert len(os.listdir(os.path.dirname(places.log("service", "1.1")))) == 10


def test_folders_of_a_job_that_has_left_go_once_nothing_in_them_is_young(places):
    for name in ("here", "old", "young"):
        places.prepare(name, "1.1", -1, -1)
        Path(places.log(name, "1.1")).touch()
        for folder in (os.path.dirname(places.log(name, "1.1")), places.job(name)):
            os.utime(folder, (1000, 1000))
        os.utime(places.log(name, "1.1"), (1000, 1000 if name != "young" else 3000))
    gone = places.sweep_jobs({"here"}, 2000.0)
    assert sorted(os.path.relpath(one, places.path) for one in gone) == ["jobs/old", "jobs/young", "logs/old"]
    assert sorted(os.listdir(os.path.join(places.path, "logs"))) == ["here", "young"]
    assert emptied(places)


def test_old_copies_of_the_guard_go_when_nothing_runs_in_them(tmp_path):
    places = StateDir(str(tmp_path / "state"))
    places.create()
    now = places.guard(-1)
    old = tmp_path / "state" / "guard" / f"{os.geteuid()}-00000000"
    old.mkdir()
    places.sweep_runs({"1.1"})
    assert old.exists()
    places.sweep_runs(())
    assert not old.exists()
    assert os.path.exists(now + "/sitecustomize.py")


@pytest.mark.parametrize("ending", ["", "\r"], ids=["LF", "CRLF"])
def test_a_shell_finds_what_is_set_aside_also_where_its_input_ends_lines_with_crlf(tmp_path, ending):
    """What a job says of the last field of a line comes without the carriage return, which its shell still has."""
    write_quarantine(str(tmp_path / "keys.json"), str(tmp_path / "keys"), ("u7", "two words"))
    told = parse_progress(f"record u7{ending}\n".encode(), 1).record_in_work
    assert told == "u7"
    for key, expected in (("u7", 0), ("two words", 0), ("u70", 1), ("7", 1), ("", 1)):
        found = subprocess.run(["grep", "-qsxF", "--", key + ending, tmp_path / "keys"], timeout=10, check=False)
        assert found.returncode == expected, key
    assert json.loads((tmp_path / "keys.json").read_text()) == ["u7", "two words"]
