"""Between what the incidents want to say and what goes out: held back while nobody is to be alerted, said afterwards, escalated, taken back.

    incidents ──▶ route ──▶ outbox          quiet: a first word is held, a reminder is left out; an end always reaches who heard of the beginning
                    │  ▲
                  held  └── due ◀── the end of the quiet, an escalation's moment

Everything is remembered with the job, so a brain that dies in a silence changes nothing. Notifications of one incident keep their order.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core import escalation, incidents, silences
from supervisor.core.escalation import Told
from supervisor.core.jobs import Job
from supervisor.core.model import Incident, Wall
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.silences import Silence

HELD_MAX: Final = 20  # incidents of one job whose evidence waits with their first word; of more than these only the summary is kept
LINES_KEPT: Final = 8  # evidence that is kept with a word that waits
CHARS_KEPT: Final = 200

Notifications = tuple[Notification, ...]


class Held(Struct, frozen=True):
    """A first word about an incident that waits for the end of the quiet: for whom, and its body, shortened.

    For nobody once somebody has acknowledged it: then its end is told to nobody, either.
    """

    incident: int
    to: tuple[str, ...]
    body: str = ""


class Word(Struct, frozen=True):
    """What was said about an incident by itself, for the log: ``what`` is told_late or escalated."""

    incident: Incident
    what: str
    count: int


class Desk(Struct, frozen=True):
    """What one job's dispatch remembers. ``look_at``: when the quiet that holds something back is over, as far as was known."""

    silences: tuple[Silence, ...] = ()
    held: tuple[Held, ...] = ()
    told: tuple[Told, ...] = ()
    look_at: Wall | None = None


NOTHING: Final = Desk()


def route(desk: Desk, job: Job, changed: Iterable[Incident], wanted: Notifications, now: Wall) -> tuple[Desk, Notifications]:
    """The desk after *wanted* came in with the *changed* incidents, and what goes out of it now."""
    quiet = silences.quiet(job, desk.silences, now) if wanted else None
    out: list[Notification] = []
    for notification in wanted:
        match notification.kind:
            case NotificationKind.CLOSED:
                if not _is_held(desk, notification.incident):
                    out.append(notification)
            case NotificationKind.REMINDER:
                if quiet is None and not _is_held(desk, notification.incident):
                    out.append(notification)
            case _ if quiet is not None:
                desk = replace(_hold(desk, notification), look_at=quiet.until)
            case _:
                desk = _note(desk, notification, now)
                out.append(notification)
    for incident in changed:
        desk, more = _follow(desk, incident, out, now)
        out += more
    return desk, tuple(_marked(one, job) for one in out)


def due(desk: Desk, job: Job, open_: tuple[Incident, ...], now: Wall) -> tuple[Desk, Notifications, tuple[Word, ...]]:
    """What has become due by itself: first words after a quiet, and escalations; the desk after it, and words for the log."""
    if desk.silences:
        desk = replace(desk, silences=silences.standing(desk.silences, now))
    waits = any(held.to for held in desk.held) or escalation.due(open_, desk.told, job.alerts, now)
    quiet = silences.quiet(job, desk.silences, now) if waits else None
    if not waits or quiet is not None:
        return _look_at(desk, quiet.until if quiet else None), (), ()
    out: list[Notification] = []
    words: list[Word] = []
    by_id = {incident.id: incident for incident in open_}
    for held in desk.held:
        incident = by_id.get(held.incident)
        if incident is not None and held.to:
            body = _renewed(held.body, NotificationKind.OPENED, incident, now)
            out += [_notification(incident, NotificationKind.OPENED, receiver, body, now) for receiver in held.to]
            words.append(Word(incident, "told_late", len(held.to)))
    for notification in out:
        desk = _note(desk, notification, now)
    desk = replace(desk, held=tuple(held for held in desk.held if not held.to), look_at=None)
    for incident, told in escalation.due(open_, desk.told, job.alerts, now):
        desk, more = _escalate(desk, job, incident, told, now)
        out += more
        words.append(Word(incident, "escalated", len(more)))
    return desk, tuple(_marked(one, job) for one in out), tuple(words)


def next_look(desk: Desk, job: Job, open_: tuple[Incident, ...]) -> Wall | None:
    """When ``due`` may have something to do; None when only an event can change that."""
    told = {one.incident: one for one in desk.told}
    moments = [at for one in open_ if one.id in told and (at := escalation.due_at(one, told[one.id], job.alerts)) is not None]
    if desk.look_at is not None:
        moments = [max(moment, desk.look_at) for moment in moments]
        moments += [desk.look_at] if any(held.to for held in desk.held) else []
    return min(moments, default=None)


# ---------------------------------------------------------------- parts


def _look_at(desk: Desk, at: Wall | None) -> Desk:
    return desk if desk.look_at == at else replace(desk, look_at=at)


def _is_held(desk: Desk, incident: int) -> bool:
    return any(held.incident == incident for held in desk.held)


def _hold(desk: Desk, notification: Notification) -> Desk:
    """One entry per incident: its receivers are added up, the latest words count."""
    others = tuple(held for held in desk.held if held.incident != notification.incident)
    before = next((held for held in desk.held if held.incident == notification.incident), Held(notification.incident, ()))
    body = _shortened(notification.body) if len(others) < HELD_MAX else ""
    return replace(desk, held=(*others, Held(before.incident, tuple(dict.fromkeys((*before.to, notification.receiver))), body)))


def _note(desk: Desk, notification: Notification, now: Wall) -> Desk:
    before = next((told for told in desk.told if told.incident == notification.incident), None)
    if before is None:
        told = Told(notification.incident, now, (notification.receiver,), _shortened(notification.body))
        return replace(desk, told=(*desk.told, told))
    return _put(desk, replace(before, to=tuple(dict.fromkeys((*before.to, notification.receiver)))))


def _put(desk: Desk, told: Told) -> Desk:
    return replace(desk, told=tuple(told if one.incident == told.incident else one for one in desk.told))


def _follow(desk: Desk, incident: Incident, out: list[Notification], now: Wall) -> tuple[Desk, list[Notification]]:
    """What a change of *incident* means for who was told, and for what is held; *out* is what goes out about it anyway."""
    told = next((one for one in desk.told if one.incident == incident.id), None)
    if incident.closed_at is not None:
        desk = replace(desk, held=tuple(held for held in desk.held if held.incident != incident.id))
    elif incident.acknowledged:
        desk = replace(desk, held=tuple(Held(held.incident, ()) if held.incident == incident.id else held for held in desk.held))
    if told is None:
        return desk, []
    if incident.closed_at is not None:
        reached = {one.receiver for one in out if one.incident == incident.id and one.kind is NotificationKind.CLOSED}
        body = _renewed(told.body, NotificationKind.CLOSED, incident, now)
        left = [one for one in told.to if one not in reached]
        more = [_notification(incident, NotificationKind.CLOSED, receiver, body, now) for receiver in left]
        return replace(desk, told=tuple(one for one in desk.told if one.incident != incident.id)), more
    if incident.acknowledged and not told.acknowledged:
        body = _renewed(told.body, NotificationKind.ACKNOWLEDGED, incident, now)
        said = [_notification(incident, NotificationKind.ACKNOWLEDGED, receiver, body, now) for receiver in told.to]
        return _put(desk, replace(told, acknowledged=True)), said
    return desk, []


def _escalate(desk: Desk, job: Job, incident: Incident, told: Told, now: Wall) -> tuple[Desk, list[Notification]]:
    to = tuple(dict.fromkeys(job.alerts.escalate.to)) if job.alerts.escalate else ()
    body = _renewed(told.body, NotificationKind.ESCALATED, incident, now)
    out = [_notification(incident, NotificationKind.ESCALATED, receiver, body, now) for receiver in to]
    return _put(desk, replace(told, escalated_at=now, to=tuple(dict.fromkeys((*told.to, *to))))), out


def _notification(incident: Incident, kind: NotificationKind, receiver: str, body: str, now: Wall) -> Notification:
    return Notification(f"{incident.id}/{kind.value}/{receiver}", receiver, kind, incident.id, now, body)


# ---------------------------------------------------------------- bodies (see ``incidents.body``)


def _document(body: str) -> dict[str, Any]:
    try:
        found = json.loads(body) if body else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _shortened(body: str) -> str:
    """The same with fewer and shorter lines: it is remembered with the job, and written anew with each change of it."""
    document = _document(body)
    for name in ("evidence", "did", "will"):
        lines = document.get(name)
        if isinstance(lines, list):
            document[name] = [str(line)[:CHARS_KEPT] for line in lines[:LINES_KEPT]]
    return _text(document)


def _renewed(body: str, kind: NotificationKind, incident: Incident, now: Wall) -> str:
    """The incident as it is now, with the evidence of before."""
    before = _document(body)
    evidence, did, will = (tuple(map(str, before.get(name) or ())) for name in ("evidence", "did", "will"))
    return incidents.body(incident, kind, incidents.Facts(evidence, did, will), now)


def _marked(notification: Notification, job: Job) -> Notification:
    """A drill says so in every word of it."""
    if not job.drill:
        return notification
    return replace(notification, body=_text({**_document(notification.body), "drill": True}))
