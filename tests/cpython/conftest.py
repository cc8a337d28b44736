from collections.abc import Callable, Iterator

import pytest
from pythons import Child, Python, find_pythons

PYTHONS = find_pythons()


@pytest.fixture(params=PYTHONS, ids=str)
def python(request: pytest.FixtureRequest) -> Python:
    """Each CPython of this machine in turn."""
    found: Python = request.param
    return found


@pytest.fixture
def spawn() -> Iterator[Callable[..., Child]]:
    """Starts children and kills them at the end of the test."""
    children: list[Child] = []

    def start(python: str, script: str, *arguments: object) -> Child:
        children.append(Child(python, script, *arguments))
        return children[-1]

    yield start
    for child in children:
        child.end()
