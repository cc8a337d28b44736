"""Mainstay's own deaths: whichever part dies, no run is lost or doubled, every exit code is known, and nothing is left behind."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Mainstay, alive, read, wait_for

from supervisor import procfs
from supervisor.adapters.store.database import KEEP_ATTEMPTS

KILLS = 20
DAEMONS = 5  # the keeper slows the restarts of a brain that dies young, so the kills are spread

# A run says in its own journal that it began and how it will end; O_APPEND makes each line whole.
JOURNAL = """
code=$(((MAINSTAY_RUN + MAINSTAY_ATTEMPT) % 3))
echo "start $MAINSTAY_RUN.$MAINSTAY_ATTEMPT $MAINSTAY_SLOT" >> "$JOURNAL"
sleep 0.15
echo "end $MAINSTAY_RUN.$MAINSTAY_ATTEMPT $code" >> "$JOURNAL"
exit $code
"""
# Everything a job can do to get away from its supervisor.
DAEMONIZES = "setsid sh -c '(sleep 1000 & sleep 1000) & sleep 1000 & wait' & (setsid setsid sleep 1000 &) ; "


def journalling(journal: Path) -> str:
    """A timed job that makes up for every slot, and a service that begins again at once."""
    common = f"shell: {json.dumps(JOURNAL)}, environment: {{JOURNAL: {journal}}}, limits: {{time: 1m}}"
    return f"""
jobs:
  slots: {{schedule: {{every: 1s, catch_up: all}}, restart: {{when: never}}, {common}}}
  again: {{restart: {{when: always, backoff: {{first: 0s}}, budget: {{restarts: 1000, within: 1m}}}}, {common}}}
"""


def brains_of(keeper: int) -> list[int]:
    """The brain, by its place in the tree and its command line: it may be too young to answer."""
    return [pid for pid in alive(procfs.children(keeper)) if (procfs.read_file(f"/proc/{pid}/cmdline") or b"").endswith(b"\0brain\0")]


def kill_brain(keeper: int) -> None:
    """SIGKILL to whatever brain there is, and wait for the next."""
    (old,) = wait_for(lambda: brains_of(keeper), "a brain")
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: [pid for pid in brains_of(keeper) if pid != old], "the next brain")


def history(mainstay: Mainstay, query: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{mainstay.state}/history.db?mode=ro", uri=True)) as base:
        return base.execute(query).fetchall()


def test_twenty_kills_of_the_brain_lose_no_run_double_none_and_forget_no_exit_code(make, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    daemons = [make(journalling(tmp_path / f"journal{number}")) for number in range(DAEMONS)]
    for mainstay in daemons:
        mainstay.start()
    keepers = [mainstay.keeper_pid for mainstay in daemons]
    for _ in range(KILLS // DAEMONS):
        for keeper in keepers:
            time.sleep(moments.uniform(0, 0.3))  # not to wait for anything: any moment has to do
            kill_brain(keeper)
    for mainstay, keeper in zip(daemons, keepers, strict=True):
        last = mainstay.runs("slots")[0]["run"]
        mainstay.wait_for(lambda mainstay=mainstay, last=last: mainstay.runs("slots")[0]["run"] > last + 1, "another run")
        assert mainstay.keeper_pid == keeper
        assert mainstay.stop() == 0
    for number, mainstay in enumerate(daemons):
        check_journal(mainstay, (tmp_path / f"journal{number}").read_text())


def check_journal(mainstay: Mainstay, journal: str) -> None:
    """What the jobs say they did is what the history says."""
    starts = re.findall(r"start (\d+)\.(\d+)", journal)
    ends = dict(re.findall(r"end (\d+\.\d+) (\d)", journal))
    assert len(starts) == len(set(starts)), "an attempt began twice"
    rows = history(mainstay, "select run, attempt, phase, exit_code, outcome from attempts")
    stopped = {(str(run), str(attempt)) for run, attempt, _, _, outcome in rows if outcome == "stopped"}  # maybe before its first line
    known = {(str(run), str(attempt)) for run, attempt, *_ in rows}
    newest = {run: max(int(attempt) for of, attempt in starts if of == run) for run, _ in starts}
    pruned = {(run, attempt) for run, attempt in starts if int(attempt) <= newest[run] - KEEP_ATTEMPTS}  # each brain begins with a pruning
    assert known - stopped <= set(starts) <= known | pruned, "history and journal tell of different attempts"
    for run, attempt, phase, code, outcome in rows:
        assert phase == "ended"
        if outcome != "stopped":  # by the stop at the end, before or after its last line
            assert outcome == ("succeeded" if code == 0 else "failed"), (run, attempt, outcome)
            assert ends.get(f"{run}.{attempt}") == str(code), f"{run}.{attempt} said another code than the history's {code}"
    runs = history(mainstay, "select id, attempts, ended_at is not null from runs")
    assert all(ended for _, _, ended in runs)
    counted = Counter(run for run, *_ in rows)
    whole = {run: count for run, count, _ in runs if count <= KEEP_ATTEMPTS}
    assert counted.keys() == {run for run, *_ in runs}
    assert whole == {run: counted[run] for run in whole}, "runs and attempts do not add up"
    ran = re.findall(r"start \d+\.1 (\S+Z)", journal)
    slots = {str(run) for (run,) in history(mainstay, "select run from slots where job = 'slots' and run is not null")}
    assert len(ran) == len(set(ran)), "a slot ran twice"
    assert len(slots) - len(ran) == len({(run, "1") for run in slots} & known - set(starts)), "a slot did not run"


def test_output_written_while_the_brain_is_dead_is_all_there_and_all_counted(make, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = (
        "import os, sys, time\n"
        "def out(a, b):\n"
        "    for n in range(a, b): sys.stdout.write('line %07d\\n' % n)\n"
        "    sys.stdout.flush()\n"
        "out(0, 50000)\n"
        f"open({str(tmp_path / 'half')!r}, 'w').close()\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "out(50000, 150000)\n"
        f"open({str(tmp_path / 'more')!r}, 'w').close()\n"
        f"while not os.path.exists({str(go)!r} + '2'): time.sleep(0.01)\n"
        "out(150000, 200000)\n"
    )
    mainstay = make(
        "jobs:\n  writer:\n    schedule: manual\n    logs: {max_size: 10MiB}\n    command:\n"
        + "".join(f"      - {json.dumps(word)}\n" for word in (sys.executable, "-c", script))
    )
    mainstay.start()
    mainstay.post("/jobs/writer/trigger")
    mainstay.wait_for((tmp_path / "half").exists, "the first half")
    keeper, job = mainstay.keeper_pid, mainstay.job("writer")["runs"][0]
    (brain,) = brains_of(keeper)
    os.kill(brain, signal.SIGSTOP)  # so that the next one does not come while it writes
    go.touch()
    wait_for((tmp_path / "more").exists, "the other half")
    os.kill(brain, signal.SIGKILL)
    again = mainstay.wait_for(lambda: mainstay.job("writer")["runs"], "adoption")[0]
    assert (again["run"], again["attempt"], again["pid"]) == (job["run"], job["attempt"], job["pid"])
    (tmp_path / "go2").touch()
    assert mainstay.wait_for_end("writer", job["run"])["outcome"] == "succeeded"
    expected = b"".join(b"line %07d\n" % number for number in range(200000))
    log = mainstay.state / "logs" / "writer" / f"{job['run']}.1.log"
    assert log.read_bytes() == expected
    mainstay.wait_for_metric('mainstay_job_output_bytes_total{job_name="writer"}', len(expected))
    assert mainstay.metrics()['mainstay_job_output_dropped_bytes_total{job_name="writer"}'] == 0
    assert mainstay.metrics()['mainstay_adopted_runs_total{outcome="alive"}'] == 1


def test_counters_do_not_go_back_when_the_brain_is_killed(make) -> None:
    mainstay = make("jobs:\n  bad: {shell: 'exit 3', schedule: manual, restart: {when: never}}\n").start()
    series = 'mainstay_job_runs_total{job_name="bad",outcome="failed"}'
    mainstay.run_job("bad")
    mainstay.run_job("bad")
    mainstay.wait_for_metric(series, 2)
    kill_brain(mainstay.keeper_pid)
    assert mainstay.status()["jobs"][0]["last"]["outcome"] == "failed"
    assert mainstay.metrics()[series] == 2
    assert mainstay.metrics()['mainstay_starts_total{reason="crash"}'] == 1


@pytest.mark.parametrize("given", [{}, {"MALLOC_ARENA_MAX": "3"}])
def test_what_is_set_for_the_brain_alone_reaches_no_job_and_what_the_operator_sets_does(
    make, tmp_path: Path, given: dict[str, str]
) -> None:
    config = (
        f"jobs:\n  look: {{shell: 'env > {tmp_path}/seen.tmp; mv {tmp_path}/seen.tmp {tmp_path}/seen; sleep 1000', schedule: service}}\n"
    )
    mainstay = make(config, environment=given).start()
    wait_for((tmp_path / "seen").exists, "the job's environment")
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    assert {name: value for name, value in seen.items() if name.startswith("MALLOC_")} == given
    brain = dict(
        entry.split("=", 1) for entry in read(Path(f"/proc/{brains_of(mainstay.keeper_pid)[0]}/environ")).split("\0") if "=" in entry
    )
    assert brain["MALLOC_ARENA_MAX"] == given.get("MALLOC_ARENA_MAX", "1")
    assert not [name for name in seen if "BRAIN" in name]


def test_the_keepers_death_leaves_nothing_behind_and_the_next_start_says_lost(make) -> None:
    mainstay = make(
        f'jobs:\n  wild:\n    schedule: manual\n    restart: {{when: never}}\n    shell: "{DAEMONIZES} echo up; sleep 1000"\n'
    ).start()
    mainstay.post("/jobs/wild/trigger")
    mainstay.wait_for(lambda: len(mainstay.tree()) >= 3 + 6, "the whole family")
    run = mainstay.job("wild")["runs"][0]["run"]
    os.kill(mainstay.keeper_pid, signal.SIGKILL)
    assert mainstay.process.wait(30) == 70
    assert mainstay.tree() == []
    assert re.search(r"the keeper was killed by signal 9; \d+ processes of its jobs were ended with it", mainstay.log())
    mainstay.start()
    row = mainstay.wait_for_end("wild", run)
    assert row["outcome"] == "lost"
    assert "cannot be known" in row["summary"]
    assert mainstay.metrics()['mainstay_job_runs_total{job_name="wild",outcome="lost"}'] == 1


def restore(mainstay: Mainstay, backup: Path) -> None:
    """What docs/operations.md says under "Restore", word for word."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    block = text.split("**Restore**")[1].split("\n\n")[1]
    assert "history.db" in block, block
    script = "set -eu\n" + block.replace(" var", f" {mainstay.state}").replace("/backup/", f"{backup}/")
    subprocess.run(["sh", "-c", script], check=True, capture_output=True, timeout=60)


def back_up(mainstay: Mainstay, backup: Path) -> None:
    """As sqlite3's ``.backup``, and the jobs' own files."""
    backup.mkdir()
    with (
        contextlib.closing(sqlite3.connect(f"file:{mainstay.state}/history.db?mode=ro", uri=True)) as live,
        contextlib.closing(sqlite3.connect(backup / "history.db")) as copy,
    ):
        live.backup(copy)
    subprocess.run(["tar", "-C", str(mainstay.state), "-czf", str(backup / "mainstay-jobs.tgz"), "jobs"], check=True, timeout=60)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_backup_that_was_made_while_it_ran_is_restored_as_the_docs_tell(make, tmp_path: Path, end: str) -> None:
    mainstay = make("jobs:\n  talker: {schedule: manual, restart: {when: never}, shell: 'seq 500; exit 3'}\n").start()
    before = [mainstay.run_job("talker")["run"] for _ in range(5)]
    back_up(mainstay, tmp_path / "backup")
    for _ in range(25):  # enough that pages of the file move
        mainstay.run_job("talker")
    mainstay.cli("runs")  # opens readers that nobody closes
    if end == "stopped":
        assert mainstay.stop() == 0
        alone = tmp_path / "alone.db"
        shutil.copy(mainstay.state / "history.db", alone)  # the file without its journal
        with contextlib.closing(sqlite3.connect(alone)) as copy:
            assert copy.execute("select count(*) from runs").fetchone() == (30,)
    else:
        for pid in (mainstay.keeper_pid, mainstay.brain_pid, mainstay.guardian_pid):
            with contextlib.suppress(ProcessLookupError):  # the others follow the keeper by themselves
                os.kill(pid, signal.SIGKILL)
        mainstay.process.wait(30)
        mainstay.wait_for(lambda: not mainstay.tree(), "the end of all")
    restore(mainstay, tmp_path / "backup")
    mainstay.start()
    assert sorted(row["run"] for row in mainstay.runs("talker")) == before
    assert mainstay.run_job("talker")["run"] == before[-1] + 1
    assert not mainstay.log_events("history_quarantined")
    assert mainstay.cli("logs", "talker", "-n", "1000").stdout.splitlines() == [str(n) for n in range(1, 501)]


def test_the_guardians_death_is_an_orderly_stop(make) -> None:
    mainstay = make("jobs:\n  svc: {shell: 'sleep 1000 & sleep 1000; true', limits: {time: 1h}}\n").start()
    mainstay.wait_for_state("svc", "running")
    mainstay.process.kill()
    mainstay.wait_for(lambda: not mainstay.tree(), "the end of all")
    assert mainstay.log_events("everything_stopped")
    assert history(mainstay, "select outcome from runs") == [("stopped",)]


@pytest.fixture(scope="module", autouse=True)
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mainstay, int, int]]:
    """A daemon whose brain stands still from the start of this module: what happens next takes ten seconds. (daemon, brain, job)"""
    mainstay = Mainstay(tmp_path_factory.mktemp("frozen"), "jobs:\n  svc: {command: [sleep, '1000'], limits: {time: 1h}}\n")
    try:
        mainstay.start()
        job = mainstay.wait_for_state("svc", "running")
        brain = mainstay.brain_pid
        os.kill(brain, signal.SIGSTOP)
        yield mainstay, brain, job["runs"][0]["pid"]
    finally:
        mainstay.close()


IGNORES = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('up', 'w').close()\nwhile True: time.sleep(1)\n"


def test_sigterm_ends_everything_in_time_even_a_job_that_ignores_it(make) -> None:
    grace = 1
    mainstay = make("{}")
    (mainstay.folder / "ignores.py").write_text(IGNORES)
    mainstay.write_config(
        f"jobs:\n  deaf: {{command: [{sys.executable}, ignores.py], limits: {{time: 1h}}, stop: {{grace: {grace}s}}}}\n"
        f'  wild: {{shell: "{DAEMONIZES} sleep 1000", limits: {{time: 1h}}, stop: {{grace: {grace}s}}}}\n'
        "  meek: {command: [sleep, '1000'], limits: {time: 1h}}\n"
    )
    mainstay.start()
    mainstay.wait_for((mainstay.folder / "up").exists, "the deaf one")
    began = time.monotonic()
    assert mainstay.stop() == 0
    assert time.monotonic() - began < grace + 2
    assert mainstay.tree() == []
    assert sorted(history(mainstay, "select job, outcome from runs")) == [("deaf", "stopped"), ("meek", "stopped"), ("wild", "stopped")]


def test_a_second_mainstay_on_the_same_state_is_refused_and_touches_nothing(make) -> None:
    mainstay = make("jobs:\n  svc: {command: [sleep, '1000'], limits: {time: 1h}}\n").start()
    job = mainstay.wait_for_state("svc", "running")["runs"]
    brain = mainstay.brain_pid
    second = mainstay.cli("run")
    assert second.returncode == 1
    assert re.search(r"^mainstay: another Mainstay \(pid \d+\) runs on \S+; stop that one", second.stderr, re.MULTILINE), second.stderr
    assert f"(pid {mainstay.guardian_pid})" in second.stderr
    assert mainstay.job("svc")["runs"] == job
    assert mainstay.brain_pid == brain


def test_a_stopped_job_that_daemonizes_leaves_nothing(make) -> None:
    mainstay = make(f'jobs:\n  wild: {{shell: "{DAEMONIZES} sleep 1000", limits: {{time: 1h}}}}\n').start()
    mainstay.wait_for(lambda: len(mainstay.tree()) >= 3 + 6, "the whole family")
    stopped = mainstay.cli("stop", "wild")
    assert stopped.returncode == 0
    assert "stopped" in stopped.stdout
    assert sorted(mainstay.tree()) == sorted([mainstay.guardian_pid, mainstay.keeper_pid, mainstay.brain_pid])


def test_what_a_job_leaves_behind_when_it_ends_by_itself_is_ended_too(make) -> None:
    mainstay = make(f'jobs:\n  leaves: {{shell: "{DAEMONIZES} exit 0", schedule: manual}}\n').start()
    assert mainstay.run_job("leaves")["outcome"] == "succeeded"
    assert sorted(mainstay.tree()) == sorted([mainstay.guardian_pid, mainstay.keeper_pid, mainstay.brain_pid])
    assert any("left behind, ended by us" in line for line in mainstay.why("leaves")["evidence"])


def test_sigterm_twice_does_not_wait_for_the_grace(make) -> None:
    mainstay = make("{}")
    (mainstay.folder / "ignores.py").write_text(IGNORES)
    mainstay.write_config(f"jobs:\n  deaf: {{command: [{sys.executable}, ignores.py], limits: {{time: 1h}}, stop: {{grace: 10m}}}}\n")
    mainstay.start()
    mainstay.wait_for((mainstay.folder / "up").exists, "the deaf one")
    mainstay.process.send_signal(signal.SIGTERM)
    mainstay.wait_for(lambda: mainstay.log_events("shutdown_asked"), "the first one is heard")
    assert mainstay.stop() == 0
    assert mainstay.tree() == []


def test_a_brain_that_stands_still_is_replaced_and_its_jobs_go_on(frozen: tuple[Mainstay, int, int]) -> None:
    mainstay, brain, job = frozen
    mainstay.wait_for(lambda: '"brain_silent"' in mainstay.log(), "the keeper notices")
    mainstay.wait_for(lambda: not alive([brain]), "the end of the old brain")
    assert mainstay.brain_pid != brain
    assert [run["pid"] for run in mainstay.job("svc")["runs"]] == [job]
    assert alive([job])
    assert mainstay.metrics()['mainstay_adopted_runs_total{outcome="alive"}'] == 1
