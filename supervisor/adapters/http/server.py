"""The server: a thread with an event loop of its own, and bounds on what a connection may cost.

A client can slow down nothing but itself: the number of connections, and the bytes and seconds of each, are bounded.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import structlog
from h11 import LocalProtocolError
from starlette.types import ASGIApp

from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.gate import Gate, own_hosts
from supervisor.adapters.http.listen import listen_tcp, listen_unix
from supervisor.adapters.http.pages import MAX_ASK_DEADLINE_S, Pages
from supervisor.errors import SupervisorError

# `import uvicorn` loads its command line, and with it click and multiprocessing (2 MiB), which nobody here has a use for.
_COMMAND_LINE = ModuleType("uvicorn.main")
_COMMAND_LINE.__dict__.update(Server=None, main=None, run=None)
sys.modules.setdefault("uvicorn.main", _COMMAND_LINE)

from uvicorn.config import Config  # noqa: E402  # after the line above, which is its point
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402  # stays with its neighbour
from uvicorn.server import Server  # noqa: E402

log = structlog.get_logger()

MAX_HEAD_BYTES = 16 * 1024
MAX_CONNECTIONS = 64  # per listener, so that a crowd on TCP cannot lock the operator out of the unix socket
HEAD_DEADLINE_S = 10.0  # for a request to arrive whole
ANSWER_DEADLINE_S = 30.0  # for an answer to be made and taken, from its request on
KEEP_ALIVE_S = 75  # longer than a usual scrape interval; the cap on connections evicts idle ones
GRACE_S = 1.0  # for answers under way when we stop
STOP_DEADLINE_S = 10.0


class HttpServer:
    """Listens between ``start`` and ``stop``. *tcp* None: the unix socket only. A port of 0 takes a free one (see ``address``)."""

    def __init__(self, app_context: Backend, tcp: tuple[str, int] | None, unix_path: str) -> None:
        self._backend = app_context
        self._tcp = tcp
        self._unix_path = unix_path
        self._unix_inode: int | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._servers: list[_Server] = []
        self._up = threading.Event()
        self.address: tuple[str, int] | None = None
        """Where TCP listens, once started."""

    def start(self) -> None:
        """Binds both sockets and serves them from another thread. ``SupervisorError`` says which cannot be had, and the mend."""
        unix = listen_unix(self._unix_path)
        self._unix_inode = os.stat(self._unix_path, follow_symlinks=False).st_ino
        try:
            tcp = None if self._tcp is None else listen_tcp(*self._tcp)
        except SupervisorError:
            unix.close()
            self._unlink()
            raise
        if tcp is not None:
            host, port = tcp.getsockname()[:2]
            self.address = (host, port)
        self._thread = threading.Thread(target=self._serve, args=(tcp, unix), name="http", daemon=True)
        self._thread.start()
        if not self._up.wait(STOP_DEADLINE_S) or not self._thread.is_alive():
            raise SupervisorError("the HTTP server did not come up; the log says why")

    def stop(self) -> None:
        """Stops listening, gives answers under way a second, and takes the socket file away."""
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the thread has ended already
                loop.call_soon_threadsafe(self._ask_servers_to_stop)
            thread.join(STOP_DEADLINE_S)
            if thread.is_alive():
                log.warning("http_stop_overdue", waited_s=STOP_DEADLINE_S)
        self._unlink()

    def _ask_servers_to_stop(self) -> None:
        for server in self._servers:
            server.end()

    def _unlink(self) -> None:
        """Removes the socket file if it is still ours; another daemon may have put its own in its place."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._unix_path, follow_symlinks=False).st_ino == self._unix_inode:
                os.unlink(self._unix_path)

    def _serve(self, tcp: socket.socket | None, unix: socket.socket) -> None:
        try:
            asyncio.run(self._serve_all(tcp, unix))
        except Exception:  # the thread's last words; a daemon without HTTP still supervises
            log.exception("http_server_failed")
        finally:
            self._up.set()

    async def _serve_all(self, tcp: socket.socket | None, unix: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        pages = Pages(self._backend)
        app = pages.application()
        listeners = [(unix, Gate(app, hosts=None), MAX_ASK_DEADLINE_S + ANSWER_DEADLINE_S)]
        if tcp is not None and self._tcp is not None:
            listeners.append((tcp, Gate(app, hosts=own_hosts(self._tcp[0])), ANSWER_DEADLINE_S))
        self._servers = [_Server(app, answer_deadline_s) for _, app, answer_deadline_s in listeners]
        try:
            async with asyncio.TaskGroup() as group:
                for server, (sock, _, _) in zip(self._servers, listeners, strict=True):
                    group.create_task(server.serve(sockets=[sock]))
                for server in self._servers:
                    await server.listening.wait()
                self._up.set()
        finally:
            pages.close()


class _Server(Server):
    """uvicorn without signal handlers (they are the daemon's) and without its ten wake-ups a second."""

    def __init__(self, app: ASGIApp, answer_deadline_s: float) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a stranger's broken request is no news of ours

        class BoundProtocol(_BoundedProtocol):
            answer_s = answer_deadline_s

        super().__init__(
            Config(
                app,
                http=BoundProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(GRACE_S) + 4,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self.listening = asyncio.Event()
        self._ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves all signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and says when it is done."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Waits for the end; uvicorn's own looks ten times a second.

        Accepting ends a moment before the listeners do: asyncio loses a connection that it has accepted and not yet set up
        when the listener closes, and the client would wait for ever.
        """
        await self._ended.wait()
        loop = asyncio.get_running_loop()
        for server in self.servers:
            for sock in server.sockets:
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0.05)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with a second for answers under way; then they become refusals, and then every connection ends."""
        loop = asyncio.get_running_loop()
        loop.call_later(GRACE_S, self._refuse_answers)
        loop.call_later(GRACE_S + 0.5, self._abort_connections)
        await super().shutdown(sockets)
        self._abort_connections()
        await asyncio.sleep(0.01)  # for what an abort has put on the loop

    def _refuse_answers(self) -> None:
        for task in self.server_state.tasks:
            task.cancel()

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def end(self) -> None:
        """To be called on the loop."""
        self.should_exit = True
        self._ended.set()


class _BoundedProtocol(H11Protocol):
    """A connection whose every phase has an end: the request must arrive in time, and its answer must be taken in time.

    When there are too many connections, the one that has waited longest without an answer under way makes room.
    """

    answer_s = ANSWER_DEADLINE_S
    _deadline: asyncio.TimerHandle | None = None
    _since = 0.0
    _receiving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """As uvicorn's; the oldest connection that waits for its client goes if there are too many."""
        super().connection_made(transport)
        self._begin_request()
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [other for other in self.connections if isinstance(other, _BoundedProtocol) and not other.answering]
            oldest = min(waiting, key=lambda other: other._since, default=self)  # noqa: SLF001  # of its own class
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._disarm()
        super().connection_lost(exc)

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
            self._arm(self.answer_s, self._answer_overdue)

    def on_response_complete(self) -> None:
        """As uvicorn's, with the time for the client to take what is in the buffer."""
        super().on_response_complete()
        self._since = self.loop.time()
        if not self._receiving:
            self._arm(self.answer_s if self.answering else ANSWER_DEADLINE_S, self._answer_overdue)

    def _begin_request(self) -> None:
        self._receiving = True
        self._since = self.loop.time()
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
        self._deadline = None
        if self.answering or self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
