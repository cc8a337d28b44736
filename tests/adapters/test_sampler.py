"""One live process tree, measured."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import arming, procfs
from supervisor.adapters import guard
from supervisor.adapters.sampler import Sampler
from supervisor.core.evidence import Look, Waiting
from supervisor.core.model import Mono
from supervisor.core.study import Spot

SWALLOW = "import signal\nsignal.alarm(60)\ndef f(n): return f(n + 1)\nwhile True:\n    try: f(0)\n    except Exception: pass\n"


class Blind:
    """An eye that may not see, as under Yama."""

    def depth(self) -> None:
        return None

    def look(self) -> Look:
        return Look()

    def waiting(self) -> str:
        return ""

    def threads(self) -> tuple[Waiting, ...]:
        return ()

    def glimpse(self) -> tuple[Spot, ...]:
        return ()

    def close(self) -> None:
        pass


class Counting:
    """Guards that tell of swallowed errors only."""

    def __init__(self, swallowed) -> None:
        self.swallowed = swallowed

    def ask(self, _pid: int) -> bool:
        return False

    def tasks(self, _pid: int) -> None:
        return None


@pytest.fixture
def started(tmp_path: Path) -> Iterator:
    """Starts guarded Python code; whatever lives at the end is killed."""
    children = []

    def start(code: str) -> subprocess.Popen:
        environment = arming.arm({"PATH": "/usr/bin:/bin"}, str(tmp_path), 200)
        children.append(subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_blind_eye_is_helped_by_the_count_of_the_guard_when_errors_are_swallowed(started, tmp_path):
    counts = {"n": 0}

    def counted(pid: int) -> tuple[int, int]:
        counts["n"] += 60  # 300 a second, as the loop below would give where the interpreter counts (3.12 and later)
        return max(guard.swallowed(str(tmp_path), pid)[0], counts["n"]), 0

    child = started(SWALLOW)
    sampler = Sampler(child.pid, None, lambda _pid: Blind(), Counting(counted))
    try:
        at, hits = 10.0, 0
        for _ in range(10):
            at += 0.2001
            sample = sampler.sample(Mono(at), 0, 0)
            assert sample is not None
            hits += sample.recursion_error
        assert hits == 9  # the first look has nothing to compare with
    finally:
        sampler.close()


def test_a_job_that_handles_one_now_and_then_is_nobodys_business(started):
    child = started("import time; print('ready', flush=True); time.sleep(60)")
    assert child.stdout.readline() == b"ready\n"
    caught = iter(range(0, 1000, 5))
    sampler = Sampler(child.pid, None, lambda _pid: Blind(), Counting(lambda _pid: (next(caught), 0)))
    try:
        samples = [sampler.sample(Mono(10.0 + 0.25 * i), 0, 0) for i in range(10)]
        assert not any(sample.recursion_error for sample in samples if sample)
    finally:
        sampler.close()


def test_memory_processes_and_cpu_are_those_of_the_whole_tree(started):
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n    block = bytearray(64 << 20); print('ready', flush=True); time.sleep(60)\n"
        "time.sleep(60)\n"
    )
    child = started(code)
    assert child.stdout.readline() == b"ready\n"
    sampler = Sampler(child.pid, None, lambda _pid: Blind())
    try:
        sample = sampler.sample(Mono(1.0), 0, 0)
        assert sample is not None
        assert sample.processes == 2
        assert sample.memory_bytes > 64 << 20
        assert len(sampler.members()) == 2
    finally:
        for pid in sampler.refresh()[1:]:
            subprocess.run(["kill", "-9", str(pid)], check=True)
        sampler.close()


def test_a_tree_that_is_gone_measures_nothing(started):
    child = started("print('ready', flush=True)")
    child.wait(30)
    sampler = Sampler(child.pid, None, lambda _pid: Blind())
    assert sampler.sample(Mono(time.monotonic()), 0, 0) is None
    assert sampler.signature() == b""
    sampler.close()


WORKS_WHEN_TOLD = """import signal, sys, threading
signal.alarm(60)
def work():
    for line in sys.stdin:
        kept.append(bytearray(int(line)))
        print('done', flush=True)
kept = []
if {threads}:
    threads = [threading.Thread(target=work, daemon=True)]
    threads[0].start()
print('ready', flush=True)
if {threads}:
    threads[0].join()
work()
"""


@pytest.mark.parametrize("threads", [False, True])
def test_a_process_that_sleeps_shows_no_sign_and_one_that_worked_does_whichever_thread_it_was(tmp_path, threads):
    code = WORKS_WHEN_TOLD.format(threads=threads)
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"ready\n"
            wait_for(lambda: procfs.read_stat(child.pid).state == "S")
            sampler = Sampler(child.pid, None, lambda _pid: Blind())
            assert sampler.sample(Mono(1.0), 0, 0).processes == 1 + threads
            seen = sampler.signature(rested=True)
            assert seen
            assert sampler.signature(rested=True) == seen
            child.stdin.write(b"2000000\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"done\n"
            assert sampler.signature(rested=True) != seen
            sampler.close()
        finally:
            child.kill()


def wait_for(fact, patience_s: float = 30.0) -> None:
    end = time.monotonic() + patience_s
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_want_of_descriptors_is_not_the_end_of_the_process(started):
    child = started("print('ready', flush=True); import time; time.sleep(60)")
    assert child.stdout.readline() == b"ready\n"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        sampler = Sampler(child.pid, None, lambda _pid: Blind())
        assert sampler.sample(Mono(1.0), 0, 0) is None
        assert sampler.is_blind
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sampler.sample(Mono(2.0), 0, 0) is not None
    assert not sampler.is_blind
    assert sampler.is_alive()
    sampler.close()


def test_a_process_that_began_at_another_time_is_not_ours(started):
    child = started("print('ready', flush=True); import time; time.sleep(60)")
    assert child.stdout.readline() == b"ready\n"
    began = procfs.read_stat(child.pid).started
    sampler = Sampler(child.pid, None, lambda _pid: Blind())
    sampler.confirm(began)
    assert sampler.is_alive()
    assert sampler.sample(Mono(1.0), 0, 0) is not None
    sampler.confirm(began + 1)
    assert not sampler.is_alive()
    assert sampler.sample(Mono(2.0), 0, 0) is None
    assert not sampler.arm(1 << 30)
    sampler.close()


def test_a_main_process_that_has_ended_is_not_alive_before_it_is_reaped_either(started):
    child = started("")
    sampler = Sampler(child.pid, None, lambda _pid: Blind())
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not sampler.is_alive()
    sampler.close()


class Deep:
    """An eye on one process that stands so deep."""

    def __init__(self, pid: int, frames: dict[int, int]) -> None:
        self.frames, self.limit, self.recursion_error = frames.get(pid, 1), 1000, False

    def depth(self) -> "Deep":
        return self

    def close(self) -> None:
        pass


def test_a_runaway_in_the_fortieth_worker_is_seen(started):
    child = started("print('ready', flush=True); import time; time.sleep(60)")
    assert child.stdout.readline() == b"ready\n"
    workers = tuple(range(10_000_000, 10_000_039))
    frames = {workers[-1]: 900}

    class Wide(Sampler):
        def refresh(self) -> tuple[int, ...]:
            return (self.pid, *workers)

    sampler = Wide(child.pid, None, lambda pid: Deep(pid, frames))
    try:
        sampler._members = (child.pid, *workers)
        depths = [sampler.sample(Mono(1.0 + look), 0, 0).depth for look in range(12)]
        first = depths.index(900)
        assert first <= 7
        assert set(depths[first:]) == {900}, "it was lost again"
        assert sampler.deepest == workers[-1]
    finally:
        sampler.close()


def test_an_orphan_counts_beside_the_main_process_and_not_in_its_place(started):
    child = started("print('ready', flush=True); import time; time.sleep(60)")
    assert child.stdout.readline() == b"ready\n"
    orphan = started("block = bytearray(64 << 20); print('ready', flush=True); import time; time.sleep(60)")
    assert orphan.stdout.readline() == b"ready\n"
    sampler = Sampler(child.pid, None, lambda _pid: Blind())
    try:
        sampler.strays = (orphan.pid,)
        sample = sampler.sample(Mono(1.0), 0, 0)
        assert sampler.members() == (child.pid, orphan.pid)
        assert sample is not None
        assert sample.processes == 2
        assert sample.memory_bytes > 64 << 20
    finally:
        sampler.close()


def test_the_dead_that_nobody_waits_for_count_with_their_cpu_time_and_no_memory(started):
    code = (
        "import os, time\n"
        "if (child := os.fork()) == 0:\n    while time.process_time() < 0.3: pass\n    os._exit(0)\n"
        "os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT); print('ready', flush=True); time.sleep(60)\n"
    )
    child = started(code)
    assert child.stdout.readline() == b"ready\n"
    sampler = Sampler(child.pid, None, lambda _pid: Blind())
    try:
        sample = sampler.sample(Mono(1.0), 0, 0)
        assert sample is not None
        assert sample.processes == 2
        assert sample.cpu_s >= 0.25
    finally:
        sampler.close()
