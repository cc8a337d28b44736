"""Receivers with bad manners, on the loopback: raw TCP servers, an HTTP server that keeps what it got, an SMTP sink, certificates."""

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
from dataclasses import dataclass, field

WAIT_S = 30.0


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


class Facts:
    """Things that happened, with a way to wait for them."""

    def __init__(self):
        self.all = []
        self._changed = threading.Condition()

    def add(self, fact):
        with self._changed:
            self.all.append(fact)
            self._changed.notify_all()

    def wait_for(self, count, timeout=WAIT_S):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, timeout), f"only {len(self.all)} of {count}: {self.all[:5]}"
            return list(self.all)


class Server:
    """Accepts connections and gives each to *behave(connection)* in a thread; everything ends with ``close``."""

    def __init__(self, behave, tls=None):
        self._behave = behave
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.closing = threading.Event()
        self._connections = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_S)
        for connection in self._connections:
            connection.close()

    def _accept(self):
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            self._behave(connection)
            connection.close()


def read_request(connection):
    file = connection.makefile("rb")
    line = file.readline().decode().strip()
    headers = {}
    while (header := file.readline().strip()) and b":" in header:
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return Request(line, headers, file.read(int(headers.get("content-length", 0))))


def reset(connection):
    """Closes so that the other side gets a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@dataclass
class Web:
    """An HTTP receiver: answers with what *answers* says, one after the other, the last one for ever."""

    answers: list[str] = field(default_factory=lambda: ["200 OK"])
    tls: ssl.SSLContext | None = None

    def __enter__(self):
        self.got = Facts()
        self._lock = threading.Lock()
        self._server = Server(self._behave, self.tls)
        self.port = self._server.port
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_):
        self._server.__exit__()

    def _behave(self, connection):
        request = read_request(connection)
        with self._lock:
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        status, _, head = answer.partition("\n")
        self.got.add(request)
        connection.sendall(f"HTTP/1.1 {status}\r\n{head}{chr(13) + chr(10) if head else ''}Content-Length: 2\r\n\r\nok".encode())


@dataclass
class Mailbox:
    """A small real SMTP server: keeps the messages; *refuse* maps a command word to the reply it gets instead of 250."""

    refuse: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    starttls: bool = False

    def __enter__(self):
        self.got = Facts()
        self.said = Facts()
        self._server = Server(self._behave, None if self.starttls else self.tls)
        self.port = self._server.port
        return self

    def __exit__(self, *_):
        self._server.__exit__()

    def _behave(self, connection):
        connection.sendall(b"220 sink ready\r\n")
        file = connection.makefile("rb")
        while line := file.readline():
            word = line.decode().split()[0].upper()
            self.said.add(line.decode().strip())
            reply = self.refuse.get(word)
            if reply is None and word == "STARTTLS":
                connection.sendall(b"220 go\r\n")
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._server._connections.append(connection)
                file = connection.makefile("rb")
                continue
            if reply is None and word == "DATA":
                connection.sendall(b"354 go on\r\n")
                lines = []
                while (part := file.readline()) not in (b".\r\n", b""):
                    lines.append(part[1:] if part.startswith(b".") else part)
                self.got.add(b"".join(lines))
            if word == "EHLO" and reply is None:
                offers = ["250-sink", *(["250-STARTTLS"] if self.starttls else []), "250-AUTH PLAIN", "250 8BITMIME"]
                reply = "\r\n".join(offers)
            reply = reply or {"AUTH": "235 welcome", "QUIT": "221 bye"}.get(word, "250 ok")
            connection.sendall(reply.encode() + b"\r\n")
            if word == "QUIT":
                return


def certificate(folder):
    """A self-signed certificate for 127.0.0.1: (server context, path of the certificate)."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, str(cert)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
