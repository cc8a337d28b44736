"""The dossier's keys, and the screen that is read at night."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import supervisor
from supervisor.core import heal
from supervisor.core.cells import cells
from supervisor.core.dossier import Occasion, make_report
from supervisor.core.dossierform import FIELDS
from supervisor.core.evidence import Breach, Cycle, Evidence, ExceptionFacts, Exit, Frame, Look, Stack, Verdict
from supervisor.core.explain import LINEAGE_MOST, LINES_MAX, SHORTAGES, WIDTH, one_line, override, screen
from supervisor.core.jobs import Expect, Limits
from supervisor.core.model import LimitName, Outcome
from supervisor.core.outcome import judge
from supervisor.core.prose import about_duration, about_size, clean, counted, signal_name

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
A, B = Frame("walk", "/srv/app/tree.py", 14), Frame("visit", "/srv/app/tree.py", 20)
RUNAWAY = Evidence(
    Exit(signal=9, killed_for="recursion", cpu_s=0.8, max_rss_bytes=31 * 2**20),
    breach=Breach(LimitName.RECURSION, 52_560, 400),
    look=Look(stacks=(Stack(1, (A, B) * 200, 52_560),), depth=52_560, recursion_limit=10**9),
    depth_peak=52_560,
    duration_s=3.2,
)


def report_of(verdict, evidence, tail="", did=("killed it",), will=("start attempt 2 in 1s",), incident=4):
    ended = T0 + timedelta(seconds=3.2)
    occasion = Occasion("user-metrics", 812, 2, T0, ended, Limits(recursion_frames=400), output=tail, containment={"memory": "poll"})
    return {**make_report(occasion, verdict, evidence, did=did, will=will), "incident": incident}


def runaway(tail="loading\nwalking\n"):
    return report_of(judge(Limits(recursion_frames=400), Expect(), RUNAWAY), RUNAWAY, tail)


def test_a_report_in_one_line():
    assert one_line(runaway()) == (
        "user-metrics run 812: recursion: Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), "
        "52,560 levels deep, over the limit of 400; it was killed after 3.2s."
    )


def test_a_script_that_started_itself_is_let_go_deeper_by_the_guard_and_not_by_a_limit():
    report = report_of(Verdict(Outcome.RECURSION, "again.py started itself.", LimitName.PROCESSES), Evidence(Exit(code=79)))
    assert override(report)[0] == "if the job is right and the line is wrong: set MAINSTAY_LINEAGE_MAX in its environment (12)"
    source = (Path(supervisor.__file__).parent / "guard/site/_mainstay_guard/lineage.py").read_text()
    assert f"\nMOST = {LINEAGE_MOST} " in source


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (errno.ENOSPC, "no room on the disk: "),
        (errno.EDQUOT, "the disk quota is used up: "),
        (errno.EMFILE, "no file descriptors left: "),
        (errno.ENFILE, "no file descriptors left: "),
        (errno.EAGAIN, "no processes left: "),
        (errno.ENOMEM, "the host was short of memory: "),
        (errno.ENOENT, "mend the command, its user or its directory in the config"),
    ],
)
def test_a_launch_that_the_host_had_no_room_for_is_not_the_commands_fault(code, mend):
    evidence = Evidence(Exit(launch_error=f"cannot make the folders of run 3.1 in /var/lib/mainstay: {os.strerror(code)}"))
    (hint, *_) = override(report_of(judge(Limits(), Expect(), evidence), evidence))
    assert hint.startswith(mend)


def test_what_heal_lays_on_the_host_has_a_mend_of_its_own():
    assert sorted(heal._HOST_LAUNCH.pattern.split("|")) == sorted(SHORTAGES)


def test_nothing_is_proposed_that_would_be_refused():
    report = runaway() | {"can_start": False, "incident_open": False}
    assert override(report)[1:] == ["to have it run again: put it into the config, enabled, then: mainstay reload"]
    assert "What it does next\n  - nothing: the job is disabled, or no longer in the config\n" in screen(report)


def test_a_success_needs_no_override():
    assert override(report_of(Verdict(Outcome.SUCCEEDED, "It succeeded."), Evidence(Exit(code=0)))) == []


def test_a_command_without_a_daemon_is_not_told_to_ask_one():
    report = report_of(judge(Limits(recursion_frames=400), Expect(), RUNAWAY), RUNAWAY, will=())
    assert override(report) == ["if the job is right and the line is wrong: raise limits.recursion in the config (exec: --recursion)"]


def test_what_the_job_wrote_cannot_move_the_cursor_or_forge_a_line():
    hostile = "\x1b[2J\x1b]8;;http://x\x07click\r\nEvidence\n\u202etxt.exe\x00\x9b31m"
    text = screen(runaway(hostile))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "  | \\x1b[2J\\x1b]8;;http://x\\x07click\n  | Evidence\n  | \\u202etxt.exe\\x00\\x9b31m\n" in text


def test_of_an_output_that_is_too_long_for_the_screen_the_end_stays_where_the_error_is():
    report = runaway("\n".join(f"line {n}" for n in range(1, 20)) + "\nRecursionError: maximum recursion depth exceeded\n")
    deeds = [f"deed {n}" for n in range(4)]
    text = screen({**report, "evidence": [f"fact {n}" for n in range(12)], "did": deeds, "changed": {"note": "nothing"}})
    assert len(text.splitlines()) <= LINES_MAX
    shown = text.partition("Last output\n")[2].partition("\n\n")[0].splitlines()
    assert shown[0].startswith("  … ")
    assert shown[0].endswith(" lines before, in the report (--json)")
    assert shown[-2:] == ["  | line 19", "  | RecursionError: maximum recursion depth exceeded"]


def test_wide_characters_are_counted_by_the_cells_that_they_take():
    wide = Frame("界" * 50, "/srv/app/" + "字" * 60 + ".py", 3)
    verdict = Verdict(Outcome.TIME, "It went round " + "界" * 90, LimitName.TIME, stacks=(Stack(1, (wide,) * 9, 9),))
    lines = screen(report_of(verdict, Evidence(Exit(signal=9)), tail="漢" * 200, will=["e\u0301" * 120])).splitlines()
    assert max(map(cells, lines)) == WIDTH
    assert f"  | {'漢' * 47}…" in lines
    assert "  - " + "e\u0301" * 96 in lines


texts = st.text(max_size=300)
any_frames = st.lists(st.builds(Frame, texts, texts, st.integers(0, 10**6)), max_size=12).map(tuple)
verdicts = st.builds(
    Verdict,
    st.sampled_from(Outcome),
    st.text(max_size=3000),
    st.one_of(st.none(), st.sampled_from(LimitName)),
    st.lists(texts, max_size=15).map(tuple),
    st.one_of(st.none(), st.builds(Cycle, any_frames, st.integers(0, 10**7), notes=st.lists(texts, max_size=9).map(tuple))),
    st.one_of(st.none(), st.builds(ExceptionFacts, texts, texts, any_frames, st.integers(0, 99))),
    st.lists(st.builds(Stack, st.integers(0, 9), any_frames, st.integers(0, 10**6)), max_size=3).map(tuple),
)
lists = st.lists(st.text(max_size=600), max_size=8)


@given(verdict=verdicts, tail=st.text(max_size=2000), did=lists, will=lists)
def test_any_report_fits_on_one_screen(verdict, tail, did, will):
    text = screen(report_of(verdict, Evidence(Exit(signal=11)), tail, did, will))
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) <= LINES_MAX
    assert max(map(cells, lines)) <= WIDTH
    assert all(line.isprintable() for line in lines)
    assert "\n" not in one_line(report_of(verdict, Evidence(Exit()), tail, did, will))


@given(
    document=st.dictionaries(
        st.sampled_from(sorted(FIELDS)), st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda x: st.lists(x, max_size=3))
    )
)
def test_a_report_from_another_version_is_shown_as_far_as_it_goes(document):
    assert len(screen(document).splitlines()) <= LINES_MAX
    assert one_line(document)


def test_figures_are_as_exact_as_they_matter():
    assert [about_size(size) for size in (0, 1000, 1024, 327_575_142, 1023.99 * 2**20, 5 * 2**40, 2**60)] == [
        "0B", "1000B", "1KiB", "312.4MiB", "1GiB", "5TiB", "1048576TiB",
    ]  # fmt: skip
    assert [about_duration(seconds) for seconds in (0, 0.0314, 3.21, 59.96, 61.4, 3600 * 2.004, 90_061, -1, 1e12)] == [
        "0s", "31ms", "3.2s", "1m", "1m1s", "2h", "1d1h1m", "0s", "3660d",
    ]  # fmt: skip
    assert [counted(1, "level"), counted(1001, "level"), counted(2, "process", "processes")] == ["1 level", "1,001 levels", "2 processes"]
    assert [signal_name(9), signal_name(35), signal_name(99)] == ["SIGKILL", "SIGRTMIN+1", "signal 99"]
    assert clean("a\tb\ud800" + "x" * 50, 10) == "a\\tb\\ud800xxxxx…"
