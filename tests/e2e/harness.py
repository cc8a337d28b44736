"""A real Mainstay for tests: started as people start it, asked as people ask it, and gone with all of its tree afterwards.

Every process of one daemon's tree carries a mark in its environment, so that what is left is found (and ended) whatever ran away from it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from supervisor import client, procfs, proctree
from supervisor.client import Client, NoDaemonError

PATIENCE_S = 40.0  # until an event that has to come counts as missing; the machine may be busy
POLL_S = 0.02
MARK = "MARK_OF_THE_TEST"
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-I", "-m", "supervisor"]

T = TypeVar("T")
Json = dict[str, Any]


def free_port() -> int:
    """A port of the loopback that nobody had a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(question: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first answer of *question* that is true; fails with *what* when none comes."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience_s} s")
        time.sleep(POLL_S)


def alive(pids: Iterable[int]) -> list[int]:
    """Those of *pids* that run (a zombie does not)."""
    found = []
    for pid in pids:
        stat = procfs.read_stat(pid)
        if stat is not None and stat.state not in "ZX":
            found.append(pid)
    return found


def marked(mark: str) -> list[int]:
    """Every live process whose environment carries *mark*."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return alive(pid for pid in pids if pid != os.getpid() and (procfs.environment_values(pid, MARK) or {}).get(MARK) == mark)


def environment(mark: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, marked, without what another Mainstay or the suite put there (workers of a test run have a width of the terminal set)."""
    theirs = ("MAINSTAY_", "NOTIFY_SOCKET", "COVERAGE", "PYTHON", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return kept | {MARK: mark} | dict(more or {})


def read(path: Path) -> str:
    """The file's text, empty while there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


class Mainstay:
    """One daemon: guardian, keeper, brain and jobs. ``config_text`` is all of config.yaml but the ``supervisor`` section; *supervisor* is
    what stands in that beside the harness's own, e.g. ", external_url: ..."."""

    def __init__(
        self,
        folder: Path,
        config_text: str,
        *,
        environment: Mapping[str, str] | None = None,
        log_level: str = "info",
        supervisor: str = "",
    ) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.port = free_port()
        self.state = folder / "state"
        self.config = folder / "config.yaml"
        self.socket = str(self.state / "mainstay.sock")
        self._log_level = log_level
        self._supervisor = supervisor
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.write_config(config_text)

    def write_config(self, text: str) -> None:
        """Put a config in place, as an editor does: whole."""
        head = f"supervisor: {{state_dir: state, listen: '127.0.0.1:{self.port}', log: {{level: {self._log_level}}}{self._supervisor}}}\n"
        temporary = self.config.with_suffix(".tmp")
        temporary.write_text(head + text)
        temporary.chmod(0o600)
        temporary.replace(self.config)

    # ---------------------------------------------------------------- life

    def start(self) -> "Mainstay":
        """Start it and wait until it supervises."""
        self.launch()
        wait_for(self._is_ready, "readyz")
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start it without waiting."""
        with open(self.folder / "daemon.log", "ab") as log:
            self._process = subprocess.Popen(
                [*PROGRAM, "-c", str(self.config), "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(self.mark, self._environment),
                start_new_session=True,
            )
        return self._process

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"Mainstay ended with {self.process.returncode}:\n{self.log()}")
        try:
            return int(self.http("/readyz")[0]) == 200
        except OSError:
            return False

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def guardian_pid(self) -> int:
        return self.process.pid

    @property
    def keeper_pid(self) -> int:
        return int(self.status()["daemon"]["keeper_pid"])

    @property
    def brain_pid(self) -> int:
        return int(self.status()["daemon"]["pid"])

    def tree(self) -> list[int]:
        """Every live process that belongs to this daemon, jobs included."""
        return marked(self.mark)

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        """SIGTERM to the guardian; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def close(self) -> None:
        """Stop it, and fail if anything of its tree is left; kill that."""
        code: int | None = None
        try:
            if self._process is not None:
                code = self.stop()
        finally:
            left = self._left()
            for pid in left:
                proctree.signal_process(pid, signal.SIGKILL)
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._process.wait(10)
        assert not left, f"left behind: {left}\n{self.log()[-3000:]}"
        assert code is None or code >= 0 or code in (-signal.SIGKILL, -signal.SIGTERM), (code, self.log()[-3000:])
        assert "Traceback" not in self.log(), self.log()

    def _left(self) -> list[str] | list[int]:
        """What still lives once those that are just being reaped have gone."""
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.tree(), "gone", 5.0)
        return self.tree()

    # ---------------------------------------------------------------- asking

    def cli(self, *words: str, patience_s: float = PATIENCE_S, **more: str) -> subprocess.CompletedProcess[str]:
        """The mainstay command with this config; *more* goes into its environment."""
        return subprocess.run(
            [*PROGRAM, "-c", str(self.config), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=patience_s,
            cwd=self.folder,
            env=environment(uuid.uuid4().hex, more),
            check=False,
        )

    def ask(self, route: str, **query: object) -> Any:
        """GET over the unix socket; waits while a new brain is on its way up."""

        def answer() -> list[Any] | None:
            try:
                return [Client(self.socket).get(route, **query)]
            except NoDaemonError:
                assert self.process.poll() is None, self.log()
                return None

        return wait_for(answer, f"an answer to {route}")[0]

    def post(self, route: str, body: Mapping[str, object] | None = None) -> Any:
        """POST over the unix socket."""
        return Client(self.socket).post(route, body)

    def http(self, path: str) -> tuple[int, str]:
        """(status, body) of GET on the TCP port."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as err:
            raise ConnectionError(str(err)) from err
        finally:
            connection.close()

    def status(self) -> Json:
        found: Json = self.ask("/status")
        return found

    def job(self, name: str) -> Json:
        found: Json = self.ask(client.job_route(name))
        return found

    def runs(self, job: str) -> list[Json]:
        """All runs of the job, newest first."""
        found: list[Json] = self.ask("/runs", job=job, limit=1000)["runs"]
        return found

    def why(self, job: str) -> Json:
        found: Json = self.ask("/why", job=job)
        return found

    def metrics(self) -> dict[str, float]:
        """The scrape: 'name{label="value",...}' (labels sorted) → value."""
        samples = {}
        for family in text_string_to_metric_families(self.http("/metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples

    def wait_for(self, question: Callable[[], T | None], what: str = "that", patience_s: float = PATIENCE_S) -> T:
        """``wait_for`` that shows the log when nothing comes."""
        try:
            return wait_for(question, what, patience_s)
        except AssertionError as err:
            raise AssertionError(f"{err}\n{self.log()[-3000:]}") from None

    def wait_for_state(self, job: str, *states: str) -> Json:
        """The job's status once it is in one of *states*."""

        def there() -> Json | None:
            found = self.job(job)
            return found if found["state"] in states else None

        return self.wait_for(there, f"{job} in {states}")

    def wait_for_metric(self, series: str, value: float) -> None:
        """Until the scrape says so."""
        self.wait_for(lambda: self.metrics().get(series) == value, f"{series} {value}")

    def run_job(self, job: str) -> Json:
        """Trigger it and wait for its end; the run's row."""
        number = int(self.post(client.job_route(job, "trigger"))["text"].split("run ")[1].split(" ")[0])
        return self.wait_for_end(job, number)

    def wait_for_end(self, job: str, run: int) -> Json:
        """The row of that run once it has ended."""

        def ended() -> Json | None:
            return next((row for row in self.runs(job) if row["run"] == run and row["outcome"]), None)

        return self.wait_for(ended, f"the end of run {run} of {job}")

    def log(self) -> str:
        """What the daemon wrote to stdout and stderr."""
        return read(self.folder / "daemon.log")

    def log_events(self, event: str) -> list[Json]:
        """The log lines of that event."""
        found = []
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == event:
                    found.append(entry)
        return found
