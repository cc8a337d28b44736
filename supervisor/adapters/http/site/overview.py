"""The page at /: all jobs at a glance, those that need a person first."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from supervisor.adapters.http.site.layout import View, incident_rows, page, pill
from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined, link
from supervisor.adapters.http.site.pictures import memory_bar, strip
from supervisor.adapters.http.site.words import DASH, ago, needs_attention, outcome_words, size, state_tone, state_words, tone, took
from supervisor.core.prose import counted

Json = Mapping[str, Any]

PER_PAGE: Final = 100
SHOWS: Final = {"all": "All", "attention": "Attention", "running": "Running", "paused": "Paused"}
_ORDER: Final = ("parked", "backing_off", "stopping", "starting", "running", "idle", "paused", "disabled")


def chosen(view: View, show: str) -> list[Json]:
    """The jobs that *show* names, those first that need a person."""
    tests = {
        "all": lambda _job: True,
        "attention": needs_attention,
        "running": lambda job: bool(job["runs"]),
        "paused": lambda job: job["state"] in ("paused", "disabled") or job["paused"],
    }
    return sorted(filter(tests[show], view.jobs), key=lambda job: (not needs_attention(job), _ORDER.index(job["state"]), job["name"]))


def overview(view: View, show: str, number: int, runs: Mapping[str, Sequence[Json]], incidents: Sequence[Json]) -> Html:
    """The document. *runs*: the last ones of each job on this page, newest first."""
    jobs = chosen(view, show)
    some = jobs[(number - 1) * PER_PAGE : number * PER_PAGE]
    body = html(
        '<section id="head" data-swap class="head">{headline}</section>{incidents}'
        '<section id="jobs" data-swap aria-labelledby="jobs-title"><div class="bar-of"><h2 id="jobs-title">Jobs</h2>{filters}</div>{table}{more}</section>',
        headline=headline(view),
        incidents=_incidents(view, incidents),
        filters=_filters(view, show),
        table=_table(view, some, runs) if some else html('<p class="empty">No job is like that.</p>'),
        more=_more(show, number, len(jobs)),
    )
    return page(view, "Jobs", "/", body)


def headline(view: View) -> Html:
    """The whole in one sentence, and what it is made of in another."""
    trouble = [job for job in view.jobs if needs_attention(job)]
    if view.daemon["closing"]:
        words, kind = "Mainstay is stopping", "warn"
    elif not trouble:
        words, kind = ("All is well" if view.jobs else "No jobs are configured"), "good"
    else:
        words, kind = f"{counted(len(trouble), 'job')} {'needs' if len(trouble) == 1 else 'need'} attention", "bad"
    running = sum(bool(job["runs"]) for job in view.jobs)
    facts = [counted(len(view.jobs), "job"), f"{running} running"]
    due = min((job["next_run"] for job in view.jobs if job["next_run"]), default=None)
    following = html(", next run {ago}", ago=ago(due, view.now)) if due else NOTHING
    behind = view.daemon.get("history_behind")
    if behind is not None:
        facts.append(f"the history is not written: {behind['error']}")
    return html(
        '<h1 class="{kind}"><i aria-hidden="true"></i>{words}</h1><p class="muted">{facts}{due}</p>',
        kind=kind,
        words=words,
        facts=", ".join(facts),
        due=following,
    )


def _incidents(view: View, incidents: Sequence[Json]) -> Html:
    if not incidents:
        return html('<section id="incidents" data-swap></section>')
    return html(
        '<section id="incidents" data-swap aria-labelledby="incidents-title"><h2 id="incidents-title">Open incidents</h2>{rows}</section>',
        rows=incident_rows(view, incidents),
    )


def _filters(view: View, show: str) -> Html:
    items = joined(
        html(
            '<li><a href="{to}"{current}>{words} <span class="count">{n}</span></a></li>',
            to="/" if name == "all" else f"/?show={name}",
            current=Html(' aria-current="true"') if name == show else NOTHING,
            words=words,
            n=len(chosen(view, name)),
        )
        for name, words in SHOWS.items()
    )
    return html('<ul class="filters" aria-label="Which jobs">{items}</ul>', items=items)


def _table(view: View, jobs: Sequence[Json], runs: Mapping[str, Sequence[Json]]) -> Html:
    rows = joined(_row(view, job, runs.get(job["name"], ())) for job in jobs)
    heads = joined(
        html('<th scope="col">{name}</th>', name=name) for name in ("Job", "State", "Last run", "Recent runs", "Next run", "Memory")
    )
    return html('<table class="jobs"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>', heads=heads, rows=rows)


def _row(view: View, job: Json, runs: Sequence[Json]) -> Html:
    return html(
        '<tr class="{kind}"><th scope="row"><a href="{to}">{name}</a><span class="muted">{schedule}</span></th>'
        '<td data-name="State">{state}</td><td data-name="Last run" class="last">{last}</td><td data-name="Recent runs">{strip}</td>'
        '<td data-name="Next run">{due}</td><td data-name="Memory" class="memory">{memory}</td></tr>',
        kind="attention" if needs_attention(job) else "",
        to=link("jobs", job["name"]),
        name=job["name"],
        schedule=job["schedule"],
        state=pill(state_tone(job), state_words(job)),
        last=last_words(view, job),
        strip=strip(runs),
        due=next_words(view, job),
        memory=memory(job),
    )


def last_words(view: View, job: Json) -> Html:
    """How the last run ended, in words; of a bad end what happened, too."""
    last = job["last"]
    if last is None:
        return html('<span class="muted">{words}</span>', words="still in its first run" if job["runs"] else "never ran")
    kind = tone(last["outcome"])
    more = html('<span class="summary" title="{summary}">{summary}</span>', summary=last["summary"]) if kind == "bad" else NOTHING
    return html(
        '<a class="outcome {kind}" href="{to}">{words}</a> <span class="muted nowrap">{ago}, took {took}</span>{more}',
        kind=kind,
        to=link("runs", last["run"]),
        words=outcome_words(last["outcome"]),
        ago=ago(last["ended_at"], view.now),
        took=took(last["duration_seconds"]),
        more=more,
    )


def next_words(view: View, job: Json) -> Html:
    """When it runs next, or why it does not."""
    if job["parked"]:
        return html('<span class="bad-text">parked: {why}</span>', why=job["parked"])
    if job["paused"]:
        until = html(", until {ago}", ago=ago(job["paused_until"], view.now)) if job["paused_until"] else NOTHING
        return html('<span class="muted">paused{until}</span>', until=until)
    if job["next_run"]:
        return ago(job["next_run"], view.now)
    return html(
        '<span class="muted">{words}</span>',
        words="when asked" if job["schedule"] == "manual" else "kept running" if job["schedule"] == "service" else DASH,
    )


def memory(job: Json) -> Html:
    """Memory against its limit, as a picture and in figures."""
    live = job["memory_bytes"] is not None
    used = job["memory_bytes"] if live else (job["last"] or {}).get("memory_peak_bytes")
    limit = job["memory_limit_bytes"]
    return html(
        '{bar}<span class="figure {live}">{used} <span class="muted">/ {limit}</span></span>',
        bar=memory_bar(used, limit, job["limits"]["memory_soft_bytes"], live=live),
        live="" if live else "muted",
        used=size(used or None),
        limit=size(limit),
    )


def _more(show: str, number: int, total: int) -> Html:
    pages = -(-total // PER_PAGE)
    if pages <= 1:
        return NOTHING
    links = joined(
        html(
            '<li><a href="/?show={show}&amp;page={n}"{current}>{n}</a></li>',
            show=show,
            n=n,
            current=Html(' aria-current="true"') if n == number else NOTHING,
        )
        for n in range(1, pages + 1)
    )
    return html('<nav aria-label="More jobs"><ul class="filters">{links}</ul></nav>', links=links)
