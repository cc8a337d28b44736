"""Every command as people and their scripts use it: text and --json, exit codes, and what a reload does."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import PROGRAM, Mainstay, environment, wait_for

from supervisor import talk

JOBS = r"""
jobs:
  good: {shell: 'echo all is well', schedule: manual}
  bad: {shell: 'echo oh; exit 3', schedule: manual, restart: {when: never}}
  again: {shell: 'exit 4', schedule: manual, restart: {when: on-failure, backoff: {first: 0s}, budget: {restarts: 2, within: 10m}}}
  mended: {shell: 'exit 5', schedule: manual, restart: {when: never}}
  long: {shell: 'echo begun; exec sleep 1000', schedule: manual}
  svc: {command: [sleep, '1000'], limits: {time: 30d}}
  nightly: {command: ['true'], schedule: {cron: '30 3 * * *', timezone: Europe/London}}
  hostile: {shell: "printf 'a\\033[2J\\007b\\342\\200\\256c\\377d\\n'", schedule: manual}
  ticks: {shell: 'n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.05; done', schedule: manual}
"""
UNKNOWN = ("nobody", "", "../x")
OFF = "  off: {command: ['true'], enabled: false}\n"


@pytest.fixture(scope="module")
def mainstay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mainstay]:
    daemon = Mainstay(tmp_path_factory.mktemp("commands"), JOBS + OFF)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture(autouse=True)
def restored(mainstay: Mainstay) -> Iterator[None]:
    """The config on disk is good again after each test, and in force."""
    yield
    mainstay.write_config(JOBS + OFF)
    assert mainstay.post("/reload")["ok"]


def good(mainstay: Mainstay, *words: str) -> str:
    """What the command prints; it has to succeed."""
    done = mainstay.cli(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "\x1b" not in done.stdout, "colour, and not on a terminal"
    return done.stdout


def data(mainstay: Mainstay, *words: str) -> object:
    """Its --json."""
    return json.loads(good(mainstay, *words, "--json"))


# ---------------------------------------------------------------- reading


def test_status_shows_daemon_and_jobs(mainstay: Mainstay) -> None:
    text = good(mainstay, "status")
    assert text.startswith("mainstay ")
    header, *rows = text.split("\n\n")[1].splitlines()
    assert header.split()[:2] == ["JOB", "STATE"]
    states = {row.split()[0]: row.split()[1] for row in rows}
    assert states.keys() == {"good", "bad", "again", "mended", "long", "svc", "nightly", "hostile", "ticks", "off"}
    assert states["off"] == "disabled"
    found = data(mainstay, "status")
    assert found["daemon"]["pid"] == mainstay.brain_pid
    assert found["daemon"]["keeper_pid"] == mainstay.keeper_pid
    assert found["daemon"]["version"]
    assert found["daemon"]["containment"].keys() == {"memory", "processes", "kill"}
    assert {job["name"] for job in found["jobs"]} == states.keys()
    assert all({"state", "last"} <= job.keys() for job in found["jobs"])
    assert [row.split()[0] for row in good(mainstay, "status", "svc").split("\n\n")[1].splitlines()] == ["JOB", "svc"]


def test_a_job_that_is_not_there_is_1_and_said(mainstay: Mainstay) -> None:
    for words in (
        ["status", "nobody"],
        *([verb, name] for verb in ("start", "stop", "restart", "trigger", "pause", "resume", "logs", "why", "runs") for name in UNKNOWN),
        *(["drill", name, "--last"] for name in UNKNOWN),
        *(["quarantine", name, "--replay", "x"] for name in UNKNOWN),
        ["why", "99999999"],
        ["incident", "99999999"],
        ["incident", "99999999", "--ack"],
        ["logs", "good", "--run", "99999999"],
    ):
        done = mainstay.cli(*words)
        assert (done.returncode, done.stdout) == (1, ""), (words, done)
        assert done.stderr.startswith("mainstay: "), (words, done)
        assert len(done.stderr.splitlines()) <= 2, (words, done)
        assert "GET" not in done.stderr, (words, done)
        if set(words) & set(UNKNOWN):
            assert re.match(r"mainstay: (there is no job |that is not the name of a job)", done.stderr), (words, done)


def test_hints_are_commands_and_why_says_what_there_is_not(mainstay: Mainstay) -> None:
    for words, error in (
        (["why", "nobody"], "there is no job nobody"),
        (["why", "99999999"], "there is no run 99999999, or it is no longer kept"),
        (["why", "nightly"], "nightly has never run"),
        (["why", "svc"], "svc has not ended yet: run "),
        (["logs", "no job"], "that is not the name of a job"),
        (["incident", "99999999"], "there is no incident 99999999"),
        (["quarantine", "svc", "--show", "zz"], "svc has no such record in quarantine\n`mainstay quarantine svc` lists its records"),
        (["quarantine", "svc", "--replay", "zz"], "svc has no such record in quarantine\n`mainstay quarantine svc` lists its records"),
        (["runs", "nobody"], "there is no job nobody"),
        (["logs", "nobody"], "there is no job nobody"),
        (["drill", "nobody", "--last"], "there is no job nobody"),
        (["trigger", ""], "that is not the name of a job"),
        (["trigger", "../x"], "that is not the name of a job"),
    ):
        done = mainstay.cli(*words)
        assert done.stderr.startswith(f"mainstay: {error}"), done
        assert "`mainstay " in done.stderr, done
        assert "GET" not in done.stderr, done


def test_the_past_of_a_job_that_left_the_config_can_still_be_asked_for(mainstay: Mainstay) -> None:
    run = mainstay.run_job("good")["run"]
    mainstay.write_config(JOBS.replace("  good:", "  better:"))
    assert mainstay.post("/reload")["ok"]
    assert mainstay.cli("trigger", "good").returncode == 1
    assert data(mainstay, "runs", "good")["runs"][0]["run"] == run
    assert good(mainstay, "runs", "good").splitlines()[1].split()[:2] == [str(run), "good"]
    assert good(mainstay, "logs", "good", "--run", str(run)) == "all is well\n"
    assert good(mainstay, "runs", "better").splitlines()[1:] == [], "one that has no runs yet is no mistake"


def test_the_words_of_a_job_that_ran_well(mainstay: Mainstay) -> None:
    assert "good: run" in good(mainstay, "trigger", "good")
    mainstay.wait_for(lambda: mainstay.job("good")["last"], "its end")
    run = mainstay.runs("good")[0]["run"]
    assert good(mainstay, "logs", "good") == "all is well\n"
    found = data(mainstay, "logs", "good", "--run", str(run))
    assert (found["run"], found["attempt"], found["text"]) == (run, 1, "all is well\n")
    rows = good(mainstay, "runs", "good").splitlines()
    assert rows[0].split()[:2] == ["RUN", "JOB"]
    assert rows[1].split()[:2] == [str(run), "good"]
    assert "succeeded" in rows[1]
    assert data(mainstay, "runs", "good")["runs"][0]["outcome"] == "succeeded"
    assert "SUCCEEDED" in good(mainstay, "why", "good")


def test_the_story_of_a_bad_end(mainstay: Mainstay) -> None:
    run = mainstay.run_job("bad")["run"]
    text = good(mainstay, "why", "bad")
    assert text.startswith(f"bad run {run}, attempt 1: FAILED\n  It ended with exit code 3 after ")
    for section in ("Evidence", "Last output", "What Mainstay did", "What it does next", "How to override"):
        assert f"\n{section}\n" in text
    assert good(mainstay, "why", str(run)).splitlines()[0] == text.splitlines()[0]
    found = data(mainstay, "why", "bad")
    assert found["exit_code"] == 3
    assert found["did"][0] == "kept its output and reports", "and nothing that reads as if a process lived on"
    (number,) = mainstay.job("bad")["incidents"]
    listed = good(mainstay, "incidents")
    assert [row for row in listed.splitlines() if row.split()[:3] == [str(number), "open", "bad"]]
    assert any(one["incident"] == number for one in data(mainstay, "incidents", "--open"))
    shown = data(mainstay, "incident", str(number))
    assert (shown["job"], shown["outcome"], shown["closed_at"]) == ("bad", "failed", None)
    report = shown["report"]
    assert {"schema", "job", "run", "attempt", "outcome", "summary", "limit", "evidence", "output_tail", "fingerprint"} <= report.keys()
    assert "acknowledged" in good(mainstay, "incident", str(number), "--ack")
    assert "acknowledged" in good(mainstay, "incident", str(number))
    for words in (["why", "bad"], ["incident", str(number)]):
        assert f"mainstay incident {number} --resolve" in " ".join(good(mainstay, *words).split())
    assert "closed" in good(mainstay, "incident", str(number), "--resolve")
    for words in (["why", "bad"], ["incident", str(number)]):
        shown = good(mainstay, *words)
        assert "--ack" not in shown, "there is nothing to acknowledge any more"
        assert "--resolve" not in shown
        assert "mainstay trigger bad" in shown
    assert mainstay.job("bad")["incidents"] == []
    assert not [one for one in data(mainstay, "incidents", "--open") if one["incident"] == number]
    assert mainstay.cli("incident", str(number), "--resolve").returncode == 1
    mainstay.run_job("bad")
    assert mainstay.job("bad")["incidents"] != [number]


def test_a_person_acknowledges_and_mends_and_a_regression_names_the_fix(mainstay: Mainstay) -> None:
    mainstay.run_job("mended")
    (number,) = mainstay.job("mended")["incidents"]
    assert "acknowledged" in good(mainstay, "incident", str(number), "--ack", "--note", "on it")
    shown = good(mainstay, "incident", str(number))
    assert shown.startswith(f"incident {number}: acknowledged\nmended: failed (critical), seen once")
    assert ": on it\n" in shown
    assert "closed" in good(mainstay, "incident", str(number), "--resolve", "--note", "deployed", "--fix", "commit 3f2a91c")
    found = data(mainstay, "incident", str(number))
    assert (found["fix"], found["acknowledged_note"]) == ("commit 3f2a91c", "on it")
    assert found["closed_by"] == found["acknowledged_by"] != ""
    mainstay.run_job("mended")
    (again,) = mainstay.job("mended")["incidents"]
    assert data(mainstay, "incident", str(again))["regression_of"] == number
    assert "fix: commit 3f2a91c" in " ".join(good(mainstay, "why", "mended").split())
    for words in (["incident"], ["incident", "7", "--note", "x"], ["incident", "7", "--ack", "--fix", "x"]):
        done = mainstay.cli(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
    assert json.loads(good(mainstay, "incident", "--schema"))["title"] == "A dossier of Mainstay"


def test_why_with_no_name_is_about_the_last_bad_end_of_any_job(mainstay: Mainstay) -> None:
    run = mainstay.run_job("bad")["run"]
    assert good(mainstay, "why").startswith(f"bad run {run}")


def test_a_budget_that_is_spent_parks_and_start_unparks(mainstay: Mainstay) -> None:
    row = mainstay.run_job("again")
    assert row["attempts"] == 3
    assert mainstay.job("again")["state"] == "parked"
    assert "mainstay start again" in good(mainstay, "why", "again")
    assert "run " in good(mainstay, "start", "again")
    mainstay.wait_for(lambda: mainstay.runs("again")[0]["run"] > row["run"] and mainstay.runs("again")[0]["outcome"], "the next run")
    series = 'mainstay_job_restarts_total{job_name="again",reason="failed"}'
    mainstay.wait_for_metric(series, 4)


def test_logs_n_shows_the_last_lines_and_logs_f_goes_on_over_the_next_run(mainstay: Mainstay) -> None:
    number = int(good(mainstay, "trigger", "ticks").split("run ")[1].split()[0])
    mainstay.wait_for(lambda: "tick 4\n" in mainstay.ask("/jobs/ticks/logs", n=100)["text"], "some ticks")
    assert len(good(mainstay, "logs", "ticks", "-n", "2").splitlines()) == 2
    follower = subprocess.Popen(
        [*PROGRAM, "-c", str(mainstay.config), "logs", "ticks", "-f", "-n", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment("follower"),
    )
    try:
        assert follower.stdout is not None
        first = int(follower.stdout.readline().split()[1])
        second = int(follower.stdout.readline().split()[1])
        assert second == first + 1
        restarted = good(mainstay, "restart", "ticks")
        assert f"run {number} ended: stopped" in restarted
        for line in follower.stdout:
            if line.startswith("--- run "):
                break
        assert line == f"--- run {number + 1}, attempt 1 ---\n"
        assert follower.stdout.readline() == "tick 1\n"
    finally:
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=20)
    assert (follower.returncode, err) == (130, "")
    assert "stopped" in good(mainstay, "stop", "ticks")
    assert mainstay.runs("ticks")[0]["outcome"] == "stopped"


def test_logs_f_shows_the_last_lines_of_an_attempt_before_those_of_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    files = {1: "one\ntwo\n", 2: "three\n"}

    class Daemon:
        def get(self, _route: str, attempt: int = 2, offset: int = 0, **_more: object) -> dict[str, object]:
            whole = files[attempt]
            begun = offset if offset <= len(whole) else 0
            place = {"run": 5, "attempt": attempt, "offset": len(whole), "live": True, "turned_over": begun < offset}
            return {**place, "text": whole[begun:]}

    chunk = talk._follow(Daemon(), "job", None, {"run": 5, "attempt": 1, "offset": 4})  # type: ignore[arg-type]
    assert capsys.readouterr().out == "two\n--- run 5, attempt 2 ---\nthree\n"
    files[2] = "four\n"
    talk._follow(Daemon(), "job", None, chunk)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "--- its file was turned over: some lines may be missing here ---\nfour\n"


def test_logs_f_ends_with_a_line_when_the_job_leaves_the_config(mainstay: Mainstay) -> None:
    mainstay.run_job("hostile")
    follower = subprocess.Popen(
        [*PROGRAM, "-c", str(mainstay.config), "logs", "hostile", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment("follower"),
    )
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline()
        mainstay.write_config(JOBS.replace("  hostile:", "  guest:") + OFF)
        assert mainstay.post("/reload")["ok"]
        _, err = follower.communicate(timeout=30)
    finally:
        follower.kill()
    assert follower.returncode == 1
    assert err == "mainstay: hostile is no longer in the config, or its output is no longer kept\n"


def test_bytes_that_would_drive_a_terminal_are_shown_and_not_sent(mainstay: Mainstay) -> None:
    mainstay.run_job("hostile")
    for words in (["logs", "hostile"], ["why", "hostile"]):
        text = good(mainstay, *words)
        assert "a\\x1b[2J\\x07b" in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}, words
        assert ("c\ufffdd" if words[0] == "logs" else "c\\xffd") in text
    assert data(mainstay, "logs", "hostile")["text"].startswith("a\x1b[2J\x07b")


# ---------------------------------------------------------------- wishes


def test_start_stop_restart_of_a_service(mainstay: Mainstay) -> None:
    first = mainstay.wait_for_state("svc", "running")["runs"][0]
    assert "is running already" in good(mainstay, "start", "svc")
    stopped = good(mainstay, "stop", "svc")
    assert f"run {first['run']} ended: stopped: " in stopped
    assert mainstay.job("svc")["state"] == "paused"
    answer = data(mainstay, "stop", "svc")
    assert answer["ok"]
    assert answer["ended"] is None
    assert "run " in good(mainstay, "start", "svc")
    second = mainstay.wait_for_state("svc", "running")["runs"][0]
    ended = data(mainstay, "restart", "svc")["ended"]
    assert (ended["run"], ended["outcome"]) == (second["run"], "stopped")
    third = mainstay.wait_for_state("svc", "running")["runs"][0]
    assert third["run"] == second["run"] + 1
    assert third["pid"] != second["pid"]


def test_trigger_refuses_a_second_run_beside_the_first(mainstay: Mainstay) -> None:
    good(mainstay, "trigger", "long")
    second = mainstay.cli("trigger", "long")
    assert second.returncode == 1
    assert "running already" in second.stderr
    assert "mainstay restart" in second.stderr
    mainstay.wait_for_state("long", "running")
    good(mainstay, "stop", "long")


def test_trigger_can_wait_for_the_end_of_its_run_and_says_by_its_code_how_that_was(mainstay: Mainstay) -> None:
    text = good(mainstay, "trigger", "good", "--wait").splitlines()
    assert text[0].startswith("good: run ")
    assert " ended: succeeded: It succeeded after " in text[1], text
    for job, attempts, code in (("bad", 1, 3), ("again", 3, 4)):
        done = mainstay.cli("trigger", job, "--wait")
        assert (done.returncode, done.stderr) == (1, ""), done
        run = mainstay.runs(job)[0]
        assert done.stdout == f"{job}: run {run['run']} started\nrun {run['run']} ended: failed: {run['summary']}\n"
        assert run["attempts"] == attempts, "it waits for the run, not for an attempt"
        assert f"{job} run {run['run']}, attempt {attempts}: FAILED\n  It ended with exit code {code} " in good(mainstay, "why", job)
        good(mainstay, "start", job)  # one of them is parked
    done = mainstay.cli("trigger", "bad", "--wait", "--json")
    answer, row = json.loads(done.stdout), mainstay.runs("bad")[0]
    assert done.returncode == 1
    assert answer["run"] == answer["ended"]["run"] == row["run"]
    assert answer["ended"] == {name: row[name] for name in talk.ENDED}
    assert tuple(mainstay.job("bad")["last"]) == talk.ENDED
    assert data(mainstay, "trigger", "good")["run"] == row["run"] + 1
    mainstay.wait_for_state("good", "idle")


def test_a_wait_for_a_run_that_is_stopped_is_1(mainstay: Mainstay) -> None:
    waits = subprocess.Popen(
        [*PROGRAM, "-c", str(mainstay.config), "trigger", "long", "--wait"], stdout=subprocess.PIPE, text=True, env=environment("waits")
    )
    try:
        mainstay.wait_for_state("long", "running")
        good(mainstay, "stop", "long")
        out, _ = waits.communicate(timeout=30)
    finally:
        waits.kill()
    assert waits.returncode == 1
    assert " ended: stopped: " in out
    good(mainstay, "resume", "long")


def test_pause_and_resume_and_a_pause_that_ends_by_itself(mainstay: Mainstay) -> None:
    fire = mainstay.job("nightly")["next_run"]
    assert fire is not None
    assert "mainstay resume nightly" in good(mainstay, "pause", "nightly")
    assert mainstay.job("nightly")["state"] == "paused"
    assert mainstay.job("nightly")["paused_until"] is None
    good(mainstay, "resume", "nightly")
    assert (mainstay.job("nightly")["state"], mainstay.job("nightly")["next_run"]) == ("idle", fire)
    assert "is paused until 2" in good(mainstay, "pause", "nightly", "--for", "5s")
    assert mainstay.job("nightly")["paused_until"] is not None
    mainstay.wait_for_state("nightly", "idle")
    wrong = mainstay.cli("pause", "nightly", "--for", "soon")
    assert wrong.returncode == 2
    assert "soon" in wrong.stderr


def test_an_incident_shows_its_own_dossier_and_why_the_latest_bad_end(make) -> None:
    """Of a run whose attempts died of different things or went well in the end, and of a service whose run is older than the job's."""
    script = "import os; n = os.environ['MAINSTAY_ATTEMPT']; {'1': lambda: {}[1], '2': lambda: [][2]}.get(n, print)()"
    again = "{when: on-failure, backoff: {first: 0s}, budget: {restarts: 2, within: 10m}}"
    mainstay = make(
        f"jobs:\n  svc: {{command: [sleep, '1000'], limits: {{time: 30d}}, restart: {{when: never}}}}\n"
        f'  mixed: {{command: ["{sys.executable}", -c, "{script}"], schedule: manual, restart: {again}}}\n'
    ).start()
    mainstay.wait_for_state("svc", "running")
    assert mainstay.run_job("mixed")["outcome"] == "succeeded"
    found = {
        one["summary"].partition(":")[0]: mainstay.ask(f"/incidents/{one['incident']}") for one in mainstay.ask("/incidents")["incidents"]
    }
    assert {name: one["report"]["attempt"] for name, one in found.items()} == {"KeyError": 1, "IndexError": 2}
    assert all(one["report"]["incident"] == one["incident"] for one in found.values())
    assert "IndexError" in good(mainstay, "why")
    os.kill(mainstay.job("svc")["runs"][0]["pid"], signal.SIGKILL)
    mainstay.wait_for_state("svc", "idle")
    assert good(mainstay, "why").startswith("svc")


def test_a_pause_lasts_as_long_as_it_was_asked_for(mainstay: Mainstay) -> None:
    """Counted from when it was asked for, not from the loop's last look at the clock, which may be a second old."""
    for _ in range(5):
        before = datetime.now(UTC)
        good(mainstay, "pause", "nightly", "--for", "60s")
        until = datetime.fromisoformat(mainstay.job("nightly")["paused_until"])
        assert until >= before.replace(microsecond=before.microsecond // 1000 * 1000) + timedelta(seconds=60)
    good(mainstay, "resume", "nightly")


def test_a_pause_or_silence_of_no_time_is_refused(mainstay: Mainstay) -> None:
    for verb in ("pause", "silence"):
        done = mainstay.cli(verb, "svc", "--for", "0s")
        assert done.returncode in (1, 2), done
        assert "e.g. 2h" in done.stderr, done
        assert "shorter" not in done.stderr
    assert mainstay.job("svc")["paused"] is False


def test_a_paused_service_that_dies_is_not_restarted_and_a_trigger_leaves_a_stop_in_force(mainstay: Mainstay) -> None:
    mainstay.wait_for_state("svc", "running")
    assert "not restarted" in good(mainstay, "pause", "svc")
    assert "running (paused)" in good(mainstay, "status", "svc")
    pid = mainstay.wait_for(lambda: mainstay.job("svc")["runs"][0]["pid"], "its process")
    os.kill(pid, signal.SIGKILL)
    mainstay.wait_for_state("svc", "paused")
    good(mainstay, "resume", "svc")
    mainstay.wait_for_state("svc", "running")
    good(mainstay, "stop", "good")
    assert "stays paused until `mainstay start good`" in good(mainstay, "trigger", "good")
    mainstay.wait_for_state("good", "paused")
    good(mainstay, "resume", "good")


def test_a_stop_that_has_no_end_in_time_is_1_and_says_which_process_is_in_the_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"run": 7, "phase": "stopping", "pid": 4242}

    class Stuck:
        def get(self, _route: str) -> dict[str, object]:
            return {"runs": [run], "last": None, "stop_grace_seconds": 0.0}

        def post(self, _route: str, _body: object) -> dict[str, object]:
            return {"ok": True, "text": "it stops"}

    monkeypatch.setattr(talk, "_client", lambda _config: Stuck())
    monkeypatch.setattr(talk, "OVERDUE_S", 0.0)
    assert talk.wish(None, "stop", "stuck", {}, wait=True, as_json=False) == 1
    out, err = capsys.readouterr()
    assert out == "it stops\n"
    assert err == "mainstay: run 7 has not ended within 0 s: it is stopping; its process 4242 does not go away\n"


def test_a_disabled_job_says_so(mainstay: Mainstay) -> None:
    done = mainstay.cli("trigger", "off")
    assert done.returncode == 1
    assert "enabled: true" in done.stderr


# ---------------------------------------------------------------- reload


def test_reload_shows_its_plan_takes_the_new_config_and_keeps_the_last_good_one(mainstay: Mainstay) -> None:
    """One story, in order: plan, take, refuse by command, refuse by SIGHUP, mend by SIGHUP."""
    before = mainstay.job("svc")["runs"]
    new = JOBS.replace("[sleep, '1000']", "[sleep, '2000']").replace("  hostile:", "  guest:") + OFF
    mainstay.write_config(new)
    plan = data(mainstay, "reload", "--plan")
    changes = {change["job"]: change["kind"] for change in plan["changes"]}
    assert changes == {"svc": "changed", "hostile": "removed", "guest": "added"}, plan
    text = good(mainstay, "reload", "--plan")
    assert "svc" in text
    assert "restarts" in text
    assert mainstay.job("svc")["runs"] == before, "a plan changes nothing"
    good(mainstay, "reload")
    mainstay.wait_for(
        lambda: mainstay.job("svc")["runs"] and mainstay.job("svc")["runs"][0]["pid"] not in (None, before[0]["pid"]), "the new service"
    )
    assert {job["name"] for job in mainstay.status()["jobs"]} >= {"guest"}
    mainstay.wait_for(lambda: 'mainstay_job_up{job_name="hostile"}' not in mainstay.metrics(), "that its metrics leave with it")
    after = mainstay.job("svc")["runs"]

    mainstay.write_config(new + "  broken: {comand: ['true']}\n")
    refused = mainstay.cli("reload")
    assert refused.returncode == 1
    assert "config.yaml:" in refused.stderr
    assert "comand" in refused.stderr
    assert "command" in refused.stderr
    mainstay.wait_for_metric("mainstay_config_last_reload_successful", 0)
    assert mainstay.cli("reload", "--plan").returncode == 1

    refusals = len(mainstay.log_events("config_refused"))
    mainstay.process.send_signal(signal.SIGHUP)
    mainstay.wait_for(lambda: len(mainstay.log_events("config_refused")) > refusals, "the refusal")
    assert "comand" in mainstay.log_events("config_refused")[-1]["problem"]
    assert mainstay.job("svc")["runs"] == after
    assert "broken" not in {job["name"] for job in mainstay.status()["jobs"]}

    asked = mainstay.cli("status", "svc")  # while the file on disk is broken
    assert asked.returncode == 0
    assert "has problems" in asked.stderr
    assert "svc" in asked.stdout

    mainstay.write_config(JOBS + OFF)
    mainstay.process.send_signal(signal.SIGHUP)
    mainstay.wait_for_metric("mainstay_config_last_reload_successful", 1)
    mainstay.wait_for(lambda: "hostile" in {job["name"] for job in mainstay.status()["jobs"]}, "the old config")


def test_the_command_line_works_while_the_config_is_no_yaml_at_all(mainstay: Mainstay) -> None:
    text = mainstay.config.read_text()
    mainstay.config.write_text(text + "\njobs: [\n")
    try:
        done = mainstay.cli("status")
        assert done.returncode == 0, done.stderr
        assert "svc" in done.stdout
    finally:
        mainstay.config.write_text(text)


# ---------------------------------------------------------------- the rest


def test_no_daemon_is_69_for_every_command_that_asks_one(tmp_path: Path) -> None:
    nobody = Mainstay(tmp_path, "jobs:\n  one: {command: ['true']}\n")
    for words in (["status"], ["trigger", "one"], ["why"], ["runs"], ["logs", "one"], ["incidents"], ["incident", "1"], ["reload"]):
        done = nobody.cli(*words)
        assert (done.returncode, done.stdout) == (69, ""), done
        assert "no daemon" in done.stderr
        assert "run" in done.stderr
    assert nobody.cli("check").returncode == 0


def test_mistakes_in_usage_are_2(mainstay: Mainstay) -> None:
    for words in (
        [],
        ["statsu"],
        ["status", "--nope"],
        ["trigger"],
        ["incident", "seven"],
        ["incident", "1", "--ack", "--resolve"],
        ["logs", "good", "-n", "x"],
        ["logs", "good", "-n", "-1"],
        ["incidents", "-n", "-1"],
        ["runs", "-n", "0"],
        ["incident", "-1"],
        ["pause", "svc", "--for", "5"],
        ["pause", "svc", "--for", "soon"],
        ["silence", "svc", "--for", "5"],
        ["drill", "svc", "--fault", "exit", "--cap", "5"],
    ):
        done = mainstay.cli(*words)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.splitlines()[-1].startswith("try: mainstay"), done


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status", "--jsno"], "mainstay status: unrecognized arguments: --jsno\ntry: mainstay status --help\n"),
        (["exec", "--bogus", "--", "true"], "mainstay exec: unrecognized arguments: --bogus\ntry: mainstay exec --help\n"),
        (["--bogus", "status"], "mainstay: unrecognized arguments: --bogus\ntry: mainstay --help\n"),
        (["logs", "good", "more"], "mainstay logs: unrecognized arguments: more\ntry: mainstay logs --help\n"),
        (["pause", "svc", "--for", "5"], 'mainstay pause: argument --for: "5" has no unit; '),
    ],
)
def test_a_mistake_names_the_command_whose_help_helps(mainstay: Mainstay, words: list[str], says: str) -> None:
    done = mainstay.cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(says), done.stderr


def test_every_command_has_help_with_an_example(mainstay: Mainstay) -> None:
    usage = good(mainstay, "--help")
    names = [line.split()[0] for line in usage.splitlines() if line.startswith("    ") and not line.startswith("     ")]
    assert {"run", "check", "exec", "status", "reload", "why", "incident"} <= set(names)
    for name in names:
        assert "example: mainstay" in " ".join(good(mainstay, name, "--help").split()), name


def on_a_terminal(mainstay: Mainstay, *words: str, **more: str) -> str:
    """What a command prints to a terminal."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*PROGRAM, "-c", str(mainstay.config), *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment("tty", more)
    ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        os.close(ours)
        assert process.wait(20) == 0
    return text.decode()


def test_colour_is_for_terminals_and_not_with_no_color(mainstay: Mainstay) -> None:
    mainstay.wait_for_state("svc", "running")
    assert "\x1b[32mrunning" in on_a_terminal(mainstay, "status", TERM="xterm")
    assert "\x1b" not in on_a_terminal(mainstay, "status", TERM="xterm", NO_COLOR="1")


def test_tables_take_the_width_of_the_terminal(mainstay: Mainstay) -> None:
    mainstay.run_job("bad")
    for words in (["status"], ["runs"], ["incidents"]):
        narrow = mainstay.cli(*words, COLUMNS="40")
        assert (narrow.returncode, narrow.stderr) == (0, ""), narrow
        table = narrow.stdout.split("\n\n", 1)[1] if words == ["status"] else narrow.stdout
        assert max(map(len, table.splitlines())) <= 40, table
        assert " bad\n" in table


def test_json_on_a_terminal_is_ascii(mainstay: Mainstay) -> None:
    mainstay.run_job("hostile")
    text = on_a_terminal(mainstay, "logs", "hostile", "--json")
    assert text.isascii()
    assert "\\u202e" in text
    assert "\u202e" in good(mainstay, "logs", "hostile", "--json")


def test_check_says_good_or_every_problem_with_its_place(mainstay: Mainstay, tmp_path: Path) -> None:
    assert f"{mainstay.config}: good: 10 jobs" in good(mainstay, "check")
    assert "  nightly:" in good(mainstay, "check", "--show")
    assert json.loads(good(mainstay, "check", "--schema"))["$schema"]
    bad = Mainstay(tmp_path, "jobs:\n  one: {comand: ['true']}\n  two: {command: ['true'], limits: {memory: 5}}\n")
    done = bad.cli("check")
    assert (done.returncode, done.stdout) == (78, "")
    lines = done.stderr.splitlines()
    assert any(line.startswith(f"{bad.config}:3:9: ") and "comand" in line for line in lines), lines
    missing = Mainstay(tmp_path, "jobs:\n  one: {command: [nosuchcmd]}\n").cli("check")
    assert missing.returncode == 0
    assert re.search(r'^warning: \S+:3:18: jobs.one.command: "nosuchcmd" is in no folder of PATH', missing.stderr, re.MULTILINE), missing
    assert any(line.startswith(f"{bad.config}:4:") and "jobs.two.limits.memory" in line for line in lines), lines


def test_a_reader_that_stops_reading_is_no_error(mainstay: Mainstay) -> None:
    command = f"{' '.join(PROGRAM)} -c {mainstay.config} status --json | head -c 1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=30, check=False, env=environment("head"))
    assert (done.stdout, done.stderr) == ("{", "")


def in_shell(mainstay: Mainstay, line: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """*line* in a shell whose $M is `mainstay -c CONFIG`, without -I, so that Python's own variables hold."""
    program = f"{sys.executable} -m supervisor -c {mainstay.config}"
    where = environment("shell") | more
    return subprocess.run(
        ["sh", "-c", line.replace("$M", program)], capture_output=True, text=True, encoding="latin-1", timeout=60, check=False, env=where
    )


ASKING = [
    "status",
    "status --json",
    "status --watch",
    "runs",
    "why",
    "incidents",
    "logs bad",
    "check",
    "check --show",
    "check --schema",
    "trigger good",
]


@pytest.mark.parametrize(("where", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")])
@pytest.mark.parametrize("words", ["--help", *ASKING])
def test_output_that_cannot_be_written_is_1_and_one_line(mainstay: Mainstay, words: str, where: str, why: str) -> None:
    mainstay.run_job("bad")
    done = in_shell(mainstay, f"$M {words} {where}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"mainstay: cannot write the output: {why}\n")


def test_complaints_that_cannot_be_written_leave_the_answer_as_it_is(mainstay: Mainstay) -> None:
    for where in ("2>/dev/full", "2>&-"):
        assert in_shell(mainstay, f"$M status good --json {where}").stdout.startswith("{")
        assert in_shell(mainstay, f"$M status nosuch {where}").returncode == 1
        assert in_shell(mainstay, f"$M status --nonsense {where}").returncode == 2


def test_a_working_directory_that_was_removed_is_no_bug_of_ours(mainstay: Mainstay, tmp_path: Path) -> None:
    gone = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; "
    assert in_shell(mainstay, gone + "$M status good --json").returncode == 0
    for words in ("status", "run"):
        done = in_shell(mainstay, gone + f"$M -c config.yaml {words}")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "mainstay: the working directory was removed; change to another"


@pytest.mark.parametrize("encoding", ["latin1", "ascii"])
def test_characters_that_the_terminal_lacks_are_written_as_escapes(mainstay: Mainstay, encoding: str) -> None:
    mainstay.write_config(JOBS + "  wid: {shell: 'echo 日本 😀 é; exit 3', schedule: manual, restart: {when: never}}\n")
    assert mainstay.post("/reload")["ok"]
    mainstay.run_job("wid")
    wide = "\\u65e5\\u672c \\U0001f600 " + ("é" if encoding == "latin1" else "\\xe9")
    for words in ("logs wid", "why wid", "check --show"):
        done = in_shell(mainstay, f"$M {words}", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert wide in done.stdout, done.stdout
    done = in_shell(mainstay, "$M logs wid --json", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout)["text"] == "日本 😀 é\n"


def test_status_watch_goes_on_until_interrupted(mainstay: Mainstay) -> None:
    watcher = subprocess.Popen(
        [*PROGRAM, "-c", str(mainstay.config), "status", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment("watch"),
    )
    try:
        assert watcher.stdout is not None
        heads = 0
        while heads < 2:
            line = watcher.stdout.readline()
            assert line, "it ended"
            heads += line.startswith("mainstay ")
    finally:
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=20)
    assert (watcher.returncode, err) == (130, "")
    wait_for(lambda: watcher.poll() is not None, "its end")
