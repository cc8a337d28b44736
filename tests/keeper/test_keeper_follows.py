"""An attempt that the keeper begins by itself: when it may, when it may not, and that it is a child like any other."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakebrain import PATIENCE_S, FakeBrain, Keeper, plan, shell, wait_for

from supervisor import procfs, wire
from supervisor.keeper import held, launch
from supervisor.keeper.records import Records

MakeKeeper = Callable[..., Keeper]
LASTING = shell("exec sleep 1000")


def waiting(keeper: Keeper) -> list[int]:
    """The children that are held."""
    return [
        stat.pid
        for stat in keeper.children()
        if not stat.is_dead and (procfs.read_file(f"/proc/{stat.pid}/cmdline") or b"").startswith(b"mainstay-held")
    ]


def armed(
    keeper: Keeper, brain: FakeBrain, first: dict[str, Any], then: dict[str, Any], *, not_after: tuple[int, ...] = ()
) -> dict[str, Any]:
    """1.1 runs and 1.2 waits behind it; what was told of 1.1."""
    brain.send(wire.SPAWN, key="1.1", plan=first)
    started = brain.started("1.1")
    brain.send(wire.ARM, key="1.2", after="1.1", plan=then, not_after=list(not_after))
    wait_for(lambda: waiting(keeper), "a child that is held")
    return started


def heard(keeper: Keeper, brain: FakeBrain) -> list[tuple[str, str]]:
    """What was told until now, (op, key): a spawn that fails is the last of it."""
    brain.send(wire.SPAWN, key="9.1", plan=plan("/nonexistent"))
    brain.ended("9.1")
    said = [
        (message["op"], (message.get("record") or message.get("attempt"))["key"])
        for message in brain.unread
        if message["op"] in (wire.STARTED, wire.ENDED)
    ]
    assert not waiting(keeper)
    return said


def test_what_waits_begins_at_once_when_the_one_before_it_ends_and_the_record_says_so(keeper: Keeper) -> None:
    brain = keeper.brain()
    first = armed(keeper, brain, LASTING, LASTING)
    (held_pid,) = waiting(keeper)
    os.kill(first["pid"], signal.SIGKILL)
    record = brain.ended("1.1")
    assert (record["signal"], record["next"]) == (9, "1.2")
    second = brain.started("1.2")
    assert second["pid"] == held_pid
    assert second["started_mono"] >= record["ended_mono"]
    brain.send(wire.FORGET, key="1.1")
    brain.send(wire.KILL, key="1.2", reason="stop")
    assert "next" not in brain.ended("1.2")


def test_a_child_that_was_held_sees_what_any_other_sees(keeper: Keeper, tmp_path: Path) -> None:
    script = (
        "tr '\\0' '\\n' < /proc/$$/environ | sort; readlink /proc/self/fd/*; pwd; umask; nice; ulimit -a; grep -E '^(Sig[BIC]|NoNew|Uid|Gid|Groups)' /proc/self/status;"
        " ps -o pgid=,sid= -p $$ | tr -s ' ' '\\n' | sed s/^$$\\$/own/; cat /proc/self/oom_score_adj; kill -9 $$"
    )
    common: dict[str, Any] = {
        "environment": {"PATH": os.environ["PATH"], "ODD": "a b\nc", "EMPTY": "", "not.a.name": "kept"},
        "directory": str(tmp_path),
        "umask": 0o27,
        "nice": 5,
        "limits": {"NOFILE": [64, 128], "CORE": [0, 0]},
        "oom_score_adj": 100,
    }
    asked = [plan("sh", "-c", "read _ < " + str(tmp_path / "go") + "; " + script, **common, output=str(tmp_path / name)) for name in "ab"]
    os.mkfifo(tmp_path / "go")
    brain = keeper.brain()
    armed(keeper, brain, asked[0], asked[1])
    for key in ("1.1", "1.2"):
        with open(tmp_path / "go", "w") as go:
            go.write("\n")
        assert brain.ended(key)["signal"] == 9
    texts = [[line for line in (tmp_path / name).read_text().splitlines() if not line.startswith("pipe:")] for name in "ab"]
    assert texts[0] == texts[1]
    assert "not.a.name=kept" in texts[0]


def test_what_follows_and_ends_at_once_has_its_output_and_its_record(keeper: Keeper, tmp_path: Path) -> None:
    """It may have ended before the keeper has come round to holding it."""
    brain = keeper.brain()
    for run in range(50):
        output = tmp_path / f"{run}.out"
        brain.send(wire.SPAWN, key=f"{run}.1", plan=LASTING)
        first = brain.started(f"{run}.1")
        following = plan("/bin/echo", "a last word", output=str(output))
        brain.send(wire.ARM, key=f"{run}.2", after=f"{run}.1", plan=following, not_after=[])
        wait_for(lambda: waiting(keeper), "a child that is held")
        os.kill(first["pid"], signal.SIGKILL)
        assert brain.ended(f"{run}.1")["next"] == f"{run}.2"
        second = brain.ended(f"{run}.2")
        assert (second["code"], second["output_bytes"]) == (0, len("a last word\n"))
        assert second["pid_started"] >= first["pid_started"]
        assert output.read_text() == "a last word\n"


@pytest.mark.parametrize(
    "disturb",
    [
        lambda brain: brain.send(wire.SIGNAL, key="1.1", signal="TERM"),
        lambda brain: brain.send(wire.KILL, key="1.1", reason="memory"),
    ],
    ids=["asked to stop", "killed"],
)
def test_nothing_follows_an_end_that_somebody_wanted(keeper: Keeper, disturb: Callable[[FakeBrain], None]) -> None:
    brain = keeper.brain()
    armed(keeper, brain, LASTING, LASTING)
    disturb(brain)
    assert "next" not in brain.ended("1.1")
    assert heard(keeper, brain) == []


@pytest.mark.parametrize(("op", "more"), [(wire.SIGNAL, {"signal": "TERM"}), (wire.KILL, {"reason": "stop"})])
def test_nothing_follows_an_end_that_somebody_wanted_while_what_it_left_was_still_being_ended(
    keeper: Keeper, op: str, more: dict[str, str]
) -> None:
    brain = keeper.brain()
    # An orphan without an environment is asked for a quarter of a second whose it is.
    first = armed(keeper, brain, shell("env -i setsid sleep 5 & sleep 0.2; kill -9 $$"), LASTING)
    wait_for(lambda: (stat := procfs.read_stat(first["pid"])) is None or stat.is_dead, "that its main process has ended")
    brain.send(op, key="1.1", **more)
    assert "next" not in brain.ended("1.1")
    assert heard(keeper, brain) == []


def free_numbers(keeper: Keeper) -> list[int]:
    """Of descriptors, as the keeper would take them."""
    taken = set(map(int, os.listdir(f"/proc/{keeper.process.pid}/fd")))
    return [number for number in range(500) if number not in taken]


def allow(keeper: Keeper, descriptors: int) -> None:
    hard = resource.prlimit(keeper.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(keeper.process.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def test_a_leave_for_which_there_are_no_descriptors_costs_none(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    for missing in range(10):
        before = len(free_numbers(keeper))
        brain.send(wire.SPAWN, key=f"{missing}.1", plan=LASTING | {"output": str(tmp_path / "out")})
        started = brain.started(f"{missing}.1")
        allow(keeper, free_numbers(keeper)[missing])
        brain.send(wire.ARM, key=f"{missing}.2", after=f"{missing}.1", plan=LASTING, not_after=[])
        brain.send(wire.SPAWN, key="again", plan=plan("/nonexistent"))  # its answer says that the one before it was obeyed
        brain.ended("again")
        brain.send(wire.FORGET, key="again")
        allow(keeper, 500)
        brain.send(wire.DISARM, after=f"{missing}.1")
        os.kill(started["pid"], signal.SIGKILL)
        brain.ended(f"{missing}.1")
        brain.send(wire.FORGET, key=f"{missing}.1")
        wait_for(lambda before=before: len(free_numbers(keeper)) == before, "that its descriptors are free again")  # type: ignore[misc]


def test_a_record_that_was_told_is_on_disk_although_there_is_no_descriptor_left(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    brain.send(wire.SPAWN, key="1.1", plan=LASTING | {"output": str(tmp_path / "out")})
    started = brain.started("1.1")
    allow(keeper, free_numbers(keeper)[0])
    os.kill(started["pid"], signal.SIGKILL)
    brain.ended("1.1")
    assert (keeper.state / "exits" / "1.1.json").exists()
    assert "exit_record_not_written" not in keeper.log()


def test_a_tree_is_ended_although_there_is_no_descriptor_left(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    environment = {"PATH": os.environ["PATH"], "MAINSTAY_RUN": "1", "MAINSTAY_ATTEMPT": "1"}
    script = f"setsid sleep 1000 & echo $! > {tmp_path}/orphan; exec sleep 1000"
    brain.send(wire.SPAWN, key="1.1", plan=shell(script, environment=environment))
    brain.started("1.1")
    wait_for(lambda: (tmp_path / "orphan").exists() and (tmp_path / "orphan").read_text(), "the other process")
    allow(keeper, free_numbers(keeper)[0])
    brain.send(wire.KILL, key="1.1", reason="memory")
    record = brain.ended("1.1")
    assert (record["killed_for"], record["signal"], record["unkillable"]) == ("memory", 9, [])
    wait_for(lambda: [stat.pid for stat in keeper.children()] == [brain.pid], "that nothing is left")


def test_nothing_follows_where_the_leave_was_taken_back(keeper: Keeper) -> None:
    brain = keeper.brain()
    first = armed(keeper, brain, LASTING, LASTING)
    brain.send(wire.DISARM, after="1.1")
    wait_for(lambda: not waiting(keeper), "the end of what waited")
    os.kill(first["pid"], signal.SIGKILL)
    assert "next" not in brain.ended("1.1")
    assert heard(keeper, brain) == []


@pytest.mark.parametrize(("code", "follows"), [(0, False), (3, False), (4, True)])
def test_nothing_follows_an_exit_code_that_is_an_end(keeper: Keeper, tmp_path: Path, code: int, follows: bool) -> None:
    os.mkfifo(tmp_path / "go")
    brain = keeper.brain()
    armed(keeper, brain, shell(f"read _ < {tmp_path}/go; exit {code}"), LASTING, not_after=(0, 3))
    (tmp_path / "go").write_text("\n")
    assert ("next" in brain.ended("1.1")) is follows
    if follows:
        brain.started("1.2")
    else:
        assert heard(keeper, brain) == []


def test_what_waits_and_is_killed_is_no_attempt(keeper: Keeper) -> None:
    brain = keeper.brain()
    first = armed(keeper, brain, LASTING, LASTING)
    (held_pid,) = waiting(keeper)
    os.kill(held_pid, signal.SIGKILL)
    wait_for(lambda: procfs.read_stat(held_pid) is None, "its reaping")
    os.kill(first["pid"], signal.SIGKILL)
    assert "next" not in brain.ended("1.1")
    assert heard(keeper, brain) == []


def test_a_program_that_vanished_meanwhile_is_a_failed_launch(keeper: Keeper, tmp_path: Path) -> None:
    shutil.copy("/bin/sleep", tmp_path / "program")
    brain = keeper.brain()
    first = armed(keeper, brain, LASTING, plan(str(tmp_path / "program"), "1000"))
    (tmp_path / "program").unlink()
    os.kill(first["pid"], signal.SIGKILL)
    assert brain.ended("1.1")["next"] == "1.2"
    assert brain.ended("1.2")["launch_error"] == f"cannot execute '{tmp_path}/program': No such file or directory"


def test_the_next_brain_hears_what_followed_while_there_was_none(keeper: Keeper) -> None:
    brain = keeper.brain()
    first = armed(keeper, brain, LASTING, LASTING)
    brain.die()
    brain = keeper.brain()
    assert brain.hello["armed"] == ["1.2"]
    brain.die()
    os.kill(first["pid"], signal.SIGKILL)
    brain = keeper.brain()
    wait_for(lambda: not waiting(keeper), "its beginning")
    hello = brain.hello
    if not hello["ended"]:  # it was started before the end came
        assert brain.ended("1.1")["next"] == "1.2"
        brain.started("1.2")
        return
    assert [(record["key"], record["next"]) for record in hello["ended"]] == [("1.1", "1.2")]
    assert [one["key"] for one in hello["live"]] == ["1.2"]
    assert hello["armed"] == []


def test_what_waits_dies_with_the_keeper_and_leaves_no_record(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper()
    armed(keeper, keeper.brain(), LASTING, LASTING)
    (held_pid,) = waiting(keeper)
    assert (keeper.state / "exits" / "1.1.json").read_bytes()[:2048].strip() == b""
    keeper.process.kill()
    keeper.process.wait(PATIENCE_S)
    wait_for(lambda: (stat := procfs.read_stat(held_pid)) is None or stat.is_dead, "its death")
    assert make_keeper().brain().hello["ended"] == []
    assert os.listdir(keeper.state / "exits") == []


def test_a_shutdown_begins_nothing(keeper: Keeper) -> None:
    brain = keeper.brain()
    armed(keeper, brain, LASTING, LASTING)
    keeper.process.send_signal(signal.SIGTERM)
    brain.wait(wire.SHUTDOWN)
    brain.send(wire.SIGNAL, key="1.1", signal="TERM")
    assert "next" not in brain.ended("1.1")
    brain.send(wire.BYE, code=0)
    brain.exit(0)
    assert keeper.process.wait(PATIENCE_S) == 0
    assert not [message for message in brain.unread if message["op"] == wire.STARTED]


# ---------------------------------------------------------------- the parts


def test_a_prepared_record_counts_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = Records(str(tmp_path), "boot")
    folder = tmp_path / "exits"
    for key in ("1.1", "1.2", "1.3", "1.4", "1.5"):
        assert len(kept.prepare(key, "1.9")) == 2
    whole = {"key": "1.1", "code": 3, "next": "1.2"}
    assert kept.write(whole) is None
    large = {"key": "1.2", "unkillable": list(range(2000))}
    assert kept.write(large) is None
    noted = {"key": "1.3", "code": 4}
    assert kept.note(noted)
    text = (folder / "1.4.json").read_bytes()
    (folder / "1.4.json").write_bytes(b'{"key":"1.4","cod'.ljust(2048) + text[2048:])  # a loss of power in the middle of it
    again = Records(str(tmp_path), "boot")
    assert sorted(again.kept(), key=lambda record: str(record["key"])) == [whole, large, noted]
    assert again.doubtful == {"1.4": "1.9"}
    assert sorted(os.listdir(folder)) == ["1.1.json", "1.2.json", "1.3.json", "1.4.json"]


def test_what_had_leave_to_begin_when_the_machine_went_down_is_in_doubt_until_it_is_forgotten(tmp_path: Path) -> None:
    Records(str(tmp_path), "boot 1").prepare("1.1", "1.2")
    for _ in range(2):
        kept = Records(str(tmp_path), "boot 2")
        assert (kept.kept(), kept.doubtful) == ([], {"1.1": "1.2"})
    kept.forget("1.1")
    assert Records(str(tmp_path), "boot 2").doubtful == {}
    assert os.listdir(tmp_path / "exits") == []


def test_the_keeper_tells_the_brain_what_is_in_doubt(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    Records(str(tmp_path / "state"), "another boot").prepare("1.1", "1.2")
    brain = make_keeper().brain()
    assert brain.hello["doubtful"] == {"1.1": "1.2"}
    brain.send(wire.FORGET, key="1.1")
    wait_for(lambda: not os.listdir(tmp_path / "state" / "exits"), "its end")


def test_the_program_that_waits_is_what_its_source_says(tmp_path: Path) -> None:
    tools = [shutil.which(name) for name in ("as", "objcopy")]
    if held.make_program() < 0 or not all(tools):
        pytest.skip("needs x86-64, as and objcopy")
    source, made, code = tmp_path / "held.s", tmp_path / "held.o", tmp_path / "held.bin"
    source.write_text(held.SOURCE)
    subprocess.run([str(tools[0]), "-o", made, source], check=True)
    subprocess.run([str(tools[1]), "-O", "binary", "-j", ".text", made, code], check=True)
    assert code.read_bytes() == held.CODE
    assert launch.STAGES.index("exec") == 9


@pytest.mark.parametrize("with_program", [True, False], ids=["as a program", "as a copy"])
@pytest.mark.parametrize("argv", [("sh", "-c", "exit 7"), ("/nonexistent",), ("nonexistent",)], ids=lambda argv: argv[0])
def test_a_child_is_held_with_the_program_and_without(monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], with_program: bool) -> None:
    if not with_program:
        monkeypatch.setattr(launch, "_PROGRAM", -1)
    child = launch.fork_child(launch.Plan(list(argv), {"PATH": os.environ["PATH"]}, "/"), held=())
    assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    child.let_go()
    _, status = os.waitpid(child.pid, 0)
    os.set_blocking(child.errors, True)
    error = launch.read_error(child)
    if argv[0] == "sh":
        assert (os.waitstatus_to_exitcode(status), error) == (7, None)
    else:
        assert error == ("exec", 2)


def test_a_gate_that_closes_ends_what_waits_behind_it() -> None:
    child = launch.fork_child(launch.Plan(["/bin/true"], {}, "/"), held=())
    child.close_gate()
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 127
    os.close(child.errors)
