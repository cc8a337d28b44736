"""What requests say, read strictly: parameters known and given once, numbers in their bounds, bodies short and of the declared kind."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from supervisor.adapters.http.answers import Refusal
from supervisor.adapters.http.routes import MOST_ROWS, Route

MAX_JSON_BYTES = 64 * 1024
STRICT = "mainstay.strict"  # in the ASGI scope: an empty body has to be declared as JSON too, which no form of a foreign page can
MOST_TEXT = 1000  # characters of a field
MAX_FORM_BYTES = 4 * 1024

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRUE, _FALSE = ("1", "true"), ("0", "false")


def query_of(request: Request, route: Route) -> dict[str, str]:
    """The query's parameters, each known to *route* and given once."""
    known = [param.name for param in route.query]
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise Refusal(400, "a parameter is not known here", f"known are: {', '.join(known) or 'none'}")
        if name in found:
            raise Refusal(400, f"{name} is given twice", "give it once")
        found[name] = value
    return found


def job_name(text: str) -> str:
    """*text* if it can be the name of a job; it is only ever compared, never made part of a path here."""
    if _NAME.fullmatch(text) is None or text in (".", ".."):
        raise Refusal(404, "that is not the name of a job", "GET /api/v1/status lists the jobs")
    return text


def job_of(query: Mapping[str, str]) -> str | None:
    """The job that the query names."""
    return job_name(query["job"]) if "job" in query else None


def number(text: str, what: str, where: str) -> int:
    """A number in a path; 404 where it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refusal(404, f"that is not the number of {what}", f"GET {where} lists them")
    return int(text)


def whole(query: Mapping[str, str], name: str, least: int = 0, most: int = 2**62) -> int | None:
    """A whole number in its bounds, None if it is not given."""
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise Refusal(400, f"{name} is not a whole number from {least} to {most}", f"write for example {name}={max(least, 1)}")
    return int(text)


def limit_of(query: Mapping[str, str]) -> int:
    """How many rows at most."""
    return whole(query, "limit", least=1, most=MOST_ROWS) or 50


def flag(query: Mapping[str, str], name: str) -> bool:
    """A yes or no; no if it is not given."""
    text = query.get(name, "0")
    if text not in (*_TRUE, *_FALSE):
        raise Refusal(400, f"{name} is neither 1 nor 0", f"write {name}=1, or leave it out")
    return text in _TRUE


def takes_gzip(accept: str) -> bool:
    """Whether an Accept-Encoding header allows gzip: named, and not with a weight of 0."""
    for part in accept.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "*"):
            return re.fullmatch(r"q=0(\.0*)?", weight.strip()) is None
    return False


def peer(request: Request) -> str | None:
    """The address of who asks; None on the unix socket."""
    return request.client.host if request.client else None


def media_type(request: Request) -> str:
    """The declared type of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_body(request: Request, route: Route) -> dict[str, str]:
    """The JSON object in the body, its fields known to *route* and of their kind; an empty body is an empty object."""
    value = await _json_object(request)
    known = {param.name: param for param in route.body}
    for name, item in value.items():
        if name not in known:
            raise Refusal(400, "a field of the body is not known here", f"known are: {', '.join(known) or 'none'}")
        allowed = known[name].schema.get("enum")
        if not isinstance(item, str) or (allowed and item not in allowed) or len(item) > MOST_TEXT:
            raise Refusal(400, f"{name} is not what it can be", f"write {' or '.join(allowed) if allowed else 'a short text'}")
    missing = [name for name, param in known.items() if param.required and name not in value]
    if missing:
        raise Refusal(400, f"the body has no {missing[0]}", f"send {', '.join(missing)}")
    return value


async def _json_object(request: Request) -> dict[str, Any]:
    raw = await _body(request, MAX_JSON_BYTES, "send a short JSON object")
    if not raw and not request.scope.get(STRICT):
        return {}
    if media_type(request) != "application/json":
        raise Refusal(415, "the body is not declared as JSON", "send Content-Type: application/json")
    if not raw:
        return {}
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise Refusal(400, "the body is not JSON", 'send an object such as {"for": "1h"}') from err
    if not isinstance(value, dict):
        raise Refusal(400, "the body is JSON but not an object", 'send an object such as {"for": "1h"}')
    return value


async def form_body(request: Request) -> dict[str, str]:
    """The fields of a form; 415 for anything else than application/x-www-form-urlencoded."""
    if media_type(request) != "application/x-www-form-urlencoded":
        raise Refusal(415, "this is for the forms of the status page", "use the API, POST /api/v1/jobs/NAME/VERB")
    raw = await _body(request, MAX_FORM_BYTES, "send what the form has")
    try:
        return dict(parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=8))
    except ValueError as err:
        raise Refusal(400, "the form cannot be read", "load its page again") from err


async def _body(request: Request, most: int, mend: str) -> bytes:
    too_large = Refusal(413, f"the body is larger than {most} bytes", mend)
    if int(request.headers.get("content-length", "0")) > most:  # h11 has seen to it that it is a number
        raise too_large
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > most:
            raise too_large
    return bytes(raw)
