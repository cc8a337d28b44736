"""A process without a sign of change is looked at ever more seldom, and not at once: it may have computed for some milliseconds, and be about to grow on."""

import itertools

import pytest
from fakes import FakeClock

from supervisor.core.jobs import Limits
from supervisor.core.limits import LOOK_MIN_S, Sample
from supervisor.core.model import Mono
from supervisor.watch import QUIET_MIN_S, QUIETER, Watch

MIB = 2**20


class StillSampler:
    """One process that holds so much memory and does nothing; when it was asked for its signature."""

    pid = 1 << 30  # nobody's
    is_blind = False
    strays: tuple[int, ...] = ()

    def __init__(self, clock: FakeClock, memory: int) -> None:
        self._clock, self._memory = clock, memory
        self.looks: list[float] = []

    def signature(self, *, rested: bool = False) -> bytes:
        self.looks.append(self._clock.mono())
        return b"as before"

    def ask_guard(self) -> bool:
        return False

    def members(self) -> tuple[int, ...]:
        return (self.pid,)

    def sample(self, at: Mono, _output: int, token: object) -> Sample:
        return Sample(
            at=at, memory_bytes=self._memory, shared_bytes=0, processes=1, depth=0, recursion_limit=None, recursion_error=False, cpu_s=0.1,
            output_bytes=0, progress_token=token,
        )  # fmt: skip


@pytest.mark.parametrize("memory", [10 * MIB, 70 * MIB, 99 * MIB])
def test_looks_at_what_is_quiet_become_rarer_step_by_step(memory: int) -> None:
    clock = FakeClock()
    sampler = StillSampler(clock, memory)
    watched = Watch(clock, lambda *_: None)
    watched.add("1.1", Limits(memory_bytes=100 * MIB, memory_soft_bytes=MIB * 99.5), sampler, clock.mono(), can_arm=False)
    began = clock.mono()
    while clock.mono() < began + 3.0:
        watched.run()
        clock.advance(0.0005)
    pauses = [after - before for before, after in itertools.pairwise(sampler.looks)]
    for before, after in itertools.pairwise(pauses):
        assert after <= QUIETER * max(before, LOOK_MIN_S) + 0.06  # looks of many are taken together
    assert QUIET_MIN_S <= max(pauses[-3:]) < 2 * QUIET_MIN_S
    assert len(pauses) < 3.0 / QUIET_MIN_S + 20
