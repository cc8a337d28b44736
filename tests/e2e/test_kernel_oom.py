"""The kernel's own OOM killer, provoked in a small control group: whose death it was is known by the kernel's log, not guessed from SIGKILL."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from deathbench import Bench

LIMIT = 48 << 20
GROW = "x = []\nwhile True: x.append(bytearray(2**20))\n"


def _place() -> tuple[str, str] | None:
    """(a folder in which memory groups may be made, the file that holds the limit), None where there is none."""
    for folder, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        probe = f"{folder}/mainstay-probe-{os.getpid()}"
        try:
            os.mkdir(probe)
        except OSError:
            continue
        is_there = os.path.exists(f"{probe}/{file}")
        os.rmdir(probe)
        if is_there:
            return folder, file
    return None


def _reads_the_log() -> bool:
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


PLACE = _place()
pytestmark = [
    pytest.mark.skipif(PLACE is None, reason="no memory control group can be made here (not root, or none is writable)"),
    pytest.mark.skipif(not _reads_the_log(), reason="/dev/kmsg cannot be read"),
]


@pytest.fixture
def group() -> Iterator[str]:
    """A control group of 48 MiB, empty and gone at the end."""
    assert PLACE is not None
    folder = f"{PLACE[0]}/mainstay-test-{uuid.uuid4().hex[:8]}"
    os.mkdir(folder)
    Path(folder, PLACE[1]).write_text(str(LIMIT))
    swap = Path(folder, "memory.swap.max")
    if swap.exists():
        swap.write_text("0")
    yield folder
    os.rmdir(folder)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.close()


def test_a_process_that_the_kernel_killed_for_memory_is_host_oom_and_named(bench: Bench, group: str) -> None:
    bench.start("it", ["--time", "60s"], ["/bin/sh", "-c", f"echo $$ > {group}/cgroup.procs; exec '{sys.executable}' -c '{GROW}'"])
    end = bench.end("it")
    assert (end.report["outcome"], end.report["signal"], end.code) == ("host_oom", 9, 137), end.told()
    assert "a control group around it ran out of memory" in end.report["summary"]
    assert "kernel log: the OOM killer ended pid" in end.evidence
    assert "at the limit of a control group" in end.evidence


WORKER = f"""
import os, signal, sys
pid = os.fork()
if pid == 0:
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    exec({GROW!r})
_, status = os.waitpid(pid, 0)
assert os.WTERMSIG(status) == 9
if len(sys.argv) > 2:
    signal.pause()
sys.exit(3)
"""


def test_a_worker_that_the_kernel_killed_is_named_when_the_rest_gives_up(bench: Bench, group: str) -> None:
    bench.start("it", ["--time", "60s"], [sys.executable, "-c", WORKER, f"{group}/cgroup.procs"])
    end = bench.end("it")
    assert (end.report["outcome"], end.report["limit"], end.code) == ("worker_lost", None, 3), end.told()
    assert "OOM killer ended 1 process of its tree" in end.report["summary"]


def test_a_worker_that_the_kernel_killed_is_named_when_the_rest_waits_for_ever(bench: Bench, group: str) -> None:
    bench.start("it", ["--time", "4s"], [sys.executable, "-c", WORKER, f"{group}/cgroup.procs", "wait"])
    end = bench.end("it")
    assert (end.report["outcome"], end.report["limit"], end.code) == ("worker_lost", "time", 124), end.told()
    assert "the rest never ended" in end.report["summary"]


def test_an_oom_kill_of_somebody_else_is_not_taken_for_ours(bench: Bench, group: str, tmp_path: Path) -> None:
    """The neighbour is killed for memory while our job, which waits for that, is killed by hand."""
    go = tmp_path / "go"
    waits = f"import os, time\nend = time.monotonic() + 60\nwhile not os.path.exists({str(go)!r}) and time.monotonic() < end: time.sleep(0.01)\n"
    neighbour = subprocess.Popen(["/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$0" -c "$1"', sys.executable, waits + GROW])
    program = (
        f"import os, time\nopen({str(go)!r}, 'w').close()\nend = time.monotonic() + 60\n"
        f"while open('/proc/{neighbour.pid}/stat').read().rpartition(')')[2].split()[0] != 'Z' and time.monotonic() < end: time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )
    try:
        bench.start("it", ["--time", "60s"], [sys.executable, "-c", program])
        end = bench.end("it")
    finally:
        neighbour.kill()
        code = neighbour.wait()
    assert code == -9
    assert (end.report["outcome"], end.report["signal"]) == ("signalled", 9), end.told()
    assert "the host's oom_kill count rose by 1" in end.evidence
    assert "kernel log" not in end.evidence
