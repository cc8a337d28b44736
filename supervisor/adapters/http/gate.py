"""Who may ask for what: in front of all routes, before any of them runs."""

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from supervisor.adapters.http.answers import Answer, refused
from supervisor.adapters.http.door import ACTS, LOCAL_HOSTS, WHO, Door, host_name
from supervisor.adapters.http.requests import STRICT

_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
}


class Gate:
    """In front of the routes: no ambiguous bodies, no change that a foreign page asks for, our headers on all. *door* None: the unix socket."""

    def __init__(self, app: ASGIApp, door: Door | None) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = await self._refusal(Request(scope)) if scope["type"] == "http" else None

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                names = {name.lower() for name, _ in given}
                wanted = {name: value for name, value in _HEADERS.items() if name not in names}
                if self._door is not None:
                    theirs = {name.lower().encode(): text.encode("ascii") for name, text in self._door.headers().items()}
                    given = [(name, value) for name, value in given if name.lower() not in theirs]
                    wanted |= theirs
                message = {**message, "headers": [*given, *wanted.items()]}
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    async def _refusal(self, request: Request) -> Answer | None:
        headers = request.headers
        if "transfer-encoding" in headers and "content-length" in headers:
            return refused(400, "the request has both a Content-Length and a Transfer-Encoding", "send one of them")
        request.scope[STRICT] = self._door is not None
        if self._door is None:
            request.scope[ACTS], request.scope[WHO] = True, "the unix socket"
        else:
            refusal = await self._door.refusal(request)
            if refusal is not None:
                return refusal
        if request.method in ("GET", "HEAD"):
            return None
        return self._no_change(request)

    def _no_change(self, request: Request) -> Answer | None:
        """Why a change is not taken; None if it is. What a browser sends along tells whose page asks."""
        if not request.scope[ACTS]:
            return refused(
                403,
                "changes are taken on the unix socket in the state directory only, not over TCP",
                "use the mainstay command on this machine, as a user who may open that socket",
            )
        headers = request.headers
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        host = headers.get("host", "")
        is_browser = origin is not None or site is not None
        foreign = refused(403, "the page that asks is not ours", "ask from the status page, or from a program")
        if self._door is None and is_browser and host_name(host) not in LOCAL_HOSTS:
            return foreign  # somebody forwards a port to the socket: then no name but ours may come
        if (origin is not None and origin != f"{request.scope['scheme']}://{host}") or site not in (None, "same-origin"):
            return foreign
        return None
