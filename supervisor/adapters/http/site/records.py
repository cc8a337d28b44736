"""The pages of runs and incidents; the dossier that stands on them is ``dossier``'s."""

from collections.abc import Mapping, Sequence
from typing import Any

from supervisor.adapters.http.site.dossier import dossier
from supervisor.adapters.http.site.jobpage import run_table
from supervisor.adapters.http.site.layout import View, button, crumb, incident_rows, page, pill, told
from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined, link
from supervisor.adapters.http.site.words import ago, outcome_words, tone

Json = Mapping[str, Any]


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
        html("{words}", words=_who_knows(incident)),
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


def _who_knows(incident: Json) -> str:
    """Who was told of it, or why nobody was."""
    if incident.get("told"):
        return "told: " + ", ".join(incident["told"])
    if incident.get("held"):
        return "held back by a silence or a maintenance window"
    return "people were told" if incident["alerted"] else "nobody was told"


def _run_link(run: int) -> Html:
    return html('<a href="{to}">run {run}</a>', to=link("runs", run), run=run)
