"""Which CPythons this machine has, and children that run in them; every child is bounded by its own alarm and killed by its fixture."""

import glob
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

CHILDREN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "children")
# Where scripts/newer-python.sh puts what this machine's own packages do not have.
NEWER = os.environ.get("MAINSTAY_TEST_PYTHONS") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "mainstay-pythons"
)
_ASK = (
    "import json, sys, sysconfig; print(json.dumps([sys.implementation.name, list(sys.version_info[:3]), "
    "sys._base_executable, bool(sysconfig.get_config_var('Py_GIL_DISABLED'))]))"
)


@dataclass(frozen=True)
class Python:
    path: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        static = "-system" if self.path.startswith("/usr/") else ""
        return ".".join(map(str, self.version)) + static


def find_pythons() -> list[Python]:
    """Every CPython from 3.11 on that PATH or pyenv offers, our own first; one per executable file."""
    candidates = [sys.executable]
    candidates += [path for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    candidates += ["/usr/bin/python3", *sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python")))]
    candidates += sorted(glob.glob(f"{NEWER}/*/usr/bin/python*-here"))
    found: dict[str, Python] = {}
    for candidate in candidates:
        python = _ask(candidate)
        if python is not None:
            found.setdefault(os.path.realpath(python.path), python)
    return list(found.values())


def _ask(path: str) -> Python | None:
    try:
        done = subprocess.run([path, "-I", "-S", "-c", _ASK], capture_output=True, timeout=30, check=True, text=True)
        name, version, executable, free_threaded = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # a shim without a version behind it, or a Python too old to answer
    if name != "cpython" or tuple(version) < (3, 11) or free_threaded:
        return None
    return Python(executable, (version[0], version[1], version[2]))


class Child:
    """A script of tests/children in one Python. Its first line on stdout says that it is ready; it ends when its stdin does."""

    def __init__(self, python: str, script: str, *arguments: object) -> None:
        self.path = os.path.join(CHILDREN, script)
        argv = [python, "-I", "-S", self.path, *map(str, arguments)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"the child ended: {self.process.stderr.read()}")
        return line.strip()

    def settled(self) -> str:
        """The first line, once the main thread sleeps after it: its stack stands still then."""
        line = self.line()
        self.wait_asleep(self.pid)
        return line

    def wait_asleep(self, thread: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with open(f"/proc/{self.pid}/task/{thread}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] == "S":
                    return
        raise AssertionError(f"thread {thread} of the child does not come to rest")

    def line_of(self, text: str) -> int:
        """The number of the line of the script that holds *text*."""
        with open(self.path, encoding="utf-8") as file:
            return next(number for number, line in enumerate(file, 1) if text in line)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)
