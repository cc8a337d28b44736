"""Slack's incoming webhooks and what speaks like them: one message per notification, one for a crowd, at most one a second.

Escaped as Slack asks (https://docs.slack.dev/messaging/formatting-message-text): ``&``, ``<`` and ``>``; with these gone nobody can be called and
no link can pretend to be another. Mattermost and Rocket.Chat also read ``@channel`` and Markdown's links, so these are broken up.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

from supervisor.adapters.notify.channel import Endpoint, refusal
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import body_text, read_body, story, subject
from supervisor.core.records import Notification
from supervisor.core.settings import SlackReceiver

TEXT_CHARS: Final = 3500  # Slack cuts what is much longer, and nobody reads it there
LINE_CHARS: Final = 400
BREAK: Final = "\u200b"  # a space without width: the word looks the same and means nothing


class SlackSender:
    """Delivered when the webhook answers 2xx. 429 and its Retry-After are the courier's to honour."""

    batch_max = 20
    repost_s = None
    pause_s = 1.0

    def __init__(self, receiver: SlackReceiver, clock: Clock) -> None:
        self._receiver = receiver
        self._endpoint = Endpoint.parse(receiver.url)
        self._clock = clock

    def deliver(self, batch: Sequence[Notification], _openings: Mapping[int, Notification]) -> Failed | None:
        body = json.dumps(payload(batch, self._receiver)).encode("ascii", "replace")
        answer = self._endpoint.post(body, {"Content-Type": "application/json"}, self._receiver.timeout_s, self._clock)
        if isinstance(answer, Failed):
            return answer
        return None if answer.is_good else refusal(self._endpoint, answer)

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        return self.deliver(standing, {})


def payload(batch: Sequence[Notification], receiver: SlackReceiver) -> dict[str, object]:
    """The message for one notification, or one with a line for each of several."""
    if len(batch) == 1:
        text = _one(batch[0], receiver)
    else:
        lines = [_cut(_subject(notification, receiver), LINE_CHARS) for notification in batch]
        text = "\n".join([f"*{len(batch)} notifications of Mainstay*", *(f"• {line}" for line in lines)])
    return {"text": _cut(text, TEXT_CHARS), "unfurl_links": False, "unfurl_media": False}


def _one(notification: Notification, receiver: SlackReceiver) -> str:
    body, layout = read_body(notification), receiver.layout
    head = _subject(notification, receiver)
    if layout.body is not None:
        return f"{head}\n{body_text(layout.body, notification, body, layout, escape)}"
    return f"*{head}*\n" + escape("\n".join(story(notification, body, layout)))


def _subject(notification: Notification, receiver: SlackReceiver) -> str:
    return subject(notification, read_body(notification), receiver.layout, escape)


def escape(text: str) -> str:
    """*text* as Slack and its like show it, calling nobody and linking nowhere else than it says."""
    whole = text.encode("utf-8", "replace").decode()
    safe = whole.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"@(?=\w)", f"@{BREAK}", safe).replace("](", f"]{BREAK}(")


def _cut(text: str, limit: int) -> str:
    """At most *limit* characters, and no half of an entity at the end."""
    if len(text) <= limit:
        return text
    return re.sub(r"&[a-z]{0,4}$", "", text[: limit - 1]) + "…"
