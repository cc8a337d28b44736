"""What Mainstay makes of wrong files, taken places and missing permissions: one line that names the place and the mend, never a traceback."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PROGRAM, Mainstay, environment, free_port, wait_for
from otheruser import as_nobody

HERE = Path(__file__).resolve().parent
JOB = "jobs:\n  one: {command: ['true'], schedule: manual}\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def refused(mainstay: Mainstay, code: int, *says: str) -> str:
    """`run` ends with *code* and says so in plain words; `check` agrees where it is the config."""
    done = mainstay.cli("run")
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr + mainstay.log()
    assert "bug of Mainstay" not in done.stderr, done.stderr
    for words in says:
        assert words in done.stderr, done.stderr
    if code == 78:
        checked = mainstay.cli("check")
        assert (checked.returncode, checked.stdout) == (78, "")
        assert checked.stderr == done.stderr
    return done.stderr


@pytest.fixture
def unstarted(tmp_path: Path) -> Mainstay:
    return Mainstay(tmp_path, JOB)


# ---------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "empty"),
        (b"\n# nothing\n", "empty"),
        (b"\x00\x01\x02\xff\xfe", "config.yaml"),
        (b"jobs:\n  one: {command: ['true']", "config.yaml:"),
        (b"jobs:\n  one:\n\tcommand: [x]\n", "config.yaml:3:1"),
        (b"- a\n- b\n", "config.yaml:1:1"),
        (b"just words", "config.yaml:1:1"),
        (b"jobs: {}\n...\n---\njobs: {}\n", "config.yaml:"),
        (b"jobs: {one: {command: []}}\n", "jobs.one.command"),
        (b"jobs: {one: {command: ['true'], limits: {memory: 99999999999999999999TiB}}}\n", "jobs.one.limits.memory"),
        (b"jobs: {one: {command: ['true'], limits: {time: -5s}}}\n", "jobs.one.limits.time"),
        (b"jobs: {'../../etc': {command: ['true']}}\n", "../../etc"),
        (b"jobs: {one: {command: ['true'], alerts: {to: [nobody]}}}\n", "nobody"),
        (b"a: &a [x]\nb: &b [*a, *a, *a]\njobs: {one: {command: [*b, *b]}}\n", "config.yaml:"),
    ],
)
def test_a_config_that_is_none_is_78_with_place_and_mend(unstarted: Mainstay, text: bytes, says: str) -> None:
    unstarted.config.write_bytes(text)
    refused(unstarted, 78, says)
    assert not unstarted.state.exists(), "a config that is refused changes nothing"


def test_a_config_that_is_not_there(unstarted: Mainstay) -> None:
    unstarted.config.unlink()
    refused(unstarted, 78, f"{unstarted.config}: ", "does not exist")
    unstarted.config.mkdir()
    refused(unstarted, 78, f"{unstarted.config}: ", "directory")


def test_no_config_anywhere_says_where_it_looked(tmp_path: Path) -> None:
    if os.path.lexists("/etc/mainstay/config.yaml"):
        pytest.skip("there is an /etc/mainstay/config.yaml")
    done = subprocess.run(
        [sys.executable, "-I", "-m", "supervisor", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment("x"),
    )
    assert done.returncode == 78
    assert done.stderr.startswith("config.yaml: does not exist, nor does /etc/mainstay/config.yaml; ")


def test_an_enormous_config_is_refused_quickly(unstarted: Mainstay) -> None:
    unstarted.config.write_text("#" * 200_000_000)
    refused(unstarted, 78, "config.yaml")


# ---------------------------------------------------------------- places


def test_a_port_in_use_is_said_with_who_has_it(unstarted: Mainstay) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", unstarted.port))
        taken.listen()
        said = refused(unstarted, 1, f"127.0.0.1:{unstarted.port} is in use", "supervisor.listen")
        assert f"pid {os.getpid()}" in said


def test_a_state_directory_that_is_a_file_or_lies_below_one(unstarted: Mainstay) -> None:
    unstarted.state.write_text("a file")
    refused(unstarted, 1, str(unstarted.state), "state_dir")
    unstarted.config.write_text(unstarted.config.read_text().replace("state_dir: state", "state_dir: /dev/null/x"))
    refused(unstarted, 1, "/dev/null/x", "state_dir")


def test_a_state_directory_with_too_long_a_path_for_a_socket(unstarted: Mainstay) -> None:
    deep = "/".join(["d" * 60] * 3)
    unstarted.config.write_text(unstarted.config.read_text().replace("state_dir: state", f"state_dir: {deep}"))
    refused(unstarted, 1, "unix socket", "state_dir")


def test_a_lock_that_is_a_trap_is_not_followed(unstarted: Mainstay, tmp_path: Path) -> None:
    unstarted.state.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (unstarted.state / "lock").symlink_to(victim)
    refused(unstarted, 1, "lock")
    assert victim.read_text() == "precious"


@root_only
def test_a_config_that_may_not_be_read(open_folder: Path) -> None:
    (open_folder / "config.yaml").write_text(JOB)
    (open_folder / "config.yaml").chmod(0o600)
    done = as_nobody(open_folder, "-c", str(open_folder / "config.yaml"), "check")
    assert done.returncode == 78, done
    assert re.fullmatch(r"\S+config\.yaml: may not be read by uid 65534; .*\n", done.stderr), done.stderr


@root_only
def test_a_state_directory_that_may_not_be_made_or_entered(open_folder: Path) -> None:
    config = open_folder / "config.yaml"
    config.write_text(f"supervisor: {{state_dir: state, listen: '127.0.0.1:{free_port()}'}}\n{JOB}")
    config.chmod(0o644)
    done = as_nobody(open_folder, "-c", str(config), "run")
    assert (done.returncode, done.stdout) == (1, ""), done
    assert re.fullmatch(
        r"mainstay: cannot make the state directory \S+/state: Permission denied; set supervisor.state_dir .*\n", done.stderr
    )
    (open_folder / "state").mkdir(mode=0o711)
    done = as_nobody(open_folder, "-c", str(config), "run")
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "state_dir" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (open_folder / "state" / "logs").mkdir(mode=0o700)
    done = as_nobody(open_folder, "-c", str(config), "run")
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr == (
        f"mainstay: {open_folder}/state/logs belongs to root (uid 0), and we are uid 65534; run as that user, who may have a Mainstay on it,"
        " or give this config a supervisor.state_dir of its own\n"
    )


def test_it_supervises_although_all_of_its_streams_are_closed(unstarted: Mainstay) -> None:
    line = f"exec {' '.join(PROGRAM)} -c {unstarted.config} run <&- >&- 2>&-"
    with subprocess.Popen(["sh", "-c", line], cwd=unstarted.folder, env=environment(unstarted.mark)) as process:
        try:
            unstarted._process = process
            unstarted.wait_for(unstarted._is_ready, "readyz")
            assert unstarted.run_job("one")["outcome"] == "succeeded"
            for pid in (process.pid, unstarted.keeper_pid, unstarted.brain_pid):
                assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}, pid
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0
    assert unstarted.tree() == []


PIDS = Path("/sys/fs/cgroup/pids")


@pytest.fixture
def few_processes() -> Iterator[Path]:
    """A pids cgroup of our own, as TasksMax= makes one."""
    group = PIDS / f"mainstay-test-{os.getpid()}-{free_port()}"
    try:
        group.mkdir()
    except OSError as err:
        pytest.skip(f"no pids cgroup (v1) can be made here: {err}")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "an empty cgroup")
    group.rmdir()


@root_only
def test_a_host_without_room_for_our_threads_is_told_in_one_line(unstarted: Mainstay, few_processes: Path) -> None:
    (few_processes / "pids.max").write_text("3")  # guardian, keeper and brain, and no thread
    enter = f"echo $$ > {few_processes}/cgroup.procs; exec {' '.join(PROGRAM)} -c {unstarted.config} run"
    done = subprocess.run(
        ["sh", "-c", enter], capture_output=True, text=True, cwd=unstarted.folder, env=environment("pids"), timeout=60, check=False
    )
    assert done.returncode == 1, done
    assert "bug of Mainstay" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "cannot_start" in line]
    assert "can't start new thread: the host, this user or this unit has all the processes that it may have" in line
    assert "TasksMax=" in line


# ---------------------------------------------------------------- the history


def test_a_history_of_a_newer_mainstay_is_left_alone(make) -> None:
    mainstay = make(JOB)
    mainstay.start()
    mainstay.run_job("one")
    assert mainstay.stop() == 0
    path = mainstay.state / "history.db"
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version = 999")
        base.execute("UPDATE meta SET value = '999' WHERE key = 'schema'")
    base.close()
    before = path.read_bytes()
    assert mainstay.launch().wait(30) == 1
    (said,) = mainstay.log_events("cannot_start")
    assert "newer" in said["error"]
    assert str(path) in said["error"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("garbage", [b"this is no database at all\n" * 1000, b"", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_garbage_history_is_set_aside_and_supervision_goes_on(make, garbage: bytes) -> None:
    mainstay = make(JOB)
    mainstay.state.mkdir(mode=0o711)
    (mainstay.state / "history.db").write_bytes(garbage)
    mainstay.start()
    assert mainstay.run_job("one")["outcome"] == "succeeded"
    if garbage:
        assert mainstay.log_events("history_set_aside")
        aside = [entry for entry in mainstay.state.iterdir() if entry.name.startswith("history.db.") and entry.read_bytes() == garbage]
        assert aside, list(mainstay.state.iterdir())
        mainstay.wait_for_metric('mainstay_store_errors_total{operation="open"}', 1)


def test_a_history_that_breaks_under_a_run_does_not_mix_old_records_into_new_runs(make) -> None:
    """Both halves die, an exit record is left, and the history is lost: a new run must not be judged by the old one's record."""
    mainstay = make("jobs:\n  svc: {command: [sleep, '1000'], limits: {time: 1h}}\n")
    (mainstay.state / "exits").mkdir(parents=True)
    record = '{"key": "1.1", "pid": 1, "code": 7, "signal": null, "started_mono": 1, "started_wall": 1, "ended_mono": 2, "ended_wall": 2}'
    (mainstay.state / "exits" / "1.1.json").write_text(record)
    mainstay.start()
    mainstay.wait_for(lambda: not list((mainstay.state / "exits").iterdir()), "that the record goes")
    job = mainstay.wait_for_state("svc", "running")
    assert job["last"] is None
    assert job["failures_in_row"] == 0
    assert job["runs"][0]["attempt"] == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 5}', '{"key": "../../x"}', '{"key": "9.9"}', "\udcff"])
def test_broken_exit_records_do_not_keep_it_from_starting(make, text: str) -> None:
    mainstay = make(JOB)
    (mainstay.state / "exits").mkdir(parents=True)
    (mainstay.state / "exits" / "9.9.json").write_bytes(text.encode(errors="surrogateescape"))
    (mainstay.state / "exits" / "8.8.json.tmp").write_bytes(b'{"key": "8')
    mainstay.start()
    assert mainstay.run_job("one")["outcome"] == "succeeded"


def test_a_history_that_somebody_else_has_locked_does_not_stop_the_jobs(make) -> None:
    mainstay = make("jobs:\n  one: {shell: 'exit 3', schedule: manual, restart: {when: never}}\n").start()
    mainstay.run_job("one")
    blocker = sqlite3.connect(mainstay.state / "history.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        mainstay.post("/jobs/one/trigger")
        mainstay.wait_for(lambda: mainstay.log_events("history_not_written"), "that it says so")
    finally:
        blocker.close()
    wait_for(lambda: mainstay.job("one")["failures_in_row"] == 2, "the second end")
    mainstay.run_job("one")
    assert [row["outcome"] for row in mainstay.runs("one")] == ["failed"] * 3
    mainstay.wait_for(lambda: mainstay.log_events("history_written_again"), "that it goes on")
    assert [row["outcome"] for row in mainstay.runs("one")] == ["failed"] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory that is a file system of 3 MiB."""
    folder = tmp_path / "state"
    folder.mkdir()
    options = "size=3m,mode=711"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "mainstay-test", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_by_status_and_healthz_and_why_knows_the_cause(small_disk: Path) -> None:
    never = "restart: {when: on-failure, backoff: {first: 1h, factor: 1, max: 1h, jitter: 0%}}"
    mainstay = Mainstay(small_disk.parent, f"jobs:\n  nightly: {{command: ['true'], schedule: manual, {never}}}\n")
    try:
        mainstay.start()
        assert mainstay.status()["daemon"]["history_behind"] is None
        assert "history" not in mainstay.cli("status").stdout
        with contextlib.suppress(OSError), open(small_disk / "filling", "wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        mainstay.post("/jobs/nightly/trigger")
        mainstay.wait_for_state("nightly", "backing_off")
        behind = mainstay.status()["daemon"]["history_behind"]
        assert behind["rows"] > 0
        assert "disk is full" in behind["error"]
        status, words = mainstay.http("/healthz")
        assert (status, json.loads(words)["ok"]) == (200, True), "a restart would lose what waits in memory"
        assert "the history is not written: " in words
        assert "disk is full" in words
        assert "the history is not written since " in mainstay.cli("status").stdout.splitlines()[1]
        for words in (["why"], ["why", "nightly"], ["why", "1"]):
            done = mainstay.cli(*words)
            assert done.stdout.startswith("nightly run 1, attempt 1: LAUNCH_FAILED\n"), done
            assert "No space left on device" in " ".join(done.stdout.split())
        assert mainstay.cli("runs", "nightly").stdout.splitlines()[1].split()[:2] == ["1", "nightly"]
        (small_disk / "filling").unlink()
        mainstay.wait_for(lambda: mainstay.status()["daemon"]["history_behind"] is None, "room is found")
        assert mainstay.log_events("history_written_again")
        assert mainstay.cli("why", "nightly").stdout.startswith("nightly run 1, attempt 1: LAUNCH_FAILED\n")
    finally:
        (small_disk / "filling").unlink(missing_ok=True)
        mainstay.close()


# ---------------------------------------------------------------- jobs


def test_a_job_that_cannot_start_is_launch_failed_with_the_reason(make) -> None:
    mainstay = make("{}")
    (mainstay.folder / "plain").write_text("not a program")
    never = "schedule: manual, restart: {when: never}"
    mainstay.write_config(
        f"jobs:\n  none: {{command: [/no/such/program], {never}}}\n  plain: {{command: [./plain], {never}}}\n"
        f"  folder: {{command: ['true'], directory: /no/such/folder, {never}}}\n"
    )
    mainstay.start()
    for job, says in {
        "none": "cannot execute '/no/such/program': No such file or directory",
        "plain": "cannot execute './plain': Permission denied",
        "folder": "cannot enter the directory '/no/such/folder': No such file or directory",
    }.items():
        run = mainstay.run_job(job)
        assert run["outcome"] == "launch_failed", job
        assert says in run["summary"], run
        assert says in " ".join(mainstay.cli("why", job).stdout.split())
        assert "kept" not in mainstay.cli("why", job).stdout, "there is no output of what never ran"
