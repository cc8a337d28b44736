"""The loop's hand on the history: what it does not take now is kept and offered again, and supervision goes on either way."""

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from supervisor.adapters.metrics import Metrics
from supervisor.core.records import AttemptRow, Notification, Row
from supervisor.errors import StoreError
from supervisor.ports import Clock, Store

KEPT_MAX: Final = 10_000  # rows kept in memory while the history cannot be written
AGAIN_S: Final = 5.0  # a history that is locked or full must not cost the loop half a second for each event

log = structlog.get_logger()


class Ledger:
    """*posted* is called when notifications were written, *caught_up* when the history has taken rows that it had refused."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock, *, posted: Callable[[], None], caught_up: Callable[[], None]) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._posted = posted
        self._caught_up = caught_up
        self._kept: list[Row] = []
        self._again_at = 0.0
        self.dossier_bytes = 0
        """Written since somebody set it to 0."""

    @property
    def is_behind(self) -> bool:
        """Whether rows wait that the history has not taken."""
        return bool(self._kept)

    def write(self, rows: Iterable[Row], *, durable: bool = False) -> None:
        """These rows, after those that wait."""
        all_rows = [*self._kept, *rows]
        if self._kept and self._clock.mono() < self._again_at:
            self._kept = all_rows[-KEPT_MAX:]
            return
        try:
            self._store.apply(all_rows, durable=durable)
        except StoreError as err:
            if not self._kept:
                log.error("history_not_written", error=str(err), consequence="jobs go on; rows are kept in memory and written later")  # noqa: TRY400 - the text says it all
            self._metrics.inc("mainstay_store_errors_total", operation="write")
            self._kept = all_rows[-KEPT_MAX:]
            self._again_at = self._clock.mono() + AGAIN_S
            return
        if self._kept:
            log.info("history_written_again", rows=len(all_rows))
            self._kept = []
            self._caught_up()
        self.dossier_bytes += sum(len(row.report) for row in all_rows if isinstance(row, AttemptRow) and row.report is not None)
        if any(isinstance(row, Notification) for row in all_rows):
            self._posted()

    def offer_again(self) -> None:
        """What waits, if anything does."""
        if self._kept:
            self.write(())
