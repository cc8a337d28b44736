"""kill -9 at random moments, again and again: the state is never false, and the figures at the end are those of an undisturbed run."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess

import community
import pytest

KILLS = 20
ROWS = "SELECT source, sum(count * (what = 'read')), sum(count * (what IN ('accepted', 'repeated') OR what LIKE 'rejected:%')) FROM tally WHERE source <> 'run' GROUP BY source"


@pytest.fixture(params=["community", "uci-messages"])
def source(request, tmp_path):
    """(path, rows per transaction: small, so that a run has many)"""
    if request.param == "community":
        path = str(tmp_path / "community.db")
        community.write(path, community.make(6000, 11))
        return path, "40"
    return request.getfixturevalue("shared_data")(request.param), "400"


def figures(out):
    found = json.loads(out)
    return found["samples"]


def check_state(directory):
    """What must hold at any instant, seen in a copy of the state as the kill left it. How many rows were read."""
    path = os.path.join(directory, "state.sqlite")
    if not os.path.exists(path):
        return 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            return 0  # killed before the tables were made
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        total = 0
        for name, read, accounted in db.execute(ROWS).fetchall():
            assert read == accounted, name
            total += read
        accepted = db.execute("SELECT ifnull(sum(count), 0) FROM tally WHERE what = 'accepted'").fetchone()[0]
        held = db.execute("SELECT (SELECT count(*) FROM event) + (SELECT count(*) FROM account) + (SELECT count(*) FROM item)").fetchone()[
            0
        ]
        assert accepted == held
        assert (
            db.execute("SELECT ifnull(sum(events), 0) FROM event_day").fetchone()[0]
            == db.execute("SELECT count(*) FROM event").fetchone()[0]
        )
        rejected = db.execute("SELECT ifnull(sum(count), 0) FROM tally WHERE what LIKE 'rejected:%'").fetchone()[0]
        assert rejected == db.execute("SELECT count(*) FROM quarantine").fetchone()[0]
        return total


def test_killed_twenty_times_the_figures_are_exact(source, start_job, tmp_path):
    path, batch = source
    dice = random.Random(4)
    published = tmp_path / "metrics.prom"

    def start(state):
        return start_job("jobs/user_metrics", "--source", path, "--state", state, "--batch", batch, "--json", "--publish", str(published))

    reference, error = start(str(tmp_path / "undisturbed")).communicate(timeout=100)
    assert error == ""
    state = str(tmp_path / "state")
    kills, progress = 0, set()
    for _ in range(20 * KILLS):
        process = start(state)
        try:
            process.wait(dice.uniform(0.05, 0.25))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            kills += 1
            if published.exists():
                assert published.read_text().endswith("\n")
            progress.add(check_state(state))
        else:  # it came to its end: begin anew, so that kills fall everywhere
            assert figures(process.stdout.read()) == figures(reference)
            shutil.rmtree(state)
        if kills == KILLS:
            break
    assert kills == KILLS
    assert len(progress) > 3  # the kills fell at different places
    last, error = start(state).communicate(timeout=100)
    assert error == ""
    assert figures(last) == figures(reference)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp") and "metrics" in name] == []
