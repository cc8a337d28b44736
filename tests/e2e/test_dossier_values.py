"""``dossier.values``: the numbers that a recursion was called with are told of a job whose config wants them told, and kept back of any other.

Two ways lead there and both are taken: the guard's record of a RecursionError, and the look from outside at a stack that has no limit of its own.
"""

import json
import textwrap
from collections.abc import Iterator

import pytest
from harness import Mainstay

SCRIPT = """
    import ctypes, sys

    def visit(user, account, api_key, name, rows):
        return visit(user + 1, account, api_key, name, rows)

    if sys.argv[1] == "seen":  # the guard keeps sys.setrecursionlimit; this passes it by, and only the eye sees the depth
        ctypes.pythonapi.Py_SetRecursionLimit(10**9)
    visit(0, int(sys.argv[2]), int(sys.argv[3]), "n4me-of-a-person", ["r0w"])
"""
ACCOUNT = {"raised": 20450713, "seen": 20450714}  # what may be told where it is allowed
HIDDEN = {"raised": 30450713, "seen": 30450714}  # of the jobs that did not allow it
KEY = 77123456789  # of secret name: never
CONFIG = "\n".join(
    [
        "defaults: {schedule: manual, restart: {when: never}, limits: {recursion: 400, memory: 128MiB, time: 60s}}",
        "receivers: {script: {type: command, command: ['/bin/sh', '-c', 'cat >> told.json']}}",
        "jobs:",
        *(
            f"  {kind}-{policy}: {{command: [python3, visit.py, {kind}, '{account[kind]}', '{KEY}'], alerts: {{to: [script]}}{words}}}"
            for policy, account, words in (("allowed", ACCOUNT, ", dossier: {values: true}"), ("default", HIDDEN, ""))
            for kind in ("raised", "seen")
        ),
    ]
)


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    folder = tmp_path_factory.mktemp("values")
    (folder / "visit.py").write_text(textwrap.dedent(SCRIPT))
    daemon = Mainstay(folder, CONFIG, log_level="debug")
    try:
        daemon.start()
        for kind in ("raised", "seen"):
            for policy in ("allowed", "default"):
                assert daemon.run_job(f"{kind}-{policy}")["outcome"] == "recursion"
        yield daemon
    finally:
        daemon.close()


def notes(mainstay: Mainstay, job: str) -> list[str]:
    found: list[str] = mainstay.why(job)["cycle"]["notes"]
    return found


@pytest.mark.parametrize("kind", ["raised", "seen"])
def test_numbers_are_told_where_the_config_wants_it_but_none_of_secret_name(mainstay: Mainstay, kind: str) -> None:
    told = notes(mainstay, f"{kind}-allowed")
    assert f"visit: account = {ACCOUNT[kind]}" in told
    assert "visit: api_key = [redacted]" in told
    depth = next(int(note.rpartition(" ")[2]) for note in told if note.startswith("visit: user = "))
    assert 300 <= depth < 10**6  # the number of the level that was looked at, near the end of the stack
    assert not any("n4me" in note or "r0w" in note or "name =" in note or "rows =" in note for note in told)  # no text, no content
    incident = next(one["incident"] for one in mainstay.ask("/incidents")["incidents"] if one["job"] == f"{kind}-allowed")
    assert f"account = {ACCOUNT[kind]}" in mainstay.cli("incident", str(incident), "--json").stdout


@pytest.mark.parametrize("kind", ["raised", "seen"])
def test_without_it_types_and_steps_are_told_and_no_number(mainstay: Mainstay, kind: str) -> None:
    told = notes(mainstay, f"{kind}-default")
    assert any(note.endswith(": user steps by 1 each turn") for note in told)
    assert not any(" = " in note for note in told)


def test_nothing_that_is_written_or_answered_holds_what_is_kept_back(mainstay: Mainstay) -> None:
    kept_back = [str(number).encode() for number in HIDDEN.values()]
    secret = str(KEY).encode()
    told = mainstay.folder / "told.json"
    mainstay.wait_for(lambda: told.exists() and told.read_text().count('"opened"') >= 4, "four alerts")
    excepted = {"config.yaml", "config.loaded.yaml"}  # the jobs' arguments stand in them
    hits, seen = [], 0
    for path in mainstay.folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in excepted:
            seen += 1
            text = path.read_bytes()
            hits += [(path.name, number) for number in (*kept_back, secret) if number in text]
    for job in ("raised-default", "seen-default", "raised-allowed", "seen-allowed"):
        answer = json.dumps(mainstay.why(job)).encode()
        hits += [(job, number) for number in (*kept_back, secret) if number in answer]
    assert hits == []
    assert seen >= 4
