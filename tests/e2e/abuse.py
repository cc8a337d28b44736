"""Clients that mean no good, as a program of their own: random requests one after the other, and connections that dawdle.

abuse.py requests PORT COUNT SEED    prints {"answers": {status: count}, "closed": count, "wrong": [what was no HTTP answer]}
abuse.py slow PORT COUNT SECONDS     holds COUNT connections that send a byte now and then
"""

import collections
import json
import random
import selectors
import socket
import sys
import time

METHODS = [*["GET"] * 12, "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "G\0T", "", "X" * 300]
WORDS = [
    "api",
    "v1",
    "jobs",
    "flaky",
    "runs",
    "incidents",
    "metrics",
    "logs",
    "stop",
    "status",
    "1",
    "why",
    "config",
    "reload",
    "assets",
    "style.css",
]
ODD = [
    "..",
    "%2e%2e",
    "%00",
    "//",
    ";",
    "%c3%a9",
    "%ff",
    "{name}",
    "%252e",
    "\\",
    "a" * 500,
    "?",
    "#",
    "'",
    "__class__",
    "\u00e9",
    "%0d%0aX:y",
    "*",
    " ",
]
VALID = [
    "/",
    "/metrics",
    "/healthz",
    "/jobs/flaky",
    "/incidents",
    "/runs/1",
    "/api/v1/status",
    "/api/v1/jobs/flaky",
    "/api/v1/jobs/flaky/logs?n=3",
    "/api/v1/why",
    "/api/v1/config",
    "/assets/style.css",
]
VERSIONS = ["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTP/1.1", "", "HTTP/1.1 x"]
HEADERS = [
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5\r\nContent-Length: 6",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Expect: 100-continue",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    "Content-Type: application/json",
    "Content-Type: application/x-www-form-urlencoded",
    "Authorization: Basic AAAA",
    "Authorization: Bearer " + "x" * 200,
    "Accept-Encoding: gzip;q=0, *;q=1",
    "Origin: http://evil.example",
    "Sec-Fetch-Site: cross-site",
    "Range: bytes=0-0,1-1",
    "X: " + "y" * 9000,
    " folded: header",
    "no colon",
    "Host: second.example",
    "Cookie: a=b; c=\xff",
]
BODIES = [
    "",
    "hello",
    "{}",
    '{"for": "1h"}',
    "[" * 3000,
    "5\r\nhello\r\n0\r\n\r\n",
    "ZZ\r\n",
    "fffffffff\r\n",
    "token=x&verb=y",
    "\0" * 100,
]


def request(rng: random.Random) -> bytes:
    """One request, more or less."""
    if rng.random() < 0.05:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(400)))
    if rng.random() < 0.02:
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(rng.randrange(256) for _ in range(200))
    path = "/" + "/".join(rng.choice(WORDS if rng.random() < 0.8 else ODD) for _ in range(rng.randrange(6)))
    if rng.random() < 0.4:
        path = rng.choice(VALID)
    if rng.random() < 0.3:
        path += "?" + "&".join(
            f"{rng.choice(['job', 'run', 'limit', 'n', 'open', 'x', ''])}={rng.choice(['1', '', 'flaky', '%', '-1', '9' * 30])}"
            for _ in range(rng.randrange(3))
        )
    if rng.random() < 0.1:
        path = rng.choice(["http://evil/", "*", "", "/" + "a" * 20_000, path + "\t", "//evil.example/" + path])
    host = rng.choice(["Host: localhost"] * 9 + ["Host: evil.example", "Host: ", "", "Host: localhost:x"])
    heads = [host, *(rng.choice(HEADERS) for _ in range(rng.choice([0, 0, 0, 0, 1, 2, 3])))]
    text = (
        f"{rng.choice(METHODS)} {path} {rng.choice(VERSIONS)}\r\n"
        + "".join(f"{head}\r\n" for head in heads if head)
        + "\r\n"
        + rng.choice(BODIES)
    )
    data = bytearray(text.encode("latin-1"))
    if rng.random() < 0.3 and data:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.1:
        data = data * rng.randint(2, 5)  # pipelined
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data)


def requests(port: int, count: int, seed: int) -> None:
    """Each on a connection of its own, sent whole, then the sending side is shut."""
    rng = random.Random(seed)
    answers: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    for _ in range(count):
        data = request(rng)
        got = b""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(65536):
                    got += piece
                    if len(got) > 4_000_000:
                        break
        except TimeoutError:
            wrong.append(f"no answer and no end: {data[:200]!r}")
            continue
        except OSError:
            pass
        if not got:
            answers["closed"] += 1
        elif got.startswith(b"HTTP/1.1 ") and b"Traceback" not in got:
            answers[got[9:12].decode("latin-1")] += 1
        else:
            wrong.append(f"{data[:200]!r} -> {got[:200]!r}")
    print(json.dumps({"answers": dict(answers), "wrong": wrong[:20]}))


def slow(port: int, count: int, seconds: float) -> None:
    """Connections that begin a request and go on byte by byte; one that is ended is made anew."""
    until = time.monotonic() + seconds
    selector = selectors.DefaultSelector()
    rng = random.Random(count)

    def begin() -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: loc")
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)

    for _ in range(count):
        begin()
    ended = missing = 0
    while time.monotonic() < until:
        for key, _ in selector.select(0.05):
            selector.unregister(key.fileobj)
            key.fileobj.close()
            ended += 1
            missing += 1
        for _ in range(min(missing, 2)):  # some 40 a second: they are slow, not a flood
            begin()
            missing -= 1
        for key in list(selector.get_map().values()):
            if rng.random() < 0.02:
                try:
                    key.fileobj.send(b"a")
                except OSError:
                    continue
        time.sleep(0.05)
    print(json.dumps({"ended": ended}))


if __name__ == "__main__":
    if sys.argv[1] == "requests":
        requests(*map(int, sys.argv[2:5]))
    else:
        slow(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
