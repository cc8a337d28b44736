"""monitoring/ is what the code makes of the shipped config."""

import importlib.util

import pytest


@pytest.fixture(scope="module")
def monitoring(root):
    spec = importlib.util.spec_from_file_location("monitoring_script", root / "scripts" / "monitoring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_set_is_what_the_code_generates(monitoring, root):
    folder = root / "monitoring"
    found = {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    found.pop("README.md")
    expected = monitoring.expected()
    assert sorted(found) == sorted(expected), "make docs writes it anew"
    stale = [path for path, text in expected.items() if found[path] != text]
    assert not stale, "make docs writes it anew"
