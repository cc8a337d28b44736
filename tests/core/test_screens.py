"""The screen of ``why`` for every outcome, as text in ``screens/``: what a tired person gets to read.

``MAINSTAY_GOLDEN=write pytest tests/core/test_screens.py`` writes them anew; read the difference before you keep it.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisor.core.dossier import Occasion, make_report
from supervisor.core.evidence import (
    Breach,
    BusyLine,
    Evidence,
    ExceptionFacts,
    Exit,
    Frame,
    LastWords,
    Look,
    MemoryType,
    Pace,
    Progress,
    Stack,
    Study,
    Verdict,
    Waiting,
)
from supervisor.core.explain import LINES_MAX, WIDTH, screen
from supervisor.core.jobs import Expect, Limits
from supervisor.core.model import Incident, LimitName, Outcome
from supervisor.core.outcome import fingerprint_of, judge

FOLDER = Path(__file__).parent / "screens"
T0 = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)
WALK, VISIT = Frame("walk", "/srv/app/tree.py", 14), Frame("visit", "/srv/app/tree.py", 20)
LOAD = Frame("load", "/srv/app/users.py", 31)
SPOKE = LastWords(spoke=True, python="3.11.7", finalized=False)
MIB = 2**20


def killed(limit, measured, line, **more):
    facts = Exit(signal=9, killed_for=limit.value, cpu_s=0.8, max_rss_bytes=31 * MIB)
    return Evidence(facts, more.pop("words", SPOKE), breach=Breach(limit, measured, line), **({"duration_s": 3.2} | more))


def raised(name, message, **more):
    error = ExceptionFacts(name, message, (Frame("<module>", "/srv/app/main.py", 3), LOAD), 2, **more)
    return Evidence(Exit(code=1, max_rss_bytes=12 * MIB, cpu_s=0.1), replace(SPOKE, exception=error, finalized=True), duration_s=0.4)


HANG = Look(
    stacks=(Stack(71, (Frame("acquire", "/usr/lib/python3.11/threading.py", 320), LOAD), 2),),
    depth=2,
    waiting="waiting for a lock",
    threads=(Waiting(70, 71, "waiting for a lock"), Waiting(70, 72, "reading from a socket")),
)
CASES = {
    Outcome.SUCCEEDED: Evidence(Exit(code=0), SPOKE, duration_s=12.5),
    Outcome.FAILED: Evidence(Exit(code=3), duration_s=0.2),
    Outcome.EXCEPTION: raised("KeyError", "'ada'", chain=("ValueError: invalid literal for int(): 'x'",)),
    Outcome.RECURSION: killed(
        LimitName.RECURSION, 52_560, 400, look=Look(stacks=(Stack(1, (WALK, VISIT) * 200, 52_560),), depth=52_560, recursion_limit=10**9)
    ),
    Outcome.MEMORY: killed(
        LimitName.MEMORY,
        530 * MIB,
        512 * MIB,
        memory_peak_bytes=530 * MIB,
        memory_curve=tuple((float(n), n * n * 150_000) for n in range(60)),
        words=replace(SPOKE, memory_types=(MemoryType("dict", 1_200_000, 300 * MIB), MemoryType("str", 4_000_000, 200 * MIB))),
        look=Look(stacks=(Stack(1, (LOAD,), 1),), depth=1),
    ),
    Outcome.TIME: killed(LimitName.TIME, 120.0, 120.0, look=HANG, duration_s=120.0),
    Outcome.CPU: killed(
        LimitName.CPU, 90.0, 90.0, study=Study(Pace.BUSY, 12, 6.0, 1.0, busy=(BusyLine(LOAD, 11, 12), BusyLine(VISIT, 1, 12, in_c=True)))
    ),
    Outcome.STALLED: killed(LimitName.STALL, 30.0, 30.0, look=HANG, progress=Progress("user-7", 6, 10, "loading")),
    Outcome.PROCESSES: killed(LimitName.PROCESSES, 33, 16, processes_peak=33),
    Outcome.OUTPUT: killed(LimitName.OUTPUT, 70 * MIB, 64 * MIB),
    Outcome.CRASHED: Evidence(Exit(signal=11), replace(SPOKE, fatal_signal="Segmentation fault", fatal_frames=(LOAD,)), duration_s=1.0),
    Outcome.SIGNALLED: Evidence(Exit(signal=9), SPOKE, duration_s=50.0),
    Outcome.HOST_OOM: Evidence(Exit(signal=9, oom_kills=0), SPOKE, host_oom_kills=1, memory_peak_bytes=100 * MIB, duration_s=9.0),
    Outcome.WORKER_LOST: replace(
        killed(LimitName.TIME, 120.0, 120.0, duration_s=120.0), exit=Exit(signal=9, killed_for="time", oom_kills=1)
    ),
    Outcome.UNMET: Evidence(Exit(code=0), SPOKE, records=0, duration_s=0.5),
    Outcome.LAUNCH_FAILED: Evidence(Exit(launch_error="cannot execute /srv/app/run: No such file or directory")),
    Outcome.STOPPED: Evidence(Exit(signal=15, asked_to_stop=True), SPOKE, duration_s=600.0),
    Outcome.LOST: Evidence(Exit()),
}
CHANGES = {
    "since_run": 807,
    "since": "2026-02-28T03:30:12.000Z",
    "items": [
        {"kind": "commit", "what": "git commit", "was": "3f2a91c0d4e5 (main)", "now": "81bb0c7712aa (main)"},
        {"kind": "code", "what": "/srv/app/users.py", "was": "aa", "now": "bb"},
        {"kind": "package", "what": "requests", "was": "2.31.0", "now": "2.32.0"},
        {"kind": "config", "what": "limits.memory", "was": "512MiB", "now": "256MiB"},
        {"kind": "input", "what": "/srv/data/users.csv", "was": "4,000 bytes of 2026-02-28 03:00", "now": "9,000,000 bytes of 2026-03-01 03:00"},
    ],
    "more": 0,
    "note": "",
}  # fmt: skip


def report_of(outcome):
    """A report with everything that such an end has."""
    evidence = CASES[outcome]
    limits = Limits(recursion_frames=400, time_s=120.0, cpu_s=90.0, stall_s=30.0, processes=16, output_bytes=64 * MIB)
    verdict = judge(limits, Expect(records_at_least=1 if outcome is Outcome.UNMET else None), evidence)
    if outcome is Outcome.LOST:
        why = "both halves of Mainstay died, and the job with them"
        verdict = Verdict(Outcome.LOST, f"how it ended cannot be known: {why}", evidence=(why,))
    verdict = replace(verdict, fingerprint=fingerprint_of("nightly", verdict, evidence))
    end = T0 + timedelta(seconds=evidence.duration_s)
    occasion = Occasion("nightly", 812, 2, T0, end, limits, output="loading\n\x1b[31mwalking\n", changes=CHANGES)
    bad = verdict.outcome.is_bad
    incident = Incident(9, "nightly", verdict.fingerprint, verdict.outcome, "s", "critical", T0, T0, 812, 812)
    if outcome is Outcome.EXCEPTION:
        note = "incident 4 was closed at 2026-02-20 09:00:00 UTC because ada resolved it; fix: 3f2a91c"
        incident = replace(incident, regression_of=4, regression_note=note)
    parked = "nothing more: the job is parked (budget_spent) until `mainstay start nightly`"
    will = (
        [parked if outcome is Outcome.CRASHED else "start attempt 3 in 2s"]
        if bad
        else ["run it again at its next fire time, 2026-03-02 03:30:00 UTC"]
    )
    kept = ["kept its output and reports"] if outcome is not Outcome.LAUNCH_FAILED else []
    did = [*kept, "opened incident 9; an alert goes to ops"] if bad else []
    return make_report(occasion, verdict, evidence, did=did, will=will, incident=incident if bad else None)


@pytest.mark.parametrize("outcome", Outcome)
def test_the_screen_of_each_outcome_is_what_was_agreed(outcome):
    report = report_of(outcome)
    assert report["outcome"] == outcome.value
    text = screen(report)
    lines = text.splitlines()
    assert len(lines) <= LINES_MAX
    assert max(map(len, lines)) <= WIDTH
    path = FOLDER / f"{outcome.value}.txt"
    if os.environ.get("MAINSTAY_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.is_bad])
def test_every_bad_end_says_what_follows_and_how_to_override_it(outcome):
    text = screen(report_of(outcome))
    assert "\nWhat it does next\n" in text
    assert "\nHow to override\n" in text
    assert "mainstay incident 9 --ack" in text
