"""The dossier of one attempt: everything that is known of its end, as JSON values of a fixed form and a bounded size.

``make_report`` fills the form of ``core.dossierform``, to which keys are only ever added under the same ``SCHEMA``. What a job can choose (names,
messages, output) is cut here, field by field and then as a whole; that it holds no secrets is seen to before, by ``core.redact``.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, field

from supervisor.core.evidence import BusyLine, Cycle, Evidence, ExceptionFacts, Frame, MemoryType, Progress, Stack, Verdict, Waiting
from supervisor.core.jobs import DossierPolicy, Limits
from supervisor.core.model import Incident, LimitName, RunId, Wall
from supervisor.core.prose import printable, stamp

SCHEMA: Final = 1
BYTES_MAX: Final = 256 * 1024  # of the whole, as UTF-8: a usual one has 2 to 20 KiB
STACKS_KEPT: Final = 32
STACK_FRAMES_KEPT: Final = 200  # of each thread; the true depth stands beside them
CYCLE_FRAMES_KEPT: Final = 50
CURVE_KEPT: Final = 200  # points of the memory over time
NAME_MAX: Final = 300  # of a function's or a file's name
LINE_MAX: Final = 1000
LINES_KEPT: Final = 40
MESSAGE_MAX: Final = 4000
OUTPUT_MAX: Final = 16 * 1024  # bytes of the output's end

Report = Mapping[str, object]


class Occasion(Struct, frozen=True):
    """Which attempt it is about, and what was around it. ``output`` is the end of what the job wrote, bytes that are no UTF-8 as lone surrogates.

    Not ``output_seen``: what it wrote did not come by us, and nobody knows how much it was.
    """

    job: str
    run: RunId
    attempt: int
    started_at: Wall
    ended_at: Wall
    limits: Limits = field(default_factory=Limits)
    policy: DossierPolicy = field(default_factory=DossierPolicy)
    output: str = ""
    containment: Mapping[str, object] = field(default_factory=dict)
    surroundings: Mapping[str, object] | None = None
    changes: Mapping[str, object] | None = None
    output_seen: bool = True


def make_report(
    occasion: Occasion,
    verdict: Verdict,
    evidence: Evidence,
    *,
    did: Sequence[str] = (),
    will: Sequence[str] = (),
    incident: Incident | None = None,
) -> dict[str, object]:
    """The dossier: JSON values only. Times are RFC 3339 in UTC; ``duration_seconds`` is from the monotonic clock."""
    facts, policy = evidence.exit, occasion.policy
    output = occasion.output if policy.output else ""
    escaped = printable(output)
    report: dict[str, object] = {
        "schema": SCHEMA,
        "job": _cut(occasion.job, NAME_MAX),
        "run": occasion.run,
        "attempt": occasion.attempt,
        "outcome": verdict.outcome.value,
        "summary": _cut(verdict.summary, MESSAGE_MAX),
        "limit": None if verdict.limit is None else verdict.limit.value,
        "exit_code": facts.code,
        "signal": facts.signal,
        "started_at": stamp(occasion.started_at),
        "ended_at": stamp(occasion.ended_at),
        "duration_seconds": evidence.duration_s,
        "memory_peak_bytes": max(evidence.memory_peak_bytes, facts.max_rss_bytes, facts.memory_peak_bytes or 0),
        "cpu_seconds": facts.cpu_s,
        "limits": list(_limits(occasion, verdict.limit, evidence)),
        "evidence": _lines(verdict.evidence),
        "cycle": None if verdict.cycle is None else _cycle(verdict.cycle, policy),
        "exception": None if verdict.exception is None else _exception(verdict.exception, policy),
        "stacks": [_stack(stack) for stack in verdict.stacks[:STACKS_KEPT]],
        "memory_curve": [[round(at_s, 3), size] for at_s, size in evidence.memory_curve[:CURVE_KEPT]],
        "memory_types": [_type(each) for each in evidence.words.memory_types[:LINES_KEPT]],
        "waiting": [_waiting(thread) for thread in evidence.look.threads[:LINES_KEPT]] if evidence.look else [],
        "busy_lines": [_busy(line) for line in evidence.study.busy[:LINES_KEPT]] if evidence.study else [],
        "progress": None if evidence.progress is None else _progress(evidence.progress, evidence.records),
        "output_tail": escaped,
        "output_raw_base64": None if escaped == output else base64.b64encode(output.encode("utf-8", "surrogateescape")).decode(),
        "output_bytes": facts.output_bytes,
        "output_dropped_bytes": facts.output_dropped_bytes,
        "environment": None if occasion.surroundings is None else dict(occasion.surroundings),
        "containment": dict(occasion.containment),
        "changed": None if occasion.changes is None else dict(occasion.changes),
        "fingerprint": verdict.fingerprint,
        "incident": None if incident is None else incident.id,
        "regression_of": None if incident is None else incident.regression_of,
        "regression_note": "" if incident is None else incident.regression_note,
        "did": _lines(did),
        "will": _lines(will),
        "left_out": list(_left_out(occasion)),
    }
    return fit(report)


def encode(report: Report) -> str:
    """As JSON text in one line."""
    return json.dumps(report, ensure_ascii=False, separators=(",", ":"))


def fit(report: dict[str, object]) -> dict[str, object]:
    """The same within ``BYTES_MAX``: what is too much goes, the least telling first, and ``left_out`` names it."""
    for name, shorten in SHORTENINGS:
        if _size(report) <= BYTES_MAX:
            break
        shorter = shorten(report)
        if shorter != report:
            kept = _items(report, "left_out")
            report = {**shorter, "left_out": [*kept, *([] if name in kept else [name])]}
    return report


def _size(report: Report) -> int:
    return len(encode(report).encode("utf-8", "surrogatepass"))


# ---------------------------------------------------------------- the parts


def _left_out(occasion: Occasion) -> Iterator[str]:
    """What is not in it from the beginning: the job's own data by its config, and what nobody looked at (``output_bytes`` has to be a number)."""
    if not (occasion.policy.output and occasion.output_seen):
        yield "output"
    if not occasion.output_seen:
        yield "output_bytes"
    if not occasion.policy.messages:
        yield "messages"


def _limits(occasion: Occasion, struck: LimitName | None, evidence: Evidence) -> Iterator[dict[str, object]]:
    """Each line with the peak that was measured against it; null where there is no line or no measurement."""
    limits = occasion.limits
    memory = max(evidence.memory_peak_bytes, evidence.exit.memory_peak_bytes or 0, evidence.exit.max_rss_bytes)
    depth = max(evidence.depth_peak, evidence.look.depth if evidence.look is not None else 0)
    breach = evidence.breach
    rows: tuple[tuple[str, str, float | None, float | None], ...] = (
        ("memory", "bytes", limits.memory_bytes, memory),
        ("memory_soft", "bytes", limits.memory_soft_bytes, memory),
        ("recursion", "frames", limits.recursion_frames, depth or None),
        ("time", "seconds", limits.time_s, evidence.duration_s),
        ("cpu", "seconds", limits.cpu_s, evidence.exit.cpu_s),
        ("stall", "seconds", limits.stall_s, None),
        ("processes", "processes", limits.processes, evidence.processes_peak or None),
        ("files", "descriptors", limits.files, None),
        ("output", "bytes", limits.output_bytes, evidence.exit.output_bytes if occasion.output_seen else None),
    )
    for name, unit, line, peak in rows:
        measured = breach.measured if breach is not None and breach.limit.value == name else None
        highest = peak if measured is None else max(measured, peak or 0.0)
        yield {"limit": name, "line": line, "peak": highest, "unit": unit, "struck": struck is not None and struck.value == name}


def _frame(frame: Frame) -> dict[str, object]:
    return {"function": _cut(frame.function, NAME_MAX), "file": _cut(frame.file, NAME_MAX), "line": frame.line}


def _frames(frames: Sequence[Frame], most: int) -> list[dict[str, object]]:
    """The first and the last of them where there are more than *most*."""
    kept = frames if len(frames) <= most else [*frames[: most // 2], *frames[-(most - most // 2) :]]
    return [_frame(frame) for frame in kept]


def _cycle(cycle: Cycle, policy: DossierPolicy) -> dict[str, object]:
    frames = [_frame(frame) for frame in cycle.frames[:CYCLE_FRAMES_KEPT]]
    notes = [*cycle.notes, *(cycle.values if policy.values else ())]
    return {"frames": frames, "depth": cycle.depth, "kind": cycle.kind.value, "notes": _lines(notes)}


def _exception(error: ExceptionFacts, policy: DossierPolicy) -> dict[str, object]:
    message, chain = error.message, error.chain
    if not policy.messages:
        message, chain = "", tuple(link.partition(":")[0] for link in chain)
    return {
        "type": _cut(error.type, NAME_MAX),
        "message": _cut(message, MESSAGE_MAX),
        "where": error.where,
        "depth": error.depth,
        "frames": _frames(error.frames, STACK_FRAMES_KEPT),
        "chain": _lines(chain),
    }


def _stack(stack: Stack) -> dict[str, object]:
    return {"thread": stack.thread, "depth": stack.depth, "frames": [_frame(frame) for frame in stack.frames[:STACK_FRAMES_KEPT]]}


def _type(each: MemoryType) -> dict[str, object]:
    return {"type": _cut(each.type, NAME_MAX), "count": each.count, "bytes": each.bytes}


def _waiting(thread: Waiting) -> dict[str, object]:
    what, wchan = _cut(thread.what, NAME_MAX), _cut(thread.wchan, NAME_MAX)
    return {"pid": thread.pid, "thread": thread.thread, "what": what, "wchan": wchan, "call": thread.call}


def _busy(line: BusyLine) -> dict[str, object]:
    return _frame(line.frame) | {"samples": line.samples, "of": line.of, "in_c": line.in_c}


def _progress(progress: Progress, records: int | None) -> dict[str, object]:
    record = None if progress.record is None else _cut(progress.record, NAME_MAX)
    return {"record": record, "records": records, "done": progress.done, "total": progress.total, "stage": _cut(progress.stage, NAME_MAX)}


def _lines(lines: Sequence[str]) -> list[str]:
    return [_cut(line, LINE_MAX) for line in lines[:LINES_KEPT]]


def _cut(text: str, most: int) -> str:
    """At most *most* characters that any JSON reader takes: half a surrogate pair becomes its escape."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return cut if cut.isascii() else "".join(c if not "\ud800" <= c <= "\udfff" else f"\\u{ord(c):04x}" for c in cut)


# ---------------------------------------------------------------- when it is too much


def _items(report: Report, key: str) -> list[Any]:
    value = report.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _with_stacks(frames: int, stacks: int) -> Callable[[dict[str, object]], dict[str, object]]:
    def shorten(report: dict[str, object]) -> dict[str, object]:
        kept = [{**stack, "frames": stack["frames"][:frames]} for stack in _items(report, "stacks")[:stacks]]
        return {**report, "stacks": kept}

    return shorten


def _short_frames(key: str, most: int) -> Callable[[dict[str, object]], dict[str, object]]:
    """The first and the last frames of the exception or the cycle."""

    def shorten(report: dict[str, object]) -> dict[str, object]:
        found = report[key]
        if not isinstance(found, Mapping):
            return report
        frames = _items(found, "frames")
        kept = frames if len(frames) <= most else [*frames[: most // 2], *frames[-(most // 2) :]]
        return {**report, key: {**found, "frames": kept}}

    return shorten


def _short_text(key: str, most: int) -> Callable[[dict[str, object]], dict[str, object]]:
    return lambda report: {**report, key: str(report[key])[-most:]}


def _short_lines(key: str, lines: int, most: int) -> Callable[[dict[str, object]], dict[str, object]]:
    return lambda report: {**report, key: [_cut(str(line), most) for line in _items(report, key)[:lines]]}


def _without(key: str) -> Callable[[dict[str, object]], dict[str, object]]:
    return lambda report: {**report, key: None}


# Costly and least telling first; after the last one there is nothing left that could be long.
SHORTENINGS: Final[tuple[tuple[str, Callable[[dict[str, object]], dict[str, object]]], ...]] = (
    ("stacks", _with_stacks(50, 8)),
    ("exception", _short_frames("exception", 60)),
    ("output_raw_base64", _without("output_raw_base64")),
    ("stacks", _with_stacks(20, 4)),
    ("exception", _short_frames("exception", 20)),
    ("cycle", _short_frames("cycle", 20)),
    ("output_tail", _short_text("output_tail", 4000)),
    ("evidence", _short_lines("evidence", 15, 500)),
    ("changed", _without("changed")),
    ("environment", _without("environment")),
    ("stacks", _with_stacks(0, 0)),
    ("cycle", _without("cycle")),
    ("exception", _without("exception")),
)
