"""One screen of plain words about a dossier.

``screen`` and ``one_line`` need only the keys of ``core.dossier``, so they also show reports that were read back from the history or from a
file, of another version too. Everything a job can choose is escaped before it is shown.
"""

import textwrap
from collections.abc import Mapping, Sequence

from supervisor.core.model import Outcome
from supervisor.core.prose import about_duration, about_size, clean, counted, signal_name

WIDTH = 100
LINES_MAX = 40
OUTPUT_LINES = 5

# Which key of the config moves the line that struck, and the option of `mainstay exec` for the same.
KEY_OF_LIMIT = {
    "memory": ("memory", "--memory"),
    "memory_soft": ("memory_soft", "--memory"),
    "recursion": ("recursion", "--recursion"),
    "time": ("time", "--time"),
    "cpu": ("cpu", "--cpu"),
    "stall": ("stall", "--stall"),
    "processes": ("processes", "--processes"),
    "output": ("output", "--output"),
}

Report = Mapping[str, object]


def one_line(report: Report) -> str:
    """The report in a line: job, run, outcome and summary."""
    return clean(f"{_name(report)}: {_text(report, 'outcome')}: {_text(report, 'summary')}", 500)


def screen(report: Report) -> str:
    """The report on one screen, at most 40 lines of 100 columns, ending with a line break."""
    attempt = f", attempt {_text(report, 'attempt')}" if report.get("run") else ""
    head = f"{_name(report)}{attempt}: {_text(report, 'outcome').upper()}"
    first = [_fit(head), *_wrapped(_text(report, "summary"), "  ", most=4), "", *_when(report)]
    last = [
        *_section("What Mainstay did", _list(report, "did"), most=4),
        *_section("What it does next", _list(report, "will"), most=4),
        *_section("How to override", override(report), most=3),
    ]
    middle = [
        *_section("Evidence", _list(report, "evidence"), most=10),
        *_cycle_lines(report),
        *_stack_lines(report),
        *_section("Last output", _tail(report), most=OUTPUT_LINES, wrap=False),
    ]
    room = LINES_MAX - len(first) - len(last)
    if len(middle) > room:
        middle = [*middle[: max(room - 1, 0)], "  … the report (--json) has the rest"]
    return "\n".join(line.rstrip() for line in [*first, *middle, *last]) + "\n"


def override(report: Report) -> list[str]:
    """What a person can do who knows better."""
    found: list[str] = []
    job, limit, outcome = _text(report, "job"), report.get("limit"), report.get("outcome")
    if isinstance(limit, str) and limit in KEY_OF_LIMIT:
        key, option = KEY_OF_LIMIT[limit]
        found.append(f"if the job is right and the line is wrong: raise limits.{key} in the config (exec: {option})")
    elif outcome == Outcome.RECURSION.value:
        found.append("if the job is right: raise limits.recursion in the config (exec: --recursion)")
    if _list(report, "will") and outcome not in (Outcome.SUCCEEDED.value, Outcome.STOPPED.value):  # `mainstay exec` will do nothing more
        found.append(f"run it again now: mainstay trigger {clean(job, 60)}; start it although parked: mainstay start {clean(job, 60)}")
    return found


# ---------------------------------------------------------------- the screen's parts


def _name(report: Report) -> str:
    """The job and its run; a run 0 is a command under `mainstay exec`, which has no runs."""
    return f"{_text(report, 'job')} run {_text(report, 'run')}" if report.get("run") else _text(report, "job")


def _when(report: Report) -> list[str]:
    code, signal = report.get("exit_code"), report.get("signal")
    end = signal_name(signal) if isinstance(signal, int) else "no exit code" if code is None else f"exit code {code}"
    ran = f"  {_text(report, 'started_at')} to {_text(report, 'ended_at')} ({about_duration(_number(report, 'duration_seconds'))}), {end}"
    used = f"  memory peak {about_size(_number(report, 'memory_peak_bytes'))}, CPU {about_duration(_number(report, 'cpu_seconds'))}"
    extras = [f"limit {report['limit']}"] if report.get("limit") else []
    extras += [f"incident {report['incident']}"] if report.get("incident") is not None else []
    extras += [f"fingerprint {report['fingerprint']}"] if report.get("fingerprint") else []
    return [_fit(ran), _fit(", ".join([used, *extras]))]


def _cycle_lines(report: Report) -> list[str]:
    cycle = report.get("cycle")
    if not isinstance(cycle, Mapping):
        return []
    frames = [_show_frame(frame) for frame in _items(cycle, "frames")]
    notes = [str(note) for note in _items(cycle, "notes")]
    depth = cycle.get("depth")
    title = f"What called itself ({cycle.get('kind')}, {counted(depth if isinstance(depth, int) else 0, 'level')})"
    return _section(title, [*frames[:6], *notes[:4]], most=10)


def _stack_lines(report: Report) -> list[str]:
    """Where the first thread stood, and the exception's own place; nothing where the cycle has said it already."""
    if isinstance(report.get("cycle"), Mapping):
        return []
    error = report.get("exception")
    if isinstance(error, Mapping):
        frames = [_show_frame(frame) for frame in _items(error, "frames")][-5:]
        return _section(f"{error.get('type')}: {error.get('message')}", frames, most=5)
    stacks = [stack for stack in _items(report, "stacks") if isinstance(stack, Mapping)]
    if not stacks:
        return []
    frames = [_show_frame(frame) for frame in _items(stacks[0], "frames")][:5]
    return _section("Where it stood, innermost first", frames, most=5)


def _show_frame(frame: object) -> str:
    if not isinstance(frame, Mapping):
        return str(frame)
    return f"{frame.get('function')}  {frame.get('file')}:{frame.get('line')}"


def _tail(report: Report) -> list[str]:
    return _text(report, "output_tail").rstrip("\n").split("\n")[-OUTPUT_LINES:] if report.get("output_tail") else []


def _section(title: str, lines: Sequence[str], *, most: int, wrap: bool = True) -> list[str]:
    """A heading and its lines, or nothing at all; what exceeds *most* lines is counted."""
    if not lines:
        return []
    shown: list[str] = []
    for line in lines[:most]:
        shown += _wrapped(line, "  - ", most=2) if wrap else [_fit(f"  | {line}")]
    if len(lines) > most:
        shown.append(f"  … and {len(lines) - most} more")
    return ["", _fit(title), *shown]


def _wrapped(text: str, indent: str, *, most: int) -> list[str]:
    """*text* in at most *most* lines, each begun with *indent* or as much room."""
    room = " " * len(indent)
    return textwrap.wrap(
        clean(text), WIDTH, initial_indent=indent, subsequent_indent=room, max_lines=most, placeholder=" …", break_on_hyphens=False
    ) or [indent.rstrip()]


def _fit(text: str) -> str:
    """One line, escaped first and cut after: an escape is longer than what it stands for."""
    escaped = clean(text)
    return escaped if len(escaped) <= WIDTH else escaped[: WIDTH - 1] + "…"


def _text(report: Report, key: str) -> str:
    value = report.get(key)
    return "?" if value is None else str(value)


def _number(report: Report, key: str) -> float:
    value = report.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _list(report: Report, key: str) -> list[str]:
    return [str(item) for item in _items(report, key)]


def _items(mapping: Mapping[str, object], key: str) -> list[object]:
    value = mapping.get(key)
    return list(value) if isinstance(value, list | tuple) else []
