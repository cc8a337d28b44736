"""The body of a notification as its receivers read it: tolerant of what is absent, clean of what could break a line or a terminal."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from supervisor.core.model import Wall
from supervisor.core.records import Notification, NotificationKind

LINES_MAX = 50  # per list of the body; the dossier has the rest
LINE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Body:
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
    )


def headline(notification: Notification, body: Body) -> str:
    """One line that says it all: "critical: nightly: recursion: ..."."""
    match notification.kind:
        case NotificationKind.OPENED:
            lead = body.severity
        case NotificationKind.REMINDER:
            lead = f"still {body.severity}"
        case NotificationKind.CLOSED:
            lead = "over"
    return f"{lead}: {body.job}: {body.outcome}: {body.summary}"


def paragraphs(notification: Notification, body: Body) -> str:
    """The whole story as plain text of several lines."""
    times = f"incident {notification.incident}, opened {_time(body.opened_at)}"
    if body.closed_at is not None:
        times += f", closed {_time(body.closed_at)}"
    if body.occurrences > 1:
        times += f", seen {body.occurrences} times"
    parts = [headline(notification, body), times]
    for title, lines in (("Evidence", body.evidence), ("Mainstay did", body.did), ("Mainstay will", body.will)):
        if lines:
            parts.append("\n".join([f"{title}:", *(f"  - {line}" for line in lines)]))
    return "\n\n".join(parts) + "\n"


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
