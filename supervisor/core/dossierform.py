"""The form of a dossier: each key with what it may be and what it means. The JSON Schema, the page in docs/ and the tests all read this table."""

from collections.abc import Mapping
from typing import Any, Final

from supervisor.core.dossier import BYTES_MAX, OUTPUT_MAX, SCHEMA
from supervisor.core.evidence import CycleKind
from supervisor.core.model import LimitName, Outcome

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_TEXT_OR_NULL: Final[Json] = {"type": ["string", "null"]}
_WHOLE: Final[Json] = {"type": "integer", "minimum": 0}
_WHOLE_OR_NULL: Final[Json] = {"type": ["integer", "null"], "minimum": 0}
_NUMBER: Final[Json] = {"type": "number", "minimum": 0}
_NUMBER_OR_NULL: Final[Json] = {"type": ["number", "null"], "minimum": 0}
_LINES: Final[Json] = {"type": "array", "items": _TEXT}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_FACTS: Final[Json] = {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "null"]}}


def _object(required: Mapping[str, Json], *, nullable: bool = False) -> Json:
    """An object with these keys. More may come: a reader has to pass over what it does not know."""
    return {"type": ["object", "null"] if nullable else "object", "required": list(required), "properties": dict(required)}


def _enum(words: Any, *, nullable: bool = False) -> Json:
    return {"enum": [*(str(word) for word in words), *([None] if nullable else [])]}


_FRAME: Final = _object({"function": _TEXT, "file": _TEXT, "line": _WHOLE})
_FRAMES: Final[Json] = {"type": "array", "items": {"$ref": "#/$defs/frame"}}
_STACK: Final = _object({"thread": {"type": "integer"}, "depth": _WHOLE, "frames": _FRAMES})
_LIMIT: Final = _object(
    {
        "limit": _enum([*LimitName, "files"]),
        "line": _NUMBER_OR_NULL,
        "peak": _NUMBER_OR_NULL,
        "unit": _enum(["bytes", "seconds", "frames", "processes", "descriptors"]),
        "struck": {"type": "boolean"},
    }
)
_CHANGE: Final = _object({"kind": _TEXT, "what": _TEXT, "was": _TEXT_OR_NULL, "now": _TEXT_OR_NULL})

# What each key may be, and what it means.
FIELDS: Final[Mapping[str, tuple[Json, str]]] = {
    "schema": ({"const": SCHEMA}, "The version of this form. Keys are only ever added under the same number."),
    "job": (_TEXT, "The job's name; of `mainstay exec` the program's."),
    "run": (_WHOLE, "The run; 0 of a command under `mainstay exec`."),
    "attempt": ({"type": "integer", "minimum": 1}, "Which attempt of the run, from 1."),
    "outcome": (_enum(Outcome), "The verdict."),
    "summary": (_TEXT, "What happened, in one sentence."),
    "limit": (_enum(LimitName, nullable=True), "The limit that struck, or null."),
    "exit_code": (_WHOLE_OR_NULL, "Its own exit code; null when it did not exit by itself."),
    "signal": (_WHOLE_OR_NULL, "The number of the signal that it died of, or null."),
    "started_at": (_TIME, "When the attempt began."),
    "ended_at": (_TIME, "When the last of it had gone."),
    "duration_seconds": (_NUMBER, "How long it lived, by the monotonic clock; of a lost one at most, by the wall clock."),
    "memory_peak_bytes": (_NUMBER, "The most memory that its processes held together."),
    "cpu_seconds": (_NUMBER, "CPU time of its processes."),
    "limits": (
        {"type": "array", "items": _LIMIT},
        "Each limit with its line (null: none), the peak that was measured (null: not measured), and whether it struck.",
    ),
    "evidence": (_LINES, "The facts that the verdict rests on, as sentences."),
    "cycle": (
        _object({"frames": _FRAMES, "depth": _WHOLE, "kind": _enum(CycleKind), "notes": _LINES}, nullable=True),
        "What called itself: one turn, outermost call first; how deep it stood; and in `notes` which arguments did not change from turn to turn.",
    ),
    "exception": (
        _object({"type": _TEXT, "message": _TEXT, "where": _TEXT, "depth": _WHOLE, "frames": _FRAMES, "chain": _LINES}, nullable=True),
        "The uncaught exception, its frames outermost first, and in `chain` what it came from, nearest first.",
    ),
    "stacks": (
        {"type": "array", "items": _STACK},
        "The stacks of all threads when a limit struck, innermost frame first; `depth` is the true number of frames.",
    ),
    "memory_curve": (
        {"type": "array", "items": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}},
        "Memory over time: pairs of seconds since the start and bytes.",
    ),
    "memory_types": (
        {"type": "array", "items": _object({"type": _TEXT, "count": _WHOLE, "bytes": _WHOLE})},
        "The largest types of objects at the soft memory line, estimated from a sample.",
    ),
    "waiting": (
        {"type": "array", "items": _object({"pid": _WHOLE, "thread": _WHOLE, "what": _TEXT, "wchan": _TEXT, "call": _WHOLE_OR_NULL})},
        "What each thread did when it was looked at; `wchan` is the kernel's wait channel, `call` the number of the system call (null: in none).",
    ),
    "busy_lines": (
        {
            "type": "array",
            "items": _object(
                {"function": _TEXT, "file": _TEXT, "line": _WHOLE, "samples": _WHOLE, "of": _WHOLE, "in_c": {"type": "boolean"}}
            ),
        },
        "Where a busy loop went round: lines of the application that it stood at in `samples` of `of` looks; `in_c`: always at the same call into C.",
    ),
    "progress": (
        _object(
            {"record": _TEXT_OR_NULL, "records": _WHOLE_OR_NULL, "done": _WHOLE_OR_NULL, "total": _WHOLE_OR_NULL, "stage": _TEXT},
            nullable=True,
        ),
        "What the job said of itself: the key of the record in work, records finished, done of total, stage. Null for a job that says nothing.",
    ),
    "output_tail": (
        _TEXT,
        "The end of what it wrote, unprintable characters escaped, so that it can be shown on a terminal. Empty where `left_out` has `output`.",
    ),
    "output_raw_base64": (
        _TEXT_OR_NULL,
        f"The same as the bytes that they were (at most {OUTPUT_MAX:,}), in base64; null when `output_tail` is exactly that.",
    ),
    "output_bytes": (
        _WHOLE,
        "How much it wrote. Where `left_out` has `output_bytes` nobody knows, and it is 0: what `mainstay exec` runs without `--output` or `--stall` writes straight to the caller's own stdout and stderr.",
    ),
    "output_dropped_bytes": (_WHOLE, "How much of it was not kept, for the limit on output."),
    "environment": (
        _FACTS,
        "What it ran on, and how that was at its end: host, kernel, Python, user, load, free memory, pressure. Null: not looked at.",
    ),
    "containment": (
        {"type": "object", "additionalProperties": _TEXT},
        "What held its limits: `cgroup`, `rlimit`, `poll` or `none` for `memory`, `processes`, `kill`.",
    ),
    "changed": (
        _object(
            {
                "since_run": _WHOLE_OR_NULL,
                "since": {"type": ["string", "null"], "format": "date-time"},
                "items": {"type": "array", "items": _CHANGE},
                "more": _WHOLE,
                "note": _TEXT,
            },
            nullable=True,
        ),
        "What is different from the last good run: code, commit, packages, config, interpreter, input files. Null: not looked at; `note` says why there is nothing to compare.",
    ),
    "fingerprint": (_TEXT, "One name for one bug, whichever costume it died in."),
    "incident": (_WHOLE_OR_NULL, "The incident that this end belongs to."),
    "regression_of": (_WHOLE_OR_NULL, "The incident of the same bug that was over before."),
    "regression_note": (_TEXT, "How that one ended."),
    "did": (
        _LINES,
        "What Mainstay did; where it healed before in the same sequence of failures, also the latest six of those steps, in one line, commands with how they ended.",
    ),
    "will": (_LINES, "What it does next."),
    "left_out": (
        _LINES,
        f"Keys that were shortened to stay within {BYTES_MAX // 1024} KiB, that `dossier` in the job's config keeps out (`output`, `messages`), or that nobody looked at (`output` and `output_bytes` of `mainstay exec`).",
    ),
}


def schema() -> Json:
    """The JSON Schema (draft 2020-12) of a dossier."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A dossier of Mainstay",
        "description": "Why one attempt of a job ended. Readers pass over keys that they do not know.",
        "type": "object",
        "required": list(FIELDS),
        "properties": {name: {**form, "description": meaning} for name, (form, meaning) in FIELDS.items()},
        "$defs": {"frame": _FRAME},
    }


def reference() -> str:
    """The table of keys for docs/dossier.md."""
    return "\n".join(["| key | meaning |", "|---|---|", *(f"| `{name}` | {meaning} |" for name, (_, meaning) in FIELDS.items())])
