"""Keepers for tests; each is ended with all that it started."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakebrain import Keeper


@pytest.fixture
def make_keeper(tmp_path: Path) -> Iterator[Callable[..., Keeper]]:
    """``make_keeper()``: a keeper on the test's state directory."""
    made: list[Keeper] = []

    def make(**more: Any) -> Keeper:
        made.append(Keeper(tmp_path, **more))
        return made[-1]

    yield make
    for keeper in made:
        keeper.close()


@pytest.fixture
def keeper(make_keeper: Callable[..., Keeper]) -> Keeper:
    return make_keeper()
