"""The apprise library (an extra), for services that we do not speak to ourselves. It lives in a short process of its own.

It takes 100 ms and 15 MiB to load, reads ~260 plug-ins, and some of them log what they send: none of that belongs into the supervisor. The
process gets its URLs on standard input, for a command line can be read by everybody, and what it complains of is not repeated.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from supervisor.adapters.notify import apprise_child
from supervisor.adapters.notify.command import run
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import one_line, paragraphs, read_body, subject
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import AppriseReceiver

SUBJECT_CHARS: Final = 200
TYPES: Final = {"critical": "failure", "warning": "warning", "info": "info"}
REASONS: Final = {
    apprise_child.NOT_DELIVERED: "at least one of its services did not take the message",
    apprise_child.BAD_URL: "it knows no service for one of the urls",
    apprise_child.NOT_INSTALLED: "the apprise library is not installed",
}


def is_installed() -> bool:
    """Whether this Python has the library; finding out loads nothing of it."""
    return importlib.util.find_spec("apprise") is not None


class AppriseSender:
    """Delivered when every service of the receiver took the message; otherwise all are told again, which is what at least once means."""

    batch_max = 10
    repost_s = None
    pause_s = 0.0

    def __init__(self, receiver: AppriseReceiver, clock: Clock) -> None:
        if not receiver.urls:
            raise ValueError("it has no urls")
        if not is_installed():
            raise ValueError("the apprise library is not installed; install the extra: pip install mainstay[notify]")
        self._receiver = receiver
        self._clock = clock

    def deliver(self, batch: Sequence[Notification], _openings: Mapping[int, Notification]) -> Failed | None:
        content = json.dumps({"urls": list(self._receiver.urls), **message(batch, self._receiver)}).encode("ascii")
        argv = (sys.executable, "-I", os.path.abspath(apprise_child.__file__))
        failed = run(argv, content, "/", self._receiver.timeout_s, self._clock, tells=False)
        if failed is None:
            return None
        detail = failed.detail.removeprefix(f"{sys.executable}: ")
        known = detail.removeprefix("exited ")
        return Failed(f"apprise: {REASONS.get(int(known), detail) if known.isdecimal() else detail}")

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        return self.deliver(standing, {})


def message(batch: Sequence[Notification], receiver: AppriseReceiver) -> dict[str, str]:
    """Title, body and type of what is said, as apprise wants them: plain text, which it converts for each service."""
    bodies = [read_body(notification) for notification in batch]
    layout = receiver.layout
    crowd = f"{len(batch)} notifications of Mainstay"
    title = one_line(subject(batch[0], bodies[0], layout), SUBJECT_CHARS) if len(batch) == 1 else crowd
    text = "\n".join(paragraphs(notification, body, layout) for notification, body in zip(batch, bodies, strict=True))
    over = all(notification.kind is NotificationKind.CLOSED for notification in batch)
    worst = min(bodies, key=lambda body: list(TYPES).index(body.severity) if body.severity in TYPES else 0)
    return {"title": title, "body": text, "type": "success" if over else TYPES.get(worst.severity, "failure")}
