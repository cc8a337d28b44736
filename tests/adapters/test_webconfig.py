"""The web config file: what is taken and refused, beside promtool's opinion; TLS, clients' certificates and passwords on real sockets; files
that change under a running server."""

import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fullbackend import FullBackend

from supervisor.adapters.http import HttpServer, Rules, connections, passwords
from supervisor.config import webconfig
from supervisor.core.settings import TcpActions
from supervisor.errors import ConfigError

bcrypt = pytest.importorskip("bcrypt", reason="the extra auth is not installed")
trustme = pytest.importorskip("trustme", reason="trustme is not installed (dev group)")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)")

PASSWORD = "correct horse"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
PAIR = "tls_server_config: {cert_file: server.pem, key_file: server.key"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def folder(tmp_path, authority) -> Path:
    """A folder with a server's pair, a client's pair, another client's, and the authority of all."""
    os.chmod(tmp_path, 0o700)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issue(authority, tmp_path, "server", "localhost", "127.0.0.1")
    issue(authority, tmp_path, "client", "prometheus.example.org", "spiffe-like.example.org")
    issue(authority, tmp_path, "other", "other.example.org")
    return tmp_path


def issue(authority, folder: Path, name: str, *hosts: str) -> None:
    """NAME.pem and NAME.key, each replaced as a whole."""
    certificate = authority.issue_cert(*hosts)
    for ending, blobs in (("pem", certificate.cert_chain_pems), ("key", [certificate.private_key_pem])):
        temporary = folder / f"{name}.{ending}.tmp"
        temporary.write_bytes(b"".join(blob.bytes() for blob in blobs))
        temporary.chmod(0o600)
        temporary.replace(folder / f"{name}.{ending}")


def write(folder: Path, text: str) -> str:
    path = folder / "web.yml"
    temporary = folder / "web.tmp"
    temporary.write_text(text)
    temporary.chmod(0o600)
    temporary.replace(path)
    return str(path)


# ---------------------------------------------------------------- the file, and what promtool says of it

GOOD = {
    "nothing": "",
    "a pair": f"{PAIR}}}",
    "clients too": f"{PAIR}, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert}}",
    "clients if they have one": f"{PAIR}, client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven}}",
    "versions, ciphers, curve": f"{PAIR}, min_version: TLS12, max_version: TLS13, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "
    "TLS_AES_128_GCM_SHA256], prefer_server_cipher_suites: false, curve_preferences: [CurveP256]}",
    "another curve": f"{PAIR}, curve_preferences: [X25519]}}",
    "headers": "http_server_config: {http2: false, headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff, "
    "Strict-Transport-Security: max-age=1, Content-Security-Policy: default-src 'self', X-XSS-Protection: '0'}}",
    "users": f"basic_auth_users: {{ada: {HASH}}}",
}
BAD = {
    "an unknown key": (
        "tls: {}",
        '1:1: tls: there is no key "tls" here; write one of: tls_server_config, http_server_config, basic_auth_users, rate_limit',
    ),
    "an unknown key inside": (
        f"{PAIR}, cert_fil: x}}",
        '1:66: tls_server_config.cert_fil: there is no key "cert_fil" here; did you mean cert_file?',
    ),
    "no certificate": (
        "tls_server_config: {key_file: server.key}",
        "1:20: tls_server_config: has neither cert nor cert_file; write cert_file: and a path",
    ),
    "no key": (
        "tls_server_config: {cert_file: server.pem}",
        "1:20: tls_server_config: has neither key nor key_file; write key_file: and a path",
    ),
    "a certificate that is not there": (
        "tls_server_config: {cert_file: gone.pem, key_file: server.key}",
        '1:32: tls_server_config.cert_file: "{folder}/gone.pem" does not exist; write it, or name another file',
    ),
    "a key of another": (
        "tls_server_config: {cert_file: server.pem, key_file: other.key}",
        "1:20: tls_server_config: the certificate and the key are no pair that can be used (key values mismatch); mend the files",
    ),
    "an authority without a policy": (
        f"{PAIR}, client_ca_file: ca.pem}}",
        "1:20: tls_server_config: has an authority for clients and no policy; write client_auth_type: RequireAndVerifyClientCert",
    ),
    "no such policy": (
        f"{PAIR}, client_auth_type: Trust}}",
        (
            '1:84: tls_server_config.client_auth_type: "Trust" is not known here; write one of: '
            "NoClientCert, VerifyClientCertIfGiven, RequireAndVerifyClientCert"
        ),
    ),
    "no such version": (
        f"{PAIR}, min_version: TLS9}}",
        '1:79: tls_server_config.min_version: "TLS9" is not known here; did you mean TLS13?',
    ),
    "no such cipher": (f"{PAIR}, cipher_suites: [RC4]}}", None),
    "no such curve": (f"{PAIR}, curve_preferences: [CurveP1]}}", None),
    "a password in clear": (
        "basic_auth_users: {ada: hunter2}",
        "1:25: basic_auth_users.ada: is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':'",
    ),
    "a header that is not ours to set": ("http_server_config: {headers: {X-Extra: a}}", None),
    "a value that a header cannot have": (
        "http_server_config: {headers: {X-Frame-Options: maybe}}",
        '1:49: http_server_config.headers.X-Frame-Options: "maybe" is not a value of X-Frame-Options; write deny or sameorigin',
    ),
    "a list": ("- a", "1:1: is not a map; write the keys tls_server_config, http_server_config, basic_auth_users, rate_limit"),
    "no YAML": ("a: [", None),
    "a key twice": ("http_server_config: {}\nhttp_server_config: {}", None),
}
# promtool takes these, and we cannot hold them (docs/http.md has the list)
NOT_OURS = {
    "certificates that nobody verifies": f"{PAIR}, client_ca_file: ca.pem, client_auth_type: RequireAnyClientCert}}",
    "a broken version": f"{PAIR}, min_version: TLS10}}",
    "two curves": f"{PAIR}, curve_preferences: [CurveP256, X25519]}}",
}


def promtool(path: str) -> int:
    return subprocess.run(["promtool", "check", "web-config", path], capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize("case", GOOD)
def test_a_good_file_is_taken(folder, case):
    assert webconfig.load(write(folder, GOOD[case] + "\n")).files[0] == str(folder / "web.yml")


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_place_finding_and_mend(folder, case):
    text, message = BAD[case]
    path = write(folder, text + "\n")
    with pytest.raises(ConfigError) as caught:
        webconfig.load(path)
    assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
    assert "hunter2" not in str(caught.value)
    if message is not None:
        assert caught.value.problems == [f"{path}:{message.replace('{folder}', str(folder))}"]


@pytest.mark.parametrize("case", NOT_OURS)
def test_what_python_cannot_hold_is_refused_in_words(folder, case):
    with pytest.raises(ConfigError, match=r"write|keep"):
        webconfig.load(write(folder, NOT_OURS[case] + "\n"))


@needs_promtool
@pytest.mark.real
def test_promtool_takes_what_we_take_and_refuses_what_we_refuse(folder):
    assert {case: promtool(write(folder, text + "\n")) for case, text in GOOD.items()} == dict.fromkeys(GOOD, 0)
    assert {case: promtool(write(folder, text + "\n")) for case, (text, _) in BAD.items()} == dict.fromkeys(BAD, 1)
    assert {case: promtool(write(folder, text + "\n")) for case, text in NOT_OURS.items()} == dict.fromkeys(NOT_OURS, 0), (
        "the list in the docs"
    )


def test_inline_certificates_and_a_rate_limit_are_taken(folder):
    certificate = (folder / "server.pem").read_text().replace("\n", "\n    ")
    key = (folder / "server.key").read_text().replace("\n", "\n    ")
    found = webconfig.load(
        write(folder, f"tls_server_config:\n  cert: |\n    {certificate}\n  key: |\n    {key}\nrate_limit: {{interval: 1s, burst: 3}}\n")
    )
    assert found.tls is not None
    assert found.rate is not None
    assert (found.rate.interval_s, found.rate.burst) == (1.0, 3)
    assert "PRIVATE" not in repr(found)


def test_the_main_config_tells_the_problems_of_the_web_config(folder):
    from supervisor.config.load import load

    write(folder, "nonsense: 1\n")
    path = folder / "config.yaml"
    path.write_text("supervisor: {web_config: web.yml}\njobs:\n  a: {command: [x]}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert next(problem for problem in caught.value.problems if "nonsense" in problem).startswith(
        f"{folder}/web.yml:1:1: nonsense: there is no key"
    )


# ---------------------------------------------------------------- a server behind it


class Client:
    """Asks over TLS or without, as somebody or as nobody."""

    def __init__(self, served: HttpServer, folder: Path) -> None:
        self.served = served
        self.folder = folder

    def context(self, certificate: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate:
            context.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        return context

    def connect(self, *, tls: bool = True, certificate: str | None = None) -> http.client.HTTPConnection:
        host, port = self.served.address
        if not tls:
            return http.client.HTTPConnection(host, port, timeout=30)
        return http.client.HTTPSConnection("localhost", port, timeout=30, context=self.context(certificate))

    def ask(self, path="/metrics", *, tls=True, certificate=None, user=None, method="GET", body=None, **headers):
        """(status, headers, body)"""
        with contextlib.closing(self.connect(tls=tls, certificate=certificate)) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            if user is not None:
                given["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def serial(self) -> int:
        """Of the certificate that the server shows now."""
        host, port = self.served.address
        with (
            socket.create_connection((host, port), timeout=30) as plain,
            self.context(None).wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            return int(sock.getpeercert()["serialNumber"], 16)


@pytest.fixture
def serve(folder) -> Iterator:
    made: list[HttpServer] = []

    def start(text: str, backend: FullBackend | None = None, actions: TcpActions = TcpActions.AUTO) -> Client:
        path = write(folder, text + "\n")
        served = HttpServer(
            backend or FullBackend(),
            ("127.0.0.1", 0),
            str(folder / "s"),
            rules=Rules("127.0.0.1", (), actions),
            web_config=lambda: webconfig.load(path),
        )
        served.start()
        made.append(served)
        return Client(served, folder)

    yield start
    for served in made:
        served.stop()


def wait(question):
    deadline = time.monotonic() + 30
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_tls_is_spoken_and_plain_text_is_not(serve):
    client = serve(f"{PAIR}}}")
    assert client.ask()[0] == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        client.ask(tls=False)
    assert client.ask("/api/v1/jobs/nightly/stop", method="POST", body="{}", Content_Type="application/json")[0] == 403, (
        "nobody says who asks"
    )


def test_a_clients_certificate_is_demanded_and_its_names_are_looked_at(serve):
    backend = FullBackend()
    demand = f"{PAIR}, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert"
    client = serve(f"{demand}, client_allowed_sans: [prometheus.example.org]}}", backend)
    assert client.ask(certificate="client")[0] == 200
    assert client.ask(certificate="other")[0] == 403
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        client.ask()
    stranger = trustme.CA()
    issue(stranger, client.folder, "stranger", "prometheus.example.org")
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        client.ask(certificate="stranger")
    status, _, body = client.ask(
        "/api/v1/jobs/nightly/stop", certificate="client", method="POST", body="{}", Content_Type="application/json"
    )
    assert (status, json.loads(body)["ok"]) == (200, True)
    assert [asked[:2] for asked in backend.asked] == [("stop", "nightly")]


def test_passwords_are_asked_for_and_changes_taken_from_who_has_one(serve):
    backend = FullBackend()
    client = serve(f"{PAIR}}}\nbasic_auth_users: {{ada: {HASH}}}", backend)
    status, headers, _ = client.ask()
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="Mainstay", charset="UTF-8"')
    for wrong in ("ada:wrong", "bob:" + PASSWORD, ":", "ada", f"ada:{PASSWORD}\0", "ada:" + "x" * 100, f"{HASH}:{HASH}"):
        assert client.ask(user=wrong)[0] == 401, wrong
    for broken in ("Basic", "Basic ***", "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Bearer abc"):
        assert client.ask(Authorization=broken)[0] == 401
    assert client.ask(user=f"ada:{PASSWORD}")[0] == 200
    assert client.ask("/", user=f"ada:{PASSWORD}")[2].count(b"you are ada") == 1
    assert b'name="token"' in client.ask("/jobs/nightly", user=f"ada:{PASSWORD}")[2]
    change = {"method": "POST", "body": "{}", "Content_Type": "application/json"}
    assert client.ask("/api/v1/jobs/nightly/stop", **change)[0] == 401
    assert backend.asked == []
    assert client.ask("/api/v1/jobs/nightly/stop", user=f"ada:{PASSWORD}", **change)[0] == 200


def test_a_password_without_tls_reads_and_does_not_act(serve):
    client = serve(f"basic_auth_users: {{ada: {HASH}}}")
    assert client.ask(tls=False)[0] == 401
    assert client.ask(tls=False, user=f"ada:{PASSWORD}")[0] == 200
    assert (
        client.ask("/api/v1/reload", tls=False, user=f"ada:{PASSWORD}", method="POST", body="{}", Content_Type="application/json")[0] == 403
    )


def test_never_means_never(serve):
    client = serve(f"{PAIR}}}\nbasic_auth_users: {{ada: {HASH}}}", actions=TcpActions.NEVER)
    assert client.ask("/api/v1/reload", user=f"ada:{PASSWORD}", method="POST", body="{}", Content_Type="application/json")[0] == 403


def test_a_right_password_is_tried_once_and_an_unknown_user_costs_as_much(serve, monkeypatch):
    tried: list[str] = []
    real = passwords._matches
    monkeypatch.setattr(passwords, "_matches", lambda password, hashed: tried.append(hashed) or real(password, hashed))
    client = serve(f"basic_auth_users: {{ada: {HASH}}}")
    for _ in range(3):
        assert client.ask(tls=False, user=f"ada:{PASSWORD}")[0] == 200
    assert tried == [HASH]
    for _ in range(2):
        assert client.ask(tls=False, user="bob:" + PASSWORD)[0] == 401
    assert tried == [HASH, passwords.DUMMY_HASH]


def test_headers_of_the_web_config_go_out_with_every_answer(serve):
    client = serve("http_server_config: {headers: {X-Frame-Options: deny, Content-Security-Policy: \"default-src 'self'\"}}")
    for path in ("/", "/metrics", "/nowhere"):
        headers = client.ask(path, tls=False)[1]
        assert headers["X-Frame-Options"] == "deny"
        assert headers.get_all("Content-Security-Policy") == ["default-src 'self'"]


def test_requests_beyond_the_rate_are_refused(serve):
    client = serve("rate_limit: {interval: 1h, burst: 2}")
    assert [client.ask(tls=False)[0] for _ in range(3)] == [200, 200, 429]


# ---------------------------------------------------------------- files that change


def test_a_certificate_is_replaced_in_place_and_open_connections_go_on(serve, authority):
    client = serve(f"{PAIR}}}")
    first = client.serial()
    with contextlib.closing(client.connect()) as connection:
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        issue(authority, client.folder, "server", "localhost", "127.0.0.1")
        assert client.serial() != first
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200


def test_a_user_who_is_taken_out_is_out_on_an_open_connection_too(serve):
    client = serve(f"basic_auth_users: {{ada: {HASH}}}")
    header = {"Authorization": "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()}
    with contextlib.closing(client.connect(tls=False)) as connection:
        connection.request("GET", "/metrics", headers=header)
        assert connection.getresponse().read()
        write(client.folder, f"basic_auth_users: {{bob: {HASH}}}\n")
        connection.request("GET", "/metrics", headers=header)
        assert connection.getresponse().status == 401


def test_a_web_config_that_breaks_lets_nobody_in_until_it_is_mended(serve):
    good = f"basic_auth_users: {{ada: {HASH}}}\n"
    client = serve(good)
    for broken in ("basic_auth_users: {ada: hunter2}\n", "nonsense: [\n"):
        write(client.folder, broken)
        assert client.ask(tls=False, user=f"ada:{PASSWORD}")[0] == 500
        assert client.ask(tls=False, user="ada:hunter2")[0] == 500
    (client.folder / "web.yml").unlink()
    assert client.ask(tls=False)[0] == 500, "gone is not open"
    write(client.folder, good)
    wait(lambda: client.ask(tls=False, user=f"ada:{PASSWORD}")[0] == 200)
    assert client.ask(tls=False)[0] == 401


def test_a_certificate_that_breaks_ends_connections_until_it_is_mended(serve, authority):
    client = serve(f"{PAIR}}}")
    assert client.ask()[0] == 200
    pem = (client.folder / "server.pem").read_bytes()
    (client.folder / "server.pem").write_bytes(pem[:100])
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        client.ask()
    with pytest.raises((OSError, http.client.HTTPException)):
        client.ask(tls=False)
    issue(authority, client.folder, "server", "localhost", "127.0.0.1")
    wait(lambda: _answers(client))


def _answers(client: Client) -> bool:
    try:
        return client.ask()[0] == 200
    except (ssl.SSLError, OSError, http.client.HTTPException):
        return False


def test_demands_that_come_later_hold_for_connections_that_are_older(serve):
    client = serve("")
    with contextlib.closing(client.connect(tls=False)) as connection:
        connection.request("GET", "/metrics")
        assert connection.getresponse().read()
        write(client.folder, f"{PAIR}}}\n")
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 400
    assert client.ask()[0] == 200


def test_streams_end_when_it_changes_who_may_listen(serve):
    client = serve(f"basic_auth_users: {{ada: {HASH}}}")
    header = {"Authorization": "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()}
    with contextlib.closing(client.connect(tls=False)) as connection:
        connection.request("GET", "/api/v1/events", headers=header)
        response = connection.getresponse()
        assert response.readline() == b"retry: 2000\n"
        write(client.folder, f"basic_auth_users: {{bob: {HASH}}}\n")
        assert client.ask(tls=False)[0] == 401
        response.read()  # ends


# ---------------------------------------------------------------- clients that mean no good


def test_silent_and_half_hearted_handshakes_are_bounded_and_in_nobodys_way(serve, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_DEADLINE_S", 1.0)
    client = serve(f"{PAIR}}}")
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(socket.create_connection(client.served.address, timeout=30))
            for _ in range(connections.MAX_CONNECTIONS + 10)
        ]
        for sock in crowd[::2]:
            with contextlib.suppress(OSError):
                sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert client.ask()[0] == 200
        for sock in crowd:
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
    wait(lambda: not any(server._crowd.members for server in client.served._servers))


def test_a_crowd_from_one_address_makes_room_within_itself(folder, monkeypatch):
    monkeypatch.setattr(connections, "LOOPBACK_CONNECTIONS", 8)
    served = HttpServer(FullBackend(), ("127.0.0.1", 0), str(folder / "s"))
    served.start()
    try:
        with contextlib.ExitStack() as stack:
            mine = stack.enter_context(socket.create_connection(served.address, timeout=30, source_address=("127.0.0.2", 0)))
            crowd = [stack.enter_context(socket.create_connection(served.address, timeout=30)) for _ in range(20)]
            assert crowd[0].recv(10) == b"", "the oldest of the crowd was let go"
            mine.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert mine.recv(12) == b"HTTP/1.1 200", "whoever is not of the crowd stays, though older than all of it"
    finally:
        served.stop()
