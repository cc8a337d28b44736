"""A config to export, and the files that it makes."""

from pathlib import Path

import pytest
from promtools import GENERATIONS, Generation

from supervisor.config.load import load
from supervisor.core.settings import Config

CONFIG = """
supervisor: {listen: '127.0.0.1:9321'}
jobs:
  nightly: {command: [/bin/true], schedule: {every: 1m}, alerts: {to: [ops]}}
receivers:
  ops: {type: alertmanager, url: 'http://127.0.0.1:9093'}
"""


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
