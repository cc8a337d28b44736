"""The table of routes: what can be asked for, where, with which parameters, and what comes back.

The router, the OpenAPI document and docs/http.md are made from it, so none of them can have a route that the others do not know.
"""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from supervisor.core.jobs import Fault

Json = dict[str, Any]

_JOB_VERBS: Final = {
    "start": "Starts the job, a parked or stopped one too, and lets it go by its schedule again.",
    "stop": "Stops the job and keeps it stopped. The answer comes before its end: see `runs` of the job.",
    "restart": "Stops the job if it runs, and starts it again.",
    "trigger": "Runs the job once, now.",
    "pause": "Leaves its fire times out until it is resumed.",
    "resume": "Ends a pause.",
    "silence": "Holds its alerts back for a time.",
    "unsilence": "Ends its silences.",
    "drill": "Injects a fault into a stand-in of the job; see `drills`.",
    "release": "Takes a record out of quarantine.",
}
_INCIDENT_VERBS: Final = {"ack": "Somebody is on it: no more reminders.", "resolve": "Closes the incident."}
JOB_VERBS: Final = tuple(_JOB_VERBS)
INCIDENT_VERBS: Final = tuple(_INCIDENT_VERBS)
BUTTON_VERBS: Final = JOB_VERBS[:6]  # those that the status page has buttons for
MOST_ROWS: Final = 1000
MOST_LINES: Final = 100_000
MOST_NUMBER: Final = 2**62
MAX_ASK_DEADLINE_S: Final = 600


class Kind(StrEnum):
    """Who reads it: a program, a person, or a program for as long as the connection lives."""

    API = "api"
    PAGE = "page"
    STREAM = "stream"


class Param(Struct, frozen=True):
    """One parameter of a path, a query or a body; *schema* is JSON Schema."""

    name: str
    words: str
    schema: Json
    required: bool = False


class Route(Struct, frozen=True):
    """One thing to ask for. *name* is the handler's, or *asks* is: several routes may share one. *shape* names what a good answer looks like
    (``shapes``), or is its media type. *body*: the fields of the JSON object that goes along.
    """

    method: str
    path: str
    name: str
    words: str
    shape: str = "text/html"
    query: tuple[Param, ...] = ()
    body: tuple[Param, ...] = ()
    refusals: tuple[int, ...] = ()
    kind: Kind = Kind.API
    asks: str = ""

    @property
    def verb(self) -> str:
        """The last word of its path: what is asked for."""
        return self.path.rpartition("/")[2]

    @property
    def changes(self) -> bool:
        """Whether asking for it changes anything."""
        return self.method == "POST"

    @property
    def in_path(self) -> tuple[Param, ...]:
        """The parameters in the path."""
        return tuple(param for name, param in _PATH.items() if f"{{{name}}}" in self.path)


def _whole(least: int, most: int) -> Json:
    return {"type": "integer", "minimum": least, "maximum": most}


_NAME: Final = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}
_FLAG: Final = {"type": "string", "enum": ["1", "0", "true", "false"]}
_PATH: Final = {
    "name": Param("name", "The job.", _NAME),
    "number": Param("number", "The incident or drill.", _whole(0, 10**18 - 1)),
    "run": Param("run", "The run.", _whole(0, 10**18 - 1)),
    "button": Param("button", "What is asked of the job.", {"type": "string", "enum": list(BUTTON_VERBS)}),
    "incident_verb": Param("incident_verb", "What is asked of the incident.", {"type": "string", "enum": list(INCIDENT_VERBS)}),
    "asset": Param("asset", "A file of the status page.", {"type": "string"}),
}
_JOB = Param("job", "Only of this job.", _NAME)
_LIMIT = Param("limit", "At most so many, newest first; 50 if not given.", _whole(1, MOST_ROWS))
_RUN = Param("run", "Of this run; the latest if not given.", _whole(0, MOST_NUMBER))
_ATTEMPT = Param("attempt", "Of this attempt; the latest if not given.", _whole(0, MOST_NUMBER))
_TIMEOUT = Param("timeout", "Seconds to wait for the answer; 60 if not given.", _whole(1, MAX_ASK_DEADLINE_S))
_W, _D, _H, _M, _S = (f"[1-9][0-9]{{0,{more}}}{unit}" for more, unit in ((1, "w"), (2, "d"), (3, "h"), (3, "m"), (3, "s")))
_DURATION: Final = {  # what is taken is more (core.units.parse_duration); this is what to write
    "type": "string",
    "pattern": f"^({_W}|({_W})?{_D}|({_W})?({_D})?{_H}|({_W})?({_D})?({_H})?{_M}|({_W})?({_D})?({_H})?({_M})?{_S})$",
}
_TEXT: Final = {"type": "string", "maxLength": 1000}
_SAID: Final = (Param("who", "Who says so.", {"type": "string", "maxLength": 200}), Param("note", "What to remember with it.", _TEXT))
_BODIES: Final = {
    "ack": _SAID,
    "resolve": (*_SAID, Param("fix", "What mended it; a regression names it.", _TEXT)),
    "pause": (Param("for", "End the pause by itself after so long, e.g. 1h30m.", _DURATION),),
    "silence": (Param("for", "How long, e.g. 2h.", _DURATION, required=True), Param("comment", "Why.", _TEXT)),
    "release": (Param("key", "Which record.", {"type": "string", "maxLength": 255}, required=True), Param("because", "Why.", _TEXT)),
    "drill": (
        Param("fault", "What is injected.", {"type": "string", "enum": [fault.value for fault in Fault]}, required=True),
        Param("cap", "How long it may take at most.", _DURATION),
        Param(
            "prometheus",
            "The address of a Prometheus that is asked for its rule.",
            {"type": "string", "pattern": "^http://[a-z]{1,20}(:[1-9][0-9]{0,3})?$"},
        ),
    ),
}
_DONE = Param("done", "What was just asked for, to say so.", {"type": "string", "enum": [*JOB_VERBS, *INCIDENT_VERBS]})

TABLE: Final = (
    Route("GET", "/metrics", "metrics", "Prometheus metrics, text format 0.0.4; packed for those who unpack.", "text/plain"),
    Route("GET", "/healthz", "healthz", "Whether the supervising loop comes round.", "Health", refusals=(503,)),
    Route("GET", "/readyz", "readyz", "Whether supervising has begun.", "Health", refusals=(503,)),
    Route("GET", "/api/v1/openapi.json", "openapi", "This document.", "OpenApi"),
    Route("GET", "/api/v1/version", "version", "The version of Mainstay, of its Python, and of this API.", "Version"),
    Route("GET", "/api/v1/config", "config", "The config in force, in short: no commands, environments, addresses or secrets.", "Config"),
    Route("GET", "/api/v1/status", "status", "The daemon and all jobs.", "Status"),
    Route("GET", "/api/v1/jobs", "jobs", "All jobs.", "Jobs"),
    Route("GET", "/api/v1/jobs/{name}", "job", "One job.", "Job", refusals=(404,)),
    Route(
        "GET",
        "/api/v1/jobs/{name}/logs",
        "logs",
        "A piece of the captured output: its last lines, or what came after `offset`.",
        "Log",
        (
            _RUN,
            _ATTEMPT,
            Param("n", "The last so many lines; 100 if not given.", _whole(0, MOST_LINES)),
            Param("offset", "From this byte on, instead of the last lines.", _whole(0, MOST_NUMBER)),
        ),
        refusals=(404,),
    ),
    Route(
        "GET",
        "/api/v1/jobs/{name}/logs/stream",
        "log_stream",
        "The output as it is written, over the next runs too, as server-sent events: `log` (a Log), `gap`, `end`.",
        "text/event-stream",
        (Param("n", "Begin with the last so many lines; 100 if not given.", _whole(0, 10_000)),),
        refusals=(404, 503),
        kind=Kind.STREAM,
    ),
    Route(
        "GET",
        "/api/v1/jobs/{name}/drills",
        "drills",
        "The last result of each fault that the job was drilled for.",
        "Drills",
        refusals=(404,),
    ),
    Route(
        "GET",
        "/api/v1/jobs/{name}/quarantine",
        "quarantine",
        "The records of the job's input that are set aside, oldest first; with `key` the one, and the dossier of the death that it is there for.",
        "Quarantine",
        (Param("key", "Only this record.", {"type": "string", "maxLength": 255}),),
        refusals=(404,),
    ),
    Route("GET", "/api/v1/drills/{number}", "drill", "One drill of this life of the brain, as it stands.", "Drill", refusals=(404,)),
    Route("GET", "/api/v1/runs", "runs", "Runs, newest first.", "Runs", (_JOB, _LIMIT), refusals=(404,)),
    Route("GET", "/api/v1/runs/{run}", "run", "One run that has ended or is alive.", "Run", refusals=(404,)),
    Route("GET", "/api/v1/runs/{run}/dossier", "dossier", "What is known of how that run ended.", "Report", refusals=(404,)),
    Route(
        "GET",
        "/api/v1/slots",
        "slots",
        "Due fire times of one job and what became of them, newest first.",
        "Slots",
        (_JOB, _LIMIT),
        refusals=(404,),
    ),
    Route(
        "GET",
        "/api/v1/why",
        "why",
        "The dossier of the last bad end: of all jobs, of one, or of a run.",
        "Report",
        (_JOB, Param("run", "Of this run.", _whole(0, MOST_NUMBER))),
        refusals=(404,),
    ),
    Route(
        "GET",
        "/api/v1/incidents",
        "incidents",
        "Incidents, newest first.",
        "Incidents",
        (Param("open", "Only those that are open.", _FLAG), _LIMIT),
    ),
    Route("GET", "/api/v1/incidents/{number}", "incident", "One incident with its dossier.", "Incident", refusals=(404,)),
    Route(
        "GET",
        "/api/v1/events",
        "events",
        "Changes as they happen, as server-sent events: `job` (a Job), `gone`, `incident`, `end`.",
        "text/event-stream",
        (_JOB,),
        refusals=(404,),
        kind=Kind.STREAM,
    ),
    *(
        Route(
            "POST",
            f"/api/v1/jobs/{{name}}/{verb}",
            f"{verb}_job",
            words,
            "Drill" if verb == "drill" else "Done",
            (_TIMEOUT,),
            _BODIES.get(verb, ()),
            refusals=(404, 409),
            asks="ask_job",
        )
        for verb, words in _JOB_VERBS.items()
    ),
    *(
        Route(
            "POST",
            f"/api/v1/incidents/{{number}}/{verb}",
            f"{verb}_incident",
            words,
            "Done",
            (_TIMEOUT,),
            _BODIES.get(verb, ()),
            refusals=(404,),
            asks="ask_incident",
        )
        for verb, words in _INCIDENT_VERBS.items()
    ),
    Route(
        "POST",
        "/api/v1/reload",
        "reload",
        "Takes the config anew, whole or not at all.",
        "Done",
        (Param("plan", "Only say what would change.", _FLAG), _TIMEOUT),
        refusals=(422,),
    ),
    Route(
        "GET",
        "/",
        "overview",
        "All jobs at a glance.",
        query=(Param("show", "Which jobs.", {}), Param("page", "Which page.", {})),
        kind=Kind.PAGE,
    ),
    Route("GET", "/jobs/{name}", "job_page", "One job: state, limits, runs, live output.", query=(_DONE,), refusals=(404,), kind=Kind.PAGE),
    Route("GET", "/runs", "runs_page", "The ledger.", query=(_JOB,), kind=Kind.PAGE),
    Route("GET", "/runs/{run}", "run_page", "The dossier of a run.", refusals=(404,), kind=Kind.PAGE),
    Route("GET", "/incidents", "incidents_page", "Open and past incidents.", kind=Kind.PAGE),
    Route("GET", "/incidents/{number}", "incident_page", "An incident with its dossier.", query=(_DONE,), refusals=(404,), kind=Kind.PAGE),
    Route(
        "GET",
        "/assets/{asset}",
        "asset",
        "Style, script and icon of the status page.",
        "text/css",
        (Param("v", "Its version.", {}),),
        refusals=(404,),
        kind=Kind.PAGE,
    ),
    Route("POST", "/jobs/{name}/{button}", "form_job", "The buttons of a job's page.", refusals=(404, 409), kind=Kind.PAGE),
    Route(
        "POST",
        "/incidents/{number}/{incident_verb}",
        "form_incident",
        "The buttons of an incident's page.",
        refusals=(404,),
        kind=Kind.PAGE,
    ),
)
