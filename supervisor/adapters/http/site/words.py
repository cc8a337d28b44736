"""What the pages say in words: outcomes, states, ages and figures."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from supervisor.adapters.http.site.markup import NOTHING, Html, html
from supervisor.core.model import Outcome
from supervisor.core.prose import about_duration, about_size

Json = Mapping[str, Any]

OUTCOME_WORDS: Final = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.EXCEPTION: "died of an exception",
    Outcome.RECURSION: "ran away in recursion",
    Outcome.MEMORY: "hit its memory limit",
    Outcome.TIME: "ran out of time",
    Outcome.CPU: "used up its CPU time",
    Outcome.STALLED: "made no progress",
    Outcome.PROCESSES: "started too many processes",
    Outcome.OUTPUT: "wrote too much",
    Outcome.CRASHED: "crashed",
    Outcome.SIGNALLED: "was killed by a signal",
    Outcome.HOST_OOM: "was killed: the host is out of memory",
    Outcome.WORKER_LOST: "lost a worker process",
    Outcome.UNMET: "ended well, but not as expected",
    Outcome.LAUNCH_FAILED: "could not be started",
    Outcome.STOPPED: "was stopped",
    Outcome.LOST: "was lost",
}
DASH: Final = "\N{EN DASH}"  # where there is no figure
GOOD: Final = frozenset(outcome.value for outcome in Outcome if not outcome.is_bad)


def outcome_words(outcome: str) -> str:
    """An outcome as one says it; one that is not known here as it is."""
    return OUTCOME_WORDS.get(Outcome(outcome), outcome) if outcome in set(Outcome) else outcome


def tone(outcome: str | None) -> str:
    """good, bad, calm (nobody's fault) or busy (not ended)."""
    if outcome is None:
        return "busy"
    if outcome == Outcome.STOPPED.value:
        return "calm"
    return "good" if outcome in GOOD else "bad"


_STATE_TONES: Final = {"running": "busy", "starting": "busy", "stopping": "busy", "backing_off": "warn", "parked": "bad", "paused": "warn"}


def state_tone(job: Json) -> str:
    """The tone of where a job is. Waiting is calm, however the last run ended: that stands beside it."""
    return _STATE_TONES.get(job["state"], "calm")


def needs_attention(job: Json) -> bool:
    """Whether a person should look at it."""
    return (
        bool(job["incidents"])
        or job["state"] in ("parked", "backing_off")
        or (job["state"] != "disabled" and job["last"] is not None and tone(job["last"]["outcome"]) == "bad")
    )


def state_words(job: Json) -> str:
    """The state, without the underscore."""
    return str(job["state"]).replace("_", " ")


def moment(stamp: str | None) -> datetime | None:
    """A stamp of the API as a time."""
    return None if stamp is None else datetime.fromisoformat(stamp)


def span(seconds: float) -> str:
    """A length of time in at most two units: "3h 5m"."""
    whole = round(abs(seconds))
    for size, unit, lesser, lesser_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // lesser
            return f"{whole // size}{unit} {rest}{lesser_unit}" if rest and whole // size < 10 else f"{whole // size}{unit}"
    return f"{whole}s"


def ago(stamp: str | None, now: datetime) -> Html:
    """A moment as its distance from now; the exact time is beside it for who asks."""
    at = moment(stamp)
    if at is None or stamp is None:
        return NOTHING
    seconds = (now - at).total_seconds()
    words = (
        ("just now" if seconds >= 0 else "now") if abs(seconds) < 1 else f"{span(seconds)} ago" if seconds > 0 else f"in {span(seconds)}"
    )
    return html('<time datetime="{stamp}" title="{exact}">{words}</time>', stamp=stamp, exact=exactly(stamp), words=words)


def exactly(stamp: str) -> str:
    """A stamp for reading: "2026-11-28 03:50:26 UTC"."""
    return stamp[:19].replace("T", " ") + " UTC"


def size(value: float | None) -> str:
    """A size with a space before its unit, as one reads it."""
    if value is None:
        return DASH
    text = about_size(value)
    digits = text.rstrip("BKMGTi")
    return f"{digits} {text[len(digits) :]}"


def took(seconds: float | None) -> str:
    """How long something took."""
    return DASH if seconds is None else about_duration(seconds)
