"""What the HTTP side may ask of the brain: pages, views of the state, reads of the history, and operators' wishes.

Called from the threads of the HTTP server. The engine's state is frozen and replaced as a whole, so a view needs no lock; the history is read
on a connection of its own; only wishes go through the loop.
"""

import os
import platform
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from supervisor import __version__
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.metrics import Metrics
from supervisor.adapters.statedir import StateDir
from supervisor.adapters.store import Reader, Store
from supervisor.core import heal, silences
from supervisor.core.drill import CAP_S
from supervisor.core.events import IncidentWish, ReleaseWish, SilenceWish, Verb, Wish
from supervisor.core.jobs import Cron, Every, Fault, Job, Limits, Manual
from supervisor.core.model import Incident
from supervisor.core.plan import PlanKind, PlannedChange, plan, settings_at_once, settings_that_wait
from supervisor.core.prose import clean
from supervisor.core.records import QuarantinedRecord, RunRow, SlotRow
from supervisor.core.settings import Config
from supervisor.core.state import JobState
from supervisor.core.units import format_duration, parse_duration
from supervisor.daemon import Daemon
from supervisor.drill.drills import Drills
from supervisor.errors import ConfigError, StoreError
from supervisor.ports import Clock
from supervisor.wire import attempt_key

HEALTHY_S: Final = 10.0
NOTE_CHARS: Final = 500
LOG_CHUNK: Final = 256 * 1024

log = structlog.get_logger()
Json = dict[str, Any]


class Backend:
    """The one behind every route."""

    def __init__(
        self,
        daemon: Daemon,
        store: Store,
        places: StateDir,
        metrics: Metrics,
        job_metrics: JobMetrics,
        *,
        clock: Clock,
        keeper_pid: int,
        started_at: datetime,
        read_config: Callable[[], Config],
        queue_lengths: Callable[[], None],
        drills: Drills,
    ) -> None:
        self._daemon = daemon
        self._store = store
        self._places = places
        self._metrics = metrics
        self._job_metrics = job_metrics
        self._clock = clock
        self._keeper_pid = keeper_pid
        self._started_at = started_at
        self._read_config = read_config
        self._queue_lengths = queue_lengths
        self._drills = drills
        self._local = threading.local()

    # ---------------------------------------------------------------- pages

    def metrics_page(self) -> bytes:
        self._daemon.refresh_gauges()
        self._queue_lengths()
        return self._metrics.render(self._job_metrics.lines())

    def healthy(self) -> tuple[bool, str]:
        """A history that takes nothing is told but makes nobody unwell: a restart would lose the rows that wait in memory."""
        age, behind = self._clock.mono() - self._daemon.last_tick.mono, self._daemon.ledger.behind
        history = f"; the history is not written: {behind.error}; {behind.rows} rows wait in memory" if behind is not None else ""
        return age <= HEALTHY_S, f"the loop came round {max(age, 0.0):.1f} s ago{history}"

    def ready(self) -> tuple[bool, str]:
        return (
            not self._daemon.state.closing,
            "stopping" if self._daemon.state.closing else f"supervising {len(self._daemon.state.jobs)} jobs",
        )

    # ---------------------------------------------------------------- views of the state

    def status(self) -> Json:
        config = self._daemon.config
        return {
            "daemon": {
                "pid": os.getpid(),
                "keeper_pid": self._keeper_pid,
                "version": __version__,
                "containment": dict(self._daemon.containment),
                "config": config.path,
                "state_dir": self._places.path,
                "listen": self._listen(),
                "started_at": _stamp(self._started_at),
                "closing": self._daemon.state.closing,
                "now": _stamp(self._clock.now().wall),
                "history_behind": self._history_behind(),
            },
            "jobs": [self._job(state) for state in tuple(self._daemon.state.jobs.values())],
        }

    def _listen(self) -> str | None:
        """Where we listen, whatever a reload says of the next start."""
        listen = self._daemon.running.listen
        return None if listen is None else "{}:{}".format(*listen)

    def _history_behind(self) -> Json | None:
        """Null while the history is written as it should be."""
        behind = self._daemon.ledger.behind
        return None if behind is None else {"since": _stamp(behind.since), "error": behind.error, "rows": behind.rows}

    def pulse(self) -> Mapping[str, object]:
        """The state of each job, which is replaced whenever anything about the job changes."""
        return self._daemon.state.jobs

    def version(self) -> Json:
        return {"version": __version__, "python": platform.python_version()}

    def config(self) -> Json:
        """What the config in force says, without what may be secret: commands, environments, addresses."""
        config = self._daemon.config
        return {
            "path": config.path,
            "state_dir": self._places.path,
            "listen": self._listen(),
            "history_seconds": config.settings.history_days * 86400,
            "warnings": list(config.warnings),
            "jobs": [_configured(job) for job in config.jobs.values()],
            "receivers": [
                {"name": name, "type": type(receiver).__name__.removesuffix("Receiver").lower()}
                for name, receiver in config.receivers.items()
            ],
        }

    def job(self, name: str) -> Json | None:
        state = self._daemon.state.jobs.get(name)
        return None if state is None else self._job(state)

    def _job(self, state: JobState) -> Json:
        memo, limits = state.memo, state.job.limits
        measured = self._measured(state)
        return {
            "name": state.name,
            "description": state.job.description,
            "state": state.state.value,
            "schedule": _schedule(state.job),
            "paused": memo.paused,
            "paused_until": _stamp(memo.paused_until),
            "parked": memo.parked,
            "stop_grace_seconds": max((state.job_of(run.id).stop.grace_s for run in memo.runs), default=state.job.stop.grace_s),
            "next_run": _stamp(state.next_start),
            "runs": [
                {
                    "run": run.id,
                    "attempt": run.attempt,
                    "phase": run.phase.value,
                    "pid": run.pid,
                    "trigger": run.trigger.value,
                    "slot": _stamp(run.slot),
                    "started_at": _stamp(run.started_at),
                }
                for run in memo.runs
            ],
            "memory_bytes": measured.get("memory_bytes"),
            "memory_limit_bytes": limits.memory_bytes,
            "limits": _limits(limits),
            "processes": measured.get("processes"),
            "depth": measured.get("depth"),
            "failures_in_row": memo.failures_in_row,
            "restarts": len(memo.restarts),
            "quarantined": len(state.quarantine),
            "last": None
            if memo.last is None
            else {
                "run": memo.last.run,
                "outcome": memo.last.outcome.value,
                "summary": memo.last.summary,
                "ended_at": _stamp(memo.last.ended_at),
                "duration_seconds": memo.last.duration_s,
                "memory_peak_bytes": memo.last.memory_peak_bytes,
            },
            "last_success_at": _stamp(memo.last_success_at),
            "incidents": [incident.id for incident in state.incidents],
            **self._quiet(state),
        }

    def _quiet(self, state: JobState) -> Json:
        """Whether nobody is alerted about the job now, and by which silences."""
        now, desk = self._clock.now().wall, state.memo.desk
        quiet = silences.quiet(state.job, desk.silences, now)
        return {
            "quiet": None if quiet is None else {"until": _stamp(quiet.until), "why": quiet.why},
            "silences": [
                {"number": one.number, "starts_at": _stamp(one.starts_at), "ends_at": _stamp(one.ends_at), "comment": one.comment}
                for one in silences.standing(desk.silences, now)
            ],
        }

    def _measured(self, state: JobState) -> Json:
        for run in state.memo.runs:
            subject = self._daemon.watch.subject(attempt_key(run.id, run.attempt))
            if subject is not None and subject.watched.last is not None:
                last = subject.watched.last
                seen = last.depth if last.recursion_limit is not None else None
                return {"memory_bytes": last.memory_bytes, "processes": last.processes, "depth": seen}
        return {}

    # ---------------------------------------------------------------- the history

    def _reader(self) -> Reader:
        """A connection per thread of the pool."""
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._store.reader(lambda: self._metrics.inc("mainstay_store_errors_total", operation="read"))
        return reader

    def runs(self, job: str | None, limit: int) -> list[Json]:
        rows = {row.id: row for row in self._reader().runs(job, limit)} | self._daemon.ledger.unwritten_runs(job)
        return [_run(rows[number]) for number in sorted(rows, reverse=True)[:limit]]

    def run(self, number: int) -> Json | None:
        row = self._daemon.ledger.unwritten_runs().get(number) or self._reader().run(number)
        return None if row is None else _run(row)

    def slots(self, job: str | None, limit: int) -> list[Json]:
        return [_slot(row) for row in self._reader().slots(job, limit)] if job is not None else []

    def why(self, job: str | None, run: int | None) -> Json | None:
        """The dossier of that run, or of the job's last bad end (its last end if it never ended badly), with where the job is now."""
        reader, unwritten = self._reader(), self._daemon.ledger.unwritten_report
        if run is not None:
            report = unwritten(job, run) or reader.report(run)
        else:
            report = unwritten(job, bad_only=True) or reader.last_report(job, bad_only=True) or unwritten(job) or reader.last_report(job)
        if report is None:
            return None
        state = self._daemon.state.jobs.get(str(report.get("job")))
        return {**self._shown(report), "now": _now_lines(state)}

    def _shown(self, report: Json) -> Json:
        """The dossier with what it cannot know: whether its incident is open now (else there is nothing to acknowledge), and whether the job can start."""
        number, state = report.get("incident"), self._daemon.state.jobs.get(str(report.get("job")))
        is_open = state is not None and any(one.id == number for one in state.incidents)
        return {**report, "incident_open": is_open, "can_start": state is not None and state.job.enabled and not state.removed}

    def incidents(self, open_only: bool, limit: int) -> list[Json]:
        rows = {
            one.id: one for one in self._reader().incidents(open_only=open_only, limit=limit)
        } | self._daemon.ledger.unwritten_incidents()
        found = (rows[number] for number in sorted(rows, reverse=True))
        return [self._incident(one) for one in found if one.closed_at is None or not open_only][:limit]

    def _incident(self, incident: Incident) -> Json:
        """The incident, with who knows of it: ``held``: nobody was told because of a silence or a maintenance window."""
        state = self._daemon.state.jobs.get(incident.job)
        desk = None if state is None else state.memo.desk
        told = next((one for one in desk.told if one.incident == incident.id), None) if desk else None
        return {
            **_incident(incident),
            "held": any(held.incident == incident.id for held in desk.held) if desk else False,
            "told": list(told.to) if told else [],
            "escalated_at": _stamp(told.escalated_at) if told else None,
        }

    def incident(self, number: int) -> Json | None:
        ledger = self._daemon.ledger
        found = ledger.unwritten_incidents().get(number) or self._reader().incident(number)
        if found is None:
            return None
        report = ledger.unwritten_report(run=found.last_run, incident=number)
        if report is None:
            try:
                report = self._reader().report_of_incident(number, found.last_run)
            except StoreError as err:  # what is known of the incident is worth more than an error
                log.warning("dossier_unreadable", incident=number, run=found.last_run, error=str(err))
        return {**self._incident(found), "report": None if report is None else self._shown(report)}

    def quarantine(self, job: str, key: str | None) -> Json | None:
        state = self._daemon.state.jobs.get(job)
        if state is None:
            return None
        records = [_quarantined(one) for one in state.quarantine if key in (None, one.key)]
        if key is None:
            return {"job": job, "records": records}
        if not records:
            return None
        return {"job": job, "records": [one | {"report": self._reader().report(one["run"], one["attempt"])} for one in records]}

    def logs(self, job: str, run: int | None, lines: int | None, offset: int | None, attempt: int | None = None) -> Json | None:
        kept = [
            one
            for one in self._places.attempts_with_output(job)
            if (run is None or one[0] == run) and (attempt is None or one[1] == attempt)
        ]
        if not kept and (run is not None or job not in self._daemon.state.jobs):
            return None
        if not kept:
            return {"job": job, "run": run, "attempt": None, "text": "", "offset": 0, "turned_over": False, "live": False}
        run_id, number = kept[-1]
        key = attempt_key(run_id, number)
        path = self._places.log(job, key)
        start, text = _read_log(path, lines, offset)
        return {
            "job": job,
            "run": run_id,
            "attempt": number,
            "text": text,
            "offset": start,
            "turned_over": offset is not None and start < offset,
            "live": self._daemon.watch.subject(key) is not None,
        }

    # ---------------------------------------------------------------- drills

    def drill(self, number: int) -> Json | None:
        found = self._drills.result(number)
        return None if found is None else found.as_json()

    def drills(self, job: str) -> list[Json]:
        return self._drills.last(self._reader(), job)

    def _drill(self, job: str, arguments: Mapping[str, Any]) -> tuple[int, Json]:
        from supervisor.drill.prometheus import Prometheus

        try:
            fault = Fault(str(arguments.get("fault", "")))
            cap_s = parse_duration(str(arguments["cap"])) if arguments.get("cap") is not None else CAP_S
            prometheus = Prometheus(str(arguments["prometheus"])) if arguments.get("prometheus") is not None else None
        except ValueError as err:
            return 400, {"error": str(err), "mend": f"faults are {', '.join(Fault)}"}
        started = self._drills.start(self._daemon.config.jobs[job], fault, cap_s=cap_s, prometheus=prometheus)
        if started is None:
            return 409, {"error": "another drill is going on", "mend": "wait for its end"}
        return 200, {"ok": True, **started.as_json()}

    # ---------------------------------------------------------------- wishes

    def ask(self, verb: str, target: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[int, Json]:
        if verb == "reload":
            return self._reload(plan_only=bool(arguments.get("plan")), timeout_s=timeout_s)
        if verb in ("ack", "resolve"):
            said = {name: clean(str(arguments.get(name) or ""), NOTE_CHARS) for name in ("who", "note", "fix")}
            return self._wish(IncidentWish(int(target), resolve=verb == "resolve", **said), timeout_s, missing=404)
        if target not in self._daemon.state.jobs:
            return 404, {"error": f"there is no job {target!r}", "mend": "`mainstay status` lists the jobs"}
        if verb == "drill":
            return (
                self._drill(target, arguments)
                if target in self._daemon.config.jobs
                else (404, {"error": f"{target} is no job of the config"})
            )
        for_s = None
        if verb in (Verb.PAUSE, "silence") and arguments.get("for") is not None:
            try:
                for_s = parse_duration(str(arguments["for"]))
            except ValueError as err:
                return 400, {"error": f"for: {err}", "mend": "write a duration such as 1h30m"}
        if verb == Verb.PAUSE and for_s == 0.0:
            return 400, {"error": "for: a pause of no time ends before it begins", "mend": "write how long, e.g. 2h"}
        if verb == "silence" and for_s is None:
            return 400, {"error": "for: says not how long", "mend": "write a duration such as 2h"}
        if verb == "release":
            if not isinstance(arguments.get("key"), str):
                return 400, {"error": "key: says not which record", "mend": "write the key as the quarantine lists it"}
            because = str(arguments.get("because") or "an operator released it")[:200]
            return self._wish(ReleaseWish(target, arguments["key"], because), timeout_s, missing=404)
        if verb in ("silence", "unsilence"):
            return self._wish(SilenceWish(target, for_s, str(arguments.get("comment", ""))), timeout_s, missing=409)
        until = None if for_s is None else self._clock.now().wall + timedelta(seconds=for_s)
        return self._wish(Wish(Verb(verb), target, until), timeout_s, missing=409)

    def _wish(self, event: Wish | SilenceWish | ReleaseWish | IncidentWish, timeout_s: float, *, missing: int) -> tuple[int, Json]:
        try:
            answer = self._daemon.ask(lambda: self._daemon.wish(event), timeout_s)
        except TimeoutError:
            return 503, {"error": "the supervising loop did not answer in time", "mend": "look at the log and at /healthz"}
        if answer.ok:
            return 200, {"ok": True, "text": answer.text, **({} if answer.run is None else {"run": answer.run})}
        return missing, {"error": answer.text, "mend": ""}

    def _reload(self, *, plan_only: bool, timeout_s: float) -> tuple[int, Json]:
        if plan_only:
            try:
                new = self._read_config()
            except ConfigError as err:
                return 422, {"error": "the config has problems", "problems": err.problems, "mend": "see each line"}
            changes = plan(self._daemon.config, new)
            at_once = settings_at_once(self._daemon.config.settings, new.settings)
            waiting = settings_that_wait(self._daemon.running, new.settings)
            words = [f"at once: {', '.join(at_once)}"] if at_once else []
            words += [f"at the next start: {', '.join(waiting)}"] if waiting else []
            return 200, {
                "ok": True,
                "changes": [_change(one) for one in changes],
                "settings": {"at_once": at_once, "at_next_start": waiting},
                "text": "\n".join([_plan_text(changes), *words]),
            }
        answer = self._daemon.ask(self._daemon.reload, timeout_s)
        if answer.ok:
            return 200, {"ok": True, "text": answer.text}
        return 422, {"error": answer.text, "mend": "mend the file and reload again; `mainstay check` shows every problem"}


# ---------------------------------------------------------------- values as JSON


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _schedule(job: Job) -> str:
    match job.schedule.when:
        case Every(every_s):
            return f"every {format_duration(every_s)}"
        case Cron(expression, zone):
            return f"cron {expression} ({zone})"
        case Manual():
            return "manual"
        case _:
            return "service"


def _limits(limits: Limits) -> Json:
    return {
        "memory_bytes": limits.memory_bytes,
        "memory_soft_bytes": limits.memory_soft_bytes,
        "recursion_frames": limits.recursion_frames,
        "time_seconds": limits.time_s,
        "cpu_seconds": limits.cpu_s,
        "stall_seconds": limits.stall_s,
        "processes": limits.processes,
        "files": limits.files,
        "output_bytes": limits.output_bytes,
    }


def _configured(job: Job) -> Json:
    return {
        "name": job.name,
        "description": job.description,
        "enabled": job.enabled,
        "schedule": _schedule(job),
        "user": job.launch.user,
        "restart_when": job.restart.when.value,
        "stop_grace_seconds": job.stop.grace_s,
        "alerts_to": list(job.alerts.to),
        "severity": job.alerts.severity,
        "limits": _limits(job.limits),
    }


def _run(row: RunRow) -> Json:
    return {
        "run": row.id,
        "job": row.job,
        "trigger": row.trigger.value,
        "slot": _stamp(row.slot),
        "started_at": _stamp(row.started_at),
        "ended_at": _stamp(row.ended_at),
        "attempts": row.attempts,
        "outcome": None if row.outcome is None else row.outcome.value,
        "summary": row.summary,
        "duration_seconds": row.duration_s,
        "memory_peak_bytes": row.memory_peak_bytes,
        "cpu_seconds": row.cpu_s,
    }


def _slot(row: SlotRow) -> Json:
    return {
        "job": row.job,
        "slot": _stamp(row.slot),
        "result": row.result.value,
        "reason": None if row.reason is None else row.reason.value,
        "run": row.run,
    }


def _incident(incident: Incident) -> Json:
    end = incident.closed_at
    return {
        "incident": incident.id,
        "job": incident.job,
        "outcome": incident.outcome.value,
        "severity": incident.severity,
        "summary": incident.summary,
        "fingerprint": incident.fingerprint,
        "opened_at": _stamp(incident.opened_at),
        "last_at": _stamp(incident.last_at),
        "occurrences": incident.occurrences,
        "first_run": incident.run,
        "last_run": incident.last_run,
        "alerted": incident.alerted,
        "acknowledged": incident.acknowledged,
        "closed_at": _stamp(end),
        "closed_because": incident.closed_because,
        "closed_by": incident.closed_by,
        "fix": incident.fix,
        "acknowledged_at": _stamp(incident.acknowledged_at),
        "acknowledged_by": incident.acknowledged_by,
        "acknowledged_note": incident.acknowledged_note,
        "regression_of": incident.regression_of,
        "regression_note": incident.regression_note,
        "gathered": list(incident.gathered),
        "duration_seconds": None if end is None else (end - incident.opened_at).total_seconds(),
    }


def _quarantined(record: QuarantinedRecord) -> Json:
    return {
        "key": record.key,
        "at": _stamp(record.at),
        "run": record.run,
        "attempt": record.attempt,
        "outcome": record.outcome.value,
        "fingerprint": record.fingerprint,
        "summary": record.summary,
    }


def _now_lines(state: JobState | None) -> list[str]:
    """Where the job stands at this moment, which may be another story than when the report was written."""
    if state is None:
        return ["it is no longer in the config"]
    lines = [f"it is {state.state.value}"]
    if state.memo.last is not None:
        lines.append(f"its last run, {state.memo.last.run}, ended as {state.memo.last.outcome.value}")
    if state.next_start is not None:
        lines.append(f"its next fire time is {_stamp(state.next_start)}")
    healed = heal.told(heal.course_of(state.job, state.memo.course))
    if healed and not state.memo.runs and state.memo.parked is None:  # the last bad end does not know what became of the step that followed
        lines.append(f"done against its failure so far: {healed}")
    if state.incidents:
        lines.append("open incidents: " + ", ".join(str(incident.id) for incident in state.incidents))
    return lines


def _read_log(path: str, lines: int | None, offset: int | None) -> tuple[int, str]:
    """(next offset, text) from *offset*, or the last *lines* lines."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if offset is not None:
                file.seek(offset if offset <= size else 0)  # beyond the end: it was turned over
                data = file.read(min(LOG_CHUNK, offset - 1) if offset > size else LOG_CHUNK)
                return file.tell(), data.decode(errors="replace")
            file.seek(max(0, size - LOG_CHUNK * 4))
            data = file.read()
    except OSError:
        return 0, ""
    wanted = data.splitlines(keepends=True)[-(lines if lines is not None else 100) :] if lines != 0 else []
    return size, b"".join(wanted).decode(errors="replace")


def _change(change: PlannedChange) -> Json:
    return {"job": change.job, "kind": change.kind.value, "keys": list(change.keys), "restarts": change.restarts, "stops": change.stops}


def _plan_text(changes: list[PlannedChange]) -> str:
    if not changes:
        return "no job would change"
    words = []
    for change in changes:
        effect = "; a running attempt is stopped" if change.stops else "; it restarts" if change.restarts else ""
        keys = f" ({', '.join(change.keys)})" if change.kind is PlanKind.CHANGED else ""
        words.append(f"{change.kind.value}: {change.job}{keys}{effect}")
    if any(change.kind is PlanKind.CHANGED and not (change.stops or change.restarts) for change in changes):
        words.append("a run that goes on keeps the config that it began with; `mainstay restart JOB` replaces it")
    return "\n".join(words)
