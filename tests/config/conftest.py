"""Config files are read from a copy in a fresh directory: who owns the checkout must not matter, and root is picky about that."""

import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _no_state_directory(monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


@pytest.fixture
def folder(tmp_path):
    """A directory that only we can write, with what the good files refer to."""
    os.chmod(tmp_path, 0o700)
    shutil.copyfile(HERE / "good" / "values.env", tmp_path / "values.env")
    (tmp_path / "web.yml").write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    (tmp_path / "web.yml").chmod(0o600)
    return tmp_path


@pytest.fixture
def write(folder):
    """Writes a config with the mode that a careful person would give it; answers with its path."""

    def write(text, name="config.yaml"):
        path = folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o600)
        return str(path)

    return write
