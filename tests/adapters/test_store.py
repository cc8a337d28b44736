"""The store on real files: round trips, power to refuse, damage, a killed writer, readers beside a writer."""

import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import typing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from supervisor.adapters.store import Store, opening, schema
from supervisor.adapters.store.rows import ATTEMPTS, GOOD_RUNS, INCIDENTS, MEMOS, OUTBOX, QUARANTINE, RUNS, SLOTS
from supervisor.core.model import Incident, Outcome, Trigger
from supervisor.core.records import (
    AttemptPhase,
    AttemptRow,
    GoodRow,
    JobMemo,
    Notification,
    NotificationKind,
    QuarantinedRecord,
    RunRow,
    SkipReason,
    SlotResult,
    SlotRow,
)
from supervisor.errors import StoreError

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "state")


@pytest.fixture
def store(state):
    opened = Store.open(state, now=T0)
    yield opened
    opened.close()


def a_run(run=1, job="nightly", **changes):
    return structs.replace(RunRow(run, job, Trigger.SCHEDULE, T0, T0), **changes)


def an_attempt(run=1, attempt=1, job="nightly", **changes):
    return structs.replace(AttemptRow(run, attempt, job, AttemptPhase.INTENDED, "epoch", "boot", T0), **changes)


def an_incident(incident=1, job="nightly", **changes):
    made = Incident(incident, job, "ab12", Outcome.RECURSION, "it called itself", "critical", T0, T0, 1, 1)
    return structs.replace(made, **changes)


def a_notification(incident=1, receiver="ops", kind=NotificationKind.OPENED, at=T0):
    return Notification(f"{incident}/{kind}/0/{receiver}", receiver, kind, incident, at, json.dumps({"incident": incident}))


def raw(store, sql):
    connection = sqlite3.connect(store.path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


# ---------------------------------------------------------------- rows

_TEXT = st.text(max_size=40)
_WALL = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
_INT = st.integers(min_value=-(2**63), max_value=2**63 - 1)
_ID = st.integers(min_value=1, max_value=2**53)
_BY_TYPE = {str: _TEXT, int: _INT, float: st.floats(allow_nan=False), bool: st.booleans(), datetime: _WALL}


def _field(name, hint):
    if typing.get_origin(hint) is tuple:
        return st.lists(st.from_regex(r"[A-Za-z0-9_.-]{1,9}", fullmatch=True), max_size=3).map(tuple)
    options = [part for part in typing.get_args(hint) if part is not type(None)] or [hint]
    plain = options[0]
    base = _BY_TYPE[plain] if plain in _BY_TYPE else st.sampled_from(list(plain))
    base = _ID if name in ("id", "run", "attempt") else base
    return base if plain is hint else st.none() | base


def rows_of(record):
    return st.builds(record, **{name: _field(name, hint) for name, hint in typing.get_type_hints(record).items()})


ANY_ROW = st.one_of(
    *(rows_of(record) for record in (RunRow, AttemptRow, SlotRow, JobMemo, GoodRow, Incident, Notification, QuarantinedRecord))
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ANY_ROW, max_size=6), durable=st.booleans())
def test_whatever_row_is_written_reads_back_equal(store, rows, durable):
    store.apply(rows, durable=durable)
    last = {(type(row), tuple(getattr(row, k) for k in table_of(row).key)): row for row in rows}
    for row in last.values():
        if not isinstance(row, SlotRow | Notification):  # those two keep the first on purpose
            table = table_of(row)
            where = " AND ".join(f'"{key}" = ?' for key in table.key)
            assert store._rows(table, f"WHERE {where}", *(getattr(row, key) for key in table.key)) == [row]


def table_of(row):
    return {t.record: t for t in (RUNS, ATTEMPTS, SLOTS, MEMOS, INCIDENTS, GOOD_RUNS, OUTBOX, QUARANTINE)}[type(row)]


@pytest.mark.parametrize("record", [SlotRow, Notification])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_row_with_a_new_key_reads_back_equal(tmp_path, record, data):
    row = data.draw(rows_of(record))
    store = Store.open(tempfile.mkdtemp(dir=tmp_path), now=T0)
    store.apply([row])
    assert store._rows(table_of(row), "") == [row]
    store.close()


def test_an_upsert_replaces_the_row_of_its_key(store):
    store.apply([a_run(), an_attempt()])
    ended = a_run(ended_at=T0 + timedelta(seconds=3), outcome=Outcome.MEMORY, summary="over the line", attempts=1)
    store.apply([ended, an_attempt(phase=AttemptPhase.ENDED, outcome=Outcome.MEMORY)])
    assert store.run(1) == ended
    assert store.open_runs() == []
    assert store.open_attempts() == []


def test_a_slot_that_ran_is_never_overwritten_and_a_skipped_one_may_still_run(store):
    ran = SlotRow("nightly", T0, SlotResult.RAN, run=1)
    store.apply([ran])
    store.apply([SlotRow("nightly", T0, SlotResult.SKIPPED, SkipReason.DAEMON_DOWN)])
    assert store.slots("nightly", 10) == [ran]
    late = SlotRow("hourly", T0, SlotResult.LATE, run=2)
    store.apply([SlotRow("hourly", T0, SlotResult.SKIPPED, SkipReason.PAUSED), late])
    store.apply([SlotRow("hourly", T0, SlotResult.SKIPPED, SkipReason.PAUSED)])
    assert store.slots("hourly", 10) == [late]


def test_half_a_surrogate_and_a_nan_do_not_poison_the_transaction(store):
    store.apply([a_run(summary="caf\udce9 \x00 end", duration_s=float("nan"))])
    row = store.run(1)
    assert row.summary.startswith("caf\ufffd")
    assert row.summary.endswith(" \x00 end")
    assert row.duration_s == 0.0


def test_asking_for_a_notification_twice_keeps_one(store):
    store.apply([a_notification(), a_notification()])
    store.apply([a_notification()])
    assert raw(store, "SELECT count(*) FROM outbox") == [(1,)]


def test_all_rows_of_an_apply_are_written_or_none(store):
    store.apply([], counters={("runs_total", ""): 1.0})
    with pytest.raises(StoreError, match=r"history\.db: writing 2 rows: .*"):
        store.apply([a_run(), a_run(2, memory_peak_bytes=2**70)], counters={("runs_total", ""): 3.0})
    assert store.runs(None, 10) == []
    assert store.counters() == {("runs_total", ""): 1.0}
    store.apply([a_run()])
    assert [run.id for run in store.runs(None, 10)] == [1]


def test_ids_are_never_given_out_again_even_when_their_rows_are_pruned(state):
    store = Store.open(state, now=T0)
    assert store.next_ids() == (1, 1)
    store.apply([a_run(41, ended_at=T0), a_run(42, ended_at=T0), an_incident(7, closed_at=T0)])
    store.apply([a_run(12, ended_at=T0)])
    store.prune(T0 + timedelta(days=1), keep_runs_per_job=1)
    raw(store, "DELETE FROM runs")
    store.close()
    store = Store.open(state, now=T0)
    assert store.next_ids() == (43, 8)
    store.close()


def test_a_run_that_goes_on_keeps_its_newest_fifty_attempts(store):
    store.apply([a_run(1), a_run(2, ended_at=T0)])
    store.apply([an_attempt(1, number, phase=AttemptPhase.ENDED) for number in range(1, 500)])
    store.apply([an_attempt(1, 500)])
    store.apply([an_attempt(2, number, phase=AttemptPhase.ENDED) for number in range(1, 61)])
    assert store.prune(T0 - timedelta(days=1)) == 450
    assert [row.attempt for row in store.reader().attempts(1)] == list(range(451, 501))
    assert len(store.reader().attempts(2)) == 60


def test_counters_memos_and_facts_survive_a_restart(state):
    store = Store.open(state, now=T0)
    store.apply([], counters={("mainstay_job_runs_total", 'job_name="a"'): 3.0, ("x_total", ""): 1.5})
    store.apply([], counters={("x_total", ""): 2.5})
    store.apply([JobMemo("a", '{"state": "parked"}')])
    store.set_meta("last_seen", "2026-03-01")
    store.close()
    store = Store.open(state, now=T0)
    assert store.counters() == {("mainstay_job_runs_total", 'job_name="a"'): 3.0, ("x_total", ""): 2.5}
    assert store.memos() == {"a": '{"state": "parked"}'}
    assert (store.meta("last_seen"), store.meta("never")) == ("2026-03-01", None)
    store.forget_counters([("x_total", "")])
    assert list(store.counters()) == [("mainstay_job_runs_total", 'job_name="a"')]
    store.close()


# ---------------------------------------------------------------- reads


def test_history_is_read_newest_first_and_page_by_page(store):
    store.apply([a_run(n, job="even" if n % 2 == 0 else "odd") for n in range(1, 11)])
    assert [run.id for run in store.runs("even", 3)] == [10, 8, 6]
    assert [run.id for run in store.runs("even", 3, before_id=6)] == [4, 2]
    assert [run.id for run in store.runs(None, 4, before_id=4)] == [3, 2, 1]


def test_the_last_report_is_the_newest_dossier_and_may_be_asked_for_bad_ends_only(store):
    def ended(run, outcome, job="nightly"):
        return an_attempt(run, 1, job, phase=AttemptPhase.ENDED, outcome=outcome, report=json.dumps({"run": run}))

    store.apply([ended(1, Outcome.MEMORY), ended(2, Outcome.SUCCEEDED), ended(3, Outcome.STOPPED), ended(4, Outcome.SUCCEEDED, "other")])
    store.apply([an_attempt(2, 2)])
    reader = store.reader()
    assert reader.last_report(None) == {"run": 4}
    assert reader.last_report("nightly", bad_only=True) == {"run": 1}
    assert reader.last_report("nobody") is None
    assert (reader.report(2), reader.report(2, 1), reader.report(2, 2), reader.report(9)) == ({"run": 2}, {"run": 2}, None, None)
    reader.close()


def test_the_last_report_is_that_of_the_latest_end_whatever_its_run_is_numbered(store):
    def ended(run, at, outcome=Outcome.FAILED, job="nightly"):
        return an_attempt(run, 1, job, phase=AttemptPhase.ENDED, outcome=outcome, ended_at=at, report=json.dumps({"run": run}))

    later = T0 + timedelta(hours=1)
    store.apply([ended(1, later, job="web"), ended(2, T0), ended(3, T0 - timedelta(hours=1)), ended(4, T0, Outcome.SUCCEEDED)])
    with store.reader() as reader:
        assert reader.last_report(bad_only=True) == {"run": 1}
        assert reader.last_report("nightly", bad_only=True) == {"run": 2}
        assert reader.last_report("nightly") == {"run": 4}


def test_the_report_of_an_incident_is_that_of_its_own_last_occurrence(store):
    reports = [json.dumps({"incident": 7, "n": 1}), json.dumps({"incident": 7, "n": 2}), json.dumps({"incident": 8, "n": 3}), "{", None]
    store.apply([an_attempt(1, number, phase=AttemptPhase.ENDED, report=text) for number, text in enumerate(reports, 1)])
    with store.reader() as reader:
        assert [reader.report_of_incident(number, 1) for number in (7, 8, 9)] == [json.loads(reports[1]), json.loads(reports[2]), None]
        assert reader.report_of_incident(7, 2) is None


def test_the_last_good_run_is_one_whose_survey_is_known(store):
    """Else what has changed before it would be told as changed since."""

    def good(run, changed, outcome=Outcome.SUCCEEDED):
        ended_at = T0 + timedelta(hours=run)
        report = json.dumps({"changed": changed})
        return an_attempt(run, phase=AttemptPhase.ENDED, outcome=outcome, ended_at=ended_at, report=report)

    store.apply([GoodRow("nightly", 2, T0 + timedelta(hours=2), "a survey"), good(1, {}), good(2, {})])
    with store.reader() as reader:
        assert reader.good_run("nobody") is None
        assert reader.good_run("nightly") == ("a survey", 2, T0 + timedelta(hours=2))
        store.apply([good(3, {"items": []}), good(4, None), good(5, {}, Outcome.FAILED)])
        assert reader.good_run("nightly") == ("a survey", 3, T0 + timedelta(hours=3))


def test_a_damaged_dossier_is_named(store):
    store.apply([an_attempt(2, 3, phase=AttemptPhase.ENDED, report='{"run": 2, "summ')])
    with store.reader() as reader, pytest.raises(StoreError, match=r"the dossier of run 2, attempt 3 is damaged"):
        reader.report(2)


def test_incidents_are_listed_open_or_all(store):
    first, second = an_incident(1, closed_at=T0, closed_because="a success"), an_incident(2)
    store.apply([first, second])
    with store.reader() as reader:
        assert reader.incidents(open_only=True, limit=5) == [second] == store.open_incidents()
        assert reader.incidents(limit=5) == [second, first]
        assert (reader.incident(1), reader.incident(3)) == (first, None)


def test_a_reader_without_a_daemon_reads_a_closed_history(state):
    store = Store.open(state, now=T0)
    store.apply([a_run()])
    store.close()
    with store.reader() as reader:
        assert reader.runs(None, 5) == [a_run()]


def test_a_reader_of_a_missing_history_says_where_and_why(state):
    store = Store.open(state, now=T0)
    store.close()
    shutil.rmtree(state)
    with store.reader() as reader, pytest.raises(StoreError, match=r"history\.db: reading runs: No such file or directory"):
        reader.runs(None, 5)


def test_readers_never_block_the_writer_and_see_whole_transactions(store):
    stop, wrong, looks = threading.Event(), [], []

    def read():
        with store.reader() as reader:
            while not stop.is_set():
                runs = reader.runs(None, 10_000)
                looks.append(len(runs))
                if len(runs) % 2:
                    wrong.append(len(runs))

    held = sqlite3.connect(store.path, isolation_level=None)  # a reader that never ends its transaction
    held.execute("BEGIN")
    held.execute("SELECT count(*) FROM runs").fetchone()
    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(1, 400, 2):
            store.apply([a_run(n), a_run(n + 1)])
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        held.close()
    assert wrong == []
    assert looks


def test_a_closed_history_is_whole_in_its_one_file_although_a_reader_of_another_thread_is_open(store, tmp_path):
    store.apply([a_run(n) for n in range(1, 200)])
    reader = store.reader()  # opened here and never closed, as the threads of the HTTP server leave theirs
    assert len(reader.runs(None, 1000)) == 199
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(30)
    assert not os.path.exists(f"{store.path}-wal") or os.path.getsize(f"{store.path}-wal") == 0
    os.mkdir(tmp_path / "copy")
    shutil.copy(store.path, tmp_path / "copy")  # the file alone
    again = Store.open(str(tmp_path / "copy"), now=T0)
    assert len(again.runs(None, 1000)) == 199
    assert again.quarantined is None
    again.close()
    reader.close()


# ---------------------------------------------------------------- files


def test_the_files_are_for_their_owner_only(state, store):
    store.apply([a_run()], durable=True)
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o700
    modes = {name: stat.S_IMODE(os.stat(os.path.join(state, name)).st_mode) for name in os.listdir(state)}
    assert modes == {"history.db": 0o600, "history.db-wal": 0o600, "history.db-shm": 0o600}


def test_a_store_whose_directory_vanished_says_so_and_recovers(store, state):
    os.rename(state, state + ".away")
    with pytest.raises(StoreError, match=r"history\.db: cannot be made: No such file or directory; check the state directory"):
        store.apply([a_run()])
    with pytest.raises(StoreError):
        store.apply([a_run()])
    os.mkdir(state)
    store.apply([a_run()])
    assert store.open_runs() == [a_run()]


def test_a_counter_that_is_no_number_does_not_stop_the_others(store):
    store.apply([], counters={("a_total", ""): float("nan"), ("b_total", ""): 2.0})
    assert store.counters() == {("a_total", ""): 0.0, ("b_total", ""): 2.0}


def test_a_history_that_others_may_read_is_closed_to_them(state):
    Store.open(state, now=T0).close()
    os.chmod(os.path.join(state, "history.db"), 0o644)
    Store.open(state, now=T0).close()
    assert stat.S_IMODE(os.stat(os.path.join(state, "history.db")).st_mode) == 0o600


def test_state_from_a_newer_version_is_refused_and_left_alone(state):
    store = Store.open(state, now=T0)
    store.apply([a_run()])
    raw_write(store, "PRAGMA user_version = 7", "UPDATE meta SET value = '7' WHERE key = 'schema'")
    store.close()
    before = Path(store.path).read_bytes()
    with pytest.raises(StoreError) as error:
        Store.open(state, now=T0)
    assert str(error.value) == (
        f"{store.path}: state is from a newer Mainstay (schema 7, we know {schema.SCHEMA}): use that version or another state_dir"
    )
    assert Path(store.path).read_bytes() == before


def raw_write(store, *statements):
    connection = sqlite3.connect(store.path)
    for sql in statements:
        connection.execute(sql)
    connection.commit()
    connection.close()


def other_database(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.commit()
    connection.close()


def garbage(path):
    with open(path, "wb") as file:
        file.write(random.Random(7).randbytes(20_000))


DAMAGES = {
    "zero length": lambda path: Path(path).touch(),
    "garbage": garbage,
    "another program's database": other_database,
    "a directory": os.mkdir,
    "half a file": lambda path: Path(path).write_bytes(b"SQLite format 3\0" + bytes(50)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_history_is_set_aside_and_work_goes_on(state, damage):
    os.mkdir(state)
    path = os.path.join(state, "history.db")
    DAMAGES[damage](path)
    store = Store.open(state, now=T0)
    assert store.quarantined == f"{path}.broken-20260301T120000Z"
    assert os.path.exists(store.quarantined)
    assert min(store.next_ids()) > 1_700_000_000, "ids of the lost history could be given out again"
    store.apply([a_run(store.next_ids()[0])])
    store.close()
    again = Store.open(state, now=T0)
    assert again.quarantined is None
    assert len(again.runs(None, 5)) == 1
    again.close()


def test_journals_of_a_damaged_file_are_never_played_into_the_new_one(state):
    os.mkdir(state)
    for expected in ("history.db.broken-20260301T120000Z", "history.db.broken-20260301T120000Z-1"):
        for name in ("history.db", "history.db-wal", "history.db-shm", "history.db-journal"):
            garbage(os.path.join(state, name))
        store = Store.open(state, now=T0)
        store.apply([a_run()])
        store.close()
        assert os.path.basename(store.quarantined) == expected
        assert not must_start(state)
        assert not [name for name in os.listdir(state) if name in ("history.db-wal", "history.db-journal")]


def filled(state):
    store = Store.open(state, now=T0)
    store.apply([a_run(n, summary="s" * 300) for n in range(1, 60)])
    store.apply([an_attempt(n, report=json.dumps({"run": n, "text": "r" * 500})) for n in range(1, 60)])
    store.apply([an_incident(), a_notification(), JobMemo("nightly", "{}"), SlotRow("nightly", T0, SlotResult.RAN, run=1)])
    store.close()
    return store.path


def must_start(state):
    """Opens, reads all, writes, whatever is in *state*; True when the old file was set aside."""
    store = Store.open(state, now=T0)
    try:
        store.memos(), store.open_runs(), store.open_attempts(), store.open_incidents(), store.counters(), store.next_ids()
        store.apply([a_run(10**12)], durable=True)
        return store.quarantined is not None
    finally:
        store.close()


def test_a_flipped_bit_anywhere_never_stops_the_start(state, tmp_path):
    path = filled(state)
    sound = Path(path).read_bytes()
    chance = random.Random(20260301)
    places = [*range(100), *chance.sample(range(100, 4096), 60), *chance.sample(range(4096, len(sound)), 60)]
    noticed = 0
    for place in places:
        copy = tempfile.mkdtemp(dir=tmp_path)
        bad = bytearray(sound)
        bad[place] ^= 1 << chance.randrange(8)
        with open(os.path.join(copy, "history.db"), "wb") as file:
            file.write(bad)
        noticed += must_start(copy)
        shutil.rmtree(copy)
    assert noticed > 20


def test_a_file_cut_anywhere_never_stops_the_start(state, tmp_path):
    sound = Path(filled(state)).read_bytes()
    for size in (0, 1, 99, 100, 4095, *range(4096, len(sound), 8192)):
        copy = tempfile.mkdtemp(dir=tmp_path)
        with open(os.path.join(copy, "history.db"), "wb") as file:
            file.write(sound[:size])
        assert must_start(copy)
        shutil.rmtree(copy)


def test_a_foreign_or_missing_journal_never_stops_the_start(state, tmp_path):
    path = filled(state)
    other = Store.open(str(tmp_path / "other"), now=T0)
    other.apply([a_run(n) for n in range(1, 50)])
    shutil.copy(other.path + "-wal", path + "-wal")
    other.close()
    must_start(state)
    with open(path + "-wal", "wb") as file:
        file.write(b"\x37\x7f\x06\x82" + bytes(5000))
    must_start(state)


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StoreError, match=r"file/state: cannot make the state directory: Not a directory; create it .* supervisor\.state_dir"
    ):
        Store.open(str(tmp_path / "file" / "state"), now=T0)


STRANGER = """
    import os, sys
    from datetime import datetime, UTC
    from supervisor.adapters.store import Store
    from supervisor.errors import StoreError
    os.setgid(65534)
    os.setuid(65534)
    try:
        Store.open(sys.argv[1], now=datetime(2026, 3, 1, tzinfo=UTC))
    except StoreError as err:
        print(err)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_no_permission_is_an_error_and_not_a_quarantine():
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        state = os.path.join(parent, "state")
        path = filled(state)
        command = [sys.executable, "-c", textwrap.dedent(STRANGER), state]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=import_path())
        assert "state: no permission to write the state directory; give it to this user" in done.stdout, done.stderr
        os.chmod(state, 0o777)
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=import_path())
        assert "history.db: no permission to read and write it; give it to this user" in done.stdout, done.stderr
        assert os.listdir(state) == [os.path.basename(path)]


def import_path():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_history_that_another_process_holds_is_refused_in_words_and_not_set_aside(state, monkeypatch):
    monkeypatch.setattr("supervisor.adapters.store.connection.BUSY_S", 0.1)
    path = filled(state)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"history\.db: cannot be opened: database is locked; another process holds it"):
        Store.open(state, now=T0)
    holder.close()
    assert not must_start(state)


def test_a_locked_history_fails_the_write_and_recovers(state, monkeypatch):
    monkeypatch.setattr("supervisor.adapters.store.connection.BUSY_S", 0.1)
    store = Store.open(state, now=T0)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.apply([a_run()], durable=True)
    holder.execute("ROLLBACK")
    holder.close()
    store.apply([a_run()])
    assert store.open_runs() == [a_run()]
    store.close()


def fill(store):
    for n in range(1, 500):
        store.apply([a_run(n, summary="x" * 2000)])


def test_a_full_disk_fails_the_write_and_recovers(store):
    store._connection.execute("PRAGMA max_page_count = 60")
    with pytest.raises(StoreError, match=r"database or disk is full; make room on the disk"):
        fill(store)
    before = [run.id for run in store.runs(None, 1000)]
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.apply([a_run(1000)])
    assert [run.id for run in store.runs(None, 1000)] == [1000, *before]


SMALL_DISK = """
    import os, sys
    from datetime import UTC, datetime
    from supervisor.adapters.store import Store
    from supervisor.core.records import JobMemo
    from supervisor.errors import StoreError
    state = sys.argv[1]
    store = Store.open(state, now=datetime(2026, 3, 1, tzinfo=UTC))
    filler = os.open(state + "/filler", os.O_CREAT | os.O_WRONLY)
    try:
        while os.write(filler, bytes(4096)):
            pass
    except OSError as err:
        print(err.errno)
    written = 0
    try:
        while True:
            store.apply([JobMemo(str(written), "x" * 3000)], durable=bool(written % 2))
            written += 1
    except StoreError as err:
        print(err)
    os.close(filler)
    os.truncate(state + "/filler", 0)
    store.apply([JobMemo("after", "")], durable=True)
    store.close()
    again = Store.open(state, now=datetime(2026, 3, 1, tzinfo=UTC))
    print(again.quarantined, len(again.memos()) - written, "after" in again.memos())
"""


def test_a_really_full_disk_loses_nothing_that_was_written_and_recovers(tmp_path):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1) for a small disk of its own")
    script = tmp_path / "small_disk.py"
    script.write_text(textwrap.dedent(SMALL_DISK))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(disk), sys.executable, str(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=import_path())
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    full, refused, after = done.stdout.splitlines()
    assert full == "28", done.stderr
    assert refused == f"{disk}/history.db: writing 1 rows: database or disk is full; make room on the disk"
    assert after == "None 1 True"


def test_a_history_removed_under_way_is_made_anew(store, state):
    store.apply([a_run()])
    with store.reader() as reader:
        assert reader.runs(None, 5) == [a_run()]
        for name in os.listdir(state):
            os.unlink(os.path.join(state, name))
        store.apply([a_run(2)])
        assert reader.runs(None, 5) == [a_run(2)]


def test_damage_under_way_is_set_aside_and_the_write_goes_through(store):
    store.apply([a_run(n, summary="s" * 400) for n in range(1, 200)])
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(store.path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (os.path.getsize(store.path) - 4096))
    reader = store.reader()
    store._connection.close()
    store._connection = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    store.apply([a_run(500)])
    assert store.quarantined is not None
    assert store.open_runs() == [a_run(500)] == reader.runs(None, 5)
    reader.close()


WRITER = """
    import sys
    from datetime import UTC, datetime
    from supervisor.adapters.store import Store
    from supervisor.core.model import Trigger
    from supervisor.core.records import AttemptPhase, AttemptRow, RunRow
    T0 = datetime(2026, 3, 1, tzinfo=UTC)
    store = Store.open(sys.argv[1], now=T0)
    run = store.next_ids()[0]
    while True:
        rows = [AttemptRow(run, n, "j", AttemptPhase.INTENDED, "e", "b", T0, report='"' + "x" * 3000 + '"') for n in range(1, 6)]
        store.apply([RunRow(run, "j", Trigger.STARTUP, None, T0, attempts=5), *rows], durable=run % 7 == 0)
        print(run, flush=True)
        run += 1
"""


def test_a_writer_killed_at_any_moment_loses_no_committed_row_and_leaves_no_half_one(state):
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), state], stdout=subprocess.PIPE, text=True, env=import_path()
        )
        try:
            for _ in range(chance.randrange(1, 60)):
                acknowledged = int(child.stdout.readline())
        finally:
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split()
            child.stdout.close()
            child.wait(30)
        acknowledged = int(rest[-1]) if rest else acknowledged
        store = Store.open(state, now=T0)
        ids = sorted(run.id for run in store.runs(None, 10**6))
        assert store.quarantined is None
        assert ids == list(range(1, len(ids) + 1))
        assert len(ids) in (acknowledged, acknowledged + 1), "a row that was reported as written is gone"
        assert raw(store, "SELECT count(*) FROM attempts") == [(5 * len(ids),)]
        assert store.next_ids()[0] == len(ids) + 1
        store.close()


# ---------------------------------------------------------------- bounded


def test_pruning_keeps_the_newest_runs_of_each_job_and_all_that_is_open(store):
    old, new = T0 - timedelta(days=100), T0
    store.apply([a_run(n, "busy", started_at=old, ended_at=old) for n in range(1, 1001)])
    store.apply([an_attempt(n, 1, "busy", phase=AttemptPhase.ENDED) for n in range(1, 1001)])
    store.apply([a_run(n, "rare", started_at=old, ended_at=old) for n in range(2001, 2004)])
    store.apply([a_run(3001, "busy", started_at=new, ended_at=new), a_run(3002, "busy", started_at=old)])
    store.apply([an_incident(1, run=5, last_run=6), an_incident(2, closed_at=old), a_notification(1, at=old), a_notification(2, at=old)])
    store.apply([SlotRow("busy", old, SlotResult.RAN, run=1), SlotRow("busy", new, SlotResult.RAN, run=3001)])
    raw_write(store, "UPDATE outbox SET state = 'sent'")
    result = []
    thread = threading.Thread(target=lambda: result.append(store.prune(T0 - timedelta(days=90), keep_runs_per_job=10)))
    thread.start()
    for n in range(4001, 4101):  # the writer writes on meanwhile
        store.apply([a_run(n, "other")])
    thread.join(60)
    kept = [run.id for run in store.runs("busy", 5000)]
    assert kept == [3002, 3001, *range(1000, 992, -1), 6, 5]
    assert [run.id for run in store.runs("rare", 10)] == [2003, 2002, 2001]
    assert raw(store, "SELECT count(*) FROM attempts") == [(10,)]
    assert [slot.run for slot in store.slots("busy", 10)] == [3001]
    assert [incident.id for incident in store.incidents(open_only=False, limit=10)] == [1]
    assert raw(store, "SELECT incident FROM outbox") == [(1,)]
    assert result == [990 + 1 + 1 + 1]
    assert store.prune(T0 - timedelta(days=90), keep_runs_per_job=10) == 0


def test_a_history_of_the_first_schema_is_taken_over_with_all_that_it_holds(tmp_path, monkeypatch):
    with monkeypatch.context() as old:
        old.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        old.setattr(schema, "SCHEMA", 1)
        opening.create(str(tmp_path / "history.db"))
    connection = sqlite3.connect(tmp_path / "history.db")
    connection.execute(
        "INSERT INTO incidents VALUES (3, 'nightly', 'ab12', 'recursion', 'it called itself', 'critical', 10, 20, 1, 2, 5, 1, NULL, 0, NULL, NULL)"
    )
    connection.execute("INSERT INTO memos VALUES ('nightly', 'text')")
    connection.commit()
    connection.close()
    store = Store.open(str(tmp_path), now=T0)
    try:
        assert store.quarantined is None
        (found,) = store.open_incidents()
        assert (found.id, found.occurrences, found.alerted, found.acknowledged_by, found.gathered) == (3, 5, True, "", ())
        assert store.memos() == {"nightly": "text"}
        store.apply([structs.replace(found, acknowledged_by="ada", gathered=("ops", "mail")), GoodRow("nightly", 2, T0, "{}")])
        assert store.open_incidents()[0].gathered == ("ops", "mail")
        assert store.records_aside() == []
        store.apply([QuarantinedRecord("nightly", "u7", T0, 2, 1, Outcome.CRASHED, "ab12", "it died")])
        assert [(one.job, one.key) for one in store.records_aside()] == [("nightly", "u7")]
    finally:
        store.close()


def test_what_a_record_in_quarantine_died_of_is_kept_until_the_record_is_released(store):
    for run in (1, 2, 3):
        store.apply([a_run(run, ended_at=T0), an_attempt(run, phase=AttemptPhase.ENDED, ended_at=T0, report="{}")])
    aside = QuarantinedRecord("nightly", "u7", T0, 1, 1, Outcome.CRASHED, "ab12", "it died")
    store.apply([aside])
    later = T0 + timedelta(days=1)
    store.prune(later, keep_runs_per_job=1)
    assert [run.id for run in store.runs("nightly", 10)] == [3, 1]
    assert store.report(1, 1) == {}
    store.apply([structs.replace(aside, released_at=T0, released_because="an operator released it")])
    assert store.records_aside() == []
    store.prune(later, keep_runs_per_job=1)
    assert [run.id for run in store.runs("nightly", 10)] == [3]
    assert raw(store, "SELECT count(*) FROM quarantine") == [(0,)]


def test_a_service_keeps_the_attempt_that_a_record_in_quarantine_speaks_of(store):
    store.apply([a_run(1), *(an_attempt(1, n, phase=AttemptPhase.ENDED, ended_at=T0, report="{}") for n in range(1, 81))])
    store.apply([QuarantinedRecord("nightly", "u7", T0, 1, 2, Outcome.CRASHED, "ab12", "it died")])
    store.prune(T0 - timedelta(days=90))
    assert [one.attempt for one in store.attempts(1)] == [2, *range(31, 81)]


def test_whoever_counts_failed_reads_hears_of_each(tmp_path):
    store = Store.open(str(tmp_path), now=T0)
    heard = []
    with store.reader(lambda: heard.append(1)) as reader:
        assert reader.runs(None, 10) == []
        os.rename(tmp_path / "history.db", tmp_path / "elsewhere.db")
        with pytest.raises(StoreError):
            reader.runs(None, 10)
    store.close()
    assert heard == [1]
