"""The server: a thread with an event loop of its own, and bounds on what a connection may cost.

A client can slow down nothing but itself: the number of connections, and the bytes and seconds of each, are bounded.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator

import structlog
from starlette.types import ASGIApp

from supervisor.adapters.http.application import Application
from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.connections import KEEP_ALIVE_S, BoundedProtocol, Crowd, Shut, TlsConnection
from supervisor.adapters.http.door import Door, Rules
from supervisor.adapters.http.gate import Gate
from supervisor.adapters.http.listen import listen_tcp, listen_unix
from supervisor.adapters.http.uvicornparts import Config, Server
from supervisor.core.webconfig import WebConfig
from supervisor.errors import SupervisorError

log = structlog.get_logger()

MAX_HEAD_BYTES = 16 * 1024
ACCEPT_AT_ONCE = 8  # asyncio accepts so many before it reads from any: in a storm a request must be read before the storm pushes it out
BACKLOG = 1024
GRACE_S = 1.0  # for answers under way when we stop
STOP_DEADLINE_S = 10.0
TCP_AGAIN_S = 5.0  # until a port that somebody else had is tried again


class HttpServer:
    """Listens between ``start`` and ``stop``. *tcp* None: the unix socket only. A port of 0 takes a free one (see ``address``).

    *rules* and *web_config* (which reads the web config file anew) say who is let in over TCP; without them everybody is, for reading.
    With *tcp_may_wait* a port that cannot be had is no error: the unix socket is served, and the port as soon as it is free.
    """

    def __init__(
        self,
        app_context: Backend,
        tcp: tuple[str, int] | None,
        unix_path: str,
        *,
        rules: Rules | None = None,
        web_config: Callable[[], WebConfig] | None = None,
        tcp_may_wait: bool = False,
    ) -> None:
        self._tcp_may_wait = tcp_may_wait
        self._later: asyncio.Task[None] | None = None
        self._backend = app_context
        self._tcp = tcp
        self._rules = rules or Rules("" if tcp is None else tcp[0])
        self._web_config = web_config
        self._application: Application | None = None
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
        except SupervisorError as err:
            if not self._tcp_may_wait:
                unix.close()
                self._unlink()
                raise
            log.error("http_tcp_missing", error=str(err), again_after_s=TCP_AGAIN_S)  # noqa: TRY400 - the text says it all
            tcp = None
        self._note_address(tcp)
        self._thread = threading.Thread(target=self._serve, args=(tcp, unix), name="http", daemon=True)
        self._thread.start()
        if not self._up.wait(STOP_DEADLINE_S) or not self._thread.is_alive():
            raise SupervisorError("the HTTP server did not come up; the log says why")

    def _note_address(self, tcp: socket.socket | None) -> None:
        if tcp is not None:
            host, port = tcp.getsockname()[:2]
            self.address = (host, port)

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
        if self._application is not None:
            self._application.hub.close()
        if self._later is not None:
            self._later.cancel()
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
        application = self._application = Application(self._backend)
        router = application.router()
        unix_server = _Server(Gate(router, None), None)
        self._servers = [unix_server]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(unix_server.serve(sockets=[unix]))
                if tcp is not None:
                    await self._serve_tcp(group, application, router, tcp)
                elif self._tcp is not None:
                    self._later = group.create_task(self._serve_tcp_later(group, application, router, self._tcp))
                await unix_server.listening.wait()
                self._up.set()
        finally:
            application.close()

    async def _serve_tcp(self, group: asyncio.TaskGroup, application: Application, router: ASGIApp, tcp: socket.socket) -> None:
        door = Door(self._rules, self._web_config, asyncio.get_running_loop().time, application.hub.end_all)
        server = _Server(Gate(router, door), door)
        self._servers.append(server)
        group.create_task(server.serve(sockets=[tcp]))
        await server.listening.wait()

    async def _serve_tcp_later(self, group: asyncio.TaskGroup, application: Application, router: ASGIApp, place: tuple[str, int]) -> None:
        while True:
            await asyncio.sleep(TCP_AGAIN_S)
            with contextlib.suppress(SupervisorError):
                tcp = listen_tcp(*place)
                self._note_address(tcp)
                await self._serve_tcp(group, application, router, tcp)
                log.info("http_tcp_listening", listen=place)
                return


class _Server(Server):
    """uvicorn without signal handlers (they are the daemon's) and without its ten wake-ups a second."""

    def __init__(self, app: ASGIApp, door: Door | None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # a stranger's broken request is no news of ours
        self._crowd = Crowd()
        self._door = door

        class OwnProtocol(BoundedProtocol):
            crowd = self._crowd

        super().__init__(
            Config(
                app,
                http=OwnProtocol,
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
        """In place of uvicorn's: each connection gets the TLS that is in force when it comes."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        self.servers = [await loop.create_server(self._connection, sock=sock, backlog=ACCEPT_AT_ONCE) for sock in sockets or []]
        for sock in sockets or []:
            sock.listen(BACKLOG)  # in the kernel there is room for more
        self.started = True
        self.listening.set()

    def _connection(self) -> asyncio.BaseProtocol:
        if self._door is not None and self._door.is_shut:
            return Shut()
        loop = asyncio.get_running_loop()
        protocol: BoundedProtocol = self.config.http_protocol_class(  # type: ignore[call-arg, assignment]  # as uvicorn makes it
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
        )
        context = None if self._door is None else self._door.context()
        return protocol if context is None else TlsConnection(loop, protocol, context, self._crowd)

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
        self._crowd.abort()

    def end(self) -> None:
        """To be called on the loop."""
        self.should_exit = True
        self._ended.set()
