"""What /proc tells in pieces, late, or by another thread."""

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from supervisor import procfs

PATIENCE_S = 30.0
MANY = """
import os, signal, sys
signal.alarm(60)
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
print("ready", flush=True)
sys.stdin.read()
"""
READY = """
import signal, sys
signal.alarm(60)
print("ready", flush=True)
sys.stdin.read()
"""
LEADERLESS = """
import ctypes, signal, threading, time
signal.alarm(60)
block = bytearray(64 << 20)
def work():
    print("ready", flush=True)
    while True: time.sleep(0.01)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""
IN_AN_EXEC = b"7 (exe) X 0 -1 -1 0 -1 0 0 0 0 0 0 0 0 0 20 0 0 0 5 0 0"
AFTER_IT = b"7 (exe) R 1 7 7 0 -1 0 0 0 0 0 3 1 0 0 20 0 1 0 5 0 0"


@contextlib.contextmanager
def ready(script: str, *words: str, **more: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-IS", "-c", script, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more) as child:  # type: ignore[call-overload]
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.stdin.close()
            child.kill()


def test_a_list_of_children_is_read_beyond_its_first_page() -> None:
    with ready(MANY, "900") as child:
        found = procfs.children(child.pid)
        assert len(found) == len(set(found)) == 900
        assert len(procfs.children_text(child.pid)) > procfs.PAGE_BYTES


def test_our_own_children_are_seen_as_they_come_and_go_and_of_every_thread() -> None:
    kin, quit_now = procfs.Kin(), threading.Event()
    try:
        assert sorted(kin.children()) == sorted(procfs.children(os.getpid()))
        with ready(READY) as first:
            assert first.pid in kin.children()
            born: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()

            def start_one() -> None:
                with ready(READY) as second:
                    born.put(second)
                    quit_now.wait(PATIENCE_S)

            thread = threading.Thread(target=start_one)
            thread.start()
            second = born.get(timeout=PATIENCE_S)
            assert {first.pid, second.pid} <= set(kin.children())
            quit_now.set()
            thread.join()
            assert second.pid not in kin.children()
        assert first.pid not in kin.children()
        kin.close()
        assert sorted(kin.children()) == sorted(procfs.children(os.getpid()))
    finally:
        quit_now.set()
        kin.close()


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 4097, 12_288, 100_000])
def test_a_file_is_read_to_its_end_or_to_the_limit(tmp_path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    assert procfs.read_file(str(tmp_path / "file"), 1 << 20) == data
    assert procfs.read_file(str(tmp_path / "file"), 5000) == data[:5000]
    assert procfs.read_file(str(tmp_path / "none")) is None


def test_an_environment_of_many_pages_is_found_whole() -> None:
    claims = {f"V{number}": "x" * 5000 for number in range(20)} | {"MAINSTAY_RUN": "3", "MAINSTAY_ATTEMPT": "2"}
    with ready("print('ready', flush=True); import sys; sys.stdin.read()", env=claims) as child:
        assert procfs.claimed_attempt(child.pid) == "3.2"


def test_a_process_whose_first_thread_has_ended_shows_itself_by_another() -> None:
    with ready(LEADERLESS, env={"MAINSTAY_RUN": "3", "MAINSTAY_ATTEMPT": "2"}) as child:
        deadline = time.monotonic() + PATIENCE_S
        while (stat := procfs.read_stat(child.pid)) is not None and stat.state != "Z":
            assert time.monotonic() < deadline
        assert stat is not None
        assert stat.is_leaderless
        assert int(procfs.statm(child.pid, stat).split()[1]) * procfs.PAGE_BYTES > 64 << 20
        assert procfs.claimed_attempt(child.pid) == "3.2"


def test_half_of_an_exec_is_no_death() -> None:
    """Another thread than the first executes a program: for an instant its place is empty, with a state of the dead and no thread."""
    texts = [IN_AN_EXEC, IN_AN_EXEC, AFTER_IT]
    stat = procfs.told_stat(lambda: texts.pop(0))
    assert stat is not None
    assert (stat.state, stat.threads, stat.is_dead) == ("R", 1, False)
    lasting = procfs.told_stat(lambda: IN_AN_EXEC)
    assert lasting is not None
    assert not lasting.is_dead
    assert not lasting.is_leaderless
    assert procfs.told_stat(lambda: b"") is None
