"""A thousand failures of one job: how much of them is kept, in rows and in bytes, in a real history."""

import json
import os
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from supervisor.adapters.store import Store, database
from supervisor.core.dossier import Occasion, encode, make_report
from supervisor.core.evidence import Evidence, ExceptionFacts, Exit, Frame, LastWords
from supervisor.core.incidents import OPEN_MAX, observe
from supervisor.core.jobs import AlertPolicy, Expect, Job, Launch, Limits
from supervisor.core.model import Outcome, Trigger
from supervisor.core.outcome import fingerprint_of, judge
from supervisor.core.records import AttemptPhase, AttemptRow, RunRow

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JOB = Job("nightly", Launch(("run",), "/"), alerts=AlertPolicy(to=("ops",)))
FRAMES = tuple(Frame(f"step_{n}", f"/srv/app/{'x' * 100}_{n}.py", n) for n in range(100))


@pytest.fixture
def store(tmp_path):
    opened = Store.open(str(tmp_path), now=T0)
    yield opened
    opened.close()


def used(store):
    """Bytes of the file that hold something."""
    connection = sqlite3.connect(store.path)
    try:
        pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    finally:
        connection.close()
    return (pages - free) * size


def fail(store, run, incidents, line=7):
    """One failure, judged and written as the engine does it; the open incidents after it."""
    error = ExceptionFacts("ValueError", f"no such user: {run}", (*FRAMES, Frame("load", "/srv/app/users.py", line)), 101)
    evidence = Evidence(Exit(code=1), LastWords(spoke=True, exception=error), duration_s=1.0)
    verdict = judge(Limits(), Expect(), evidence)
    mark = fingerprint_of(JOB.name, verdict, evidence)
    at = T0 + timedelta(minutes=run)
    changed, told, _ = observe(
        incidents, JOB, verdict.__class__(verdict.outcome, verdict.summary, fingerprint=mark), run, run, at, len(incidents) + 1
    )
    report = make_report(Occasion(JOB.name, run, 1, at, at, output="x" * 8000), verdict, evidence, incident=changed[0])
    ended = RunRow(run, JOB.name, Trigger.SCHEDULE, None, at, 1, at, Outcome.EXCEPTION, verdict.summary, 1.0)
    attempt = AttemptRow(
        run,
        1,
        JOB.name,
        AttemptPhase.ENDED,
        "e",
        "b",
        at,
        ended_at=at,
        outcome=Outcome.EXCEPTION,
        report=encode({**report, "fingerprint": mark}),
    )
    store.apply([ended, attempt, *changed, *told])
    by_id = {one.id: one for one in (*incidents, *changed)}
    return tuple(by_id.values())


def test_a_thousand_failures_are_one_fingerprint_one_incident_and_a_bounded_history(store):
    incidents = ()
    for run in range(1, 1001):
        incidents = fail(store, run, incidents)
    (incident,) = store.open_incidents()
    assert (incident.occurrences, incident.run, incident.last_run) == (1000, 1, 1000)
    assert len(store.outbox().pending()) == 1
    before = used(store)
    store.prune(T0 - timedelta(days=90))
    with store.reader() as reader:
        kept = [run for run in range(1, 1001) if reader.report(run) is not None]
        assert kept == [1, *range(801, 1001)]  # the first of the incident, and the newest two hundred
        marks = Counter(reader.report(run)["fingerprint"] for run in kept)
        assert len(marks) == 1
        assert len(reader.runs(JOB.name, limit=5000)) == 1000
        size = sum(len(json.dumps(reader.report(run))) for run in kept)
    assert size < 201 * 40_000
    for run in range(1001, 2001):  # what is free is used again: the file does not grow on
        incidents = fail(store, run, incidents)
        if run % 100 == 0:
            store.prune(T0 - timedelta(days=90))
    assert used(store) < before / 2
    assert os.path.getsize(store.path) < 30_000_000
    assert store.prune(T0 - timedelta(days=90)) == 0


def test_the_number_of_runs_has_an_end_however_young_they_are(store, monkeypatch):
    monkeypatch.setattr(database, "RUNS_MAX", 50)
    for run in range(1, 201):
        fail(store, run, ())
    store.prune(T0 - timedelta(days=90))
    with store.reader() as reader:
        left = [row.id for row in reader.runs(JOB.name, limit=500)]
    assert left[:50] == list(range(200, 150, -1))
    assert set(left[50:]) <= {1, 200}  # but for those that an open incident speaks of


def test_a_job_that_fails_in_a_new_way_each_time_has_a_bounded_number_of_incidents(store):
    incidents = ()
    for run in range(1, 201):
        incidents = fail(store, run, incidents, line=0)
    assert len(incidents) == 1
    for run in range(201, 401):
        error = ExceptionFacts(f"Error{run}", "", (Frame(f"f{run}", f"/srv/app/m{run}.py", 1),), 1)
        verdict = judge(Limits(), Expect(), Evidence(Exit(code=1), LastWords(spoke=True, exception=error)))
        mark = fingerprint_of(JOB.name, verdict, Evidence(Exit(code=1), LastWords(spoke=True, exception=error)))
        named = verdict.__class__(verdict.outcome, verdict.summary, fingerprint=mark)
        changed, _, _ = observe(incidents, JOB, named, run, run, T0 + timedelta(minutes=run), len(incidents) + 1)
        incidents = tuple({one.id: one for one in (*incidents, *changed)}.values())
    assert len(incidents) == OPEN_MAX
    assert sum(one.occurrences for one in incidents) == 400
