"""Connections, and the bounds on what each may cost: their number, their number from one peer, and the seconds of every phase."""

import asyncio
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from h11 import LocalProtocolError

from supervisor.adapters.http.door import TLS
from supervisor.adapters.http.streams import PATIENT
from supervisor.adapters.http.uvicornparts import H11Protocol

if TYPE_CHECKING:
    import ssl

MAX_CONNECTIONS = 64  # per listener, so that a crowd on TCP cannot lock the operator out of the unix socket
PEER_CONNECTIONS = 8  # from one address; a browser uses six
LOOPBACK_CONNECTIONS = 48  # there every program of this machine has the same address
HEAD_DEADLINE_S = 10.0  # for a request to arrive whole, and for a TLS handshake
ANSWER_DEADLINE_S = 30.0  # for an answer to be made and taken, from its request on
KEEP_ALIVE_S: Final = 75  # longer than a usual scrape interval; the cap on connections evicts idle ones


class Member(Protocol):
    """A connection, whatever it speaks."""

    @property
    def since(self) -> float:
        """Since when it waits for its client, on the loop's clock."""

    @property
    def peer(self) -> str:
        """The address at the other end."""

    @property
    def answering(self) -> bool:
        """A request has arrived whole and its answer is not out yet."""

    def abort(self) -> None:
        """Ends it at once."""


class Crowd:
    """All connections of one listener, those amid a handshake too. Too many, and the one that has waited longest makes room."""

    def __init__(self) -> None:
        self.members: set[Member] = set()

    def join(self, member: Member) -> None:
        """A new one has come."""
        self.members.add(member)
        if len(self.members) > MAX_CONNECTIONS:
            self._make_room(self.members, member)
        of_peer = {other for other in self.members if other.peer == member.peer}
        most = PEER_CONNECTIONS if member.peer not in ("", "::1") and not member.peer.startswith("127.") else LOOPBACK_CONNECTIONS
        if member.peer and len(of_peer) > most:
            self._make_room(of_peer, member)

    def leave(self, member: Member) -> None:
        """One has gone."""
        self.members.discard(member)

    def abort(self) -> None:
        """Ends all."""
        for member in list(self.members):
            member.abort()

    def _make_room(self, among: set[Member], newest: Member) -> None:
        waiting = [other for other in among if not other.answering]
        oldest = min(waiting, key=lambda other: other.since, default=newest)
        self.members.discard(oldest)
        oldest.abort()


def _peer(transport: asyncio.BaseTransport) -> str:
    """The address at the other end; "" on a unix socket."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else ""


class BoundedProtocol(H11Protocol):
    """A connection whose every phase has an end: the request must arrive in time, and its answer must be taken in time."""

    crowd: Crowd
    peer: str = ""
    since: float = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _receiving = False
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """As uvicorn's; under TLS what the client has shown goes with each request."""
        super().connection_made(transport)
        seen = transport.get_extra_info("ssl_object")
        if seen is not None:
            self.app_state = {**self.app_state, TLS: seen}
        self.peer = _peer(transport)
        self._begin_request()
        if seen is None:  # under TLS the crowd counts the connection below this one, from before its handshake on
            self.crowd.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._disarm()
        self.crowd.leave(self)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Ends it at once."""
        self.connections.discard(self)
        self.transport.abort()

    @property
    def answering(self) -> bool:
        """A request has arrived whole and its answer is not out yet."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, with the time for a request running from its first byte to its last."""
        if not self._receiving and not self.answering:
            self._begin_request()
        super().data_received(data)
        if self.answering and self._receiving:
            self._receiving = False
            self._arm(ANSWER_DEADLINE_S, self._answer_overdue)

    def on_response_complete(self) -> None:
        """As uvicorn's, with the time for the client to take what is in the buffer."""
        super().on_response_complete()
        self.since = self.loop.time()
        if not self._receiving:
            self._arm(ANSWER_DEADLINE_S, self._answer_overdue)

    def _begin_request(self) -> None:
        self._receiving = True
        self.since = self.loop.time()
        self._arm(HEAD_DEADLINE_S, self._request_overdue)

    def send_400_response(self, msg: str) -> None:
        """As uvicorn's, in place of any answer under way; where that is half out already, the connection just ends."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # whatever its handler still says is not sent
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except LocalProtocolError:
            self.transport.abort()

    def _arm(self, seconds: float, act: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, act)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _request_overdue(self) -> None:
        self._deadline = None
        if not self.answering:
            self.transport.abort()

    def _answer_overdue(self) -> None:
        """An answer that takes too long ends; a stream or a change may take its time, as long as its client takes what is sent."""
        self._deadline = None
        unsent = self.transport.get_write_buffer_size()
        if self.answering and self.cycle.scope.get(PATIENT) and (unsent == 0 or unsent < self._unsent or self._unsent == 0):
            self._unsent = unsent
            self._arm(ANSWER_DEADLINE_S, self._answer_overdue)
        elif self.answering or unsent > 0:
            self.transport.abort()


class TlsConnection(SSLProtocol):
    """TLS below a ``BoundedProtocol``: counted and bounded from before the handshake on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, above: BoundedProtocol, context: "ssl.SSLContext", crowd: Crowd) -> None:
        nobody: Any = None  # waits for the handshake: the protocol above hears of it
        seconds = int(HEAD_DEADLINE_S)
        super().__init__(loop, above, context, nobody, server_side=True, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds)
        self._above = above
        self._crowd = crowd
        self._begun_at = loop.time()
        self._below: asyncio.Transport | None = None
        self.peer = ""

    def connection_made(self, transport: Any) -> None:
        """As asyncio's."""
        self._below = transport
        self.peer = _peer(transport)
        super().connection_made(transport)
        self._crowd.join(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As asyncio's."""
        self._crowd.leave(self)
        super().connection_lost(exc)

    @property
    def since(self) -> float:
        """Since when it waits for its client."""
        return self._above.since or self._begun_at

    @property
    def answering(self) -> bool:
        """As the protocol above."""
        return self._above.answering

    def abort(self) -> None:
        """Ends it at once."""
        if self._below is not None:
            self._below.abort()


class Shut(asyncio.Protocol):
    """A connection that is not let in."""

    def connection_made(self, transport: Any) -> None:
        """Ends it."""
        transport.abort()
