"""The body of a notification as its receivers read it: tolerant of what is absent, clean of what could break a line or a terminal.

What a receiver's own format needs escaped is escaped by its sender, value by value, so that an operator's template may use that format.
"""

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from supervisor.core.model import Wall
from supervisor.core.prose import about_duration
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import Layout
from supervisor.core.template import CHARS_MAX, Template, Values, render

LINES_MAX = 50  # per list of the body; the dossier has the rest
LINE_CHARS = 1000


class Body(Struct, frozen=True):
    """What ``core.incidents.body`` wrote, with a default for everything. Texts are single clean lines."""

    job: str
    outcome: str
    severity: str
    summary: str
    fingerprint: str
    evidence: tuple[str, ...]
    did: tuple[str, ...]
    will: tuple[str, ...]
    opened_at: Wall
    closed_at: Wall | None
    occurrences: int
    drill: bool = False
    closed_because: str = ""
    acknowledged_by: str = ""
    run: str = ""
    duration_s: float = 0.0


def one_line(value: object, limit: int = LINE_CHARS) -> str:
    """*value* as text in one line: control and format characters (CR, LF, escape sequences, direction overrides) become spaces."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    cleaned = "".join(char if char.isprintable() else " " for char in text[: 4 * limit]).strip()
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def raw_body(notification: Notification) -> dict[str, Any]:
    """The body's JSON object; a body that is none becomes the summary of one."""
    try:
        body = json.loads(notification.body)
    except ValueError:
        body = notification.body
    return body if isinstance(body, dict) else {"summary": body}


def read_body(notification: Notification) -> Body:
    """The body with every gap filled from the notification itself."""
    raw = raw_body(notification)
    opened_at = _wall(raw.get("opened_at")) or notification.created_at
    closing = notification.kind is NotificationKind.CLOSED
    return Body(
        job=one_line(raw.get("job")) or "unknown",
        outcome=one_line(raw.get("outcome")) or "unknown",
        severity=one_line(raw.get("severity")) or "critical",
        summary=one_line(raw.get("summary")) or f"incident {notification.incident}",
        fingerprint=one_line(raw.get("fingerprint")),
        evidence=_lines(raw.get("evidence")),
        did=_lines(raw.get("did")),
        will=_lines(raw.get("will")),
        opened_at=opened_at,
        closed_at=(_wall(raw.get("closed_at")) or notification.created_at) if closing else None,
        occurrences=raw["occurrences"] if isinstance(raw.get("occurrences"), int) else 1,
        drill=raw.get("drill") is True,
        closed_because=one_line(raw.get("closed_because")),
        acknowledged_by=one_line(raw.get("acknowledged_by")),
        run=one_line(raw.get("last_run")),
        duration_s=_seconds(raw.get("duration_seconds")),
    )


def headline(notification: Notification, body: Body) -> str:
    """One line that says it all: "critical: nightly: recursion: ..."."""
    match notification.kind:
        case NotificationKind.OPENED:
            lead = body.severity
        case NotificationKind.REMINDER:
            lead = f"still {body.severity}"
        case NotificationKind.ESCALATED:
            lead = f"{body.severity}, not acknowledged"
        case NotificationKind.ACKNOWLEDGED:
            lead = f"acknowledged{f' by {body.acknowledged_by}' if body.acknowledged_by else ''}"
        case NotificationKind.CLOSED:
            lead = "over"
        case _:
            lead = f"{notification.kind.value}, {body.severity}"
    return f"{'DRILL: ' if body.drill else ''}{lead}: {body.job}: {body.outcome}: {body.summary}"


def link(notification: Notification, layout: Layout) -> str:
    """The page of the incident; "" when nobody said where the pages are."""
    return f"{layout.external_url}/incidents/{notification.incident}" if layout.external_url else ""


def story(notification: Notification, body: Body, layout: Layout) -> list[str]:
    """The whole story but for its headline, as paragraphs of plain lines."""
    times = f"incident {notification.incident}, opened {_time(body.opened_at)}"
    if body.closed_at is not None:
        times += f", closed {_time(body.closed_at)}{f': {body.closed_because}' if body.closed_because else ''}"
    if body.occurrences > 1:
        times += f", seen {body.occurrences} times"
    parts = ["This is a drill: the job and its failure are made for it.", times] if body.drill else [times]
    for title, lines in (("Evidence", body.evidence), ("Mainstay did", body.did), ("Mainstay will", body.will)):
        if lines:
            parts.append("\n".join([f"{title}:", *(f"  - {line}" for line in lines)]))
    if found := link(notification, layout):
        parts.append(f"More: {found}")
    return parts


def paragraphs(notification: Notification, body: Body, layout: Layout) -> str:
    """The whole story as plain text of several lines, in the words of the receiver's template if it has one."""
    if layout.body is not None:
        return _in_drill(render(layout.body, values(notification, body, layout)), body) + "\n"
    return "\n\n".join([headline(notification, body), *story(notification, body, layout)]) + "\n"


def subject(notification: Notification, body: Body, layout: Layout, escape: Callable[[str], str] = str) -> str:
    """The subject in one line: the receiver's template, or the headline. *escape* is applied to what the incident says, not to the template."""
    if layout.subject is None:
        return escape(headline(notification, body))
    text = render(layout.subject, values(notification, body, layout), escape)
    return _in_drill(one_line(text.replace("\n", " "), CHARS_MAX), body)


def _in_drill(text: str, body: Body) -> str:
    """No template can leave out that it is a drill."""
    return text if not body.drill or "drill" in text.casefold() else f"DRILL: {text}"


def body_text(template: Template, notification: Notification, body: Body, layout: Layout, escape: Callable[[str], str]) -> str:
    """The body by *template* with every value escaped."""
    return _in_drill(render(template, values(notification, body, layout), escape), body)


def values(notification: Notification, body: Body, layout: Layout) -> Values:
    """What a template's fields hold."""
    return {
        "acknowledged_by": body.acknowledged_by,
        "closed_at": _time(body.closed_at) if body.closed_at is not None else "",
        "closed_because": body.closed_because,
        "did": body.did,
        "drill": "DRILL" if body.drill else "",
        "duration": about_duration(body.duration_s),
        "evidence": body.evidence,
        "fingerprint": body.fingerprint,
        "headline": headline(notification, body),
        "host": host(),
        "incident": str(notification.incident),
        "job": body.job,
        "kind": notification.kind.value,
        "link": link(notification, layout),
        "occurrences": str(body.occurrences),
        "opened_at": _time(body.opened_at),
        "outcome": body.outcome,
        "run": body.run,
        "severity": body.severity,
        "story": tuple("\n".join(story(notification, body, layout)).split("\n")),
        "summary": body.summary,
        "will": body.will,
    }


def host() -> str:
    """The machine's own name for itself, without asking anybody."""
    return one_line(socket.gethostname(), 255) or "localhost"


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0.0


def _time(wall: Wall) -> str:
    return wall.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _lines(value: object) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(line for item in items[:LINES_MAX] if (line := one_line(item)))


def _wall(value: object) -> Wall | None:
    if not isinstance(value, str):
        return None
    try:
        wall = datetime.fromisoformat(value)
    except ValueError:
        return None
    return wall if wall.tzinfo is not None else wall.replace(tzinfo=UTC)
