"""What goes out when: held in a silence, told after it, escalated, acknowledged; over every kind of history and every death of the brain."""

import json
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from playbook import DUE, IncidentWish, Play, changed, ended, job, reload, started

from supervisor.core import dispatch, silences
from supervisor.core.actions import Record
from supervisor.core.dispatch import HELD_MAX, Desk
from supervisor.core.events import SilenceWish
from supervisor.core.jobs import AlertPolicy, Cron, Escalation, Every, Window
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.state import Memo

LOUD = AlertPolicy(to=("ops", "mail"), remind_s=3600, escalate=Escalation(1800, ("boss", "ops")))
ONCE = AlertPolicy(to=("ops",))
HUSH, SPEAK = SilenceWish("job", 7200.0, "moving house"), SilenceWish("job", None)


def failing(alerts=ONCE, **rest):
    return Play(job(manual=True, when="never", alerts=alerts, **rest))


def fails(play, seconds, code=1, run=1):
    """A run that is asked for and ends badly at once."""
    from playbook import wish

    return play.at(seconds).when(wish("trigger"), started(run), ended(run, code=code))


def told(play):
    return [line for line in play.lines if line.startswith("notify")]


def notes(play):
    return [row for action in play.last.actions if isinstance(action, Record) for row in action.rows if isinstance(row, Notification)]


# ---------------------------------------------------------------- silences


def test_an_incident_in_a_silence_is_recorded_and_nobody_is_told():
    play = failing().at(0).when(HUSH)
    play.says("nobody is alerted about job until 2026-03-02 02:00:00 UTC; `mainstay silence job --expire` ends it")
    fails(play, 60)
    assert told(play) == []
    assert "incident 1 opened" in play.lines
    assert [incident.id for incident in play.job_state().incidents] == [1]
    assert play.wait == 7140, "the end of the silence is waited for"


def test_an_incident_that_is_open_when_its_silence_ends_is_told_then_with_its_evidence():
    play = failing().at(0).when(HUSH)
    fails(play, 60)
    play.at(7199).when(DUE).expect()
    play.at(7200).when(DUE).expect("notify opened ops", "incident 1 told_late")
    (note,) = notes(play)
    body = json.loads(note.body)
    assert (note.key, note.created_at, body["kind"]) == ("1/opened/ops", play.clock.wall, "opened")
    assert body["evidence"]
    assert body["duration_seconds"] == 7140.0
    play.at(7300).when(DUE).expect()


def test_an_incident_that_ends_in_its_silence_is_told_to_nobody():
    play = failing().at(0).when(HUSH)
    fails(play, 60)
    fails(play, 120, code=0, run=2)
    assert "incident 1 closed" in play.lines
    assert told(play) == []
    play.at(9999).when(DUE).expect(wait=None)


def test_the_end_of_an_incident_told_before_the_silence_is_told_in_it():
    play = failing()
    fails(play, 60)
    play.at(70).when(HUSH)
    fails(play, 80, code=0, run=2)
    assert told(play) == ["notify closed ops"]


def test_a_silence_holds_reminders_and_escalations_back():
    play = failing(LOUD)
    fails(play, 0)
    play.at(10).when(HUSH)
    play.at(3600).when(DUE).expect()
    play.at(7210).when(DUE)
    assert told(play) == ["notify reminder ops", "notify reminder mail", "notify escalated boss", "notify escalated ops"]


def test_expiring_a_silence_tells_at_once_what_waited():
    play = failing().at(0).when(HUSH)
    fails(play, 60)
    play.at(90).when(SPEAK).expect("notify opened ops", "incident 1 told_late").says("job is no longer silenced")
    play.at(91).when(SPEAK).says("job is not silenced", ok=False)


def test_what_is_acknowledged_in_a_silence_is_never_told():
    play = failing().at(0).when(HUSH)
    fails(play, 60)
    play.at(70).when(IncidentWish(1, resolve=False)).expect("incident 1 acknowledged")
    play.at(7200).when(DUE).expect()
    fails(play, 7300, code=0, run=2)
    assert told(play) == []


def test_a_second_silence_prolongs_the_first():
    play = failing().at(0).when(HUSH)
    fails(play, 60)
    play.at(3600).when(HUSH)
    play.at(7200).when(DUE).expect(wait=3600)
    play.at(10800).when(DUE).expect("notify opened ops", "incident 1 told_late")


def test_an_alert_that_comes_later_than_the_silence_is_not_held():
    play = failing(AlertPolicy(to=("ops",), after=2)).at(0).when(HUSH)
    fails(play, 60)
    play.at(7200).when(DUE).expect()
    fails(play, 7300, run=2)
    assert told(play) == ["notify opened ops"]


def test_a_maintenance_window_holds_back_and_its_removal_tells():
    hourly = Window("hourly", Every(3600.0), 1800.0)
    play = failing(maintenance=(hourly,))
    fails(play, 60)
    assert told(play) == []
    assert play.wait == 1740
    calm = changed(play.jobs["job"], maintenance=())
    play.at(70).when(reload(calm)).expect("notify opened ops", "incident 1 told_late")


def test_a_window_that_follows_the_silence_goes_on_holding():
    play = failing(maintenance=(Window("later", Cron("0 2 * * *"), 3600.0),)).at(0).when(HUSH)  # the play begins at midnight
    fails(play, 60)
    play.at(7200).when(DUE).expect(wait=3600)
    play.at(10800).when(DUE).expect("notify opened ops", "incident 1 told_late")


def test_the_evidence_of_a_crowd_of_held_incidents_is_bounded_and_none_is_lost():
    desk = Desk(silences=silences.added((), Play().clock.wall, 60, ""))
    play = failing().at(0).when(HUSH)
    fails(play, 1)
    incident, now = play.job_state().incidents[0], play.clock.wall
    body = json.dumps({"evidence": ["x" * 1000] * 100, "summary": "s"})
    for number in range(3 * HELD_MAX):
        note = Notification(f"{number}/opened/ops", "ops", NotificationKind.OPENED, number, now, body)
        desk, out = dispatch.route(desk, job(), (), (note,), now)
        assert out == ()
    assert sum(len(held.body) for held in desk.held) < HELD_MAX * 2000
    crowd = tuple(replace(incident, id=number) for number in range(3 * HELD_MAX))
    desk, out, words = dispatch.due(desk, job(), crowd, now + timedelta(seconds=61))
    assert [note.incident for note in out] == list(range(3 * HELD_MAX))
    assert len(words) == 3 * HELD_MAX
    assert all(json.loads(note.body)["summary"] for note in out)


# ---------------------------------------------------------------- escalation


def test_what_nobody_acknowledges_is_escalated_once():
    play = failing(LOUD)
    fails(play, 0)
    assert told(play) == ["notify opened ops", "notify opened mail"]
    assert play.wait == 1800
    play.at(1800).when(DUE).expect("notify escalated boss", "notify escalated ops", "incident 1 escalated")
    assert {json.loads(note.body)["kind"] for note in notes(play)} == {"escalated"}
    assert all(json.loads(note.body)["evidence"] for note in notes(play))
    play.at(3599).when(DUE).expect()


def test_what_is_acknowledged_is_not_escalated():
    play = failing(LOUD)
    fails(play, 0)
    play.at(60).when(IncidentWish(1, resolve=False))
    assert told(play) == ["notify acknowledged ops", "notify acknowledged mail"]
    play.at(9999).when(DUE).expect(wait=None)


def test_those_who_heard_by_escalation_hear_of_the_acknowledgement_and_of_the_end():
    play = failing(LOUD)
    fails(play, 0)
    play.at(1800).when(DUE)
    play.at(1900).when(IncidentWish(1, resolve=False))
    assert told(play) == ["notify acknowledged ops", "notify acknowledged mail", "notify acknowledged boss"]
    fails(play, 2000, code=0, run=2)
    assert told(play) == ["notify closed ops", "notify closed mail", "notify closed boss"]
    assert {json.loads(note.body)["closed_because"] for note in notes(play)} == {"run 2 succeeded"}


def test_a_drill_is_marked_in_every_word_of_it():
    play = failing(LOUD, drill=True)
    play.at(0).when(HUSH)
    fails(play, 1)
    play.at(2).when(SPEAK)
    seen = notes(play)
    play.at(1802).when(DUE)
    seen += notes(play)
    play.at(1803).when(IncidentWish(1, resolve=False))
    seen += notes(play)
    play.at(1804).when(IncidentWish(1, resolve=True))
    seen += notes(play)
    assert [note.kind.value for note in seen] == ["opened"] * 2 + ["escalated"] * 2 + ["acknowledged"] * 3 + ["closed"] * 3
    assert all(json.loads(note.body)["drill"] is True for note in seen)


# ---------------------------------------------------------------- any history

MOMENT = st.tuples(
    st.sampled_from(["fail 1", "fail 2", "fail 3", "succeed", "silence", "expire", "ack", "resolve", "wait", "wait"]),
    st.integers(1, 4000),
    st.booleans(),
)


@settings(max_examples=150)
@given(st.lists(MOMENT, max_size=25), st.integers(1, 3))
def test_over_any_history_nobody_hears_in_a_silence_or_of_an_end_without_a_beginning(moments, after):
    """An independent book of who heard what; with and without a new brain before each step it must come out the same."""
    play = failing(replace(LOUD, after=after))
    now, run, quiet_until = 0, 0, -1
    heard: dict[tuple[int, str], list[str]] = {}
    for what, seconds, new_brain in moments:
        for at in (*range(now + 600, now + seconds, 600), now + seconds):  # the daemon looks at least this often
            if new_brain:
                state = play.job_state()
                fresh = replace(state, memo=Memo.decode(state.memo.encode()))
                play.state = replace(play.state, jobs={**play.state.jobs, "job": fresh})
            step(play.at(at), DUE, quiet=at < quiet_until, heard=heard)
        now += seconds
        quiet = now < quiet_until
        open_ = play.job_state().incidents
        match what.split():
            case ["fail", code]:
                run += 1
                fails_and_books(play, run, int(code), quiet=quiet, heard=heard)
            case ["succeed"]:
                run += 1
                fails_and_books(play, run, 0, quiet=quiet, heard=heard)
            case ["silence"]:
                step(play, SilenceWish("job", 5000.0), quiet=True, heard=heard)
                quiet_until = max(quiet_until, now + 5000)
            case ["expire"]:
                quiet_until = min(quiet_until, now)
                step(play, SPEAK, quiet=False, heard=heard)
            case ["ack" | "resolve" as wish_]:
                if open_:
                    step(play, IncidentWish(open_[0].id, resolve=wish_ == "resolve"), quiet=quiet, heard=heard)
    for later in (10**6, 2 * 10**6):
        step(play.at(now + later), DUE, quiet=False, heard=heard)
    for incident in play.job_state().incidents:
        if incident.alerted and not incident.acknowledged:
            assert "opened" in heard[(incident.id, "ops")], "told when nothing holds it any more"
            assert "escalated" in heard[(incident.id, "boss")]
    open_ids = {incident.id for incident in play.job_state().incidents}
    for (incident_id, _), kinds in heard.items():
        assert ("closed" in kinds) == (incident_id not in open_ids), "who heard of the beginning hears of the end"


def fails_and_books(play, run, code, *, quiet, heard):
    from playbook import wish

    for event in (wish("trigger"), started(run), ended(run, code=code)):
        step(play, event, quiet=quiet, heard=heard)


def step(play, event, *, quiet, heard):
    play.when(event)
    for note in notes(play):
        kind, book = note.kind.value, heard.setdefault((note.incident, note.receiver), [])
        if kind in ("opened", "reminder", "escalated"):
            assert not quiet, f"{kind} in a silence"
        else:
            assert book, f"{kind} without a beginning"
        assert "closed" not in book
        assert kind == "reminder" or kind not in book, f"{kind} twice"
        book.append(kind)
        assert json.loads(note.body)["kind"] == kind
