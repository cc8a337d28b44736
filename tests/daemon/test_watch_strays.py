"""Whose the orphans are that came to the keeper."""

import os
import subprocess

import pytest
from fakes import FakeClock

from supervisor import procfs, watch
from supervisor.core.jobs import Limits
from supervisor.watch import Watch


class FakeSampler:
    """Takes the strays it is given."""

    pid = 1 << 30  # nobody's
    is_blind = False
    strays: tuple[int, ...] = ()


def test_an_orphan_that_was_seen_in_the_middle_of_an_exec_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an instant of an exec a process has no environment: nobody's then, and its memory nobody's for ever if that were remembered."""
    claims: dict[int, list[str | None]] = {11: [None, "1.1"], 12: [None, None, "1.1"], 13: ["", "1.1"], 14: ["1.1"]}
    monkeypatch.setattr(watch.procfs, "children_text", lambda _pid: b"11 12 13 14")
    monkeypatch.setattr(watch.procfs, "read_stat", lambda pid: procfs.Stat(pid, "sh", "S", 1, pid, pid, 0.0, 0.0, 1, 5))
    monkeypatch.setattr(watch.procfs, "claimed_attempt", lambda pid: claims[pid].pop(0))
    clock, sampler = FakeClock(), FakeSampler()
    watched = Watch(clock, lambda *_: None)
    watched.add("1.1", Limits(), sampler, clock.mono(), can_arm=False)
    seen = []
    for _ in range(4):
        watched.find_strays(1, (), at_once=True)
        seen.append(sorted(sampler.strays))
    assert seen == [[14], [11, 14], [11, 14], [11, 14]]  # 12 has no environment, then: asked twice and no more


def test_an_orphan_that_was_nobodys_may_be_of_a_job_that_is_watched_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch.procfs, "children_text", lambda _pid: b"11")
    monkeypatch.setattr(watch.procfs, "read_stat", lambda pid: procfs.Stat(pid, "sh", "S", 1, pid, FakeSampler.pid, 0.0, 0.0, 1, 5))
    monkeypatch.setattr(watch.procfs, "claimed_attempt", lambda _pid: "")
    clock, sampler, other = FakeClock(), FakeSampler(), FakeSampler()
    other.pid = 7
    watched = Watch(clock, lambda *_: None)
    watched.add("2.1", Limits(), other, clock.mono(), can_arm=False)
    watched.find_strays(1, (), at_once=True)
    watched.add("1.1", Limits(), sampler, clock.mono(), can_arm=False)
    watched.find_strays(1, (), at_once=True)
    assert sampler.strays == (11,)


def test_all_orphans_are_of_the_one_command_there_is() -> None:
    clock, sampler = FakeClock(), FakeSampler()
    watched = Watch(clock, lambda *_: None)
    watched.add("1.1", Limits(), sampler, clock.mono(), can_arm=False)
    with subprocess.Popen(["sleep", "60"], env={}) as orphan:
        try:
            watched.find_strays(os.getpid(), (), owner="1.1")
        finally:
            orphan.kill()
    assert orphan.pid in sampler.strays
