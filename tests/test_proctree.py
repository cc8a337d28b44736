"""Ending trees of processes, whatever state they are in."""

import os
import select
import subprocess
import sys
import time

import pytest

from supervisor import procfs, proctree

LEADERLESS = """
import ctypes, signal, threading, time
signal.alarm(60)
def work():
    print("ready", flush=True)
    while True: time.sleep(0.01)
threading.Thread(target=work).start()
time.sleep(0.2)
ctypes.CDLL(None).pthread_exit(None)
"""


def ended(pid: int, seconds: float) -> bool:
    fd = os.pidfd_open(pid)
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def test_a_process_whose_first_thread_has_ended_is_alive_and_is_killed():
    child = subprocess.Popen([sys.executable, "-c", LEADERLESS], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        while (stat := procfs.read_stat(child.pid)) is not None and stat.state != "Z":
            os.sched_yield()
        assert stat is not None
        assert not stat.is_dead
        assert proctree.kill_round(lambda: [child.pid]) == {child.pid}
        assert ended(child.pid, 30)
        assert child.wait(30) == -9
        assert proctree.kill_round(lambda: [child.pid]) == set()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_stopped_process_is_killed():
    child = subprocess.Popen(["sleep", "60"])
    try:
        proctree.freeze(lambda: [child.pid])
        assert proctree.kill_round(lambda: [child.pid]) == {child.pid}
        assert child.wait(30) == -9
    finally:
        child.kill()
        child.wait()


def test_a_zombie_is_dead():
    child = subprocess.Popen(["true"])
    assert ended(child.pid, 30)
    stat = procfs.read_stat(child.pid)
    assert stat is not None
    assert stat.is_dead
    assert proctree.kill_round(lambda: [child.pid]) == set()
    assert child.wait() == 0


PEAK_OF = """
import os, subprocess, sys
from supervisor import proctree
mib = int(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", f"bytearray({mib} << 20)"])
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
*_, peak = proctree.reap(child.pid)
print(peak >> 20)
"""


@pytest.mark.parametrize("ours_mib", [0, 200])
def test_the_peak_of_a_child_is_told_whatever_started_us(ours_mib: int):
    """The kernel's peak of a process begins with what its parent had before the exec: `mainstay exec` may be started by something large."""
    nested = f"import subprocess, sys; x = bytearray({ours_mib} << 20); print(subprocess.check_output([sys.executable, '-c', {PEAK_OF!r}, '100'], text=True))"
    peak = int(subprocess.check_output([sys.executable, "-c", nested], text=True, timeout=60))
    assert 100 <= peak < 150


def test_the_peak_of_a_child_that_is_smaller_than_we_is_not_known():
    large = "x = bytearray(200 << 20)\n" + PEAK_OF
    assert int(subprocess.check_output([sys.executable, "-c", large, "1"], text=True, timeout=60)) == 0


def test_what_an_environment_claims_is_told_from_what_cannot_be_read():
    claims = {"none": {"A": "1"}, "half": {"MAINSTAY_RUN": "3"}, "both": {"MAINSTAY_RUN": "3", "MAINSTAY_ATTEMPT": "2"}, "empty": {}}
    told = {}
    for name, environment in claims.items():
        child = subprocess.Popen(["/bin/sleep", "60"], env=environment)
        try:
            deadline = time.monotonic() + 30
            # For an instant of its exec it has none yet.
            while (claim := procfs.claimed_attempt(child.pid)) is None and environment and time.monotonic() < deadline:
                time.sleep(0.001)
            told[name] = claim
        finally:
            child.kill()
            child.wait()
    assert told == {"none": "", "half": "", "both": "3.2", "empty": None}


def policy() -> int:
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK


def test_who_ends_a_tree_goes_first_where_it_may_and_is_as_usual_afterwards():
    before, seen = policy(), []
    script = "import os, time\nfor _ in range(3): os.fork()\nprint(flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        for _ in range(2**3):
            assert child.stdout.readline()

        def roots() -> list[int]:
            seen.append(policy())
            return [child.pid]

        assert len(proctree.kill_round(roots)) == 2**3
    assert set(seen) <= {os.SCHED_RR, before}
    assert os.geteuid() != 0 or os.SCHED_RR in seen
    assert policy() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may choose")
def test_a_policy_that_somebody_chose_for_us_is_kept():
    try:
        for chosen, first in ((os.SCHED_BATCH, os.SCHED_RR), (os.SCHED_FIFO, os.SCHED_FIFO)):
            os.sched_setscheduler(0, chosen, os.sched_param(1 if chosen == os.SCHED_FIFO else 0))
            proctree.go_first()
            proctree.go_first()
            assert policy() == first
            proctree.as_usual()
            assert policy() == chosen
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
