"""The OpenAPI 3.1 document of the API, and the table of routes for the docs; both made from ``routes.TABLE``."""

from typing import Any, Final

from supervisor.adapters.http.routes import TABLE, Kind, Param, Route
from supervisor.adapters.http.shapes import SHAPES, of

Json = dict[str, Any]

API_VERSION: Final = "1.0"  # of the API, not of Mainstay: a field more is a step after the dot
_REASONS: Final = {
    400: "A parameter or the body is wrong.",
    401: "Who asks has not said who they are.",
    403: "Changes are not taken here, or not from this page.",
    404: "There is no such thing.",
    409: "The state of the job does not allow it.",
    413: "The body is too long.",
    415: "The body is not declared as JSON.",
    421: "The Host header does not name this server.",
    422: "The config has problems.",
    429: "Too many requests.",
    500: "A fault of Mainstay's own.",
    503: "It could not be answered in time, or not in good health.",
}


def document() -> Json:
    """The whole document, in the order of the table."""
    paths: Json = {}
    for route in TABLE:
        if route.kind is not Kind.PAGE:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mainstay",
            "version": API_VERSION,
            "description": "Reads are answered on the unix socket and on `supervisor.listen`; changes on the unix socket, and over TCP only where `supervisor.actions` allows it.",
        },
        "paths": paths,
        "components": {"schemas": SHAPES, "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
        "security": [{}, {"basic": []}],
    }


def _operation(route: Route) -> Json:
    answers: Json = {"200": {"description": "Well.", "content": _content(route)}}
    codes = {400, 401, 421, 429, 500, 503, *route.refusals} | ({403, 413, 415} if route.changes else set())
    for code in sorted(codes):
        answers[str(code)] = {"description": _REASONS[code], "content": {"application/json": {"schema": _refusal(route, code)}}}
    operation: Json = {
        "operationId": route.name,
        "summary": route.words,
        "parameters": [*(_parameter(one, "path") for one in route.in_path), *(_parameter(one, "query") for one in route.query)],
        "responses": answers,
    }
    if route.changes:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _body(route)}}}
    return operation


def _body(route: Route) -> Json:
    return {
        "type": "object",
        "properties": {one.name: {**one.schema, "description": one.words} for one in route.body},
        "required": [one.name for one in route.body if one.required],
        "additionalProperties": False,
    }


def _content(route: Route) -> Json:
    if "/" in route.shape:
        return {route.shape: {"schema": {"type": "string"}}}
    return {"application/json": {"schema": of(route.shape)}}


def _refusal(route: Route, code: int) -> Json:
    if route.shape == "Health" and code == 503:
        return {"anyOf": [of("Health"), of("Refused")]}
    return of("Refused")


def _parameter(param: Param, place: str) -> Json:
    return {"name": param.name, "in": place, "required": place == "path", "description": param.words, "schema": param.schema}


def reference() -> str:
    """The routes as Markdown tables, for docs/http.md."""
    lines = []
    for title, kinds in (("The API", (Kind.API, Kind.STREAM)), ("The status page", (Kind.PAGE,))):
        lines += [f"## {title}", "", "| route | parameters | answer |", "|---|---|---|"]
        for route in TABLE:
            if route.kind in kinds:
                query = "; ".join(f"`{one.name}`: {one.words}" for one in route.query)
                lines.append(f"| `{route.method} {route.path}` | {query} | {route.words} |")
        lines.append("")
    return "\n".join(lines)
