"""Twelve secrets, each where secrets are kept, and nothing that Mainstay writes or answers has one of them (F59).

What may hold them is excepted by name: the config and the environment file themselves, the 0600 copy of the config that the next brain goes on with, and
the captured output, which is the job's own and is not read by anybody but its owner.
"""

import base64
import json
import os
import stat
import textwrap
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
from harness import Mainstay

from supervisor.core.dossier import BYTES_MAX
from supervisor.core.dossierform import schema

PLACES = [
    "environment", "environment_file", "inherited", "argv_option", "argv_url", "receiver_url", "receiver_header", "receiver_secret",
    "exception_url", "exception_chain", "local", "printed_token",
]  # fmt: skip
CANARIES = {place: f"c4n4ry{n:02}Xq{place.replace('_', '')[::-1]}" for n, place in enumerate(PLACES)}

SCRIPT = """
    import os, sys
    hidden = "{local}"
    print("connecting with", os.environ["DB_PASSWORD"], os.environ["API_TOKEN"], os.environ["INHERITED_SECRET"])
    print("argv:", sys.argv[1:])
    print("Authorization: Bearer {printed_token}", file=sys.stderr)
    try:
        raise KeyError("postgres://app:{exception_chain}@db.example/orders")
    except KeyError as err:
        def connect(password):
            raise ConnectionError("GET https://svc:{exception_url}@api.example/v1?page=1 refused") from err
        connect(hidden)
"""

CONFIG = """
receivers:
  hook:
    type: webhook
    url: 'http://user:{receiver_url}@127.0.0.1:1/hook'
    headers: {{X-Auth-Token: '{receiver_header}'}}
    secret_file: hook.secret
  script: {{type: command, command: ['/bin/sh', '-c', 'cat >> told.json; echo >> told.json']}}
defaults:
  schedule: manual
  restart: {{when: never}}
  alerts: {{to: [hook, script]}}
jobs:
  leaky:
    command: [python3, leaky.py, '--api-key', '{argv_option}', 'mysql://root:{argv_url}@db.example/']
    environment: {{DB_PASSWORD: '{environment}'}}
    environment_file: leaky.env
  missing: {{command: ['./no-such-{argv_option}'], environment: {{THE_TOKEN: '{argv_option}'}}}}
  hungry:
    command: [python3, hungry.py, '--password={argv_option}']
    environment: {{DB_PASSWORD: '{environment}'}}
    limits: {{time: 2s, memory: 256MiB}}
  quiet:
    command: [python3, leaky.py]
    environment: {{DB_PASSWORD: '{environment}'}}
    environment_file: leaky.env
    dossier: {{output: false, messages: false}}
"""
HUNGRY = "import subprocess, sys, time\nprint(sys.argv)\nsubprocess.Popen(['sleep', '30'])\ntime.sleep(30)\n"


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "leaky.py").write_text(textwrap.dedent(SCRIPT).format(**CANARIES))
    (folder / "hungry.py").write_text(HUNGRY)
    (folder / "leaky.env").write_text(f"API_TOKEN={CANARIES['environment_file']}\n")
    (folder / "hook.secret").write_text(CANARIES["receiver_secret"] + "\n")
    for name in ("leaky.env", "hook.secret"):
        (folder / name).chmod(0o600)
    daemon = Mainstay(folder, CONFIG.format(**CANARIES), environment={"INHERITED_SECRET": CANARIES["inherited"]}, log_level="debug")
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def told(mainstay: Mainstay) -> list[dict[str, object]]:
    """All four jobs have ended, and the program that is told of it has been told."""
    for name, outcome in (("leaky", "exception"), ("missing", "launch_failed"), ("hungry", "time"), ("quiet", "exception")):
        assert mainstay.run_job(name)["outcome"] == outcome
    path = mainstay.folder / "told.json"
    mainstay.wait_for(lambda: path.exists() and path.read_text().count('"opened"') >= 4, "four alerts")
    mainstay.wait_for(lambda: "receiver_failing" in mainstay.log(), "the other receiver's trouble")
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def found_in(text: bytes) -> list[str]:
    """Which canaries are in it, as they are, quoted for an address, or in base64."""
    hits = []
    for place, canary in CANARIES.items():
        raw = canary.encode()
        forms = {raw, urllib.parse.quote(canary, safe="").encode(), *(base64.b64encode(b"x" * n + raw)[4:-4] for n in range(3))}
        hits += [place for form in forms if form in text]
    return hits


def test_nothing_that_is_written_holds_a_secret(mainstay: Mainstay, told: list[dict[str, object]]) -> None:
    excepted = {"config.loaded.yaml", "config.yaml", "leaky.env", "hook.secret", "leaky.py"}
    hits, seen = [], 0
    for path in mainstay.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in excepted and "logs" not in path.parts:
            seen += 1
            hits += [(str(path.relative_to(mainstay.folder)), place) for place in found_in(path.read_bytes())]
    assert hits == []
    assert seen >= 4  # the history, its journal, the log of the daemon, what was told


def test_nothing_that_is_answered_holds_a_secret(mainstay: Mainstay, told: list[dict[str, object]]) -> None:
    numbers = [one["incident"] for one in mainstay.ask("/incidents")["incidents"]]
    pages = ["/metrics", "/", "/api/v1/status", "/api/v1/runs", "/api/v1/incidents", *(f"/api/v1/incidents/{n}" for n in numbers)]
    pages += [f"/api/v1/why?job={name}" for name in ("leaky", "missing", "hungry", "quiet")]
    for page in pages:
        status, body = mainstay.http(page)[:2]
        assert status == 200, page
        assert found_in(body if isinstance(body, bytes) else body.encode()) == [], page
    for words in (
        ["why", "leaky"],
        ["incident", str(numbers[0])],
        ["incident", str(numbers[0]), "--json"],
        ["check", "--show"],
        ["status", "--json"],
    ):
        done = mainstay.cli(*words)
        shown = (done.stdout + done.stderr).encode()
        if words != ["check", "--show"]:
            assert found_in(shown) == [], words


def test_what_is_left_says_what_happened(mainstay: Mainstay, told: list[dict[str, object]]) -> None:
    report = mainstay.ask("/why", job="leaky")
    jsonschema.Draft202012Validator(schema()).validate(report)
    assert report["exception"]["message"] == "GET https://[redacted]@api.example/v1?page=1 refused"
    assert "postgres://[redacted]@db.example/orders" in report["exception"]["chain"][0]
    assert "connecting with [redacted] [redacted] [redacted]" in report["output_tail"]
    assert report["environment"]["directory"] == str(mainstay.folder)
    assert report["changed"]["note"] == "it has no good run yet that it could be compared with"
    quiet = mainstay.ask("/why", job="quiet")
    assert (quiet["output_tail"], quiet["exception"]["message"], quiet["left_out"]) == ("", "", ["output", "messages"])
    assert quiet["exception"]["frames"]
    assert "refused" not in json.dumps(quiet)
    assert len(json.dumps(report).encode()) < BYTES_MAX


def test_all_of_it_is_for_its_owner_only(mainstay: Mainstay, told: list[dict[str, object]]) -> None:
    open_to_others = [
        path
        for path in mainstay.state.rglob("*")
        if not path.is_symlink() and stat.S_IMODE(os.lstat(path).st_mode) & 0o077 and path.is_file()
    ]
    # Nobody's secret: layouts of interpreters, and copies of our own sources, which jobs of other users run.
    assert [path for path in open_to_others if not {"cache", "guard"} & set(Path(path).parts)] == []
