"""Interpreters found on this machine, and how a child is run under the guard (or bare), bounded in time and memory."""

import glob
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.adapters.guard import SITE, arm, read_last_words
from supervisor.core.evidence import LastWords

CHILDREN = Path(__file__).resolve().parent.parent / "children"
BOUND_S = 60


def _interpreters() -> dict[str, str]:
    """Version and where it comes from → path of every CPython that can be started here, one of each kind."""
    names = ["python", "python2.7", *(f"python3.{minor}" for minor in range(4, 20))]
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", *glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin"))]
    paths = [os.path.join(place, name) for place in dict.fromkeys(places) for name in names]
    newer = os.environ.get("MAINSTAY_TEST_PYTHONS") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mainstay-pythons"
    )
    found = {}
    for path in [*paths, *sorted(glob.glob(f"{newer}/*/usr/bin/python*-here"))]:
        if os.access(path, os.X_OK):
            asked = "import sys, platform; print(sys.executable + ' ' + platform.python_implementation() + ' ' + platform.python_version())"
            try:
                done = subprocess.run([path, "-E", "-c", asked], check=False, capture_output=True, text=True, timeout=30)
            except OSError:
                continue
            words = done.stdout.split()
            if done.returncode == 0 and len(words) == 3 and words[1] == "CPython":
                real = os.path.realpath(words[0])
                found.setdefault(real, f"{words[2]}{'-system' if real.startswith('/usr/') else ''}")
    return {label: path for path, label in sorted(found.items(), key=lambda item: item[1])}


def _version(label: str) -> tuple[int, ...]:
    return tuple(int(part) for part in label.partition("-")[0].split(".")[:2])


INTERPRETERS = _interpreters()
ACTIVE = {label: path for label, path in INTERPRETERS.items() if _version(label) >= (3, 8)}
SUPPORTED = {label: path for label, path in ACTIVE.items() if _version(label) >= (3, 11)}
OLD = {label: path for label, path in INTERPRETERS.items() if _version(label) < (3, 8)}
MONITORED = {label: path for label, path in ACTIVE.items() if _version(label) >= (3, 12)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``python`` is every interpreter the guard is made for, ``any_active`` also those before 3.11, ``old`` those it only has to leave in peace."""
    for name, interpreters in (("python", SUPPORTED), ("any_active", ACTIVE), ("old", OLD), ("monitored", MONITORED)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(interpreters.values()), ids=list(interpreters))


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    for python in ACTIVE.values():
        subprocess.run([python, "-I", "-S", "-m", "compileall", "-q", SITE], check=True, timeout=60)


@dataclass(frozen=True)
class Ended:
    """How a child ended and what its guard left."""

    pid: int
    code: int
    out: str
    err: str
    words: LastWords
    report_dir: Path


Run = Callable[..., Ended]


def _bound() -> None:
    signal.alarm(BOUND_S)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _bare_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MAINSTAY", "COVERAGE"))}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a child to its end: ``run(python, "guard_raise.py", "chain")``; the first argument may also be an option such as ``-c``."""
    count = 0

    def run_child(
        *command: str,
        guarded: bool = True,
        recursion: int | None = None,
        environment: Mapping[str, str] | None = None,
        text: str | None = None,
        cwd: Path | None = None,
        before: Callable[[], None] | None = None,
    ) -> Ended:
        nonlocal count
        count += 1
        report_dir = tmp_path / f"report{count}"
        report_dir.mkdir()
        surroundings = _bare_environment() | dict(environment or {})
        if guarded:
            surroundings = arm(surroundings, str(report_dir), recursion)
        argv = [str(CHILDREN / word) if word.startswith("guard_") and word.endswith(".py") else word for word in command]

        def prepare() -> None:
            _bound()
            if before is not None:
                before()

        with subprocess.Popen(
            argv,
            env=surroundings,
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            cwd=cwd or tmp_path,
            preexec_fn=prepare,  # noqa: PLW1509  # the tests have one thread, and each child its own limits
            start_new_session=True,
        ) as child:
            try:
                out, err = child.communicate(text, timeout=BOUND_S)
            finally:
                _kill_session(child.pid)
        return Ended(child.pid, child.returncode, out, err, read_last_words(str(report_dir), child.pid), report_dir)

    return run_child


def _kill_session(session: int) -> None:
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.fixture
def both(run: Run) -> Callable[..., tuple[Ended, Ended]]:
    """The same child under the guard and bare; what a person sees of it must be the same."""

    def run_both(*command: str, **options: object) -> tuple[Ended, Ended]:
        guarded, bare = run(*command, **options), run(*command, guarded=False, **options)
        assert (guarded.code, _seen(guarded.out), _seen(guarded.err)) == (bare.code, _seen(bare.out), _seen(bare.err))
        return guarded, bare

    return run_both


def _seen(text: str) -> str:
    """Without what differs between any two starts: addresses."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.fixture
def site() -> str:
    return SITE


@pytest.fixture
def children() -> Path:
    return CHILDREN


@pytest.fixture
def bare_environment() -> Mapping[str, str]:
    return _bare_environment()


assert str(Path(sys.executable).resolve()) in INTERPRETERS.values(), "the interpreter that runs the tests must be among those found"
