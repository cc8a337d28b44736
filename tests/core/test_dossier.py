"""The dossier: its form, its size, and what of the job's own data it may hold."""

import base64
import json
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.dossier import BYTES_MAX, OUTPUT_MAX, Occasion, encode, fit, make_report
from supervisor.core.dossierform import FIELDS, schema
from supervisor.core.evidence import Breach, Cycle, CycleKind, Evidence, ExceptionFacts, Exit, Frame, Look, Progress, Stack, Verdict
from supervisor.core.jobs import DossierPolicy, Expect, Limits
from supervisor.core.model import Incident, LimitName, Outcome
from supervisor.core.outcome import judge

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
A, B = Frame("walk", "/srv/app/tree.py", 14), Frame("visit", "/srv/app/tree.py", 20)
FORM = jsonschema.Draft202012Validator(schema())
RUNAWAY = Evidence(
    Exit(signal=9, killed_for="recursion", cpu_s=0.8, max_rss_bytes=31 * 2**20, output_bytes=12),
    breach=Breach(LimitName.RECURSION, 52_560, 400),
    look=Look(stacks=(Stack(1, (A, B) * 200, 52_560),), depth=52_560, recursion_limit=10**9),
    depth_peak=50_000,
    duration_s=3.2,
    progress=Progress("user-7", 6, 10, "walking"),
    records=6,
    processes_peak=2,
)


def occasion(**more):
    ended = T0 + timedelta(seconds=3.2)
    return Occasion("user-metrics", 812, 2, T0, ended, **({"limits": Limits(recursion_frames=400)} | more))


def runaway(**more):
    return make_report(
        occasion(**more), judge(Limits(recursion_frames=400), Expect(), RUNAWAY), RUNAWAY, did=["killed it"], will=["nothing"]
    )


def limit(report, name):
    (found,) = (one for one in report["limits"] if one["limit"] == name)
    return found


def test_the_schema_is_a_schema_and_a_report_has_exactly_its_keys():
    jsonschema.Draft202012Validator.check_schema(schema())
    report = runaway()
    assert list(report) == list(FIELDS)
    assert json.loads(encode(report)) == report
    FORM.validate(report)
    assert report["cycle"] == {
        "frames": [
            {"function": "visit", "file": "/srv/app/tree.py", "line": 20},
            {"function": "walk", "file": "/srv/app/tree.py", "line": 14},
        ],
        "depth": 52_560,
        "kind": "frames",
        "notes": [],
    }
    assert (report["outcome"], report["limit"], report["signal"], report["exit_code"]) == ("recursion", "recursion", 9, None)
    assert (report["started_at"], report["ended_at"]) == ("2026-03-01T12:00:00.000Z", "2026-03-01T12:00:03.200Z")
    assert report["progress"] == {"record": "user-7", "records": 6, "done": 6, "total": 10, "stage": "walking"}
    assert len(report["stacks"][0]["frames"]) == 200


def test_every_limit_stands_there_with_its_peak_and_which_struck():
    report = runaway(limits=Limits(recursion_frames=400, processes=16, stall_s=30.0))
    assert [one["limit"] for one in report["limits"] if one["struck"]] == ["recursion"]
    assert limit(report, "recursion") == {"limit": "recursion", "line": 400, "peak": 52_560, "unit": "frames", "struck": True}
    assert limit(report, "memory") == {"limit": "memory", "line": 512 * 2**20, "peak": 31 * 2**20, "unit": "bytes", "struck": False}
    assert limit(report, "processes")["peak"] == 2
    assert limit(report, "stall") == {"limit": "stall", "line": 30.0, "peak": None, "unit": "seconds", "struck": False}
    assert limit(report, "cpu")["line"] is None


def test_what_is_not_known_is_null_and_not_missing():
    report = make_report(occasion(), Verdict(Outcome.LOST, "How it ended cannot be known."), Evidence(Exit()))
    FORM.validate(report)
    unknown = ("limit", "exit_code", "signal", "cycle", "exception", "incident", "regression_of", "progress", "environment", "changed")
    assert {report[key] for key in unknown} == {None}
    assert (report["stacks"], report["evidence"], report["output_raw_base64"]) == ([], [], None)


def test_output_is_escaped_and_its_bytes_are_kept():
    wrote = b"done \xff\x1b[2J\r\n\tcaf\xc3\xa9\n"
    report = runaway(output=wrote.decode(errors="surrogateescape"))
    assert report["output_tail"] == "done \\xff\\x1b[2J\n\tcafé\n"
    assert base64.b64decode(report["output_raw_base64"]) == wrote
    assert runaway(output="all is well\n")["output_raw_base64"] is None


def test_a_program_whose_name_is_no_utf_8_has_it_spelled_out():
    report = make_report(Occasion("p\udcfe.sh" * 100, 0, 1, T0, T0), Verdict(Outcome.FAILED, "It ended."), Evidence(Exit(code=3)))
    FORM.validate(report)
    assert json.loads(encode(report).encode())["job"].startswith("p\\udcfe.sh")
    assert len(report["job"]) < 1000


def test_the_config_keeps_a_jobs_own_data_out():
    error = ExceptionFacts("ValueError", "no such user: ada@example.org", (A,), 1, chain=("KeyError: 'ada@example.org'",))
    verdict = Verdict(Outcome.EXCEPTION, "ValueError at walk (tree.py:14).", exception=error)
    quiet = occasion(output="ada@example.org\n", policy=DossierPolicy(output=False, messages=False))
    report = make_report(quiet, verdict, Evidence(Exit(code=1)))
    assert "ada" not in encode(report)
    assert (report["exception"]["type"], report["exception"]["chain"]) == ("ValueError", ["KeyError"])
    assert report["left_out"] == ["output", "messages"]
    assert "ada" in encode(make_report(occasion(output="ada\n"), verdict, Evidence(Exit(code=1))))


def test_an_output_that_nobody_looked_at_is_left_out_and_not_nothing():
    report = make_report(occasion(output_seen=False), Verdict(Outcome.FAILED, "It ended."), Evidence(Exit(code=3)))
    FORM.validate(report)
    assert (report["output_tail"], report["output_bytes"], report["left_out"]) == ("", 0, ["output", "output_bytes"])
    assert limit(report, "output")["peak"] is None
    seen = make_report(occasion(), Verdict(Outcome.FAILED, "It ended."), Evidence(Exit(code=3)))
    assert (limit(seen, "output")["peak"], seen["left_out"]) == (0, [])


def test_the_incident_and_what_it_came_back_from_are_named():
    again = Incident(9, "j", "f", Outcome.FAILED, "s", "critical", T0, T0, 1, 1, regression_of=4, regression_note="closed: fixed in 3f2a")
    report = make_report(occasion(), Verdict(Outcome.FAILED, "It ended."), Evidence(Exit(code=1)), incident=again)
    assert (report["incident"], report["regression_of"], report["regression_note"]) == (9, 4, "closed: fixed in 3f2a")


# ---------------------------------------------------------------- hostile evidence

_big = st.text(min_size=1, max_size=40).map(lambda text: text * 400)
_texts = st.one_of(st.text(max_size=60), _big)
_frames = st.lists(st.builds(Frame, _texts, _texts, st.integers(0, 10**9)), min_size=1, max_size=4).map(lambda few: tuple(few) * 100)
_hostile = st.builds(
    Verdict,
    st.sampled_from(Outcome),
    _texts,
    st.none() | st.sampled_from(LimitName),
    st.lists(_texts, max_size=60).map(tuple),
    st.none() | st.builds(Cycle, _frames, st.integers(0, 10**9), st.sampled_from(CycleKind), st.lists(_texts, max_size=30).map(tuple)),
    st.none() | st.builds(ExceptionFacts, _texts, _texts, _frames, st.integers(0, 10**9), chain=st.lists(_texts, max_size=30).map(tuple)),
    st.lists(st.builds(Stack, st.integers(0, 2**40), _frames, st.integers(0, 10**9)), max_size=3).map(lambda few: tuple(few) * 20),
)


@settings(max_examples=60, deadline=None)
@given(
    verdict=_hostile,
    output=st.binary(max_size=64).map(lambda data: (data * 512)[:OUTPUT_MAX]),
    lines=st.lists(_texts, max_size=50),
    changes=st.none()
    | st.lists(_big, max_size=50).map(lambda items: {"since_run": 1, "since": None, "items": [], "more": 0, "note": "".join(items)}),
)
def test_whatever_a_job_does_the_dossier_has_its_form_and_its_size(verdict, output, lines, changes):
    evidence = Evidence(Exit(signal=11), progress=Progress("k" * 5000, 1, 2, "s" * 5000))
    where = occasion(output=output.decode(errors="surrogateescape"), changes=changes, surroundings={"host": "h"})
    report = make_report(where, verdict, evidence, did=lines, will=lines)
    FORM.validate(report)
    assert len(encode(report).encode()) <= BYTES_MAX
    assert list(report) == list(FIELDS)
    assert report["output_tail"].replace("\n", "").replace("\t", "").isprintable()


def test_a_dossier_that_is_too_long_loses_its_stacks_before_its_cycle():
    wide = tuple(Frame(f"f{n}" * 60, "/srv/" + "x" * 250, n) for n in range(200))
    verdict = judge(Limits(recursion_frames=400), Expect(), RUNAWAY)
    full = make_report(occasion(), verdict, RUNAWAY)
    report = make_report(occasion(), Verdict(Outcome.RECURSION, "s", cycle=verdict.cycle, stacks=(Stack(1, wide, 200),) * 32), RUNAWAY)
    assert report["left_out"] == ["stacks"]
    assert len(report["stacks"]) == 8
    assert report["cycle"] == full["cycle"]
    assert fit(full) == full


@pytest.mark.parametrize("outcome", Outcome)
def test_the_form_knows_every_outcome(outcome):
    FORM.validate(make_report(occasion(), Verdict(outcome, "s"), Evidence(Exit(code=0))))
