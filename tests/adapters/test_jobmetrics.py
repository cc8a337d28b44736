"""What jobs write, friendly and hostile, and the page that has to stay whole whatever it is."""

import os
import random
import socket
from pathlib import Path

import pytest
from metricmutants import SEEDS, mutant
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families
from promtool import check_metrics, needs_promtool, series

from supervisor.adapters import jobmetrics
from supervisor.adapters.exposition import Caps, RejectReason, parse
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.metrics import Metrics


@pytest.fixture
def written(tmp_path):
    """Writes a job's file the way it should be written: beside, then renamed into place."""

    def write(text: str | bytes, name: str = "a.prom") -> str:
        path = tmp_path / name
        path.with_suffix(".tmp").write_bytes(text.encode() if isinstance(text, str) else text)
        path.with_suffix(".tmp").rename(path)
        return str(path)

    return write


def shown(metrics: JobMetrics) -> dict[str, float]:
    return series("".join(metrics.lines()).encode())


def reasons(problems: list[jobmetrics.Problem]) -> list[RejectReason]:
    return [problem.reason for problem in problems]


# ---------------------------------------------------------------- the rules


def test_metrics_keep_their_names_and_get_the_job_as_a_label(written):
    metrics = JobMetrics()
    assert metrics.update("a", written('# HELP rows Rows.\n# TYPE rows counter\nrows{kind="x"} 5\n')) == []
    assert metrics.lines() == ['# HELP rows Rows.\n# TYPE rows counter\nrows{job_name="a",kind="x"} 5.0\n']


def test_a_file_written_by_the_client_library_is_taken_as_it_is(tmp_path):
    registry = CollectorRegistry()
    Counter("signups", "New accounts.", registry=registry).inc(3)
    Gauge("level", "Level.", ["tank"], registry=registry).labels('odd "\\\n one').set(2)
    Histogram("took_seconds", "Time.", registry=registry).observe(0.3)
    Summary("size_bytes", "Size.", registry=registry).observe(10)
    path = str(tmp_path / "a.prom")
    write_to_textfile(path, registry)
    metrics = JobMetrics()
    assert metrics.update("a", path) == []
    found = shown(metrics)
    assert found['signups_total{job_name="a"}'] == 3
    assert found['level{job_name="a",tank="odd "\\\n one"}'] == 2
    assert found['took_seconds_bucket{job_name="a",le="0.5"}'] == 1
    assert found['size_bytes_sum{job_name="a"}'] == 10


def test_labels_that_belong_to_us_or_to_the_scrape_become_exported(written):
    metrics = JobMetrics()
    metrics.update("a", written('x{job_name="b",job="c",instance="d",exported_job="e"} 1\n'))
    assert list(shown(metrics)) == [
        'x{exported_exported_job="c",exported_instance="d",exported_job="e",exported_job_name="b",job_name="a"}'
    ]


def test_reserved_names_are_refused_and_the_rest_of_the_file_is_taken(written):
    metrics = JobMetrics()
    problems = metrics.update(
        "a", written('mainstay_job_up{job_name="b"} 1\nup 1\nscrape_duration_seconds 1\nALERTS 1\nprocess_open_fds 3\nfine 1\n')
    )
    assert reasons(problems) == [RejectReason.RESERVED] * 4, "a client library's process_* is left out quietly"
    assert list(shown(metrics)) == ['fine{job_name="a"}']


def test_families_of_several_jobs_are_merged_and_the_first_help_wins(written):
    metrics = JobMetrics()
    metrics.update("a", written("# HELP x First.\n# TYPE x gauge\nx 1\n", "a.prom"))
    metrics.update("b", written("# HELP x Second.\n# TYPE x gauge\nx 2\n", "b.prom"))
    assert metrics.lines() == ['# HELP x First.\n# TYPE x gauge\nx{job_name="a"} 1.0\nx{job_name="b"} 2.0\n']


def test_a_family_of_another_type_than_the_page_has_is_dropped_and_told(written):
    metrics = JobMetrics()
    metrics.update("a", written("# TYPE x gauge\nx 1\n", "a.prom"))
    (problem,) = metrics.update("b", written("# TYPE x counter\nx 2\ny 1\n", "b.prom"))
    assert problem.reason is RejectReason.CONFLICT
    assert problem.detail == "x as counter cannot stand beside x as gauge"
    assert list(shown(metrics)) == ['x{job_name="a"}', 'y{job_name="b"}']
    metrics.drop("a")
    assert metrics.update("b", written("# TYPE x counter\nx 2\n", "b.prom")) == [], "whose rival has left is taken"


@pytest.mark.parametrize("order", [("h", "h_sum"), ("h_sum", "h")])
def test_a_gauge_that_looks_like_a_part_of_a_histogram_cannot_stand_beside_it(written, order):
    texts = {"h": '# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n', "h_sum": "# TYPE h_sum gauge\nh_sum 9\n"}
    metrics = JobMetrics()
    assert metrics.update("a", written(texts[order[0]], "a.prom")) == []
    assert reasons(metrics.update("b", written(texts[order[1]], "b.prom"))) == [RejectReason.CONFLICT]
    shown(metrics)


def test_nor_can_it_within_one_file(written):
    text = '# TYPE h_sum gauge\nh_sum 9\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_count 1\n'
    metrics = JobMetrics()
    assert reasons(metrics.update("a", written(text))) == [RejectReason.CONFLICT]
    assert shown(metrics) == {'h_sum{job_name="a"}': 9}


@pytest.mark.parametrize("run", [None, 7])
def test_a_bad_file_is_told_once_and_leaves_the_last_good_one_in_place(written, run):
    metrics = JobMetrics()
    metrics.update("a", written("x 1\n"))
    taken = metrics.last_update("a")
    path = written("x 2\nnonsense\n")
    (problem,) = metrics.update("a", path, run)
    assert problem.reason is RejectReason.MALFORMED
    assert problem.detail == f"{path}: line 2: nonsense: a value is missing"
    assert metrics.update("a", path, run) is None
    assert shown(metrics) == {'x{job_name="a"}': 1}
    assert metrics.last_update("a") == taken


def test_metrics_outlive_the_file_and_leave_with_the_job(written):
    metrics = JobMetrics()
    path = written("x 1\n")
    metrics.update("a", path)
    Path(path).unlink()
    assert metrics.update("a", path) is None
    assert shown(metrics) == {'x{job_name="a"}': 1}
    metrics.drop("a")
    metrics.drop("a")
    assert metrics.lines() == []
    assert metrics.last_update("a") is None


def test_counters_add_up_over_runs_and_gauges_do_not(written):
    metrics = JobMetrics()
    text = '# TYPE c_total counter\nc_total 5\n# TYPE g gauge\ng 5\n# TYPE h histogram\nh_bucket{le="+Inf"} 2\nh_sum 1.5\nh_count 2\n'
    for run in (1, 2, 2, 3):
        metrics.update("a", written(text), run=run)
    found = shown(metrics)
    assert found['c_total{job_name="a"}'] == 15
    assert found['h_count{job_name="a"}'] == 6
    assert found['h_sum{job_name="a"}'] == 4.5
    assert found['g{job_name="a"}'] == 5
    metrics.update("a", written("g 1\n"), run=4)
    assert list(shown(metrics)) == ['g{job_name="a"}'], "what the newest file does not have is not shown"
    metrics.update("a", written(text), run=5)
    assert shown(metrics)['c_total{job_name="a"}'] == 20, "and goes on where it was when it is back"


def test_counters_that_the_job_declares_as_totals_are_shown_as_they_are_in_every_run(written):
    metrics = JobMetrics()
    for run, value in ((1, 100), (2, 100), (3, 140)):
        metrics.update("a", written(f"# MAINSTAY TOTALS\n# TYPE rows_total counter\nrows_total {value}\n"), run)
        assert shown(metrics) == {'rows_total{job_name="a"}': float(value)}


def test_another_path_is_another_run_and_a_counter_that_falls_has_begun_anew(written):
    metrics = JobMetrics()
    metrics.update("a", written("# TYPE c_total counter\nc_total 5\n", "run-1.prom"))
    metrics.update("a", written("# TYPE c_total counter\nc_total 7\n", "run-2.prom"))
    assert shown(metrics) == {'c_total{job_name="a"}': 12}
    metrics.update("a", written("# TYPE c_total counter\nc_total 2\n", "run-2.prom"))
    assert shown(metrics) == {'c_total{job_name="a"}': 14}


def test_accumulated_counters_survive_a_restart_of_the_supervisor(written):
    metrics = JobMetrics()
    text = '# TYPE c_total counter\nc_total{k="v"} 5\n'
    for run in (1, 2, 3):
        path = written(text)
        metrics.update("a", path, run=run)
    saved = metrics.changed()
    assert saved == {("c_total", 'job_name="a",k="v"'): 10.0}
    assert metrics.changed() == {}
    again = JobMetrics(saved)
    again.update("a", path, run=3)
    assert shown(again) == {'c_total{job_name="a",k="v"}': 15}
    again.drop("a")
    again.update("a", path, run=3)
    assert shown(again) == {'c_total{job_name="a",k="v"}': 5}, "a job that has left is forgotten"


def test_what_is_remembered_of_a_job_is_bounded(written):
    metrics = JobMetrics()
    for run in range(5):
        text = "# TYPE c_total counter\n" + "".join(f'c_total{{k="{run}-{index}"}} 1\n' for index in range(900))
        assert metrics.update("a", written(text), run=run) == []
    assert len(metrics._jobs["a"].base) <= 1000


def test_all_jobs_together_are_bounded(written, monkeypatch):
    monkeypatch.setattr(jobmetrics, "MAX_SAMPLES_IN_ALL", 3)
    metrics = JobMetrics()
    assert metrics.update("a", written("x 1\ny 1\n", "a.prom")) == []
    assert reasons(metrics.update("b", written("x 1\ny 1\n", "b.prom"))) == [RejectReason.LIMIT]
    assert metrics.update("a", written("x 1\ny 1\nz 1\n", "a.prom")) == []


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"x 1\r\n", RejectReason.MALFORMED),
        (b"\xff\xfe", RejectReason.MALFORMED),
        (b"<html><body>502 Bad Gateway</body></html>", RejectReason.MALFORMED),
        (b"x 1 1700000000000\n", RejectReason.TIMESTAMP),
        (b"x 1\nx 2\n", RejectReason.DUPLICATE),
        (b"# TYPE x speed\nx 1\n", RejectReason.MALFORMED),
        (b"x" * (10 * 2**20), RejectReason.TOO_LARGE),
        (b"".join(b'x{i="%d"} 1\n' % index for index in range(200_000))[: 2**20 - 1], RejectReason.LIMIT),
        (b'x{i="' + b"v" * 900_000 + b'"} 1\n', RejectReason.LIMIT),
    ],
    ids=["CRLF", "UTF-16", "HTML", "timestamp", "duplicate", "type", "10 MB", "many series", "long label"],
)
def test_a_bad_file_is_refused_whole_with_its_reason(written, content, expected):
    metrics = JobMetrics()
    metrics.update("a", written("good 1\n"))
    assert reasons(metrics.update("a", written(content))) == [expected]
    assert shown(metrics) == {'good{job_name="a"}': 1}


def test_nan_and_infinities_of_gauges_are_passed_on(written):
    metrics = JobMetrics()
    assert metrics.update("a", written("x NaN\ny +Inf\nz -inf\n")) == []
    assert "".join(metrics.lines()).count("NaN") == 1
    assert 'z{job_name="a"} -Inf\n' in "".join(metrics.lines())


def test_a_symbolic_link_is_not_followed(written, tmp_path):
    os.symlink(written("x 1\n", "target.prom"), tmp_path / "a.prom")
    metrics = JobMetrics()
    (problem,) = metrics.update("a", str(tmp_path / "a.prom"))
    assert problem.reason is RejectReason.NOT_A_FILE
    assert "symbolic link" in problem.detail
    assert metrics.lines() == []


def test_a_fifo_a_directory_and_a_socket_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    metrics = JobMetrics()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        for name in ("fifo", "directory"):
            assert reasons(metrics.update("a", str(tmp_path / name))) == [RejectReason.NOT_A_FILE]
        assert reasons(metrics.update("a", str(tmp_path / "socket"))) == [RejectReason.UNREADABLE]
    assert reasons(metrics.update("a", "/dev/zero")) == [RejectReason.NOT_A_FILE]
    assert reasons(metrics.update("a", "a\0b")) == [RejectReason.UNREADABLE]
    assert metrics.lines() == []


def test_a_sparse_file_of_ten_gigabytes_costs_nothing(tmp_path):
    path = tmp_path / "a.prom"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
    assert reasons(JobMetrics().update("a", str(path))) == [RejectReason.TOO_LARGE]


def test_a_file_of_somebody_else_is_refused(written):
    path = written("x 1\n")
    (problem,) = JobMetrics().update("a", path, owner=os.getuid() + 1)
    assert problem.reason is RejectReason.NOT_A_FILE
    assert problem.detail == f"{path}: belongs to uid {os.getuid()}, not to the job's uid {os.getuid() + 1}"
    assert JobMetrics().update("a", path, owner=os.getuid()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_file_in_a_folder_of_the_jobs_user_has_to_be_the_users(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "metrics.prom").write_text("x 1\n")
    os.chown(folder, 12345, 12345)
    (problem,) = JobMetrics().update("a", str(folder / "metrics.prom"))
    assert problem.reason is RejectReason.NOT_A_FILE
    os.chown(folder / "metrics.prom", 12345, 12345)
    assert JobMetrics().update("a", str(folder / "metrics.prom")) == []


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_look(written, monkeypatch):
    path = written("x 1\n")
    real_read = os.read

    def read_and_append(fd: int, size: int) -> bytes:
        piece = real_read(fd, size)
        if piece == b"x 1\n":
            with open(path, "ab") as file:
                file.write(b"y 1\n")
        return piece

    metrics = JobMetrics()
    with monkeypatch.context() as patch:
        patch.setattr(jobmetrics.os, "read", read_and_append)
        (problem,) = metrics.update("a", path)
    assert problem.reason is RejectReason.UNREADABLE
    assert "rename it into place" in problem.detail
    assert metrics.update("a", path) == []
    assert "".join(metrics.lines()).startswith('# HELP x \n# TYPE x untyped\nx{job_name="a"} 1.0\n')


# ---------------------------------------------------------------- fuzz


@pytest.mark.parametrize("seed", range(20))
def test_no_mutant_of_a_hundred_breaks_the_page(written, seed):
    rng = random.Random(seed)
    metrics, ours = JobMetrics(), Metrics({})
    taken = 0
    for number in range(100):
        problems = metrics.update(f"job-{number}", written(mutant(rng)))
        taken += metrics.last_update(f"job-{number}") is not None
        assert all("\n" not in problem.detail for problem in problems)
    assert taken > 10, "the mutants are not all refused at the door"
    page = ours.render(metrics.lines())
    assert list(text_string_to_metric_families(page.decode()))
    parse(page.decode(), Caps(samples=10**6, text=10**6))  # which is stricter: no series twice, one TYPE each
    if needs_promtool.args[0] is False:
        code, words = check_metrics(page)
        assert code in (0, 3), words  # 3: lint about names and HELP, which are the job's own affair


@pytest.mark.real
@needs_promtool
def test_promtool_reads_the_merged_page(written):
    metrics = JobMetrics()
    for job, seed in enumerate(SEEDS):
        metrics.update(f"job-{job}", written(seed, f"{job}.prom"))
    code, words = check_metrics(Metrics({}).render(metrics.lines()))
    assert code in (0, 3), words
