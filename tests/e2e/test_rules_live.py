"""Every exported rule fires in a situation that real jobs and daemons make, and resolves after it: on each Prometheus that is here.

The tests share one stage and stand in the order of a bad night: everything breaks, Mainstay is restarted meanwhile, everything is mended.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Json, Mainstay, free_port, wait_for
from promtools import CURRENT, GENERATIONS, INSTALLED, MISSING, NEWER_MISSING
from stage import PACE, STALLED_AFTER_S, Hook, Server, get, serve

from supervisor import client
from supervisor.export import grafana
from supervisor.export.alerts import ALERTS, WATCHDOG
from supervisor.export.dashboards import dashboards
from supervisor.export.definition import Options

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not (INSTALLED.prometheus and INSTALLED.alertmanager), reason=f"Prometheus and Alertmanager: {MISSING}"),
]
HERE = Path(__file__).parent
PATIENCE_S = 90.0

EAT = "import time\nblocks = []\nwhile True: blocks.append(b'x' * 2**20); time.sleep(0.002)"
FAT = """
import os, time
blocks = []
while not os.path.exists('well-fat') and int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGESIZE') < 93.5 * 2**20:
    blocks.append(b'x' * 2**18)
print('full', flush=True)
time.sleep(600)
"""
LIE = "import os\nopen(os.environ['MAINSTAY_METRICS'], 'w').write('' if os.path.exists('well-liar') else 'this is no metric\\n')"


def jobs(more: str, dead_port: int) -> str:
    """config.yaml of the daemon whose jobs go wrong. Each is well once a file well-NAME is there."""

    def python(text: str) -> str:
        return json.dumps([sys.executable, "-c", text])

    return f"""
defaults: {{restart: {{when: never}}, alerts: {{to: [dead]}}, logs: {{keep: 1}}}}
jobs:
  early: {{shell: 'test -e well-early', schedule: {{every: 1d}}}}
  rested: {{shell: 'exit 3', schedule: {{every: 1d}}, alerts: {{severity: warning}}}}
  patient: {{shell: 'exit 3', schedule: manual, alerts: {{after: 2, severity: info}}}}
  flaps: {{shell: 'test -e well-flaps', schedule: manual}}
  eater: {{command: {python(EAT)}, schedule: manual, limits: {{memory: 60MiB}}}}
  fat: {{command: {python(FAT)}, limits: {{memory: 100MiB}}}}
  looper: {{shell: 'test -e well-looper && exec sleep 600; exit 1', restart: {{when: always, stable: 500ms, backoff: {{first: 400ms, factor: 1}}, budget: {{restarts: 1000}}}}}}
  down: {{shell: 'test -e well-down && exec sleep 600; exit 1', restart: {{when: always, stable: 500ms, backoff: {{first: 10m, max: 10m}}}}}}
  doomed: {{shell: 'test -e well-doomed && exec sleep 600; exit 1', restart: {{when: always, stable: 500ms, budget: {{restarts: 0}}}}}}
  never: {{shell: 'true', schedule: manual, expect: {{success_every: 25s}}}}
  idle-on-purpose: {{shell: 'true', schedule: manual, expect: {{success_every: 2s}}}}
  slow: {{shell: 'test -e well-slow || sleep 3', schedule: {{every: 1s}}}}
  liar: {{command: {python(LIE)}, schedule: manual}}
  alive: {{command: {python(ALIVE)}, limits: {{recursion: 400, memory: 200MiB, memory_soft: 150MiB, stall: 1m}}}}
  good: {{shell: 'true', schedule: {{every: 5s}}, expect: {{success_every: 1h}}}}
{more}
receivers:
  dead: {{type: webhook, url: 'http://127.0.0.1:{dead_port}/'}}
"""


ALIVE = "import time\nfrom supervisor import job\nwhile True: job.heartbeat(); time.sleep(0.3)"
POISON = "from supervisor import job\nfor key in job.records(['a', 'b', 'c'], key=str):\n    if key == 'b': raise SystemExit(3)"
LEAVER = "  leaver: {shell: 'exit 3', schedule: {every: 1d}}"
B = f"""
jobs:
  broken: {{shell: 'exit 3', schedule: {{every: 1d}}, restart: {{when: never}}}}
  poison: {{command: {json.dumps([sys.executable, "-c", POISON])}, schedule: manual, restart: {{backoff: {{first: 200ms}}}}}}
"""


class Stage:
    """The two daemons and every server that watches them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.dead_port = free_port()
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        self.a = Mainstay(folder / "a", jobs(LEAVER, self.dead_port))
        self.b = Mainstay(folder / "b", B)
        stack.callback(self.b.close)
        stack.callback(self.a.close)
        self.servers: list[Server] = []
        targets = [f"127.0.0.1:{self.a.port}", f"127.0.0.1:{self.b.port}"]
        for generation in GENERATIONS:
            if generation.prometheus and generation.alertmanager:
                (folder / generation.name).mkdir()
                self.servers.append(stack.enter_context(serve(folder / generation.name, generation, self.a.config, targets)))
        self.a.start()
        self.b.start()

    def fires(self, alertname: str, daemon: Mainstay | None = None, **labels: str) -> None:
        """Until every Prometheus says so."""
        where = {} if daemon is None else {"instance": f"127.0.0.1:{daemon.port}"}
        for server in self.servers:
            wait_for(lambda server=server: server.firing(alertname, **where, **labels), f"{server.name}: {alertname} {labels}", PATIENCE_S)

    def resolves(self, alertname: str, daemon: Mainstay | None = None, **labels: str) -> None:
        """Until none of them does."""
        where = {} if daemon is None else {"instance": f"127.0.0.1:{daemon.port}"}
        for server in self.servers:
            wait_for(
                lambda server=server: server.firing(alertname, **where, **labels) is None,
                f"{server.name}: the end of {alertname} {labels}",
                PATIENCE_S,
            )

    def trigger(self, job: str) -> None:
        self.a.post(client.job_route(job, "trigger"))

    def well(self, job: str) -> None:
        (self.a.folder / f"well-{job}").touch()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("rules"), stack)


def test_a_current_prometheus_takes_part() -> None:
    if not (CURRENT.prometheus and CURRENT.alertmanager):
        pytest.skip(NEWER_MISSING)


def test_every_rule_about_jobs_fires(stage: Stage) -> None:
    a = stage.a
    stage.fires("MainstayJobFailed", a, job_name="early", severity="critical")  # it failed before the first scrape
    stage.fires("MainstayJobFailed", a, job_name="rested", severity="warning")
    stage.fires("MainstayJobFailed", a, job_name="leaver")
    a.run_job("patient")
    stage.trigger("eater")
    stage.trigger("liar")
    drill = threading.Thread(target=a.cli, args=("drill", "good", "--fault", "exit", "--cap", "5s"))
    flapping = threading.Thread(target=flap, args=(stage,))
    drill.start()
    flapping.start()
    try:
        stage.fires("MainstayJobParked", a, job_name="doomed", severity="critical")
        stage.fires("MainstayJobDown", a, job_name="down")
        stage.fires("MainstayJobCrashLooping", a, job_name="looper")
        stage.fires("MainstayJobLimitExceeded", a, job_name="eater", limit="memory", severity="warning")
        stage.fires("MainstayJobMetricsRejected", a, job_name="liar", reason="malformed")
        stage.fires("MainstayJobNearMemoryLimit", a, job_name="fat")
        stage.fires("MainstayJobScheduleMissed", a, job_name="slow", reason="overlap")
        stage.fires("MainstayNotificationsFailing", a, receiver="dead")
        stage.fires("MainstayIncidentsOpen", a)
        stage.fires("MainstayJobFlapping", a, job_name="flaps")
        stage.fires("MainstayJobDrillFailed", a, job_name="good", fault="exit")  # its receiver is down
        for server in stage.servers:
            assert server.firing("MainstayJobFailed", job_name="patient") is None, "it failed once of twice"
        a.run_job("patient")
        stage.fires("MainstayJobFailed", a, job_name="patient", severity="info")
        stage.fires("MainstayJobNotSucceededInTime", a, job_name="idle-on-purpose")
        stage.fires("MainstayJobNotSucceededInTime", a, job_name="never")  # it never ran
        for server in stage.servers:
            assert server.firing(WATCHDOG)
            about = {alert["labels"]["alertname"] for alert in server.alerts() if alert["labels"].get("job_name") == "good"}
            assert about == {"MainstayJobDrillFailed"}
    finally:
        flapping.join(60)
        drill.join(60)


def flap(stage: Stage) -> None:
    """Between failing and well, each long enough to be seen by a scrape."""
    mark = stage.a.folder / "well-flaps"
    for turn in range(8):
        if turn % 2:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)
        run = stage.a.run_job("flaps")
        value = f"mainstay_job_consecutive_failures{{job_name='flaps'}} {'== 0' if run['outcome'] == 'succeeded' else '> 0'}"
        for server in stage.servers:
            wait_for(lambda server=server, value=value: server.query(value), value, PATIENCE_S)
        time.sleep(0.5)  # a rule looks once in 400 ms; there is no fact to wait for


# ---------------------------------------------------------------- a restart amid it all

STANDING = (
    ("MainstayJobFailed", "early"),
    ("MainstayJobFailed", "rested"),
    ("MainstayJobFailed", "leaver"),
    ("MainstayJobParked", "doomed"),
    ("MainstayJobDown", "down"),
    ("MainstayJobNotSucceededInTime", "idle-on-purpose"),
)


def since(server: Server) -> dict[tuple[str, str], str | None]:
    """Since when the alerts that stand have been active; None for one that does not fire."""
    alerts = {(alert["labels"]["alertname"], alert["labels"].get("job_name")): alert["activeAt"] for alert in server.alerts()}
    return {key: alerts.get(key) for key in STANDING}


def test_a_restart_of_mainstay_neither_resolves_an_alert_nor_fires_it_again(stage: Stage) -> None:
    for alertname, name in STANDING:
        stage.fires(alertname, stage.a, job_name=name)
    before = [since(server) for server in stage.servers]
    assert all(None not in alerts.values() for alerts in before), before
    crashes = f'mainstay_starts_total{{instance="127.0.0.1:{stage.a.port}",reason="crash"}}'
    keeper, brain = stage.a.keeper_pid, stage.a.brain_pid
    os.kill(keeper, signal.SIGSTOP)  # or the next brain is there before a scrape has missed the one before it
    try:
        os.kill(brain, signal.SIGKILL)
        for server in stage.servers:
            wait_for(
                lambda server=server: server.query(f'up{{instance="127.0.0.1:{stage.a.port}"}} == 0'), f"{server.name}: a gap", PATIENCE_S
            )
    finally:
        os.kill(keeper, signal.SIGCONT)

    def is_back(server: Server) -> bool:
        assert [since(one) for one in stage.servers] == before
        seen = server.query(
            f"{crashes} == 1 and ignoring (reason) timestamp({crashes}) - ignoring (reason) mainstay_config_last_reload_success_timestamp_seconds > 3"
        )
        return bool(seen)

    for server in stage.servers:
        wait_for(lambda server=server: is_back(server), f"{server.name}: the next brain for three seconds", PATIENCE_S)
    jobs = {job for _, job in STANDING}
    for server in stage.servers:
        told = [alert for path, alert in server.hook.got if path == "/alerts" and alert["labels"].get("job_name") in jobs]
        assert [alert for alert in told if alert["status"] == "resolved"] == []


# ---------------------------------------------------------------- the supervisor itself, at another daemon


def test_no_target_at_all_fires_and_a_target_ends_it(stage: Stage) -> None:
    for server in stage.servers:
        assert wait_for(lambda server=server: server.firing("MainstayAbsent", job="late"), server.name, PATIENCE_S)
        server.targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{stage.b.port}"]}]))
    for server in stage.servers:
        wait_for(lambda server=server: server.firing("MainstayAbsent") is None, server.name, PATIENCE_S)
        server.targets.write_text("[]")


def test_records_that_are_set_aside_fire(stage: Stage) -> None:
    b = stage.b  # not where many jobs fail at once: then it is not taken for the record
    b.post(client.job_route("poison", "trigger"))
    stage.fires("MainstayJobRecordsQuarantined", b, job_name="poison")
    done = b.cli("quarantine", "poison", "--release", "b")
    assert done.returncode == 0, done.stderr


def test_a_config_that_is_refused_fires_until_one_is_taken(stage: Stage) -> None:
    b, good = stage.b, stage.b.config.read_text()
    stage.fires("MainstayJobFailed", b, job_name="broken")
    b.config.write_text("jobs: {x: {}}\n")
    os.kill(b.keeper_pid, signal.SIGHUP)
    stage.fires("MainstayConfigReloadFailed", b)
    b.config.write_text(good)
    assert b.cli("reload").returncode == 0
    stage.resolves("MainstayConfigReloadFailed", b)


def test_a_history_that_cannot_be_written_fires(stage: Stage) -> None:
    b = stage.b
    (path,) = b.state.glob("*.db")
    lock = sqlite3.connect(path, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        b.post(client.job_route("broken", "trigger"))
        stage.fires("MainstayHistoryErrors", b)
    finally:
        lock.close()


def test_a_loop_that_stands_still_fires_until_the_keeper_has_replaced_it(stage: Stage) -> None:
    b = stage.b
    brain = b.brain_pid
    halt = subprocess.Popen([sys.executable, str(HERE / "onethread.py"), str(brain), "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert halt.stdout is not None
        if halt.stdout.readline() != b"halted\n":
            pytest.skip("a thread of another process cannot be halted here (ptrace is forbidden)")
        stage.fires("MainstayStalled", b)
        b.wait_for(lambda: b.brain_pid != brain, "the keeper's next brain")
        stage.resolves("MainstayStalled", b)
    finally:
        halt.kill()
        halt.communicate()


def test_a_daemon_that_crashes_again_and_again_fires(stage: Stage) -> None:
    b = stage.b  # its loop stood still just now and was killed for it: that was the first crash
    crashes = f'mainstay_starts_total{{instance="127.0.0.1:{b.port}",reason="crash"}}'
    for _ in range(2):
        first = wait_for(lambda: stage.servers[0].query(crashes), "the next brain's page", PATIENCE_S)[0]["value"][1]
        brain = b.brain_pid
        os.kill(brain, signal.SIGKILL)
        for server in stage.servers:
            wait_for(lambda server=server, first=first: server.query(f"{crashes} > {first}"), "the count", PATIENCE_S)
    stage.fires("MainstayRestarted", b)


def test_a_dead_daemon_fires_suppresses_what_its_jobs_say_and_ends_with_the_next_start(stage: Stage) -> None:
    b = stage.b
    stage.fires("MainstayJobFailed", b, job_name="broken")
    b.stop()
    stage.fires("MainstayDown", b)
    for server in stage.servers:
        wait_for(lambda server=server: is_suppressed(server, "broken"), f"{server.name}: the suppression", PATIENCE_S)
    stage.resolves("MainstayJobFailed", b)
    b.start()
    stage.resolves("MainstayDown", b)
    stage.fires("MainstayJobFailed", b, job_name="broken")


def test_each_of_these_ends_with_its_cause(stage: Stage) -> None:
    """Looked at together: each waits for its range or its bridge to pass."""
    for name in ("MainstayJobRecordsQuarantined", "MainstayHistoryErrors", "MainstayRestarted"):
        stage.resolves(name, stage.b)


def is_suppressed(server: Server, job: str) -> bool:
    alerts = get(server.alertmanager, "/api/v2/alerts") or []
    found = [alert for alert in alerts if alert["labels"].get("job_name") == job]
    return any(alert["status"]["inhibitedBy"] for alert in found)


# ---------------------------------------------------------------- what Grafana asks

EMPTY_IS_GOOD = (  # nothing of the kind happens here
    "mainstay_job_recursion_detected_total",
    "mainstay_job_heal_steps_total",
)


def substituted(expr: str) -> str:
    """As Grafana fills in its variables; the job is the one that has the most to show."""
    return expr.replace("$__rate_interval", "5m").replace("$instance", ".+").replace('job_name="$job_name"', 'job_name=~".+"')


def test_every_query_of_every_dashboard_answers(stage: Stage) -> None:
    now = time.time()
    asked = 0
    for server in stage.servers:
        for name, document in dashboards(Options().selector).items():
            queries = [(panel["title"], target["expr"]) for panel in document["panels"] for target in panel["targets"]]
            queries += [(one["name"], one["expr"]) for one in document["annotations"]["list"]]
            for one in document["templating"]["list"][1:]:
                metric, label = one["definition"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
                queries.append((one["name"], f"count by ({label}) ({metric})"))
            for title, expr in queries:
                text = substituted(expr)
                answer = server.query_range(text, now - 20, now, 1)
                assert answer["status"] == "success", (server.name, name, title, answer)
                bare = text.replace('job="mainstay",instance=~".+",job_name=~".+",', "").replace('job="mainstay",', "")
                if not any(one in bare for one in EMPTY_IS_GOOD):
                    assert answer["data"]["result"], f"{server.name}: {name}: {title}: nothing for {text}"
                    assert server.query(text) or "increase" in text, f"{server.name}: {name}: {title}: nothing now for {text}"
                asked += 1
    assert asked > 60


def test_the_alert_rules_of_grafana_find_what_those_of_prometheus_find(stage: Stage) -> None:
    rules = [rule for group in grafana.alerting(Options(pace=PACE))["groups"] for rule in group["rules"]]

    def labels(one: Json) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((name, value) for name, value in one.items() if name not in ("__name__", "alertname")))

    def differences(server: Server) -> list[str]:
        answer = get(server.port, "/api/v1/alerts")["data"]["alerts"]
        found = []
        for rule in rules:
            expr = rule["data"][0]["model"]["expr"].replace("> 60", f"> {STALLED_AFTER_S}")
            ours = {labels({**one["metric"], **rule["labels"]}) for one in server.query(expr)}
            theirs = {
                labels(one["labels"])
                for one in answer
                if one["labels"]["alertname"] == rule["title"] and one["labels"].get("job") != "late"
            }
            kept = theirs if "keepFiringFor" in rule else set()  # Prometheus lists what it still keeps firing, too
            if ours - theirs or theirs - ours - kept:
                found.append(f"{rule['title']}: {ours ^ theirs}")
        return found

    for server in stage.servers:
        last: list[list[str]] = []
        try:
            wait_for(lambda server=server, last=last: (last.append(differences(server)), not last[-1])[1], "the same alerts", PATIENCE_S)
        except AssertionError:
            pytest.fail(f"{server.name}: {last[-1]}")


# ---------------------------------------------------------------- the morning


def test_every_alert_about_a_job_resolves_when_the_job_is_well(stage: Stage) -> None:
    a = stage.a
    for job in ("early", "fat", "looper", "down", "doomed", "slow", "flaps", "liar"):
        stage.well(job)
    for job in ("early", "liar", "flaps", "never"):
        stage.trigger(job)
    for job in ("fat", "looper", "down", "doomed"):
        assert a.cli("restart", job, "--no-wait").returncode == 0
    stage.resolves("MainstayJobNotSucceededInTime", a, job_name="never")  # it ran; in 25 s that will be too old again
    assert a.cli("pause", "rested").returncode == 0
    assert a.cli("pause", "idle-on-purpose").returncode == 0
    text = jobs("", stage.dead_port).replace("patient: {shell: 'exit 3'", "patient: {shell: 'exit 0'")
    a.write_config(text.replace(json.dumps(EAT), '"0"').replace("25s", "1h"))
    assert a.cli("reload").returncode == 0
    stage.trigger("patient")
    stage.trigger("eater")
    with contextlib.closing(Hook(stage.dead_port)) as hook, ThreadPoolExecutor(1) as beside:
        wait_for(lambda: hook.got, "what waited for the receiver", PATIENCE_S)
        drill = beside.submit(a.cli, "drill", "good", "--fault", "exit")
        stage.resolves("MainstayJobFailed", a, job_name="leaver")  # it was removed
        stage.resolves("MainstayJobFailed", a, job_name="rested")  # it is paused
        stage.resolves("MainstayJobNotSucceededInTime", a, job_name="idle-on-purpose")
        done = drill.result(PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        for name in ALERTS:
            if name.startswith("MainstayJob"):
                stage.resolves(name, a)
        wait_for(lambda: resolve_what_is_left(a), "the end of every incident", PATIENCE_S)
        stage.resolves("MainstayIncidentsOpen", a)
        stage.resolves("MainstayNotificationsFailing", a)
    for server in stage.servers:
        left = {(alert["labels"]["alertname"], alert["labels"].get("job_name")) for alert in server.alerts()}
        assert left <= {(WATCHDOG, None), ("MainstayAbsent", None), ("MainstayJobFailed", "broken"), ("MainstayIncidentsOpen", None)}, left


def resolve_what_is_left(daemon: Mainstay) -> bool:
    """What paused jobs left open and what flaps; True once none is open. A summary of many ends by itself, some minutes later."""
    left = [one for one in daemon.ask("/incidents")["incidents"] if one["closed_at"] is None and one["job"] != "*"]
    assert {one["job"] for one in left} <= {"rested", "idle-on-purpose", "flaps"}, left
    for one in left:
        daemon.post(f"/incidents/{one['incident']}/resolve")
    return not left


def test_the_whole_way_was_walked(stage: Stage) -> None:
    """Through Alertmanager's routes to the receivers: openings, ends, and the watchdog's beat."""
    for server in stage.servers:
        beats = [alert for path, alert in server.hook.got if path == "/deadman"]
        assert len(beats) >= 3
        assert {alert["labels"]["alertname"] for alert in beats} == {WATCHDOG}
        wait_for(lambda server=server: told(server) >= {("early", "firing"), ("early", "resolved")}, server.name, PATIENCE_S)


def told(server: Server) -> set[tuple[str, str]]:
    alerts = [alert for path, alert in server.hook.got if path == "/alerts" and alert["labels"]["alertname"] == "MainstayJobFailed"]
    return {(alert["labels"]["job_name"], alert["status"]) for alert in alerts}
