"""The real daemon behind TLS, with a real Prometheus that comes in with a certificate and a password."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from harness import Mainstay, environment, free_port, wait_for

bcrypt = pytest.importorskip("bcrypt", reason="the extra auth is not installed")
trustme = pytest.importorskip("trustme", reason="trustme is not installed (dev group)")
PROMETHEUS = shutil.which("prometheus")

JOBS = "jobs:\n  hello: {command: [echo, hello], schedule: manual}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def issue(authority: Any, folder: Path, name: str, *hosts: str) -> None:
    certificate = authority.issue_cert(*hosts)
    for ending, blobs in (("key", [certificate.private_key_pem]), ("pem", certificate.cert_chain_pems)):
        temporary = folder / f"{name}.{ending}.tmp"
        temporary.write_bytes(b"".join(blob.bytes() for blob in blobs))
        temporary.chmod(0o600)
        temporary.replace(folder / f"{name}.{ending}")


class Guarded(Mainstay):
    """A daemon whose TCP wants a certificate and a password; asked over its unix socket by the tests."""

    def write_config(self, text: str) -> None:
        head = f"supervisor: {{state_dir: state, listen: '127.0.0.1:{self.port}', web_config: web.yml}}\n"
        self.config.write_text(head + text)
        self.config.chmod(0o600)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"Mainstay ended with {self.process.returncode}:\n{self.log()}")
        return Path(self.socket).exists() and bool(self.status())


@pytest.fixture
def guarded(folder: Path) -> Iterator[Guarded]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issue(authority, folder, "server", "localhost", "127.0.0.1")
    issue(authority, folder, "client", "prometheus.example.org")
    hashed = bcrypt.hashpw(b"correct horse", bcrypt.gensalt(10)).decode()
    (folder / "web.yml").write_text(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_ca_file: ca.pem\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.example.org]\n"
        f"basic_auth_users: {{prometheus: {hashed}}}\n"
    )
    (folder / "web.yml").chmod(0o600)
    made = Guarded(folder, JOBS)
    made.authority = authority  # type: ignore[attr-defined]
    yield made.start()  # type: ignore[misc]
    made.close()


def serial(folder: Path, port: int) -> str:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return str((sock.getpeercert() or {})["serialNumber"])


@pytest.mark.real
@pytest.mark.skipif(PROMETHEUS is None, reason="no Prometheus here (Debian: apt install prometheus)")
def test_prometheus_scrapes_over_mutual_tls_with_a_password_across_a_new_certificate(guarded: Guarded, folder: Path) -> None:
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        "- job_name: mainstay\n  scheme: https\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{guarded.port}']}}]\n"
        "  tls_config: {ca_file: ca.pem, cert_file: client.pem, key_file: client.key, server_name: localhost}\n"
        "  basic_auth: {username: prometheus, password: correct horse}\n"
        "- job_name: stranger\n  scheme: https\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{guarded.port}']}}]\n"
        "  tls_config: {ca_file: ca.pem, server_name: localhost}\n"
        "- job_name: guesser\n  scheme: https\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{guarded.port}']}}]\n"
        "  tls_config: {ca_file: ca.pem, cert_file: client.pem, key_file: client.key, server_name: localhost}\n"
        "  basic_auth: {username: prometheus, password: wrong}\n"
    )
    argv = [str(PROMETHEUS), "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]

    def value(query: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/query?query={quote(query)}")
            result = json.loads(connection.getresponse().read())["data"]["result"]
            return str(result[0]["value"][1]) if result else None
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    with open(folder / "prometheus.log", "wb") as log:
        prometheus = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log, env=environment(guarded.mark))
    try:
        wait_for(lambda: value("up{job='mainstay'}") == "1", "up of the one with certificate and password")
        wait_for(lambda: value("up{job='stranger'}") == "0" and value("up{job='guesser'}") == "0", "that the others stay out")
        before = serial(folder, guarded.port)
        issue(guarded.authority, folder, "server", "localhost", "127.0.0.1")  # type: ignore[attr-defined]
        assert serial(folder, guarded.port) != before
        restarted = int(float(value("count_over_time(up{job='mainstay'}[1h])") or 0))
        wait_for(lambda: int(float(value("count_over_time(up{job='mainstay'}[1h])") or 0)) > restarted + 3, "further scrapes")
        assert value("min_over_time(up{job='mainstay'}[3s])") == "1"
        assert value("count(mainstay_job_info{job='mainstay'})") == "1"
    finally:
        prometheus.terminate()
        prometheus.wait(30)
    assert "web_config_taken" in guarded.log()


def test_check_and_start_refuse_a_web_config_that_is_wrong_and_a_running_daemon_shuts_its_door(guarded: Guarded, folder: Path) -> None:
    (folder / "web.yml").write_text("basic_auth_users: {ada: hunter2}\n")
    done = guarded.cli("check")
    assert done.returncode == 78
    assert f"{folder}/web.yml:1:25: basic_auth_users.ada: is not a bcrypt hash" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    with pytest.raises(OSError):
        guarded.http("/metrics")
    assert guarded.cli("status").returncode == 0, "the unix socket is open to its owner"
    refused = guarded.cli("reload")
    assert refused.returncode == 1
    assert "is not a bcrypt hash" in refused.stderr
    brain = guarded.brain_pid
    os.kill(brain, signal.SIGKILL)
    guarded.wait_for(lambda: guarded.brain_pid != brain, "the next brain, which supervises although the web config is broken")
    assert guarded.run_job("hello")["outcome"] == "succeeded"
    with pytest.raises((OSError, AssertionError)):
        assert guarded.http("/metrics")[0] == 200
    assert "hunter2" not in guarded.log()


def test_a_control_api_that_is_open_to_others_is_refused(make: Callable[..., Mainstay]) -> None:
    mainstay = make(JOBS)
    mainstay.config.write_text(f"supervisor: {{state_dir: state, listen: '0.0.0.0:{mainstay.port}', actions: loopback}}\n{JOBS}")
    done = mainstay.cli("run")
    assert done.returncode == 78
    assert "can be reached from other machines; write web_config" in done.stderr
