"""The founding bug dies as it died, in each costume, and never outlives its own safety limit."""

import re
import signal

import community
import pytest
import runaway

SMALL = ("--safety-seconds", "2", "--safety-memory", "150", "--safety-processes", "4")


@pytest.fixture
def source(tmp_path):
    path = str(tmp_path / "community.db")
    community.write(path, community.make(3000, 1))
    return path


def test_as_first_written_the_recursion_limit_ends_it(run_job, source):
    code, out, err = run_job("jobs/runaway.py", "--source", source)
    assert code == 1
    assert out.startswith("runaway: 150 users, ")
    assert "RecursionError: maximum recursion depth exceeded" in err
    assert "return 1 + depth(first_writer[user])" in err


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("memory", "150 MiB of memory"), ("swallow", "2 s"), ("spin", "2 s"), ("fork", "4 processes deep")],
)
def test_each_other_mode_runs_into_its_safety_limit_and_says_so(run_job, source, mode, reason):
    code, out, err = run_job("jobs/runaway.py", "--source", source, "--mode", mode, *SMALL)
    assert err == f"runaway: ended by its own safety limit: {reason}. Nobody else had stopped it.\n"
    assert code == runaway.EXIT_SAFETY
    assert f"mode {mode}" in out
    if mode == "swallow":
        assert "RecursionError at try 1, trying again" in out


def test_it_never_ends_for_1854_of_the_1899_users(shared_data, monkeypatch):
    users, events = runaway.read(shared_data("uci-messages"))
    monkeypatch.setattr(runaway, "first_writer", {})
    for actor, target in events:
        if actor != target:
            runaway.first_writer.setdefault(target, actor)
    endless = 0
    for user in users:
        try:
            runaway.depth(user)
        except RecursionError:
            endless += 1
    assert (len(users), endless) == (1899, 1854)


def test_every_way_agrees_for_users_whose_chain_ends(run_job, tmp_path):
    (tmp_path / "users.csv").write_text("id,created_at\na,2026-01-01\nb,2026-01-01\nc,2026-01-01\n")
    (tmp_path / "events.csv").write_text(
        "id,ts,type,actor,target\n1,2026-01-02,message,a,b\n2,2026-01-03,message,b,c\n3,2026-01-04,message,a,c\n4,2026-01-05,message,c,c\n"
    )
    for mode in ("stack", "memory", "swallow", "fork", "spin"):
        code, out, err = run_job("jobs/runaway.py", "--source", str(tmp_path), "--mode", mode)
        assert (code, err) == (0, "")
        assert re.findall(r"user (\w): depth (\d)", out) == [("a", "0"), ("b", "1"), ("c", "2")], mode


def test_the_safety_timer_never_hides_how_it_ended(run_job, source):
    """Once the timer's signal struck during the interpreter's shutdown and the exit code became a signal's."""
    for _ in range(5):
        assert run_job("jobs/runaway.py", "--source", source)[0] == 1


def test_a_stop_signal_ends_every_mode(start_job, source):
    for mode in ("swallow", "spin"):
        process = start_job("jobs/runaway.py", "--source", source, "--mode", mode)
        assert f"mode {mode}" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


@pytest.mark.parametrize("place", ["/does/not/exist", "/", __file__])
def test_a_source_that_cannot_be_read_is_one_line(run_job, place):
    code, _, err = run_job("jobs/runaway.py", "--source", place)
    assert code == 1
    assert err.startswith(f"runaway: {place}: ")
    assert err.count("\n") == 1
