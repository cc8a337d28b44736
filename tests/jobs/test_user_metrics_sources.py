"""Sources as they really are: dirty, growing, rewritten, damaged, locked. Every row is accounted for, every error is one line."""

import csv
import fcntl
import gzip
import os
import random
import sqlite3
from dataclasses import replace

import community
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from user_metrics.errors import Code
from user_metrics.main import main
from user_metrics.run import Settings, run

NOW = 1_790_000_000.0
USERS = "id,created_at\n1,2026-01-01T00:00:00Z\n2,2026-01-02T00:00:00Z\n3,2026-01-03T00:00:00Z\n"
HEADER = "id,ts,type,actor,target\n"


def folder(tmp_path, events, users=USERS):
    path = tmp_path / "data"
    path.mkdir(exist_ok=True)
    (path / "users.csv").write_text(users)
    (path / "events.csv").write_bytes(events if isinstance(events, bytes) else events.encode())
    settle(path)
    return str(path)


def settle(path):
    """As if the files had been written long ago, so that a last line without newline is taken."""
    for name in os.listdir(path):
        os.utime(path / name, (NOW - 10_000, NOW - 10_000 + random.random()))


def figures(report):
    return {sample.name + "".join(f"{{{text}}}" for _, text in sample.labels): sample.value for sample in report.samples}


def quarantine(state):
    connection = sqlite3.connect(os.path.join(state, "state.sqlite"))
    found = dict(connection.execute("SELECT place, reason FROM quarantine"))
    connection.close()
    return found


DIRTY = [
    (b"1,2026-02-01T00:00:00Z,visit,1,\n", None),
    (b'2,"2026-02-01T00:00:00Z",visit,"1",\r\n', None),  # quotes and CRLF are fine
    (b"3,2026-02-01T00:00:00Z,visit,1\n", "columns_wrong"),
    (b'4,2026-02-01T00:00:00Z,"visit,1,\n', "columns_wrong"),  # an open quote costs this row and no other
    (b"5,2026-02-01T00:00:00Z,caf\xe9,1,\n", "encoding"),
    (b",2026-02-01T00:00:00Z,visit,1,\n", "id_missing"),
    (b"7,,visit,1,\n", "timestamp_missing"),
    (b"8,2026-02-30T00:00:00Z,visit,1,\n", "timestamp_unparsable"),
    (b"9,1815-06-18T00:00:00Z,visit,1,\n", "timestamp_out_of_range"),
    (b"10,2027-06-18T00:00:00Z,visit,1,\n", "timestamp_out_of_range"),
    (b"11,2026-02-01T00:00:00Z,visit,,\n", "actor_missing"),
    (b"12,2026-02-01T00:00:00Z,reply,1,\n", "target_missing"),
    (b"13,2026-02-01T00:00:00Z,,1,\n", "type_unknown"),
    (b"1,2026-02-01T00:00:00Z,other,1,\n", "id_duplicate"),
    (b"1,2026-02-01T00:00:00Z,visit,1,\n", "repeated"),
    (b"\n", "blank"),
    (b"14,2026-02-01T01:00:00+01:00,visit,unknown person,\n", None),  # people without an account act too
    (b"15,2026-02-01T00:00:00Z," + b"x" * 3_000_000 + b",1,\n", "columns_wrong"),
    (b"16,2026-02-01T00:00:00Z,visit,2,3", None),  # no newline at the end of the file
]


def test_each_kind_of_dirt_is_named_with_its_place_and_costs_one_row(tmp_path):
    source = folder(tmp_path, b"\xef\xbb\xbf" + HEADER.encode() + b"".join(line for line, _ in DIRTY))
    report = run(Settings(source, str(tmp_path / "state"), NOW, max_reject_ratio=1))
    tally = report.tallies["events"]
    assert (tally.read, tally.accepted, tally.repeated) == (18, 4, 1)
    offset, expected = len(HEADER) + 3, {}
    for number, (line, verdict) in enumerate(DIRTY, 2):
        if verdict not in (None, "repeated", "blank"):
            expected[f"events.csv:{number}:{offset}"] = verdict
        offset += len(line)
    assert quarantine(str(tmp_path / "state")) == expected
    assert figures(report)["acting_users"] == 3


def test_actors_without_an_account_can_be_rejected(tmp_path):
    source = folder(tmp_path, HEADER + "1,2026-02-01T00:00:00Z,visit,1,\n2,2026-02-01T00:00:00Z,visit,9,\n")
    report = run(Settings(source, str(tmp_path / "state"), NOW, reject_unknown_actors=True))
    assert report.tallies["events"].rejected == {"actor_unknown": 1}


def test_a_file_that_grew_is_read_on(tmp_path):
    first = HEADER + "1,2026-02-01T00:00:00Z,visit,1,\n"
    source = folder(tmp_path, first)
    settings_ = Settings(source, str(tmp_path / "state"), NOW)
    run(settings_)
    folder(tmp_path, first + "2,2026-02-02T00:00:00Z,visit,2,\n")
    report = run(settings_)
    assert (report.tallies["events"].read, report.tallies["users"].read) == (1, 0)
    assert figures(report)["acting_users"] == 2
    assert run(settings_).computed is False


def test_a_file_that_was_rewritten_is_read_again_and_nothing_counts_twice(tmp_path):
    lines = [f"{n},2026-02-{n:02}T00:00:00Z,visit,{1 + n % 3},\n" for n in range(1, 20)]
    source = folder(tmp_path, HEADER + "".join(lines[:10]))
    settings_ = Settings(source, str(tmp_path / "state"), NOW)
    run(settings_)
    folder(tmp_path, HEADER + "".join(reversed(lines)))
    report = run(settings_)
    tally = report.tallies["events"]
    assert (tally.read, tally.accepted, tally.repeated) == (19, 9, 10)
    assert figures(report) == figures(run(replace(settings_, state=str(tmp_path / "fresh"))))


def test_a_rejected_row_that_was_mended_is_taken(tmp_path):
    source = folder(tmp_path, HEADER + "1,2026-02-31T00:00:00Z,visit,1,\n2,2026-02-01T00:00:00Z,visit,2,\n")
    settings_ = Settings(source, str(tmp_path / "state"), NOW)
    run(settings_)
    folder(tmp_path, HEADER + "1,2026-02-28T00:00:00Z,visit,1,\n2,2026-02-01T00:00:00Z,visit,2,\n")
    report = run(settings_)
    assert (report.tallies["events"].accepted, report.tallies["events"].repeated) == (1, 1)
    assert figures(report)["acting_users"] == 2


def test_a_line_still_being_written_is_left_for_the_next_run(tmp_path):
    source = folder(tmp_path, HEADER + "1,2026-02-01T00:00:00Z,visit,1,\n")
    settings_ = Settings(source, str(tmp_path / "state"), NOW)
    path = os.path.join(source, "events.csv")
    with open(path, "a") as file:
        file.write("2,2026-02-01T00:00:00Z,visit,2")
    assert run(settings_).tallies["events"].read == 1
    with open(path, "a") as file:
        file.write("2,\n")
    report = run(settings_)
    assert (report.tallies["events"].read, report.tallies["events"].rejected_total) == (1, 0)
    assert figures(report)["acting_users"] == 2


PEOPLE = st.sampled_from("12345")
EVENTS = st.lists(st.tuples(st.integers(0, 40), PEOPLE, PEOPLE), min_size=1, max_size=25)


@given(EVENTS, st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_way_to_grow_gives_the_figures_of_one_reading(tmp_path_factory, events, data):
    """Late rows included: the events come in any order of time."""
    tmp_path = tmp_path_factory.mktemp("grow")
    lines = [
        f"{n},2026-02-01T{hour // 2:02}:{hour % 2 * 30:02}:00Z,message,{actor},{target}\n" for n, (hour, actor, target) in enumerate(events)
    ]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=4)))
    for cut in (*cuts, len(lines)):
        source = folder(tmp_path, HEADER + "".join(lines[:cut]))
        report = run(Settings(source, str(tmp_path / "grown"), NOW, batch=3))
    assert figures(report) == figures(run(Settings(source, str(tmp_path / "whole"), NOW)))


def test_a_damaged_archive_is_one_line_and_what_was_read_is_kept(tmp_path, capsys):
    source = folder(tmp_path, HEADER)
    os.unlink(os.path.join(source, "events.csv"))
    rows = "".join(f"{n},2026-02-01T00:00:00Z,visit,{random.randrange(10**9)},\n" for n in range(20_000))
    packed = gzip.compress((HEADER + rows).encode())
    path = os.path.join(source, "events.csv.gz")
    with open(path, "wb") as file:
        file.write(packed[: len(packed) * 3 // 4])
    arguments = ["--source", source, "--state", str(tmp_path / "state"), "--batch", "1000"]
    assert main(arguments) == Code.FAILED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "ends early or is damaged" in error
    with open(path, "wb") as file:
        file.write(packed)
    report = run(Settings(source, str(tmp_path / "state"), NOW))
    assert 0 < report.tallies["events"].read < 20_000
    assert figures(report)["events_total{visit}"] == 20_000


def test_a_changed_format_does_not_empty_the_metrics(tmp_path, capsys):
    good = "".join(f"{n},2026-02-01T00:00:00Z,visit,1,\n" for n in range(100))
    source = folder(tmp_path, HEADER + good)
    published = tmp_path / "metrics.prom"
    arguments = ["--source", source, "--state", str(tmp_path / "state"), "--publish", str(published)]
    assert main(arguments) == Code.OK
    before = published.read_text()
    folder(tmp_path, HEADER + good + "".join(f"{n},01/02/2026,visit,1,\n" for n in range(100, 150)))
    for _ in range(2):  # and it stays so until somebody did something
        assert main(arguments) == Code.TOO_MANY_REJECTED
        assert published.read_text() == before
    assert "50 of 50 rows rejected (timestamp_unparsable 50)" in capsys.readouterr().err
    assert main([*arguments, "--max-reject-ratio", "1"]) == Code.OK
    assert published.read_text() != before
    assert main(arguments) == Code.OK


def test_a_second_run_on_the_same_state_gives_way(tmp_path, capsys):
    source = folder(tmp_path, HEADER)
    os.mkdir(tmp_path / "state")
    with open(tmp_path / "state" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["--source", source, "--state", str(tmp_path / "state")]) == Code.ALREADY_RUNNING
    assert "another run is using this state" in capsys.readouterr().err
    assert main(["--source", source, "--state", str(tmp_path / "state")]) == Code.OK


def test_a_state_does_not_mix_two_sources(tmp_path, capsys):
    source = folder(tmp_path, HEADER)
    other = str(tmp_path / "c.db")
    community.write(other, community.make(1000, 1))
    assert main(["--source", source, "--state", str(tmp_path / "state")]) == Code.OK
    assert main(["--source", other, "--state", str(tmp_path / "state")]) == Code.FAILED
    assert "start it anew with --full" in capsys.readouterr().err
    assert main(["--source", other, "--state", str(tmp_path / "state"), "--full", "--max-reject-ratio", "1"]) == Code.OK


def database(path, rows):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created_at TEXT)")
    connection.execute("CREATE TABLE events (id TEXT, ts TEXT, type TEXT, actor TEXT, target TEXT)")
    insert(connection, rows)
    return connection


def insert(connection, numbers):
    connection.executemany("INSERT INTO events VALUES (?, '2026-02-01', 'visit', ?, NULL)", [(f"e{n}", f"p{n % 5}") for n in numbers])


def test_a_table_that_was_renumbered_is_read_again(tmp_path):
    path = str(tmp_path / "live.db")
    connection = database(path, range(100))
    settings_ = Settings(path, str(tmp_path / "state"), NOW, batch=7)
    run(settings_)
    connection.execute("DELETE FROM events WHERE rowid <= 50")
    connection.execute("VACUUM")
    insert(connection, range(100, 120))
    connection.close()
    report = run(settings_)
    tally = report.tallies["events"]
    assert (tally.read, tally.accepted, tally.repeated) == (70, 20, 50)
    assert run(settings_).tallies["events"].read == 0


def test_a_last_row_that_was_replaced_is_noticed(tmp_path):
    path = str(tmp_path / "live.db")
    connection = database(path, range(10))
    settings_ = Settings(path, str(tmp_path / "state"), NOW)
    run(settings_)
    connection.execute("DELETE FROM events WHERE id = 'e9'")
    insert(connection, [77])  # SQLite gives it the rowid that just became free
    connection.close()
    assert run(settings_).tallies["events"].accepted == 1


def test_a_view_and_other_names_can_be_read(tmp_path):
    path = str(tmp_path / "other.db")
    connection = database(path, range(10))
    connection.execute("CREATE VIEW log AS SELECT id AS nr, ts AS moment, type, actor FROM events")
    connection.execute("ALTER TABLE users RENAME TO members")
    connection.close()
    arguments = ["--source", path, "--state", str(tmp_path / "state"), "--users-table", "members", "--events-table", "log", "--batch", "3"]
    assert main([*arguments, "--column", "log.id=nr", "--column", "log.ts=moment"]) == Code.OK


def test_text_that_is_not_utf8_in_a_database_is_quarantined(tmp_path):
    path = str(tmp_path / "odd.db")
    connection = database(path, range(3))
    connection.execute("INSERT INTO events VALUES ('x', '2026-02-01', CAST(x'636166e9' AS TEXT), 'p', NULL)")
    connection.close()
    assert run(Settings(path, str(tmp_path / "state"), NOW)).tallies["events"].rejected == {"encoding": 1}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--source", "/does/not/exist"], Code.FAILED, "there is no such file or directory"),
        (["--source", "{tmp}"], Code.FAILED, "needs users.csv with events.csv"),
        (["--source", "{tmp}/text"], Code.FAILED, "file is not a database"),
        (["--source", "{tmp}/empty.db"], Code.FAILED, "there is no table 'users'; name it with --users-table"),
        (["--source", "nodialect://x"], Code.FAILED, "check the URL"),
        (
            ["--source", "{tmp}/lacks"],
            Code.FAILED,
            "events.csv:1: there is no column 'ts' (found: id, when, actor); name it with --column events.ts=NAME",
        ),
        (["--source", "{tmp}/empty"], Code.FAILED, "events.csv:1: there is no header line"),
        (["--source", "{tmp}/lacks", "--column", "events.tz=when"], Code.USAGE, "there is no such field"),
        (["--source", "{tmp}/lacks", "--column", "ts"], Code.USAGE, "write TABLE.FIELD=NAME"),
        (["explain", "nothing"], Code.USAGE, "there is no such metric"),
        (["rejected", "--state", "{tmp}/none"], Code.FAILED, "there is no state here"),
        (["--source", "{tmp}/fine", "--state", "{tmp}/text"], Code.FAILED, "--state takes a directory"),
        (["--source", "{tmp}/fine", "--publish", "{tmp}/none/metrics"], Code.FAILED, "need a file in a directory"),
        (["--source", "{tmp}/fine", "--state", "{tmp}/broken"], Code.FAILED, "restore the state from a copy"),
    ],
)
def test_an_error_is_one_line_that_names_place_and_mend(tmp_path, capsys, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no database, but long enough to be looked at " * 10)
    sqlite3.connect(tmp_path / "empty.db").close()
    for name, events in (("lacks", "id,when,actor\n"), ("empty", ""), ("fine", HEADER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "users.csv").write_text(USERS)
        (tmp_path / name / "events.csv").write_text(events)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.sqlite").write_text("not a database at all " * 100)
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith("user_metrics: ")
    assert says in error
    assert error.count("\n") == 1


def test_every_command_prints_what_it_should(tmp_path, capsys):
    path = str(tmp_path / "c.db")
    community.write(path, community.make(1000, 1))
    state = str(tmp_path / "state")
    assert main(["check", "--source", path]) == Code.OK
    assert "id_duplicate" in capsys.readouterr().out
    assert not os.path.exists(state)
    assert main(["run", "--source", path, "--state", state, "--json"]) == Code.OK
    assert '"computed": true' in capsys.readouterr().out
    assert main(["rejected", "--state", state, "--reason", "id_missing"]) == Code.OK
    assert [row[2] for row in csv.reader(capsys.readouterr().out.splitlines(), delimiter="\t")] == ["id_missing", "id_missing"]
    assert main(["status", "--state", state]) == Code.OK
    assert ": ok after" in capsys.readouterr().out
    assert main(["explain", "retention"]) == Code.OK
    assert "-- postgresql" in capsys.readouterr().out
    assert main(["explain"]) == Code.OK
    assert "first_contact" in capsys.readouterr().out
