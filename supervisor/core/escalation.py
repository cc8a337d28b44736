"""Who hears of an incident because nobody has acknowledged it: when it is due, and that it is said once. Sending is ``dispatch``'s."""

from collections.abc import Sequence
from datetime import timedelta

from msgspec import Struct

from supervisor.core.jobs import AlertPolicy
from supervisor.core.model import Incident, Wall


class Told(Struct, frozen=True):
    """Who was told of an open incident, when first, and in which words (the body of that notification, shortened).

    ``escalated_at``: when those of ``alerts.escalate`` were told, too; they are in ``to`` from then on. ``acknowledged``: that was said.
    """

    incident: int
    at: Wall
    to: tuple[str, ...]
    body: str = ""
    escalated_at: Wall | None = None
    acknowledged: bool = False


def due_at(incident: Incident, told: Told, alerts: AlertPolicy) -> Wall | None:
    """When *incident* is to be escalated; None when it never is: it is closed, somebody is on it, or that was done."""
    settled = incident.closed_at is not None or incident.acknowledged or told.escalated_at is not None
    if settled or alerts.escalate is None or not alerts.escalate.to:
        return None
    return told.at + timedelta(seconds=alerts.escalate.after_s)


def due(incidents: Sequence[Incident], told: Sequence[Told], alerts: AlertPolicy, now: Wall) -> list[tuple[Incident, Told]]:
    """The incidents to escalate now, each with what was told of it."""
    by_id = {one.incident: one for one in told}
    pairs = [(incident, by_id[incident.id]) for incident in incidents if incident.id in by_id]
    return [(incident, one) for incident, one in pairs if (at := due_at(incident, one, alerts)) is not None and at <= now]
