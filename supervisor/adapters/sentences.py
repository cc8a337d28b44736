"""Log events as sentences, for a person at a terminal. JSON keeps the keys; an event that has no sentence here shows them as well."""

import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog

_Event = Mapping[str, Any]
_COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}
_SKIPPED: Final = ("event", "level", "timestamp", "exception", "stack")


def _ended(event: _Event) -> str:
    after = event["restart_after_s"]
    follow = "" if after is None else f" Another attempt follows in {after:.1f} s."
    bad = event["outcome"] not in ("succeeded", "stopped")
    ask = f" `mainstay why {event['job']}` tells more." if bad else ""
    return f"{event['job']}: run {event['run']}, attempt {event['attempt']}: {event['outcome']}. {event['summary']}{follow}{ask}"


def _opened(event: _Event) -> str:
    count = event["notifications"]
    told = "; nobody is told" if not count else "; an alert is on its way" if count == 1 else f"; {count} alerts are on their way"
    return f"{event['job']}: incident {event['incident']} is open ({event['outcome']}){told}."


def _drilled(event: _Event) -> str:
    where = f" at {event['link']}" if event["link"] else ""
    how = "every link held" if event["result"] == "passed" else f"{event['result']}{where}: {event['detail']}"
    return f"{event['job']}: drill of {event['fault']}: {how}."


def _supervising(event: _Event) -> str:
    listen = event["listen"]
    scheme = "" if event.get("web_config") else "http://"  # with one it may be TLS
    where = f"; {scheme}{listen[0]}:{listen[1]}/metrics is up" if listen else ""
    again = f" (brain started again, {event['brain_restarts']} times so far)" if event["brain_restarts"] else ""
    return f"Mainstay {event['version']} supervises {event['jobs']} jobs of {event['config']}{where}{again}."


_SENTENCES: Final[Mapping[str, Callable[[_Event], str]]] = {
    "supervising": _supervising,
    "attempt_started": lambda e: f"{e['job']}: run {e['run']}, attempt {e['attempt']} started as pid {e['pid']}.",
    "attempt_ended": _ended,
    "limit_breached": lambda e: f"{e['job']}: over its limit on {e['limit']}; all of its processes are stopped, looked at and killed.",
    "incident_opened": _opened,
    "incident_seen": lambda e: f"{e['job']}: incident {e['incident']} again, {e['occurrences']} times by now.",
    "incident_closed": lambda e: f"{e['job']}: incident {e['incident']} is over: {e['because']}.",
    "incident_reminded": lambda e: f"{e['job']}: incident {e['incident']} is still open; its receivers are reminded.",
    "job_parked": lambda e: f"{e['job']}: parked ({e['why']}) until a person says `{e['mend']}`.",
    "slots_missed": lambda e: (
        f"{e['job']}: {e['count']} fire times did not run ({e['reason']}), from {e['first']} to {e['last']}."
        if e["count"] > 1
        else f"{e['job']}: the fire time {e['first']} did not run ({e['reason']})."
    ),
    "run_adopted": lambda e: f"{e['job']}: run {e['run']} goes on as pid {e['pid']}; the new brain has taken it over.",
    "receiver_failing": lambda e: f"Alerts to {e['receiver']} do not get through ({e['error']}); they are kept and tried again.",
    "receiver_recovered": lambda e: f"Alerts to {e['receiver']} get through again.",
    "config_reloaded": lambda e: f"{e['path']} is in force: {e['jobs']} jobs.",
    "config_refused": lambda e: f"The config was refused, the one in force stays: {e['problem']}",
    "config_warning": lambda e: f"{e['warning']}",
    "drill_ended": _drilled,
    "shutdown_asked": lambda _: "Stopping everything in order.",
    "everything_stopped": lambda _: "Everything is stopped.",
}
_TOLD_OTHERWISE: Final = {"run_ended"}  # attempt_ended has said it


def sentence(event: _Event) -> str:
    """The event in words; "" for one that another event has told already."""
    name = str(event["event"])
    if name in _TOLD_OTHERWISE:
        return ""
    write = _SENTENCES.get(name)
    if write is not None:
        try:
            return write(event)
        except (KeyError, TypeError, ValueError, IndexError):
            pass  # an older or newer shape of the event: its keys say it as well
    facts = " ".join(f"{key}={value}" for key, value in event.items() if key not in _SKIPPED)
    return f"{name.replace('_', ' ')} {facts}".rstrip()


class SentenceRenderer:
    """The last structlog processor for a console: clock time, level where it matters, sentence, traceback."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours and not os.environ.get("NO_COLOR")

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        text = sentence(event)
        level = str(event.get("level", "info"))
        if level != "info" and text:
            text = f"{level}: {text}"
        if self._colours and level != "info":
            text = f"\x1b[{_COLOURS.get(level, '0')}m{text}\x1b[0m"
        clock = str(event.get("timestamp", ""))[11:19]
        trace = event.get("exception")
        if not text and not trace:
            raise structlog.DropEvent
        return f"{clock}  {text}" + (f"\n{trace}" if trace else "")
