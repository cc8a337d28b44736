"""Small pictures as inline SVG: memory against its limit, the last runs as a strip, the peaks of the last runs.

Each says in words what it shows; sizes are attributes and not styles, which our own policy forbids.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined
from supervisor.adapters.http.site.words import outcome_words, size, tone, took

Json = Mapping[str, Any]
STRIP_RUNS: Final = 20
NEAR: Final = 0.85  # of a limit


def memory_bar(used: float | None, limit: float | None, soft: float | None, *, live: bool) -> Html:
    """Memory as a part of its limit, the soft limit as a notch. Pale if it is the peak of a run that has ended."""
    if not limit:
        return NOTHING
    part = min(1.0, (used or 0) / limit)
    kind = "over" if part >= 1 else "near" if part >= NEAR else "fine"
    words = f"{size(used)} of {size(limit)}" + ("" if live else ", the peak of the last run")
    notch = html('<rect class="notch" x="{x}" width="0.8" height="8"/>', x=f"{100 * min(1.0, soft / limit):.1f}") if soft else NOTHING
    return html(
        '<svg class="bar {kind} {live}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{words}">'
        '<title>{words}</title><rect class="track" width="100" height="8" rx="1"/>'
        '<rect class="fill" width="{width}" height="8" rx="1"/>{notch}</svg>',
        kind=kind,
        live="live" if live else "past",
        words=words,
        width=f"{max(part * 100, 1.0 if used else 0.0):.1f}",
        notch=notch,
    )


def strip(runs: Sequence[Json]) -> Html:
    """The last runs (given newest first), oldest left; how tall a tick is says nothing, a bad one is also marked by its shape."""
    shown = list(runs[:STRIP_RUNS])[::-1]
    if not shown:
        return html('<span class="muted">no runs yet</span>')
    bad = sum(tone(run["outcome"]) == "bad" for run in shown)
    words = f"the last {len(shown)} runs: {bad} ended badly" if bad else f"the last {len(shown)} runs: none ended badly"
    ticks = []
    for place, run in enumerate(shown):
        what = tone(run["outcome"])
        title = f"run {run['run']} {outcome_words(run['outcome']) if run['outcome'] else 'is running'}"
        top, height = (0, 18) if what == "bad" else (4, 14)
        ticks.append(
            html(
                '<rect class="{what}" x="{x}" y="{top}" width="4" height="{height}" rx="1"><title>{title}</title></rect>',
                what=what,
                x=place * 6,
                top=top,
                height=height,
                title=title,
            )
        )
    return html(
        '<svg class="strip" viewBox="0 0 {width} 18" width="{width}" height="18" role="img" aria-label="{words}">{ticks}</svg>',
        width=STRIP_RUNS * 6 - 2,
        words=words,
        ticks=joined(ticks),
    )


WIDTH: Final = 640
HEIGHT: Final = 120


def peaks(runs: Sequence[Json], limit: float | None, soft: float | None) -> Html:
    """The peak memory of the last runs (newest first) as columns below the line of the limit."""
    shown = [run for run in runs if run["outcome"]][:40][::-1]
    if len(shown) < 2:
        return NOTHING
    most = max([limit or 0, *(run["memory_peak_bytes"] for run in shown)]) * 1.04 or 1
    step = WIDTH / max(len(shown), 24)
    columns = []
    for place, run in enumerate(shown):
        height = run["memory_peak_bytes"] / most * HEIGHT
        columns.append(
            html(
                '<a href="/runs/{run}"><rect class="{what}" x="{x}" y="{y}" width="{width}" height="{height}"><title>{title}</title></rect></a>',
                run=run["run"],
                what=tone(run["outcome"]),
                x=f"{place * step + step * 0.14:.1f}",
                y=f"{HEIGHT - max(height, 2):.1f}",
                width=f"{step * 0.72:.1f}",
                height=f"{max(height, 2):.1f}",
                title=f"run {run['run']} {outcome_words(run['outcome'])}: {size(run['memory_peak_bytes'])}, {took(run['duration_seconds'])}",
            )
        )
    lines = [_line(limit, most, "limit"), _line(soft, most, "soft")]
    return html(
        '<svg class="peaks" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{words}">{lines}{columns}</svg>',
        w=WIDTH,
        h=HEIGHT,
        words=f"peak memory of the last {len(shown)} runs" + (f", limit {size(limit)}" if limit else ""),
        lines=joined(lines),
        columns=joined(columns),
    )


def _line(at: float | None, most: float, kind: str) -> Html:
    if not at:
        return NOTHING
    y = f"{HEIGHT - at / most * HEIGHT:.1f}"
    return html(
        '<line class="{kind}" x1="0" x2="{w}" y1="{y}" y2="{y}"><title>{kind} {at}</title></line>', kind=kind, w=WIDTH, y=y, at=size(at)
    )


def curve(points: Sequence[Sequence[float]], limit: float | None) -> Html:
    """Memory over time as an area below the line of its limit. *points*: (seconds, bytes), in order."""
    if len(points) < 2:
        return NOTHING
    longest = points[-1][0] or 1.0
    most = max([limit or 0, *(value for _, value in points)]) * 1.04 or 1
    spots = [f"{at / longest * WIDTH:.1f},{HEIGHT - value / most * HEIGHT:.1f}" for at, value in points]
    return html(
        '<svg class="peaks curve" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" aria-label="{words}">{line}'
        '<polygon points="{first},{h} {spots} {w},{h}"/><polyline points="{spots}"/></svg>',
        w=WIDTH,
        h=HEIGHT,
        words=f"memory from {size(points[0][1])} to {size(points[-1][1])} in {took(longest)}" + (f", limit {size(limit)}" if limit else ""),
        line=_line(limit, most, "limit"),
        first=f"{points[0][0] / longest * WIDTH:.1f}",
        spots=" ".join(spots),
    )


def part_bar(value: float, of: float, *, struck: bool) -> Html:
    """A figure as a part of its line, without words: they stand beside it."""
    part = min(1.0, value / of) if of else 1.0
    return html(
        '<svg class="bar {kind}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="8"/>'
        '<rect class="fill" width="{width}" height="8"/></svg>',
        kind="over" if struck else "near" if part >= NEAR else "fine",
        width=f"{part * 100:.1f}",
    )
