"""Tables for people: plain text in columns, colour only on a terminal and never with NO_COLOR."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any, Final

from supervisor.core.cells import cells, folded, padded
from supervisor.core.units import format_duration, format_size

Json = Mapping[str, Any]
GAP: Final = "  "
NARROWEST: Final = 20  # a column that is folded narrower cannot be read
_RED, _GREEN, _YELLOW, _DIM = "31", "32", "33", "2"
_COLOURS: Final = {
    "succeeded": _GREEN,
    "running": _GREEN,
    "idle": "",
    "stopped": _DIM,
    "paused": _YELLOW,
    "parked": _RED,
    "backing_off": _YELLOW,
    "disabled": _DIM,
    "starting": _YELLOW,
    "stopping": _YELLOW,
    "skipped": _YELLOW,
}


def printable(text: str) -> str:
    """*text* with control characters made visible: what a job wrote must not drive the terminal. Line ends and tabs stay."""
    return "".join(c if c in "\n\t" or (c.isprintable() and c not in _BIDI) else f"\\x{ord(c):02x}" for c in text)


_BIDI: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _coloured(text: str, word: str) -> str:
    colour = _COLOURS.get(word, _RED)
    if not colour or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def _columns() -> int | None:
    """How wide a line may be: $COLUMNS, else the terminal's width; None where nobody says and a program may read it, for which a row is a line."""
    text = os.environ.get("COLUMNS", "")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    with contextlib.suppress(OSError, ValueError):
        return (os.get_terminal_size(sys.stdout.fileno()).columns or None) if sys.stdout.isatty() else None
    return None


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, colour: int | None = None) -> str:
    """Columns, aligned; the word in column *colour* gets its colour. Too wide for the terminal, the last column is folded, then the others where
    they have words to fold between; where that does not help, each row becomes a list of its cells."""
    cleaned = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    contents = list(zip(header, *cleaned, strict=True))
    widths = [max(map(cells, content)) for content in contents]
    columns = _columns()
    if columns is not None and cleaned:
        fitting = _fitting(contents, widths, columns - len(GAP) * (len(widths) - 1))
        if fitting is None:
            return _lists(header, cleaned, columns, colour)
        widths = fitting
    lines = _lines(header, widths)
    for row in cleaned:
        lines += _lines(row, widths, colour)
    return "\n".join(lines) + "\n"


def _fitting(contents: Sequence[Sequence[str]], widths: Sequence[int], room: int) -> list[int] | None:
    """How wide each column is in so much *room* for all of them together; None where they cannot be read there.

    The last one gives way first. Of the others no word is broken, for it may be a name to copy: the widest is folded one word narrower, and again.
    """
    fitting = list(widths)
    least = [max(cells(word) for cell in content for word in ["", *cell.split()]) for content in contents]
    if widths[-1] > NARROWEST:
        least[-1] = NARROWEST
    fitting[-1] = min(widths[-1], max(least[-1], room - sum(widths[:-1])))
    while sum(fitting) > room:
        widest = max(range(len(fitting)), key=lambda i: (fitting[i] > least[i], fitting[i]))
        if fitting[widest] <= least[widest]:
            return None
        narrower = fitting[widest] - 1
        fitting[widest] = max(cells(line) for cell in contents[widest] for line in folded(cell, narrower))
    return fitting


def _lines(row: Sequence[str], widths: Sequence[int], colour: int | None = None) -> list[str]:
    """A row in as many lines as its highest cell."""
    columns = [folded(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for parts in zip_longest(*columns, fillvalue=""):
        shown = [padded(part, width) for part, width in zip(parts, widths, strict=True)]
        if colour is not None and parts[colour]:
            shown[colour] = _coloured(shown[colour], row[colour].split(" ")[0])
        lines.append(GAP.join(shown).rstrip())
    return lines


def _lists(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int, colour: int | None) -> str:
    """A row after the other, a line for each cell."""
    label = max(map(cells, header))
    room = max(columns - label - len(GAP), 8)
    lists = []
    for row in rows:
        lines = []
        for i, (name, cell) in enumerate(zip(header, row, strict=True)):
            first, *more = folded(cell, room)
            lines.append(padded(name, label) + GAP + (_coloured(first, cell.split(" ")[0]) if i == colour else first))
            lines += [" " * (label + len(GAP)) + part for part in more]
        lists.append("\n".join(lines) + "\n")
    return "\n".join(lists)


def _ago(stamp: str | None) -> str:
    if stamp is None:
        return "-"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()  # noqa: TID251 - ages are for the reader's own now
    words = format_duration(float(round(abs(seconds)))) if abs(seconds) >= 1 else "0s"
    return f"{words} ago" if seconds >= 0 else f"in {words}"


def _size(value: float | None) -> str:
    if value is None:
        return "-"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= unit:
            return f"{value / unit:.1f}{name}"
    return f"{int(value)}B"


def status(found: Json) -> str:
    """The daemon in a line and its jobs in a table."""
    daemon = found["daemon"]
    held = "/".join(dict.fromkeys(daemon["containment"].values()))
    where = f", metrics on {daemon['listen']}" if daemon.get("listen") else ""
    head = f"mainstay {daemon['version']}, up {_ago(daemon['started_at']).removesuffix(' ago')}, limits held by {held}{where}\n"
    head += _history(daemon.get("history_behind")) + "\n"
    rows = []
    for job in found["jobs"]:
        last = job["last"]
        memory = "-"
        if job["memory_limit_bytes"]:
            used = job["memory_bytes"] if job["memory_bytes"] is not None else (last or {}).get("memory_peak_bytes")
            memory = f"{_size(used)} / {format_size(job['memory_limit_bytes'])}"
        rows.append(
            [
                job["name"],
                job["state"] + (" (paused)" if job["paused"] and job["runs"] else ""),
                f"{last['outcome']} {_ago(last['ended_at'])}" if last else "none ended yet" if job["runs"] else "never ran",
                _ago(job["next_run"]),
                str(job["failures_in_row"]),
                memory,
                job["schedule"],
            ]
        )
    return head + table(["JOB", "STATE", "LAST RUN", "NEXT RUN", "FAILED", "MEMORY", "SCHEDULE"], rows, colour=1)


def _history(behind: Json | None) -> str:
    if behind is None:
        return ""
    told = f"the history is not written since {_time(behind['since'])}: {behind['error']}; {behind['rows']} rows wait in memory"
    return _coloured(printable(told).replace("\n", " "), "parked") + "\n"


def ledger(runs: Sequence[Json], slots: Sequence[Json], limit: int) -> str:
    """Runs and the due slots that did not run, newest first."""
    rows: list[tuple[str, list[str]]] = []
    late = {slot["run"] for slot in slots if slot["result"] == "late"}
    for run in runs:
        took = format_duration(round(run["duration_seconds"], 1)) if run["ended_at"] else "-"
        note = "late" if run["run"] in late else ""
        outcome = run["outcome"] or "running"
        rows.append(
            (
                run["started_at"],
                [
                    str(run["run"]),
                    run["job"],
                    run["started_at"][:19].replace("T", " "),
                    run["trigger"],
                    outcome,
                    took,
                    str(run["attempts"]),
                    _size(run["memory_peak_bytes"] or None),
                    note,
                ],
            )
        )
    for slot in slots:
        if slot["result"] == "skipped":
            due = slot["slot"][:19].replace("T", " ")
            rows.append((slot["slot"], ["-", slot["job"], due, "schedule", "skipped", "-", "-", "-", slot["reason"] or ""]))
    rows.sort(key=lambda row: row[0], reverse=True)
    header = ["RUN", "JOB", "STARTED OR DUE (UTC)", "TRIGGER", "OUTCOME", "TOOK", "ATTEMPTS", "PEAK", "NOTE"]
    return table(header, [row for _, row in rows[:limit]], colour=4)


def quarantine(found: Sequence[Json]) -> str:
    """Records that are set aside, in a table, oldest first."""
    rows = [[one["key"], one["outcome"], _ago(one["at"]), f"{one['run']}.{one['attempt']}", one["summary"]] for one in found]
    return table(["RECORD", "OUTCOME", "SET ASIDE", "RUN.ATTEMPT", "SUMMARY"], rows)


def _state(one: Json) -> str:
    if one["closed_at"] is not None:
        return "closed"
    return "acknowledged" if one["acknowledged"] else "came back" if one.get("regression_of") is not None else "open"


def incident(one: Json) -> str:
    """What is known of one incident beside its dossier: when, how often, who was told, who knows, what ended it."""
    seen = f"seen {one['occurrences']} times" if one["occurrences"] != 1 else "seen once"
    runs = f", run {one['last_run']}" if one["first_run"] == one["last_run"] else f", runs {one['first_run']} to {one['last_run']}"
    lines = [
        f"incident {one['incident']}: {_state(one)}",
        f"{'many jobs' if one['job'] == '*' else one['job']}: {one['outcome']} ({one['severity']}), {seen}{runs if one['last_run'] else ''}",
        f"opened {_time(one['opened_at'])} ({_ago(one['opened_at'])}), last seen {_ago(one['last_at'])}",
    ]
    told = [*one.get("told", ()), *(f"{name} (in a summary)" for name in one.get("gathered", ()) if name not in one.get("told", ()))]
    lines += [f"told: {', '.join(told)}"] if told else ["told: nobody, for a silence or a maintenance window"] if one.get("held") else []
    if one["acknowledged"]:
        note = f": {one['acknowledged_note']}" if one.get("acknowledged_note") else ""
        at = f" at {_time(one['acknowledged_at'])}" if one.get("acknowledged_at") else ""
        lines.append(f"acknowledged by {one.get('acknowledged_by') or 'an operator'}{at}{note}")
    lines += [f"this came back: {one['regression_note']}"] if one.get("regression_note") else []
    if one["closed_at"] is not None:
        lines.append(f"closed {_time(one['closed_at'])}: {one['closed_because']}" + (f"; fix: {one['fix']}" if one.get("fix") else ""))
    return "".join(printable(line).replace("\n", " ") + "\n" for line in lines)


def _time(stamp: str) -> str:
    return stamp[:19].replace("T", " ") + " UTC"


def incidents(found: Sequence[Json]) -> str:
    """Incidents in a table, newest first."""
    if not found:
        return "no incidents\n"
    rows = []
    for one in found:
        job = "(many)" if one["job"] == "*" else one["job"]
        rows.append(
            [str(one["incident"]), _state(one), job, one["outcome"], str(one["occurrences"]), _ago(one["opened_at"]), one["summary"]]
        )
    return table(["ID", "STATE", "JOB", "OUTCOME", "SEEN", "OPENED", "SUMMARY"], rows)
