"""The looks before a limit, on real processes: what is known when the kill comes, with and without an eye."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import FakeClock

from supervisor import arming
from supervisor.adapters import guard
from supervisor.adapters.clock import Clock
from supervisor.adapters.eye import Eye
from supervisor.adapters.sampler import Sampler
from supervisor.core.evidence import Breach, Look, Pace, Waiting
from supervisor.core.jobs import Limits
from supervisor.core.limits import Sample
from supervisor.core.model import LimitName, Mono
from supervisor.core.study import Spot
from supervisor.watch import GLIMPSES_PER_S, Subject, Watch

PATIENCE_S = 60.0
WAITS = "import signal, time\nsignal.alarm(90)\ndef deep():\n    print('ready', flush=True)\n    time.sleep(80)\ndeep()\n"
Watched = Callable[..., Subject]


class Blind:
    """An eye that may not see, as under Yama: what the kernel tells everybody is all there is."""

    def depth(self) -> None:
        return None

    def look(self) -> Look:
        return Look(note="not seen")

    def waiting(self) -> str:
        return "waiting"

    def threads(self) -> tuple[Waiting, ...]:
        return ()

    def glimpse(self) -> tuple[Spot, ...]:
        return (Spot(1, 1, "waiting"),)

    def close(self) -> None:
        pass


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Runs guarded code under limits until one strikes; the subject then. The child is ended in any case."""
    children = []

    def run(code: str, limits: Limits, eye: Callable[[int], object]) -> Subject:
        environment = arming.arm({"PATH": "/usr/bin:/bin"}, str(tmp_path), None)
        child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout.readline() == b"ready\n"
        struck: list[Breach] = []
        clock = Clock()
        watch = Watch(clock, lambda _key, breach, _look: struck.append(breach))
        watch.add("1.1", limits, Sampler(child.pid, None, eye, guard.Guards(str(tmp_path))), clock.mono())
        end = time.monotonic() + PATIENCE_S
        while not struck and time.monotonic() < end:
            time.sleep(max(0.0, min(watch.next_due() or 0.0, end) - time.monotonic()))
            watch.run()
        assert struck, "no limit struck"
        subject = watch.remove("1.1")
        assert subject is not None
        return subject

    yield run
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_hang_is_known_for_one_when_the_time_limit_strikes(watched: Watched) -> None:
    subject = watched(WAITS, Limits(time_s=2.0), Eye)
    study = subject.study()
    assert study is not None
    assert study.pace is Pace.HANGING
    assert 3 <= study.looks <= 13
    assert subject.look is not None
    assert [(thread.what, thread.wchan) for thread in subject.look.threads] == [("sleeping", "hrtimer_nanosleep")]


def test_where_the_eye_may_not_see_the_guard_is_asked_for_the_stack(watched: Watched, tmp_path: Path) -> None:
    subject = watched(WAITS, Limits(time_s=2.0), lambda _pid: Blind())
    assert subject.asked
    words = guard.read_last_words(str(tmp_path), subject.sampler.pid)
    assert [frame.function for frame in words.asked_frames] == ["deep", "<module>"]


def test_a_quiet_attempt_far_from_its_lines_is_not_studied(watched: Watched) -> None:
    subject = watched(WAITS, Limits(time_s=600.0, output_bytes=None, stall_s=None, cpu_s=500.0, processes=0), Eye)
    assert subject.breach is not None
    assert subject.breach.limit is LimitName.PROCESSES
    assert subject.glimpses == ()


def test_a_thousand_that_hang_at_once_do_not_keep_the_watch_from_its_limits() -> None:
    """Close looks are bounded over all attempts; every limit still strikes, and soon."""
    clock = FakeClock()
    struck: dict[str, float] = {}
    glimpses = []

    class Eye(Blind):
        def glimpse(self) -> tuple[Spot, ...]:
            glimpses.append(clock.mono())
            return super().glimpse()

    class Still:
        pid = deepest = 1 << 30  # nobody's
        strays = ()
        is_blind = False

        def sample(self, at: Mono, _output: int, _token: object) -> Sample:
            return Sample(at)

        def signature(self, *, rested: bool = False) -> bytes:
            return b"still"

        def members(self) -> tuple[int, ...]:
            return (self.pid,)

        def is_alive(self) -> bool:
            return False

        def eye(self, _pid: int) -> Eye:
            return Eye()

        def ask_guard(self) -> bool:
            return False

        def close(self) -> None:
            pass

    watch = Watch(clock, lambda key, _breach, _look: struck.setdefault(key, clock.mono()))
    for number in range(1000):
        watch.add(str(number), Limits(time_s=10.0), Still(), clock.mono())
    began = clock.mono()
    while len(struck) < 1000 and clock.mono() < began + 20:
        watch.run()
        clock.advance(0.01)
    assert len(struck) == 1000
    assert max(struck.values()) <= began + 10.05
    assert 100 <= len(glimpses) <= 2.6 * GLIMPSES_PER_S
