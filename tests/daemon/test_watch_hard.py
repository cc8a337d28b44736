"""The last look before a kill: a job that swallows RecursionErrors is let go and looked at again until it is found down in its cycle, and not for ever."""

from collections.abc import Iterable

import pytest
from fakes import FakeClock

from supervisor import watch
from supervisor.core.evidence import Breach, Cycle, Frame, Look, Stack
from supervisor.core.jobs import Limits
from supervisor.core.limits import SWALLOWED, Sample
from supervisor.core.model import LimitName, Mono
from supervisor.cpython.reader import Depth
from supervisor.watch import CAUGHT_OUT, CAUGHT_OUT_S, Watch

PID, MIB = 1 << 30, 2**20  # a pid that is nobody's
LIMIT = 400
A, B = Frame("visit", "/srv/app/job.py", 7), Frame("follow", "/srv/app/job.py", 9)
UP = Look(stacks=(Stack(1, (A,), 3),), depth=3, recursion_limit=LIMIT)
DOWN = Look(stacks=(Stack(1, (A, B) * 100, 399),), depth=399, recursion_limit=LIMIT, cycle=Cycle((A, B), 399))
HALF_WAY = Look(stacks=(Stack(1, (A,), 250),), depth=250, recursion_limit=LIMIT)
UNSEEN = Look(note="not seen from outside")


class FakeEye:
    """Gives the looks it was given, one after the other, and then the last of them again."""

    def __init__(self, looks: Iterable[Look]) -> None:
        self.coming = list(looks)
        self.taken = 0

    def depth(self) -> Depth | None:
        return None

    def look(self) -> Look:
        self.taken += 1
        return self.coming.pop(0) if len(self.coming) > 1 else self.coming[0]

    def waiting(self) -> str:
        return "waiting: a lock"

    def threads(self) -> tuple[object, ...]:
        return ()

    def glimpse(self) -> tuple[object, ...]:
        return ()

    def close(self) -> None:
        pass


class FakeSampler:
    """One process that stands at its recursion limit with a RecursionError in flight at every sample."""

    def __init__(self, eye: FakeEye) -> None:
        self.pid = self.deepest = PID
        self.strays: tuple[int, ...] = ()
        self.is_blind = False
        self.lives = True
        self.memory = 10 * MIB
        self.limit_seen: int | None = LIMIT
        self._eye = eye

    def is_alive(self) -> bool:
        return self.lives

    def signature(self, *, rested: bool = False) -> bytes:
        return b""

    def members(self) -> tuple[int, ...]:
        return (self.pid,)

    def sample(self, at: Mono, _output: int, _token: object) -> Sample | None:
        if not self.lives:
            return None
        return Sample(
            at, memory_bytes=self.memory, depth=LIMIT, recursion_limit=self.limit_seen, recursion_error=self.limit_seen is not None
        )

    def eye(self, _pid: int) -> FakeEye:
        return self._eye

    def arm(self, _limit: int) -> bool:
        return True

    def ask_guard(self) -> bool:
        return False

    def tasks(self) -> None:
        return None

    def close(self) -> None:
        pass


class Stage:
    """A watch over that one process: what it was told, and how often the tree was stopped and let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: Iterable[Look], limits: Limits) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[Breach, Look | None]] = []
        self.stopped: list[Mono] = []
        self.let_go: list[Mono] = []
        monkeypatch.setattr(watch.proctree, "freeze", lambda _roots: self.stopped.append(self.clock.mono()) or [PID])
        monkeypatch.setattr(watch, "let_go", lambda pids: self.let_go.append(self.clock.mono()) if list(pids) == [PID] else None)
        self.eye = FakeEye(looks)
        self.sampler = FakeSampler(self.eye)
        self.watch = Watch(self.clock, lambda _key, breach, look: self.told.append((breach, look)))
        self.watch.add("1.1", limits, self.sampler, self.clock.mono(), can_arm=False)
        self.subject = self.watch.subject("1.1")

    def run(self, seconds: float, step_s: float = 0.001) -> None:
        """Until somebody is told, at most so long."""
        end = self.clock.mono() + seconds
        while not self.told and self.clock.mono() < end:
            self.watch.run()
            self.clock.advance(step_s)


SWALLOWS = Limits(memory_bytes=64 * MIB, recursion_frames=LIMIT, time_s=None)


@pytest.mark.parametrize("misses", [0, 1, 7, CAUGHT_OUT])
def test_it_is_let_go_and_looked_at_again_until_it_is_down_in_its_cycle(monkeypatch: pytest.MonkeyPatch, misses: int) -> None:
    stage = Stage(monkeypatch, [*[UP] * misses, DOWN], SWALLOWS)
    stage.run(60)
    [(breach, look)] = stage.told
    assert (breach.limit, breach.detail) == (LimitName.RECURSION, SWALLOWED)
    assert look == DOWN
    assert (len(stage.stopped), len(stage.let_go), stage.subject.tries) == (misses + 1, misses, misses)
    assert stage.subject.breach == breach
    assert stage.watch.next_due() is None  # its end is on the way: nothing more is looked for


def test_the_looks_are_apart_so_that_it_can_go_down_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [*[UP] * 5, DOWN], SWALLOWS)
    stage.run(60)
    apart = [later - earlier for earlier, later in zip(stage.let_go, stage.stopped[1:], strict=True)]
    assert all(CAUGHT_OUT_S <= pause < CAUGHT_OUT_S + 0.002 for pause in apart)
    assert stage.clock.mono() - stage.stopped[0] < 0.1


def test_one_that_is_never_found_there_is_ended_after_sixty_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [UP], SWALLOWS)
    stage.run(60)
    assert [(breach.detail, look) for breach, look in stage.told] == [(SWALLOWED, UP)]
    assert len(stage.stopped) == CAUGHT_OUT + 1
    assert len(stage.let_go) == CAUGHT_OUT
    assert stage.stopped[-1] - stage.stopped[0] < 2 * CAUGHT_OUT * CAUGHT_OUT_S


@pytest.mark.parametrize("look", [HALF_WAY, UNSEEN, DOWN])
def test_a_look_that_found_it_deep_or_that_nobody_could_take_is_the_last(monkeypatch: pytest.MonkeyPatch, look: Look) -> None:
    stage = Stage(monkeypatch, [look], SWALLOWS)
    stage.run(60)
    assert [told for _, told in stage.told] == [look]
    assert stage.let_go == []


def test_no_other_limit_lets_it_go_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [UP], Limits(memory_bytes=64 * MIB, recursion_frames=None, time_s=None))
    stage.sampler.limit_seen, stage.sampler.memory = None, 65 * MIB
    stage.run(5)
    assert [breach.limit for breach, _ in stage.told] == [LimitName.MEMORY]
    assert (len(stage.stopped), stage.let_go) == (1, [])


def test_one_that_fills_its_memory_in_the_respite_gets_no_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [UP], SWALLOWS)
    while len(stage.let_go) < 3:
        stage.watch.run()
        stage.clock.advance(0.001)
    stage.sampler.memory = 64 * MIB + 1
    stage.run(60)
    assert [breach.limit for breach, _ in stage.told] == [LimitName.RECURSION]
    assert (len(stage.stopped), len(stage.let_go)) == (4, 3)


def test_one_that_ends_by_itself_in_the_respite_is_nobodys_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, [UP], SWALLOWS)
    while not stage.let_go:
        stage.watch.run()
        stage.clock.advance(0.001)
    assert stage.subject.breach is None  # until it is found, there is nothing to be told
    stage.sampler.lives = False
    stage.run(5)
    assert stage.told == []
    assert stage.subject.gone
    assert stage.watch.next_due() is None
