"""Incidents: opened once, told once, closed once; and what a notification says."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.evidence import Verdict
from supervisor.core.incidents import Facts, acknowledge, body, next_reminder, observe, recover, remind, resolve
from supervisor.core.jobs import AlertPolicy, Job, Launch
from supervisor.core.model import Outcome
from supervisor.core.records import NotificationKind

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BAD = Verdict(Outcome.RECURSION, "a → b → a", evidence=("guard: RecursionError, 1,001 levels deep",), fingerprint="aaaaaaaaaaaa")
OTHER = Verdict(Outcome.FAILED, "It ended with exit code 1.", fingerprint="bbbbbbbbbbbb")
GOOD = Verdict(Outcome.SUCCEEDED, "It succeeded.", fingerprint="cccccccccccc")


def job(**alerts):
    return Job("nightly", Launch(("true",), "/"), alerts=AlertPolicy(**({"to": ("ops", "mail")} | alerts)))


def at(minutes):
    return T0 + timedelta(minutes=minutes)


def opened(policy=None, failures=1):
    changed, told, _ = observe((), policy or job(), BAD, 7, failures, T0, 1)
    return changed[0], told


def test_the_first_failure_opens_and_tells_every_receiver():
    incident, told = opened()
    assert (incident.id, incident.job, incident.fingerprint, incident.run, incident.occurrences) == (1, "nightly", "aaaaaaaaaaaa", 7, 1)
    assert incident.alerted
    assert [(one.key, one.receiver, one.kind) for one in told] == [
        ("1/opened/ops", "ops", NotificationKind.OPENED),
        ("1/opened/mail", "mail", NotificationKind.OPENED),
    ]


def test_the_same_bug_counts_and_tells_nobody_again():
    incident, _ = opened()
    changed, told, next_id = observe((incident,), job(), BAD, 8, 2, at(5), 2)
    assert (changed[0].occurrences, changed[0].last_run, changed[0].run, changed[0].last_at) == (2, 8, 7, at(5))
    assert (told, next_id) == ((), 2)


def test_another_bug_opens_another_incident():
    incident, _ = opened()
    changed, told, next_id = observe((incident,), job(), OTHER, 8, 2, at(5), 2)
    assert (changed[0].id, changed[0].fingerprint, next_id, len(told)) == (2, "bbbbbbbbbbbb", 3, 2)


def test_a_success_is_no_observation():
    assert observe((), job(), GOOD, 8, 0, T0, 5) == ((), (), 5)


def test_an_alert_waits_for_the_nth_failure_in_a_row_and_then_comes_once():
    policy, incident, counts = job(after=3), None, []
    for nth in range(1, 6):
        changed, told, _ = observe((incident,) if incident else (), policy, BAD, nth, nth, at(nth), 1)
        incident = changed[0]
        counts.append(len(told))
    assert counts == [0, 0, 2, 0, 0]


def test_the_end_is_told_only_to_whom_the_beginning_was():
    for failures, notifications in ((1, 0), (3, 2)):
        incident, _ = opened(job(after=3), failures)
        changed, told = recover((incident,), job(after=3), at(9), "run 9 succeeded")
        assert (changed[0].closed_at, changed[0].closed_because) == (at(9), "run 9 succeeded")
        assert len(told) == notifications
    assert told[0].key == "1/closed/ops"


def test_without_receivers_nobody_is_told_and_nothing_is_marked_as_told():
    incident, told = opened(job(to=()))
    assert (incident.alerted, told) == (False, ())


def test_reminders_come_in_their_interval_each_under_its_own_key():
    policy = job(to=("ops",), remind_s=3600)
    incident, _ = opened(policy)
    assert next_reminder(incident, policy.alerts) == at(60)
    assert remind((incident,), policy, at(59)) == ((), ())
    (incident,), first = remind((incident,), policy, at(61))
    assert next_reminder(incident, policy.alerts) == at(121)
    (incident,), second = remind((incident,), policy, at(125))
    assert [one.key for one in (*first, *second)] == [
        "1/reminder/2026-03-01T13:01:00.000Z/ops",
        "1/reminder/2026-03-01T14:05:00.000Z/ops",
    ]


def test_a_late_alert_is_not_followed_by_a_reminder_at_once():
    policy = job(after=2, remind_s=3600)
    incident, _ = opened(policy)
    (incident,), told, _ = observe((incident,), policy, BAD, 8, 2, at(50), 2)
    assert len(told) == 2
    assert next_reminder(incident, policy.alerts) == at(110)


def test_an_acknowledged_incident_is_silent_until_its_end():
    policy = job(after=2, remind_s=60)
    incident, _ = opened(job(after=1, remind_s=60))
    ((known,), told) = acknowledge(incident, policy, at(1))
    assert (known.acknowledged, told) == (True, ())
    assert acknowledge(known, policy, at(2)) == ((), ())
    assert remind((known,), policy, at(999)) == ((), ())
    assert len(recover((known,), policy, at(1000), "run 9 succeeded")[1]) == 2
    quiet, _ = opened(policy)
    (quiet,), _ = acknowledge(quiet, policy, at(1))
    assert observe((quiet,), policy, BAD, 8, 2, at(5), 2)[1] == ()


def test_an_operator_closes_an_incident_once():
    incident, _ = opened()
    (closed,), told = resolve(incident, job(), at(3), who="ada", note="the disk was full", fix="3f2a91c")
    assert (closed.closed_because, closed.closed_by, closed.fix) == ("ada resolved it: the disk was full", "ada", "3f2a91c")
    assert len(told) == 2
    assert resolve(incident, job(), at(3))[0][0].closed_because == "an operator resolved it"
    assert resolve(closed, job(), at(4)) == ((), ())
    assert acknowledge(closed, job(), at(4)) == ((), ())


def test_the_same_bug_after_its_end_is_a_new_incident():
    incident, _ = opened()
    (closed,), _ = resolve(incident, job(), at(3))
    changed, told, next_id = observe((closed,), job(), BAD, 9, 1, at(4), 2)
    assert (changed[0].id, len(told), next_id) == (2, 2, 3)


def test_a_notification_says_what_happened_and_what_is_being_done():
    changed, told, _ = observe((), job(), BAD, 7, 1, T0, 1, did=("killed it",), will=("start attempt 2 in 1s",))
    document = json.loads(told[0].body)
    assert document == {
        "schema": 1,
        "kind": "opened",
        "incident": 1,
        "job": "nightly",
        "outcome": "recursion",
        "severity": "critical",
        "fingerprint": "aaaaaaaaaaaa",
        "summary": "a → b → a",
        "evidence": ["guard: RecursionError, 1,001 levels deep"],
        "did": ["killed it"],
        "will": ["start attempt 2 in 1s"],
        "opened_at": "2026-03-01T12:00:00.000Z",
        "last_at": "2026-03-01T12:00:00.000Z",
        "closed_at": None,
        "closed_because": None,
        "closed_by": "",
        "fix": "",
        "acknowledged_by": "",
        "acknowledged_note": "",
        "regression_of": None,
        "regression_note": "",
        "occurrences": 1,
        "run": 7,
        "last_run": 7,
        "duration_seconds": 0.0,
    }
    (closed,), told = recover(changed, job(), at(90), "run 9 succeeded")
    assert json.loads(told[0].body)["duration_seconds"] == 5400.0
    assert closed.closed_at == at(90)


@given(lines=st.lists(st.text(max_size=900), max_size=40), summary=st.text(max_size=4000))
def test_a_notification_is_bounded_and_printable_whatever_the_job_wrote(lines, summary):
    incident, _ = opened()
    text = body(incident, NotificationKind.OPENED, Facts(evidence=lines, will=lines), T0)
    text.encode("utf-8")
    document = json.loads(text)
    assert len(document["evidence"]) <= 20
    assert all(line.isprintable() for line in document["evidence"])


class Ledger:
    """What the engine does with the answers: keeps the open ones, counts what was sent."""

    def __init__(self, policy):
        self.job, self.known, self.next_id, self.keys, self.closings = policy, {}, 1, [], []

    @property
    def open(self):
        return tuple(one for one in self.known.values() if one.closed_at is None)

    def take(self, changed, told):
        for incident in changed:
            if incident.closed_at is not None:
                self.closings.append(incident.id)
            self.known[incident.id] = incident
        self.keys += [one.key for one in told]


events = st.lists(
    st.tuples(st.sampled_from(["bad", "bad", "other", "good", "remind", "ack", "resolve"]), st.integers(-300, 300)), max_size=40
)


@pytest.mark.parametrize("after", [1, 3])
@given(history=events)
def test_no_incident_closes_twice_or_alerts_twice_however_the_clock_jumps(after, history):
    ledger, failures, now = Ledger(job(after=after, remind_s=3600)), 0, T0
    for run, (what, minutes) in enumerate(history):
        now += timedelta(minutes=minutes)
        if what in ("bad", "other"):
            failures += 1
            verdict = BAD if what == "bad" else OTHER
            changed, told, ledger.next_id = observe(ledger.open, ledger.job, verdict, run, failures, now, ledger.next_id)
            ledger.take(changed, told)
        elif what == "good":
            failures = 0
            ledger.take(*recover(ledger.open, ledger.job, now, "it succeeded"))
        elif what == "remind":
            ledger.take(*remind(ledger.open, ledger.job, now))
        else:
            for incident in ledger.open[:1]:
                ledger.take(*(acknowledge if what == "ack" else resolve)(incident, ledger.job, now))
        prints = [one.fingerprint for one in ledger.open]
        assert len(prints) == len(set(prints))  # one open incident per bug
    assert len(ledger.closings) == len(set(ledger.closings))
    lasting = [key for key in ledger.keys if "/reminder/" not in key]
    assert len(lasting) == len(set(lasting))
    for incident in ledger.known.values():
        told = {kind: f"{incident.id}/{kind}/ops" in ledger.keys for kind in ("opened", "closed")}
        assert told["opened"] == incident.alerted
        assert told["closed"] == (incident.alerted and incident.closed_at is not None)
        assert incident.closed_at is None or incident.closed_at >= incident.opened_at
