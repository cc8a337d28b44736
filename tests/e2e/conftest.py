"""Daemons for tests: one of a test's own, or one for a whole module."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import otheruser
import pytest
from harness import Mainstay

Make = Callable[..., Mainstay]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """``make(config_text)``: a daemon that is not started yet; all are stopped at the end, and nothing of them may be left."""
    made: list[Mainstay] = []

    def one(config_text: str, **more: Any) -> Mainstay:
        folder = tmp_path / f"m{len(made)}"
        folder.mkdir()
        made.append(Mainstay(folder, config_text, **more))
        return made[-1]

    yield one
    close_all(made)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach, for Mainstay as that user (``otheruser.as_nobody``)."""
    with otheruser.folder() as found:
        yield found


def close_all(made: list[Mainstay]) -> None:
    """Close every one, whatever the others say."""
    errors = []
    for mainstay in made:
        try:
            mainstay.close()
        except (AssertionError, OSError) as err:
            errors.append(str(err))
    assert not errors, "\n".join(errors)
