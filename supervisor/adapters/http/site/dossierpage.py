"""The dossier of a run's end as a page, and the pages of runs and incidents around it."""

from collections.abc import Mapping, Sequence
from typing import Any

from supervisor.adapters.http.site.jobpage import run_table
from supervisor.adapters.http.site.layout import View, button, crumb, incident_rows, page, pill, told
from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined, link
from supervisor.adapters.http.site.words import ago, exactly, outcome_words, size, tone, took
from supervisor.core.explain import override
from supervisor.core.prose import clean, signal_name

Json = Mapping[str, Any]
FRAMES_SHOWN = 30


def runs_page(view: View, runs: Sequence[Json], job: str | None) -> Html:
    """The ledger."""
    title = f"Runs of {job}" if job else "Runs"
    table = run_table(view, runs, with_job=job is None) if runs else html('<p class="empty">Nothing has run yet.</p>')
    back = crumb(link("jobs", job), job) if job else NOTHING
    body = html(
        '{back}<section id="head" class="head"><h1>{title}</h1></section><section id="runs" data-swap>{table}</section>',
        back=back,
        title=title,
        table=table,
    )
    return page(view, title, "/runs", body)


def incidents_page(view: View, incidents: Sequence[Json]) -> Html:
    """All incidents, the open ones first."""
    is_open = [one for one in incidents if one["closed_at"] is None]
    closed = [one for one in incidents if one["closed_at"] is not None]
    parts = [
        html(
            "<section><h2>Open</h2>{rows}</section>",
            rows=incident_rows(view, is_open) if is_open else html('<p class="empty">No incident is open.</p>'),
        ),
        html("<section><h2>Closed</h2>{rows}</section>", rows=incident_rows(view, closed)) if closed else NOTHING,
    ]
    body = html('<section id="head" class="head"><h1>Incidents</h1></section><div id="list" data-swap>{parts}</div>', parts=joined(parts))
    return page(view, "Incidents", "/incidents", body)


def incident_page(view: View, incident: Json, done: str | None) -> Html:
    """One incident: its story, its buttons, the dossier of its last occurrence."""
    is_open = incident["closed_at"] is None
    number = incident["incident"]
    buttons = NOTHING
    if view.acts and is_open:
        offers = [] if incident["acknowledged"] else [("ack", "Acknowledge", "main")]
        offers.append(("resolve", "Resolve", ""))
        buttons = html(
            '<div class="actions">{b}</div>',
            b=joined(button(view, link("incidents", number, verb), words, kind) for verb, words, kind in offers),
        )
    state = "closed" if not is_open else "acknowledged" if incident["acknowledged"] else "open"
    story = [
        html("opened {ago} by {run}", ago=ago(incident["opened_at"], view.now), run=_run_link(incident["first_run"])),
        html(
            "seen {n}, last {ago} in {run}",
            n="once" if incident["occurrences"] == 1 else f"{incident['occurrences']} times",
            ago=ago(incident["last_at"], view.now),
            run=_run_link(incident["last_run"]),
        ),
        html("{words}", words="people were told" if incident["alerted"] else "nobody was told yet"),
    ]
    if not is_open:
        story.append(
            html("closed {ago}: {why}", ago=ago(incident["closed_at"], view.now), why=incident["closed_because"] or "no reason given")
        )
    report = incident.get("report")
    body = html(
        '{crumb}<div id="asked">{told}</div><section id="head" data-swap class="head"><h1>Incident {n}: <a href="{job_to}">{job}</a> {outcome} {pill}</h1>'
        '<p class="lead">{summary}</p><p class="muted">{story}</p>{buttons}</section>{dossier}',
        crumb=crumb("/incidents", "incidents"),
        told=told(done),
        n=number,
        job_to=link("jobs", incident["job"]),
        job=incident["job"],
        outcome=outcome_words(incident["outcome"]),
        pill=pill({"open": "bad", "acknowledged": "warn", "closed": "calm"}[state], state),
        summary=incident["summary"],
        story=joined(story, "; "),
        buttons=buttons,
        dossier=dossier(report) if report else html('<p class="empty">Its dossier is no longer kept.</p>'),
    )
    return page(view, f"Incident {number}", "/incidents", body, live=f"/api/v1/events?job={link(incident['job'])[1:]}")


def run_page(view: View, run: Json, report: Json | None) -> Html:
    """A run and how it ended."""
    ended = run["outcome"] is not None
    words = outcome_words(run["outcome"]) if ended else "is running"
    waiting = "It has not ended yet." if not ended else "Its dossier is no longer kept."
    body = html(
        '{crumb}<section id="head" data-swap class="head"><h1>Run {n} of <a href="{to}">{job}</a> {pill}</h1><p class="lead">{summary}</p>'
        '<p class="muted">{trigger}, started {started}{attempts}</p></section>{dossier}',
        crumb=crumb(link("jobs", run["job"]), run["job"]),
        n=run["run"],
        to=link("jobs", run["job"]),
        job=run["job"],
        pill=pill(tone(run["outcome"]), words),
        summary=run["summary"],
        trigger=f"trigger: {run['trigger']}",
        started=ago(run["started_at"], view.now),
        attempts=f", {run['attempts']} attempts" if run["attempts"] > 1 else "",
        dossier=dossier(report) if report else html('<p class="empty">{words}</p>', words=waiting),
    )
    return page(view, f"Run {run['run']}", "/runs", body, live=f"/api/v1/events?job={link(run['job'])[1:]}", stays=ended)


def dossier(report: Json) -> Html:
    """All that is known of an end, the story first and the raw material last."""
    parts = [
        _facts(report),
        _bullets("Evidence", report["evidence"]),
        _cycle(report.get("cycle")),
        _exception(report.get("exception")),
        _bullets("What Mainstay did", report["did"]),
        _bullets("What it does next", report["will"]),
        _bullets("How to override", override(report)),
        _stacks(report.get("stacks") or []),
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
    depth = f", {cycle['depth']:,} levels deep" if isinstance(cycle.get("depth"), int) else ""
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
        "<section><h2>Exception</h2><p><b>{type}</b>: {message}</p><details><summary>{n} frames</summary>{frames}</details></section>",
        type=error.get("type"),
        message=clean(str(error.get("message") or ""), 500),
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
    lines = tail.rstrip("\n").split("\n")[-60:]
    return html('<section><h2>Last output</h2><pre class="log">{text}</pre></section>', text="\n".join(lines))


def _run_link(run: int) -> Html:
    return html('<a href="{to}">run {run}</a>', to=link("runs", run), run=run)
