"""user_metrics on real data gives the reference figures; on an invented community it finds the generator's own counts."""

import sqlite3

import community
import pytest
from prometheus_client.parser import text_string_to_metric_families
from user_metrics.run import Settings, run

NOW = 1_790_000_000.0  # 2026-09-21: later than all data, and the same every day

# Computed beforehand by independent means (other engines, networkx, pandas).
UCI = {
    "users": 1899, "acting_users": 1350,
    "busiest_day_timestamp_seconds": 1085529600,  # 2004-05-26
    "busiest_day_events": 2411, "busiest_day_active_users{1d}": 359, "busiest_day_active_users{7d}": 691, "busiest_day_active_users{30d}": 1014,
    "retention_returned_users{1}": 750, "retention_eligible_users{1}": 1894,
    "events_per_active_user{0.5}": 14, "events_per_active_user{0.9}": 115, "events_per_active_user{0.99}": 443, "events_per_active_user{1}": 1091,
    "graph_edges": 20296, "graph_reciprocated_edges": 12916,
    "graph_largest_component_users{strong}": 1294, "graph_users_in_cycles{contacts}": 1304,
    "graph_weak_components": 4, "graph_largest_component_users{weak}": 1893, "graph_component_chain_max": 3,
    "chain_cycles{first_contact}": 34, "chain_cycle_users{first_contact}": 70, "chain_below_cycle_users{first_contact}": 1784,
    "chain_unresolved_users{first_contact}": 1854, "chain_level_max{first_contact}": 13, "chain_parents{first_contact}": 1862,
    "identical_events_total": 37, "self_events_total": 0, "events_total{message}": 59835,
}  # fmt: skip
QUANTUM = {
    "users": 3460, "acting_users": 402,
    "busiest_day_timestamp_seconds": 1522195200,  # 2018-03-28
    "busiest_day_events": 135, "busiest_day_active_users{1d}": 39, "busiest_day_active_users{7d}": 55, "busiest_day_active_users{30d}": 96,
    "retention_returned_users{1}": 75, "retention_eligible_users{1}": 3346,
    "events_per_active_user{0.5}": 3, "events_per_active_user{0.9}": 22, "events_per_active_user{0.99}": 210, "events_per_active_user{1}": 403,
    "graph_edges": 1771, "graph_reciprocated_edges": 658,
    "graph_largest_component_users{strong}": 204, "graph_users_in_cycles{contacts}": 243,
    "graph_weak_components": 1, "graph_largest_component_users{weak}": 402, "graph_component_chain_max": 3,
    "chain_cycles{first_contact}": 6, "chain_cycle_users{first_contact}": 15, "chain_below_cycle_users{first_contact}": 141,
    "chain_unresolved_users{first_contact}": 156, "chain_level_max{first_contact}": 10,
    "identical_events_total": 0, "self_events_total": 1174,
}  # fmt: skip


def figures(report):
    return {sample.name + "".join(f"{{{text}}}" for _, text in sample.labels): sample.value for sample in report.samples}


def rows(report, *sources):
    """(read, accepted, repeated, rejected) of *sources* together; the invariant holds for each."""
    for tally in report.tallies.values():
        assert tally.read == tally.accepted + tally.repeated + tally.rejected_total
    chosen = [report.tallies[source] for source in sources]
    return tuple(sum(numbers) for numbers in zip(*((t.read, t.accepted, t.repeated, t.rejected_total) for t in chosen), strict=True))


def test_the_student_community_gives_the_reference_figures(shared_data, tmp_path):
    report = run(Settings(shared_data("uci-messages"), str(tmp_path), NOW))
    assert {name: figures(report)[name] for name in UCI} == UCI
    assert rows(report, "messages") == (59835, 59835, 0, 0)
    assert report.errors == []


def test_the_question_and_answer_site_gives_the_reference_figures(shared_data, tmp_path):
    report = run(Settings(shared_data("quantum-se"), str(tmp_path), NOW))
    assert {name: figures(report)[name] for name in QUANTUM} == QUANTUM
    assert rows(report, "posts", "comments") == (5085, 5073, 0, 12)
    rejected = report.tallies["posts"].rejected + report.tallies["comments"].rejected
    assert rejected == {"actor_missing": 3, "target_missing": 9}


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_size_of_a_batch_changes_nothing(shared_data, tmp_path, batch):
    if batch == 1:
        source = str(tmp_path / "small.db")
        community.write(source, community.make(1000, 3))
    else:
        source = shared_data("quantum-se")
    whole = run(Settings(source, str(tmp_path / "whole"), NOW))
    parts = run(Settings(source, str(tmp_path / "parts"), NOW, batch=batch))
    assert figures(parts) == figures(whole)


def test_peak_memory_stays_under_256_mib(shared_data, run_job, tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'jobs'); from user_metrics.main import main; code = main(sys.argv[1:]);"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(code)"
    )
    code, _, err = run_job("-c", code, "--source", shared_data("uci-messages"), "--state", str(tmp_path))
    assert code == 0
    assert int(err) < 256 * 1024


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_true_counts_of_the_generator_are_found_again(tmp_path, seed):
    path = str(tmp_path / "community.db")
    made = community.make(6000, seed)
    community.write(path, made)
    truth = made.truth
    report = run(Settings(path, str(tmp_path / "state"), NOW))
    found = figures(report)
    tally = report.tallies["events"]
    assert (tally.read, tally.accepted, tally.repeated) == (truth["rows_events"], truth["events"], truth["repeated"])
    assert tally.rejected == {name.removeprefix("rejected:"): n for name, n in truth.items() if name.startswith("rejected:")}
    assert [found[name] for name in ("users", "acting_users", "self_events_total", "graph_edges")] == [
        truth[name] for name in ("users", "acting_users", "self_events", "edges")
    ]
    for graph in ("first_contact", "invited_by"):
        for name in ("parents", "cycles", "cycle_users", "below_cycle_users", "level_max"):
            assert found[f"chain_{name}{{{graph}}}"] == truth[f"{graph}:{name}"], (graph, name)
    for kind in ("visit", "message", "reply"):
        assert found[f"events_total{{{kind}}}"] == truth[f"events:{kind}"]


def test_the_published_file_is_valid_and_says_the_same(tmp_path):
    path = str(tmp_path / "community.db")
    community.write(path, community.make(2000, 5))
    published = tmp_path / "metrics.prom"
    report = run(Settings(path, str(tmp_path / "state"), NOW, publish=str(published)))
    families = {family.name: family for family in text_string_to_metric_families(published.read_text())}
    samples = {
        sample.name + "".join(f"{{{text}}}" for text in sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    for name, value in figures(report).items():
        assert samples[f"app_{name}"] == value
    assert samples["user_metrics_rows_read_total{events}"] == report.tallies["events"].read
    assert samples["user_metrics_rows_rejected_total{events}{id_missing}"] == report.tallies["events"].rejected["id_missing"]
    assert samples["user_metrics_rounds{first_contact}"] <= samples["user_metrics_rounds_limit{first_contact}"]
    assert samples["user_metrics_runs_total{ok}"] == 1
    assert families["app_events"].type == "counter"
    assert all(family.documentation for family in families.values())


def test_a_database_url_through_sqlalchemy_gives_the_same_figures(tmp_path):
    path = str(tmp_path / "community.db")
    community.write(path, community.make(2000, 5, dirty=False))
    direct = run(Settings(path, str(tmp_path / "direct"), NOW))
    by_url = run(Settings(f"sqlite+pysqlite:///{path}", str(tmp_path / "url"), NOW, batch=300))
    assert figures(by_url) == figures(direct)
    again = run(Settings(f"sqlite+pysqlite:///{path}", str(tmp_path / "url"), NOW, batch=300))
    assert (again.tallies["events"].read, again.tallies["events"].repeated) == (2000, 2000)  # the overlap covers all of it
    assert figures(again) == figures(direct)


def test_the_statements_fit_the_tables_of_the_state(tmp_path):
    from user_metrics import define
    from user_metrics.state import State

    state = State(str(tmp_path / "state.sqlite"))
    for table in (define.account, define.event, define.event_day, define.user_day, define.edge, define.first_contact):
        assert [row[1] for row in state.rows(f"PRAGMA table_info({table.name})")] == [column.name for column in table.columns]
    state.close()


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mysql"])
def test_every_statement_compiles_without_the_engines_calendar(dialect):
    from user_metrics import define

    for metric in define.METRICS.values():
        text = define.compiled(metric, 20_000, dialect).lower()
        for word in ("date", "to_days", "extract", "interval", "percentile", "recursive", "unixepoch"):
            assert word not in text, (metric.name, word)


def test_an_empty_community_has_no_ratio_and_no_error(tmp_path):
    path = str(tmp_path / "empty.db")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created_at TEXT)")
    connection.execute("CREATE TABLE events (id INTEGER, ts TEXT, type TEXT, actor INTEGER, target INTEGER)")
    connection.commit()
    report = run(Settings(path, str(tmp_path / "a"), NOW, publish=str(tmp_path / "a.prom")))
    assert (report.as_of, report.samples, report.errors) == (None, [], [])
    connection.execute("INSERT INTO events VALUES (1, '2026-01-01T00:00:00Z', 'visit', 7, NULL)")
    connection.commit()
    connection.close()
    report = run(Settings(path, str(tmp_path / "b"), NOW))
    assert report.errors == []
    assert figures(report)["users"] == 0
    assert figures(report)["acting_users"] == 1
    assert "retention_ratio{1}" not in figures(report)


def test_a_day_that_is_not_over_is_not_reported(tmp_path):
    path = str(tmp_path / "now.db")
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created_at TEXT)")
    connection.execute("CREATE TABLE events (id INTEGER, ts REAL, type TEXT, actor INTEGER, target INTEGER)")
    connection.executemany("INSERT INTO events VALUES (?, ?, 'visit', ?, NULL)", [(1, NOW - 86400, 1), (2, NOW - 10, 2), (3, NOW - 10, 3)])
    connection.commit()
    connection.close()
    assert figures(run(Settings(path, str(tmp_path / "a"), NOW)))["active_users{1d}"] == 1
    assert figures(run(Settings(path, str(tmp_path / "b"), NOW, as_of_today=True)))["active_users{1d}"] == 2
    assert (
        figures(run(Settings(path, str(tmp_path / "a"), NOW + 86400)))["active_users{1d}"] == 2
    )  # the day is over: computed anew, without new data
