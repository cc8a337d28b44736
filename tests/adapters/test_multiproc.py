"""prometheus_client's multiprocess files: written by the real library in real processes that are killed, read by us, held against the library's own
collector; sums over attempts that no death counts twice or forgets; files that are none."""

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import textwrap
import time

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from supervisor.adapters.exposition import RejectReason, TextError, parse
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.multiproc import Tally, files, tally
from supervisor.adapters.multiproc.files import as_text, read_folder, summed

WAIT_S = 60.0
COUNTS = """
    import os, signal, sys
    from prometheus_client import Counter, Gauge, Histogram, Summary
    rows = Counter("rows", "Rows read.", ["kind"])
    took = Histogram("took_seconds", "Time.", ["step"], buckets=(0.1, 1, 10))
    size = Summary("size_bytes", "Sizes.")
    gauges = {mode: Gauge(f"g_{mode}", "A gauge.", multiprocess_mode=mode)
              for mode in ("all", "liveall", "min", "livemin", "max", "livemax", "sum", "livesum", "mostrecent")}
    n = int(sys.argv[1])
    rows.labels("good").inc(n)
    rows.labels('b"ad\\\\').inc()
    for value in (0.05, 0.5, n):
        took.labels("a").observe(value)
    size.observe(n)
    for gauge in gauges.values():
        gauge.set(n)
    print("counted", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "lives":
        signal.pause()
"""


def start(folder, n, how):
    """A real process that counts with the real library."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(COUNTS), str(n), how], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"counted\n"
    process.stdout.close()
    return process


def count(folder, n, how="killed"):
    process = start(folder, n, how)
    process.wait(WAIT_S)
    return process.pid


@pytest.fixture
def living():
    """Processes that count and live, ended at the end."""
    made = []

    def make(folder, n):
        made.append(start(folder, n, "lives"))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait(WAIT_S)


def series(text_or_families):
    """{series: value} of a page or of families."""
    families = parse(text_or_families) if isinstance(text_or_families, str) else text_or_families
    return {(sample.name, sample.labels): sample.value for family in families for sample in family.samples}


def of_library(folder):
    """What the library's own collector makes of a directory."""
    registry = CollectorRegistry()
    found = {}
    for family in MultiProcessCollector(registry, path=str(folder)).collect():
        for sample in family.samples:
            found[(sample.name, tuple(sorted(sample.labels.items())))] = sample.value
    return found


# ---------------------------------------------------------------- reading


def test_what_killed_processes_counted_is_read_as_the_library_reads_it(tmp_path):
    for n in (3, 20, 7):
        count(tmp_path, n)
    ours = series(as_text(summed(read_folder(str(tmp_path)), lambda _: True)))
    assert ours == pytest.approx(of_library(tmp_path)), "but for the order in which fractions are added"
    assert ours[("rows_total", (("kind", "good"),))] == 30.0
    assert ours[("rows_total", (("kind", 'b"ad\\'),))] == 3.0
    assert ours[("took_seconds_bucket", (("le", "1.0"), ("step", "a")))] == 6.0
    assert ours[("took_seconds_count", (("step", "a"),))] == 9.0
    assert [ours[(f"g_{mode}", ())] for mode in ("min", "max", "sum", "mostrecent")] == [3.0, 20.0, 30.0, 7.0]


def test_live_gauges_go_with_their_process(tmp_path, living):
    dead = count(tmp_path, 3)
    alive = living(tmp_path, 20)
    ours = series(as_text(summed(read_folder(str(tmp_path)), tally._is_alive)))
    assert ours[("g_livesum", ())] == 20.0
    assert ours[("g_sum", ())] == 23.0
    assert {labels for name, labels in ours if name == "g_liveall"} == {(("pid", str(alive.pid)),)}
    assert {labels for name, labels in ours if name == "g_all"} == {(("pid", str(pid)),) for pid in (alive.pid, dead)}


# ---------------------------------------------------------------- sums over attempts


def total(look, name="rows_total"):
    return next(value for (sample, labels), value in series(look.families).items() if sample == name and ("kind", "good") in labels)


def look_and_clear(sums, job, live=()):
    """A look, with the folders that may go removed."""
    import shutil

    found = sums.look(job, live)
    for folder in found.discard:
        shutil.rmtree(folder)
    return found


def test_counters_add_up_over_attempts_and_over_our_own_lives(tmp_path):
    root = tmp_path / "multiproc"
    sums = Tally(str(root))
    assert sums.look("a", ()).families == []
    count(root / "a" / "1.1", 3)
    assert total(look_and_clear(sums, "a", ["1.1"])) == 3.0, "while it lives"
    assert look_and_clear(sums, "a", ["1.1"]).families is None, "nothing new"
    assert total(look_and_clear(sums, "a")) == 3.0, "when it is over"
    assert not (root / "a" / "1.1").exists()
    count(root / "a" / "1.2", 4)
    assert total(look_and_clear(sums, "a", ["1.2"])) == 7.0
    again = Tally(str(root))
    assert total(look_and_clear(again, "a", ["1.2"])) == 7.0, "the next life of ours, while the attempt goes on"
    assert total(look_and_clear(Tally(str(root)), "a")) == 7.0, "and one in which it had ended unseen"
    assert total(look_and_clear(Tally(str(root)), "a")) == 7.0
    assert (root / "a" / "sums.json").stat().st_mode & 0o777 == 0o600


def test_attempts_that_overlap_are_both_counted_once(tmp_path, living):
    root = tmp_path / "multiproc"
    sums = Tally(str(root))
    first, second = living(root / "a" / "1.1", 3), living(root / "a" / "2.1", 4)
    for _ in range(3):
        found = look_and_clear(sums, "a", ["1.1", "2.1"])
        assert found.families is None or total(found) == 7.0
    first.kill()
    first.wait(WAIT_S)
    assert total(look_and_clear(sums, "a", ["2.1"])) == 7.0
    second.kill()
    second.wait(WAIT_S)
    assert total(look_and_clear(sums, "a")) == 7.0


@pytest.mark.parametrize("cut", range(6))
def test_wherever_we_die_while_an_attempt_is_folded_it_is_counted_once(tmp_path, monkeypatch, cut):
    """Each call that changes the disk, made to fail for ever from the *cut*-th on: what a death or a full disk at that moment leaves."""
    root = tmp_path / "multiproc"
    for key, n in (("1.1", 3), ("1.2", 4), ("2.1", 5)):
        count(root / "a" / key, n)
    with monkeypatch.context() as patch:
        calls = []

        def failing(name, real):
            def call(*args, **more):
                writes = name != "open" or args[1] & os.O_WRONLY
                if writes:
                    calls.append(name)
                if writes and len(calls) > cut:
                    raise OSError(28, "No space left on device")
                return real(*args, **more)

            return call

        for name in ("open", "rename", "unlink"):
            patch.setattr(tally.os, name, failing(name, getattr(os, name)))
        look = Tally(str(root)).look("a", ())
        assert total(look) == 12.0
        for folder in look.discard[: cut % 3]:  # and of the directories only some had gone
            import shutil

            with contextlib.suppress(OSError):
                shutil.rmtree(folder)
    for _ in range(2):
        assert total(look_and_clear(Tally(str(root)), "a")) == 12.0


def test_files_of_processes_that_are_gone_are_folded_while_their_attempt_goes_on(tmp_path, monkeypatch):
    root = tmp_path / "multiproc"
    monkeypatch.setattr(tally, "DEAD_MAX", 6)
    sums = Tally(str(root))
    expected = 0
    for n in range(1, 9):
        count(root / "a" / "1.1", n)
        expected += n
        found = look_and_clear(sums, "a", ["1.1"])
        assert total(found) == expected
        assert total(look_and_clear(Tally(str(root)), "a", ["1.1"])) == expected, "another life of ours counts the same"
    left = [name for name in os.listdir(root / "a" / "1.1") if name.startswith(("counter", "histogram", "summary", "gauge_live"))]
    assert len(left) <= 6
    assert total(look_and_clear(sums, "a")) == expected


def test_a_job_that_changes_the_type_of_a_metric_loses_the_later_one_and_keeps_the_sums(tmp_path):
    root = tmp_path / "multiproc"
    count(root / "a" / "1.1", 3)
    sums = Tally(str(root))
    look_and_clear(sums, "a")
    folder = root / "a" / "2.1"
    folder.mkdir()
    write_file(folder / "summary_7.db", [(["rows", "rows_sum", {}, "Rows."], 1.0, 0.0)])
    found = look_and_clear(sums, "a")
    assert [problem.reason for problem in found.problems] == [RejectReason.CONFLICT]
    assert total(found) == 3.0
    assert look_and_clear(sums, "a").problems == (), "said once"


def test_sums_that_cannot_be_read_begin_anew(tmp_path):
    root = tmp_path / "multiproc"
    (root / "a").mkdir(parents=True)
    (root / "a" / "sums.json").write_text('{"families": {"x": 3}, "folded": 7}')
    count(root / "a" / "1.1", 3)
    assert total(look_and_clear(Tally(str(root)), "a")) == 3.0


# ---------------------------------------------------------------- files that are none


def write_file(path, entries, used=None, tail=b""):
    """A file as the library writes them."""
    body = b""
    for key, value, at in entries:
        encoded = key if isinstance(key, bytes) else json.dumps(key).encode()
        body += struct.pack("=i", len(encoded)) + encoded + b" " * (8 - (len(encoded) + 4) % 8) + struct.pack("=dd", value, at)
    data = struct.pack("=ii", 8 + len(body) if used is None else used, 0) + body + tail
    path.write_bytes(data + b"\0" * 64)


GOOD = (["x", "x_total", {"a": "b"}, "X."], 1.0, 0.0)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: write_file(path, [GOOD], used=10**6), RejectReason.MALFORMED),
        (lambda path: write_file(path, [GOOD], used=-1), RejectReason.MALFORMED),
        (lambda path: write_file(path, [GOOD], used=30), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(b"\xff\xfe", 1.0, 0.0)]), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(b"[1, 2]", 1.0, 0.0)]), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(b"[" * 5000, 1.0, 0.0)]), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(["x", "x_total", {"a": 7}, "X."], 1.0, 0.0)]), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(["x", "x y", {}, "X."], 1.0, 0.0)]), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(["x", "x_total", {}, "X."], float("nan"), 0.0)]), RejectReason.MALFORMED),
        (lambda path: write_file(path, [(["x", "x_total", {"__name__": "y"}, "X."], 1.0, 0.0)]), RejectReason.RESERVED),
        (lambda path: write_file(path, [(["x", "x_total", {"n": str(n)}, "X."], 1.0, 0.0) for n in range(2000)]), RejectReason.LIMIT),
        (lambda path: path.symlink_to("/etc/passwd"), RejectReason.NOT_A_FILE),
        (os.mkfifo, RejectReason.NOT_A_FILE),
        (lambda path: path.mkdir(), RejectReason.NOT_A_FILE),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_whole_and_said_once(tmp_path, make, reason):
    folder = tmp_path / "a" / "1.1"
    folder.mkdir(parents=True)
    write_file(folder / "counter_1.db", [GOOD])
    make(folder / "counter_2.db")
    sums = Tally(str(tmp_path))
    found = sums.look("a", ["1.1"])
    assert [problem.reason for problem in found.problems] == [reason]
    assert not found.families
    assert sums.look("a", ["1.1"]).problems == ()
    over = sums.look("a", ())
    assert not over.families
    assert over.discard == (str(folder),)


def test_a_sparse_file_and_a_crowd_of_files_cost_nothing(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    with (folder / "counter_1.db").open("wb") as file:
        file.write(struct.pack("=i", 2**30))
        file.truncate(10 * 2**30)
    with pytest.raises(TextError) as refused:
        read_folder(str(folder))
    assert refused.value.reason is RejectReason.TOO_LARGE
    (folder / "counter_1.db").unlink()
    for number in range(files.FILES_MAX + 1):
        (folder / f"counter_{number}.db").touch()
    with pytest.raises(TextError) as refused:
        read_folder(str(folder))
    assert refused.value.reason is RejectReason.LIMIT


def test_a_directory_that_the_job_replaced_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write_file(tmp_path / "elsewhere" / "counter_1.db", [GOOD])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.1").symlink_to(tmp_path / "elsewhere")
    found = Tally(str(tmp_path)).look("a", ["1.1"])
    assert [problem.reason for problem in found.problems] == [RejectReason.UNREADABLE]
    assert not found.families


def mutated(rng, data):
    """Bytes flipped, cut, doubled; lengths that lie."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data))
        match rng.randint(0, 4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 24)]
            case 2:
                data[at:at] = bytes(data[at : at + rng.randint(1, 40)])
            case 3:
                data[at : at + 4] = struct.pack("=i", rng.choice([-1, 0, 1, 7, 2**31 - 1, len(data), rng.randrange(1000)]))
            case _:
                data[at : at + 8] = struct.pack("=d", rng.choice([float("nan"), float("inf"), -1.0, 1e308]))
        if not data:
            return b"\0"
    return bytes(data)


def fuzz_files(tmp_path, seed, rounds):
    rng = random.Random(seed)
    source = tmp_path / "source"
    count(source, 5)
    good = {path.name: path.read_bytes()[: 8 + 2048] for path in source.iterdir()}
    folder = tmp_path / "root" / "a" / "1.1"
    folder.mkdir(parents=True)
    metrics, taken = JobMetrics(), 0
    for _ in range(rounds):
        for name, data in good.items():
            (folder / name).write_bytes(mutated(rng, data) if rng.random() < 0.15 else data)
        look = Tally(str(tmp_path / "root")).look("a", ["1.1"])
        assert all("\n" not in problem.detail for problem in look.problems)
        if look.families:
            taken += 1
            metrics.put("a", look.families, 1.0)
        page = "".join(metrics.lines())
        list(text_string_to_metric_families(page))
    assert taken > rounds // 10, "the mutants are not all refused at the door"


def test_no_mutant_of_a_file_breaks_the_page(tmp_path):
    fuzz_files(tmp_path, 1, 150)


@pytest.mark.slow
def test_no_mutant_of_a_file_breaks_the_page_in_a_long_run(tmp_path):
    fuzz_files(tmp_path, 2, 2000)


# ---------------------------------------------------------------- beside the text file


def test_a_family_from_both_sources_of_a_job_is_shown_once(tmp_path):
    count(tmp_path / "root" / "a" / "1.1", 3)
    text = tmp_path / "a.prom"
    text.write_text('# TYPE rows_total counter\nrows_total{kind="good"} 100\n# TYPE other gauge\nother 1\n')
    metrics = JobMetrics()
    assert metrics.update("a", str(text)) == []
    look = Tally(str(tmp_path / "root")).look("a", ["1.1"])
    problems = metrics.put("a", look.families, 5.0)
    assert [problem.reason for problem in problems] == [RejectReason.DUPLICATE]
    page = "".join(metrics.lines())
    parse(page)
    assert 'rows_total{job_name="a",kind="good"} 100.0' in page
    assert 'took_seconds_count{job_name="a",step="a"} 3.0' in page
    assert metrics.update("b", str(text)) == [], "another job may have the same family"
    metrics.drop("a")
    assert 'job_name="a"' not in "".join(metrics.lines())


def test_a_look_at_files_that_do_not_change_is_cheap(tmp_path):
    count(tmp_path / "a" / "1.1", 3)
    sums = Tally(str(tmp_path))
    sums.look("a", ["1.1"])
    before = time.process_time()
    for _ in range(100):
        assert sums.look("a", ["1.1"]).families is None
    assert time.process_time() - before < 100 * 0.02, "20 ms each would be a hundred times what it takes"
