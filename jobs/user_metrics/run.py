"""One run: lock, read, judge, compute, publish. Killed at any instant, the next one goes on from the last batch and comes to the same figures."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from user_metrics.check import DAY_US, Checked, Kind, Known, Reason, Row, Rules, check
from user_metrics.errors import Code, JobError
from user_metrics.mainstay import job
from user_metrics.publish import RunFacts, snapshot, write_atomically
from user_metrics.source import Options, Source, Stream, open_source
from user_metrics.state import Sample, State, Tally, locked

DEFINITIONS: Final = (
    "define.py",
    "graph.py",
    "compute.py",
)  # when one of these files changes, results are computed anew from the same data
FEW_REJECTED: Final = 10  # so few rejected rows never stop a run, whatever share they are of a small batch
STATE_FILE: Final = "state.sqlite"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says. ``now`` is seconds since the epoch; sizes are rows."""

    source: str
    state: str
    now: float
    options: Options = field(default_factory=Options)
    publish: str | None = None
    full: bool = False
    prefix: str = "app"
    batch: int = 10_000
    max_reject_ratio: float = 0.05
    max_edges: int = 50_000_000
    as_of_today: bool = False
    earliest: float = 631_152_000.0  # 1990-01-01
    future_s: float = 3600.0
    types: frozenset[str] = frozenset()
    reject_unknown_actors: bool = False


@dataclass(slots=True)
class Report:
    """How a run went: what became of the rows it read, the day its values refer to, the samples, what failed."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    skipped: int = 0
    as_of: int | None = None
    computed: bool = False
    samples: list[Sample] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stages: list[tuple[str, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures a stage."""
        started = time.perf_counter()
        yield
        self.stages.append((name, time.perf_counter() - started))


def run(settings: Settings) -> Report:
    """Bring the state and the published file up to date with the source. ``JobError`` when that cannot be done; what was read until then is kept."""
    with locked(settings.state), contextlib.closing(State(os.path.join(settings.state, STATE_FILE))) as state:
        number = state.begin_run(settings.now)
        report = Report()
        result = "failed"
        try:
            _run(settings, state, number, report)
            result = "failed" if report.errors else "ok"
        except JobError as err:
            result = "rejected" if err.code is Code.TOO_MANY_REJECTED else "failed"
            raise
        finally:
            state.end_run(number, time.time(), result, dict(report.stages))
        return report


def dry_run(settings: Settings) -> tuple[Report, State]:
    """Read and judge everything without touching a state: the report, and the state in memory that holds the quarantine."""
    state = State(":memory:")
    report = Report()
    with contextlib.closing(open_source(settings.source, settings.options)) as source:
        state.mark_system(source.system_users)
        for stream in source.streams:
            _read(settings, state, stream, 0, report)
    return report, state


def _run(settings: Settings, state: State, number: int, report: Report) -> None:
    with report.stage("read"), contextlib.closing(open_source(settings.source, settings.options)) as source:
        _settle_source(settings, state, source)
        for stream in source.streams:
            _read(settings, state, stream, number, report)
    _judge(settings, state)
    report.as_of = _as_of(settings, state)
    with report.stage("metrics"):
        if report.as_of is not None:
            _compute(settings, state, report.as_of, report)
    report.samples = state.results()
    if settings.publish:
        with report.stage("publish"):
            job.progress(0, 1, "publish")
            facts = RunFacts(settings.now, time.time(), report.stages)
            write_atomically(settings.publish, snapshot(state, facts, report.as_of, settings.prefix))
            job.progress(1, 1, "publish")
    state.remember("judged", json.dumps({name: [tally.read, tally.rejected_total] for name, tally in state.tallies().items()}))


def _settle_source(settings: Settings, state: State, source: Source) -> None:
    """A state belongs to one source and to one set of ids that are no people; anything else would mix figures."""
    identity = json.dumps([source.name, sorted(source.system_users)])
    known = state.fact("source")
    if settings.full or known is None:
        state.wipe(identity)
        state.mark_system(source.system_users)
    elif known != identity:
        name, system = json.loads(known)
        raise JobError(
            f"{settings.state}: this state was made from {name} (no people: {', '.join(system) or 'none'}); give --state another directory, or start it anew with --full"
        )


def _read(settings: Settings, state: State, stream: Stream, number: int, report: Report) -> None:
    table = stream.table
    rules = Rules(
        earliest_us=int(settings.earliest * 1e6),
        latest_us=int((settings.now + settings.future_s) * 1e6),
        types=settings.types,
        reject_unknown_actors=settings.reject_unknown_actors,
    )
    known: Known | None = None
    tally = report.tallies.setdefault(table.name, Tally())
    checked: list[tuple[Row, Checked | Reason]] = []

    def rows() -> Iterator[Row]:
        """All rows in turn; when a batch's last one has been judged, the batch is committed."""
        for batch in stream.batches(state.position(table.name), settings.batch):
            for row in batch.rows:
                if table.skip and row.problem is None and row.values[2] in table.skip:
                    report.skipped += 1
                else:
                    yield row
            tally.add(state.commit(table, checked, batch.position, run=number, now=settings.now))
            checked.clear()
            job.progress(batch.done, batch.total, f"read {table.name}")

    for row in job.records(rows(), key=_place, stage=f"read {table.name}"):
        if known is None:
            known = _known(state, table.kind, needs_accounts=rules.reject_unknown_actors, needs_owners=table.by_item)
        checked.append((row, check(row, table, rules, known)))


def _place(row: Row) -> str:
    return row.place


def _known(state: State, kind: Kind, *, needs_accounts: bool, needs_owners: bool) -> Known:
    if kind is not Kind.EVENTS:
        return Known({}, {})
    return Known(state.accounts() if needs_accounts else {}, state.owners() if needs_owners else {})


def _judge(settings: Settings, state: State) -> None:
    """Stop before publishing when too many rows were rejected since the last good run: a changed format must not silently empty the metrics."""
    before: dict[str, list[int]] = json.loads(state.fact("judged") or "{}")
    for name, tally in state.tallies().items():
        read_before, rejected_before = before.get(name, [0, 0])
        read, rejected = tally.read - read_before, tally.rejected_total - rejected_before
        if rejected > max(FEW_REJECTED, settings.max_reject_ratio * read):
            reasons = ", ".join(f"{reason} {count}" for reason, count in tally.rejected.most_common(3))
            raise JobError(
                f"{name}: {rejected} of {read} rows rejected ({reasons}), more than {settings.max_reject_ratio:.0%}; nothing was published. See "
                f"`rejected`, mend the source and run with --full, or accept them with --max-reject-ratio",
                Code.TOO_MANY_REJECTED,
            )


def _as_of(settings: Settings, state: State) -> int | None:
    """The day that values refer to: the newest with data that is over (or, on request, today). None without data."""
    newest = state.newest_day()
    today = datetime.fromtimestamp(settings.now, UTC).timestamp() * 1e6 // DAY_US
    latest = int(today) if settings.as_of_today else int(today) - 1
    return None if newest is None else min(newest, latest)


def _compute(settings: Settings, state: State, as_of: int, report: Report) -> None:
    """Compute everything, unless neither data nor day nor definition changed: then what is stored is what would come out."""
    version = f"{_definitions()}.{as_of}.{state.data_version()}"
    if state.fact("computed") == version:
        return
    from user_metrics.compute import compute_all  # SQLAlchemy, numpy and scipy: half a second that a run without news does not pay

    report.errors = compute_all(state, as_of, settings.now, settings.max_edges)
    report.computed = True
    if not report.errors:
        state.remember("computed", version)


def _definitions() -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name in DEFINITIONS:
        with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()
