"""Alertmanager's v2 API: one alert per incident, said again while it is open, ended when it closes.

An alert *is* its label set there, so labels come from the opening notification, which never changes, and from the config.
"""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any

import structlog

from supervisor.adapters.notify.channel import Answer, Endpoint, refusal
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import link, one_line, paragraphs, read_body, subject
from supervisor.core.model import Wall
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import AlertmanagerReceiver, Layout

log = structlog.get_logger()

ALERT_NAME = "MainstayIncident"
LABEL_CHARS = 200
# An alert ends by itself if nobody says it again; long enough for a reboot of the host, as Prometheus allows four of its intervals.
HOLD_MIN_S = 300.0
HOLD_INTERVALS = 4


class AlertmanagerSender:
    """Posts to every member of the cluster (they do not share alerts); delivered when any of them took it."""

    batch_max = 100
    pause_s = 0.0

    def __init__(self, receiver: AlertmanagerReceiver, clock: Clock) -> None:
        self._clock = clock
        self._receiver = receiver
        self._endpoints = tuple(Endpoint.parse(url, "/api/v2/alerts") for url in receiver.urls)
        self._silent: frozenset[str] = frozenset()
        if not self._endpoints:
            raise ValueError("it has no urls")

    @property
    def repost_s(self) -> float:
        return self._receiver.repost_s

    def deliver(self, batch: Sequence[Notification], openings: Mapping[int, Notification]) -> Failed | None:
        ends_at = self._clock().wall + timedelta(seconds=max(HOLD_MIN_S, HOLD_INTERVALS * self._receiver.repost_s))
        alerts = [
            alert(notification, openings.get(notification.incident, notification), self._receiver.labels, ends_at, self._receiver.layout)
            for notification in batch
        ]
        answers = self._post_to_all(json.dumps(alerts).encode("ascii"))
        failures = {str(end): failed for end, answer in zip(self._endpoints, answers, strict=True) if (failed := _failure(end, answer))}
        self._note(failures)
        return next(iter(failures.values())) if len(failures) == len(self._endpoints) else None

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        for start in range(0, len(standing), self.batch_max):
            if failed := self.deliver(standing[start : start + self.batch_max], {}):
                return failed
        return None

    def _post_to_all(self, body: bytes) -> list[Answer | Failed]:
        """All members at once: one that hangs must not hold up the news for the others."""
        answers: list[Answer | Failed] = [Failed(f"{endpoint}: no complete answer in time") for endpoint in self._endpoints]

        def post(index: int) -> None:
            headers = {"Content-Type": "application/json"}
            answers[index] = self._endpoints[index].post(body, headers, self._receiver.timeout_s, self._clock)

        threads = [threading.Thread(target=post, args=(index,), daemon=True) for index in range(1, len(self._endpoints))]
        for thread in threads:
            thread.start()
        post(0)
        for thread in threads:
            thread.join(self._receiver.timeout_s)
        return list(answers)

    def _note(self, failures: Mapping[str, Failed]) -> None:
        """One line when a member falls silent while others answer: its cluster looks healthy from everywhere else."""
        silent = frozenset(failures) if len(failures) < len(self._endpoints) else frozenset()
        for member in sorted(silent - self._silent):
            log.warning("alertmanager_member_failing", receiver=self._receiver.name, error=failures[member].detail)
        for member in sorted(self._silent - silent):
            if member not in failures:
                log.info("alertmanager_member_recovered", receiver=self._receiver.name, member=member)
        self._silent = silent


def alert(
    notification: Notification, opening: Notification, extra_labels: Mapping[str, str], ends_at: Wall, layout: Layout | None = None
) -> dict[str, Any]:
    """The alert as the v2 API takes it; *ends_at* is until when it fires if it is not said again.

    Labels and start come from *opening*, all the rest from *notification*. A drill has the label ``drill="true"``.
    """
    layout = layout or Layout()
    body, first = read_body(notification), read_body(opening)
    own = {
        "alertname": ALERT_NAME,
        "job_name": first.job,
        "outcome": first.outcome,
        "severity": first.severity,
        "incident": str(notification.incident),
        "fingerprint": first.fingerprint,
        "drill": "true" if first.drill else "",
    }
    closed = notification.kind is NotificationKind.CLOSED
    ends = max(body.closed_at or notification.created_at, first.opened_at) if closed else ends_at
    summary = subject(notification, body, layout) if layout.subject is not None else f"{'DRILL: ' if body.drill else ''}{body.summary}"
    page = link(notification, layout)
    return {
        "labels": _labels({**extra_labels, **own}),
        "annotations": {"summary": summary, "description": paragraphs(notification, body, layout), **({"link": page} if page else {})},
        "startsAt": _rfc3339(first.opened_at),
        "endsAt": _rfc3339(ends),
        **({"generatorURL": page} if page else {}),
    }


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Names as every version takes them; an empty value means "no such label" there."""
    cleaned = {_label_name(name): one_line(value, LABEL_CHARS) for name, value in labels.items()}
    return {name: value for name, value in cleaned.items() if value}


def _label_name(name: str) -> str:
    safe = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return safe if safe and not safe[0].isdigit() else f"_{safe}"


def _failure(endpoint: Endpoint, answer: Answer | Failed) -> Failed | None:
    if isinstance(answer, Failed):
        return answer
    return None if answer.is_good else refusal(endpoint, answer)


def _rfc3339(wall: Wall) -> str:
    return wall.astimezone(UTC).isoformat()
