"""Says what has happened: counters and log lines for the actions that the engine tells. Decides nothing."""

import structlog

from supervisor.adapters.metrics import Metrics
from supervisor.core.actions import (
    Action,
    StartAttempt,
    TellAttemptEnded,
    TellCommandEnded,
    TellGathered,
    TellHealing,
    TellIncident,
    TellParked,
    TellQuarantine,
    TellRunEnded,
    TellSilenced,
    TellSlotMissed,
)
from supervisor.core.model import Now, Outcome, Wall
from supervisor.core.records import SkipReason
from supervisor.core.state import EngineState, JobState

log = structlog.get_logger()


class Teller:
    """Log and metrics of one brain."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._missed: dict[tuple[str, SkipReason], list[Wall]] = {}

    def count(self, action: Action) -> bool:
        """Raise its counters; False where it has none. Before the rows of its step are written, for they are saved with them."""
        metrics = self._metrics
        match action:
            case TellAttemptEnded(verdict=verdict):
                if action.restart_after_s is not None:
                    metrics.inc("mainstay_job_restarts_total", job_name=action.job, reason=verdict.outcome.value)
                if verdict.outcome is Outcome.RECURSION:
                    kind = verdict.cycle.kind.value if verdict.cycle is not None else "frames"
                    metrics.inc("mainstay_job_recursion_detected_total", job_name=action.job, kind=kind)
            case TellRunEnded(row=row) if row.outcome is not None and row.ended_at is not None:
                metrics.inc("mainstay_job_runs_total", job_name=row.job, outcome=row.outcome.value)
                metrics.observe("mainstay_job_run_duration_seconds", row.duration_s, job_name=row.job)
            case TellSlotMissed():
                metrics.inc("mainstay_job_slots_missed_total", job_name=action.job, reason=action.reason.value)
            case TellIncident(what="opened", incident=incident):
                metrics.inc("mainstay_incidents_total", outcome=incident.outcome.value)
            case TellGathered():
                metrics.inc("mainstay_notifications_total", receiver=action.receiver, result="gathered")
            case TellHealing():
                metrics.inc("mainstay_job_heal_steps_total", job_name=action.job, step=action.step.value)
            case TellQuarantine(record) if record.released_at is None:
                metrics.inc("mainstay_job_records_total", job_name=record.job, result="quarantined")
            case _:
                return False
        return True

    def tell(self, action: Action, now: Now) -> None:
        """One line and its gauges; nothing for actions that are not told."""
        match action:
            case TellAttemptEnded():
                self._attempt_ended(action)
            case TellRunEnded():
                self._run_ended(action)
            case TellSlotMissed():
                self._missed.setdefault((action.job, action.reason), []).append(action.slot)
            case TellIncident():
                self._incident(action)
            case TellParked():
                log.error("job_parked", job=action.job, outcome=action.outcome.value, why=action.why, mend=f"mainstay start {action.job}")
            case TellSilenced(job, until, comment):
                if until is None:
                    log.info("silence_ended", job=job)
                else:
                    log.info("silence_begun", job=job, until=until.isoformat().replace("+00:00", "Z"), comment=comment)
            case TellHealing() | TellQuarantine() | TellCommandEnded():
                self._healing(action)
            case StartAttempt():
                self._started(action, now)
            case _:
                pass

    def _healing(self, action: TellHealing | TellQuarantine | TellCommandEnded) -> None:
        match action:
            case TellHealing():
                log.warning(
                    "heal_step_taken",
                    job=action.job,
                    run=action.run,
                    attempt=action.attempt,
                    step=action.step.value,
                    reason=action.reason.value,
                    text=action.text,
                )
            case TellQuarantine(record) if record.released_at is not None:
                log.info("record_released", job=record.job, key=record.key, because=record.released_because)
            case TellQuarantine(record):
                log.warning(
                    "record_quarantined",
                    job=record.job,
                    key=record.key,
                    run=record.run,
                    attempt=record.attempt,
                    outcome=record.outcome.value,
                )
            case TellCommandEnded():
                outcome = action.verdict.outcome
                (log.warning if outcome.is_bad else log.info)(
                    "heal_command_ended",
                    job=action.job,
                    run=action.run,
                    attempt=action.attempt,
                    outcome=outcome.value,
                    summary=action.verdict.summary,
                )

    def flush(self) -> None:
        """At the end of a step: one line for all slots of one job that it found missed, however long we were away."""
        told, self._missed = self._missed, {}
        for (job, reason), slots in told.items():
            first, last = (slot.isoformat().replace("+00:00", "Z") for slot in (slots[0], slots[-1]))
            log.warning("slots_missed", job=job, reason=reason.value, count=len(slots), first=first, last=last)

    def _started(self, action: StartAttempt, now: Now) -> None:
        if action.slot is not None and action.attempt == 1:
            delay = max(0.0, (now.wall - action.slot).total_seconds())
            self._metrics.observe("mainstay_job_start_delay_seconds", delay, job_name=action.job.name)

    def _attempt_ended(self, action: TellAttemptEnded) -> None:
        verdict, facts, name = action.verdict, action.evidence, action.job
        bad = verdict.outcome.is_bad
        (log.warning if bad else log.info)(
            "attempt_ended",
            job=name,
            run=action.run,
            attempt=action.attempt,
            outcome=verdict.outcome.value,
            summary=verdict.summary,
            exit_code=facts.exit.code,
            signal=facts.exit.signal,
            duration_s=round(facts.duration_s, 3),
            memory_peak_bytes=facts.memory_peak_bytes,
            cpu_s=round(facts.exit.cpu_s, 3),
            restart_after_s=action.restart_after_s,
            why=action.why,
        )
        self._metrics.set("mainstay_job_memory_peak_bytes", facts.memory_peak_bytes, job_name=name)

    def _run_ended(self, action: TellRunEnded) -> None:
        row = action.row
        if row.outcome is None or row.ended_at is None:
            return
        log.info(
            "run_ended", job=row.job, run=row.id, outcome=row.outcome.value, attempts=row.attempts, duration_s=round(row.duration_s, 3)
        )
        self._metrics.set("mainstay_job_last_end_timestamp_seconds", row.ended_at.timestamp(), job_name=row.job)

    def _incident(self, action: TellIncident) -> None:
        incident = action.incident
        (log.info if action.what in ("closed", "acknowledged", "held") else log.warning)(
            f"incident_{action.what}",
            incident=incident.id,
            job=incident.job,
            outcome=incident.outcome.value,
            fingerprint=incident.fingerprint,
            occurrences=incident.occurrences,
            notifications=action.notified,
            because=incident.closed_because,
        )

    def job_changed(self, state: JobState) -> None:
        """The gauges that follow from a job's state."""
        metrics, memo, name = self._metrics, state.memo, state.name
        metrics.state_set("mainstay_job_state", "state", state.state.value, job_name=name)
        metrics.set("mainstay_job_up", float(any(run.is_alive for run in memo.runs)), job_name=name)
        metrics.set("mainstay_job_consecutive_failures", memo.failures_in_row, job_name=name)
        metrics.set("mainstay_job_quarantined_records", len(state.quarantine), job_name=name)
        next_start = state.next_start
        moments = {
            "mainstay_job_next_run_timestamp_seconds": next_start,
            "mainstay_job_last_start_timestamp_seconds": memo.last_start_at,
            "mainstay_job_last_success_timestamp_seconds": memo.last_success_at,
            "mainstay_job_last_failure_timestamp_seconds": memo.last_failure_at,
            "mainstay_job_last_end_timestamp_seconds": memo.last.ended_at if memo.last else None,
        }
        if memo.last is not None and not memo.runs:  # a new brain has seen no attempt of it yet
            metrics.set("mainstay_job_memory_peak_bytes", memo.last.memory_peak_bytes, job_name=name)
        for metric, moment in moments.items():
            if moment is None:
                metrics.clear(metric, job_name=name)
            else:
                metrics.set(metric, moment.timestamp(), job_name=name)

    def totals(self, engine: EngineState) -> None:
        """The gauges over all jobs."""
        states: dict[str, int] = {}
        severities = {"critical": 0, "warning": 0, "info": 0}
        for job in tuple(engine.jobs.values()):
            states[job.state.value] = states.get(job.state.value, 0) + 1
            for incident in job.incidents:
                severities[incident.severity] = severities.get(incident.severity, 0) + 1
        for state in ("idle", "starting", "running", "stopping", "backing_off", "parked", "paused", "disabled"):
            self._metrics.set("mainstay_jobs", states.get(state, 0), state=state)
        for severity, count in severities.items():
            self._metrics.set("mainstay_incidents_open", count, severity=severity)
