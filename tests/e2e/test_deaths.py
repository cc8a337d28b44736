"""The bench of deaths and its controls: every end in every Python of this machine is judged right, with the evidence that matters."""

from collections.abc import Iterator
from itertools import cycle

import controls
import deathbench
import pytest
from controls import CONTROLS
from deathbench import DEATHS, Bench
from misjudged import MISJUDGED

PYTHONS = deathbench.pythons()
DEATH_CASES = [(version, name) for name in DEATHS for version in PYTHONS]
_TURNS = cycle(PYTHONS)
ORDINARY = CONTROLS | MISJUDGED
CONTROL_CASES = [(version, name) for name, control in ORDINARY.items() for version in (PYTHONS if control.everywhere else [next(_TURNS)])]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Everything that this session asks for, started together: each test waits for its own."""
    found = Bench(tmp_path_factory.mktemp("deaths"))
    for item in request.session.items:
        case = getattr(item, "callspec", None)
        if item.module is request.module and case is not None:
            version, name = case.params["case"]
            if name in DEATHS:
                deathbench.start(found, PYTHONS[version], name)
            else:
                controls.start(found, PYTHONS[version], name, ORDINARY[name])
    yield found
    found.close()


@pytest.mark.parametrize("case", DEATH_CASES, ids=[f"{name}-{version}" for version, name in DEATH_CASES])
def test_a_death_is_judged_and_proven(bench: Bench, case: tuple[str, str]) -> None:
    version, name = case
    end = bench.end((PYTHONS[version], name))
    assert deathbench.fault(DEATHS[name], end) == "", end.told()


@pytest.mark.parametrize("case", CONTROL_CASES, ids=[f"{name}-{version}" for version, name in CONTROL_CASES])
def test_an_ordinary_end_is_not_called_anything_else(bench: Bench, case: tuple[str, str]) -> None:
    version, name = case
    end = bench.end((PYTHONS[version], name))
    assert controls.fault(ORDINARY[name], end) == "", end.told()


def test_there_are_as_many_kinds_as_were_promised() -> None:
    assert len(DEATHS) >= 32
    assert len(CONTROLS) >= 50
