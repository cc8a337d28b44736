"""The keeper by its protocol: what it starts, holds, ends and remembers, whatever its brain does."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fakebrain import ABSENT, PATIENCE_S, FakeBrain, Keeper, plan, shell, wait_for

from supervisor import procfs, wire
from supervisor.keeper import brain as brain_module

MakeKeeper = Callable[..., Keeper]


def records(keeper: Keeper) -> list[str]:
    return sorted(os.listdir(keeper.state / "exits"))


# ---------------------------------------------------------------- starting


def test_hello_says_who_the_keeper_is_and_what_it_holds(keeper: Keeper) -> None:
    hello = keeper.brain().hello
    assert hello["version"] == wire.VERSION
    assert hello["keeper_pid"] == keeper.process.pid
    assert hello["boot_id"] == procfs.boot_id()
    assert (hello["restarts"], hello["live"], hello["ended"], hello["cgroup"]) == (0, [], [], None)
    assert hello["epoch"]


def test_a_spawn_that_is_asked_for_twice_starts_one_process_and_is_told_twice(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    asked = shell(f"echo x >> {tmp_path}/starts; exec sleep 1000")
    brain.send(wire.SPAWN, key="1.1", plan=asked)
    first = brain.started("1.1")
    brain.send(wire.SPAWN, key="1.1", plan=asked)
    assert brain.started("1.1") == first
    wait_for((tmp_path / "starts").exists, "its word")
    assert (tmp_path / "starts").read_text() == "x\n"
    stat = procfs.read_stat(first["pid"])
    assert stat is not None
    assert stat.started == first["pid_started"]
    assert (stat.ppid, stat.session, stat.pgrp) == (keeper.process.pid, first["pid"], first["pid"])


def test_a_spawn_of_what_has_ended_is_answered_with_its_record(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    asked = shell(f"echo x >> {tmp_path}/starts; exit 5")
    brain.send(wire.SPAWN, key="1.1", plan=asked)
    record = brain.ended("1.1")
    brain.send(wire.SPAWN, key="1.1", plan=asked)
    assert brain.ended("1.1") == record
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_child_sees_what_the_plan_says_and_nothing_else(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    leak = os.open("/dev/zero", os.O_RDONLY)
    try:
        keeper = make_keeper(
            environment={"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000000", "LISTEN_FDS": "1", "SECRET": "ours"}, pass_fds=[leak]
        )
    finally:
        os.close(leak)
    brain = keeper.brain()
    assert not [name for name in brain.environment if name.startswith(("NOTIFY_", "WATCHDOG_", "LISTEN_"))]
    script = (
        "env -0 | tr '\\0' '\\n' | sort; echo ---; readlink /proc/self/fd/*; echo ---; pwd; umask; nice; ulimit -n; ulimit -Hn; ulimit -c"
    )
    brain.send(
        wire.SPAWN,
        key="1.1",
        plan=plan(
            "/bin/sh",
            "-c",
            script,
            environment={"PATH": os.environ["PATH"], "ONE": "1", "EMPTY": "", "ODD": "a b\nc"},
            directory=str(tmp_path),
            umask=0o27,
            nice=5,
            limits={"NOFILE": [64, 128], "CORE": [0, 0]},
            output=str(tmp_path / "out"),
        ),
    )
    assert brain.ended("1.1")["code"] == 0
    environment, descriptors, rest = (tmp_path / "out").read_text().split("---\n")
    seen = set(environment.splitlines()) - {f"PWD={tmp_path}"}
    assert {line for line in seen if not line.startswith(("PATH=", "_="))} == {"ONE=1", "EMPTY=", "ODD=a b", "c"}
    assert descriptors.splitlines()[0] == "/dev/null"
    assert [line.split(":")[0] for line in descriptors.splitlines()[1:3]] == ["pipe", "pipe"]
    assert len(descriptors.splitlines()) == 3, descriptors
    assert rest.split() == [str(tmp_path), "0027", "5", "64", "128", "0"]


def test_a_child_has_default_signals_whatever_the_keeper_inherited(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    def ignoring() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])

    keeper = make_keeper(preexec_fn=ignoring)
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("cat", "/proc/self/status", output=str(tmp_path / "out")))
    brain.ended("1.1")
    status = dict(line.split(":\t", 1) for line in (tmp_path / "out").read_text().splitlines() if ":\t" in line)
    reserved = 0b11 << 31  # 32 and 33 belong to the C library, which lets nobody set them; some shells hand them on as ignored
    masks = {name: int(status[name], 16) & ~reserved for name in ("SigIgn", "SigBlk", "SigCgt", "SigPnd")}
    assert masks == dict.fromkeys(masks, 0)
    assert status["NoNewPrivs"] == "0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_child_is_who_it_is_to_be(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    brain.send(
        wire.SPAWN, key="1.1", plan=plan("cat", "/proc/self/status", uid=65534, gid=65533, groups=[4, 24], output=str(tmp_path / "out"))
    )
    brain.ended("1.1")
    status = dict(line.split(":\t", 1) for line in (tmp_path / "out").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65533"] * 4
    assert status["Groups"].split() == ["4", "24"]
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0


def test_what_cannot_start_has_a_record_with_the_reason(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("not a program")
    brain = keeper.brain()
    cases = {
        "1.1": (plan("/no/such/program"), "cannot execute '/no/such/program': No such file or directory"),
        "2.1": (plan("no-such-program-anywhere"), "cannot execute 'no-such-program-anywhere': No such file or directory"),
        "3.1": (plan(str(tmp_path / "plain")), f"cannot execute '{tmp_path}/plain': Permission denied"),
        "4.1": (plan("true", directory="/no/such/folder"), "cannot enter the directory '/no/such/folder': No such file or directory"),
        "5.1": (plan("true", limits={"NOFILE": [100, 50]}), "cannot set up limits for 'true': Invalid argument"),
        "6.1": (plan("true\0false"), "cannot execute 'true\\x00false': Invalid argument"),
        "7.1": (plan("x" * 5000), "File name too long"),
        "8.1": (plan("true", "y" * 3_000_000), "cannot execute 'true': Argument list too long"),
    }
    for key, (asked, _) in cases.items():
        brain.send(wire.SPAWN, key=key, plan=asked)
    for key, (_, says) in cases.items():
        record = brain.ended(key)
        assert says in record["launch_error"], key
        assert record["code"] is None
    assert not [message for message in brain.unread if message["op"] == wire.STARTED]


def test_a_plan_of_the_wrong_kind_is_a_failed_launch_and_leaves_no_process(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("sleep", "1000", output=["no", "path"]))  # is seen only after the fork
    brain.send(wire.SPAWN, key="2.1", plan={"argv": ["true"], "no_such_key": 1})
    brain.send(wire.SPAWN, key="3.1", plan=plan())
    for key, says in (("1.1", "cannot watch the process"), ("2.1", "no_such_key"), ("3.1", "argv is empty")):
        record = brain.ended(key)
        assert says in record["launch_error"]
        assert record.get("code") is None
    keeper.assert_only(brain.pid)
    assert not [message for message in brain.unread if message["op"] == wire.STARTED]
    brain.send(wire.SPAWN, key="4.1", plan=plan("true"))
    assert brain.ended("4.1")["code"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change groups")
@pytest.mark.parametrize("asked", [{"gid": 65533}, {"groups": [24]}, {"uid": 65534}])
def test_a_child_with_any_other_identity_gains_no_privileges(keeper: Keeper, tmp_path: Path, asked: dict[str, object]) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("cat", "/proc/self/status", output=str(tmp_path / "out"), **asked))
    brain.ended("1.1")
    assert "NoNewPrivs:\t1" in (tmp_path / "out").read_text()


def test_more_records_than_fit_into_hello_are_told_after_it(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    exits = tmp_path / "state" / "exits"
    exits.mkdir(parents=True)
    for number in range(20):
        (exits / f"{number}.1.json").write_text(json.dumps({"key": f"{number}.1", "launch_error": "x" * 1_000_000}))
    brain = make_keeper().brain()
    told = [record["key"] for record in brain.hello["ended"]]
    assert 10 <= len(told) < 20
    later = [brain.wait(wire.ENDED)["record"]["key"] for _ in range(20 - len(told))]
    assert {*told, *later} == {f"{number}.1" for number in range(20)}


def test_an_environment_that_names_a_younger_attempt_is_not_believed(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    claims = {"PATH": os.environ["PATH"], "MAINSTAY_RUN": "2", "MAINSTAY_ATTEMPT": "1"}
    script = f"(setsid sh -c 'echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000' &); sleep 1000"
    brain.send(wire.SPAWN, key="1.1", plan=shell(script, environment=claims))
    wait_for((tmp_path / "pid").exists, "the orphan")
    orphan = int((tmp_path / "pid").read_text())
    born = procfs.read_stat(orphan)
    assert born is not None
    wait_for(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * procfs.TICKS_PER_S > born.started + 1, "the next tick")
    brain.send(wire.SPAWN, key="2.1", plan=shell("exit 0"))
    assert brain.ended("2.1")["leftovers"] == 0
    assert procfs.read_stat(orphan) is not None


def test_a_plan_that_makes_no_sense_is_said_and_hurts_nobody(keeper: Keeper) -> None:
    brain = keeper.brain()
    for message in (
        {"op": "no-such-op"},
        {"op": wire.SPAWN},
        {"op": wire.SPAWN, "key": "1.1", "plan": {"argv": ["true"], "no_such_key": 1}},
        {"op": wire.SPAWN, "key": "1.1", "plan": "nonsense"},
        {"op": wire.KILL, "key": "9.9", "reason": "stop"},
        {"op": wire.SIGNAL, "key": "9.9", "signal": "TERM"},
        {"op": wire.FORGET, "key": "9.9"},
        {"op": wire.BYE, "code": "many"},
    ):
        brain.send_raw(wire.encode(message))
    brain.send(wire.SPAWN, key="2.1", plan=plan("true"))
    assert brain.ended("2.1")["code"] == 0
    assert "message_unknown" in keeper.log()
    assert "message_unusable" in keeper.log()


# ---------------------------------------------------------------- ending


@pytest.mark.parametrize(
    ("script", "code", "number"), [("exit 0", 0, None), ("exit 137", 137, None), ("kill -KILL $$", None, 9), ("kill -SEGV $$", None, 11)]
)
def test_the_record_has_the_raw_fact(keeper: Keeper, script: str, code: int | None, number: int | None) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell(script))
    record = brain.ended("1.1")
    assert (record["code"], record["signal"], record["killed_for"], record["asked_to_stop"]) == (code, number, None, False)
    assert record["ended_mono"] >= record["started_mono"]
    assert record["launch_error"] is None


def test_a_record_is_on_disk_before_it_is_told_and_stays_until_it_is_taken_over(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper()
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell("exit 7"))
    record = brain.ended("1.1")
    written = json.loads((keeper.state / "exits" / "1.1.json").read_text())
    assert ABSENT | written == record
    brain.die()
    brain = keeper.brain()
    assert brain.hello["ended"] == [written]
    assert brain.hello["restarts"] == 1
    keeper.process.kill()
    keeper.process.wait(PATIENCE_S)
    other = make_keeper()
    brain = other.brain()
    assert brain.hello["ended"] == [written]
    assert brain.hello["restarts"] == 0
    brain.send(wire.FORGET, key="1.1")
    wait_for(lambda: records(other) == [], "that the file goes")
    brain.die()
    assert other.brain().hello["ended"] == []


def test_an_end_that_comes_while_there_is_no_brain_is_told_to_the_next(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell(f"while ! test -e {tmp_path}/go; do sleep 0.01; done; exit 9"))
    live = brain.started("1.1")
    brain.die()
    (tmp_path / "go").touch()
    brain = keeper.brain()
    if brain.hello["ended"]:  # either the end or the new brain comes first
        (record,) = brain.hello["ended"]
    else:
        assert [one["pid"] for one in brain.hello["live"]] == [live["pid"]]
        record = brain.ended("1.1")
    assert (record["key"], record["code"]) == ("1.1", 9)


def test_a_live_attempt_is_told_to_the_next_brain_as_it_was_to_the_first(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="3.2", plan=plan("sleep", "1000"))
    live = brain.started("3.2")
    brain.die()
    brain = keeper.brain()
    assert brain.hello["live"] == [live]
    assert not brain.hello["ended"]


def test_a_stop_reaches_a_job_that_stands_still(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("sleep", "1000"))
    pid = brain.started("1.1")["pid"]
    os.kill(pid, signal.SIGSTOP)
    brain.send(wire.SIGNAL, key="1.1", signal="TERM")
    record = brain.ended("1.1")
    assert (record["signal"], record["asked_to_stop"], record["killed_for"]) == (15, True, None)


# ---------------------------------------------------------------- output


def job_that_writes(size: int) -> str:
    return f"head -c {size} /dev/zero | tr '\\0' x"


def test_output_goes_to_its_file_byte_for_byte_and_is_counted(keeper: Keeper, tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "in").write_bytes(data)
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell(f"cat {tmp_path}/in; echo on stderr >&2", output=str(tmp_path / "out")))
    record = brain.ended("1.1")
    assert (tmp_path / "out").read_bytes() == data + b"on stderr\n"
    assert (record["output_bytes"], record["output_dropped_bytes"]) == (len(data) + 10, 0)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_output_turns_over_and_what_is_lost_by_it_is_counted(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    size = 10_000_000
    brain.send(wire.SPAWN, key="1.1", plan=shell(job_that_writes(size), output=str(tmp_path / "out"), output_max_bytes=1_000_000))
    record = brain.ended("1.1")
    kept = sum((tmp_path / name).stat().st_size for name in ("out", "out.1"))
    assert record["output_bytes"] == size
    assert record["output_bytes"] - record["output_dropped_bytes"] == kept
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.startswith("out")) == ["out", "out.1"]


def test_output_over_the_limit_is_told_at_once_and_dropped_where_that_is_wanted(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    size = 5_000_000
    asked = shell(job_that_writes(size) + "; sleep 1000", output=str(tmp_path / "out"), output_limit_bytes=100_000, output_drop=True)
    brain.send(wire.SPAWN, key="1.1", plan=asked)
    counts = brain.wait(wire.OUTPUT, lambda message: message["counts"]["1.1"][0] == size)["counts"]
    written, dropped = counts["1.1"]
    assert written - dropped == (tmp_path / "out").stat().st_size < 100_000 + 2**20


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small file system of one's own needs root and unshare")
def test_a_full_disk_stops_no_job_and_every_lost_byte_is_counted(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    keeper = make_keeper(prefix=("unshare", "-m", "/bin/sh", "-c", mount, str(small)))
    brain = keeper.brain()
    size = 2_000_000
    script = f"{job_that_writes(size)}; stat -c %s {small}/out > {tmp_path}/kept"
    brain.send(wire.SPAWN, key="1.1", plan=shell(script, output=str(small / "out")))
    record = brain.ended("1.1")
    kept = int((tmp_path / "kept").read_text())
    assert record["code"] == 0
    assert record["output_bytes"] == size
    assert 0 < kept <= 64 * 1024
    assert record["output_dropped_bytes"] == size - kept


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small file system of one's own needs root and unshare")
def test_a_record_that_the_disk_does_not_take_is_told_all_the_same(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    mount = 'mount -t tmpfs -o size=16k tmpfs "$0" && head -c 100000 /dev/zero 2>/dev/null > "$0/full"; exec "$@"'
    keeper = make_keeper(prefix=("unshare", "-m", "/bin/sh", "-c", mount, str(tmp_path / "state")))
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell("exit 6"))
    assert brain.ended("1.1")["code"] == 6
    assert "exit_record_not_written" in keeper.log()
    brain.die()
    assert [one["code"] for one in keeper.brain().hello["ended"]] == [6]


def test_a_log_folder_that_is_gone_stops_no_job(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell(job_that_writes(1000), output=str(tmp_path / "no" / "such" / "out")))
    record = brain.ended("1.1")
    assert (record["code"], record["output_bytes"], record["output_dropped_bytes"]) == (0, 1000, 1000)


def test_a_log_that_is_a_link_is_not_written_through(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").symlink_to(tmp_path / "precious")
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell("echo over", output=str(tmp_path / "out")))
    assert brain.ended("1.1")["output_dropped_bytes"] == 5
    assert (tmp_path / "precious").read_text() == "precious"


# ---------------------------------------------------------------- the brain


def test_a_brain_that_dies_young_again_and_again_is_started_ever_more_slowly(keeper: Keeper) -> None:
    brain = keeper.brain()
    waits = []
    for _ in range(6):  # the first of these deaths is forgiven
        brain.die()
        died = time.monotonic()
        brain = keeper.brain()
        waits.append(time.monotonic() - died)
    assert all(wait >= least for wait, least in zip(waits, [0, 0.1, 0.2, 0.4, 0.8, 1.6], strict=True)), waits
    assert brain.hello["restarts"] == 6


def test_a_brain_that_never_came_up_ends_the_keeper_with_its_own_code(keeper: Keeper) -> None:
    keeper.brain(ready=False).exit(78)
    assert keeper.process.wait(PATIENCE_S) == 78


def test_a_brain_that_ends_by_itself_later_is_replaced(keeper: Keeper) -> None:
    keeper.brain().exit(70)
    assert keeper.brain().hello["restarts"] == 1


def test_a_brain_that_talks_nonsense_is_replaced_and_the_jobs_go_on(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("sleep", "1000"))
    live = brain.started("1.1")
    brain.send_raw(b"\xff\xff\xff\xffnonsense")
    assert keeper.brain().hello["live"] == [live]
    assert "brain_unintelligible" in keeper.log()


def test_sigterm_is_handed_on_and_bye_ends_the_keeper(keeper: Keeper) -> None:
    brain = keeper.brain()
    keeper.process.terminate()
    brain.wait(wire.SHUTDOWN)
    brain.send(wire.BYE, code=0)
    brain.exit(0)
    assert keeper.process.wait(PATIENCE_S) == 0


def test_bye_waits_for_the_brain_to_close_and_its_code_is_the_keepers(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.answers_pings = False  # so that they can be waited for
    brain.send(wire.BYE, code=3)
    brain.wait(wire.PING)  # its rhythm goes on: the keeper is still there
    assert keeper.process.poll() is None
    brain.exit(9)
    assert keeper.process.wait(PATIENCE_S) == 3
    assert "brain_died" not in keeper.log()


def test_a_brain_that_does_not_close_after_its_bye_is_left(keeper: Keeper) -> None:
    keeper.brain().send(wire.BYE, code=0)
    assert keeper.process.wait(PATIENCE_S) == 0
    assert "brain_slow_to_close" in keeper.log()


def test_jobs_that_the_brain_never_asked_are_asked_by_their_own_signal_before_they_are_killed(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    polite = shell(
        f"trap 'echo tidy > {tmp_path}/tidied; exit 4' USR1; echo > {tmp_path}/up; while :; do sleep 0.05; done",
        grace_s=20,
        stop_signal="USR1",
    )
    brain.send(wire.SPAWN, key="1.1", plan=polite)
    brain.started("1.1")
    wait_for((tmp_path / "up").exists, "its trap")
    keeper.process.terminate()
    record = brain.ended("1.1")
    assert (record["code"], record["asked_to_stop"], record["killed_for"]) == (4, True, None)
    assert (tmp_path / "tidied").read_text() == "tidy\n"


def test_a_second_sigterm_kills_at_once(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell("trap '' TERM; while :; do sleep 0.05; done", grace_s=1000.0))
    brain.started("1.1")
    keeper.process.terminate()
    brain.wait(wire.SHUTDOWN)
    keeper.process.terminate()
    assert brain.ended("1.1")["killed_for"] == "stop"
    assert keeper.process.wait(PATIENCE_S) == 0


def test_a_brain_that_is_no_more_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for up to 10 s, and then its silence would be told of, and a process -1 be killed."""
    monkeypatch.setattr(brain_module, "PATIENCE_S", -1.0)
    brain = brain_module.Brain([])
    brain._sock = socket.socket(socket.AF_UNIX)
    brain.hang_up()
    brain.is_ready = True
    assert brain.is_silent()
    brain.ended()
    assert (brain.is_silent(), brain.is_ready) == (False, False)


def test_sighup_is_handed_on_as_reload(keeper: Keeper) -> None:
    brain = keeper.brain()
    keeper.process.send_signal(signal.SIGHUP)
    brain.wait(wire.RELOAD)


def _settled(brain: FakeBrain) -> None:
    """What the keeper had to say by then is said: it answers a SPAWN behind it."""
    brain.send(wire.SPAWN, key="9.9", plan=plan("/nowhere"))
    brain.ended("9.9")


@pytest.mark.parametrize("moment", ["while there is none", "while it comes up", "before the first has done it"])
def test_a_reload_that_no_brain_has_done_is_asked_of_two_and_then_given_up(keeper: Keeper, moment: str) -> None:
    first: FakeBrain = keeper.brain()
    if moment == "before the first has done it":
        keeper.process.send_signal(signal.SIGHUP)
        first.wait(wire.RELOAD)
    os.kill(keeper.process.pid, signal.SIGSTOP)
    first.die()
    if moment == "while there is none":
        keeper.process.send_signal(signal.SIGHUP)
    os.kill(keeper.process.pid, signal.SIGCONT)
    second: FakeBrain = keeper.brain(ready=False)
    if moment == "while it comes up":
        keeper.process.send_signal(signal.SIGHUP)
        _settled(second)
        assert not [message for message in second.unread if message["op"] == wire.RELOAD]
    second.send(wire.READY, status="supervising")
    second.wait(wire.RELOAD)
    _settled(second)
    assert not [message for message in second.unread if message["op"] == wire.RELOAD]
    second.die()
    third: FakeBrain = keeper.brain()
    if moment == "while it comes up":  # the second was the first to be told
        third.wait(wire.RELOAD)
        third.die()
        third = keeper.brain()
    _settled(third)
    assert not [message for message in third.unread if message["op"] == wire.RELOAD]
    assert "reload_given_up" in keeper.log()


def test_a_reload_that_was_asked_for_while_another_went_on_is_not_done_with_that(keeper: Keeper) -> None:
    """What was read for the first may be older than what the second is about."""
    first: FakeBrain = keeper.brain()
    for _ in range(2):
        keeper.process.send_signal(signal.SIGHUP)
        first.wait(wire.RELOAD)
    first.send(wire.RELOADED)
    _settled(first)
    first.die()
    second: FakeBrain = keeper.brain()
    second.wait(wire.RELOAD)
    second.send(wire.RELOADED)
    _settled(second)
    second.die()
    third: FakeBrain = keeper.brain()
    _settled(third)
    assert not [message for message in third.unread if message["op"] == wire.RELOAD]


def test_a_reload_that_was_done_is_not_asked_for_again(keeper: Keeper) -> None:
    first: FakeBrain = keeper.brain()
    keeper.process.send_signal(signal.SIGHUP)
    first.wait(wire.RELOAD)
    first.send(wire.RELOADED)
    _settled(first)
    first.die()
    second: FakeBrain = keeper.brain()
    _settled(second)
    assert not [message for message in second.unread if message["op"] == wire.RELOAD]


def test_a_brain_that_does_not_stop_the_jobs_is_not_waited_for_beyond_their_grace(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=shell("trap '' TERM; while :; do sleep 0.1; done", grace_s=0.2))
    pid = brain.started("1.1")["pid"]
    keeper.process.terminate()
    brain.wait(wire.SHUTDOWN)
    assert keeper.process.wait(PATIENCE_S) == 0
    assert procfs.read_stat(pid) is None
    record = json.loads((keeper.state / "exits" / "1.1.json").read_text())
    assert (record["killed_for"], record["signal"]) == ("stop", 9)


def test_a_brain_started_while_stopping_is_told_to_stop(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("sleep", "1000", grace_s=PATIENCE_S))
    brain.started("1.1")
    keeper.process.terminate()
    brain.wait(wire.SHUTDOWN)
    brain.die()
    following: FakeBrain = keeper.brain()
    following.wait(wire.SHUTDOWN)
    following.send(wire.SIGNAL, key="1.1", signal="TERM")
    following.ended("1.1")
    following.send(wire.BYE, code=0)
    following.exit(0)
    assert keeper.process.wait(PATIENCE_S) == 0


def test_the_death_of_the_keeper_kills_brain_and_main_processes(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=plan("sleep", "1000"))
    pid = brain.started("1.1")["pid"]
    keeper.process.kill()
    keeper.process.wait(PATIENCE_S)

    def gone(one: int) -> bool:
        stat = procfs.read_stat(one)
        return stat is None or stat.state in "ZX"

    wait_for(lambda: gone(pid) and gone(brain.pid), "the end of both")


def test_two_hundred_short_children_are_each_told_once(keeper: Keeper) -> None:
    brain = keeper.brain()
    count = 200
    for number in range(count):
        brain.send(wire.SPAWN, key=f"{number}.1", plan=plan("/bin/true"))
    codes = [brain.ended(f"{number}.1")["code"] for number in range(count)]
    assert codes == [0] * count
    for number in range(count):
        brain.send(wire.FORGET, key=f"{number}.1")
    wait_for(lambda: not records(keeper), "that all are forgotten")
    assert not [one for one in brain.unread if one["op"] == wire.ENDED]
    descriptors = len(os.listdir(f"/proc/{keeper.process.pid}/fd"))
    assert descriptors < 20, "descriptors leak"


def test_out_of_processes_is_a_record_and_not_the_end(make_keeper: MakeKeeper) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (17, 17))

    keeper = make_keeper(preexec_fn=few)
    brain = keeper.brain()
    for number in range(10):
        brain.send(wire.SPAWN, key=f"{number}.1", plan=plan("sleep", "1000"))
    refused = brain.wait(wire.ENDED)["record"]
    assert "Too many open files" in refused["launch_error"]
    brain.send(wire.KILL, key="0.1", reason="stop")
    assert brain.ended("0.1")["killed_for"] == "stop"


def test_the_keeper_needs_no_more_than_the_standard_library() -> None:
    script = "import sys, supervisor.keeper.loop, supervisor.keeper.guardian; print(sorted(name for name in sys.modules if name.split('.')[0] in ('yaml', 'msgspec', 'structlog', 'psutil', 'uvicorn', 'starlette', 'asyncio', 'sqlite3')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout.strip() == "[]"


def test_a_brain_that_closes_its_socket_and_does_not_end_is_replaced(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.close_socket()
    assert keeper.brain().pid != brain.pid
    wait_for(lambda: procfs.read_stat(brain.pid) is None, "that the old one is gone")
