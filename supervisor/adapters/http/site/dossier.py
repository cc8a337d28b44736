"""The dossier of a run's end as HTML: the story first, the figures and pictures next, the raw material last.

A dossier of an earlier version lacks keys of later ones; whatever is not there is not shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined, link
from supervisor.adapters.http.site.pictures import curve, part_bar
from supervisor.adapters.http.site.words import DASH, exactly, size, took
from supervisor.core.explain import override, plans
from supervisor.core.prose import clean, counted, signal_name

Json = Mapping[str, Any]
FRAMES_SHOWN: Final = 30
TYPES_SHOWN: Final = 8
OUTPUT_LINES: Final = 60


def dossier(report: Json) -> Html:
    """All that is known of an end, the story first and the raw material last."""
    parts = [
        _facts(report),
        _regression(report),
        _bullets("Evidence", report["evidence"]),
        _cycle(report.get("cycle")),
        _exception(report.get("exception")),
        _memory(report),
        _limits(report.get("limits") or []),
        _changed(report.get("changed")),
        _bullets("What Mainstay did", report["did"]),
        _bullets("What it does next", plans(report)),
        _bullets("How to override", override(report)),
        _busy(report.get("busy_lines") or []),
        _waiting(report.get("waiting") or []),
        _stacks(report.get("stacks") or []),
        _pairs("Progress", report.get("progress")),
        _pairs("What it ran on", report.get("environment")),
        _output(report["output_tail"]),
    ]
    to = f"/api/v1/runs/{int(report['run'])}/dossier"
    return html(
        '<div id="dossier" class="dossier">{parts}<p class="muted"><a href="{to}">The dossier as JSON</a></p></div>',
        parts=joined(parts),
        to=to,
    )


def _facts(report: Json) -> Html:
    signal = report["signal"]
    end = (
        signal_name(signal)
        if isinstance(signal, int)
        else "no exit code"
        if report["exit_code"] is None
        else f"exit code {report['exit_code']}"
    )
    facts = [
        ("ended", exactly(report["ended_at"])),
        ("took", took(report["duration_seconds"])),
        ("attempt", report["attempt"]),
        ("end", end),
        ("limit that struck", report["limit"]),
        ("memory peak", size(report["memory_peak_bytes"])),
        ("CPU time", took(report["cpu_seconds"])),
        ("fingerprint", report["fingerprint"]),
    ]
    rows = joined(
        html("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value)
        for name, value in facts
        if value is not None and value != ""
    )
    return html('<section><dl class="strip-of">{rows}</dl></section>', rows=rows)


def _regression(report: Json) -> Html:
    before = report.get("regression_of")
    if before is None:
        return NOTHING
    note = str(report.get("regression_note") or "").removeprefix(f"incident {before} ")
    return html(
        '<section><h2>Seen before</h2><p>The same bug was <a href="{to}">incident {n}</a>, which {note}.</p></section>',
        to=link("incidents", before),
        n=before,
        note=note or "is over",
    )


def _memory(report: Json) -> Html:
    """Memory over time below its limit, and what filled it."""
    points = report.get("memory_curve") or []
    line = next((one["line"] for one in report.get("limits") or [] if one["limit"] == "memory"), None)
    picture = curve(points, line)
    types = report.get("memory_types") or []
    if not picture and not types:
        return NOTHING
    rows = joined(
        html(
            '<tr><th scope="row">{type}</th><td class="n">{count}</td><td class="n">{size}</td></tr>',
            type=one["type"],
            count=f"{one['count']:,}",
            size=size(one["bytes"]),
        )
        for one in types[:TYPES_SHOWN]
    )
    table = html(
        '<table class="small"><thead><tr><th scope="col">What filled it</th><th scope="col">Objects</th><th scope="col">Memory, estimated</th></tr></thead><tbody>{rows}</tbody></table>',
        rows=rows,
    )
    return html(
        "<section><h2>Memory over time</h2>{picture}{table}</section>",
        picture=html(
            '<div class="panel">{picture}<p class="muted key">{words}</p></div>',
            picture=picture,
            words=f"{took(points[-1][0])} from left to right" + (f"; the line is the limit, {size(line)}" if line else ""),
        )
        if picture
        else NOTHING,
        table=table if types else NOTHING,
    )


_FIGURES: Final[Mapping[str, Callable[[float], str]]] = {"bytes": size, "seconds": took}


def _counted(value: float) -> str:
    return f"{value:,.0f}"


def _limits(limits: Sequence[Json]) -> Html:
    """Each limit that was drawn, with the peak that was measured."""
    rows = joined(_limit_rows(limits))
    if not rows:
        return NOTHING
    return html(
        '<section><h2>Limits</h2><table class="small limits-of"><thead><tr><th scope="col">Limit</th><th scope="col">Line</th><th scope="col">Peak</th><th scope="col"></th></tr></thead><tbody>{rows}</tbody></table></section>',
        rows=rows,
    )


def _limit_rows(limits: Sequence[Json]) -> Iterator[Html]:
    for one in limits:
        line, peak = one.get("line"), one.get("peak")
        if line is None:
            continue
        figure = _FIGURES.get(str(one.get("unit")), _counted)
        yield html(
            '<tr class="{kind}"><th scope="row">{name}{struck}</th><td class="n">{line}</td><td class="n">{peak}</td><td class="wide-cell">{bar}</td></tr>',
            kind="attention" if one.get("struck") else "",
            name=str(one["limit"]).replace("_", " "),
            struck=html(' <b class="bad-text">struck</b>') if one.get("struck") else NOTHING,
            line=figure(line),
            peak=DASH if peak is None else figure(peak),
            bar=part_bar(peak, line, struck=bool(one.get("struck"))) if peak is not None else NOTHING,
        )


def _changed(changed: Json | None) -> Html:
    """What is different from the last good run: the first thing to look at."""
    if not changed:
        return NOTHING
    items = changed.get("items") or []
    since = f" since run {changed['since_run']}" if changed.get("since_run") is not None else ""
    if not items:
        return html(
            '<section><h2>What changed</h2><p class="muted">{words}</p></section>',
            words=changed.get("note") or f"Nothing that was looked at{since}.",
        )
    rows = joined(
        html(
            "<li><b>{kind}</b> {what}: {was} → {now}</li>",
            kind=one.get("kind"),
            what=one.get("what"),
            was=one.get("was") or DASH,
            now=one.get("now") or DASH,
        )
        for one in items
    )
    more = html('<li class="muted">… and {n} more</li>', n=changed["more"]) if changed.get("more") else NOTHING
    return html("<section><h2>What changed{since}</h2><ul>{rows}{more}</ul></section>", since=since, rows=rows, more=more)


def _busy(lines: Sequence[Json]) -> Html:
    items = joined(
        html(
            '<li><b>{function}</b> <span class="muted">{file}:{line}, in {n} of {of} looks{c}</span></li>',
            function=one.get("function"),
            file=one.get("file"),
            line=one.get("line"),
            n=one.get("samples"),
            of=one.get("of"),
            c=", at the same call into C" if one.get("in_c") else "",
        )
        for one in lines
    )
    return html('<section><h2>Where it was busy</h2><ol class="frames">{items}</ol></section>', items=items) if lines else NOTHING


def _waiting(threads: Sequence[Json]) -> Html:
    items = joined(
        html(
            '<li>pid {pid}, thread {thread}: {what} <span class="muted">{wchan}</span></li>',
            pid=one.get("pid"),
            thread=one.get("thread"),
            what=one.get("what"),
            wchan=one.get("wchan") or "",
        )
        for one in threads[:16]
    )
    return html("<section><h2>What its threads did</h2><ul>{items}</ul></section>", items=items) if threads else NOTHING


def _pairs(title: str, facts: Json | None) -> Html:
    """Facts by name, those that are known."""
    known = [(name.replace("_", " "), value) for name, value in (facts or {}).items() if value not in (None, "")]
    rows = joined(html("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value) for name, value in known)
    return html('<section><h2>{title}</h2><dl class="strip-of">{rows}</dl></section>', title=title, rows=rows) if known else NOTHING


def _bullets(title: str, lines: Sequence[str]) -> Html:
    if not lines:
        return NOTHING
    return html(
        "<section><h2>{title}</h2><ul>{items}</ul></section>",
        title=title,
        items=joined(html("<li>{line}</li>", line=line) for line in lines),
    )


def _frames(frames: Sequence[Json]) -> Html:
    items = joined(
        html(
            '<li><b>{function}</b> <span class="muted">{file}:{line}</span></li>',
            function=frame.get("function"),
            file=frame.get("file"),
            line=frame.get("line"),
        )
        for frame in frames[:FRAMES_SHOWN]
    )
    more = html('<li class="muted">… and {n} more</li>', n=len(frames) - FRAMES_SHOWN) if len(frames) > FRAMES_SHOWN else NOTHING
    return html('<ol class="frames">{items}{more}</ol>', items=items, more=more)


def _cycle(cycle: Json | None) -> Html:
    if not cycle:
        return NOTHING
    depth = f", {counted(cycle['depth'], 'level')} deep" if isinstance(cycle.get("depth"), int) else ""
    notes = joined(html('<li class="muted">{note}</li>', note=note) for note in cycle.get("notes") or [])
    return html(
        '<section><h2>What called itself</h2><p class="muted">{kind}{depth}</p>{frames}<ul>{notes}</ul></section>',
        kind=cycle.get("kind"),
        depth=depth,
        frames=_frames(cycle.get("frames") or []),
        notes=notes,
    )


def _exception(error: Json | None) -> Html:
    if not error:
        return NOTHING
    return html(
        "<section><h2>Exception</h2><p><b>{type}</b>{message}</p><details><summary>{n} frames</summary>{frames}</details></section>",
        type=error.get("type"),
        message=clean(f": {error['message']}", 500) if error.get("message") else "",
        n=len(error.get("frames") or []),
        frames=_frames((error.get("frames") or [])[::-1]),
    )


def _stacks(stacks: Sequence[Json]) -> Html:
    if not stacks:
        return NOTHING
    parts = joined(
        html(
            "<details><summary>thread {thread}, {depth} frames deep</summary>{frames}</details>",
            thread=stack.get("thread"),
            depth=stack.get("depth"),
            frames=_frames(stack.get("frames") or []),
        )
        for stack in stacks[:16]
    )
    return html("<section><h2>Where it stood</h2>{parts}</section>", parts=parts)


def _output(tail: str) -> Html:
    if not tail.strip():
        return NOTHING
    lines = tail.rstrip("\n").split("\n")[-OUTPUT_LINES:]
    return html('<section><h2>Last output</h2><pre class="log">{text}</pre></section>', text="\n".join(lines))
