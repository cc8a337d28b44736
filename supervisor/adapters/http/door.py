"""The door of the TCP listener: what a web config demands of who comes in, looked at afresh for each connection and each request.

A web config that cannot be read lets nobody in: connections end, requests get 500. It is read again as soon as any of its files changed.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec import Struct, field
from starlette.requests import Request

from supervisor.adapters.http.answers import Answer, refused
from supervisor.adapters.http.passwords import CrowdedError, Passwords
from supervisor.core.settings import TcpActions
from supervisor.core.webconfig import ClientAuth, WebConfig
from supervisor.errors import ConfigError

if TYPE_CHECKING:
    import ssl

log = structlog.get_logger()

WHO: Final = "mainstay.who"  # in the ASGI scope: who asks, as far as is known
ACTS: Final = "mainstay.acts"  # whether they may change anything
TLS: Final = "tls"  # in the state of a connection: its TLS object
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
READ_AGAIN_S: Final = 1.0  # a web config that could not be read, although its files look the same

Stamp = tuple[tuple[str, tuple[int, ...] | None], ...]


def own_hosts(host: str, more: tuple[str, ...] = ()) -> Callable[[str], bool]:
    """Which Host headers are ours, by name without the port; others are a browser led astray (DNS rebinding)."""
    named = f"[{host}]" if ":" in host else host.lower()
    known = {*LOCAL_HOSTS, *(name.lower() for name in more)}
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104  # compared, not bound
        return lambda name: name in known or name == named
    known.add(socket.gethostname().lower())
    return lambda name: name in known or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine come in there."""
    return host in ("localhost", "::1") or host.startswith("127.")


class Rules(Struct, frozen=True):
    """What holds on TCP whatever the web config says: where we listen, which further names are ours, and whether changes are taken."""

    host: str
    names: tuple[str, ...] = ()
    actions: TcpActions = TcpActions.AUTO


class _Web(Struct):
    """What was read, and when. *config* None and *good*: there is no web config."""

    good: bool = True
    config: WebConfig | None = None
    context: "ssl.SSLContext | None" = None
    stamp: Stamp = ()
    read_at: float = 0.0
    had_tls: bool = False


class _Bucket(Struct):
    """Tokens for requests, as golang.org/x/time/rate."""

    tokens: float = 0.0
    at: float = field(default=float("-inf"))

    def take(self, interval_s: float, burst: int, now: float) -> bool:
        self.tokens = min(float(burst), self.tokens + (now - self.at) / interval_s)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Door:
    """Lets requests in or says why not. Lives on one event loop; *clock* is that loop's."""

    def __init__(self, rules: Rules, load: Callable[[], WebConfig] | None, clock: Callable[[], float], changed: Callable[[], None]) -> None:
        self._rules = rules
        self._load = load
        self._clock = clock
        self._changed = changed
        self._hosts = own_hosts(rules.host, rules.names)
        self._passwords = Passwords()
        self._bucket = _Bucket()
        self._web = _Web()
        if load is not None:
            self._web = self._read(load)

    # ------------------------------------------------ connections

    def context(self) -> "ssl.SSLContext | None":
        """What a new connection's TLS is made with; None: no TLS."""
        return self._current().context

    @property
    def is_shut(self) -> bool:
        """Nobody can be let in, not even to be told why: there was TLS, and its config cannot be read."""
        web = self._current()
        return not web.good and web.had_tls

    # ------------------------------------------------ requests

    async def refusal(self, request: Request) -> Answer | None:
        """Why a request is not let in; None if it is. Says in the scope who asks and whether they may act."""
        named = request.headers.getlist("host")
        if len(named) != 1 or not self._hosts(host_name(named[0])):
            return refused(421, "the Host header does not name this server", "ask for the host in supervisor.listen, or for localhost")
        web = self._current()
        if not web.good:
            return refused(500, "the web config cannot be read", "see the supervisor's log")
        request.scope[ACTS] = self._acts(web.config)
        if web.config is None:
            return None
        rate = web.config.rate
        if rate is not None and not self._bucket.take(rate.interval_s, rate.burst, self._clock()):
            return refused(429, "too many requests", "ask less often")
        return await self._stranger(request, web.config)

    def headers(self) -> Mapping[str, str]:
        """What the web config adds to every answer."""
        config = self._web.config
        return {} if config is None else config.headers

    async def _stranger(self, request: Request, config: WebConfig) -> Answer | None:
        sans: tuple[str, ...] = ()
        if config.tls is not None:
            seen = request.scope.get("state", {}).get(TLS)
            if seen is None:  # the connection is older than the demand for TLS
                return refused(400, "this server speaks TLS now", "connect again, with https")
            sans = _sans(seen)
            if config.tls.client_auth is ClientAuth.REQUIRED and not seen.getpeercert():
                return refused(403, "a certificate is needed now", "connect again, with one")
            if config.tls.allowed_sans and not set(sans) & set(config.tls.allowed_sans):
                return refused(403, "the certificate's names are not among those that are let in", "see client_allowed_sans")
            request.scope[WHO] = sans[0] if sans else None
        if not config.users:
            return None
        try:
            user = await self._passwords.right(config.users, request.headers.get("authorization", ""))
        except CrowdedError:
            return refused(429, "too many passwords are being tried", "try again")
        if user is None:
            answer = refused(401, "who you are is not known here", "give the name and password of a user in the web config")
            answer.headers["WWW-Authenticate"] = 'Basic realm="Mainstay", charset="UTF-8"'
            return answer
        request.scope[WHO] = user
        return None

    def _acts(self, config: WebConfig | None) -> bool:
        if self._rules.actions is TcpActions.NEVER:
            return False
        if config is not None and config.knows_who_asks:
            return True
        return self._rules.actions is TcpActions.LOOPBACK and is_loopback(self._rules.host)

    # ------------------------------------------------ the web config

    def _current(self) -> _Web:
        if self._load is None:
            return self._web
        stale = not self._web.good and self._clock() - self._web.read_at >= READ_AGAIN_S
        if stale or self._web.stamp != _stamp([path for path, _ in self._web.stamp]):
            self._web = self._read(self._load)
            self._changed()
        return self._web

    def _read(self, load: Callable[[], WebConfig]) -> _Web:
        old = self._web
        now = self._clock()
        files = [path for path, _ in old.stamp]
        before = _stamp(files)
        try:
            config = load()
            stamp = _stamp(list(config.files))
            context = None
            if config.tls is not None:
                from supervisor import tls  # late: most have none

                context = tls.server_context(config.tls)
        except (ConfigError, ValueError) as err:
            if old.good or before != old.stamp:
                for problem in getattr(err, "problems", [str(err)]):
                    log.error("web_config_refused", problem=problem, consequence="nobody is let in over TCP until it is mended")  # noqa: TRY400 - the problem names the place
            return _Web(good=False, stamp=before, read_at=now, had_tls=old.had_tls or old.context is not None)
        if old.stamp:
            log.info("web_config_taken", tls=config.tls is not None, users=len(config.users))
        return _Web(True, config, context, stamp, now, context is not None)


def _stamp(paths: list[str]) -> Stamp:
    """What tells that a file is another one, or other in it."""
    found: list[tuple[str, tuple[int, ...] | None]] = []
    for path in paths:
        try:
            facts = os.stat(path)
            found.append((path, (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)))
        except OSError:
            found.append((path, None))
    return tuple(found)


def _sans(seen: Any) -> tuple[str, ...]:
    """The names in a client's verified certificate: DNS, mail, IP, URI."""
    certificate = seen.getpeercert() or {}
    names = []
    for kind, text in certificate.get("subjectAltName", ()):
        names.append(str(ipaddress.ip_address(text)) if kind == "IP Address" and _is_address(text) else text)
    return tuple(names)


def host_name(header: str) -> str:
    """The name in a Host header without its port, lower case; "" if it is malformed."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?", header)
    return found.group(1).lower() if found else ""
