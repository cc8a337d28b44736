"""A keeper in a process of its own, with the test itself as its brain: a stub hands the brain's socket over and dies when it is told to."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from supervisor import procfs, wire
from supervisor.wire import Message

PATIENCE_S = 30.0

KEEPER = """
import sys
from supervisor.keeper.loop import Keeper
sys.exit(Keeper(sys.argv[1], sys.argv[3:]).run())
"""
# What the keeper starts as its brain: gives its socket away, then waits for its exit code (or to be killed).
STUB = """
import os, socket, sys
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
fd = int(os.environ["MAINSTAY_BRAIN_FD"])
environment = "\\n".join(f"{name}={value}" for name, value in os.environ.items())
socket.send_fds(control, [f"{os.getpid()}\\n{environment}".encode()], [fd])
os.close(fd)
code = control.recv(4)
os._exit(int(code or b"0"))
"""

# What an exit record leaves out when there is nothing to tell.
ABSENT: Message = {
    "code": None,
    "signal": None,
    "launch_error": None,
    "killed_for": None,
    "asked_to_stop": False,
    "output_bytes": 0,
    "output_dropped_bytes": 0,
    "leftovers": 0,
    "unkillable": [],
}


class FakeBrain:
    """One life of the brain."""

    def __init__(self, control: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(control, 1 << 20, 1)
        pid, *environment = data.decode().split("\n")
        self.pid = int(pid)
        self.environment = dict(line.split("=", 1) for line in environment if "=" in line)
        self._control = control
        self._sock = socket.socket(fileno=fds[0])
        self._sock.settimeout(PATIENCE_S)
        self._decoder = wire.Decoder()
        self.unread: list[Message] = []
        self.answers_pings = True
        self.hello = self.wait(wire.HELLO)

    def send(self, op: str, **facts: Any) -> None:
        self._sock.sendall(wire.encode({"op": op, **facts}))

    def close_socket(self) -> None:
        """Its process lives on, as one that hangs on its way out."""
        self._sock.close()

    def send_raw(self, data: bytes) -> None:
        self._sock.sendall(data)

    def wait(self, op: str, accept: Callable[[Message], bool] = lambda _message: True) -> Message:
        """The next message of that kind; others are kept for later."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for number, message in enumerate(self.unread):
                if message["op"] == op and accept(message):
                    return self.unread.pop(number)
            assert time.monotonic() < deadline, f"no {op}; there is {self.unread}"
            self._receive()

    def _receive(self) -> None:
        data = self._sock.recv(1 << 18)
        assert data, "the keeper hung up"
        for message in self._decoder.feed(data):
            if message["op"] == wire.PING and self.answers_pings:
                self.send(wire.PONG)
            else:
                self.unread.append(message)

    def started(self, key: str) -> Message:
        return dict(self.wait(wire.STARTED, lambda message: message["attempt"]["key"] == key)["attempt"])

    def ended(self, key: str) -> Message:
        """The exit record, with what it leaves out."""
        return ABSENT | dict(self.wait(wire.ENDED, lambda message: message["record"]["key"] == key)["record"])

    def exit(self, code: int) -> None:
        """End by itself."""
        self._sock.close()
        self._control.sendall(str(code).encode())
        self._control.close()

    def die(self) -> None:
        """SIGKILL."""
        self._sock.close()
        os.kill(self.pid, signal.SIGKILL)
        self._control.close()

    def close(self) -> None:
        self._sock.close()
        self._control.close()


class Keeper:
    """A real keeper on a state directory."""

    def __init__(self, folder: Path, *, prefix: tuple[str, ...] = (), environment: Mapping[str, str] | None = None, **popen: Any) -> None:
        self.state = folder / "state"
        self.state.mkdir(exist_ok=True)
        self.folder = folder
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE_S)
        path = str(folder / f"b{time.monotonic_ns()}")
        self._listener.bind(path)
        self._listener.listen()
        self._brains: list[FakeBrain] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
        with open(folder / "keeper.log", "ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", KEEPER, str(self.state), "--", sys.executable, "-S", "-E", "-c", STUB, path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=kept | {"MAINSTAY_CGROUP": "none"} | dict(environment or {}),
                **popen,
            )

    def brain(self, *, ready: bool = True) -> FakeBrain:
        """The next brain, once the keeper has started it."""
        control, _ = self._listener.accept()
        control.settimeout(PATIENCE_S)
        brain = FakeBrain(control)
        self._brains.append(brain)
        if ready:
            brain.send(wire.READY, status="supervising")
        return brain

    def log(self) -> str:
        return (self.folder / "keeper.log").read_text()

    def children(self) -> list[procfs.Stat]:
        """Its children with their states; zombies too."""
        return [stat for pid in procfs.children(self.process.pid) if (stat := procfs.read_stat(pid)) is not None]

    def assert_only(self, pid: int) -> None:
        """No other child lives; one that died last may be a zombie for a moment yet."""
        assert [stat.pid for stat in self.children() if not stat.is_dead] == [pid]
        wait_for(lambda: [stat.pid for stat in self.children()] == [pid], "that the dead are collected")

    def close(self) -> None:
        """End it and whatever it still has."""
        if self.process.poll() is None:
            below = list(procfs.descendants([self.process.pid]))
            for pid in below:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait(PATIENCE_S)
        for brain in self._brains:
            brain.close()
        self._listener.close()
        assert "Traceback" not in self.log(), self.log()


def wait_for(question: Callable[[], object], what: str) -> None:
    """Until it is true; fails with *what*."""
    deadline = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def plan(*argv: str, **more: Any) -> dict[str, Any]:
    """A plan of the wire for a small command."""
    return {"argv": list(argv), "environment": {"PATH": os.environ["PATH"]}, "directory": "/", **more}


def shell(script: str, **more: Any) -> dict[str, Any]:
    return plan("/bin/sh", "-c", script, **more)
