"""What a command says of a daemon that runs and does not answer, or is not where the file says: never that there is none."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import PROGRAM, Mainstay, alive, environment, wait_for
from otheruser import as_nobody

from supervisor import client, keepers

Begin = Callable[..., "subprocess.Popen[str]"]

JOBS = r"""
jobs:
  svc: {command: [sleep, '1000'], limits: {time: 30d}}
  slow: {shell: "trap '' TERM; echo deaf; while :; do sleep 0.1; done", schedule: manual, stop: {grace: 6s}}
  ticks: {shell: 'n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done', schedule: manual}
  gated: {shell: 'echo waits; until [ -e gate ]; do sleep 0.1; done; exit 3', schedule: manual, restart: {when: never}}
  calm: {command: [sleep, '1000'], schedule: manual, limits: {time: 30s}, alerts: {to: [ops]}}
receivers:
  ops: {type: command, command: ['true']}
"""


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    daemon = Mainstay(tmp_path_factory.mktemp("reach"), JOBS)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes to be let go at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if alive([pid]):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def begin() -> Iterator[Begin]:
    """``begin(mainstay, *words)``: a command that goes on while the test does something to the daemon."""
    begun: list[subprocess.Popen[str]] = []

    def one(mainstay: Mainstay, *words: str) -> "subprocess.Popen[str]":
        command = [*PROGRAM, "-c", str(mainstay.config), *words]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment("reach")))
        return begun[-1]

    yield one
    for process in begun:
        process.kill()
        process.communicate(timeout=20)


def kill_brain(mainstay: Mainstay) -> int:
    """As by the OOM killer; the pid of the one that was."""
    brain = mainstay.brain_pid
    os.kill(brain, signal.SIGKILL)
    return brain


# ---------------------------------------------------------------- standing still


def test_a_brain_that_hangs_is_waited_for_and_said(mainstay: Mainstay, stopped: list[int]) -> None:
    brain = mainstay.brain_pid
    os.kill(brain, signal.SIGSTOP)
    stopped.append(brain)
    done = mainstay.cli("status", "--json")
    assert (done.returncode, done.stderr) == (0, f"mainstay: waiting for the daemon at {mainstay.socket}\n"), done
    assert json.loads(done.stdout)["daemon"]["pid"] != brain


def test_a_keeper_that_was_stopped_is_named_with_what_lets_it_go_on(mainstay: Mainstay, stopped: list[int]) -> None:
    brain, keeper = mainstay.brain_pid, mainstay.keeper_pid
    for pid in (keeper, brain):
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)
    done = mainstay.cli("status")
    assert (done.returncode, done.stdout) == (69, ""), done
    assert f"the daemon at {mainstay.socket} does not answer: its keeper (pid {keeper}) was stopped by a signal" in done.stderr, done
    assert f"`kill -CONT {keeper}`" in done.stderr
    assert "no daemon" not in done.stderr
    assert "start it" not in done.stderr


def test_a_daemon_that_says_nothing_in_time_is_said_to_run(mainstay: Mainstay, stopped: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    brain, keeper = mainstay.brain_pid, mainstay.keeper_pid
    monkeypatch.setattr(client, "NOTICE_S", 0.1)
    os.kill(brain, signal.SIGSTOP)
    stopped.append(brain)
    asked = client.Client(mainstay.socket, 1.0)
    with pytest.raises(client.NoDaemonError, match=rf"does not answer: its keeper \(pid {keeper}\) runs; its log says"):
        asked.get("/status")


# ---------------------------------------------------------------- somebody else's


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
def test_another_user_is_told_whose_daemon_it_is(open_folder: Path) -> None:
    folder = open_folder / "d"
    folder.mkdir(mode=0o755)
    daemon = Mainstay(folder, JOBS)
    try:
        daemon.start()
        daemon.config.chmod(0o644)
        done = as_nobody(open_folder, "-c", str(daemon.config), "status")
        assert (done.returncode, done.stdout) == (69, ""), done
        assert done.stderr == (
            f"mainstay: the daemon's socket {daemon.socket} belongs to root (uid 0), and uid 65534 may not open it; ask as that user, or with sudo\n"
        )
        daemon.config.chmod(0o600)  # the file neither: the keeper's command line says where it is
        done = as_nobody(open_folder, "-c", str(daemon.config), "status")
        assert (done.returncode, done.stdout) == (69, ""), done
        assert "belongs to root (uid 0)" in done.stderr.splitlines()[-1], done
    finally:
        daemon.close()


# ---------------------------------------------------------------- the file says something else


def test_an_edited_state_dir_and_a_file_that_is_gone_hide_nobody(mainstay: Mainstay) -> None:
    text = mainstay.config.read_text()
    try:
        mainstay.config.write_text(text.replace("state_dir: state", "state_dir: elsewhere"))
        done = mainstay.cli("reload")
        assert done.returncode == 0, done
        assert "at the next start: supervisor.state_dir" in done.stdout
        assert mainstay.cli("status", "svc").returncode == 0
        mainstay.config.unlink()
        done = mainstay.cli("status")
        assert done.returncode == 0, done
        assert "svc" in done.stdout
        assert "does not exist" in done.stderr
    finally:
        mainstay.config.write_text(text)
        mainstay.config.chmod(0o600)
    assert mainstay.cli("reload").returncode == 0


def test_the_default_config_that_is_gone_hides_nobody_either(mainstay: Mainstay) -> None:
    text = mainstay.config.read_text()
    mainstay.config.unlink()
    try:
        done = subprocess.run([*PROGRAM, "status"], cwd=mainstay.folder, capture_output=True, text=True, timeout=40, check=False)
    finally:
        mainstay.config.write_text(text)
        mainstay.config.chmod(0o600)
    assert done.returncode == 0, done
    assert "svc" in done.stdout


# ---------------------------------------------------------------- a brain that is replaced


def test_logs_f_goes_on_with_the_next_brain(mainstay: Mainstay, begin: Begin) -> None:
    assert mainstay.cli("trigger", "ticks").returncode == 0
    follower = begin(mainstay, "logs", "ticks", "-f", "-n", "1")
    try:
        assert follower.stdout is not None
        last = int(follower.stdout.readline().split()[1])
        for _ in range(2):
            brain = kill_brain(mainstay)
            wait_for(lambda brain=brain: mainstay.brain_pid != brain, "the next brain")
            said = int(mainstay.ask("/jobs/ticks/logs", n=1)["text"].split()[1])
            while last < said:
                line = follower.stdout.readline()
                assert line == f"tick {last + 1}\n", (line, follower.poll())
                last += 1
    finally:
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=20)
        mainstay.cli("stop", "ticks")
    assert (follower.returncode, err.replace(f"mainstay: waiting for the daemon at {mainstay.socket}\n", "")) == (130, "")


def test_a_stop_that_waits_goes_on_with_the_next_brain(mainstay: Mainstay, begin: Begin) -> None:
    assert mainstay.cli("trigger", "slow").returncode == 0
    mainstay.wait_for(lambda: "deaf" in mainstay.ask("/jobs/slow/logs")["text"], "its trap")
    waiting = begin(mainstay, "stop", "slow")
    mainstay.wait_for_state("slow", "stopping")
    kill_brain(mainstay)
    out, err = waiting.communicate(timeout=40)
    assert waiting.returncode == 0, (out, err)
    assert "ended: stopped" in out


def test_a_trigger_that_waits_goes_on_with_the_next_brain(mainstay: Mainstay, begin: Begin) -> None:
    waiting = begin(mainstay, "trigger", "gated", "--wait")
    mainstay.wait_for(lambda: "waits" in mainstay.ask("/jobs/gated/logs")["text"], "its start")
    brain = kill_brain(mainstay)
    mainstay.wait_for(lambda: mainstay.brain_pid != brain, "the next brain")
    (mainstay.folder / "gate").touch()
    out, err = waiting.communicate(timeout=40)
    assert waiting.returncode == 1, (out, err)
    assert " ended: failed: It ended with exit code 3 after " in out


def test_a_drill_whose_brain_is_replaced_is_said_to_be_cut_short(mainstay: Mainstay, begin: Begin) -> None:
    drilling = begin(mainstay, "drill", "calm", "--fault", "hang")
    mainstay.wait_for(lambda: "drill.calm" in {one["name"] for one in mainstay.status()["jobs"]}, "the stand-in")
    kill_brain(mainstay)
    out, err = drilling.communicate(timeout=60)
    assert drilling.returncode == 1, (out, err)
    assert "was cut short" in err.splitlines()[-1], err
    assert "no daemon" not in err


def test_a_daemon_that_has_ended_is_not_waited_for_and_the_hint_names_the_config(tmp_path: Path, begin: Begin) -> None:
    daemon = Mainstay(tmp_path, JOBS)
    try:
        daemon.start()
        assert keepers.keeper_of(str(daemon.state)) == keepers.RunningKeeper(
            daemon.keeper_pid, str(daemon.config), str(daemon.state), is_stopped=False
        )
        assert daemon.cli("trigger", "ticks").returncode == 0
        follower = begin(daemon, "logs", "ticks", "-f")
        assert follower.stdout is not None
        assert follower.stdout.readline().startswith("tick ")
        assert daemon.stop() == 0
        _, err = follower.communicate(timeout=20)
        assert follower.returncode == 69
        assert f"start it with `mainstay -c {daemon.config} run`" in err, err
    finally:
        daemon.close()
    began = time.monotonic()
    assert daemon.cli("status").returncode == 69
    assert time.monotonic() - began < client.AGAIN_S, "it waited for nobody"
    assert keepers.keeper_of(str(daemon.state)) is None


@contextlib.contextmanager
def answering(path: str, answer: bytes) -> Iterator[list[bytes]]:
    """One that says *answer* to the first who asks at *path*; what it was asked."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer_one() -> None:
            connection, _ = listener.accept()
            heard.append(connection.recv(65536))
            connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=answer_one)
        thread.start()
        yield heard
        thread.join(10)


def test_a_daemon_that_is_overwhelmed_is_not_absent(tmp_path: Path) -> None:
    body = b'{"error": "too much to do", "mend": "ask again"}'
    head = b"HTTP/1.1 503 Busy\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    path = str(tmp_path / "mainstay.sock")
    with answering(path, head + body), pytest.raises(client.NoDaemonError) as caught:
        client.find(str(tmp_path / "config.yaml"), str(tmp_path))
    assert str(caught.value) == f"the daemon at {path} does not say what it runs: too much to do\nask again"


def test_a_change_that_was_cut_off_is_not_asked_for_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "mainstay.sock")
    said = r"went away before it answered .*`mainstay status` shows whether it was done"
    with answering(path, b"") as heard, pytest.raises(client.NoDaemonError, match=said):
        client.Client(path).post("/jobs/one/trigger")
    assert len(heard) == 1
