"""The pages and the API: each handler asks the backend on a worker thread and shows the answer."""

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from supervisor.adapters.http.answers import Answer, Refusal, json_answer, refused
from supervisor.adapters.http.backend import Backend

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")

MAX_BODY_BYTES = 64 * 1024
READ_DEADLINE_S = 15.0  # for the backend to answer a question
ASK_DEADLINE_S = 60.0  # for the backend to make a change, unless the request says otherwise
MAX_ASK_DEADLINE_S = 600.0
PAGE_AGE_S = 1.0  # two Prometheus servers and a person share one rendering
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JOB_VERBS = frozenset({"start", "stop", "restart", "trigger", "pause", "resume", "silence", "unsilence", "drill"})
INCIDENT_VERBS = frozenset({"ack", "resolve"})

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRUE, _FALSE = ("1", "true"), ("0", "false")
_INDEX = """Mainstay

/metrics                          Prometheus metrics
/healthz                          the supervising loop comes round
/readyz                           supervising has begun
/api/v1/status                    the daemon and its jobs
/api/v1/jobs/NAME                 one job
/api/v1/jobs/NAME/logs            captured output (?run=&attempt=&n=&offset=)
/api/v1/runs                      runs (?job=&limit=)
/api/v1/slots                     due fire times and what became of them (?job=&limit=)
/api/v1/why                       the last bad end, explained (?job= or ?run=)
/api/v1/incidents                 incidents (?open=1&limit=)
/api/v1/incidents/ID              one incident
/api/v1/drills/ID                 one drill, as it stands
/api/v1/jobs/NAME/drills          the last drill of each fault

Changes are taken on the unix socket only; use the mainstay command.
"""


class Pages:
    """The handlers. Scrapes, questions and changes have worker threads of their own, for a change may block for minutes."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._scrapers = ThreadPoolExecutor(2, "http-scrape")
        self._readers = ThreadPoolExecutor(4, "http-read")
        self._askers = ThreadPoolExecutor(8, "http-ask")
        self._page = _Shared(lambda: self._on(self._scrapers, backend.metrics_page))
        self._packed: tuple[bytes, bytes] = (b"", gzip.compress(b""))  # a page and its gzip

    def application(self) -> ASGIApp:
        """The routes. Whether a request may come here at all is ``gate``'s business."""
        reads: dict[str, _Handler] = {
            "/": self._index,
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/api/v1/status": self._status,
            "/api/v1/runs": self._runs,
            "/api/v1/slots": self._slots,
            "/api/v1/why": self._why,
            "/api/v1/incidents": self._incidents,
            "/api/v1/incidents/{number}": self._incident,
            "/api/v1/drills/{number}": self._drill,
            "/api/v1/jobs/{name}": self._job,
            "/api/v1/jobs/{name}/drills": self._drills,
            "/api/v1/jobs/{name}/logs": self._logs,
        }
        changes: dict[str, _Handler] = {
            "/api/v1/jobs/{name}/{verb}": self._ask_job,
            "/api/v1/incidents/{number}/{verb}": self._ask_incident,
            "/api/v1/reload": self._reload,
        }
        routes = [Route(path, _guarded(handler), methods=["GET"]) for path, handler in reads.items()]
        routes += [Route(path, _guarded(handler), methods=["POST"]) for path, handler in changes.items()]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
        app.router.redirect_slashes = False
        return app

    def close(self) -> None:
        """Lets the worker threads go; what they are in is not waited for."""
        for pool in (self._scrapers, self._readers, self._askers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _on(self, pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: function(*args, **kwargs))

    async def _read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The backend's answer to a question; ``TimeoutError`` if it takes too long."""
        return await asyncio.wait_for(self._on(self._readers, function, *args, **kwargs), READ_DEADLINE_S)

    # ------------------------------------------------ pages for machines and people

    async def _index(self, request: Request) -> Answer:
        _query(request)
        return Answer(_INDEX.encode(), media_type="text/plain")

    async def _metrics(self, request: Request) -> Answer:
        page = await asyncio.wait_for(self._page.get(), READ_DEADLINE_S)
        headers = {"Content-Type": METRICS_TYPE, "Vary": "Accept-Encoding"}
        if _takes_gzip(request.headers.get("accept-encoding", "")):
            packed_page, packed = self._packed
            if packed_page is not page:
                packed = await self._on(self._scrapers, gzip.compress, page, compresslevel=1)
                self._packed = (page, packed)
            return Answer(packed, headers=headers | {"Content-Encoding": "gzip"})
        return Answer(page, headers=headers)

    async def _healthz(self, _request: Request) -> Answer:
        return _verdict(*await asyncio.wait_for(self._on(self._scrapers, self._backend.healthy), READ_DEADLINE_S))

    async def _readyz(self, _request: Request) -> Answer:
        return _verdict(*await asyncio.wait_for(self._on(self._scrapers, self._backend.ready), READ_DEADLINE_S))

    # ------------------------------------------------ questions

    async def _status(self, request: Request) -> Answer:
        _query(request)
        return json_answer(await self._read(self._backend.status))

    async def _job(self, request: Request) -> Answer:
        _query(request)
        name = _job_name(request.path_params["name"])
        return _found(await self._read(self._backend.job, name), _no_job(name))

    async def _runs(self, request: Request) -> Answer:
        query = _query(request, "job", "limit")
        return json_answer({"runs": await self._read(self._backend.runs, _job_of(query), _limit(query))})

    async def _slots(self, request: Request) -> Answer:
        query = _query(request, "job", "limit")
        return json_answer({"slots": await self._read(self._backend.slots, _job_of(query), _limit(query))})

    async def _why(self, request: Request) -> Answer:
        query = _query(request, "job", "run")
        job, run = _job_of(query), _whole(query, "run")
        answer = await self._read(self._backend.why, job, run)
        if answer is None:
            found = await self._read(self._backend.status)
            missing = job is not None and job not in [each["name"] for each in found["jobs"]]
            raise _no_job(str(job)) if missing else Refusal(404, _nothing_ended(found, job, run), "GET /api/v1/runs lists the runs")
        return json_answer(answer)

    async def _incidents(self, request: Request) -> Answer:
        query = _query(request, "open", "limit")
        return json_answer({"incidents": await self._read(self._backend.incidents, _flag(query, "open"), _limit(query))})

    async def _incident(self, request: Request) -> Answer:
        _query(request)
        number = _number(request.path_params["number"])
        return _found(await self._read(self._backend.incident, number), _no_incident(number))

    async def _drill(self, request: Request) -> Answer:
        _query(request)
        number = _number(request.path_params["number"])
        missing = Refusal(404, f"there is no drill {number}", "GET /api/v1/jobs/NAME/drills has the last results")
        return _found(await self._read(self._backend.drill, number), missing)

    async def _drills(self, request: Request) -> Answer:
        _query(request)
        return json_answer({"drills": await self._read(self._backend.drills, _job_name(request.path_params["name"]))})

    async def _logs(self, request: Request) -> Answer:
        query = _query(request, "run", "attempt", "n", "offset")
        name = _job_name(request.path_params["name"])
        lines, offset = _whole(query, "n", most=100_000), _whole(query, "offset")
        answer = await self._read(self._backend.logs, name, _whole(query, "run"), lines, offset, _whole(query, "attempt"))
        return _found(answer, Refusal(404, f"there is no output of {name} like that", "GET /api/v1/runs lists the runs"))

    # ------------------------------------------------ changes

    async def _ask_job(self, request: Request) -> Answer:
        name, verb = _job_name(request.path_params["name"]), request.path_params["verb"]
        if verb not in JOB_VERBS:
            raise Refusal(404, "a job cannot be asked for that", f"ask for one of {', '.join(sorted(JOB_VERBS))}")
        return await self._ask(request, verb, name, _query(request, "timeout"))

    async def _ask_incident(self, request: Request) -> Answer:
        number, verb = _number(request.path_params["number"]), request.path_params["verb"]
        if verb not in INCIDENT_VERBS:
            raise Refusal(404, "an incident cannot be asked for that", f"ask for one of {', '.join(sorted(INCIDENT_VERBS))}")
        return await self._ask(request, verb, str(number), _query(request, "timeout"))

    async def _reload(self, request: Request) -> Answer:
        query = _query(request, "plan", "timeout")
        return await self._ask(request, "reload", "", query, plan=_flag(query, "plan"))

    async def _ask(self, request: Request, verb: str, target: str, query: Mapping[str, str], **more: Any) -> Answer:
        timeout_s = float(_whole(query, "timeout", least=1, most=int(MAX_ASK_DEADLINE_S)) or ASK_DEADLINE_S)
        arguments = await _body(request) | more
        asking = self._on(self._askers, self._backend.ask, verb, target, arguments, timeout_s)
        status, body = await asyncio.wait_for(asking, timeout_s + 5)  # the backend says it better when it gives up itself
        return json_answer(body, status)


class _Shared:
    """The result of some work, made once for all who ask within ``PAGE_AGE_S``, and never twice at a time."""

    def __init__(self, make: Callable[[], Awaitable[bytes]]) -> None:
        self._make = make
        self._work: asyncio.Future[bytes] | None = None
        self._made_at = 0.0

    async def get(self) -> bytes:
        loop = asyncio.get_running_loop()
        old = self._work
        if old is None or (old.done() and (loop.time() - self._made_at > PAGE_AGE_S or old.cancelled() or old.exception())):
            self._work = old = asyncio.ensure_future(self._made())
        return await asyncio.shield(old)

    async def _made(self) -> bytes:
        result = await self._make()
        self._made_at = asyncio.get_running_loop().time()  # here and not in a callback, which would come after the first who look
        return result


# ---------------------------------------------------------------- failures

_Handler = Callable[[Request], Awaitable[Response]]


def _guarded(handler: _Handler) -> _Handler:
    """*handler* with every failure turned into a JSON answer; nothing of ours beyond that reaches the client."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refused(refusal.status, str(refusal), refusal.mend)
        except asyncio.CancelledError:  # the server cancels answers when it stops, and nothing else does
            return refused(503, "Mainstay is stopping", "ask again when it is back")
        except TimeoutError:
            log.warning("http_request_overdue", path=request.url.path)
            return refused(503, "the supervisor did not answer in time", "try again; if it stays so, see its log")
        except ClientDisconnect:
            return refused(400, "the request ended early", "send the whole body")  # nobody will read it
        except Exception:  # whatever a page of ours stumbles over, the client gets an answer and the log the traceback
            log.exception("http_request_failed", path=request.url.path)
            return refused(500, "this is a fault of Mainstay's own", "see the supervisor's log")

    return answer


async def _no_route(_request: Request, err: Exception) -> Response:
    """What Starlette finds before a handler runs."""
    status, headers = (err.status_code, err.headers) if isinstance(err, HTTPException) else (500, None)
    if status == 405:
        response = refused(405, "the method does not suit the page", f"use {(headers or {}).get('Allow', 'another')}")
    else:
        response = refused(status, "there is no such page", "GET / lists the pages")
    response.headers.update(headers or {})
    return response


def _verdict(good: bool, words: str) -> Answer:
    return json_answer({"ok": good, "detail": words}, 200 if good else 503)


def _found(answer: Mapping[str, Any] | None, otherwise: Refusal) -> Answer:
    if answer is None:
        raise otherwise
    return json_answer(answer)


def _no_job(name: str) -> Refusal:
    return Refusal(404, f"there is no job {name}", "GET /api/v1/status lists the jobs")


def _nothing_ended(status: Mapping[str, Any], job: str | None, run: int | None) -> str:
    """Why there is nothing to explain."""
    alive = {one["run"]: one for each in status["jobs"] if job in (None, each["name"]) for one in each.get("runs", ())}
    if run is not None:
        return (
            f"run {run} is {alive[run]['phase']}: it has not ended yet"
            if run in alive
            else f"there is no run {run}, or it is no longer kept"
        )
    if job is None:
        return "no job has ended badly yet"
    if alive:
        first = min(alive)
        return f"{job} has not ended yet: run {first} is {alive[first]['phase']}"
    return f"{job} has never run"


def _no_incident(number: int) -> Refusal:
    return Refusal(404, f"there is no incident {number}", "GET /api/v1/incidents lists them")


# ---------------------------------------------------------------- what requests say


def _query(request: Request, *known: str) -> dict[str, str]:
    """The query's parameters, each known and given once."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise Refusal(400, "a parameter is not known here", f"known are: {', '.join(known) or 'none'}")
        if name in found:
            raise Refusal(400, f"{name} is given twice", "give it once")
        found[name] = value
    return found


def _job_name(text: str) -> str:
    """*text* if it can be the name of a job; it is only ever compared, never made part of a path here."""
    if _NAME.fullmatch(text) is None or text in (".", ".."):
        raise Refusal(404, "that is not the name of a job", "GET /api/v1/status lists the jobs")
    return text


def _job_of(query: Mapping[str, str]) -> str | None:
    return _job_name(query["job"]) if "job" in query else None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refusal(404, "that is not the number of an incident", "GET /api/v1/incidents lists them")
    return int(text)


def _whole(query: Mapping[str, str], name: str, least: int = 0, most: int = 2**62) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise Refusal(400, f"{name} is not a whole number from {least} to {most}", f"write for example {name}={max(least, 1)}")
    return int(text)


def _limit(query: Mapping[str, str]) -> int:
    return _whole(query, "limit", least=1, most=1000) or 50


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "0")
    if text not in (*_TRUE, *_FALSE):
        raise Refusal(400, f"{name} is neither 1 nor 0", f"write {name}=1, or leave it out")
    return text in _TRUE


def _takes_gzip(accept: str) -> bool:
    """Whether an Accept-Encoding header allows gzip: named, and not with a weight of 0."""
    for part in accept.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "*"):
            return re.fullmatch(r"q=0(\.0*)?", weight.strip()) is None
    return False


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty object."""
    too_large = Refusal(413, f"the body is larger than {MAX_BODY_BYTES} bytes", "send a short JSON object")
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:  # h11 has seen to it that it is a number
        raise too_large
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BODY_BYTES:
            raise too_large
    if not raw:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "the body is not declared as JSON", "send Content-Type: application/json")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as err:
        raise Refusal(400, "the body is not JSON", 'send an object such as {"for": "1h"}') from err
    if not isinstance(value, dict):
        raise Refusal(400, "the body is JSON but not an object", 'send an object such as {"for": "1h"}')
    return value
