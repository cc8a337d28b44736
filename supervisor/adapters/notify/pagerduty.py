"""PagerDuty's Events API v2 (https://developer.pagerduty.com/docs/events-api-v2-overview): trigger, acknowledge, resolve, tied by a key.

The key is the same for every event of an incident, in this life and the next, so a repeat changes nothing there.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any, Final

from supervisor.adapters.notify.channel import Endpoint, refusal
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import Body, headline, host, link, one_line, paragraphs, read_body, subject
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import Layout, PagerDutyReceiver

SUMMARY_CHARS: Final = 1024
KEY_CHARS: Final = 255
FIELD_CHARS: Final = 255
LINES_MAX: Final = 20
SEVERITIES: Final = ("critical", "error", "warning", "info")
ACTIONS: Final[Mapping[NotificationKind, str]] = {
    NotificationKind.ACKNOWLEDGED: "acknowledge",
    NotificationKind.CLOSED: "resolve",
}  # everything else triggers: to a key that is open already it adds to the incident


class PagerDutySender:
    """Delivered when the API answers 2xx (202 is its word for it)."""

    batch_max = 1
    repost_s = None
    pause_s = 0.0

    def __init__(self, receiver: PagerDutyReceiver, clock: Clock) -> None:
        self._receiver = receiver
        self._endpoint = Endpoint.parse(receiver.url)
        self._clock = clock

    def deliver(self, batch: Sequence[Notification], _openings: Mapping[int, Notification]) -> Failed | None:
        for notification in batch:
            body = json.dumps(event(notification, self._receiver)).encode("ascii", "replace")
            answer = self._endpoint.post(body, {"Content-Type": "application/json"}, self._receiver.timeout_s, self._clock)
            if isinstance(answer, Failed):
                return answer
            if not answer.is_good:
                return refusal(self._endpoint, answer)
        return None

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        return self.deliver(standing, {})


def event(notification: Notification, receiver: PagerDutyReceiver) -> dict[str, Any]:
    """The event as the API takes it."""
    body, page = read_body(notification), link(notification, receiver.layout)
    action = ACTIONS.get(notification.kind, "trigger")
    made: dict[str, Any] = {
        "routing_key": receiver.routing_key,
        "event_action": action,
        "dedup_key": dedup_key(notification, body),
        "client": "Mainstay",
        **({"client_url": page, "links": [{"href": page, "text": "the incident"}]} if page else {}),
    }
    return made | ({"payload": _payload(notification, body, receiver.layout)} if action == "trigger" else {})


def dedup_key(notification: Notification, body: Body) -> str:
    """One name for one incident: its bug, its number, and when it opened, for two hosts may count alike."""
    drill = "drill-" if body.drill else ""
    return f"mainstay-{drill}{one_line(body.fingerprint, 64)}-{notification.incident}-{int(body.opened_at.timestamp() * 1000)}"[:KEY_CHARS]


def _payload(notification: Notification, body: Body, layout: Layout) -> dict[str, Any]:
    details: dict[str, Any] = {name: list(getattr(body, name)[:LINES_MAX]) for name in ("evidence", "did", "will")}
    if layout.body is not None:
        details = {"text": one_line_each(paragraphs(notification, body, layout))}
    summary = subject(notification, body, layout) if layout.subject is not None else headline(notification, body)
    return {
        "summary": one_line(summary, SUMMARY_CHARS),
        "source": host(),
        "severity": body.severity if body.severity in SEVERITIES else "error",
        "timestamp": body.opened_at.astimezone(UTC).isoformat(),
        "component": one_line(body.job, FIELD_CHARS),
        "class": one_line(body.outcome, FIELD_CHARS),
        "custom_details": {**details, "incident": notification.incident, "drill": body.drill, "occurrences": body.occurrences},
    }


def one_line_each(text: str) -> list[str]:
    """A text as a list of lines, as the details show best."""
    return [line for line in (one_line(part) for part in text.splitlines()[:LINES_MAX]) if line]
