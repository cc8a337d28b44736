"""Ending trees of processes, whatever state they are in."""

import os
import select
import subprocess
import sys

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
        assert proctree.kill_round(lambda: [child.pid]) == 1
        assert ended(child.pid, 30)
        assert child.wait(30) == -9
        assert proctree.kill_round(lambda: [child.pid]) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_stopped_process_is_killed():
    child = subprocess.Popen(["sleep", "60"])
    try:
        proctree.freeze(lambda: [child.pid])
        assert proctree.kill_round(lambda: [child.pid]) == 1
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
    assert proctree.kill_round(lambda: [child.pid]) == 0
    assert child.wait() == 0
