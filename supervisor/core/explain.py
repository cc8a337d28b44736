"""One screen of plain words about a dossier.

``screen`` and ``one_line`` need only the keys of ``core.dossier``, so they also show reports that were read back from the history or from a
file, of another version too. Everything a job can choose is escaped before it is shown.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from supervisor.core import survey
from supervisor.core.cells import cut, folded
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

LINEAGE_MOST = 12  # levels that the guard lets a script start itself (MOST in its lineage)

# What a person may want to change, by outcome, where no limit struck.
HINTS = {
    "recursion": "if the job is right: raise limits.recursion in the config (exec: --recursion)",
    "memory": "if the job needs that much: raise limits.memory in the config (exec: --memory)",
    "unmet": "if it expects too much: change `expect` in the config",
    "launch_failed": "mend the command, its user or its directory in the config, then: mainstay reload",
    "host_oom": "the host was short of memory: give it more, or lower limits.memory of what else runs there",
}
# The same for a launch that failed for what the host is out of, by the kernel's words for it.
SHORTAGES = {
    "No space left on device": "no room on the disk: make some where the summary says (of Mainstay's own folders: state_dir); the command is not at fault",
    "Disk quota exceeded": "the disk quota is used up: make room where the summary says (of Mainstay's own folders: state_dir); the command is not at fault",
    "Too many open files": "no file descriptors left: raise LimitNOFILE= of Mainstay's unit (ulimit -n), or fs.file-max; the command is not at fault",
    "Resource temporarily unavailable": "no processes left: raise TasksMax= of Mainstay's unit, ulimit -u or kernel.pid_max; the command is not at fault",
    "Cannot allocate memory": "the host was short of memory: give it more, or lower limits.memory of what else runs there",
}
BARS = "▁▂▃▄▅▆▇█"

Report = Mapping[str, object]


def one_line(report: Report) -> str:
    """The report in a line: job, run, outcome and summary."""
    return clean(f"{_name(report)}: {_text(report, 'outcome')}: {_text(report, 'summary')}", 500)


def screen(report: Report) -> str:
    """The report on one screen, at most 40 lines of 100 columns, ending with a line break.

    What happened comes first and what to do last; what lies between is shortened where it is too much, the longest part first.
    """
    attempt = f", attempt {_text(report, 'attempt')}" if report.get("run") else ""
    head = f"{_name(report)}{attempt}: {_text(report, 'outcome').upper()}"
    first = [_fit(head), *_wrapped(_text(report, "summary"), "  ", most=4), "", *_when(report), *_regression(report)]
    last = [
        *_section("What Mainstay did", _list(report, "did"), most=5),
        *_section("What it does next", plans(report), most=4),
        *_section("How to override", override(report), most=4),
    ]
    parts = [part for part in _parts(report) if part.lines]
    middle = _filled(parts, LINES_MAX - len(first) - len(last))
    return "\n".join(line.rstrip() for line in [*first, *middle, *last]) + "\n"


def plans(report: Report) -> list[str]:
    """What Mainstay does next, as was written at its end; of a job that has been disabled or removed since: nothing."""
    return _list(report, "will") if report.get("can_start", True) else ["nothing: the job is disabled, or no longer in the config"]


def override(report: Report) -> list[str]:
    """What a person can do who knows better."""
    found: list[str] = []
    job, limit, outcome = clean(_text(report, "job"), 60), report.get("limit"), _text(report, "outcome")
    if isinstance(limit, str) and limit in KEY_OF_LIMIT:
        key, option = KEY_OF_LIMIT[limit]
        started_itself = outcome == Outcome.RECURSION.value and limit == "processes"
        knob = (
            f"set MAINSTAY_LINEAGE_MAX in its environment ({LINEAGE_MOST})"
            if started_itself
            else f"raise limits.{key} in the config (exec: {option})"
        )
        found.append(f"if the job is right and the line is wrong: {knob}")
    elif outcome in HINTS:
        found.append(_shortage(report) or HINTS[outcome])
    will = _list(report, "will")
    if not report.get("can_start", True):
        found.append("to have it run again: put it into the config, enabled, then: mainstay reload")
    elif will and outcome not in (Outcome.SUCCEEDED.value, Outcome.STOPPED.value):  # `mainstay exec` will do nothing more
        is_parked = any("parked" in line for line in will)
        found.append(f"start it although it is parked: mainstay start {job}" if is_parked else f"run it again now: mainstay trigger {job}")
    if will and report.get("incident") is not None and report.get("incident_open", True) and outcome != Outcome.SUCCEEDED.value:
        number = clean(str(report["incident"]), 20)
        found.append(f"somebody is on it: mainstay incident {number} --ack; mended: mainstay incident {number} --resolve --fix TEXT")
    return found


def _shortage(report: Report) -> str | None:
    """What to do where it could not be started for want of something that is no fault of the job's."""
    if report.get("outcome") != Outcome.LAUNCH_FAILED.value:
        return None
    return next((hint for words, hint in SHORTAGES.items() if words in _text(report, "summary")), None)


# ---------------------------------------------------------------- the screen's parts


class _Part(Struct, frozen=True):
    """A heading and its lines, already fitted. Of *ends_best* the last lines stay where it is shortened: the error stands at the end of an output."""

    title: str
    lines: list[str]
    ends_best: bool = False


def _parts(report: Report) -> list[_Part]:
    """What lies between the summary and what to do, the most telling first."""
    return [
        _changes(report),
        _cycle_part(report),
        _place_part(report),
        _part("Evidence", _list(report, "evidence")),
        _memory_part(report),
        _progress_part(report),
        _Part("Last output", [_fit(f"  | {line}") for line in _tail(report)], ends_best=True),
    ]


def _filled(parts: Sequence[_Part], room: int) -> list[str]:
    """The parts in so many lines: the longest is shortened until they fit; where even headings are too many, the last go."""
    kept, shown = list(parts), [len(part.lines) for part in parts]

    def height() -> int:
        return sum(2 + count + (count < len(part.lines)) for part, count in zip(kept, shown, strict=True))

    while kept and height() > room:
        longest = max(range(len(shown)), key=lambda i: (shown[i], i))
        if shown[longest] > 2:
            shown[longest] -= 1
        else:
            kept, shown = kept[:-1], shown[:-1]
    lines: list[str] = []
    for part, count in zip(kept, shown, strict=True):
        if count == len(part.lines) - 1:
            count += 1  # noqa: PLW2901 - the line that would count it takes as much room as itself
        lines += ["", _fit(part.title), *_shortened(part, count)]
    return lines


def _shortened(part: _Part, count: int) -> list[str]:
    """*count* lines of it, and how many more there are."""
    more = len(part.lines) - count
    if not more:
        return part.lines
    if part.ends_best:
        return [f"  … {counted(more, 'line')} before, in the report (--json)", *part.lines[more:]]
    return [*part.lines[:count], f"  … {counted(more, 'more line')} in the report (--json)"]


def _part(title: str, lines: Sequence[str], *, most: int = 12) -> _Part:
    return _Part(title, [shown for line in lines[:most] for shown in _wrapped(line, "  - ", most=2)])


def _name(report: Report) -> str:
    """The job and its run; a run 0 is a command under `mainstay exec`, which has no runs."""
    return f"{_text(report, 'job')} run {_text(report, 'run')}" if report.get("run") else _text(report, "job")


def _when(report: Report) -> list[str]:
    code, signal = report.get("exit_code"), report.get("signal")
    end = signal_name(signal) if isinstance(signal, int) else "no exit code" if code is None else f"exit code {code}"
    begun, ended = _moment(_text(report, "started_at")), _moment(_text(report, "ended_at"))
    until = ended.partition(" ")[2] if ended[:10] == begun[:10] else ended
    is_lost = report.get("outcome") == "lost"
    ran = f"  {begun} to {until} UTC ({'at most ' if is_lost else ''}{about_duration(_number(report, 'duration_seconds'))}), {end}"
    used = f"  memory peak {about_size(_number(report, 'memory_peak_bytes'))}, CPU {about_duration(_number(report, 'cpu_seconds'))}"
    if is_lost:
        used = "  memory peak and CPU time not known"
    extras = [f"limit {report['limit']}"] if report.get("limit") else []
    extras += [f"incident {report['incident']}"] if report.get("incident") is not None else []
    extras += [f"fingerprint {report['fingerprint']}"] if report.get("fingerprint") else []
    return [_fit(ran), _fit(", ".join([used, *extras]))]


def _moment(stamp: str) -> str:
    """A time of a report without its zone and its fractions: "2026-03-01 12:00:00"."""
    return stamp[:19].replace("T", " ") if len(stamp) >= 19 else stamp


def _regression(report: Report) -> list[str]:
    note = report.get("regression_note")
    return _wrapped(f"This came back: {note}", "  ", most=2) if isinstance(note, str) and note else []


def _changes(report: Report) -> _Part:
    """What is different from the last good run."""
    changed = report.get("changed")
    if not isinstance(changed, Mapping) or report.get("outcome") in (Outcome.SUCCEEDED.value, Outcome.STOPPED.value):
        return _Part("", [])
    since = changed.get("since_run")
    items = [survey.in_words(item) for item in _items(changed, "items") if isinstance(item, Mapping)]
    title = "What changed" if since is None else f"What changed since the last good run ({since}, {_moment(str(changed.get('since')))} UTC)"
    more = changed.get("more")
    if isinstance(more, int) and more > 0:
        items.append(f"and {more} more")
    return _part(title, items or ([str(changed["note"])] if changed.get("note") else []))


def _cycle_part(report: Report) -> _Part:
    cycle = report.get("cycle")
    if not isinstance(cycle, Mapping):
        return _Part("", [])
    frames = [_show_frame(frame) for frame in _items(cycle, "frames")]
    notes = [str(note) for note in _items(cycle, "notes")]
    depth = cycle.get("depth")
    title = f"What called itself ({cycle.get('kind')}, {counted(depth if isinstance(depth, int) else 0, 'level')})"
    return _part(title, [*frames[:6], *notes[:4]])


def _place_part(report: Report) -> _Part:
    """Where it was: the exception's own place, the lines of a busy loop, what its threads waited for, or the first thread's stack."""
    if isinstance(report.get("cycle"), Mapping):
        return _Part("", [])
    error = report.get("exception")
    if isinstance(error, Mapping):
        frames = [_show_frame(frame) for frame in _items(error, "frames")][-5:]
        chain = [f"from {line}" for line in _items(error, "chain")[:2]]
        return _part(f"{error.get('type')}: {error.get('message')}", [*frames[::-1], *chain])
    busy = [_show_busy(line) for line in _items(report, "busy_lines") if isinstance(line, Mapping)]
    if busy:
        return _part("Where it went round", busy[:5])
    waits = [f"thread {each.get('thread')}: {each.get('what')}" for each in _items(report, "waiting") if isinstance(each, Mapping)]
    stacks = [stack for stack in _items(report, "stacks") if isinstance(stack, Mapping)]
    frames = [_show_frame(frame) for frame in _items(stacks[0], "frames")][:5] if stacks else []
    return _part("Where it stood, innermost first", [*frames, *waits[:2]])


def _show_busy(line: Mapping[str, object]) -> str:
    inside = ", inside one call into C" if line.get("in_c") else ""
    return f"{_show_frame(line)}, in {line.get('samples')} of {line.get('of')} looks{inside}"


def _memory_part(report: Report) -> _Part:
    """How its memory grew, and of what, where that is what it died of."""
    if report.get("limit") not in ("memory", "memory_soft") and report.get("outcome") not in ("memory", "host_oom"):
        return _Part("", [])
    types = [each for each in _items(report, "memory_types") if isinstance(each, Mapping)]
    lines = [f"{about_size(_number(each, 'bytes'))} in {_number(each, 'count'):,.0f} of {each.get('type')}" for each in types[:4]]
    return _part("Memory", [*_curve_line(report), *lines])


def _curve_line(report: Report) -> list[str]:
    points = [point for point in _items(report, "memory_curve") if isinstance(point, list | tuple) and len(point) == 2]
    sizes = [float(size) for _, size in points if isinstance(size, int | float)]
    if len(sizes) < 3 or max(sizes) <= 0:
        return []
    step = max(1, -(-len(sizes) // 40))
    bars = "".join(BARS[min(int(max(sizes[i : i + step]) / max(sizes) * 8), 7)] for i in range(0, len(sizes), step))
    return [f"over time: {bars} up to {about_size(max(sizes))}"]


def _progress_part(report: Report) -> _Part:
    progress = report.get("progress")
    if not isinstance(progress, Mapping):
        return _Part("", [])
    done, total, stage, record = (progress.get(key) for key in ("done", "total", "stage", "record"))
    lines = [f"record in work: {record}"] if record else []
    if done is not None:
        lines.append(f"{done:,} done" + (f" of {total:,}" if isinstance(total, int) else "") + (f" ({stage})" if stage else ""))
    return _part("What it said of itself", lines)


def _show_frame(frame: object) -> str:
    if not isinstance(frame, Mapping):
        return str(frame)
    return f"{frame.get('function')}  {frame.get('file')}:{frame.get('line')}"


def _tail(report: Report) -> list[str]:
    return _text(report, "output_tail").rstrip("\n").split("\n")[-OUTPUT_LINES:] if report.get("output_tail") else []


def _section(title: str, lines: Sequence[str], *, most: int) -> list[str]:
    """A heading and its lines, or nothing at all; what exceeds *most* lines is counted."""
    if not lines:
        return []
    shown = [part for line in lines[:most] for part in _wrapped(line, "  - ", most=2)]
    if len(lines) > most:
        shown.append(f"  … and {len(lines) - most} more")
    return ["", _fit(title), *shown]


def _wrapped(text: str, indent: str, *, most: int) -> list[str]:
    """*text* in at most *most* lines, each begun with *indent* or as much room."""
    first, *more = folded(clean(text), WIDTH - len(indent), most)
    return [indent + first, *(" " * len(indent) + line for line in more)]


def _fit(text: str) -> str:
    """One line, escaped first and cut after: an escape is longer than what it stands for."""
    return cut(clean(text), WIDTH)


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
