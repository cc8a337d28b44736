"""The handlers for programs: each asks the backend on a worker thread and shows the answer as JSON. One for each route of the table."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from supervisor.adapters.http.answers import Answer, Refusal, json_answer
from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.door import WHO
from supervisor.adapters.http.requests import flag, job_name, job_of, json_body, limit_of, number, peer, takes_gzip, whole
from supervisor.adapters.http.routes import MAX_ASK_DEADLINE_S, MOST_LINES, Route
from supervisor.adapters.http.streams import PATIENT, Hub
from supervisor.adapters.http.work import Workers

ASK_DEADLINE_S: Final = 60.0  # for the backend to make a change, unless the request says otherwise
PAGE_AGE_S: Final = 1.0  # two Prometheus servers and a person share one rendering
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STREAM_LINES: Final = 10_000

Query = Mapping[str, str]

log = structlog.get_logger()


class Api:
    """The handlers by the names they have in the table. Each takes the request and its query, which was checked against the table."""

    def __init__(self, backend: Backend, workers: Workers, hub: Hub) -> None:
        self._backend = backend
        self._workers = workers
        self._hub = hub
        self._read = workers.read
        self._page = _Shared(lambda: workers.scrape(backend.metrics_page))
        self._packed: tuple[bytes, bytes] = (b"", gzip.compress(b""))  # a page and its gzip

    # ------------------------------------------------ for Prometheus and who watches

    async def metrics(self, request: Request, _query: Query) -> Response:
        page = await self._page.get()
        headers = {"Content-Type": METRICS_TYPE, "Vary": "Accept-Encoding"}
        if takes_gzip(request.headers.get("accept-encoding", "")):
            packed_page, packed = self._packed
            if packed_page is not page:
                packed = await self._workers.scrape(gzip.compress, page, compresslevel=1)
                self._packed = (page, packed)
            return Answer(packed, headers=headers | {"Content-Encoding": "gzip"})
        return Answer(page, headers=headers)

    async def healthz(self, _request: Request, _query: Query) -> Response:
        return _verdict(*await self._workers.scrape(self._backend.healthy))

    async def readyz(self, _request: Request, _query: Query) -> Response:
        return _verdict(*await self._workers.scrape(self._backend.ready))

    # ------------------------------------------------ questions

    async def openapi(self, _request: Request, _query: Query) -> Response:
        from supervisor.adapters.http import openapi  # late: rarely asked for

        return json_answer(openapi.document())

    async def version(self, _request: Request, _query: Query) -> Response:
        from supervisor.adapters.http.openapi import API_VERSION

        return json_answer({**await self._read(self._backend.version), "api": API_VERSION})

    async def config(self, _request: Request, _query: Query) -> Response:
        return json_answer(await self._read(self._backend.config))

    async def status(self, _request: Request, _query: Query) -> Response:
        return json_answer(await self._read(self._backend.status))

    async def jobs(self, _request: Request, _query: Query) -> Response:
        return json_answer({"jobs": (await self._read(self._backend.status))["jobs"]})

    async def job(self, request: Request, _query: Query) -> Response:
        name = job_name(request.path_params["name"])
        return _found(await self._read(self._backend.job, name), no_job(name))

    async def runs(self, _request: Request, query: Query) -> Response:
        rows = await self._read(self._backend.runs, job_of(query), limit_of(query))
        await self._expect(job_of(query), rows)
        return json_answer({"runs": rows})

    async def run(self, request: Request, _query: Query) -> Response:
        run = number(request.path_params["run"], "a run", "/api/v1/runs")
        return _found(await self._read(self._backend.run, run), no_run(run))

    async def slots(self, _request: Request, query: Query) -> Response:
        rows = await self._read(self._backend.slots, job_of(query), limit_of(query))
        await self._expect(job_of(query), rows)
        return json_answer({"slots": rows})

    async def _expect(self, job: str | None, found: object) -> None:
        """404 where nothing was *found* because there is no such *job*: neither in the config nor, as one that was there once, in the history."""
        if job is None or found or await self._read(self._backend.job, job) is not None:
            return
        if not (await self._read(self._backend.runs, job, 1) or await self._read(self._backend.slots, job, 1)):
            raise no_job(job)

    async def dossier(self, request: Request, _query: Query) -> Response:
        return await self._why(None, number(request.path_params["run"], "a run", "/api/v1/runs"))

    async def why(self, _request: Request, query: Query) -> Response:
        return await self._why(job_of(query), whole(query, "run"))

    async def _why(self, job: str | None, run: int | None) -> Response:
        answer = await self._read(self._backend.why, job, run)
        if answer is None:
            found = await self._read(self._backend.status)
            missing = job is not None and job not in [each["name"] for each in found["jobs"]]
            raise no_job(str(job)) if missing else Refusal(404, nothing_ended(found, job, run), "GET /api/v1/runs lists the runs")
        return json_answer(answer)

    async def incidents(self, _request: Request, query: Query) -> Response:
        return json_answer({"incidents": await self._read(self._backend.incidents, flag(query, "open"), limit_of(query))})

    async def incident(self, request: Request, _query: Query) -> Response:
        incident = number(request.path_params["number"], "an incident", "/api/v1/incidents")
        return _found(await self._read(self._backend.incident, incident), no_incident(incident))

    async def drill(self, request: Request, _query: Query) -> Response:
        drill = number(request.path_params["number"], "a drill", "/api/v1/jobs/NAME/drills")
        missing = Refusal(404, f"there is no drill {drill}", "GET /api/v1/jobs/NAME/drills has the last results")
        return _found(await self._read(self._backend.drill, drill), missing)

    async def drills(self, request: Request, _query: Query) -> Response:
        name = job_name(request.path_params["name"])
        rows = await self._read(self._backend.drills, name)
        await self._expect(name, rows)
        return json_answer({"drills": rows})

    async def quarantine(self, request: Request, query: Query) -> Response:
        name, key = job_name(request.path_params["name"]), query.get("key")
        answer = await self._read(self._backend.quarantine, name, key)
        if answer is None and (key is None or await self._read(self._backend.job, name) is None):
            raise no_job(name)
        return _found(
            answer, Refusal(404, f"{name} has no such record in quarantine", f"GET /api/v1/jobs/{name}/quarantine lists its records")
        )

    async def logs(self, request: Request, query: Query) -> Response:
        name = job_name(request.path_params["name"])
        lines, offset = whole(query, "n", most=MOST_LINES), whole(query, "offset")
        answer = await self._read(self._backend.logs, name, whole(query, "run"), lines, offset, whole(query, "attempt"))
        if answer is None:
            await self._expect(name, None)
        return _found(answer, Refusal(404, f"there is no output of {name} like that", "GET /api/v1/runs lists the runs"))

    # ------------------------------------------------ streams

    async def events(self, _request: Request, query: Query) -> Response:
        return self._hub.events(job_of(query))

    async def log_stream(self, request: Request, query: Query) -> Response:
        name = job_name(request.path_params["name"])
        lines = whole(query, "n", most=STREAM_LINES)
        if await self._read(self._backend.job, name) is None:
            raise no_job(name)
        return self._hub.log(name, 100 if lines is None else lines)

    # ------------------------------------------------ changes

    async def ask_job(self, request: Request, query: Query, route: Route) -> Response:
        return await self._ask(request, query, route, job_name(request.path_params["name"]))

    async def ask_incident(self, request: Request, query: Query, route: Route) -> Response:
        return await self._ask(request, query, route, str(number(request.path_params["number"], "an incident", "/api/v1/incidents")))

    async def reload(self, request: Request, query: Query, route: Route) -> Response:
        return await self._ask(request, query, route, "", plan=flag(query, "plan"))

    async def _ask(self, request: Request, query: Query, route: Route, target: str, **more: Any) -> Response:
        timeout_s = float(whole(query, "timeout", least=1, most=MAX_ASK_DEADLINE_S) or ASK_DEADLINE_S)
        arguments = await json_body(request, route) | more
        request.scope[PATIENT] = True
        log.info("http_change_asked", verb=route.verb, target=target, who=request.scope.get(WHO), client=peer(request))
        status, body = await self._workers.ask(timeout_s, self._backend.ask, route.verb, target, arguments, timeout_s)
        return json_answer(body if status < 400 else {"mend": "", **body}, status)


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


# ---------------------------------------------------------------- words for what is not there


def _verdict(good: bool, words: str) -> Answer:
    return json_answer({"ok": good, "detail": words}, 200 if good else 503)


def _found(answer: Mapping[str, Any] | None, otherwise: Refusal) -> Answer:
    if answer is None:
        raise otherwise
    return json_answer(answer)


def no_job(name: str) -> Refusal:
    """No job has that name."""
    return Refusal(404, f"there is no job {name}", "GET /api/v1/status lists the jobs")


def no_run(run: int) -> Refusal:
    """No run has that number."""
    return Refusal(404, f"there is no run {run}, or it is no longer kept", "GET /api/v1/runs lists the runs")


def no_incident(incident: int) -> Refusal:
    """No incident has that number."""
    return Refusal(404, f"there is no incident {incident}", "GET /api/v1/incidents lists them")


def nothing_ended(status: Mapping[str, Any], job: str | None, run: int | None) -> str:
    """Why there is nothing to explain."""
    alive = {one["run"]: one for each in status["jobs"] if job in (None, each["name"]) for one in each.get("runs", ())}
    if run is not None:
        return f"run {run} is {alive[run]['phase']}: it has not ended yet" if run in alive else str(no_run(run))
    if job is None:
        return "no job has ended badly yet"
    if alive:
        first = min(alive)
        return f"{job} has not ended yet: run {first} is {alive[first]['phase']}"
    return f"{job} has never run"
