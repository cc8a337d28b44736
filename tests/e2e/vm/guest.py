#!/usr/bin/env python3
"""Runs as root inside the virtual machine of test_systemd.py: installs Mainstay as systemd/README.md says, then checks what it does there.

Standard library only. Each check prints one line of JSON: {"check": name, "ok": true, false or null (could not be tried), "detail": text}.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path("/project")  # the checkout, shared by the host; nothing is written there
WHEELS = Path("/wheels")  # what requirements.lock names, fetched by the host: the guest has no network
DATA = Path("/data")
HOME = Path("/opt/mainstay")
MAINSTAY = str(HOME / ".venv/bin/mainstay")
PYTHON = str(HOME / ".venv/bin/python")
UNIT = "mainstay.service"
GENEROUS_S = 60.0
WATCHDOG_S = 30.0  # WatchdogSec= of the unit

CHECKS: dict[str, Callable[[], str]] = {}


class CannotTryError(Exception):
    """The check needs something that this guest was not given."""


def check(function: Callable[[], str]) -> Callable[[], str]:
    """Registers a check: it returns what it saw, raises AssertionError when that is wrong. They run in the order in which they stand."""
    CHECKS[function.__name__] = function
    return function


# ---------------------------------------------------------------- tools


def run(*command: str, timeout: float = GENEROUS_S, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if ok and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done


def mainstay(*words: str, config: str = "config", ok: bool = True) -> subprocess.CompletedProcess[str]:
    return run(MAINSTAY, "-c", f"/etc/mainstay/{config}.yaml", *words, ok=ok)


def status(config: str = "config") -> dict[str, Any]:
    """status --json, {} while nobody answers."""
    done = mainstay("status", "--json", config=config, ok=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def job(name: str, config: str = "config") -> dict[str, Any]:
    """One job of the status, {} if unknown."""
    return next((entry for entry in status(config).get("jobs", []) if entry["name"] == name), {})


def show(name: str, unit: str = UNIT) -> str:
    """A property of the unit as systemd tells it."""
    return run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()


def main_pid() -> int:
    """The unit's main process, the keeper. It is 0 when there is none, and a signal to 0 would hit ourselves."""
    pid = int(show("MainPID"))
    assert pid > 1, "the unit is not running"
    return pid


def eventually(what: str, question: Callable[[], Any], within: float = GENEROUS_S) -> Any:
    """The first true answer. AssertionError after *within* seconds."""
    deadline = time.monotonic() + within
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.1)


def processes(mark: str) -> list[int]:
    """The pids whose command line holds *mark*, our own and zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return sorted(found)


def field(pid: int, name: str) -> str:
    """A line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.partition(":")[2].strip()
    return ""


def finished(name: str, before: Any) -> dict[str, Any]:
    """The job's last end once it is another one than *before*."""

    def ended() -> Any:
        last = job(name).get("last")
        return last if last and last != before else None

    found: dict[str, Any] = eventually(f"an end of {name}", ended)
    return found


def scrape() -> str:
    """The page that Prometheus would get."""
    with urllib.request.urlopen("http://127.0.0.1:9321/metrics", timeout=GENEROUS_S) as answer:
        text: str = answer.read().decode()
    return text


def trigger(name: str) -> dict[str, Any]:
    """Run a job once; how it ended."""
    before = job(name).get("last")
    mainstay("trigger", name)
    return finished(name, before)


def report_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mainstay("why", name, "--json").stdout)
    return found


# ---------------------------------------------------------------- installation, as systemd/README.md says

JOBS = {
    "steady": "import time; time.sleep(1e6)  # marks STEADY",
    "hog": "a = []\nwhile True: a.append(bytearray(1 << 20))",
    "recurse": "import sys; sys.setrecursionlimit(10**8)\ndef ping(n): return pong(n + 1)\ndef pong(n): return ping(n + 1)\nping(0)",
    "who": "print(open('/proc/self/status').read(), open('/proc/self/oom_score_adj').read(), flush=True)",
    "nap": "import os, sys, time\nwhile not os.path.exists('/run/go'): time.sleep(0.05)\nsys.exit(7)",
    # a grandchild that left its session and lost its parent, as daemons do
    "hider": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1e6)  # marks HIDER\n    os._exit(0)\ntime.sleep(1e6)",
}

CONFIG = """\
supervisor: {{state_dir: {state}, listen: {listen}}}
defaults: {{restart: {{when: never}}, limits: {{time: 2m, memory: 256MiB}}, stop: {{grace: 2s}}}}
jobs:
  steady: {{command: [/usr/bin/python3, /opt/jobs/steady.py], schedule: service, restart: {{when: always, backoff: {{first: 100ms}}}}, limits: {{time: 1h}}}}
  hider: {{command: [/usr/bin/python3, /opt/jobs/hider.py], schedule: service, limits: {{time: 1h}}}}
  hog: {{command: [/usr/bin/python3, /opt/jobs/hog.py], schedule: manual, limits: {{memory: 64MiB}}}}
  nap: {{command: [/usr/bin/python3, /opt/jobs/nap.py], schedule: manual}}
  recurse: {{command: [/usr/bin/python3, /opt/jobs/recurse.py], schedule: manual, user: daemon, directory: /, limits: {{recursion: 400}}}}
  who: {{command: [/usr/bin/python3, /opt/jobs/who.py], schedule: manual, user: daemon, directory: /}}
"""
METRICS_JOB = """\
  user-metrics:
    command: [{python}, jobs/user_metrics, run, --source, {data}, --state, /var/lib/mainstay/user-metrics]
    directory: /opt/mainstay
    schedule: manual
    limits: {{memory: 512MiB}}
"""


def install() -> None:
    """The steps of systemd/README.md, with the packages taken from a directory."""
    HOME.mkdir(parents=True)
    for name in ("supervisor", "jobs", "systemd", "pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        source = PROJECT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, HOME / name)
    os.chdir(HOME)
    run("python3", "-m", "venv", str(HOME / ".venv"))
    pip = (PYTHON, "-m", "pip", "install", "--quiet", "--no-index")
    run(*pip, "--find-links", str(WHEELS), "--require-hashes", "-r", "requirements.lock", timeout=200)
    run(*pip, "--no-deps", "--no-build-isolation", str(HOME), timeout=200)
    Path("/opt/jobs").mkdir()
    for name, text in JOBS.items():
        Path(f"/opt/jobs/{name}.py").write_text(text + "\n")
    config = CONFIG.format(state="/var/lib/mainstay", listen="127.0.0.1:9321")
    if any(DATA.glob("*")):
        source = next(iter(DATA.glob("*.db")), DATA)
        config += METRICS_JOB.format(python=PYTHON, data=source)
    configure("config", config)
    for path in (HOME / "systemd").glob("*.service"):
        shutil.copy(path, "/etc/systemd/system")
    run("systemctl", "daemon-reload")


def configure(name: str, text: str) -> None:
    """Writes /etc/mainstay/NAME.yaml."""
    path = Path(f"/etc/mainstay/{name}.yaml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


# ---------------------------------------------------------------- the checks


@check
def active_means_that_it_supervises() -> str:
    started = time.monotonic()
    run("systemctl", "start", UNIT)
    took = time.monotonic() - started
    found = status()
    assert found, "systemctl start returned, but no daemon answers"
    assert show("ActiveState") == "active"
    assert found["daemon"]["keeper_pid"] == main_pid(), (found["daemon"], main_pid())
    eventually("the service job runs", lambda: job("steady").get("state") == "running")
    return f"after {took:.2f} s; status text {show('StatusText')!r}"


@check
def jobs_are_contained_by_cgroups() -> str:
    found = status()["daemon"]["containment"]
    assert found["memory"] == "cgroup", found
    (pid,) = processes("steady.py")
    group = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")
    assert UNIT in group, group
    limit = int(Path(f"/sys/fs/cgroup{group}/memory.max").read_text())
    assert limit == 256 * 2**20, limit
    return f"{found}; {group}"


@check
def the_metrics_job_succeeds() -> str:
    if not any(DATA.glob("*")):
        raise CannotTryError("the host has no data/source; `make data` makes it")
    last = trigger("user-metrics")
    assert last["outcome"] == "succeeded", (last, mainstay("why", "user-metrics", ok=False).stdout[-1500:])
    return str(last)


@check
def a_job_over_its_memory_limit_dies_alone() -> str:
    main, steady = main_pid(), processes("steady.py")
    last = trigger("hog")
    report = report_of("hog")
    assert last["outcome"] == report["outcome"] == "memory", report
    assert report["limit"] == "memory", report
    evidence = json.dumps(report["evidence"])
    assert "oom_kill" in evidence, evidence
    assert show("ActiveState") == "active"
    assert main_pid() == main
    assert show("NRestarts") == "0"
    assert processes("steady.py") == steady, "another job was hit"
    return f"{report['summary']}; {evidence}"


@check
def a_job_of_another_user_has_no_privileges_left() -> str:
    last = trigger("who")
    assert last["outcome"] == "succeeded", mainstay("why", "who", ok=False).stdout[-1500:]
    output = mainstay("logs", "who").stdout
    for wanted in ("Uid:\t1\t1\t1\t1", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"):
        assert wanted in output, output
    return "uid 1, no capability, no new privileges"


@check
def a_job_is_not_protected_from_the_oom_killer_and_the_daemon_is() -> str:
    (pid,) = processes("steady.py")
    ours, theirs = (int(Path(f"/proc/{number}/oom_score_adj").read_text()) for number in (main_pid(), pid))
    assert (ours, theirs) == (-900, 0)
    return "keeper -900, job 0"


@check
def the_outside_eye_sees_into_a_job_of_another_user() -> str:
    last = trigger("recurse")
    report = report_of("recurse")
    assert last["outcome"] == "recursion", report
    names = {frame["function"] for frame in (report["cycle"] or {"frames": []})["frames"]}
    assert names == {"ping", "pong"}, report
    return str(report["summary"])


@check
def reload_takes_a_new_job_and_keeps_all_processes() -> str:
    path = Path("/etc/mainstay/config.yaml")
    before = path.read_text()
    kept = (main_pid(), status()["daemon"]["pid"], processes("steady.py"))
    path.write_text(before + "  newcomer: {command: [/bin/true], schedule: manual}\n")
    run("systemctl", "reload", UNIT)
    eventually("the new job is known", lambda: job("newcomer"))
    path.write_text("jobs: [this is no config\n")
    run("systemctl", "reload", UNIT)
    eventually("the refusal shows in the metric", lambda: "mainstay_config_last_reload_successful 0" in scrape())
    assert job("newcomer"), "a bad config was taken"
    path.write_text(before)
    run("systemctl", "reload", UNIT)
    eventually("the job is gone", lambda: status() and not job("newcomer"))
    assert (main_pid(), status()["daemon"]["pid"], processes("steady.py")) == kept
    return f"keeper, brain and job stayed {kept}"


def replaced(brain: int) -> dict[str, Any]:
    found: dict[str, Any] = eventually(
        "another brain answers", lambda: status() if status().get("daemon", {}).get("pid") not in (None, brain) else None
    )
    return found


@check
def a_killed_brain_is_replaced_and_the_jobs_are_adopted() -> str:
    main, steady, brain = main_pid(), processes("steady.py"), status()["daemon"]["pid"]
    before = job("nap").get("last")
    mainstay("trigger", "nap")
    eventually("the run that is to be adopted goes", lambda: processes("nap.py"))
    started = time.monotonic()
    os.kill(brain, signal.SIGKILL)
    found = replaced(brain)
    took = time.monotonic() - started
    Path("/run/go").touch()
    last = finished("nap", before)
    assert (last["outcome"], report_of("nap")["exit_code"]) == ("failed", 7), last
    assert (main_pid(), processes("steady.py"), show("NRestarts")) == (main, steady, "0")
    eventually("the job is running again in the books", lambda: job("steady").get("state") == "running")
    return f"brain {brain} -> {found['daemon']['pid']} in {took:.1f} s; job {steady} lived on"


@check
def a_hanging_brain_is_replaced_by_the_keeper() -> str:
    main, steady, brain = main_pid(), processes("steady.py"), status()["daemon"]["pid"]
    started = time.monotonic()
    os.kill(brain, signal.SIGSTOP)
    eventually("the stopped brain is gone", lambda: not Path(f"/proc/{brain}").exists())
    found = replaced(brain)
    took = time.monotonic() - started
    assert (main_pid(), processes("steady.py"), show("NRestarts")) == (main, steady, "0")
    return f"brain {brain} -> {found['daemon']['pid']} in {took:.1f} s; job {steady} lived on"


def restarted(main: int, within: float) -> None:
    eventually("systemd restarts the unit", lambda: show("MainPID") not in ("0", str(main)) and show("ActiveState") == "active", within)
    eventually("the service job runs", lambda: job("steady").get("state") == "running")


@check
def a_killed_keeper_takes_its_jobs_along_and_systemd_starts_the_pair_anew() -> str:
    main, steady = main_pid(), processes("steady.py")
    started = time.monotonic()
    os.kill(main, signal.SIGKILL)
    restarted(main, GENEROUS_S)
    took = time.monotonic() - started
    now = processes("steady.py")
    assert len(now) == 1, f"doubled: {now}"
    assert job("hider")["last"]["outcome"] == "lost", job("hider")
    assert now != steady
    assert len(processes("hider.py")) <= 2, "the hidden grandchild of the first life lives on"
    return f"restarted in {took:.1f} s; job {steady} -> {now}"


@check
def the_watchdog_ends_a_hanging_keeper() -> str:
    main, before = main_pid(), int(show("NRestarts"))
    started = time.monotonic()
    os.kill(main, signal.SIGSTOP)
    restarted(main, WATCHDOG_S + GENEROUS_S)
    took = time.monotonic() - started
    assert int(show("NRestarts")) == before + 1
    assert "watchdog" in run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager").stdout.lower()
    assert len(processes("steady.py")) == 1
    return f"restarted {took:.1f} s after the keeper was stopped"


@check
def two_environments_run_beside_each_other() -> str:
    for name, port in (("staging", 9331), ("production", 9332)):
        configure(name, CONFIG.format(state=f"/var/lib/mainstay/{name}", listen=f"127.0.0.1:{port}"))
        run("systemctl", "start", f"mainstay@{name}")
    keepers = {status(name)["daemon"]["keeper_pid"] for name in ("config", "staging", "production")}
    assert len(keepers) == 3, keepers
    eventually("three of the same job", lambda: len(processes("steady.py")) == 3)
    run("systemctl", "stop", "mainstay@staging")
    assert status("staging") == {}
    assert len(processes("steady.py")) == 2
    assert status("production")["daemon"]["keeper_pid"] in keepers
    run("systemctl", "stop", "mainstay@production")
    return f"keepers {keepers}"


@check
def stop_leaves_nothing() -> str:
    assert processes("hider.py"), "the job that hides is not there"
    started = time.monotonic()
    run("systemctl", "stop", UNIT, timeout=120)
    took = time.monotonic() - started
    text = run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager", "-n", "30").stdout
    assert "everything_stopped" in text, f"systemd ended it before it had stopped its jobs by itself: {text[-3000:]}"
    left = [*processes("/opt/jobs/"), *processes(str(HOME))]
    assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]
    assert not Path(f"/sys/fs/cgroup/system.slice/{UNIT}").exists()
    assert (show("ActiveState"), show("Result")) == ("inactive", "success")
    return f"after {took:.1f} s"


@check
def a_config_that_cannot_be_read_is_not_retried() -> str:
    configure("broken", "jobs: {x: {comand: [true]}}\n")
    run("systemctl", "start", "mainstay@broken", ok=False)
    unit = "mainstay@broken.service"
    eventually("the unit has failed", lambda: show("ActiveState", unit) == "failed")
    assert (show("ExecMainStatus", unit), show("NRestarts", unit)) == ("78", "0")
    text = run("journalctl", "-u", unit, "-o", "cat", "--no-pager").stdout
    assert "broken.yaml:1:" in text, text
    return next(line for line in text.splitlines() if "broken.yaml:1:" in line)[:300]


# ---------------------------------------------------------------- the run


def say(name: str, ok: bool | None, detail: str) -> None:
    print(json.dumps({"check": name, "ok": ok, "detail": detail}), flush=True)


def main() -> int:
    """Everything in order; a check that fails does not keep the others from being tried."""
    started = time.monotonic()
    try:
        install()
    except Exception as err:  # whatever it was, the host wants to read it
        say("installs_offline_with_hashes", False, f"{type(err).__name__}: {err}")
        return 1
    say("installs_offline_with_hashes", True, f"{time.monotonic() - started:.1f} s")
    failed = 0
    for name, function in CHECKS.items():
        began = time.monotonic()
        try:
            detail = function()
        except CannotTryError as err:
            say(name, None, str(err))
            continue
        except Exception as err:  # as above
            failed += 1
            journal = run("journalctl", "-u", "mainstay*", "-o", "cat", "--no-pager", "-n", "40", ok=False).stdout
            say(name, False, f"{type(err).__name__}: {err}\n--- journal\n{journal[-5000:]}")
            if not status() and show("ActiveState") != "active" and name == next(iter(CHECKS)):
                return 1  # nothing to check
            continue
        say(name, True, f"{detail} [{time.monotonic() - began:.1f} s]")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
