"""The notepad of one step: the job as it is becoming, and what is to be written, done and told. Emptied into a list of actions."""

from dataclasses import replace

from supervisor.core import dispatch
from supervisor.core.actions import Action, Record, TellIncident
from supervisor.core.model import Incident, Now
from supervisor.core.records import JobMemo, Notification, Row
from supervisor.core.state import EngineState, JobState, LiveRun


class Turn:
    """Changes to one job within one step. Mutable inside the step only; what leaves is ``finish()``."""

    def __init__(self, engine: EngineState, state: JobState, now: Now) -> None:
        self.now = now
        self.state = state
        self.closing = engine.closing
        self.boot_id = engine.boot_id
        self.epoch = engine.epoch
        self.next_run = engine.next_run
        self.next_incident = engine.next_incident
        self.durable = False
        self._before = state.memo
        self._rows: list[Row] = []
        self._orders: list[Action] = []
        self._tells: list[Action] = []

    def write(self, row: Row) -> None:
        """One row of the record that precedes everything else."""
        self._rows.append(row)

    def order(self, action: Action) -> None:
        """Something to be done once the record is written."""
        self._orders.append(action)

    def tell(self, action: Action) -> None:
        """Something to be logged and counted after it was done."""
        self._tells.append(action)

    def put(self, run: LiveRun) -> None:
        """The run as it is now."""
        self.state = self.state.with_run(run)

    def incidents(self, changed: tuple[Incident, ...], notifications: tuple[Notification, ...]) -> tuple[Notification, ...]:
        """Incidents that changed, and what is to be said about them; what of it goes out now (see ``dispatch``)."""
        by_id = {incident.id: incident for incident in self.state.incidents} | {incident.id: incident for incident in changed}
        self.state = replace(self.state, incidents=tuple(one for one in by_id.values() if one.closed_at is None))
        desk, sent = dispatch.route(self.state.memo.desk, self.state.job, changed, notifications, self.now.wall)
        self._settle(desk)
        self._rows += changed
        self._rows += sent
        return sent

    def dispatch_due(self) -> None:
        """What is said by itself: the first word after a silence, an escalation."""
        desk, sent, words = dispatch.due(self.state.memo.desk, self.state.job, self.state.incidents, self.now.wall)
        self._settle(desk)
        self._rows += sent
        for word in words:
            self.tell(TellIncident(word.incident, word.what, word.count))

    def _settle(self, desk: dispatch.Desk) -> None:
        if desk != self.state.memo.desk:
            self.state = self.state.remember(desk=desk)

    def finish(self) -> list[Action]:
        """The actions in order: one record, then the orders, then what is told."""
        if self.state.memo is not self._before:
            self.write(JobMemo(self.state.name, self.state.memo.encode()))
        record: list[Action] = [Record(tuple(self._rows), durable=self.durable)] if self._rows else []
        return record + self._orders + self._tells
