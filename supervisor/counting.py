"""What is counted of live attempts, and what jobs count themselves: into the metrics, and into the history so that no counter ever falls.

How far the counters have followed each live attempt is saved with them, so the next brain counts on from there and nothing is counted twice.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import structlog
from msgspec import Struct

from supervisor.adapters import jobmetrics, multiproc
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.metrics import Metrics
from supervisor.adapters.multiproc import Tally
from supervisor.core.jobs import Job
from supervisor.core.model import Now, RunId
from supervisor.core.records import Row
from supervisor.errors import StoreError
from supervisor.ledger import Ledger
from supervisor.ports import Clock, Places, Store
from supervisor.watch import Subject
from supervisor.wire import split_key

TOLD: Final = "mainstay-told"  # beside the counters in the history: how much of a live attempt they hold already
TALLY_S: Final = 5.0  # between two looks at the multiprocess files of one job: they have to be read to see whether they changed
_TOLD: Final = ("output", "dropped", "cpu", "records")

log = structlog.get_logger()


class Live(Struct):
    """An attempt of which the keeper was asked or told us, and how far it was counted. ``config`` is what it began with."""

    job: str
    run: RunId
    attempt: int
    config: Job
    pid: int | None = None
    cgroup: str | None = None
    host_oom_at_start: int | None = None
    output_told: int = 0
    dropped_told: int = 0
    cpu_told_s: float = 0.0
    records_told: int = 0
    metrics_at: float = 0.0  # when its files were last looked at, CLOCK_MONOTONIC
    saved: tuple[float, ...] = (0, 0, 0.0, 0)

    @property
    def told(self) -> tuple[float, ...]:
        """What the counters hold of it."""
        return (self.output_told, self.dropped_told, self.cpu_told_s, self.records_told)


class Counting:
    """The counters of one brain. *restored* is what the last one saved."""

    def __init__(
        self,
        metrics: Metrics,
        job_metrics: JobMetrics,
        tally: Tally | None,
        ledger: Ledger,
        store: Store,
        places: Places,
        clock: Clock,
        restored: Mapping[tuple[str, str], float],
    ) -> None:
        self._metrics = metrics
        self._job_metrics = job_metrics
        self._tally = tally
        self._tallied_at: dict[str, float] = {}
        self._ledger = ledger
        self._store = store
        self._places = places
        self._clock = clock
        self._restored = restored
        self._unsaved: dict[tuple[str, str], float] = {}
        self.is_saved = True
        """Whether the history took the counters the last time."""

    # ---------------------------------------------------------------- live attempts

    def remembered(self, key: str, job: str, config: Job) -> Live:
        """An attempt that an earlier brain started, with how far that one had counted it."""
        run, attempt = split_key(key)
        output, dropped, cpu_s, records = (self._restored.get((TOLD, f"{key} {what}"), 0.0) for what in _TOLD)
        live = Live(
            job, run, attempt, config, output_told=int(output), dropped_told=int(dropped), cpu_told_s=cpu_s, records_told=int(records)
        )
        live.saved = live.told
        return live

    def output(self, live: Live, written: int, dropped: int) -> None:
        """Bytes since the last count."""
        self._metrics.inc("mainstay_job_output_bytes_total", max(0, written - live.output_told), job_name=live.job)
        self._metrics.inc("mainstay_job_output_dropped_bytes_total", max(0, dropped - live.dropped_told), job_name=live.job)
        live.output_told, live.dropped_told = written, dropped

    def cpu(self, live: Live, used_s: float) -> None:
        """CPU time since the last count; a service is counted while it runs, what the last look did not see at its end."""
        if used_s > live.cpu_told_s:
            self._metrics.inc("mainstay_job_cpu_seconds_total", used_s - live.cpu_told_s, job_name=live.job)
            live.cpu_told_s = used_s

    def records(self, live: Live, finished: int) -> None:
        """Records since the last count; a service never ends to be counted then."""
        if finished > live.records_told:
            self._metrics.inc("mainstay_job_records_total", finished - live.records_told, job_name=live.job, result="processed")
            live.records_told = finished

    # ---------------------------------------------------------------- what jobs count

    def begin(self, job: str) -> None:
        """What the job's file says at the start of a brain; what is wrong with it was told by the last one."""
        self._job_metrics.update(job, self._places.metrics(job))

    def take(self, job: Job, run: RunId, lives: Collection[str], *, at_once: bool = False) -> None:
        """The metrics that *job* wrote itself; *lives* are the keys of its live attempts. *at_once*: an attempt has just ended."""
        name = job.name
        problems = self._job_metrics.update(name, self._places.metrics(name), run)
        if problems is None and not job.multiprocess_metrics:
            return
        self._reject(name, problems or ())
        self.take_multiproc(job, lives, at_once=at_once)
        updated = self._job_metrics.last_update(name)
        if updated is not None:
            self._metrics.set("mainstay_job_metrics_last_update_timestamp_seconds", updated, job_name=name)

    def take_multiproc(self, job: Job, lives: Collection[str], *, at_once: bool) -> None:
        """What *job* counts in multiprocess files, if it asked for them."""
        if self._tally is None or not job.multiprocess_metrics:
            return
        name, now = job.name, self._clock.now()
        if not at_once and now.mono - self._tallied_at.get(name, -TALLY_S) < TALLY_S:
            return
        self._tallied_at[name] = now.mono
        look = self._tally.look(name, list(lives))
        self._reject(name, look.problems)
        if look.families is not None:
            self._reject(name, self._job_metrics.put(name, look.families, now.wall.timestamp()))
        for folder in look.discard:
            self._places.discard(folder)

    def _reject(self, job: str, problems: Iterable[jobmetrics.Problem | multiproc.Problem]) -> None:
        for problem in problems:
            log.warning("job_metrics_rejected", job=job, reason=problem.reason.value, detail=problem.detail)
            self._metrics.inc("mainstay_job_metrics_rejected_total", job_name=job, reason=problem.reason.value)

    def drop(self, job: str) -> None:
        """The job has left: so do its series."""
        self._metrics.remove_job(job)
        self._job_metrics.drop(job)
        if self._tally is not None:
            self._places.discard(self._tally.drop(job))

    # ---------------------------------------------------------------- gauges

    def gauges(self, subjects: Mapping[str, Subject], lives: Mapping[str, Live], jobs: Iterable[str], now: Now) -> None:
        """What is looked up rather than counted: memory, processes, depth and heartbeat of each job at the last look."""
        seen: dict[str, list[float]] = {}
        for key, subject in subjects.items():
            live, last = lives.get(key), subject.watched.last
            if live is None or last is None:
                continue
            sums = seen.setdefault(live.job, [0.0, 0.0, 0.0, 0.0])
            sums[0] += last.memory_bytes
            sums[1] += last.processes
            sums[2] = max(sums[2], last.depth if last.recursion_limit is not None else -1)
            sums[3] = max(sums[3], subject.watched.memory_peak_bytes)
            if subject.heartbeat is not None:
                at = now.wall.timestamp() - (now.mono - subject.heartbeat)
                self._metrics.set("mainstay_job_heartbeat_timestamp_seconds", at, job_name=live.job)
        for name in jobs:
            resident, processes, depth, peak = seen.get(name, [0.0, 0.0, -1, 0.0])
            self._metrics.set("mainstay_job_memory_bytes", resident, job_name=name)
            self._metrics.set("mainstay_job_processes", processes, job_name=name)
            if peak:
                self._metrics.set("mainstay_job_memory_peak_bytes", peak, job_name=name)
            if depth >= 0:
                self._metrics.set("mainstay_job_stack_depth_frames", depth, job_name=name)
            else:
                self._metrics.clear("mainstay_job_stack_depth_frames", job_name=name)

    # ---------------------------------------------------------------- in the history

    def save(self, lives: Mapping[str, Live]) -> None:
        """All counters that have changed, and how far they have followed each live attempt, with whatever rows wait."""
        self.save_with((), lives)

    def save_with(self, rows: Sequence[Row], lives: Mapping[str, Live], *, durable: bool = False) -> None:
        """The same with *rows*, of which some are counted: both or neither. Counters that are not taken now are saved the next time."""
        self._unsaved |= {**self._metrics.changed(), **self._job_metrics.changed(), **_told(lives)}
        if not (rows or self._unsaved or self._ledger.is_behind):
            return
        self.is_saved = self._ledger.write(rows, durable=durable, counters=self._unsaved)
        if self.is_saved:
            self._unsaved = {}

    def forget_gone(self, held: Collection[str]) -> None:
        """How far attempts were followed that the keeper no longer holds."""
        self.forget({text.split(" ")[0] for name, text in self._restored if name == TOLD} - set(held))

    def forget(self, keys: Iterable[str]) -> None:
        """How far these attempts were followed: they are judged."""
        rows = [(TOLD, f"{key} {what}") for key in keys for what in _TOLD]
        try:
            if rows:
                self._store.forget_counters(rows)
        except StoreError as err:
            log.debug("counters_not_forgotten", error=str(err))  # keys are not used twice: it only takes room


def _told(lives: Mapping[str, Live]) -> dict[tuple[str, str], float]:
    rows: dict[tuple[str, str], float] = {}
    for key, live in lives.items():
        if live.told != live.saved:
            live.saved = live.told
            rows |= {(TOLD, f"{key} {what}"): value for what, value in zip(_TOLD, live.told, strict=True)}
    return rows
