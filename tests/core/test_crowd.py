"""Many problems at once, and problems that come and go: how much of it a person hears, and that nothing is said twice or forgotten."""

import json
from collections import Counter
from datetime import timedelta

import pytest
from fakes import T0, FakeClock, MemoryStore
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import Play, ended, job, started, wish

from supervisor.core import engine, incidents
from supervisor.core.actions import Record, TellGathered, TellIncident
from supervisor.core.crowd import BURST, EVERYONE, FIRST_S, MEMO, TIRING, Crowd, admit, receiver_of, summarize
from supervisor.core.events import Due, IncidentWish, SummariesDue
from supervisor.core.jobs import AlertPolicy
from supervisor.core.model import Incident, Outcome
from supervisor.core.records import JobMemo, Notification, NotificationKind
from supervisor.core.state import Memo


def at(seconds):
    return T0 + timedelta(seconds=seconds)


class Fleet:
    """Many manual jobs of one engine that fail and recover as told, and every row that was written of them."""

    def __init__(self, count, **alerts):
        policy = AlertPolicy(**({"to": ("ops",)} | alerts))
        self.jobs = {f"job-{n:04}": job(f"job-{n:04}", manual=True, when="never", alerts=policy) for n in range(count)}
        self.clock, self.store, self.gathered, self.tells = FakeClock(), MemoryStore(), 0, Counter()
        self.sent = []
        self.boot()

    def boot(self):
        """The next brain, from what the last one wrote."""
        texts = self.store.memos()
        crowd = Crowd.decode(texts.pop(MEMO, "{}"))
        memos = {name: Memo.decode(text) for name, text in texts.items()}
        open_ = {}
        for one in self.store.open_incidents():
            open_[one.job] = (*open_.get(one.job, ()), one)
        view = engine.KeeperView("epoch", "boot", {})
        self._take(engine.restore(self.jobs, memos, open_, self.store.next_ids(), view, self.clock.now(), crowd))

    def step(self, event):
        real = event.at(self.clock) if hasattr(event, "at") and not hasattr(event, "pid") else event
        self._take(engine.step(self.state, real, self.clock.now()))

    def _take(self, result):
        self.state = result.state
        self.answer = result.answer
        for action in result.actions:
            if isinstance(action, Record):
                self.sent += [row for row in action.rows if isinstance(row, Notification) and row.key not in self.store.outbox]
                self.store.apply(action.rows)
            self.gathered += isinstance(action, TellGathered)
            if isinstance(action, TellIncident):
                self.tells[action.what] += 1

    def end(self, name, code):
        self.step(wish("trigger", name))
        run = self.state.jobs[name].memo.runs[0].id
        self.step(started(run, 1, name))
        self.step(ended(run, 1, name, code=code))

    def wait(self, seconds):
        self.clock.advance(seconds)
        for name in self.jobs:
            self.step(Due(name))
        self.step(SummariesDue())

    def said(self, kind):
        return [one for one in self.sent if one.kind.value == kind]


def test_a_thousand_jobs_that_fail_at_once_are_ten_alerts_and_one_summary_and_so_is_their_end():
    fleet = Fleet(1000)
    for name in fleet.jobs:
        fleet.end(name, 1)
    assert len(fleet.said("opened")) == BURST
    assert fleet.gathered == 990
    fleet.wait(FIRST_S)
    *_, summary = fleet.said("opened")
    assert len(fleet.sent) == BURST + 1
    body = json.loads(summary.body)
    assert (body["job"], body["occurrences"], body["severity"], body["outcome"]) == (EVERYONE, 990, "critical", "failed")
    assert body["summary"].startswith("990 more incidents of 990 jobs opened at about the same time: job-0010, job-0011, ")
    assert body["summary"].endswith(" and 970 more")
    assert body["evidence"] == ["failed: 990"]
    assert len(summary.body) < 2000
    counts = Counter(one.job for one in fleet.store.open_incidents())
    assert counts == {**dict.fromkeys(fleet.jobs, 1), EVERYONE: 1}

    for name in fleet.jobs:
        fleet.end(name, 0)
    fleet.wait(3600)
    closed = fleet.said("closed")
    assert len(closed) == BURST + 1
    assert json.loads(closed[-1].body)["closed_because"] == "all of them are over"
    assert closed[-1].incident == summary.incident
    assert fleet.store.open_incidents() == []
    assert not fleet.state.summaries
    assert fleet.state.crowd.due_at() is None


def test_a_hundred_jobs_with_the_same_bug_are_one_incident_each_and_no_storm():
    fleet = Fleet(100)
    for _ in range(3):
        for name in fleet.jobs:
            fleet.end(name, 7)
        fleet.wait(60)
    incidents_ = [one for one in fleet.store.open_incidents() if one.job != EVERYONE]
    assert Counter(one.job for one in incidents_) == dict.fromkeys(fleet.jobs, 1)
    assert {one.occurrences for one in incidents_} == {3}
    assert [one.kind.value for one in fleet.sent] == ["opened"] * (BURST + 1)


def test_a_crash_loop_of_a_thousand_is_one_incident_one_fingerprint_and_one_alert():
    fleet = Fleet(1)
    for _ in range(1000):
        fleet.end("job-0000", 3)
        fleet.wait(10)
    (incident,) = fleet.store.open_incidents()
    assert (incident.occurrences, len(fleet.sent)) == (1000, 1)
    assert len({json.loads(row.report)["fingerprint"] for row in fleet.store.attempts.values()}) == 1


def test_the_next_brain_neither_repeats_nor_forgets():
    fleet = Fleet(40)
    for number, name in enumerate(fleet.jobs):
        fleet.end(name, 1)
        if number % 7 == 0:
            fleet.boot()
    fleet.boot()
    assert len(fleet.sent) == BURST
    fleet.wait(FIRST_S)
    fleet.boot()
    fleet.wait(FIRST_S)
    assert len(fleet.said("opened")) == BURST + 1
    assert json.loads(fleet.sent[-1].body)["occurrences"] == 30
    for name in fleet.jobs:
        fleet.end(name, 0)
    fleet.boot()
    fleet.wait(3600)
    assert len(fleet.said("closed")) == BURST + 1
    fleet.boot()
    fleet.wait(3600)
    assert len(fleet.sent) == 2 * BURST + 2


def test_a_summary_is_told_again_when_there_are_more_but_ever_more_rarely():
    fleet = Fleet(600)
    names = iter(fleet.jobs)
    for _ in range(120):  # two hours, five new problems a minute
        for _ in range(5):
            fleet.end(next(names), 1)
        fleet.clock.advance(60)
        fleet.step(SummariesDue())
    summaries = [one for one in fleet.sent if json.loads(one.body)["job"] == EVERYONE]
    assert [one.kind for one in summaries[:1]] == [NotificationKind.OPENED]
    assert len(summaries) <= 6
    assert len(fleet.said("opened")) <= 2 * TIRING + 1


def test_the_end_of_a_summary_tells_of_as_many_as_there_were_and_a_reminder_of_those_that_are_left():
    fleet = Fleet(30, remind_s=7200.0)
    names = list(fleet.jobs)
    for name in names:
        fleet.end(name, 1)
    fleet.wait(FIRST_S)
    for name in names[:-4]:
        fleet.end(name, 0)
    fleet.wait(7200)
    fleet.wait(600)
    fleet.boot()
    for name in names[-4:]:
        fleet.end(name, 0)
    fleet.wait(600)
    bodies = [json.loads(one.body) for one in fleet.sent]
    told = [(body["kind"], body["occurrences"], body["summary"].partition(" opened")[0]) for body in bodies if body["job"] == EVERYONE]
    many, few = (20, "20 more incidents of 20 jobs"), (4, "4 more incidents of 4 jobs")
    assert told == [("opened", *many), ("reminder", *few), ("closed", *many)]


def test_what_is_over_before_its_summary_is_counted_and_not_told():
    fleet = Fleet(12)
    for name in fleet.jobs:
        fleet.end(name, 1)
    for name in fleet.jobs:
        fleet.end(name, 0)
    fleet.wait(FIRST_S)
    assert fleet.gathered == 2
    assert Counter(one.kind.value for one in fleet.sent) == {"opened": BURST, "closed": BURST}


def test_who_acknowledges_or_resolves_a_summary_speaks_of_all_that_is_in_it():
    fleet = Fleet(25, remind_s=60.0)
    for name in fleet.jobs:
        fleet.end(name, 1)
    fleet.wait(FIRST_S)
    number = fleet.sent[-1].incident
    fleet.step(IncidentWish(number, resolve=False, who="ada", note="on it"))
    assert fleet.answer.text == f"summary {number}: 15 incidents are acknowledged"
    assert Counter(one.acknowledged_by for one in fleet.store.open_incidents()) == {"ada": 16, "": 10}
    fleet.boot()
    fleet.step(IncidentWish(number, resolve=True, who="ada", fix="4711"))
    assert fleet.answer.text == f"summary {number}: 15 incidents are closed"
    fleet.wait(3600)
    assert {one.fix for one in fleet.store.incidents.values() if one.closed_at and one.job != EVERYONE} == {"4711"}
    assert not fleet.state.summaries
    assert [one.kind.value for one in fleet.sent if one.incident == number] == ["opened", "closed"]


def test_reminders_of_many_are_one():
    fleet = Fleet(60, remind_s=7200.0)
    for name in fleet.jobs:
        fleet.end(name, 1)
    fleet.wait(FIRST_S)
    before = len(fleet.sent)
    fleet.wait(7200)
    fleet.wait(600)
    reminders = fleet.sent[before:]
    assert {one.kind for one in reminders} == {NotificationKind.REMINDER}
    assert sum(json.loads(one.body)["job"] == EVERYONE for one in reminders) == 1
    assert len(reminders) == BURST + 1


def test_each_receiver_is_counted_for_itself():
    crowd, opened = Crowd(), []
    for n in range(15):
        incident = Incident(n, f"j{n}", "f", Outcome.FAILED, "s", "warning", T0, T0, 1, 1, alerted=True)
        to = ("ops", "mail") if n < 12 else ("mail",)
        asked = [Notification(f"{n}/opened/{name}", name, NotificationKind.OPENED, n, T0, "{}") for name in to]
        made = admit(crowd, [incident], asked, T0)
        crowd, opened = made.crowd, [*opened, *made.incidents]
    assert Counter(name for one in opened for name in one.gathered) == {"ops": 2, "mail": 5}
    made = summarize(crowd, opened, {}, at(FIRST_S), 100)
    assert {(receiver_of(one), one.occurrences, one.severity) for one in made.summaries} == {("ops", 2, "warning"), ("mail", 5, "warning")}
    assert Crowd.decode(made.crowd.encode()) == made.crowd


# ---------------------------------------------------------------- flapping, and bugs that come back


def test_a_bug_that_comes_back_names_the_incident_before_and_what_ended_it():
    fleet = Fleet(1)
    fleet.end("job-0000", 1)
    (first,) = fleet.store.open_incidents()
    fleet.step(IncidentWish(first.id, resolve=True, who="ada", note="deployed", fix="commit 3f2a91c"))
    fleet.wait(3 * 86400)
    fleet.boot()
    fleet.end("job-0000", 1)
    (again,) = fleet.store.open_incidents()
    note = "incident 1 was closed at 2026-03-02 00:00:00 UTC because ada resolved it: deployed; fix: commit 3f2a91c"
    assert (again.regression_of, again.regression_note) == (first.id, note)
    body = json.loads(fleet.said("opened")[-1].body)
    assert body["evidence"][0] == f"this came back: {note}"
    assert json.loads(fleet.store.attempts[2, 1].report)["regression_of"] == first.id
    fleet.end("job-0000", 0)
    fleet.wait(31 * 86400)
    fleet.end("job-0000", 1)
    assert fleet.store.open_incidents()[0].regression_of is None
    fleet.end("job-0000", 2)  # another bug
    assert {one.regression_of for one in fleet.store.open_incidents()} == {None}


def test_an_incident_that_flaps_stays_open_until_the_job_has_been_calm():
    fleet = Fleet(1)
    for _ in range(60):  # fails and succeeds every other minute
        fleet.end("job-0000", 1)
        fleet.wait(60)
        fleet.end("job-0000", 0)
        fleet.wait(60)
    assert Counter(one.kind.value for one in fleet.sent) == {"opened": 3, "closed": 2}
    (held,) = fleet.store.open_incidents()
    assert held.occurrences == 58
    assert fleet.tells["held"] == 58
    fleet.boot()
    fleet.wait(incidents.CALM_S)
    assert Counter(one.kind.value for one in fleet.sent) == {"opened": 3, "closed": 3}
    assert json.loads(fleet.sent[-1].body)["closed_because"] == "it has been well for 15m"
    assert json.loads(fleet.sent[-1].body)["occurrences"] == 58
    assert fleet.store.open_incidents() == []


def test_a_service_that_flaps_is_not_looked_at_for_ever():
    play = Play(job(stable=60, budget=(1000, 600)))
    now, attempt = 0, 1
    for _ in range(4):
        play.at(now).when(started(1, attempt))
        now += 61
        play.at(now).when(Due("job"))
        now += 1
        play.at(now).when(ended(1, attempt, code=1, lived=62))
        now += 1
        play.at(now).when(Due("job"))
        attempt += 1
    play.at(now).when(started(1, attempt))
    now += 61
    play.at(now).when(Due("job")).expect("incident 3 held", state="running", wait=900)
    play.at(now + 900).when(Due("job"))
    assert play.lines[-1] == "incident 3 closed"
    assert play.wait is None


_deeds = st.lists(
    st.tuples(st.sampled_from(["fail", "fail", "good", "wait", "boot", "resolve"]), st.integers(0, 24), st.integers(0, 400)), max_size=60
)


@pytest.mark.parametrize("remind_s", [None, 600.0])
@settings(max_examples=25, deadline=None)
@given(deeds=_deeds)
def test_whatever_happens_each_end_has_its_beginning_and_the_volume_is_bounded(remind_s, deeds):
    fleet = Fleet(25, remind_s=remind_s)
    names = list(fleet.jobs)
    hours = 1.0
    for what, which, seconds in deeds:
        if what in ("fail", "good"):
            fleet.end(names[which], int(what == "fail"))
        elif what == "wait":
            fleet.wait(seconds)
            hours += seconds / 3600
        elif what == "boot":
            fleet.boot()
        elif fleet.store.open_incidents():
            open_ = fleet.store.open_incidents()
            fleet.step(IncidentWish(open_[which % len(open_)].id, resolve=True, who="ada"))
    for name in names:
        fleet.end(name, 0)
    fleet.wait(4000)
    fleet.wait(4000)
    assert fleet.store.open_incidents() == []
    opened = {one.incident for one in fleet.said("opened")}
    closed = Counter(one.incident for one in fleet.said("closed"))
    assert opened == closed.keys()
    assert set(closed.values()) <= {1}
    assert len(opened) <= (hours + 1) * (TIRING + 60)
    first = {}
    for one in fleet.sent:
        first.setdefault(one.incident, one.kind.value)
    assert set(first.values()) <= {"opened"}


def test_a_clock_that_is_set_back_does_not_silence_a_receiver():
    fleet = Fleet(30)
    for name in list(fleet.jobs)[:12]:
        fleet.end(name, 1)
    fleet.clock.set_wall(T0 - timedelta(days=365))
    for name in list(fleet.jobs)[12:15]:
        fleet.end(name, 1)
    assert len(fleet.said("opened")) == BURST + 3
    fleet.end(list(fleet.jobs)[15], 1)
    fleet.step(SummariesDue())
    assert fleet.state.crowd.due_at() is not None


def test_memos_of_the_crowd_are_no_jobs():
    fleet = Fleet(12)
    for name in fleet.jobs:
        fleet.end(name, 1)
    assert isinstance(fleet.store.texts[MEMO], str)
    assert EVERYONE not in fleet.state.jobs
    assert replace(fleet.state).crowd == Crowd.decode(fleet.store.texts[MEMO])
    assert JobMemo(MEMO, "{}").text == "{}"
