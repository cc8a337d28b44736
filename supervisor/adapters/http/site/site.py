"""The handlers of the status page: what each page needs is asked of the backend, and what went wrong is a page too."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from supervisor.adapters.http.answers import HISTORY_MEND, Answer, Refusal
from supervisor.adapters.http.api import ASK_DEADLINE_S, no_incident, no_job, no_run
from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.door import ACTS, WHO
from supervisor.adapters.http.requests import form_body, job_name, job_of, number, peer, query_of, whole
from supervisor.adapters.http.routes import BUTTON_VERBS, INCIDENT_VERBS, Route
from supervisor.adapters.http.site import jobpage, overview, records
from supervisor.adapters.http.site.layout import ASSETS, POLICY, View, asset, page
from supervisor.adapters.http.site.markup import Html, html, link
from supervisor.adapters.http.site.pictures import STRIP_RUNS
from supervisor.adapters.http.site.tokens import Tokens
from supervisor.adapters.http.streams import PATIENT
from supervisor.adapters.http.work import Workers
from supervisor.errors import StoreError

log = structlog.get_logger()

Query = Mapping[str, str]


class Site:
    """One for a server; its handlers have the names in the table of routes."""

    def __init__(self, backend: Backend, workers: Workers) -> None:
        self._backend = backend
        self._workers = workers
        self._read = workers.read
        self._tokens = Tokens()

    async def show(self, route: Route, request: Request) -> Response:
        """What the route's handler answers; failures become pages that say what is wrong and where to go."""
        try:
            response: Response = await getattr(self, route.name)(request, query_of(request, route))
        except Refusal as refusal:
            return await self._trouble(request, refusal.status, str(refusal), refusal.mend)
        except asyncio.CancelledError:  # the server cancels answers when it stops, and nothing else does
            return _bare(503, "Mainstay is stopping")
        except TimeoutError:
            log.warning("http_request_overdue", path=request.url.path)
            return _bare(503, "The supervisor did not answer in time. Try again; if it stays so, see its log.")
        except ClientDisconnect:
            return _bare(400, "The request ended early.")
        except StoreError as err:
            log.warning("history_not_read", path=request.url.path, error=str(err))
            return await self._trouble(request, 503, str(err), HISTORY_MEND)
        except Exception:  # whatever a page of ours stumbles over, the reader gets an answer and the log the traceback
            log.exception("http_request_failed", path=request.url.path)
            return _bare(500, "This is a fault of Mainstay's own. Its log has the traceback.")
        return response

    # ------------------------------------------------ pages

    async def overview(self, request: Request, query: Query) -> Response:
        show, place = query.get("show", "all"), whole(query, "page", least=1, most=10_000) or 1
        if show not in overview.SHOWS:
            raise Refusal(400, "there is no such choice of jobs", f"show is one of {', '.join(overview.SHOWS)}")
        view = await self._view(request)
        some = overview.chosen(view, show)[(place - 1) * overview.PER_PAGE : place * overview.PER_PAGE]
        runs = await self._read(self._last_runs, [job["name"] for job in some])
        incidents = await self._read(self._backend.incidents, True, 20)
        return _page(overview.overview(view, show, place, runs, incidents))

    def _last_runs(self, names: list[str]) -> dict[str, list[dict[str, Any]]]:
        """On a worker thread: the last runs of each job."""
        return {name: self._backend.runs(name, STRIP_RUNS) for name in names}

    async def job_page(self, request: Request, query: Query) -> Response:
        name = job_name(request.path_params["name"])
        view = await self._view(request)
        job = next((one for one in view.jobs if one["name"] == name), None)
        if job is None:
            raise no_job(name)
        runs = await self._read(self._backend.runs, name, 40)
        slots = await self._read(self._backend.slots, name, 40)
        found = [await self._read(self._backend.incident, incident) for incident in job["incidents"][:10]]
        output = await self._read(self._backend.logs, name, None, jobpage.LOG_LINES, None, None)
        incidents = [dict(one) for one in found if one is not None]
        return _page(jobpage.job_page(view, job, runs, slots, incidents, output, _done(query)))

    async def runs_page(self, request: Request, query: Query) -> Response:
        job = job_of(query)
        return _page(records.runs_page(await self._view(request), await self._read(self._backend.runs, job, 100), job))

    async def run_page(self, request: Request, _query: Query) -> Response:
        run = number(request.path_params["run"], "a run", "/runs")
        found = await self._read(self._backend.run, run)
        if found is None:
            raise no_run(run)
        return _page(records.run_page(await self._view(request), found, await self._read(self._backend.why, None, run)))

    async def incidents_page(self, request: Request, _query: Query) -> Response:
        return _page(records.incidents_page(await self._view(request), await self._read(self._backend.incidents, False, 100)))

    async def incident_page(self, request: Request, query: Query) -> Response:
        incident = number(request.path_params["number"], "an incident", "/incidents")
        found = await self._read(self._backend.incident, incident)
        if found is None:
            raise no_incident(incident)
        return _page(records.incident_page(await self._view(request), found, _done(query)))

    async def asset(self, request: Request, query: Query) -> Response:
        name = request.path_params["asset"]
        if name not in ASSETS:
            raise Refusal(404, "there is no such file", "load the page again")
        return Answer(
            asset(name),
            headers={"Content-Type": ASSETS[name], "Cache-Control": "max-age=31536000, immutable" if "v" in query else "max-age=3600"},
        )

    # ------------------------------------------------ forms

    async def form_job(self, request: Request, _query: Query) -> Response:
        name, verb = job_name(request.path_params["name"]), request.path_params["button"]
        return await self._form(request, verb, name, BUTTON_VERBS, link("jobs", name))

    async def form_incident(self, request: Request, _query: Query) -> Response:
        incident, verb = number(request.path_params["number"], "an incident", "/incidents"), request.path_params["incident_verb"]
        return await self._form(request, verb, str(incident), INCIDENT_VERBS, link("incidents", incident))

    async def _form(self, request: Request, verb: str, target: str, known: tuple[str, ...], back: str) -> Response:
        if verb not in known:
            raise Refusal(404, "that cannot be asked for", f"ask for one of {', '.join(known)}")
        fields = await form_body(request)
        who = request.scope.get(WHO)
        if not self._tokens.good(fields.get("token", ""), who, asyncio.get_running_loop().time()):
            raise Refusal(403, "this form is too old, or not from our page", "load the page again and press the button there")
        request.scope[PATIENT] = True
        log.info("http_change_asked", verb=verb, target=target, who=who, client=peer(request))
        status, body = await self._workers.ask(ASK_DEADLINE_S, self._backend.ask, verb, target, {}, ASK_DEADLINE_S)
        if status != 200:
            raise Refusal(status, str(body.get("error", "it was refused")), str(body.get("mend", "")))
        return Response(status_code=303, headers={"Location": f"{back}?done={verb}"})

    # ------------------------------------------------ parts

    async def _view(self, request: Request) -> View:
        found = await self._read(self._backend.status)
        who = request.scope.get(WHO)
        acts = bool(request.scope.get(ACTS))
        token = self._tokens.make(who, asyncio.get_running_loop().time()) if acts else ""
        return View(found["daemon"], tuple(found["jobs"]), datetime.fromisoformat(found["daemon"]["now"]), acts, token, who)

    async def _trouble(self, request: Request, status: int, words: str, mend: str) -> Response:
        """A refusal as a page with the way back."""
        try:
            view = await self._view(request)
        except Exception:  # the page that says what is wrong must not depend on anything being right
            log.exception("http_request_failed", path=request.url.path)
            return _bare(status, words)
        body = html(
            '<section class="head"><h1>{words}</h1><p class="lead">{mend}</p><p><a href="/">All jobs</a></p></section>',
            words=_sentence(words),
            mend=_sentence(mend),
        )
        return _page(page(view, "Not done", "", body, stays=True), status)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") or not words else ".")


def _done(query: Query) -> str | None:
    return query.get("done")


def _page(document: Html, status: int = 200) -> Response:
    # same-origin and not no-referrer: with the latter, browsers send the Origin of our own forms as null
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}
    return Answer(document.encode("utf-8", "backslashreplace"), status, headers=headers)


def _bare(status: int, words: str) -> Response:
    return _page(html("<!doctype html><title>Mainstay</title><p>{words}</p>", words=words), status)
