"""The jobs under test, importable and runnable, and the shared data, which is no part of the project and may be absent."""

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
JOBS = os.path.join(ROOT, "jobs")
if JOBS not in sys.path:
    sys.path.insert(0, JOBS)


@pytest.fixture(autouse=True)
def _nobody_supervises_the_tests(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("MAINSTAY_", "RUNAWAY_"))]:
        if name != "MAINSTAY_TEST_DATA":
            monkeypatch.delenv(name)


@pytest.fixture
def shared_data():
    """Path of a data set by name; skips, with the reason, where the data is not there."""
    base = os.environ.get("MAINSTAY_TEST_DATA") or os.path.join(os.path.dirname(ROOT), "shared", "data")

    def find(name):
        path = os.path.join(base, name)
        if not os.path.isdir(path):
            pytest.skip(f"no data set at {path}: put it there or name its directory in MAINSTAY_TEST_DATA")
        return path

    return find


@pytest.fixture
def start_job():
    """Starts jobs as separate processes; none is left behind."""
    started = []

    def start(*arguments, environment=None, **options):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run_job(start_job):
    """Runs a job to its end: (exit code, stdout, stderr)."""

    def run(*arguments, environment=None, timeout=60):
        process = start_job(*arguments, environment=environment)
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err

    return run
