"""What bounds the keeper when things go wrong inside it: one chain of timers, guarded handlers, whole records, the signals of a child."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import proctree
from supervisor.keeper import cgroup, ending, loop
from supervisor.keeper.attempt import Attempt
from supervisor.keeper.guardian import KEEPER_DIED
from supervisor.keeper.launch import Child, Plan
from supervisor.keeper.loop import Keeper
from supervisor.keeper.records import Records

UNKILLABLE = 2**22 + 1  # above the largest pid that the kernel gives: nobody is hit by mistake


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(str(tmp_path), ["/bin/false"])


@pytest.fixture
def attempt(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """An attempt of that keeper whose tree never ends."""
    monkeypatch.setattr(proctree, "kill_round", lambda _roots: {UNKILLABLE})
    held = Attempt("1.1", Plan(["x"], {}, "/"), Child(UNKILLABLE, -1), 0.0, 0.0)
    keeper._attempts[held.key] = held
    return held


def timers(keeper: Keeper) -> int:
    return len(keeper._timers)


def test_many_requests_to_kill_are_one_chain_of_rounds(keeper: Keeper, attempt: Attempt) -> None:
    for _ in range(100):
        keeper._kill({"key": "1.1", "reason": "memory"})
    assert timers(keeper) == 1
    keeper._clear(attempt)  # as the exit of the main process does
    assert timers(keeper) == 1


def test_rounds_come_ever_more_slowly(keeper: Keeper, attempt: Attempt) -> None:
    paces = []
    for _ in range(10):
        keeper._clear(attempt)
        paces.append(attempt.clear_pace_s)
    assert paces[0] == ending.CLEAR_EVERY_S
    assert paces == sorted(paces)
    assert paces[-1] == ending.CLEAR_SLOWEST_S


@pytest.mark.usefixtures("attempt")
def test_giving_up_is_one_chain_however_often_it_is_asked_for(keeper: Keeper) -> None:
    for _ in range(50):
        keeper._ask_to_stop()
    ours = timers(keeper)
    for _ in range(50):
        keeper._ask_to_stop()
        keeper._end_all()
    assert timers(keeper) == ours


@pytest.mark.usefixtures("attempt")
def test_what_cannot_be_killed_is_named_and_left(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "CLEAR_FOR_S", 0.1)
    monkeypatch.setattr(ending, "CLEAR_FOR_S", 0.1)
    monkeypatch.setattr(loop, "STOP_MARGIN_S", 0.1)
    keeper._end_all()
    for _ in range(10_000):
        if keeper._exit_code is not None:
            break
        keeper._round()
    assert keeper._exit_code == 1
    assert str(UNKILLABLE) in capfd.readouterr().err


def test_a_handler_and_a_timer_that_fail_are_said_and_the_loop_goes_on(keeper: Keeper, capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    reached = []

    def fail(_events: int = 0) -> None:
        raise OSError(28, "No space left on device")

    try:
        keeper._watch(read, fail)
        keeper._every(0.0, fail)
        os.write(write, b"x")
        keeper._after(0.0, lambda: reached.append("the next"))
        keeper._round()
        keeper._round()
    finally:
        os.close(read)
        os.close(write)
    said = capfd.readouterr().err
    assert said.count("keeper_handler_failed") >= 2 or said.count("keeper handler failed") >= 2
    assert "No space left" in said
    assert reached == ["the next"]
    assert timers(keeper) == 1  # the repeating one is still set


def test_a_message_that_is_too_large_to_send_ends_nobody(keeper: Keeper, capfd: pytest.CaptureFixture[str]) -> None:
    keeper._brain._sock, other = socket.socketpair()
    with other, keeper._brain._sock:
        keeper._send({"op": "ended", "record": "x" * (17 * 2**20)})
    assert "larger than" in capfd.readouterr().err


def test_a_record_that_was_written_in_part_is_trouble_and_is_kept_in_memory(tmp_path: Path) -> None:
    records = Records(str(tmp_path), "boot")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        trouble = records.write({"key": "1.1", "launch_error": "x" * 200})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert trouble is not None
    assert records.get("1.1") is not None
    assert not (tmp_path / "exits" / "1.1.json").exists()
    assert records.write({"key": "1.1", "launch_error": "y"}) is None
    assert json.loads((tmp_path / "exits" / "1.1.json").read_text())["launch_error"] == "y"


STARTER = """
import os, signal, sys
sys.path[:0] = {path!r}
from supervisor.keeper import launch
child = launch.fork_child(launch.Plan(["cat", "/proc/self/status"], dict(os.environ), "/"), own_session={own!r})
os.waitpid(child.pid, 0)
"""


@pytest.mark.parametrize(("own_session", "kept"), [(False, {signal.SIGHUP, signal.SIGUSR1}), (True, set())])
def test_nohup_stays_nohup_for_a_command_in_our_session_and_no_job_sees_it(own_session: bool, kept: set[signal.Signals]) -> None:
    def as_nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    script = STARTER.format(path=sys.path, own=own_session)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30, preexec_fn=as_nohup)
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    ignored = int(status["SigIgn"], 16)
    assert {number for number in signal.valid_signals() if ignored >> (number - 1) & 1} == kept


NO_PROCESS = """
import errno, os, sys
from supervisor.keeper.guardian import guard
def fork():
    raise OSError(getattr(errno, sys.argv[1]), os.strerror(getattr(errno, sys.argv[1])))
os.fork = fork
sys.exit(guard(lambda: 0))
"""


@pytest.mark.parametrize(("code", "mend"), [("EAGAIN", "TasksMax="), ("ENOMEM", "no memory left"), ("ENOSYS", "not implemented")])
def test_a_host_without_room_for_the_keeper_is_told_in_one_line(code: str, mend: str) -> None:
    done = subprocess.run([sys.executable, "-c", NO_PROCESS, code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("mainstay: no process for the keeper: ")
    assert mend in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_zombies_without_end_leave_the_loop_its_turn(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def another() -> tuple[int, int, float, int]:
        nonlocal calls
        calls += 1
        return UNKILLABLE, 0, 0.0, 0

    monkeypatch.setattr(proctree, "reap", another)
    keeper._reap()
    assert calls > 1
    assert timers(keeper) == 1  # goes on after the others


def test_a_group_that_was_made_anew_meanwhile_is_not_removed(keeper: Keeper, attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cgroup, "remove", lambda path: bool(asked.append(path)))
    attempt.cgroup = "/jobs/1.1"
    keeper._remove_unused_group("/jobs/1.1", 10)
    assert asked == []
    keeper._remove_unused_group("/jobs/1.2", 10)
    assert asked == ["/jobs/1.2"]
    assert timers(keeper) == 1  # not yet: its last process is to be collected


GUARDED = """
import os, signal, subprocess, sys, time
from supervisor.keeper import launch
from supervisor.keeper.guardian import guard
def keeper():
    launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
    subprocess.Popen(["setsid", "sleep", "1000"], stdout=subprocess.DEVNULL)
    print(os.getpid(), flush=True)
    time.sleep(1000)
    return 0
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execv(sys.executable, [sys.executable, "-c", os.environ["SCRIPT"], "as it is"])
sys.exit(guard(keeper))
"""


@pytest.mark.parametrize("starter", ["as it is", "ignored"])
def test_a_guardian_waits_whatever_its_starter_ignores(starter: str) -> None:
    command = [sys.executable, "-c", GUARDED, starter]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"SCRIPT": GUARDED}
    ) as guardian:
        try:
            os.kill(int(guardian.stdout.readline()), signal.SIGKILL)
            said = guardian.stderr.read()  # until the last of them has gone
            assert guardian.wait(60) == KEEPER_DIED
            assert "1 processes of its jobs were ended with it" in said
        finally:
            guardian.kill()
