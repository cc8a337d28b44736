"""One live process tree, measured."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import arming
from supervisor.adapters import guard
from supervisor.adapters.sampler import Sampler
from supervisor.core.model import Look, Mono

SWALLOW = "import signal\nsignal.alarm(60)\ndef f(n): return f(n + 1)\nwhile True:\n    try: f(0)\n    except Exception: pass\n"


class Blind:
    """An eye that may not see, as under Yama."""

    def depth(self) -> None:
        return None

    def look(self) -> Look:
        return Look()

    def waiting(self) -> str:
        return ""

    def close(self) -> None:
        pass


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
    sampler = Sampler(child.pid, None, lambda _pid: Blind(), counted)
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
    sampler = Sampler(child.pid, None, lambda _pid: Blind(), lambda _pid: (next(caught), 0))
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
