"""A config to export, and the files that it makes."""

from pathlib import Path

import pytest
from promtools import CONFIG, GENERATIONS, Generation

from supervisor.config.load import load
from supervisor.core.settings import Config


@pytest.fixture
def config_of(tmp_path: Path):
    """Loads a config from text."""

    def one(text: str = CONFIG) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        path.chmod(0o600)
        return load(str(path))

    return one


@pytest.fixture(params=GENERATIONS, ids=lambda generation: generation.name)
def generation(request: pytest.FixtureRequest) -> Generation:
    return request.param
