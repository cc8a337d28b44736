"""The HTTP side over real sockets: both listeners, the gate in front of them, and clients that mean no good."""

import contextlib
import gzip
import http.client
import json
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fullbackend import FullBackend

from supervisor.adapters.http import HttpServer, connections, door, server
from supervisor.adapters.http.work import READ_DEADLINE_S
from supervisor.errors import SupervisorError

WAIT_S = 30


class Daemon:
    """A backend with one job, one run and one incident. ``hold`` makes ``status`` wait, ``broken`` makes it fail."""

    def __init__(self) -> None:
        self.rendered = 0
        self.asked: list[tuple[str, str, dict[str, Any], float]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.broken = False
        self.good = True
        self.page = b"# HELP x X.\n# TYPE x gauge\nx 1\n"

    def metrics_page(self) -> bytes:
        self.rendered += 1
        return self.page

    def healthy(self) -> tuple[bool, str]:
        return self.good, "the loop came round 0.1 s ago"

    def ready(self) -> tuple[bool, str]:
        return self.good, "supervising 1 job"

    def status(self) -> dict[str, Any]:
        self.hold.wait(WAIT_S)
        if self.broken:
            raise RuntimeError("secret detail")
        return FullBackend().status()

    def job(self, name: str) -> dict[str, Any] | None:
        return {"name": name} if name == "nightly" else None

    def runs(self, job: str | None, limit: int) -> list[dict[str, Any]]:
        return [] if job in ("ghost", "once") else [{**FullBackend().runs(None, 1)[0], "job": job, "limit": limit}]

    def run(self, number: int) -> dict[str, Any] | None:
        return None

    def pulse(self) -> Mapping[str, object]:
        return {}

    def version(self) -> dict[str, Any]:
        return {}

    def config(self) -> dict[str, Any]:
        return {}

    def slots(self, job: str | None, limit: int) -> list[dict[str, Any]]:
        return [] if job == "ghost" else [{"job": job, "limit": limit}]

    def drills(self, job: str) -> list[dict[str, Any]]:
        return []

    def quarantine(self, job: str, key: str | None) -> dict[str, Any] | None:
        return None

    def why(self, job: str | None, run: int | None) -> dict[str, Any] | None:
        return {"job": job, "run": run} if job != "fine" else None

    def incidents(self, open_only: bool, limit: int) -> list[dict[str, Any]]:
        return [{**FullBackend().incidents(True, 1)[0], "open": open_only, "limit": limit}]

    def incident(self, number: int) -> dict[str, Any] | None:
        return {"id": number} if number == 7 else None

    def logs(self, job: str, run: int | None, lines: int | None, offset: int | None, attempt: int | None = None) -> dict[str, Any] | None:
        if job in ("ghost", "once"):
            return None
        return {"text": "odd \udcff \x1b[2J é", "offset": (offset or 0) + 5, "asked": [job, run, lines, attempt]}

    def ask(self, verb: str, target: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[int, dict[str, Any]]:
        self.asked.append((verb, target, dict(arguments), timeout_s))
        return (409, {"error": "it is parked", "mend": "resume it"}) if verb == "restart" else (200, {"done": verb})


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def served(daemon, tmp_path) -> Iterator[HttpServer]:
    served = HttpServer(daemon, ("127.0.0.1", 0), str(tmp_path / "api.sock"))
    served.start()
    try:
        yield served
    finally:
        daemon.hold.set()
        served.stop()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(self.path)


Reply = tuple[int, Any, http.client.HTTPMessage]


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    """(status, body, headers); the body is decoded if it is JSON."""
    with contextlib.closing(connection):
        raw = json.dumps(body) if isinstance(body, dict | list) else body
        sent = {"Content-Type": "application/json"} if isinstance(body, dict | list) else {}
        connection.request(method, path, body=raw, headers=sent | {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        data = response.read()
        is_json = response.headers.get("Content-Type") == "application/json"
        return response.status, json.loads(data) if is_json and data else data, response.headers


def over_tcp(served: HttpServer, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    return ask(http.client.HTTPConnection(*served.address, timeout=WAIT_S), method, path, body, **headers)


def over_unix(served: HttpServer, method: str, path: str, body: Any = None, **headers: str) -> Reply:
    return ask(UnixConnection(served._unix_path), method, path, body, **headers)


@contextlib.contextmanager
def raw(served: HttpServer, text: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(served.address, timeout=WAIT_S) as sock:
        sock.sendall(text)
        yield sock


def everything(sock: socket.socket) -> bytes:
    """All that comes until the server closes."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize("over", [over_tcp, over_unix])
def test_reads_are_served_on_both_sockets(served, over):
    assert over(served, "GET", "/metrics")[:2] == (200, b"# HELP x X.\n# TYPE x gauge\nx 1\n")
    assert over(served, "GET", "/healthz")[:2] == (200, {"ok": True, "detail": "the loop came round 0.1 s ago"})
    assert over(served, "GET", "/readyz")[:2] == (200, {"ok": True, "detail": "supervising 1 job"})
    assert over(served, "GET", "/api/v1/status")[1]["jobs"][0]["name"] == "nightly"
    assert over(served, "GET", "/api/v1/jobs/nightly")[:2] == (200, {"name": "nightly"})
    found = over(served, "GET", "/api/v1/runs?job=nightly&limit=3")[1]["runs"]
    assert [(one["job"], one["limit"]) for one in found] == [("nightly", 3)]
    assert over(served, "GET", "/api/v1/slots")[1] == {"slots": [{"job": None, "limit": 50}]}
    assert over(served, "GET", "/api/v1/why?run=4")[1] == {"job": None, "run": 4}
    found = over(served, "GET", "/api/v1/incidents?open=1")[1]["incidents"]
    assert [(one["open"], one["limit"]) for one in found] == [(True, 50)]
    assert over(served, "GET", "/api/v1/incidents/7")[:2] == (200, {"id": 7})
    status, body, _ = over(served, "GET", "/api/v1/jobs/nightly/logs?run=3&n=10&offset=20&attempt=2")
    assert (status, body["offset"], body["asked"], body["text"]) == (200, 25, ["nightly", 3, 10, 2], "odd \udcff \x1b[2J é")
    status, body, headers = over(served, "GET", "/assets/icon.svg")
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
    assert body.startswith(b"<svg ")


def test_every_answer_forbids_sniffing_scripts_and_caching(served):
    for path in ("/metrics", "/nowhere", "/api/v1/jobs/ghost", "/api/v1/status"):
        headers = over_tcp(served, "GET", path)[2]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers


def test_metrics_have_the_exact_content_type_and_are_packed_for_those_who_unpack(served, daemon):
    daemon.page = b"# HELP x X.\n# TYPE x gauge\n" + b"".join(b'x{i="%d"} 1.0\n' % number for number in range(50_000))
    status, body, headers = over_tcp(served, "GET", "/metrics", Accept_Encoding="gzip")
    assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert gzip.decompress(body) == daemon.page
    assert over_tcp(served, "GET", "/metrics")[1] == daemon.page
    assert over_tcp(served, "GET", "/metrics", Accept_Encoding="gzip;q=0")[1] == daemon.page
    status, body, headers = over_tcp(served, "HEAD", "/metrics")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(daemon.page)))


def test_scrapes_that_come_together_share_one_page(served, daemon):
    threads = [threading.Thread(target=over_tcp, args=(served, "GET", "/metrics")) for _ in range(10)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert daemon.rendered <= 1 + (time.monotonic() - began)


def test_ill_health_is_a_503_with_its_reason(served, daemon):
    daemon.good = False
    assert over_tcp(served, "GET", "/healthz")[:2] == (503, {"ok": False, "detail": "the loop came round 0.1 s ago"})
    assert over_tcp(served, "GET", "/readyz")[0] == 503


def test_a_failure_of_ours_shows_no_traceback(served, daemon):
    daemon.broken = True
    status, body, _ = over_tcp(served, "GET", "/api/v1/status")
    assert (status, body) == (500, {"error": "this is a fault of Mainstay's own", "mend": "see the supervisor's log"})


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nowhere", 404, "there is no such page"),
        ("GET", "/metrics/", 404, "there is no such page"),
        ("GET", "/api/v1/jobs/ghost", 404, "there is no job ghost"),
        *(
            ("GET", f"/api/v1/{page}", 404, "there is no job ghost")
            for page in ("runs?job=ghost", "slots?job=ghost", "jobs/ghost/logs", "jobs/ghost/drills", "jobs/ghost/quarantine?key=x")
        ),
        ("GET", "/api/v1/jobs/once/logs", 404, "there is no output of once like that"),
        ("GET", "/api/v1/jobs/nightly/quarantine?key=x", 404, "nightly has no such record in quarantine"),
        ("GET", "/api/v1/incidents/8", 404, "there is no incident 8"),
        ("GET", "/api/v1/incidents/x", 404, "that is not the number of an incident"),
        ("GET", "/api/v1/why?job=fine", 404, "there is no job fine"),
        ("GET", "/api/v1/runs?limit=0", 400, "limit is not a whole number from 1 to 1000"),
        ("GET", "/api/v1/runs?limit=1e3", 400, "limit is not a whole number from 1 to 1000"),
        ("GET", "/api/v1/runs?limit=%D9%A1", 400, "limit is not a whole number from 1 to 1000"),
        ("GET", "/api/v1/runs?limit=1&limit=2", 400, "limit is given twice"),
        ("GET", "/api/v1/runs?jobs=x", 400, "a parameter is not known here"),
        ("GET", "/api/v1/incidents?open=maybe", 400, "open is neither 1 nor 0"),
        ("GET", "/api/v1/runs?job=../x", 404, "that is not the name of a job"),
        ("GET", "/api/v1/jobs/nightly/start", 405, "the method does not suit the page"),
        ("POST", "/metrics", 405, "the method does not suit the page"),
        ("DELETE", "/api/v1/jobs/nightly", 405, "the method does not suit the page"),
        ("POST", "/api/v1/jobs/nightly/__class__", 404, "there is no such page"),
        ("POST", "/api/v1/incidents/7/delete", 404, "there is no such page"),
    ],
)
def test_what_cannot_be_served_is_told_in_words(served, daemon, method, path, status, error):
    got, body, _ = over_unix(served, method, path)
    assert (got, body["error"]) == (status, error)
    assert body["mend"]
    assert daemon.asked == []


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "%2e%2e",
        "%2e%2e%2fetc",
        "a%2fb",
        "a%00b",
        "a;b",
        "a%20b",
        "%c3%a9",
        "%ff",
        "x" * 65,
        "..%5c",
        "%252e%252e",
        "~root",
        "a%0d%0ab",
        "*",
        "{name}",
    ],
)
def test_a_path_that_is_no_job_name_reaches_nothing(served, daemon, name):
    assert over_unix(served, "GET", f"/api/v1/jobs/{name}/logs")[0] in (400, 404)
    assert over_unix(served, "POST", f"/api/v1/jobs/{name}/stop")[0] in (400, 404)
    assert daemon.asked == []


# ---------------------------------------------------------------- changes


def test_changes_are_asked_of_the_backend_over_the_unix_socket(served, daemon):
    assert over_unix(served, "POST", "/api/v1/jobs/nightly/pause", {"for": "1h"})[:2] == (200, {"done": "pause"})
    assert over_unix(served, "POST", "/api/v1/jobs/nightly/stop?timeout=5")[:2] == (200, {"done": "stop"})
    assert over_unix(served, "POST", "/api/v1/incidents/7/ack", {})[0] == 200
    assert over_unix(served, "POST", "/api/v1/reload?plan=1")[0] == 200
    assert over_unix(served, "POST", "/api/v1/jobs/nightly/restart")[:2] == (409, {"error": "it is parked", "mend": "resume it"})
    assert daemon.asked == [
        ("pause", "nightly", {"for": "1h"}, 60.0),
        ("stop", "nightly", {}, 5.0),
        ("ack", "7", {}, 60.0),
        ("reload", "", {"plan": True}, 60.0),
        ("restart", "nightly", {}, 60.0),
    ]


def test_changes_are_refused_over_tcp(served, daemon):
    for path in ("/api/v1/jobs/nightly/stop", "/api/v1/incidents/7/resolve", "/api/v1/reload", "/nowhere"):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            status, body, _ = over_tcp(served, method, path)
            assert status == 403
            assert body == {
                "error": "changes are taken on the unix socket in the state directory only, not over TCP",
                "mend": "use the mainstay command on this machine, as a user who may open that socket",
            }
    assert daemon.asked == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("for=1h", "application/x-www-form-urlencoded", 415),
        ('{"for": "1h"}', "text/plain", 415),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("[" * 60_000, "application/json", 400),
        ('"' + "x" * 70_000 + '"', "application/json", 413),
        (b"\xff\xfe", "application/json", 400),
    ],
)
def test_a_body_that_is_no_short_json_object_is_refused(served, daemon, body, kind, status):
    got, answer, _ = over_unix(served, "POST", "/api/v1/jobs/nightly/stop", body, Content_Type=kind)
    assert got == status
    assert set(answer) == {"error", "mend"}
    assert daemon.asked == []


def test_a_chunked_body_is_counted_as_it_comes(served, daemon):
    with contextlib.closing(UnixConnection(served._unix_path)) as connection:
        pieces = (b" " * 10_000 for _ in range(20))
        with contextlib.suppress(BrokenPipeError):
            connection.request("POST", "/api/v1/jobs/nightly/stop", body=pieces, headers={"Content-Type": "application/json"})
        assert connection.getresponse().status == 413
    assert daemon.asked == []


# ---------------------------------------------------------------- the gate


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.1:9321", "[::1]", "[::1]:80", "localhost:1"])
def test_our_own_names_are_answered(served, host):
    assert over_tcp(served, "GET", "/healthz", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:9321",
        "localhost@evil.example",
        "127.0.0.2",
        "",
        "::1",
        "local host",
        "[::2]",
        "localhost:port",
        "localhost:9:9",
        "0",
        "2130706433",
    ],
)
def test_a_host_that_is_not_ours_is_misdirected(served, host):
    with raw(served, f"GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()) as sock:
        answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 421 "), answer
    assert b"the Host header does not name this server" in answer


def test_no_host_or_two_hosts_are_refused(served):
    for head in (
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        with raw(served, head) as sock:
            assert everything(sock).split(b" ")[1] in (b"421", b"400")


def test_listening_everywhere_still_needs_an_address_or_our_name():
    ours = door.own_hosts("0.0.0.0")
    assert ours("192.0.2.7")
    assert ours("[2001:db8::1]")
    assert ours(socket.gethostname().lower())
    assert not ours("evil.example")
    assert not ours("")


# ---------------------------------------------------------------- clients that mean no good


def test_hostile_requests_get_an_answer_or_a_closed_connection_and_no_traceback(served, capfd, caplog):
    attacks = [
        b"GET /\r\n\r\n",  # HTTP/0.9
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,  # a TLS hello
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\xff",
        b"CONNECT evil:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET http://evil/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" * 3 + b"\r\n",
    ]
    rng = random.Random(1)
    base = b"GET /api/v1/runs?limit=5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for _ in range(300):
        mutant = bytearray(base)
        for _ in range(rng.randint(1, 6)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        attacks.append(bytes(mutant))
    for attack in attacks:
        with raw(served) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(attack)
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                answer = everything(sock)
                assert b"Traceback" not in answer
                assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
                assert not answer.startswith(b"HTTP/1.1 5")
    assert over_tcp(served, "GET", "/healthz")[0] == 200
    assert "Traceback" not in "".join(capfd.readouterr())
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_slow_clients_do_not_keep_others_waiting(served):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(raw(served, b"GET /metrics HTTP/1.1\r\nHost: loc"))
        for _ in range(5):
            assert over_tcp(served, "GET", "/metrics")[0] == 200


def test_a_crowd_of_idle_connections_is_thinned_from_its_oldest(served):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(raw(served)) for _ in range(connections.MAX_CONNECTIONS + 20)]
        assert over_tcp(served, "GET", "/metrics")[0] == 200
        assert everything(crowd[0]) == b"", "the oldest was let go"
        crowd[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert everything(crowd[-1]).startswith(b"HTTP/1.1 200"), "the newest was not"


def test_a_request_that_does_not_arrive_in_time_is_let_go(daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_DEADLINE_S", 0.3)
    served = HttpServer(daemon, ("127.0.0.1", 0), str(tmp_path / "api.sock"))
    served.start()
    try:
        for start in (b"", b"GET /metrics HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
            with raw(served, start) as sock:
                assert everything(sock) == b""
        with raw(served, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") as sock:  # kept alive, then slow
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            sock.sendall(b"GET /hea")
            assert b"HTTP/1.1" not in everything(sock)
    finally:
        served.stop()


def test_a_client_that_does_not_read_is_let_go_and_costs_no_page(daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_DEADLINE_S", 0.5)
    daemon.page = b"x" * (32 * 2**20)
    served = HttpServer(daemon, ("127.0.0.1", 0), str(tmp_path / "api.sock"))
    served.start()
    try:
        with raw(served, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n") as sock:
            assert sock.recv(10).startswith(b"HTTP/1.1")
            until = time.monotonic() + WAIT_S
            while any(each.server_state.connections for each in served._servers):  # the kernel tells the client when it reads on
                assert time.monotonic() < until, "the server did not let go"
                time.sleep(0.01)
            assert len(everything(sock)) < len(daemon.page)
    finally:
        served.stop()


def test_questions_that_hang_do_not_hold_up_metrics_health_or_changes(served, daemon):
    daemon.hold.clear()
    threads = [threading.Thread(target=over_unix, args=(served, "GET", "/api/v1/status"), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert over_tcp(served, "GET", "/metrics")[0] == 200
    assert over_tcp(served, "GET", "/healthz")[0] == 200
    assert over_unix(served, "POST", "/api/v1/jobs/nightly/stop")[0] == 200
    daemon.hold.set()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_a_question_that_takes_too_long_is_a_503(served, daemon, monkeypatch):
    assert READ_DEADLINE_S < WAIT_S
    monkeypatch.setattr("supervisor.adapters.http.work.READ_DEADLINE_S", 0.2)
    daemon.hold.clear()
    status, body, _ = over_tcp(served, "GET", "/api/v1/status")
    assert (status, body["error"]) == (503, "the supervisor did not answer in time")


# ---------------------------------------------------------------- listening


def test_a_port_in_use_names_who_has_it_and_what_to_do(daemon, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        served = HttpServer(daemon, ("127.0.0.1", port), str(tmp_path / "api.sock"))
        with pytest.raises(SupervisorError) as caught:
            served.start()
    name = Path("/proc/self/comm").read_text().strip()[:4]
    assert str(caught.value).startswith(f"127.0.0.1:{port} is in use (by pid {os.getpid()}, {name}")
    assert str(caught.value).endswith("); set supervisor.listen to another port or stop that program")
    assert not (tmp_path / "api.sock").exists(), "nothing is left behind"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("192.0.2.1", "is not an address of this machine"),
        ("no-such-host.invalid", "the host is not known"),
        ("x" * 300, "the host is not known"),
    ],
)
def test_a_host_that_cannot_be_listened_on_is_told(daemon, tmp_path, host, words):
    with pytest.raises(SupervisorError, match=words):
        HttpServer(daemon, (host, 0), str(tmp_path / "api.sock")).start()


def test_ipv6_is_listened_on_too(daemon, tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as err:
        pytest.skip(f"this machine has no IPv6 loopback: {err}")
    served = HttpServer(daemon, ("::1", 0), str(tmp_path / "api.sock"))
    served.start()
    try:
        assert over_tcp(served, "GET", "/healthz", Host="[::1]:9")[0] == 200
    finally:
        served.stop()


def test_the_unix_socket_is_ours_alone_and_leaves_with_us(daemon, tmp_path):
    path = tmp_path / "api.sock"
    served = HttpServer(daemon, None, str(path))
    served.start()
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert served.address is None
        assert over_unix(served, "GET", "/healthz", Host="whatever.example")[0] == 200, "no browser gets here"
    finally:
        served.stop()
    assert not path.exists()
    assert "http" not in {thread.name for thread in threading.enumerate()}


def test_a_path_too_long_for_a_unix_socket_is_told_with_its_length(daemon, tmp_path):
    path = str(tmp_path / ("x" * 100) / "api.sock")
    with pytest.raises(SupervisorError) as caught:
        HttpServer(daemon, None, path).start()
    words = f"{path}: {len(path)} bytes long, and the path of a unix socket holds 107; set supervisor.state_dir to a shorter path"
    assert str(caught.value) == words


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(daemon, tmp_path):
    path = str(tmp_path / "api.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    first = HttpServer(daemon, None, path)
    first.start()
    try:
        with pytest.raises(SupervisorError, match=r"^another Mainstay answers on .*; stop it"):
            HttpServer(daemon, None, path).start()
        assert over_unix(first, "GET", "/healthz")[0] == 200, "the first one is not harmed"
    finally:
        first.stop()


def test_something_else_at_the_sockets_path_is_left_alone(daemon, tmp_path):
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(SupervisorError, match="is in the way and is not a socket; move it away"):
        HttpServer(daemon, None, str(path)).start()
    assert path.read_text() == "precious"
    with pytest.raises(SupervisorError, match=r"see that supervisor[.]state_dir exists"):
        HttpServer(daemon, None, str(tmp_path / "gone" / "api.sock")).start()


def test_stopping_takes_a_moment_only_whatever_clients_do_and_may_be_asked_twice(daemon, tmp_path):
    served = HttpServer(daemon, ("127.0.0.1", 0), str(tmp_path / "api.sock"))
    served.start()
    daemon.hold.clear()
    with raw(served, b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"), raw(served), raw(served, b"GET /"):
        began = time.monotonic()
        served.stop()
        assert time.monotonic() - began < server.STOP_DEADLINE_S
    daemon.hold.set()
    served.stop()


def test_signal_handlers_are_left_alone_and_an_idle_server_sleeps(daemon, tmp_path):
    import signal

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    served = HttpServer(daemon, ("127.0.0.1", 0), str(tmp_path / "api.sock"))
    served.start()
    try:
        assert {number: signal.getsignal(number) for number in before} == before
        assert served._loop is not None
        assert not [handle for handle in served._loop._scheduled if not handle.cancelled()], "no timer wakes it"
    finally:
        served.stop()
