"""What fills the memory, asked of a live job: the types are the right ones, about as many as there are, and none of the job's code is run for it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.adapters.guard import arm, ask, read_last_words
from supervisor.core.evidence import MemoryType

PATIENCE_S = 60.0
WAIT = "\nprint('ready', flush=True)\nimport signal\nsignal.alarm(90)\nwhile True: signal.pause()\n"
USERS = """
class User:
    def __init__(self, number):
        self.name = "user %d" % number
        self.orders = [number]
    def __sizeof__(self):
        print("this was called")
        return 1 << 40
users = [User(number) for number in range(30000)]
shared = "x" * 1000
texts = [(shared, number + 10**6) for number in range(50000)]
"""
BYTES = "blobs = [bytearray(1000) for _ in range(40000)]\n"
ONE = "blobs = {number: bytes(5000) for number in range(8000)}\n"

BARE = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MAINSTAY", "COVERAGE"))}
Census = Callable[..., dict[str, MemoryType]]


@pytest.fixture
def census(tmp_path: Path) -> Iterator[Census]:
    """Run code in a guarded Python, ask it once it is ready, and give the types by name, once *type_name* is counted to about *count* or time is up.

    What is written first is a rough estimate, of few objects. The child goes on, and says nothing.
    """
    children = []

    def take(python: str, code: str, type_name: str, count: int) -> dict[str, MemoryType]:
        environment = arm(BARE, str(tmp_path), None)
        child = subprocess.Popen([python, "-c", code + WAIT], env=environment, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout.readline() == b"ready\n"
        assert ask(str(tmp_path), child.pid)
        end, types = time.monotonic() + PATIENCE_S, {}
        while type_name not in types or not near(types[type_name].count, count):
            if time.monotonic() >= end:
                break
            time.sleep(0.005)
            types = {each.type: each for each in read_last_words(str(tmp_path), child.pid).memory_types}
        return types

    yield take
    for child in children:
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        assert child.stdout.read() == b""
        child.wait()
        child.stdout.close()


def near(value: float, wanted: float) -> bool:
    return 0.7 * wanted <= value <= 1.4 * wanted


def test_instances_and_what_they_hold_are_counted(python: str, census: Census) -> None:
    types = census(python, USERS, "str", 35_000)
    assert near(types["User"].count, 30_000), types
    assert types["User"].bytes < 30_000 * 200
    assert near(types["tuple"].count, 50_000), types
    assert near(types["str"].count, 30_000 + 5_000), types  # the shared one does not count 50,000 times


def test_a_single_list_of_buffers_is_not_overlooked(python: str, census: Census) -> None:
    types = census(python, BYTES, "bytearray", 40_000)
    assert near(types["bytearray"].count, 40_000)
    assert near(types["bytearray"].bytes, 40_000 * 1057)


def test_a_single_dict_of_bytes_is_not_overlooked(python: str, census: Census) -> None:
    types = census(python, ONE, "bytes", 8_000)
    assert near(types["bytes"].bytes, 8_000 * 5033)


def test_who_has_no_guard_is_not_asked(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert not ask(str(tmp_path), child.pid)
    finally:
        child.kill()
        child.wait()


def test_a_handler_of_the_jobs_own_for_the_signal_stays(python: str, tmp_path: Path) -> None:
    program = (
        "import signal\ngot = []\nsignal.signal(signal.SIGURG, lambda *_: got.append(1))\nsignal.raise_signal(signal.SIGURG)\nprint(got)"
    )
    done = subprocess.run(
        [python, "-c", program], env=arm(BARE, str(tmp_path), None), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[1]\n"


HALF = """
import signal
def rows():
    yield [1]
    signal.raise_signal(signal.SIGURG)
    yield [2]
print(tuple(rows()))
"""


def test_a_tuple_that_c_code_fills_just_then_is_no_harm_to_the_job(python: str, tmp_path: Path) -> None:
    """Its places without an object crashed every job that built its data so and was asked meanwhile, up to 3.13."""
    done = subprocess.run([python, "-c", HALF], env=arm(BARE, str(tmp_path), None), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "([1], [2])\n", "")


def test_no_frame_is_read_amid_an_instruction(python: str, tmp_path: Path) -> None:
    """faulthandler did, for the stack: one answer in 200 to 1,600 crashed an asyncio job under CPython 3.11 to 3.13."""
    program = "import faulthandler, signal\nprint(faulthandler.unregister(signal.SIGURG), signal.getsignal(signal.SIGURG).__name__)"
    done = subprocess.run(
        [python, "-c", program], env=arm(BARE, str(tmp_path), None), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False _asked\n"
