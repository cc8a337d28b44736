"""Who may ask for what: in front of all routes, before any of them runs."""

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from supervisor.adapters.http.answers import Answer, refused

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)


def own_hosts(host: str) -> Callable[[str], bool]:
    """Which Host headers are ours, by name without the port; others are a browser led astray (DNS rebinding)."""
    named = f"[{host}]" if ":" in host else host.lower()
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104  # compared, not bound
        return lambda name: name in _LOCAL_HOSTS or name == named
    own = {socket.gethostname().lower()}
    return lambda name: name in _LOCAL_HOSTS or name in own or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def host_name(header: str) -> str:
    """The name in a Host header without its port, lower case; "" if it is malformed."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?", header)
    return found.group(1).lower() if found else ""


class Gate:
    """In front of the routes: the Host header on TCP, changes only on the unix socket, no ambiguous bodies, our headers on all."""

    def __init__(self, app: ASGIApp, hosts: Callable[[str], bool] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else None

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Answer | None:
        headers = request.headers
        if "transfer-encoding" in headers and "content-length" in headers:
            return refused(400, "the request has both a Content-Length and a Transfer-Encoding", "send one of them")
        if self._hosts is None:
            return None
        named = headers.getlist("host")
        if len(named) != 1 or not self._hosts(host_name(named[0])):
            return refused(421, "the Host header does not name this server", "ask for the host in supervisor.listen, or for localhost")
        if request.method not in ("GET", "HEAD"):
            return refused(
                403,
                "changes are taken on the unix socket in the state directory only, not over TCP",
                "use the mainstay command on this machine, as a user who may open that socket",
            )
        return None
