"""The router, made from the table of routes; and what becomes of a handler's failures."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Routed
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from supervisor.adapters.http.answers import HISTORY_MEND, Refusal, refused
from supervisor.adapters.http.api import Api
from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.requests import query_of
from supervisor.adapters.http.routes import TABLE, Kind, Route
from supervisor.adapters.http.streams import Hub
from supervisor.adapters.http.work import Workers
from supervisor.errors import StoreError

if TYPE_CHECKING:
    from supervisor.adapters.http.site import Site

log = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Response]]


class _App:
    """Says in the scope that there is an application: else the router answers for unknown paths itself, in plain text."""

    def __init__(self, routes: ASGIApp) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._routes(scope, receive, send)


class Application:
    """All routes over one backend. Whether a request may come here at all is ``gate``'s business."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._workers = Workers()
        self.hub = Hub(backend, self._workers.read)
        self._api = Api(backend, self._workers, self.hub)
        self._site: Site | None = None

    def router(self) -> ASGIApp:
        """The ASGI application."""
        handlers: dict[str, dict[str, Handler]] = {}
        for route in TABLE:
            handlers.setdefault(route.path, {})[route.method] = self._handler(route)
        routes = [Routed(path, handler, methods=[method]) for path, methods in handlers.items() for method, handler in methods.items()]
        # And not all of Starlette: its page for a failure of ours would load html, half a MiB; uvicorn answers such a failure as well.
        return _App(ExceptionMiddleware(Router(routes=routes, redirect_slashes=False), handlers={HTTPException: _no_route}))

    def close(self) -> None:
        """Lets the worker threads go."""
        self._workers.close()

    def _handler(self, route: Route) -> Handler:
        if route.kind is Kind.PAGE:

            async def page(request: Request) -> Response:
                return await self._pages().show(route, request)

            return page
        handler = getattr(self._api, route.asks or route.name)

        async def work(request: Request) -> Response:
            query = query_of(request, route) if route.path.startswith("/api/") else {}
            response: Response = await (handler(request, query, route) if route.changes else handler(request, query))
            return response

        async def answer(request: Request) -> Response:
            return await handle(request, lambda: work(request))

        return answer

    def _pages(self) -> "Site":
        """The status page, which is loaded when the first person looks at it."""
        if self._site is None:
            from supervisor.adapters.http.site import Site

            self._site = Site(self._backend, self._workers)
        return self._site


async def handle(request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
    """What *work* answers, with every failure turned into a JSON answer; nothing of ours beyond that reaches the client."""
    try:
        return await work()
    except Refusal as refusal:
        return refused(refusal.status, str(refusal), refusal.mend)
    except asyncio.CancelledError:  # the server cancels answers when it stops, and nothing else does
        return refused(503, "Mainstay is stopping", "ask again when it is back")
    except TimeoutError:
        log.warning("http_request_overdue", path=request.url.path)
        return refused(503, "the supervisor did not answer in time", "try again; if it stays so, see its log")
    except ClientDisconnect:
        return refused(400, "the request ended early", "send the whole body")  # nobody will read it
    except StoreError as err:
        log.warning("history_not_read", path=request.url.path, error=str(err))
        return refused(503, str(err), HISTORY_MEND)
    except Exception:  # whatever a page of ours stumbles over, the client gets an answer and the log the traceback
        log.exception("http_request_failed", path=request.url.path)
        return refused(500, "this is a fault of Mainstay's own", "see the supervisor's log")


async def _no_route(_request: Request, err: Exception) -> Response:
    """What Starlette finds before a handler runs."""
    status, headers = (err.status_code, err.headers) if isinstance(err, HTTPException) else (500, None)
    if status == 405:
        response = refused(405, "the method does not suit the page", f"use {(headers or {}).get('Allow', 'another')}")
    else:
        response = refused(status, "there is no such page", "GET /api/v1/openapi.json lists the API")
    response.headers.update(headers or {})
    return response
