"""A webhook: one POST of JSON per notification, signed, with a key that lets the receiver see a repeat."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence

from supervisor.adapters.notify.channel import Endpoint, refusal
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import raw_body
from supervisor.core.records import Notification
from supervisor.core.settings import WebhookReceiver


class WebhookSender:
    """``X-Mainstay-Signature`` is ``sha256=`` and the HMAC of the body; ``Idempotency-Key`` is the same for every try."""

    batch_max = 1
    repost_s = None

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
        body = document(notification)
        answer = self._endpoint.post(body, self._headers(notification, body), self._receiver.timeout_s, self._clock)
        if isinstance(answer, Failed):
            return answer
        return None if answer.is_good else refusal(self._endpoint, answer)

    def _headers(self, notification: Notification, body: bytes) -> dict[str, str]:
        headers = {**self._receiver.headers, "Content-Type": "application/json", "Idempotency-Key": header_key(notification.key)}
        if self._receiver.secret is not None:
            digest = hmac.new(self._receiver.secret.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Mainstay-Signature"] = f"sha256={digest}"
        return headers


def document(notification: Notification) -> bytes:
    """The notification's JSON object in ASCII; kind, incident and key are there even if the body left them out."""
    own = {"kind": notification.kind.value, "incident": notification.incident, "key": notification.key}
    text = json.dumps({**own, **raw_body(notification)})
    # Half a surrogate pair is legal for Python's json and an error for many parsers: a round trip through UTF-8 replaces it.
    clean = json.loads(text.encode(), object_hook=_without_surrogates)
    return json.dumps(clean).encode("ascii")


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
