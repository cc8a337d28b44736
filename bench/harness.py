"""What the benchmarks share: a Mainstay of their own in a temporary directory, figures from /proc, quantiles, tables, bounds in time.

Everything that is started here is ended here, by pid. State lies below ``$BENCH_DIR`` (default: the system's temporary directory): what its
disk takes for an fsync is part of some figures, so each run prints it.
"""

import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

ROOT: Final = Path(__file__).resolve().parent.parent
UP_S: Final = 60.0
STOP_S: Final = 30.0
RUNTIME = (sys.executable, "-I", "-m", "supervisor")


class UnmeasuredError(Exception):
    """A figure could not be had; the text says why."""


# ---------------------------------------------------------------- running a benchmark


def run(title: str, work: Callable[[], None], *, within_s: float) -> NoReturn:
    """Head, *work*, exit code: 0 measured (whatever the figures are), 1 not. After *within_s* it is given up and cleaned up."""

    def out_of_time(*_: object) -> NoReturn:
        raise UnmeasuredError(f"not done within {within_s:.0f} s")

    signal.signal(signal.SIGALRM, out_of_time)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.alarm(int(within_s))
    print(f"{title}\n{machine()}\n")
    try:
        work()
    except (UnmeasuredError, OSError, subprocess.SubprocessError) as err:
        print(f"could not measure: {err}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def machine() -> str:
    """The machine in one line, with how busy it was and what its disk takes for an fsync."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    python = platform.python_version()
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, CPython {python}, load {load:.1f}, fsync {fsync_ms():.2f} ms"


def fsync_ms(times: int = 50) -> float:
    """Median milliseconds to write and fsync half a KiB where the state directories lie."""
    with tempfile.TemporaryDirectory(dir=base_dir()) as folder:
        fd = os.open(os.path.join(folder, "x"), os.O_WRONLY | os.O_CREAT, 0o600)
        found = []
        try:
            for _ in range(times):
                os.write(fd, b"x" * 512)
                begin = time.perf_counter()
                os.fsync(fd)
                found.append(time.perf_counter() - begin)
        finally:
            os.close(fd)
    return statistics.median(found) * 1e3


def base_dir() -> str:
    return os.environ.get("BENCH_DIR") or tempfile.gettempdir()


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A directory for one benchmark, removed at its end."""
    folder = tempfile.mkdtemp(prefix="mainstay-bench-", dir=base_dir())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compile_floor(folder: str) -> str | None:
    """The C program of floor.c, None where there is no compiler; says so."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        print("no C compiler: the floor is left out (install cc for the ratio)")
        return None
    target = os.path.join(folder, "floor")
    for extra in (["-static"], []):
        done = subprocess.run(
            [compiler, "-O2", *extra, "-o", target, str(ROOT / "bench" / "floor.c")], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return target
    print(f"the floor does not compile and is left out: {done.stderr.strip().splitlines()[-1:]}")
    return None


# ---------------------------------------------------------------- figures


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which *share* of *values* lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column to the left, figures to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for number, row in enumerate(cells):
        print(
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print(flush=True)


def goal(value: float, most: float) -> str:
    """The word for the table."""
    return "met" if value <= most else "MISSED"


def memory(pids: Iterable[int]) -> tuple[float, float]:
    """(PSS, USS) in MiB of these processes together."""
    pss = uss = 0
    for pid in pids:
        for line in _lines(f"/proc/{pid}/smaps_rollup"):
            name, _, rest = line.partition(":")
            if name == "Pss":
                pss += int(rest.split()[0])
            elif name in ("Private_Clean", "Private_Dirty"):
                uss += int(rest.split()[0])
    return pss / 1024, uss / 1024


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds used so far by these processes, ended threads included, to the nanosecond: their CPU clocks, as clock_getcpuclockid(3) numbers them."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def children(pid: int) -> list[int]:
    """The direct children of *pid*."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def wait_until(what: str, is_so: Callable[[], bool], within_s: float = UP_S, every_s: float = 0.01) -> float:
    """Seconds until *is_so*. ``UnmeasuredError`` when it does not come true."""
    begin = time.monotonic()
    while not is_so():
        if time.monotonic() - begin > within_s:
            raise UnmeasuredError(f"{what}: not within {within_s:.0f} s")
        time.sleep(every_s)
    return time.monotonic() - begin


# ---------------------------------------------------------------- Mainstay under measurement


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Mainstay:
    """A daemon of our own: started on entering, every process of it ended on leaving."""

    def __init__(self, folder: str, jobs: str, *, defaults: str = "", listen: bool = False, wait: bool = True) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.folder = folder
        self.state = os.path.join(folder, "state")
        self.port = free_port() if listen else None
        self.config = os.path.join(folder, "config.yaml")
        address = f"127.0.0.1:{self.port}" if listen else "null"
        head = f"supervisor: {{state_dir: {self.state}, listen: {address}, log: {{level: warning}}}}\n"
        Path(self.config).write_text(head + (f"defaults: {defaults}\n" if defaults else "") + f"jobs:\n{jobs}", encoding="utf-8")
        os.chmod(self.config, 0o600)
        self._process: subprocess.Popen[bytes] | None = None
        self._wait = wait
        self.guardian = self.keeper = self.brain = 0
        self.started_at = 0.0

    def __enter__(self) -> Self:
        log = open(os.path.join(self.folder, "log"), "wb")
        self.started_at = time.monotonic()
        with log:
            self._process = subprocess.Popen(
                [*RUNTIME, "-c", self.config, "run"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        self.guardian = self._process.pid
        try:
            if self._wait:
                self.wait_for_answer()
        except BaseException:
            self._end()
            raise
        return self

    def wait_for_answer(self) -> None:
        """Until the API answers; then all pids are known."""
        wait_until("an answer of Mainstay", self._answers)

    def find_keeper(self) -> int:
        """The keeper's pid before anybody answers."""
        wait_until("a keeper", lambda: self._lives() and self._sees_keeper(), every_s=0.005)
        return self.keeper

    def _sees_keeper(self) -> bool:
        for pid in children(self.guardian):
            with contextlib.suppress(OSError):
                if b"supervisor.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    self.keeper = pid
                    return True
        return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _lives(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise UnmeasuredError(f"Mainstay has ended: {Path(self.folder, 'log').read_text(errors='replace')[-500:]}")
        return True

    def _answers(self) -> bool:
        self._lives()
        try:
            daemon = self.get("/status")["daemon"]
        except (OSError, http.client.HTTPException):
            return False
        self.keeper, self.brain = daemon["keeper_pid"], daemon["pid"]
        return True

    @property
    def pids(self) -> tuple[int, int, int]:
        """Guardian, keeper and brain."""
        return self.guardian, self.keeper, self.brain

    def connection(self) -> http.client.HTTPConnection:
        return _UnixConnection(os.path.join(self.state, "mainstay.sock"))

    def get(self, route: str) -> dict[str, Any]:
        """One view of the API."""
        connection = self.connection()
        try:
            connection.request("GET", "/api/v1" + route)
            answer = connection.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
            return found
        finally:
            connection.close()

    def post(self, route: str) -> dict[str, Any]:
        """One wish of an operator."""
        connection = self.connection()
        try:
            connection.request("POST", "/api/v1" + route, body=b"{}", headers={"Content-Type": "application/json"})
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()

    def metric(self, series: str) -> float:
        """The value of one series of the page."""
        connection = self.connection()
        try:
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        finally:
            connection.close()
        for line in page.splitlines():
            if line.startswith(series + " "):
                return float(line.rpartition(" ")[2])
        raise UnmeasuredError(f"no series {series} on the page")

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """What the log has of one event."""
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as file:
            return [found for line in file if line.startswith("{") and (found := json.loads(line)).get("event") == event]

    def _end(self) -> None:
        """In order; by force where that takes too long. The keeper's children go with it."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        for force in (None, self.keeper, self.guardian):
            if force:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(force, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S if force is None else 5.0)
                break
        self._process = None


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
