"""The loop's hand on the history: what it does not take now is kept and offered again, and supervision goes on either way.

Counters go with the rows of what they count, in one transaction: a brain that dies leaves both or neither. They are not kept here, for an older
value must not come after a newer one: who counts offers them again (``counting``).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import structlog

from supervisor.adapters.metrics import Metrics
from supervisor.core.model import Incident, RunId, Wall
from supervisor.core.records import AttemptRow, Notification, Row, RunRow
from supervisor.errors import StoreError
from supervisor.ports import Clock, Store

KEPT_MAX: Final = 10_000  # rows kept in memory while the history cannot be written
AGAIN_S: Final = 5.0  # a history that is locked or full must not cost the loop half a second for each event

log = structlog.get_logger()


class Behind(NamedTuple):
    """Since when the history takes nothing, why, and how many rows wait in memory."""

    since: Wall
    error: str
    rows: int


class Ledger:
    """*posted* is called when notifications were written, *caught_up* when the history has taken rows that it had refused."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock, *, posted: Callable[[], None], caught_up: Callable[[], None]) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._posted = posted
        self._caught_up = caught_up
        self._kept: list[Row] = []  # replaced as a whole: other threads look at it
        self._refused: tuple[Wall, str] | None = None
        self._again_at = 0.0
        self.dossier_bytes = 0
        """Written since somebody set it to 0."""

    @property
    def is_behind(self) -> bool:
        """Whether rows wait that the history has not taken."""
        return bool(self._kept)

    @property
    def behind(self) -> Behind | None:
        """What an operator should know while rows wait. For any thread, as all that only looks."""
        refused, kept = self._refused, self._kept
        return None if refused is None or not kept else Behind(*refused, len(kept))

    def unwritten_runs(self, job: str | None = None) -> dict[RunId, RunRow]:
        """The runs among the rows that wait, of one job or of all, each as it is now."""
        return {row.id: row for row in self._kept if isinstance(row, RunRow) and job in (None, row.job)}

    def unwritten_incidents(self) -> dict[int, Incident]:
        """The incidents among the rows that wait, each as it is now."""
        return {row.id: row for row in self._kept if isinstance(row, Incident)}

    def unwritten_report(
        self, job: str | None = None, run: RunId | None = None, *, bad_only: bool = False, incident: int | None = None
    ) -> dict[str, Any] | None:
        """The newest dossier among the rows that wait: newer than any that the history has."""
        for row in reversed(self._kept):
            if isinstance(row, AttemptRow) and row.report is not None and job in (None, row.job) and run in (None, row.run):
                if bad_only and (row.outcome is None or not row.outcome.is_bad):
                    continue
                report = json.loads(row.report)
                if isinstance(report, dict) and incident in (None, report.get("incident")):
                    return report
        return None

    def write(self, rows: Iterable[Row], *, durable: bool = False, counters: Mapping[tuple[str, str], float] | None = None) -> bool:
        """These rows, after those that wait, and *counters*. False: the history did not take them; of the rows it is offered all again."""
        all_rows = [*self._kept, *rows]
        if self._refused is not None and self._clock.mono() < self._again_at:
            self._kept = all_rows[-KEPT_MAX:]
            return False
        try:
            self._store.apply(all_rows, durable=durable, counters=counters)
        except StoreError as err:
            if self._refused is None:
                log.error("history_not_written", error=str(err), consequence="jobs go on; rows are kept in memory and written later")  # noqa: TRY400 - the text says it all
            self._refused = (self._refused[0] if self._refused is not None else self._clock.now().wall, str(err))
            self._metrics.inc("mainstay_store_errors_total", operation="write")
            self._kept = all_rows[-KEPT_MAX:]
            self._again_at = self._clock.mono() + AGAIN_S
            return False
        if self._refused is not None:
            log.info("history_written_again", rows=len(all_rows))
            had_kept, self._kept, self._refused = bool(self._kept), [], None
            if had_kept:
                self._caught_up()
        self.dossier_bytes += sum(len(row.report) for row in all_rows if isinstance(row, AttemptRow) and row.report is not None)
        if any(isinstance(row, Notification) for row in all_rows):
            self._posted()
        return True
