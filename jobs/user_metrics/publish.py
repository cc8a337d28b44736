"""Turns results and counts into one snapshot in the Prometheus text format 0.0.4 and replaces the published file with it in one step.

The whole file is new each time, so a series whose row vanished vanishes too. Ids of users are never labels; every label set is closed.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from user_metrics.check import DAY_US, Reason
from user_metrics.errors import JobError
from user_metrics.state import Sample, State

TOTALS: Final = "# MAINSTAY TOTALS\n"
RUN_RESULTS: Final = ("ok", "failed", "rejected", "killed")


@dataclass(frozen=True, slots=True)
class Family:
    """A metric's name without prefix, its type and its help."""

    name: str
    kind: str
    text: str


USERS: Final = (
    Family("users", "gauge", "Accounts of people."),
    Family("signups", "gauge", "New accounts within the window that ends with the last complete day."),
    Family("active_users", "gauge", "People who acted within the window that ends with the last complete day."),
    Family("acting_users", "gauge", "People who ever acted."),
    Family("events_total", "counter", "Events by type."),
    Family("events_per_active_user", "summary", "Quantiles of the number of events per person who ever acted."),
    Family("retention_ratio", "gauge", "Share of the eligible users who acted in that week after signing up."),
    Family("retention_eligible_users", "gauge", "Users whose that week after signing up is over."),
    Family("retention_returned_users", "gauge", "Eligible users who acted in that week after signing up."),
    Family("self_events_total", "counter", "Events of a user to itself; they are no edges of the graph."),
    Family("identical_events_total", "counter", "Events that repeat another one in all but the id."),
    Family("busiest_day_timestamp_seconds", "gauge", "Start of the day on which most people acted."),
    Family("busiest_day_events", "gauge", "Events of people on the busiest day."),
    Family("busiest_day_active_users", "gauge", "People who acted within the window that ends with the busiest day."),
    Family("graph_edges", "gauge", "Distinct pairs of different users of which one acted towards the other."),
    Family("graph_reciprocated_edges", "gauge", "Edges whose reverse is an edge too."),
    Family("graph_reciprocity_ratio", "gauge", "Share of the edges that are reciprocated."),
    Family("graph_largest_component_users", "gauge", "Users of the largest connected component."),
    Family("graph_weak_components", "gauge", "Weakly connected components with at least one edge."),
    Family("graph_users_in_cycles", "gauge", "Users on a cycle of any length, an event to oneself included."),
    Family("graph_component_chain_max", "gauge", "Edges of the longest path between strongly connected components."),
    Family("chain_parents", "gauge", "Users with a parent: somebody who brought them."),
    Family("chain_cycles", "gauge", "Cycles in the chains of who brought whom."),
    Family("chain_cycle_users", "gauge", "Users on such a cycle."),
    Family("chain_below_cycle_users", "gauge", "Users whose chain runs into such a cycle."),
    Family("chain_unresolved_users", "gauge", "Users on or below a cycle: a walk up from them never ends."),
    Family("chain_depth_max", "gauge", "Greatest distance of a user to the start of its chain, where it has one."),
    Family("chain_level_max", "gauge", "Greatest distance of a user to the start of its chain or to a cycle."),
    Family("data_as_of_timestamp_seconds", "gauge", "End of the day that the values refer to."),
)

JOB: Final = (
    Family("last_success_timestamp_seconds", "gauge", "End of the last good run."),
    Family("last_run_timestamp_seconds", "gauge", "Start of the last run."),
    Family("runs_total", "counter", "Runs by how they ended."),
    Family("run_duration_seconds", "gauge", "Duration of the stages of the last run."),
    Family("watermark_timestamp_seconds", "gauge", "Time of the newest accepted row."),
    Family("rows_read_total", "counter", "Rows read; equals accepted + repeated + rejected."),
    Family("rows_accepted_total", "counter", "Rows that are part of the figures."),
    Family("rows_repeated_total", "counter", "Rows with the id and content of an earlier one; counted once."),
    Family("rows_rejected_total", "counter", "Rows set aside, by reason."),
    Family("late_rows_total", "counter", "Accepted rows older than the newest row of an earlier batch."),
    Family("rows_quarantined", "gauge", "Rows in quarantine."),
    Family("rounds", "gauge", "Rounds that the loops of a metric took."),
    Family("rounds_limit", "gauge", "Rounds that the loops of a metric may take; fixed before they start."),
    Family("metric_errors_total", "counter", "Times a metric could not be computed; its old value then stays."),
    Family("metric_duration_seconds", "gauge", "Duration of the last computation of a metric."),
    Family("metric_last_success_timestamp_seconds", "gauge", "Time of the last good computation of a metric."),
    Family("state_bytes", "gauge", "Size of the state on disk."),
)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a snapshot says of the run that makes it. Times in seconds since the epoch; ``stages`` are (name, seconds)."""

    started_at: float
    ended_at: float
    stages: Sequence[tuple[str, float]]


def snapshot(state: State, run: RunFacts, as_of: int | None, prefix: str) -> str:
    """The whole file: results with *prefix*, then the counts of the job itself.

    The first line tells Mainstay that the counters are totals out of our own state, not what one run counted from zero.
    """
    samples = state.results()
    if as_of is not None:
        samples.append(Sample("data_as_of_timestamp_seconds", (as_of + 1) * (DAY_US // 1_000_000)))
    return "".join((TOTALS, *_render(USERS, f"{prefix}_", samples), *_render(JOB, "user_metrics_", _job_samples(state, run))))


def _job_samples(state: State, run: RunFacts) -> list[Sample]:
    samples = [Sample("last_success_timestamp_seconds", run.ended_at), Sample("last_run_timestamp_seconds", run.started_at)]
    runs = dict(state.rows("SELECT what, count FROM tally WHERE source = 'run'"))
    samples += [Sample("runs_total", runs.get(result, 0) + (result == "ok"), (("result", result),)) for result in RUN_RESULTS]
    samples += [Sample("run_duration_seconds", seconds, (("stage", stage),)) for stage, seconds in run.stages]
    samples += [
        Sample("watermark_timestamp_seconds", at_us / 1e6, (("source", source),))
        for source, at_us in state.rows("SELECT source, watermark_us FROM position WHERE watermark_us IS NOT NULL")
    ]
    for source, tally in sorted(state.tallies().items()):
        label = (("source", source),)
        samples += [
            Sample("rows_read_total", tally.read, label),
            Sample("rows_accepted_total", tally.accepted, label),
            Sample("rows_repeated_total", tally.repeated, label),
            Sample("late_rows_total", tally.late, label),
            *(Sample("rows_rejected_total", tally.rejected[reason.value], (*label, ("reason", reason.value))) for reason in Reason),
        ]
    samples.append(Sample("rows_quarantined", state.rows("SELECT count(*) FROM quarantine")[0][0]))
    for name, succeeded_at, seconds, errors, rounds, limit in state.rows(
        "SELECT name, succeeded_at, seconds, errors, rounds, rounds_limit FROM metric"
    ):
        values = (
            ("metric_errors_total", errors),
            ("metric_duration_seconds", seconds),
            ("metric_last_success_timestamp_seconds", succeeded_at),
            ("rounds", rounds),
            ("rounds_limit", limit),
        )
        samples += [Sample(family, value, (("metric", name),)) for family, value in values if value is not None]
    samples.append(Sample("state_bytes", _state_bytes(state.path)))
    return samples


def _state_bytes(path: str) -> int:
    return sum(os.stat(name).st_size for name in (path, f"{path}-wal") if os.path.exists(name))


def _render(families: Iterable[Family], prefix: str, samples: Iterable[Sample]) -> Iterable[str]:
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    for family in families:
        found = by_name.pop(family.name, [])
        if found:
            yield f"# HELP {prefix}{family.name} {family.text}\n# TYPE {prefix}{family.name} {family.kind}\n"
            yield from (f"{prefix}{family.name}{_labels(sample)} {number(sample.value)}\n" for sample in found)
    if by_name:
        raise AssertionError(f"results without a family: {', '.join(by_name)}")


def _labels(sample: Sample) -> str:
    if not sample.labels:
        return ""
    escaped = ((key, text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, text in sample.labels)
    return "{" + ",".join(f'{key}="{text}"' for key, text in escaped) + "}"


def number(value: float) -> str:
    """*value* as short as it can be said exactly."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def write_atomically(path: str, text: str) -> None:
    """Put *text* at *path*: written aside, flushed to disk, renamed, the directory flushed. ``JobError`` when the disk does not take it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
        directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as err:
        raise JobError(f"{path}: {err.strerror}; the metrics need a file in a directory that this user can write to") from err
