"""The frame around every page: head, navigation, footer; and the pages' small parts that several of them have."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any, Final

from msgspec import Struct

from supervisor.adapters.http.site.markup import NOTHING, Html, html, joined, link
from supervisor.adapters.http.site.words import ago, outcome_words, span

Json = Mapping[str, Any]

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
ASSETS: Final = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
REFRESH_S: Final = 15  # where there is no script


class View(Struct, frozen=True):
    """What every page knows: the daemon, all jobs, the time, whether the reader may act, and what makes the forms ours."""

    daemon: Json
    jobs: tuple[Json, ...]
    now: datetime
    acts: bool
    token: str
    who: str | None

    @property
    def open_incidents(self) -> int:
        """How many incidents are open."""
        return sum(len(job["incidents"]) for job in self.jobs)


def asset(name: str) -> bytes:
    """A file of ours."""
    return resources.files(__package__).joinpath(name).read_bytes()


VERSION: Final = hashlib.sha256(b"".join(asset(name) for name in ASSETS)).hexdigest()[:12]


def page(view: View, title: str, here: str, body: Html, *, live: str = "/api/v1/events", stays: bool = False) -> Html:
    """A whole document. *live*: the stream that says when to look again; *stays*: there is nothing to look again for."""
    refresh = NOTHING if stays else html('<noscript><meta http-equiv="refresh" content="{s}"></noscript>', s=REFRESH_S)
    return html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · Mainstay</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        '<meta name="robots" content="noindex">{refresh}<link rel="icon" href="/assets/icon.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/assets/style.css?v={version}"><script src="/assets/live.js?v={version}" defer></script></head>'
        '<body><a class="skip" href="#main">Skip to content</a>{header}<main id="main" {live}>{body}</main>{footer}</body></html>\n',
        title=title,
        refresh=refresh,
        version=VERSION,
        header=_header(view, here),
        live=NOTHING if stays else html('data-live="{live}"', live=live),
        body=body,
        footer=_footer(view),
    )


def _header(view: View, here: str) -> Html:
    count = view.open_incidents
    badge = html(' <span class="badge" aria-label="{n} open">{n}</span>', n=count) if count else NOTHING
    places = (("/", "Jobs", NOTHING), ("/runs", "Runs", NOTHING), ("/incidents", "Incidents", badge))
    items = joined(
        html(
            '<li><a href="{to}"{current}>{name}{badge}</a></li>',
            to=to,
            current=Html(' aria-current="page"') if to == here else NOTHING,
            name=name,
            badge=mark,
        )
        for to, name, mark in places
    )
    return html(
        '<header class="top" id="top" data-swap><div class="wide"><a class="brand" href="/"><img src="/assets/icon.svg" alt="" width="22" height="22">'
        'Mainstay</a><nav aria-label="Pages"><ul>{items}</ul></nav><span class="pulse" id="pulse" role="status"></span></div></header>',
        items=items,
    )


def _footer(view: View) -> Html:
    daemon = view.daemon
    started = datetime.fromisoformat(daemon["started_at"])
    held = " and ".join(dict.fromkeys(str(how) for how in daemon["containment"].values()))
    return html(
        '<footer><div class="wide"><span>Mainstay {version}, up {up}</span><span>limits held by {held}</span><span>{config}</span>'
        '<span>{who}</span><span class="links"><a href="/metrics">Metrics</a> <a href="/api/v1/openapi.json">API</a></span></div></footer>',
        version=daemon["version"],
        up=span((view.now - started).total_seconds()),
        held="the kernel (cgroup)" if held == "cgroup" else "polling" if held == "poll" else held,
        config=daemon["config"],
        who="you are " + view.who if view.who else "read only" if not view.acts else "",
    )


def pill(kind: str, words: str) -> Html:
    """A state: a dot with its colour, and always the word beside it."""
    return html('<span class="pill {kind}"><i aria-hidden="true"></i>{words}</span>', kind=kind, words=words)


def button(view: View, action: str, words: str, kind: str = "", **fields: str) -> Html:
    """A form of one button."""
    hidden = joined(html('<input type="hidden" name="{name}" value="{value}">', name=name, value=value) for name, value in fields.items())
    return html(
        '<form method="post" action="{action}"><input type="hidden" name="token" value="{token}">{hidden}<button class="{kind}">{words}</button></form>',
        action=action,
        token=view.token,
        hidden=hidden,
        kind=kind,
        words=words,
    )


def incident_rows(view: View, incidents: Sequence[Json]) -> Html:
    """Incidents as a list."""
    rows = []
    for one in incidents:
        is_open = one["closed_at"] is None
        state = "closed" if not is_open else "acknowledged" if one["acknowledged"] else "open"
        rows.append(
            html(
                '<li class="incident {state}"><a href="{to}"><span class="what">{pill}<b>{job}</b> {outcome}</span>'
                '<span class="summary">{summary}</span><span class="when muted">incident {id}, {severity}, seen {seen}, opened {opened}{closed}</span></a></li>',
                state=state,
                to=link("incidents", one["incident"]),
                pill=pill({"open": "bad", "acknowledged": "warn", "closed": "calm"}[state], state),
                job=one["job"],
                outcome=outcome_words(one["outcome"]),
                summary=one["summary"],
                id=one["incident"],
                severity=one["severity"],
                seen="once" if one["occurrences"] == 1 else f"{one['occurrences']} times",
                opened=ago(one["opened_at"], view.now),
                closed=NOTHING if is_open else html(", closed {ago}", ago=ago(one["closed_at"], view.now)),
            )
        )
    return html('<ul class="incidents">{rows}</ul>', rows=joined(rows))


_DONE: Final = {
    "start": "Asked to start.",
    "stop": "Asked to stop; it has its grace.",
    "restart": "Asked to restart.",
    "trigger": "Asked to run once, now.",
    "pause": "Paused: its fire times are left out until it is resumed.",
    "resume": "Resumed.",
    "ack": "Acknowledged: no more reminders.",
    "resolve": "Resolved.",
}


def told(done: str | None) -> Html:
    """What was just asked for."""
    if done not in _DONE:
        return NOTHING
    return html('<p class="told" role="status">{words}</p>', words=_DONE[done])


def crumb(to: str, words: str) -> Html:
    """The way back."""
    return html('<p class="crumb"><a href="{to}">← {words}</a></p>', to=to, words=words)
