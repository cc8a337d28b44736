"""The brain's end of the socket to the keeper: what it said, and what it is asked for."""

import select
import socket
from typing import Any

from supervisor import wire
from supervisor.errors import WireError


class KeeperLink:
    """One socket for the whole life of a brain. Sending waits for the keeper, which never waits for us."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = wire.Decoder()

    @classmethod
    def from_fd(cls, fd: int) -> "KeeperLink":
        """The socket that the keeper handed down."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock)

    def fileno(self) -> int:
        return self._sock.fileno()

    def is_readable(self) -> bool:
        """Whether ``receive`` would find something at once."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> list[wire.Message]:
        """Every whole message that has arrived; call when the socket is readable. ``WireError`` when the keeper is gone or unintelligible."""
        try:
            data = self._sock.recv(1 << 20)
        except OSError as err:
            raise WireError(f"the keeper is gone: {err}") from err
        if not data:
            raise WireError("the keeper is gone")
        return list(self._decoder.feed(data))

    def hello(self, timeout_s: float) -> wire.Message:
        """The first message. ``WireError`` when it does not come or is of another version."""
        self._sock.settimeout(timeout_s)
        messages: list[wire.Message] = []
        while not messages:
            messages = self.receive()
        self._sock.settimeout(None)
        first, rest = messages[0], messages[1:]
        if first["op"] != wire.HELLO or first.get("version") != wire.VERSION:
            raise WireError(f"the keeper said {first.get('op')} of version {first.get('version')}; we speak version {wire.VERSION}")
        self.early = rest
        return first

    early: list[wire.Message] = []  # noqa: RUF012 - replaced, never changed: what came in one piece with HELLO

    def send(self, op: str, **facts: Any) -> None:
        """Say it. ``WireError`` when the keeper is gone."""
        try:
            self._sock.sendall(wire.encode({"op": op, **facts}))
        except OSError as err:
            raise WireError(f"the keeper is gone: {err}") from err

    def close(self) -> None:
        self._sock.close()
