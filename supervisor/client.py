"""The command line's way to the daemon: HTTP over its unix socket. Standard library only, so that a command answers at once."""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from supervisor.errors import SupervisorError

Json = dict[str, Any]
SYSTEM_STATE = "/var/lib/mainstay"


class NoDaemonError(SupervisorError):
    """Nobody answers."""


@dataclass(frozen=True, slots=True)
class RefusedError(SupervisorError):
    """The daemon understood and said no."""

    status: int
    error: str
    mend: str = ""
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*(self.problems or (self.error,)), *([self.mend] if self.mend and not self.problems else [])])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One daemon, by the path of its socket."""

    def __init__(self, path: str, timeout_s: float = 30.0) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def get(self, route: str, **query: object) -> Any:
        """What GET answers, as parsed JSON. ``NoDaemonError``, ``RefusedError``."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self._ask("GET", route + ("?" + urlencode(given) if given else ""), None)

    def post(self, route: str, body: Mapping[str, object] | None = None) -> Any:
        """What POST answers. ``NoDaemonError``, ``RefusedError``."""
        return self._ask("POST", route, json.dumps(body or {}).encode())

    def _ask(self, method: str, route: str, body: bytes | None) -> Any:
        connection = _UnixConnection(self.path, self._timeout_s)
        try:
            connection.request(method, "/api/v1" + route, body, {"Content-Type": "application/json"} if body is not None else {})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as err:
            raise NoDaemonError(
                f"no daemon answers at {self.path} ({err}); start it with `mainstay run` or `systemctl start mainstay`"
            ) from err
        finally:
            connection.close()
        try:
            answer = json.loads(data)
        except ValueError as err:
            raise NoDaemonError(f"what answers at {self.path} is not Mainstay") from err
        if response.status >= 400:
            mend = _as_command(str(answer.get("mend", "")))
            raise RefusedError(response.status, str(answer.get("error", "refused")), mend, tuple(answer.get("problems", ())))
        return answer


def _as_command(mend: str) -> str:
    """A hint of the API, which speaks of its routes, for who sits at the command line."""
    if mend.startswith("write for example "):  # of a parameter in the address, which no person wrote
        return ""
    for page in ("status", "runs", "incidents"):
        mend = mend.replace(f"GET /api/v1/{page} ", f"`mainstay {page}` ")
    return mend


def job_route(job: str, verb: str = "") -> str:
    """The route of a job, or of what is asked of it."""
    return f"/jobs/{quote(job, safe='')}" + (f"/{verb}" if verb else "")


def find(config_path: str, state_dir: str | None) -> Client:
    """The daemon that runs *config_path*: by its configured state directory, else by where systemd keeps it. ``NoDaemonError``."""
    tried = []
    for folder in _folders(config_path, state_dir):
        path = os.path.join(folder, "mainstay.sock")
        tried.append(path)
        if not _listens(path):
            continue
        client = Client(path)
        try:
            served = client.get("/status")["daemon"].get("config")
        except (NoDaemonError, RefusedError, KeyError):
            continue
        if served is None or os.path.realpath(served) == os.path.realpath(config_path) or folder == state_dir:
            return client
    raise NoDaemonError(
        f"no daemon runs {config_path} (looked for {', '.join(tried)}); start it with `mainstay -c {config_path} run` or `systemctl start mainstay`"
    )


def _folders(config_path: str, state_dir: str | None) -> Iterator[str]:
    if state_dir is not None:
        yield state_dir
    else:
        yield os.path.join(os.path.dirname(os.path.abspath(config_path)), "var")
    name = os.path.splitext(os.path.basename(config_path))[0]
    yield os.path.join(SYSTEM_STATE, name)
    yield SYSTEM_STATE


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        try:
            sock.connect(path)
        except OSError:
            return False
    return True
