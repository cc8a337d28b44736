"""The command line's way to the daemon: HTTP over its unix socket. Standard library only, so that a command answers at once."""

import http.client
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from supervisor import owners
from supervisor.errors import SupervisorError
from supervisor.keepers import keeper_of, running

Json = dict[str, Any]
SYSTEM_STATE: Final = "/var/lib/mainstay"
TIMEOUT_S: Final = 30.0
NOTICE_S: Final = 2.0  # without an answer for so long a person is told what is being waited for
AGAIN_S: Final = 15.0  # the keeper replaces a brain at once, after several early deaths within 10 s; then it has to read its history
AGAIN_EVERY_S: Final = 0.2


class NoDaemonError(SupervisorError):
    """Nobody answers."""


class AbsentError(NoDaemonError):
    """Nobody listens there, and no keeper runs who would change that."""


@dataclass(frozen=True, slots=True)
class RefusedError(SupervisorError):
    """The daemon understood and said no."""

    status: int
    error: str
    mend: str = ""
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*(self.problems or (self.error,)), *([self.mend] if self.mend and not self.problems else [])])


class _CutOffError(Exception):
    """The connection could not be made, or ended before the answer; ``sent``: the question may have arrived."""

    def __init__(self, why: Exception, *, sent: bool) -> None:
        super().__init__(str(why))
        self.sent = sent


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One daemon, by the path of its socket. While its keeper lives, a brain that is being replaced is waited for. *config*: for the hint how to start it."""

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S, *, config: str | None = None) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._start = f"start it with `mainstay{f' -c {config}' if config else ''} run` or `systemctl start mainstay`"
        self._has_said = False

    def get(self, route: str, **query: object) -> Any:
        """What GET answers, as parsed JSON. ``NoDaemonError``, ``RefusedError``."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self._ask("GET", route + ("?" + urlencode(given) if given else ""), None)

    def post(self, route: str, body: Mapping[str, object] | None = None) -> Any:
        """What POST answers. ``NoDaemonError``, ``RefusedError``."""
        return self._ask("POST", route, json.dumps(body or {}).encode())

    def _ask(self, method: str, route: str, body: bytes | None) -> Any:
        status, data = self._insist(method, route, body)
        try:
            answer = json.loads(data)
        except ValueError as err:
            raise NoDaemonError(f"what answers at {self.path} is not Mainstay") from err
        if status >= 400:
            mend = _as_command(str(answer.get("mend", "")))
            raise RefusedError(status, str(answer.get("error", "refused")), mend, tuple(answer.get("problems", ())))
        return answer

    def _insist(self, method: str, route: str, body: bytes | None) -> tuple[int, bytes]:
        """(status, body) of the answer: asked again where nobody listens at the moment or the answer was cut off, but no change is asked for twice."""
        began = time.monotonic()  # noqa: TID251 - a command waits by its own clock
        while True:
            try:
                return self._exchange(method, route, body)
            except _CutOffError as err:
                if err.sent and method != "GET":
                    raise NoDaemonError(
                        f"the daemon at {self.path} went away before it answered ({err}); `mainstay status` shows whether it was done"
                    ) from err
                keeper = keeper_of(os.path.dirname(self.path))
                if keeper is None:
                    raise AbsentError(f"no daemon answers at {self.path} ({err}); {self._start}") from err
                waited_s = time.monotonic() - began  # noqa: TID251
                if waited_s >= AGAIN_S or keeper.is_stopped:
                    raise NoDaemonError(f"nobody answers at {self.path} ({err}), but {self._state_of_keeper()}") from err
                if waited_s >= NOTICE_S:
                    self._say_waiting()
            time.sleep(AGAIN_EVERY_S)

    def _exchange(self, method: str, route: str, body: bytes | None) -> tuple[int, bytes]:
        connection = _UnixConnection(self.path, self._timeout_s)
        sent = False
        try:
            connection.connect()
            sent = True
            connection.request(method, "/api/v1" + route, body, {"Content-Type": "application/json"} if body is not None else {})
            if not select.select([connection.sock], [], [], NOTICE_S)[0]:
                self._say_waiting()
                keeper = keeper_of(os.path.dirname(self.path))
                if keeper is not None and keeper.is_stopped:  # else it replaces a brain that hangs
                    raise TimeoutError
            response = connection.getresponse()
            return response.status, response.read()
        except PermissionError as err:
            raise NoDaemonError(_denied(self.path)) from err
        except TimeoutError as err:
            raise NoDaemonError(f"the daemon at {self.path} does not answer: {self._state_of_keeper()}") from err
        except (OSError, http.client.HTTPException) as err:
            raise _CutOffError(err, sent=sent) from err
        finally:
            connection.close()

    def _say_waiting(self) -> None:
        if not self._has_said:
            sys.stderr.write(f"mainstay: waiting for the daemon at {self.path}\n")
            sys.stderr.flush()
            self._has_said = True

    def _state_of_keeper(self) -> str:
        keeper = keeper_of(os.path.dirname(self.path))
        if keeper is None:
            return f"not within {self._timeout_s:g} s; whoever runs it has its log"
        if keeper.is_stopped:
            return f"its keeper (pid {keeper.pid}) was stopped by a signal; `kill -CONT {keeper.pid}` lets it go on"
        return f"its keeper (pid {keeper.pid}) runs; its log says what keeps it, and `kill {keeper.pid}` stops it and its jobs in order"


def _denied(path: str) -> str:
    try:
        uid = os.stat(path).st_uid
    except OSError:
        return f"{path} cannot be reached by uid {os.geteuid()}; ask as the user that runs Mainstay, or with sudo"
    return f"the daemon's socket {path} belongs to {owners.called(uid)}, and uid {os.geteuid()} may not open it; ask as that user, or with sudo"


_PAGES: Final = (
    (re.compile(r"GET /api/v1/(status|runs|incidents)(?!\S)"), r"`mainstay \1`"),
    (re.compile(r"GET /api/v1/jobs/([^/\s]+)/quarantine(?!\S)"), r"`mainstay quarantine \1`"),
    (re.compile(r"GET /api/v1/jobs/([^/\s]+)/drills(?!\S)"), r"`mainstay drill \1 --last`"),
)


def _as_command(mend: str) -> str:
    """A hint of the API, which speaks of its routes, for who sits at the command line."""
    for page, command in _PAGES:
        mend = page.sub(command, mend)
    return "" if mend.startswith("write for example ") or "GET /api/" in mend else mend  # of a parameter or address, which no person wrote


def job_route(job: str, verb: str = "") -> str:
    """The route of a job, or of what is asked of it. ``RefusedError`` for what could not even stand in one."""
    if job in ("", ".", "..") or "/" in job:
        raise RefusedError(404, "that is not the name of a job", "`mainstay status` lists the jobs")
    return f"/jobs/{quote(job, safe='')}" + (f"/{verb}" if verb else "")


def find(config_path: str, state_dir: str | None) -> Client:
    """The daemon that runs *config_path*: by its configured state directory, by the keeper that was started with that config, else by where
    systemd keeps it. ``NoDaemonError`` says which of these it is: nobody there, one who may not be asked, or one who does not answer.
    """
    tried: list[str] = []
    trouble: NoDaemonError | None = None
    for folder in _folders(config_path, state_dir):
        path = os.path.join(folder, "mainstay.sock")
        if path in tried:
            continue
        tried.append(path)
        client = Client(path, config=config_path)
        try:
            served = client.get("/status")["daemon"].get("config")
        except AbsentError:
            continue
        except NoDaemonError as err:
            if folder == state_dir:
                raise
            trouble = trouble or err
            continue
        except RefusedError as err:  # it is there, and overwhelmed
            trouble = trouble or NoDaemonError(f"the daemon at {path} does not say what it runs: {err}")
            continue
        except KeyError:
            continue
        if served is None or os.path.realpath(served) == os.path.realpath(config_path) or folder == state_dir:
            return client
    raise trouble or NoDaemonError(
        f"no daemon runs {config_path} (looked for {', '.join(tried)}); start it with `mainstay -c {config_path} run` or `systemctl start mainstay`"
    )


def _folders(config_path: str, state_dir: str | None) -> Iterator[str]:
    if state_dir is not None:
        yield state_dir
    else:
        yield os.path.join(os.path.dirname(os.path.abspath(config_path)), "var")
    yield from _run_with(config_path)  # the file may say something else since it started, or be gone
    name = os.path.splitext(os.path.basename(config_path))[0]
    yield os.path.join(SYSTEM_STATE, name)
    yield SYSTEM_STATE


def _run_with(config_path: str) -> list[str]:
    """The state directories of those that were started with that config."""
    wanted = os.path.realpath(config_path)
    return [keeper.state_dir for keeper in running() if os.path.realpath(keeper.config) == wanted]


def is_run(config_path: str) -> bool:
    """Whether somebody was started with that config, whatever has become of the file."""
    return bool(_run_with(config_path))
