"""Every limit through a real daemon: what the job died of, what people and Prometheus are told, and that nobody else noticed."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import Mainstay
from overshoot import allowed

from supervisor import procfs

CHILDREN = Path(__file__).resolve().parent.parent / "children"


@dataclass(frozen=True)
class Case:
    """A job that crosses one line: its command, its limits, what it has to be called and what `why` has to say."""

    command: tuple[str, ...]
    limits: str
    outcome: str
    limit: str | None
    says: str  # in the explanation, after the outcome


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def child(name: str, *words: str) -> tuple[str, ...]:
    return python(str(CHILDREN / name), *words)


BUSY = "t = 0\nwhile True: t += 1\n"
GROW = "import time\nx = []\nwhile True:\n    x.append(bytearray(2**20)); time.sleep(0.002)\n"

LIMIT_BYTES = 100 * 2**20  # of memory-bit-by-bit
CASES = {
    "memory-bit-by-bit": Case(python("-c", GROW), "memory: 100MiB", "memory", "memory", "raise limits.memory"),
    "memory-at-once": Case(python("-c", "x = bytearray(3 << 30)"), "memory: 100MiB", "memory", "memory", "raise limits.memory"),
    "memory-of-children": Case(
        ("/bin/sh", "-c", f"for n in 1 2 3; do '{sys.executable}' -c 'x = bytearray(60 << 20); import time; time.sleep(60)' & done; wait"),
        "memory: 150MiB",
        "memory",
        "memory",
        "raise limits.memory",
    ),
    "time": Case(("sleep", "60"), "time: 1s", "time", "time", "raise limits.time"),
    "cpu": Case(python("-c", BUSY), "cpu: 1s", "cpu", "cpu", "raise limits.cpu"),
    "cpu-of-children": Case(
        ("/bin/sh", "-c", f"'{sys.executable}' -c '{BUSY}' & '{sys.executable}' -c '{BUSY}' & wait"),
        "cpu: 1s",
        "cpu",
        "cpu",
        "raise limits.cpu",
    ),
    "stall": Case(("/bin/sh", "-c", "echo on my way; sleep 60"), "stall: 1s", "stalled", "stall", "raise limits.stall"),
    "processes": Case(child("limit_breed.py", "60"), "processes: 10", "processes", "processes", "raise limits.processes"),
    "processes-away": Case(child("limit_breed.py", "60", "away"), "processes: 10", "processes", "processes", "raise limits.processes"),
    "threads": Case(
        python(
            "-c",
            "import threading, time\nfor _ in range(60): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(60)",
        ),
        "processes: 10",
        "processes",
        "processes",
        "raise limits.processes",
    ),
    "output": Case(("yes", "a line that says nothing"), "output: 1MiB", "output", "output", "raise limits.output"),
    "recursion-plain": Case(child("limit_recurse.py", "plain"), "recursion: 200", "recursion", "recursion", "visit → follow"),
    "recursion-no-line": Case(child("limit_recurse.py", "plain"), "", "recursion", None, "visit → follow"),
    "recursion-raised": Case(child("limit_recurse.py", "raised"), "recursion: 400", "recursion", "recursion", "visit → follow"),
    "recursion-heap": Case(child("limit_recurse.py", "heap"), "recursion: 400, memory: 100MiB", "recursion", "recursion", "keep"),
    "recursion-c": Case(child("limit_recurse.py", "c"), "recursion: 400, memory: 200MiB", "recursion", "recursion", "chain"),
    "recursion-repr": Case(child("limit_recurse.py", "repr"), "recursion: 400", "recursion", "recursion", "__repr__"),
    "recursion-generator": Case(child("limit_recurse.py", "generator"), "recursion: 400", "recursion", "recursion", "walk"),
    "recursion-swallow": Case(
        child("limit_recurse.py", "swallow"), "recursion: 300, time: 30s", "recursion", "recursion", "caught again and again"
    ),
    "recursion-tasks": Case(child("limit_recurse.py", "tasks"), "memory: 150MiB, time: 30s", "recursion", "memory", "tasks"),
    "recursion-processes": Case(
        child("limit_recurse.py", "processes"), "processes: 200, time: 30s", "recursion", "processes", "started itself"
    ),
}


def config() -> str:
    lines = ["jobs:", "  neighbour: {shell: 'while :; do date +%s%N >> beats; sleep 0.05; done', limits: {time: 1h}}"]
    for name, case in CASES.items():
        limits = case.limits if "time:" in case.limits else ", ".join(filter(None, [case.limits, "time: 1m"]))
        lines.append(f"  {name}: {{command: {json.dumps(case.command)}, schedule: manual, restart: {{when: never}}, limits: {{{limits}}}}}")
    lines.append(
        "  drops: {shell: 'yes | head -c 1000000; echo; echo the end', schedule: manual, limits: {output: 64KiB, output_action: drop, time: 1m}}"
    )
    lines.append("  files: {shell: 'ulimit -n; ulimit -Hn; ulimit -c', schedule: manual, limits: {files: 123, time: 1m}}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    daemon = Mainstay(tmp_path_factory.mktemp("limits"), config())
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(autouse=True)
def neighbour(mainstay: Mainstay) -> Iterator[None]:
    """It goes on, in the same process, whatever happens beside it; and nothing else is left."""
    before = mainstay.wait_for_state("neighbour", "running")["runs"]
    yield
    beats = (mainstay.folder / "beats").stat().st_size
    mainstay.wait_for(lambda: (mainstay.folder / "beats").stat().st_size > beats, "the next beat of the neighbour")
    after = mainstay.job("neighbour")["runs"]
    assert after == before
    core = {mainstay.guardian_pid, mainstay.keeper_pid, mainstay.brain_pid}
    ours = {before[0]["pid"]}

    def strangers() -> bool:
        return not [pid for pid in mainstay.tree() if pid not in core and not _below(pid, ours)]

    mainstay.wait_for(strangers, "that nothing else lives", 5)


def _below(pid: int, roots: set[int]) -> bool:
    while pid > 1:
        if pid in roots:
            return True
        stat = procfs.read_stat(pid)
        if stat is None:
            return True
        pid = stat.ppid
    return False


@pytest.mark.parametrize("name", CASES)
def test_a_job_over_its_line_is_ended_and_explained(mainstay: Mainstay, name: str) -> None:
    case = CASES[name]
    run = mainstay.run_job(name)
    report = mainstay.why(name)
    assert (run["outcome"], report["limit"]) == (case.outcome, case.limit), report
    assert report["run"] == run["run"]
    assert report["summary"] == run["summary"]
    told = mainstay.cli("why", name)
    assert told.returncode == 0, told.stderr
    assert f"{name} run {run['run']}, attempt 1: {case.outcome.upper()}\n" in told.stdout
    assert case.says in " ".join(told.stdout.split()), told.stdout
    mainstay.wait_for_metric(f'mainstay_job_runs_total{{job_name="{name}",outcome="{case.outcome}"}}', 1)
    if case.outcome == "recursion":
        assert report["cycle"], report
        assert report["cycle"]["frames"], report
        kind = report["cycle"]["kind"]
        mainstay.wait_for_metric(f'mainstay_job_recursion_detected_total{{job_name="{name}",kind="{kind}"}}', 1)


def test_memory_is_not_let_grow_far_beyond_its_line(mainstay: Mainstay) -> None:
    report = mainstay.why("memory-bit-by-bit")
    assert 0.95 * LIMIT_BYTES < report["memory_peak_bytes"] <= allowed(report, LIMIT_BYTES)


def test_output_over_its_line_can_be_dropped_instead_and_is_counted(mainstay: Mainstay) -> None:
    run = mainstay.run_job("drops")
    assert run["outcome"] == "succeeded"
    written = len("y\n") * 500_000 + len("\nthe end\n")
    mainstay.wait_for_metric('mainstay_job_output_bytes_total{job_name="drops"}', written)
    dropped = mainstay.metrics()['mainstay_job_output_dropped_bytes_total{job_name="drops"}']
    kept = (mainstay.state / "logs" / "drops" / f"{run['run']}.1.log").stat().st_size
    assert kept + dropped == written
    assert 64 * 1024 <= kept < 64 * 1024 + 2**20  # a chunk that is under way is kept whole
    assert any("dropped" in line for line in mainstay.why("drops")["evidence"])


def test_limits_of_the_kernel_are_set_before_the_first_instruction(mainstay: Mainstay) -> None:
    assert mainstay.run_job("files")["outcome"] == "succeeded"
    assert mainstay.ask("/jobs/files/logs", n=10)["text"].split() == ["123", "123", "0"]


def test_an_incident_opens_for_every_bad_end_and_its_number_stands_in_the_metrics(mainstay: Mainstay) -> None:
    assert mainstay.run_job("time")["outcome"] == "time"
    incident = mainstay.job("time")["incidents"]
    assert len(incident) == 1
    assert mainstay.metrics()['mainstay_incidents_open{severity="critical"}'] >= 1
    assert os.path.basename(mainstay.ask(f"/incidents/{incident[0]}")["report"]["job"]) == "time"
