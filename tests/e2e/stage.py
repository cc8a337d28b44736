"""Prometheus and Alertmanager of every generation that is here, watching two daemons with the exported rules at a test's pace."""

import contextlib
import http.client
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from harness import Json, environment, free_port, wait_for
from promtools import Generation

from supervisor.config.load import load
from supervisor.export import alertmanager, prometheus
from supervisor.export.definition import Options, Pace

TICK = "400ms"
STALLED_AFTER_S = 3  # instead of 60 s
RANGE_S = 8.0
KEEP_S = 8.0  # longer than a brain needs to come back on a busy machine


def _range(seconds: float) -> float:
    return {60.0: 0.4, 900.0: RANGE_S, 1800.0: 18.0, 3600.0: 15.0}.get(seconds, 60.0)


PACE = Pace(wait=lambda seconds: min(seconds, 0.4), keep=lambda seconds: min(seconds, KEEP_S), range=_range)


def get(port: int, path: str) -> Any:
    """GET as JSON, None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 and body[:1] in (b"{", b"[") else {"text": body.decode()}
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Hook:
    """Takes what Alertmanager posts: (path, alert) of each."""

    def __init__(self, port: int = 0) -> None:
        self.got: list[tuple[str, Json]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                outer.got += [(self.path, alert) for alert in body.get("alerts", [body])]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join(10)
        self.server.server_close()


@dataclass
class Server:
    """One Prometheus with its Alertmanager."""

    name: str
    port: int
    alertmanager: int
    hook: Hook
    targets: Path = field(default_factory=Path)

    def query(self, text: str) -> list[Json]:
        answer = get(self.port, f"/api/v1/query?query={quote(text)}")
        assert (answer or {}).get("status") == "success", (text, answer)
        result: list[Json] = answer["data"]["result"]
        return result

    def query_range(self, text: str, start: float, end: float, step: float) -> Json:
        answer: Json = get(self.port, f"/api/v1/query_range?query={quote(text)}&start={start}&end={end}&step={step}")
        return answer

    def alerts(self) -> list[Json]:
        """Those that fire."""
        answer = get(self.port, "/api/v1/alerts")
        assert answer is not None, f"{self.name} does not answer"
        return [alert for alert in answer["data"]["alerts"] if alert["state"] == "firing"]

    def firing(self, alertname: str, **labels: str) -> Json | None:
        """The first alert that fires with these labels."""
        wanted = {"alertname": alertname, **labels}.items()
        return next((alert for alert in self.alerts() if wanted <= alert["labels"].items()), None)


@contextlib.contextmanager
def _program(folder: Path, *argv: str) -> Iterator[None]:
    with open(folder / f"{Path(argv[0]).name}.log", "wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment("outside"))
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def serve(folder: Path, generation: Generation, config: Path, targets: list[str]) -> Iterator[Server]:
    """A Prometheus that scrapes *targets*, and its Alertmanager with the routes that *config* makes.

    A second rule file is about targets of the scrape job "late", which has none until ``targets`` (a file) names one.
    """
    hook = Hook()
    server = Server(generation.name, free_port(), free_port(), hook, folder / "late.json")
    routes = alertmanager.files(load(str(config)), f"http://127.0.0.1:{hook.port}/alerts", f"http://127.0.0.1:{hook.port}/deadman")
    text = routes[alertmanager.PATH].replace("group_wait: 10s", "group_wait: 0s").replace("group_interval: 1m", "group_interval: 1s")
    (folder / "alertmanager.yml").write_text(text.replace("repeat_interval: 1m", "repeat_interval: 1s"))
    rules = prometheus.alerts(Options(pace=PACE)).replace("> 60\n", f"> {STALLED_AFTER_S}\n")
    (folder / "alerts.yml").write_text(rules)
    (folder / "rules.yml").write_text(prometheus.rules(Options(pace=PACE)))
    late = yaml.safe_load(prometheus.alerts(Options('job="late"', pace=PACE)))
    absent = [rule for rule in late["groups"][0]["rules"] if rule["alert"] == "MainstayAbsent"]
    (folder / "late.yml").write_text(yaml.safe_dump({"groups": [{"name": "late", "rules": absent}]}))
    server.targets.write_text("[]")
    (folder / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: {TICK}, scrape_timeout: {TICK}, evaluation_interval: {TICK}}}
rule_files: [alerts.yml, rules.yml, late.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{server.alertmanager}']}}]}}]}}
scrape_configs:
  - job_name: mainstay
    static_configs: [{{targets: {json.dumps(targets)}}}]
  - job_name: late
    file_sd_configs: [{{files: [late.json], refresh_interval: 1s}}]
"""
    )
    am = [
        generation.need("alertmanager"),
        "--config.file=alertmanager.yml",
        "--storage.path=am",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    pr = [generation.need("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--rules.alert.resend-delay=1s"]
    with contextlib.ExitStack() as stack:
        stack.callback(hook.close)
        stack.enter_context(_program(folder, *am, f"--web.listen-address=127.0.0.1:{server.alertmanager}"))
        wait_for(lambda: get(server.alertmanager, "/api/v2/status"), "Alertmanager")
        stack.enter_context(_program(folder, *pr, f"--web.listen-address=127.0.0.1:{server.port}", "--log.level=warn"))
        wait_for(lambda: get(server.port, "/api/v1/status/runtimeinfo"), "Prometheus")
        yield server
