"""The page of one job: where it is, its limits, its last runs, its output as it comes, and the buttons."""

from collections.abc import Mapping, Sequence
from typing import Any

from supervisor.adapters.http.site.layout import View, button, crumb, incident_rows, page, pill, told
from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined, link
from supervisor.adapters.http.site.overview import last_words, memory, next_words
from supervisor.adapters.http.site.pictures import peaks, strip
from supervisor.adapters.http.site.words import DASH, ago, outcome_words, size, state_tone, state_words, tone, took
from supervisor.core.prose import counted

Json = Mapping[str, Any]
LOG_LINES = 200


def job_page(
    view: View, job: Json, runs: Sequence[Json], slots: Sequence[Json], incidents: Sequence[Json], log: Json | None, done: str | None
) -> Html:
    """The document. *incidents*: the open ones of the job; *log*: the end of its output, None if it has written none."""
    name = job["name"]
    body = html(
        '{crumb}<div id="asked">{told}</div><section id="head" data-swap class="head"><h1>{name} {pill}</h1><p class="lead">{description}</p>{actions}</section>'
        '{incidents}<section id="facts" data-swap class="facts">{facts}</section>{peaks}{runs}{log}',
        crumb=crumb("/", "all jobs"),
        told=told(done),
        name=name,
        pill=pill(state_tone(job), state_words(job)),
        description=job["description"],
        actions=_actions(view, job),
        incidents=html('<section id="incidents" data-swap>{rows}</section>', rows=incident_rows(view, incidents) if incidents else NOTHING),
        facts=_facts(view, job, runs),
        peaks=_peaks(job, runs),
        runs=_runs(view, job, runs, slots),
        log=_log(name, log),
    )
    return page(view, name, "/", body, live=f"/api/v1/events?job={link(name)[1:]}")


def _actions(view: View, job: Json) -> Html:
    if not view.acts:
        return NOTHING
    name, state = job["name"], job["state"]
    is_service = job["schedule"] == "service"
    offers: list[tuple[str, str, str]] = []
    if state == "disabled":
        return html('<p class="muted">It is switched off in the config.</p>')
    if job["parked"]:
        offers.append(("start", "Start again", "main"))
    elif not job["runs"]:
        offers.append(("start", "Start", "main") if is_service else ("trigger", "Run now", "main"))
    offers.append(("resume", "Resume", "main" if job["paused"] else "") if job["paused"] else ("pause", "Pause", ""))
    if job["runs"]:
        offers += [("restart", "Restart", ""), ("stop", "Stop", "stop")]
    return html(
        '<div class="actions">{buttons}</div>',
        buttons=joined(button(view, link("jobs", name, verb), words, kind) for verb, words, kind in offers),
    )


def _facts(view: View, job: Json, runs: Sequence[Json]) -> Html:
    limits = job["limits"]
    alive = [
        html(
            "run {run}, attempt {n}, pid {pid}, since {ago}",
            run=one["run"],
            n=one["attempt"],
            pid=one["pid"] or DASH,
            ago=ago(one["started_at"], view.now),
        )
        for one in job["runs"]
    ]
    facts = [
        ("Last run", last_words(view, job)),
        ("Next run", html('{due} <span class="muted">{schedule}</span>', due=next_words(view, job), schedule=job["schedule"])),
        ("Memory", memory(job)),
        ("Recent runs", html('{strip} <span class="muted">{words}</span>', strip=strip(runs), words=_row_words(job))),
    ]
    quiet = job.get("quiet")
    if quiet:
        until = html(" until {ago}", ago=ago(quiet["until"], view.now)) if quiet["until"] else NOTHING
        facts.append(("Alerts", html('held back{until} <span class="muted">{why}</span>', until=until, why=quiet["why"])))
    if alive:
        facts.append(("Alive now", joined(alive, "<br>")))
    cards = joined(html('<div class="card"><h2>{title}</h2><div>{body}</div></div>', title=title, body=body) for title, body in facts)
    lines = [
        ("time", took(limits["time_seconds"]) if limits["time_seconds"] else None),
        ("memory", size(limits["memory_bytes"]) if limits["memory_bytes"] else None),
        ("memory, soft", size(limits["memory_soft_bytes"]) if limits["memory_soft_bytes"] else None),
        ("recursion", f"{limits['recursion_frames']:,} frames" if limits["recursion_frames"] else None),
        ("CPU time", took(limits["cpu_seconds"]) if limits["cpu_seconds"] else None),
        ("stall", took(limits["stall_seconds"]) if limits["stall_seconds"] else None),
        ("processes", limits["processes"]),
        ("open files", limits["files"]),
        ("output", size(limits["output_bytes"]) if limits["output_bytes"] else None),
    ]
    rows = joined(html("<div><dt>{name}</dt><dd>{value}</dd></div>", name=name, value=value) for name, value in lines if value)
    return html('{cards}<div class="card limits"><h2>Limits</h2><dl>{rows}</dl></div>', cards=cards, rows=rows)


def _row_words(job: Json) -> str:
    if job["failures_in_row"]:
        return f"{counted(job['failures_in_row'], 'failure')} in a row, {counted(job['restarts'], 'restart')} in the window"
    return "no failure in a row"


def _peaks(job: Json, runs: Sequence[Json]) -> Html:
    limits = job["limits"]
    picture = peaks(runs, limits["memory_bytes"], limits["memory_soft_bytes"])
    if not picture:
        return html('<section id="peaks" data-swap></section>')
    return html(
        '<section id="peaks" data-swap aria-labelledby="peaks-title"><h2 id="peaks-title">Peak memory of the last runs</h2>'
        '<div class="panel">{picture}<p class="muted key">the line is the limit, {limit}</p></div></section>',
        picture=picture,
        limit=size(limits["memory_bytes"]),
    )


def _runs(view: View, job: Json, runs: Sequence[Json], slots: Sequence[Json]) -> Html:
    skipped = [slot for slot in slots if slot["result"] == "skipped"][:5]
    note = NOTHING
    if skipped:
        words = joined(
            (html("{ago} ({why})", ago=ago(slot["slot"], view.now), why=str(slot["reason"]).replace("_", " ")) for slot in skipped), ", "
        )
        note = html('<p class="muted">Fire times that did not run: {words}</p>', words=words)
    return html(
        '<section id="runs" data-swap aria-labelledby="runs-title"><div class="bar-of"><h2 id="runs-title">Runs</h2><a class="more" href="/runs?job={name}">all</a></div>{table}{note}</section>',
        name=link(job["name"])[1:],
        table=run_table(view, runs[:12], with_job=False) if runs else html('<p class="empty">It has not run yet.</p>'),
        note=note,
    )


def run_table(view: View, runs: Sequence[Json], *, with_job: bool) -> Html:
    """Runs as a table, newest first."""
    names = ["Run", *(["Job"] if with_job else []), "Outcome", "Started", "Took", "Peak", "Attempts", "Trigger"]
    heads = joined(html('<th scope="col">{name}</th>', name=name) for name in names)
    rows = []
    for run in runs:
        ended = run["outcome"] is not None
        number = html('<a href="{to}">{run}</a>', to=link("runs", run["run"]), run=run["run"])
        whose = (
            html('<td data-name="Job"><a href="{to}">{job}</a></td>', to=link("jobs", run["job"]), job=run["job"]) if with_job else NOTHING
        )
        rows.append(
            html(
                '<tr><th scope="row">{number}</th>{whose}<td data-name="Outcome" class="last">{pill}{summary}</td><td data-name="Started">{started}</td>'
                '<td data-name="Took" class="n">{took}</td><td data-name="Peak" class="n">{peak}</td><td data-name="Attempts" class="n">{attempts}</td><td data-name="Trigger">{trigger}</td></tr>',
                number=number,
                whose=whose,
                pill=pill(tone(run["outcome"]), outcome_words(run["outcome"]) if ended else "running"),
                summary=html('<span class="summary">{words}</span>', words=run["summary"]) if tone(run["outcome"]) == "bad" else NOTHING,
                started=ago(run["started_at"], view.now),
                took=took(run["duration_seconds"]) if ended else DASH,
                peak=size(run["memory_peak_bytes"]) if run["memory_peak_bytes"] else DASH,
                attempts=run["attempts"],
                trigger=run["trigger"],
            )
        )
    return html('<table class="runs"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>', heads=heads, rows=joined(rows))


def _log(name: str, log: Json | None) -> Html:
    attempt = log["attempt"] if log else None
    whose = f"run {log['run']}, attempt {attempt}" if log and attempt is not None else "nothing written yet"
    return html(
        '<section aria-labelledby="log-title"><div class="bar-of"><h2 id="log-title">Output</h2><span class="muted" id="log-of">{whose}</span></div>'
        '<pre class="log" id="log" tabindex="0" aria-label="Output of {name}" data-stream="{stream}">{text}</pre></section>',
        whose=whose,
        name=name,
        stream=f"/api/v1/jobs{link(name)}/logs/stream?n={LOG_LINES}",
        text=log["text"] if log else "",
    )
