"""The whole tree of an attempt: what a job leaves behind is ended with it, counted and collected, wherever it stands just then."""

import os
import sys
from pathlib import Path

import pytest
from fakebrain import Keeper, plan, shell, wait_for

from supervisor import procfs, proctree, wire
from supervisor.keeper import ending, loop
from supervisor.keeper.attempt import Attempt
from supervisor.keeper.launch import Child, Plan

NOBODY = 2**22 + 1  # above the largest pid that the kernel gives
IN_AN_EXEC = """
import os
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        os.execve("/bin/sleep", ["sleep", "1000"], dict(os.environ, PAD="x" * 120000))
os._exit(0)
"""


def test_kill_ends_the_whole_tree_and_the_record_says_why(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(
        wire.SPAWN,
        key="1.1",
        plan=shell(
            "setsid sh -c '(sleep 1000 & sleep 1000) & wait' & (setsid sleep 1000 &); sleep 1000",
            environment={"PATH": os.environ["PATH"], "MAINSTAY_RUN": "1", "MAINSTAY_ATTEMPT": "1"},
        ),
    )
    pid = brain.started("1.1")["pid"]
    family = set()

    def whole() -> bool:
        family.update(procfs.descendants([keeper.process.pid]))
        return len([one for one in family if (procfs.read_file(f"/proc/{one}/cmdline") or b"").startswith(b"sleep\0")]) == 4

    wait_for(whole, "the family")
    brain.send(wire.KILL, key="1.1", reason="memory")
    record = brain.ended("1.1")
    assert (record["killed_for"], record["signal"], record["pid"]) == ("memory", 9, pid)
    others = family - {keeper.process.pid, brain.pid}
    assert not [one for one in others if (stat := procfs.read_stat(one)) is not None and not stat.is_dead]
    keeper.assert_only(brain.pid)
    assert not [one for one in others if procfs.read_stat(one) is not None]


def test_what_a_job_leaves_behind_is_ended_counted_and_reaped(keeper: Keeper) -> None:
    brain = keeper.brain()
    brain.send(
        wire.SPAWN,
        key="1.1",
        plan=shell(
            "(setsid sleep 1000 &) ; (setsid sleep 1000 &); exit 0",
            environment={"PATH": os.environ["PATH"], "MAINSTAY_RUN": "1", "MAINSTAY_ATTEMPT": "1"},
        ),
    )
    record = brain.ended("1.1")
    assert record["code"] == 0
    assert record["leftovers"] >= 2
    keeper.assert_only(brain.pid)


def test_strangers_that_come_to_the_keeper_are_reaped(keeper: Keeper, tmp_path: Path) -> None:
    brain = keeper.brain()
    orphans = 50
    script = f"import os\nfor _ in range({orphans}):\n    if os.fork() == 0:\n        os._exit(0) if os.fork() else os._exit(3)\nwhile True:\n    try: os.wait()\n    except ChildProcessError: break\nopen({str(tmp_path / 'done')!r}, 'w').close()\nimport time; time.sleep(1000)\n"
    brain.send(wire.SPAWN, key="1.1", plan=plan(sys.executable, "-c", script))
    brain.started("1.1")
    wait_for((tmp_path / "done").exists, "the orphans")
    wait_for(
        lambda: {stat.state for stat in keeper.children()} <= {"S", "R", "D"} and len(keeper.children()) == 2, "that no zombie is left"
    )


def test_what_is_left_in_the_middle_of_an_exec_is_ended_too(keeper: Keeper) -> None:
    """For an instant of its exec a process has no environment that would tell whose it is; 4 of 1,000 survived their job for that."""
    brain = keeper.brain()
    for run in range(300):
        environment = {"PATH": os.environ["PATH"], "MAINSTAY_RUN": str(run), "MAINSTAY_ATTEMPT": "1"}
        brain.send(wire.SPAWN, key=f"{run}.1", plan=plan(sys.executable, "-IS", "-c", IN_AN_EXEC, environment=environment))
        assert brain.ended(f"{run}.1")["code"] == 0
        assert [stat.pid for stat in keeper.children() if not stat.is_dead] == [brain.pid]


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[loop.Keeper, Attempt]:
    """A keeper in this process, an attempt of it whose main process has ended, and one orphan of which nothing is known but that it lives."""
    alone = loop.Keeper(str(tmp_path), ["/bin/false"])
    attempt = Attempt("1.1", Plan(["x"], {}, "/"), Child(NOBODY, -1), 0.0, 0.0)
    attempt.status = 0
    alone._attempts[attempt.key] = attempt
    monkeypatch.setattr(alone._kin, "children", lambda: [NOBODY + 1])
    monkeypatch.setattr(proctree, "kill_round", lambda roots: set(roots()))
    monkeypatch.setattr(procfs, "read_stat", lambda pid: procfs.Stat(pid, "sh", "R", 1, pid, pid, 0.0, 0.0, 1, 5))
    return alone, attempt


def test_an_orphan_whose_owner_cannot_be_told_is_waited_for(ended: tuple[loop.Keeper, Attempt], monkeypatch: pytest.MonkeyPatch) -> None:
    alone, attempt = ended
    monkeypatch.setattr(procfs, "claimed_attempt", lambda _pid: None)
    alone._clear(attempt)
    assert attempt.clear_waits
    assert attempt.leftovers == set()
    monkeypatch.setattr(procfs, "claimed_attempt", lambda _pid: "1.1")
    alone._clear_again(attempt)
    assert attempt.leftovers == {NOBODY + 1}


def test_an_orphan_without_an_environment_holds_nobody_up_for_long(
    ended: tuple[loop.Keeper, Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, attempt = ended
    monkeypatch.setattr(procfs, "claimed_attempt", lambda _pid: None)
    alone._clear(attempt)
    monkeypatch.setattr(ending, "EXEC_S", 0.0)
    alone._clear_again(attempt)
    assert attempt.key not in alone._attempts  # its record was written
    assert attempt.leftovers == set()


def test_an_orphan_that_is_hidden_from_us_holds_nobody_up_for_long(
    ended: tuple[loop.Keeper, Attempt], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, attempt = ended
    monkeypatch.setattr(procfs, "read_stat", lambda _pid: None)
    alone._clear(attempt)
    assert attempt.clear_waits
    monkeypatch.setattr(ending, "EXEC_S", 0.0)
    alone._clear_again(attempt)
    assert attempt.key not in alone._attempts
