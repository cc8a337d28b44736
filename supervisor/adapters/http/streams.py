"""Server-sent events: what changes, and what a job writes, told for as long as somebody listens.

The number of streams is bounded, each has an end, a client that does not read loses its stream and nothing else, and all end with the
server. Nothing is polled while nobody listens.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from supervisor.adapters.http.answers import Refusal, plain
from supervisor.adapters.http.backend import Backend, JsonObject

LOOK_S: Final = 0.5
BEAT_S: Final = 15.0  # a comment, so that both ends and what is between them see that it lives
LIFE_S: Final = 3600.0  # then the client comes again, and is asked again who it is
MOST_STREAMS: Final = 16
MOST_WAITING: Final = 256  # events for one listener; who is further behind begins anew
PATIENT: Final = "mainstay.patient"  # in the ASGI scope: this answer may take its time, and has an end of its own

Read = Callable[..., Awaitable[Any]]


def event(name: str, value: Any) -> bytes:
    """One event; JSON in ASCII on one line, so that no text of a job can end it early."""
    return b"event: %s\ndata: %s\n\n" % (name.encode("ascii"), json.dumps(value, default=plain).encode("ascii"))


class Hub:
    """All streams of one server. Lives on its event loop."""

    def __init__(self, backend: Backend, read: Read) -> None:
        self._backend = backend
        self._read = read
        self._closing = asyncio.Event()
        self._open = 0
        self._listeners: set[_Listener] = set()
        self._looking: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Ends every stream, now and from now on."""
        self._closing.set()

    def end_all(self) -> None:
        """Ends the streams there are: who may listen has changed."""
        self._closing.set()
        self._closing = asyncio.Event()

    def events(self, job: str | None) -> "EventStream":
        """Changes of all jobs or of one. ``Refusal`` when there are too many streams."""
        return self._stream(self._events(job))

    def log(self, job: str, lines: int) -> "EventStream":
        """The output of *job*. ``Refusal`` when there are too many streams."""
        return self._stream(self._log(job, lines))

    def _stream(self, pieces: AsyncIterator[bytes]) -> "EventStream":
        if self._open >= MOST_STREAMS:
            raise Refusal(503, f"{MOST_STREAMS} streams are open already", "close one, or ask again later")
        return EventStream(self._counted(pieces), self._closing)

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            yield b"retry: 2000\n\n"
            async for piece in pieces:
                yield piece
        finally:
            self._open -= 1

    # ------------------------------------------------ changes

    async def _events(self, job: str | None) -> AsyncIterator[bytes]:
        listener = _Listener(job)
        self._listeners.add(listener)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            while not listener.behind:
                try:
                    yield await asyncio.wait_for(listener.waiting.get(), BEAT_S)
                except TimeoutError:
                    yield b": here\n\n"
            yield event("end", {"why": "too far behind; ask again"})
        finally:
            self._listeners.discard(listener)

    async def _look(self) -> None:
        """Compares the state of each job with that of a moment ago, while anybody listens. One look serves all."""
        before = await self._read(self._backend.pulse)
        views: dict[str, JsonObject] = {}
        while self._listeners:
            await asyncio.sleep(LOOK_S)
            now = await self._read(self._backend.pulse)
            for name in before.keys() - now.keys():
                self._tell(name, event("gone", {"name": name}))
            for name, state in now.items():
                if before.get(name) is not state:
                    await self._tell_job(name, views)
            before = now

    async def _tell_job(self, name: str, views: dict[str, JsonObject]) -> None:
        view = await self._read(self._backend.job, name)
        if view is None:
            return
        old = views.get(name, {})
        views[name] = view
        self._tell(name, event("job", view))
        if old.get("incidents", view["incidents"]) != view["incidents"] or (not old and view["incidents"]):
            self._tell(name, event("incident", {"job": name, "open": view["incidents"]}))

    def _tell(self, job: str, piece: bytes) -> None:
        for listener in self._listeners:
            if listener.job in (None, job):
                listener.put(piece)

    # ------------------------------------------------ output

    async def _log(self, job: str, lines: int) -> AsyncIterator[bytes]:
        """An attempt is read to its end before the next one's turn."""
        chunk = await self._read(self._backend.logs, job, None, lines, None, None)
        if chunk is None:
            raise Refusal(404, f"there is no job {job}", "GET /api/v1/status lists the jobs")
        yield event("log", chunk)
        quiet_s = 0.0
        while chunk is not None:
            await asyncio.sleep(LOOK_S)
            following, gap = await self._next(job, chunk)
            if gap:
                yield event("gap", {"why": "its file was turned over; some lines may be missing here"})
            quiet_s = 0.0 if following is not None and following["text"] else quiet_s + LOOK_S
            if following is None:
                yield event("end", {"why": "the job is gone"})
                return
            moved = (following["run"], following["attempt"]) != (chunk["run"], chunk["attempt"])
            if following["text"] or moved or following["live"] != chunk["live"]:
                yield event("log", following)
            elif quiet_s >= BEAT_S:
                quiet_s = 0.0
                yield b": here\n\n"
            chunk = following

    async def _next(self, job: str, chunk: Mapping[str, Any]) -> tuple[JsonObject | None, bool]:
        """(what came since, whether some is missing before it)."""
        if chunk["attempt"] is not None:
            more = await self._read(self._backend.logs, job, chunk["run"], None, chunk["offset"], chunk["attempt"])
            if more is not None and more["text"]:
                return more, bool(more["turned_over"])
        latest: JsonObject | None = await self._read(self._backend.logs, job, None, 0, None, None)
        if latest is None or latest["attempt"] is None:
            return latest, False
        if (latest["run"], latest["attempt"]) != (chunk["run"], chunk["attempt"]):
            return await self._read(self._backend.logs, job, latest["run"], None, 0, latest["attempt"]), False
        return {**chunk, "text": "", "live": latest["live"]}, False


class _Listener:
    """Who listens for changes, of one job or of all, and what waits for them."""

    def __init__(self, job: str | None) -> None:
        self.job = job
        self.waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self.behind = False

    def put(self, piece: bytes) -> None:
        try:
            self.waiting.put_nowait(piece)
        except asyncio.QueueFull:
            self.behind = True


class EventStream(Response):
    """An answer that goes on until its pieces end, its client leaves, its life is over or the server stops."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncIterator[bytes], closing: asyncio.Event) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pieces = pieces
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends until something ends it."""
        scope[PATIENT] = True
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        ends = {asyncio.create_task(self._closing.wait()), asyncio.create_task(_left(receive))}
        sending = asyncio.create_task(self._send_all(send))
        try:
            await asyncio.wait({sending, *ends}, timeout=LIFE_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, *ends):
                task.cancel()
            await asyncio.gather(sending, *ends, return_exceptions=True)
        with contextlib.suppress(OSError, RuntimeError):  # whoever has left does not hear it
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:  # type: ignore[type-var]  # an async generator, which has aclose
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
