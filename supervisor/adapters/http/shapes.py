"""What answers look like, as JSON Schema: the components of the OpenAPI document. Fields may be added; none changes its meaning."""

from typing import Any, Final

from supervisor.core.model import Outcome, State

Json = dict[str, Any]


def _nullable(kind: str, **more: Any) -> Json:
    return {"type": [kind, "null"], **more}


def _object(fields: Json, *, optional: tuple[str, ...] = ()) -> Json:
    return {"type": "object", "properties": fields, "required": [name for name in fields if name not in optional]}


def _list(shape: Json) -> Json:
    return {"type": "array", "items": shape}


def of(name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_NUMBER: Final = {"type": "number"}
_YES: Final = {"type": "boolean"}
_STAMP: Final = {"type": "string", "format": "date-time"}
_STAMP_OR_NULL: Final = _nullable("string", format="date-time")
_WHOLE_OR_NULL: Final = _nullable("integer")
_NUMBER_OR_NULL: Final = _nullable("number")
_TEXT_OR_NULL: Final = _nullable("string")
_OUTCOME: Final = {"type": "string", "enum": [outcome.value for outcome in Outcome]}

_FRAME: Final = _object({"function": _TEXT, "file": _TEXT, "line": _WHOLE})
_LIVE: Final = _object(
    {
        "run": _WHOLE,
        "attempt": _WHOLE,
        "phase": _TEXT,
        "pid": _WHOLE_OR_NULL,
        "trigger": _TEXT,
        "slot": _STAMP_OR_NULL,
        "started_at": _STAMP_OR_NULL,
    }
)
_LAST: Final = _object(
    {
        "run": _WHOLE,
        "outcome": _OUTCOME,
        "summary": _TEXT,
        "ended_at": _STAMP,
        "duration_seconds": _NUMBER,
        "memory_peak_bytes": _WHOLE,
    }
)
_LIMITS: Final = _object(
    {
        "memory_bytes": _WHOLE_OR_NULL,
        "memory_soft_bytes": _WHOLE_OR_NULL,
        "recursion_frames": _WHOLE_OR_NULL,
        "time_seconds": _NUMBER_OR_NULL,
        "cpu_seconds": _NUMBER_OR_NULL,
        "stall_seconds": _NUMBER_OR_NULL,
        "processes": _WHOLE_OR_NULL,
        "files": _WHOLE_OR_NULL,
        "output_bytes": _WHOLE_OR_NULL,
    }
)
_INCIDENT: Final = {
    "incident": _WHOLE,
    "job": _TEXT,
    "outcome": _TEXT,
    "severity": _TEXT,
    "summary": _TEXT,
    "fingerprint": _TEXT,
    "opened_at": _STAMP,
    "last_at": _STAMP,
    "occurrences": _WHOLE,
    "first_run": _WHOLE,
    "last_run": _WHOLE,
    "alerted": _YES,
    "acknowledged": _YES,
    "closed_at": _STAMP_OR_NULL,
    "closed_because": _TEXT_OR_NULL,
    "closed_by": _TEXT,
    "fix": _TEXT,
    "acknowledged_at": _STAMP_OR_NULL,
    "acknowledged_by": _TEXT,
    "acknowledged_note": _TEXT,
    "regression_of": _WHOLE_OR_NULL,
    "regression_note": _TEXT,
    "gathered": _list(_TEXT),
    "duration_seconds": _NUMBER_OR_NULL,
    "held": _YES,
    "told": _list(_TEXT),
    "escalated_at": _STAMP_OR_NULL,
}
_QUARANTINED: Final = {
    "key": _TEXT,
    "at": _STAMP,
    "run": _WHOLE,
    "attempt": _WHOLE,
    "outcome": _TEXT,
    "fingerprint": _TEXT,
    "summary": _TEXT,
    "report": {"type": ["object", "null"]},
}
_CHANGE: Final = _object({"job": _TEXT, "kind": _TEXT, "keys": _list(_TEXT), "restarts": _YES, "stops": _YES})
_DRILL: Final = {
    "ok": {"const": True},  # of what begins one
    "schema": _WHOLE,
    "drill": _WHOLE,
    "job": _TEXT,
    "fault": _TEXT,
    "done": _YES,
    "passed": _YES,
    "refused": {"anyOf": [_object({"error": _TEXT, "mend": _TEXT}), {"type": "null"}]},
    "broken": _TEXT_OR_NULL,
    "notes": _list(_TEXT),
    "links": _list(_object({"link": _TEXT, "receiver": _TEXT_OR_NULL, "holds": _YES, "seconds": _NUMBER_OR_NULL, "detail": _TEXT})),
    "at": _NUMBER,  # Unix time, of a result that was kept
}

SHAPES: Final[dict[str, Json]] = {
    "Refused": _object({"error": _TEXT, "mend": _TEXT, "problems": _list(_TEXT)}, optional=("problems",)),
    "Health": _object({"ok": _YES, "detail": _TEXT}),
    "OpenApi": {"type": "object"},
    "Version": _object({"version": _TEXT, "python": _TEXT, "api": _TEXT}),
    "Config": _object(
        {
            "path": _TEXT,
            "state_dir": _TEXT,
            "listen": _TEXT_OR_NULL,
            "history_seconds": _NUMBER,
            "warnings": _list(_TEXT),
            "jobs": _list(
                _object(
                    {
                        "name": _TEXT,
                        "description": _TEXT,
                        "enabled": _YES,
                        "schedule": _TEXT,
                        "user": _TEXT_OR_NULL,
                        "restart_when": _TEXT,
                        "stop_grace_seconds": _NUMBER,
                        "alerts_to": _list(_TEXT),
                        "severity": _TEXT,
                        "limits": _LIMITS,
                    }
                )
            ),
            "receivers": _list(_object({"name": _TEXT, "type": _TEXT})),
        }
    ),
    "Status": _object(
        {
            "daemon": _object(
                {
                    "pid": _WHOLE,
                    "keeper_pid": _WHOLE,
                    "version": _TEXT,
                    "containment": {"type": "object", "additionalProperties": _TEXT},
                    "config": _TEXT,
                    "state_dir": _TEXT,
                    "listen": _TEXT_OR_NULL,
                    "started_at": _STAMP,
                    "closing": _YES,
                    "now": _STAMP,
                    "history_behind": {"anyOf": [_object({"since": _STAMP, "error": _TEXT, "rows": _WHOLE}), {"type": "null"}]},
                }
            ),
            "jobs": _list(of("Job")),
        }
    ),
    "Jobs": _object({"jobs": _list(of("Job"))}),
    "Job": _object(
        {
            "name": _TEXT,
            "description": _TEXT,
            "state": {"type": "string", "enum": [state.value for state in State]},
            "schedule": _TEXT,
            "paused": _YES,
            "paused_until": _STAMP_OR_NULL,
            "parked": _TEXT_OR_NULL,
            "stop_grace_seconds": _NUMBER,
            "next_run": _STAMP_OR_NULL,
            "runs": _list(_LIVE),
            "memory_bytes": _WHOLE_OR_NULL,
            "memory_limit_bytes": _WHOLE_OR_NULL,
            "limits": _LIMITS,
            "processes": _WHOLE_OR_NULL,
            "depth": _WHOLE_OR_NULL,
            "failures_in_row": _WHOLE,
            "restarts": _WHOLE,
            "quarantined": _WHOLE,
            "last": {"anyOf": [_LAST, {"type": "null"}]},
            "last_success_at": _STAMP_OR_NULL,
            "incidents": _list(_WHOLE),
            "quiet": {"anyOf": [_object({"until": _STAMP_OR_NULL, "why": _TEXT}), {"type": "null"}]},
            "silences": _list(_object({"number": _WHOLE, "starts_at": _STAMP, "ends_at": _STAMP_OR_NULL, "comment": _TEXT})),
        }
    ),
    "Log": _object(
        {
            "job": _TEXT,
            "run": _WHOLE_OR_NULL,
            "attempt": _WHOLE_OR_NULL,
            "text": _TEXT,
            "offset": _WHOLE,
            "turned_over": _YES,
            "live": _YES,
        }
    ),
    "Run": _object(
        {
            "run": _WHOLE,
            "job": _TEXT,
            "trigger": _TEXT,
            "slot": _STAMP_OR_NULL,
            "started_at": _STAMP,
            "ended_at": _STAMP_OR_NULL,
            "attempts": _WHOLE,
            "outcome": {"anyOf": [_OUTCOME, {"type": "null"}]},
            "summary": _TEXT,
            "duration_seconds": _NUMBER,
            "memory_peak_bytes": _WHOLE,
            "cpu_seconds": _NUMBER,
        }
    ),
    "Runs": _object({"runs": _list(of("Run"))}),
    "Slots": _object(
        {"slots": _list(_object({"job": _TEXT, "slot": _STAMP, "result": _TEXT, "reason": _TEXT_OR_NULL, "run": _WHOLE_OR_NULL}))}
    ),
    "Report": _object(
        {
            "schema": _WHOLE,
            "job": _TEXT,
            "run": _WHOLE,
            "attempt": _WHOLE,
            "outcome": _OUTCOME,
            "summary": _TEXT,
            "limit": _TEXT_OR_NULL,
            "exit_code": _WHOLE_OR_NULL,
            "signal": _WHOLE_OR_NULL,
            "started_at": _STAMP,
            "ended_at": _STAMP,
            "duration_seconds": _NUMBER,
            "memory_peak_bytes": _WHOLE,
            "cpu_seconds": _NUMBER,
            "evidence": _list(_TEXT),
            "cycle": {
                "anyOf": [
                    _object({"frames": _list(_FRAME), "depth": _WHOLE_OR_NULL, "kind": _TEXT, "notes": _list(_TEXT)}),
                    {"type": "null"},
                ]
            },
            "exception": _nullable("object"),
            "stacks": _list({"type": "object"}),
            "output_tail": _TEXT,
            "fingerprint": _TEXT,
            "did": _list(_TEXT),
            "will": _list(_TEXT),
            "incident": _WHOLE_OR_NULL,
            "containment": {"type": "object"},
            "now": _list(_TEXT),
            "incident_open": _YES,
            "can_start": _YES,
        },
        optional=("now", "incident_open", "can_start"),
    ),
    "Incidents": _object({"incidents": _list(_object(_INCIDENT))}),
    "Incident": _object({**_INCIDENT, "report": {"anyOf": [of("Report"), {"type": "null"}]}}),
    "Done": _object(
        {
            "ok": {"const": True},
            "text": _TEXT,
            "run": _WHOLE,
            "changes": _list(_CHANGE),
            "settings": _object({"at_once": _list(_TEXT), "at_next_start": _list(_TEXT)}),
        },
        optional=("text", "run", "changes", "settings"),
    ),
    "Quarantine": _object({"job": _TEXT, "records": _list(_object(_QUARANTINED, optional=("report",)))}),
    "Drill": _object(_DRILL, optional=("ok", "at")),
    "Drills": _object({"drills": _list(_object(_DRILL, optional=("ok",)))}),
}
