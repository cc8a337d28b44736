"""Which of the processes with a keeper's command line is the keeper."""

import pytest

from supervisor import keepers, procfs


def stat(pid: int, ppid: int, started: int) -> procfs.Stat:
    return procfs.Stat(pid, "python", "S", ppid, pid, pid, 0.0, 0.0, 1, started)


@pytest.mark.parametrize(
    ("environment", "keeper"),
    [({}, 20), (None, 20), ({"NOTIFY_SOCKET": "/run/systemd/notify"}, 10)],
    ids=["under its guardian", "of another user", "under systemd"],
)
def test_what_the_keeper_has_just_forked_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, environment, keeper: int) -> None:
    """It has the keeper's command line until it executes something; pids wrap round."""
    processes = {one.pid: one for one in (stat(10, 1, 100), stat(20, 10, 100), stat(7, 20, 900), stat(30, 20, 950), stat(8, 10, 960))}
    monkeypatch.setattr(keepers, "_named", lambda: ((pid, "/c.yaml", "/state") for pid in sorted(processes)))
    monkeypatch.setattr(procfs, "read_stat", processes.get)
    monkeypatch.setattr(procfs, "environment_values", lambda _pid, *_names: environment)
    assert keepers.running() == [keepers.RunningKeeper(keeper, "/c.yaml", "/state", is_stopped=False)]


def test_a_keeper_whose_guardian_has_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "_named", lambda: iter([(20, "/c.yaml", "/state")]))
    monkeypatch.setattr(procfs, "read_stat", lambda pid: stat(pid, 1, 100))
    assert [one.pid for one in keepers.running()] == [20]
