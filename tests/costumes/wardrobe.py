"""The costumes in which one bug dies, and how to see it die in each: `mainstay exec` over bug.py, in every CPython of this machine.

As a program it prints the table: costume by version, what it was called, by whom it turned, how deep, memory against its limit, and how long it lived.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "cpython"))

from pythons import Python, find_pythons  # noqa: E402

BUG = HERE / "bug.py"
BOUND_S = 90
MIB = 2**20
OUT_OF_THE_WAY = "10000000"  # the most that may be asked for: the memory limit alone ends it
WALK = frozenset({"visit", "follow"})
UNCHANGED = ("user steps by 1 each turn", "graph stays the same object")


@dataclass(frozen=True)
class Costume:
    """How the bug is dressed: the word for bug.py, how it is started (script, module, venv, isolated: without the guard), its limits; and what it has
    to be called: the functions of the cycle, its kind, what is said of arguments; ``bug`` is the name of those that are one bug."""

    name: str
    word: str
    functions: frozenset[str] = WALK
    bug: str = "walk"
    start: str = "script"
    recursion: str | None = "400"
    memory_mib: int = 128
    kind: str = "frames"
    tells: tuple[str, ...] = ()
    only: tuple[tuple[int, int], ...] = field(default=())  # versions in which it is a costume at all

    def fits(self, python: Python) -> bool:
        return not self.only or python.version[:2] in self.only


def walk(name: str, word: str | None = None, **more: Any) -> Costume:
    """A costume of the one bug: visit calls follow calls visit."""
    return Costume(name, word or name, **more)


def own(name: str, *functions: str, word: str | None = None, **more: Any) -> Costume:
    """A bug of its own."""
    return Costume(name, word or name, frozenset(functions), **({"bug": " ".join(functions)} | more))


COSTUMES = (
    walk("plain", recursion=None, tells=UNCHANGED),
    walk("a line of 400", "plain", tells=UNCHANGED),
    walk("as a module", "plain", start="module", tells=UNCHANGED),
    walk("in a venv", "plain", start="venv", tells=UNCHANGED),
    walk("limit raised", "raised", tells=UNCHANGED),
    walk("limit raised, no line", "raised", recursion=None, tells=UNCHANGED),
    walk("limit raised from C", "bypass", tells=UNCHANGED),
    walk("limit raised, no guard", "raised", start="isolated", tells=UNCHANGED),
    walk("only memory ends it", "raised", recursion=OUT_OF_THE_WAY, tells=UNCHANGED),
    walk("default argument omitted", "omitted", recursion=None),
    walk("default omitted, no guard", "omitted", start="isolated", recursion=None, only=((3, 13),)),
    walk("growing arguments", "growing", tells=("graph (list) gets 1 longer each turn",)),
    walk("growing fills memory", "raised-growing", recursion=OUT_OF_THE_WAY, memory_mib=192),
    walk("*args and **kwargs", "star"),
    walk("star fills memory", "raised-star", recursion=OUT_OF_THE_WAY, memory_mib=192),
    walk("swallowed in a loop", "swallow-loop", tells=UNCHANGED),
    walk("swallowed, no guard", "swallow-loop", start="isolated"),
    walk("swallowed two to the n", "swallow-tree", tells=("no argument of follow and visit changes from turn to turn",)),
    walk("in a thread", "thread", tells=UNCHANGED),
    walk("in a thread, raised", "thread-raised", tells=UNCHANGED),
    walk("in a thread, from C", "bypass-thread", tells=UNCHANGED),
    walk("generators", "generator", tells=UNCHANGED),
    walk("generators, raised", "raised-generator", tells=UNCHANGED),
    walk("await", "await", tells=UNCHANGED),
    walk("await, raised", "raised-await", tells=UNCHANGED),
    walk("sorted(key=)", "sorted"),
    walk("sorted, raised, no line", "raised-sorted", recursion=None),
    walk("sorted in a thread", "sorted-thread-raised", recursion=None),
    walk("sorted overflows C", "raised-sorted", recursion=OUT_OF_THE_WAY),
    walk("functools.reduce", "reduce"),
    walk("lru_cache", "cached"),
    walk("functools.partial", "partial"),
    walk("re.sub", "regex"),
    walk("try: finally:", "finally"),
    walk("tasks by turns", "tasks-two", kind="tasks", memory_mib=64, tells=("user steps by 1 each task", "graph stays the same object")),
    own(
        "three functions", "ask", "walk", "check", word="three", tells=("no argument of ask and walk and check changes from turn to turn",)
    ),
    own("__repr__", "__repr__", word="repr"),
    own("__repr__ overflows C", "__repr__", word="raised-repr", recursion=OUT_OF_THE_WAY),
    own("__getattr__", "__getattr__", word="getattr"),
    own("__init__", "__init__", word="init"),
    own("__init__ fills memory", "__init__", word="raised-init", recursion=OUT_OF_THE_WAY, memory_mib=192),
    own("json default=", "encode", word="json-hook"),
    own("json within C", "save", word="json-deep", bug="json within C", recursion=None),
    own("pickle __reduce__", "__reduce__", word="pickle-hook"),
    own("pickle within C", "dump", word="pickle-deep", bug="pickle within C", recursion=None),
    own("deepcopy of a chain", word="deepcopy", bug="deepcopy"),
    own("__deepcopy__", "__deepcopy__", word="deepcopy-hook"),
    own("tasks, two each", "visit", word="tasks", bug="tasks", kind="tasks", memory_mib=64, tells=("graph stays the same object",)),
    own("tasks, a chain", "visit", word="tasks-one", bug="tasks", kind="tasks", memory_mib=64, tells=("user steps by 1 each task",)),
    own("tasks, a group", "visit", word="tasks-group", bug="tasks", kind="tasks", memory_mib=64, tells=("user steps by 1 each task",)),
    own("a script that starts itself", "bug.py", word="processes", bug="processes", kind="processes", memory_mib=512),
)


@dataclass(frozen=True)
class Death:
    """How it went: the report, what exec said, and how long it took from the first call to the end of it all (None: never began)."""

    report: Mapping[str, Any]
    code: int
    said: str
    lived_ms: float | None


class Wardrobe:
    """Puts costumes on, several at a time, each once; ``folder`` is for what they leave."""

    def __init__(self, folder: Path, *, at_once: int | None = None) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(at_once or os.cpu_count() or 1)
        self._deaths: dict[tuple[str, str], Future[Death]] = {}
        self._venvs: dict[str, Future[str]] = {}

    def wear(self, costume: Costume, python: Python) -> Future[Death]:
        """The death of *costume* in *python*, begun if nobody has asked for it before."""
        key = (costume.name, python.path)
        if key not in self._deaths:
            interpreter = self._venv(python) if costume.start == "venv" else None
            self._deaths[key] = self._pool.submit(self._die, costume, python, interpreter)
        return self._deaths[key]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _venv(self, python: Python) -> "Future[str]":
        def make() -> str:
            path = self._folder / f"venv-{python}"
            subprocess.run([python.path, "-m", "venv", "--without-pip", str(path)], check=True, timeout=60, capture_output=True)
            return str(path / "bin" / "python")

        if python.path not in self._venvs:
            self._venvs[python.path] = self._pool.submit(make)
        return self._venvs[python.path]

    def _die(self, costume: Costume, python: Python, interpreter: "Future[str] | None") -> Death:
        name = f"{COSTUMES.index(costume) if costume in COSTUMES else costume.word}-{python}"
        path = interpreter.result() if interpreter is not None else python.path
        return die(path, costume, self._folder / name)


def die(python: str, costume: Costume, folder: Path, *, script: Path = BUG, root: str = "") -> Death:
    """Run the bug under `mainstay exec`; *folder* is made and holds its report. With *root* it has that for its root, and *python* is chroot."""
    folder.mkdir()
    report, stamp = folder / "report.json", folder / "stamp"
    limits = ["--memory", f"{costume.memory_mib}MiB", "--time", "60s", *(["--recursion", costume.recursion] if costume.recursion else [])]
    program = {"module": ["-m", script.stem], "isolated": ["-I", str(script)]}.get(costume.start, [str(script)])
    if root:
        newest = max(path.name for path in Path(root, "usr/bin").glob("python3.??"))
        program = [root, f"/usr/bin/{newest}", f"/{script.relative_to(root)}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAINSTAY_", "PYTHON", "COVERAGE"))}
    done = subprocess.run(
        [sys.executable, "-I", "-m", "supervisor", "exec", *limits, "--report", str(report), "--", python, *program, costume.word],
        capture_output=True,
        timeout=BOUND_S,
        check=False,
        cwd=script.parent if costume.start == "module" else folder,
        env=kept | {"BUG_FOLDER": str(folder)},
    )
    said = done.stderr.decode(errors="replace")
    if not report.exists():
        raise AssertionError(f"no report: {said[-500:]}")
    told = json.loads(report.read_text(encoding="utf-8"))
    ended = datetime.fromisoformat(told["ended_at"]).timestamp()
    return Death(told, done.returncode, said, (ended - float(stamp.read_text())) * 1e3 if stamp.exists() else None)


def own_functions(report: Mapping[str, Any]) -> frozenset[str]:
    """The bare names of the bug's own functions in the cycle."""
    frames = (report["cycle"] or {"frames": []})["frames"]
    return frozenset(
        frame["function"].rpartition(".")[2] if frame["function"] != BUG.name else BUG.name
        for frame in frames
        if frame["file"].endswith(".py") and Path(frame["file"]).name == BUG.name
    )


# ---------------------------------------------------------------- the table


def rows(pythons: Iterable[Python], costumes: Iterable[Costume], wardrobe: Wardrobe) -> Iterator[tuple[str, ...]]:
    wanted = [(costume, python) for costume in costumes for python in pythons if costume.fits(python)]
    for costume, python in wanted:
        wardrobe.wear(costume, python)
    for costume, python in wanted:
        death = wardrobe.wear(costume, python).result()
        report, cycle = death.report, death.report["cycle"]
        functions = " → ".join(frame["function"] for frame in cycle["frames"][:4]) if cycle else "-"
        peak = report["memory_peak_bytes"] / MIB
        how = f"SIG{report['signal']}" if report["signal"] else f"exit {report['exit_code']}"
        yield (
            costume.name,
            str(python),
            report["outcome"],
            report["limit"] or how,
            functions,
            f"{cycle['depth']:,}" if cycle else "-",
            f"{peak:.0f}/{costume.memory_mib}" if peak else f"-/{costume.memory_mib}",
            f"{death.lived_ms:.0f}" if death.lived_ms is not None else "-",
            report["fingerprint"],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("costumes", nargs="*", help="names or parts of names (default: all)")
    parser.add_argument(
        "--at-once", type=int, default=1, help="how many die at the same time; more is faster and spoils the times (default: 1)"
    )
    options = parser.parse_args()
    chosen = [one for one in COSTUMES if not options.costumes or any(word in one.name for word in options.costumes)]
    head = ("costume", "python", "outcome", "ended by", "cycle", "depth", "MiB peak/limit", "ms", "fingerprint")
    widths = (28, 14, 10, 10, 44, 9, 14, 6, 12)

    def line(cells: tuple[str, ...]) -> str:
        return " ".join(cell[:width].ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    print(line(head))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="costumes-") as folder:
        wardrobe = Wardrobe(Path(folder), at_once=options.at_once)
        missed = 0
        for cells in rows(find_pythons(), chosen, wardrobe):
            missed += cells[2] != "recursion"
            print(line(cells), flush=True)
        wardrobe.close()
    print(
        f"\n{missed} not called recursion; ms: from the first call to the end of the report, on a machine with a load of {os.getloadavg()[0]:.1f}; {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
