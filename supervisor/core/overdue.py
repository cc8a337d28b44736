"""A job that has not succeeded in time: when ``expect.success_every`` is passed, and the incident that says so.

It catches what no end can: a schedule that never fires, a run that never begins, a job that somebody forgot to start. Pure; the engine asks at
each deadline. Nothing is overdue while the job is meant to be silent (paused, disabled, removed), nor while another incident of it is open: whoever
is told that it fails need not be told that it does not succeed.
"""

from collections.abc import Sequence
from datetime import timedelta

from supervisor.core import fingerprint
from supervisor.core.evidence import Verdict
from supervisor.core.jobs import Job
from supervisor.core.model import Incident, Outcome, Wall
from supervisor.core.prose import about_duration
from supervisor.core.units import format_duration


def overdue_at(job: Job, last_success_at: Wall | None, expected_since: Wall, open_: Sequence[Incident]) -> Wall | None:
    """When the job becomes overdue; None when it cannot. *expected_since* is when successes began to be expected (config, start, end of a pause)."""
    every_s = job.expect.success_every_s
    if every_s is None or open_ or not job.enabled or job.schedule.is_service:
        return None
    since = expected_since if last_success_at is None else max(last_success_at, expected_since)
    return since + timedelta(seconds=every_s)


def verdict(job: Job, last_success_at: Wall | None, expected_since: Wall, now: Wall) -> Verdict:
    """What the incident says. ``ValueError`` for a job that names no ``expect.success_every``."""
    every_s = job.expect.success_every_s
    if every_s is None:
        raise ValueError(f"{job.name} has no expect.success_every")
    silent_s = max(0.0, (now - (last_success_at or expected_since)).total_seconds())
    last = (
        "it has not succeeded since then" if last_success_at is None else f"its last success was at {last_success_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    return Verdict(
        Outcome.UNMET,
        f"no success for {about_duration(silent_s)}, expected every {format_duration(every_s)}",
        evidence=(
            f"config: expect.success_every is {format_duration(every_s)}",
            f"successes are expected since {expected_since:%Y-%m-%d %H:%M:%S} UTC; {last}",
        ),
        fingerprint=fingerprint.of_words(job.name, "overdue"),
    )
