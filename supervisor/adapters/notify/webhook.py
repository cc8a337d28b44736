"""A webhook: one POST of JSON per notification, signed, with a key that lets the receiver see a repeat.

The signature covers the time of sending, so that a post that somebody overheard cannot be played to the receiver again later.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence

from supervisor.adapters.notify.channel import Endpoint, refusal
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import link, paragraphs, raw_body, read_body, subject
from supervisor.core.records import Notification
from supervisor.core.settings import Layout, WebhookReceiver


class WebhookSender:
    """``X-Mainstay-Signature`` is ``v1=`` and the HMAC of time and body; ``Idempotency-Key`` is the same for every try."""

    batch_max = 1
    repost_s = None
    pause_s = 0.0

    def __init__(self, receiver: WebhookReceiver, clock: Clock) -> None:
        self._clock = clock
        self._endpoint = Endpoint.parse(receiver.url)
        self._receiver = receiver

    def deliver(self, batch: Sequence[Notification], _openings: Mapping[int, Notification]) -> Failed | None:
        for notification in batch:
            if failed := self._post(notification):
                return failed
        return None

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        return self.deliver(standing, {})

    def _post(self, notification: Notification) -> Failed | None:
        body = document(notification, self._receiver.layout)
        answer = self._endpoint.post(body, self._headers(notification, body), self._receiver.timeout_s, self._clock)
        if isinstance(answer, Failed):
            return answer
        return None if answer.is_good else refusal(self._endpoint, answer)

    def _headers(self, notification: Notification, body: bytes) -> dict[str, str]:
        headers = {**self._receiver.headers, "Content-Type": "application/json", "Idempotency-Key": header_key(notification.key)}
        if self._receiver.secret is not None:
            sent_at = str(int(self._clock().wall.timestamp()))
            headers["X-Mainstay-Timestamp"] = sent_at
            headers["X-Mainstay-Signature"] = signature(self._receiver.secret, sent_at, body)
        return headers


def signature(secret: str, sent_at: str, body: bytes) -> str:
    """The signature of a post: HMAC-SHA256 over "TIMESTAMP.BODY" (docs/notifications.md has the receiver's side of it)."""
    return "v1=" + hmac.new(secret.encode(), f"{sent_at}.".encode() + body, hashlib.sha256).hexdigest()


def document(notification: Notification, layout: Layout | None = None) -> bytes:
    """The notification's JSON object in ASCII; kind, incident and key are there even if the body left them out.

    With a *layout* the link and what its templates make (``subject``, ``text``) are added.
    """
    own: dict[str, object] = {"kind": notification.kind.value, "incident": notification.incident, "key": notification.key}
    text = json.dumps({**own, **raw_body(notification), **_laid_out(notification, layout or Layout())})
    # Half a surrogate pair is legal for Python's json and an error for many parsers: a round trip through UTF-8 replaces it.
    clean = json.loads(text.encode(), object_hook=_without_surrogates)
    return json.dumps(clean).encode("ascii")


def _laid_out(notification: Notification, layout: Layout) -> dict[str, str]:
    body = read_body(notification)
    made = {"link": link(notification, layout)}
    if layout.subject is not None:
        made["subject"] = subject(notification, body, layout)
    if layout.body is not None:
        made["text"] = paragraphs(notification, body, layout)
    return {name: text for name, text in made.items() if text}


def header_key(key: str) -> str:
    """*key* as a header can carry it: job names may be in any script, so anything else becomes a hash of it."""
    return key if key.isascii() and key.isprintable() else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _without_surrogates(value: dict[str, object]) -> dict[str, object]:
    return {_whole(key): _clean(item) for key, item in value.items()}


def _clean(item: object) -> object:
    if isinstance(item, list):
        return [_clean(part) for part in item]
    return _whole(item) if isinstance(item, str) else item


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
