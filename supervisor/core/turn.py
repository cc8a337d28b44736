"""The notepad of one step: the job as it is becoming, and what is to be written, done and told. Emptied into a list of actions."""

from itertools import islice

from msgspec.structs import replace

from supervisor.core import crowd, dispatch
from supervisor.core.actions import Action, Record, TellGathered, TellIncident, TellQuarantine
from supervisor.core.heal import CROWD, CROWD_S
from supervisor.core.incidents import remember
from supervisor.core.model import Incident, Now, Wall
from supervisor.core.records import JobMemo, Notification, QuarantinedRecord, Row
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
        self.crowd = engine.crowd
        self._crowd_before = engine.crowd
        self._others = engine.jobs
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
        """Incidents that changed, and what is to be said about them; what of it goes out now (see ``dispatch``), one by one (see ``crowd``)."""
        by_id = {incident.id: incident for incident in self.state.incidents} | {incident.id: incident for incident in changed}
        self.state = replace(self.state, incidents=tuple(one for one in by_id.values() if one.closed_at is None))
        desk, sent = dispatch.route(self.state.memo.desk, self.state.job, changed, notifications, self.now.wall)
        self._settle(desk)
        sent = self._admit(sent, changed)
        past = self.state.memo.past
        for incident in changed:
            past = past if incident.closed_at is None else remember(past, incident)
        if past is not self.state.memo.past:
            self.state = self.state.remember(past=past)
        return sent

    def dispatch_due(self) -> None:
        """What is said by itself: the first word after a silence, an escalation."""
        desk, sent, words = dispatch.due(self.state.memo.desk, self.state.job, self.state.incidents, self.now.wall)
        self._settle(desk)
        self._admit(sent)
        for word in words:
            self.tell(TellIncident(word.incident, word.what, word.count))

    def _settle(self, desk: dispatch.Desk) -> None:
        if desk != self.state.memo.desk:
            self.state = self.state.remember(desk=desk)

    def _admit(self, sent: tuple[Notification, ...], changed: tuple[Incident, ...] = ()) -> tuple[Notification, ...]:
        """Write the *changed* incidents and what of *sent* goes out one by one. A drill's alert is the whole point of it."""
        if self.state.job.drill:
            self._rows += [*changed, *sent]
            return sent
        about = {incident.id: incident for incident in (*self.state.incidents, *changed)}
        admitted = crowd.admit(self.crowd, tuple(about.values()), sent, self.now.wall)
        self.crowd = admitted.crowd
        for receiver in admitted.gathered:
            self.tell(TellGathered(receiver))
        now = {incident.id: incident for incident in admitted.incidents}
        self.state = replace(self.state, incidents=tuple(now[one.id] for one in self.state.incidents))
        known = {incident.id for incident in changed}
        self._rows += [one for key, one in now.items() if key in known or one != about[key]]
        self._rows += admitted.notifications
        return admitted.notifications

    def quarantine(self, record: QuarantinedRecord) -> None:
        """A record that was set aside, or released."""
        others = tuple(one for one in self.state.quarantine if one.key != record.key)
        self.state = replace(self.state, quarantine=others if record.released_at is not None else (*others, record))
        self._rows.append(record)
        self.tell(TellQuarantine(record))

    def failing_together(self, at: Wall) -> int:
        """How many jobs, this one included, failed at about that time, by the last two failures that are known of each; not counted beyond ``CROWD``."""
        others = (job.memo for name, job in self._others.items() if name != self.state.name)
        near = (memo for memo in others if _is_near(memo.last_failure_at, at) or _is_near(memo.failure_before_at, at))
        return 1 + sum(1 for _ in islice(near, CROWD))

    def finish(self) -> list[Action]:
        """The actions in order: one record, then the orders, then what is told."""
        if self.state.memo is not self._before:
            self.write(JobMemo(self.state.name, self.state.memo.encode()))
        if self.crowd is not self._crowd_before:
            self.write(JobMemo(crowd.MEMO, self.crowd.encode()))
        record: list[Action] = [Record(tuple(self._rows), durable=self.durable)] if self._rows else []
        return record + self._orders + self._tells


def _is_near(moment: Wall | None, at: Wall) -> bool:
    return moment is not None and abs((moment - at).total_seconds()) <= CROWD_S
