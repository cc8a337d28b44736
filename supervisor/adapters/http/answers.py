"""Answers: JSON that never fails to be written, sent in pieces so that a slow reader costs a piece of memory and not a page."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 64 * 1024


class Answer(Response):
    """A response whose body goes out in pieces, each waiting until the client has taken those before."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Sends head and body."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for at in range(0, len(body), CHUNK_BYTES):
            await send({"type": "http.response.body", "body": bytes(body[at : at + CHUNK_BYTES]), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def json_answer(value: Any, status: int = 200) -> Answer:
    """*value* as JSON. Pure ASCII, so that bytes of a job's output that are no text (surrogates) can be shown too."""
    return Answer(json.dumps(value, default=plain).encode("ascii") + b"\n", status, media_type="application/json")


def plain(value: Any) -> Any:
    """What JSON has no form for, as something it has."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def refused(status: int, error: str, mend: str) -> Answer:
    """The shape of every error: what is wrong, and what to do."""
    return json_answer({"error": error, "mend": mend}, status)


HISTORY_MEND: Final = "the jobs go on; ask for another run (`mainstay runs`), or read the output (`mainstay logs JOB`)"


class Refusal(Exception):  # noqa: N818  # an answer, not a failure of ours
    """Ends the handling of a request with ``refused(status, error, mend)``."""

    def __init__(self, status: int, error: str, mend: str) -> None:
        super().__init__(error)
        self.status = status
        self.mend = mend
