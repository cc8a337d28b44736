"""Incidents: a problem opens once, counts, closes once; and when a person hears of it.

Pure functions over the open incidents of one job. What they return is to be recorded; sending is the outbox's business, and a
notification's key makes asking twice send once. A person is told of an opening when the job has failed ``alerts.after`` times in a row, and
of the end only if told of the beginning. How many are told one by one is ``core.crowd``'s to say.

A bug that comes back within ``REGRESSION_S`` of its end opens a new incident that names the old one and what ended it. One that opened
``FLAP_OPENINGS`` times within ``FLAP_S`` flaps: from then on a good run does not end it, only ``CALM_S`` without a failure.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.evidence import Verdict
from supervisor.core.jobs import AlertPolicy, Job
from supervisor.core.model import Incident, Outcome, RunId, Wall
from supervisor.core.prose import clean, stamp
from supervisor.core.records import Notification, NotificationKind

SCHEMA = 1
LINES_MAX = 20  # evidence in a notification; the dossier has all of it
LINE_MAX = 500
REGRESSION_S = 30 * 86400.0
PAST_KEPT = 20  # bugs of one job that are remembered after their end
FLAP_OPENINGS = 3
FLAP_S = 3600.0
CALM_S = 900.0
OPEN_MAX = 50  # of one job: a job that fails in a new way each time has one problem, not a thousand

Changed = tuple[Incident, ...]
Notifications = tuple[Notification, ...]


class Facts(Struct, frozen=True):
    """What a notification says beyond the incident itself."""

    evidence: Sequence[str] = ()
    did: Sequence[str] = ()
    will: Sequence[str] = ()


class Past(Struct, frozen=True):
    """What is remembered of a bug whose incident is over: the incident, when and why it closed, what is said to have mended it, when it opened lately."""

    fingerprint: str
    incident: int
    closed_at: Wall
    because: str
    fix: str = ""
    openings: tuple[Wall, ...] = ()


def observe(
    open_: Sequence[Incident],
    job: Job,
    verdict: Verdict,
    run: RunId,
    consecutive_failures: int,
    now: Wall,
    next_id: int,
    *,
    did: Sequence[str] = (),
    will: Sequence[str] = (),
    past: Sequence[Past] = (),
) -> tuple[Changed, Notifications, int]:
    """A bad end was judged: its incident counts it or opens. A good end changes nothing here (see ``recover``)."""
    if not verdict.outcome.is_bad:
        return (), (), next_id
    known = next((one for one in open_ if one.fingerprint == verdict.fingerprint and one.closed_at is None), None)
    if known is None and len(open_) >= OPEN_MAX:
        known = max(open_, key=lambda one: one.id)
    if known is None:
        incident = _regression(_opened(job, verdict, run, now, next_id), past)
        next_id += 1
    else:
        incident = replace(known, last_at=max(now, known.last_at), last_run=run, occurrences=known.occurrences + 1)
    if incident.alerted or incident.acknowledged or not job.alerts.to or consecutive_failures < job.alerts.after:
        return (incident,), (), next_id
    told = replace(incident, alerted=True, reminded_at=None if now == incident.opened_at else now)
    again = (f"this came back: {told.regression_note}",) if told.regression_note else ()
    facts = Facts((*again, *verdict.evidence), did, will)
    return (told,), _notify(told, job.alerts, NotificationKind.OPENED, now, facts), next_id


def recover(open_: Sequence[Incident], job: Job, now: Wall, because: str, *, by: str = "", fix: str = "") -> tuple[Changed, Notifications]:
    """The job is well: all its open incidents close. ``by`` and ``fix`` are for a person who says so."""
    changed: list[Incident] = []
    notifications: list[Notification] = []
    for incident in open_:
        if incident.closed_at is not None:
            continue
        closed = replace(incident, closed_at=max(now, incident.opened_at), closed_because=because, closed_by=by, fix=fix)
        changed.append(closed)
        if closed.alerted:
            notifications += _notify(closed, job.alerts, NotificationKind.CLOSED, now, Facts())
    return tuple(changed), tuple(notifications)


def resolve(incident: Incident, job: Job, now: Wall, *, who: str = "", note: str = "", fix: str = "") -> tuple[Changed, Notifications]:
    """A person closes it. Nothing happens to one that is closed already."""
    because = f"{who or 'an operator'} resolved it" + (f": {note}" if note else "")
    return recover((incident,), job, now, because, by=who or "an operator", fix=fix)


def acknowledge(incident: Incident, job: Job, now: Wall, *, who: str = "", note: str = "") -> tuple[Changed, Notifications]:
    """A person knows of it: no more reminders, and no late alert of its opening. Its end is still told to whom its opening was.

    Who comes second changes nothing, unless with a note.
    """
    del job
    if incident.closed_at is not None or (incident.acknowledged and not note):
        return (), ()
    known = replace(incident, acknowledged=True, acknowledged_at=now, acknowledged_by=who or "an operator", acknowledged_note=note)
    return (known,), ()


# ---------------------------------------------------------------- coming back


def remember(past: Sequence[Past], closed: Incident) -> tuple[Past, ...]:
    """*past* with what *closed* was; the latest ``PAST_KEPT`` bugs are kept."""
    before = next((one for one in past if one.fingerprint == closed.fingerprint), None)
    openings = (*(before.openings if before else ()), closed.opened_at)[-FLAP_OPENINGS:]
    others = [one for one in past if one.fingerprint != closed.fingerprint]
    known = Past(closed.fingerprint, closed.id, closed.closed_at or closed.last_at, closed.closed_because or "", closed.fix, openings)
    return (*others, known)[-PAST_KEPT:]


def flaps(incident: Incident, past: Sequence[Past]) -> bool:
    """Whether it had opened so often when it opened that a good run is no end of it."""
    before = next((one for one in past if one.fingerprint == incident.fingerprint), None)
    openings = (*(before.openings if before else ()), incident.opened_at)
    return sum(abs((incident.opened_at - at).total_seconds()) <= FLAP_S for at in openings) >= FLAP_OPENINGS


def held(open_: Sequence[Incident], past: Sequence[Past]) -> Changed:
    """Those that a good run does not end."""
    return tuple(one for one in open_ if one.closed_at is None and flaps(one, past))


def calm_at(well_since: Wall) -> Wall:
    """When a job that flapped is well enough for its incidents to close."""
    return well_since + timedelta(seconds=CALM_S)


def _regression(incident: Incident, past: Sequence[Past]) -> Incident:
    before = next((one for one in past if one.fingerprint == incident.fingerprint), None)
    if before is None or (incident.opened_at - before.closed_at).total_seconds() > REGRESSION_S:
        return incident
    fix = f"; fix: {before.fix}" if before.fix else ""
    note = (
        f"incident {before.incident} was closed at {before.closed_at:%Y-%m-%d %H:%M:%S} UTC because {before.because or 'it was over'}{fix}"
    )
    return replace(incident, regression_of=before.incident, regression_note=clean(note, LINE_MAX))


# ---------------------------------------------------------------- reminders and words


def remind(open_: Sequence[Incident], job: Job, now: Wall) -> tuple[Changed, Notifications]:
    """Say again what has been open for ``alerts.remind`` since it was last said."""
    changed: list[Incident] = []
    notifications: list[Notification] = []
    for incident in open_:
        due = next_reminder(incident, job.alerts)
        if due is not None and due <= now:
            told = replace(incident, reminded_at=now)
            changed.append(told)
            notifications += _notify(told, job.alerts, NotificationKind.REMINDER, now, Facts())
    return tuple(changed), tuple(notifications)


def next_reminder(incident: Incident, alerts: AlertPolicy) -> Wall | None:
    """When the incident is said again; None when it never is."""
    silent = incident.closed_at is not None or incident.acknowledged or not incident.alerted
    if silent or alerts.remind_s is None or not alerts.to:
        return None
    return (incident.reminded_at or incident.opened_at) + timedelta(seconds=alerts.remind_s)


def body(incident: Incident, kind: NotificationKind, facts: Facts, now: Wall) -> str:
    """A notification as JSON text. ``duration_seconds`` is how long it has been open, or was."""
    end = incident.closed_at or max(now, incident.opened_at)
    document: Mapping[str, object] = {
        "schema": SCHEMA,
        "kind": kind.value,
        "incident": incident.id,
        "job": incident.job,
        "outcome": incident.outcome.value,
        "severity": incident.severity,
        "fingerprint": incident.fingerprint,
        "summary": clean(incident.summary),
        "evidence": _lines(facts.evidence),
        "did": _lines(facts.did),
        "will": _lines(facts.will),
        "opened_at": stamp(incident.opened_at),
        "last_at": stamp(incident.last_at),
        "closed_at": None if incident.closed_at is None else stamp(incident.closed_at),
        "closed_because": incident.closed_because,
        "closed_by": incident.closed_by,
        "fix": incident.fix,
        "acknowledged_by": incident.acknowledged_by,
        "acknowledged_note": incident.acknowledged_note,
        "regression_of": incident.regression_of,
        "regression_note": incident.regression_note,
        "occurrences": incident.occurrences,
        "run": incident.run,
        "last_run": incident.last_run,
        "duration_seconds": max(0.0, (end - incident.opened_at).total_seconds()),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _opened(job: Job, verdict: Verdict, run: RunId, now: Wall, id_: int) -> Incident:
    return Incident(
        id=id_,
        job=job.name,
        fingerprint=verdict.fingerprint,
        outcome=Outcome(verdict.outcome),
        summary=verdict.summary,
        severity=job.alerts.severity,
        opened_at=now,
        last_at=now,
        run=run,
        last_run=run,
    )


def _notify(incident: Incident, alerts: AlertPolicy, kind: NotificationKind, now: Wall, facts: Facts) -> Notifications:
    """One notification per receiver; the time of a reminder keeps its key apart from the last one's."""
    text = body(incident, kind, facts, now)
    nth = f"/{stamp(now)}" if kind is NotificationKind.REMINDER else ""
    return tuple(
        Notification(f"{incident.id}/{kind.value}{nth}/{receiver}", receiver, kind, incident.id, now, text)
        for receiver in dict.fromkeys(alerts.to)
    )


def _lines(lines: Sequence[str]) -> list[str]:
    return [clean(line, LINE_MAX) for line in lines[:LINES_MAX]]
