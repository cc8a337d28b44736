"""Sockets with a deadline for the whole exchange and a bound on what is read: a receiver may be slow, endless or rude.

Only the name look-up cannot be cut short (getaddrinfo(3) has its own time-outs); it holds up no other receiver.
"""

import base64
import http.client
import io
import socket
import sys
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.core.model import Wall

if TYPE_CHECKING:
    import ssl

READ_MAX_BYTES = 64 * 1024  # of an answer's body; nothing of use to us is longer
ANSWER_MAX_BYTES = 2 * READ_MAX_BYTES  # head and body together
RETRY_AFTER_MAX_S = 3600.0


class Deadline:
    """*seconds* from now for all that follows."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._end = clock().mono + seconds

    def left_s(self) -> float:
        """Seconds left; ``TimeoutError`` when there are none."""
        left = self._end - self._clock().mono
        if left <= 0:
            raise TimeoutError("no complete answer in time")
        return left


class _BoundedRaw(io.RawIOBase):
    """Reads a socket with the deadline renewed before each read, up to a number of bytes."""

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise ConnectionError("the answer is too long")
        view = memoryview(buffer)[: self._left]
        self._sock.settimeout(self._deadline.left_s())
        count = self._sock.recv_into(view)
        self._left -= count
        return count


class Channel:
    """The part of a socket that ``http.client`` and ``smtplib`` use, bounded in time and size.

    ``close`` does nothing: ``http.client`` closes as soon as it has the head of an answer, and the body is still to be read. The
    socket belongs to who made it.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, max_bytes: int = ANSWER_MAX_BYTES) -> None:
        self.sock = sock
        self._deadline = deadline
        self._max_bytes = max_bytes

    def sendall(self, data: Any) -> None:
        self.sock.settimeout(self._deadline.left_s())
        self.sock.sendall(data)

    def makefile(self, _mode: str = "rb", **_: Any) -> io.BufferedReader:
        return io.BufferedReader(_BoundedRaw(self.sock, self._deadline, self._max_bytes))

    def close(self) -> None:
        pass


def connect(host: str, port: int, deadline: Deadline) -> socket.socket:
    """A TCP connection to the first address that answers; the deadline holds for all of them together. ``OSError`` for the last."""
    failure: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(address)
        except OSError as err:
            sock.close()
            failure = err
        else:
            return sock
    raise failure


def with_tls(sock: socket.socket, host: str, deadline: Deadline) -> "ssl.SSLSocket":
    """TLS over *sock*, the certificate checked against *host* and the system's authorities (or $SSL_CERT_FILE)."""
    import ssl  # late: 5 MiB for those who are reached in the clear

    sock.settimeout(deadline.left_s())
    return ssl.create_default_context().wrap_socket(sock, server_hostname=host)


def in_words(err: OSError) -> str:
    """A failed exchange in one line. Never the text of a URL: there are receivers whose path is the password."""
    if "ssl" in sys.modules and (words := _of_tls(err)) is not None:
        return words
    match err:
        case TimeoutError():
            return "no complete answer in time"
        case _:
            return err.strerror or str(err) or type(err).__name__


def _of_tls(err: OSError) -> str | None:
    import ssl

    match err:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not valid: {err.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {err.reason or 'connection closed'}"
        case _:
            return None


class Answer(Struct, frozen=True):
    """What an HTTP receiver said: the body is cut at ``READ_MAX_BYTES``."""

    status: int
    body: bytes
    retry_after_s: float | None

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Endpoint(Struct, frozen=True):
    """An http(s) URL taken apart. ``str()`` of it is safe to log: scheme, host and port only."""

    scheme: str
    host: str
    port: int
    path: str
    authorization: str | None

    @classmethod
    def parse(cls, url: str, suffix: str = "") -> "Endpoint":
        """``ValueError`` with a text that names no part of the URL but the scheme."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("its url is not an http or https address")
        path = (parts.path.rstrip("/") + suffix if suffix else parts.path) or "/"
        target = path + (f"?{parts.query}" if parts.query else "")
        if any(char <= " " or char > "~" for char in target):
            raise ValueError("its url has a character that must be percent-encoded")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return cls(parts.scheme, parts.hostname, port, target, _basic(parts))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float, clock: Clock) -> Answer | Failed:
        """One POST, no redirect followed. ``Failed`` when no whole answer came within *timeout_s*."""
        return self._ask("POST", body, headers, timeout_s, clock)

    def get(self, timeout_s: float, clock: Clock) -> Answer | Failed:
        """One GET, likewise."""
        return self._ask("GET", None, {}, timeout_s, clock)

    def _ask(self, method: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float, clock: Clock) -> Answer | Failed:
        try:
            return self._exchange(method, body, headers, Deadline(timeout_s, clock), clock().wall)
        except OSError as err:
            return Failed(f"{self}: {in_words(err)}")
        except http.client.HTTPException as err:
            return Failed(f"{self}: does not speak HTTP ({type(err).__name__})")
        except ValueError:  # http.client's word for a header that would break the request; it quotes the value, we do not
            return Failed(f"{self}: a header of this receiver has characters that HTTP does not allow")

    def _exchange(self, method: str, body: bytes | None, headers: Mapping[str, str], deadline: Deadline, now: Wall) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port)
        sock = connect(self.host, self.port, deadline)
        try:
            if self.scheme == "https":
                sock = with_tls(sock, self.host, deadline)
            connection.sock = cast("Any", Channel(sock, deadline))
            own = {"Connection": "close", "User-Agent": "mainstay", **({"Authorization": self.authorization} if self.authorization else {})}
            connection.request(method, self.path, body=body, headers={**own, **headers})
            response = connection.getresponse()
            status = response.status
            # A good status is the receiver's word that it has the message; whatever ails the rest would only send it twice.
            said = response.read(READ_MAX_BYTES) if status >= 300 else b""
            return Answer(status, said, _retry_after(response.getheader("Retry-After"), now))
        finally:
            sock.close()
            connection.close()


def refusal(endpoint: Endpoint, answer: Answer) -> Failed:
    """A bad status in words; the body is left out, it may quote our own headers back."""
    try:
        phrase = http.HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "no known status"
    if 300 <= answer.status < 400:
        phrase += "; redirects are not followed, write the final address"
    return Failed(f"{endpoint}: answered {answer.status} {phrase}", answer.retry_after_s)


def _basic(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _retry_after(value: str | None, now: Wall) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3), within bounds; None for nonsense."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)
