"""Drills of one brain: start a stand-in, watch what follows its fault, time each link, give it back. What to run and what must follow is ``core.drill``'s.

A drill runs in a thread of its own and only one at a time. The loop is asked for every change; what it sees of the stand-in comes back as facts
with their own times, so that the thread's own pace falsifies none. Nothing here can hold up supervision.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from msgspec.structs import replace

from supervisor.adapters.metrics import Metrics
from supervisor.adapters.store import Reader, Store
from supervisor.core import drill, schedule
from supervisor.core.drill import Link, Plan, Refusal, Result, Seen
from supervisor.core.jobs import Fault, Job
from supervisor.daemon import Daemon
from supervisor.drill.course import ASK_S, Course, Means, Rules
from supervisor.errors import StoreError
from supervisor.ports import Clock, Places

KEPT: Final = 50  # drills whose results can be asked for
TAIL_BYTES: Final = 4096
META: Final = "drill/"  # results in the history: drill/JOB/FAULT
META_SLOT: Final = "drill-slot/"  # the last fire time that was drilled: drill-slot/JOB
STANDIN: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "standin.py")

log = structlog.get_logger()


class Drills:
    """All drills of one brain. ``tick`` comes from the loop, everything else from other threads."""

    def __init__(self, daemon: Daemon, store: Store, places: Places, metrics: Metrics, *, clock: Clock, page: Callable[[], bytes]) -> None:
        self._daemon = daemon
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._means = Means(daemon, clock, store.reader, page, lambda job, key: places.tail(job, key, TAIL_BYTES))
        self._lock = threading.Lock()
        self._results: dict[int, Result] = {}
        self._next = 1
        self._busy = False
        self._begun_at = clock.now().wall
        self._slots: dict[str, datetime] = {}

    # ---------------------------------------------------------------- asked from outside

    def start(self, job: Job, fault: Fault, *, cap_s: float = drill.CAP_S, prometheus: Rules | None = None) -> Result | None:
        """Begin a drill; None while another one runs. A refusal is a result that is done already."""
        with self._lock:
            if self._busy:
                return None
            number, self._next = self._next, self._next + 1
            plan = drill.stand_in(job, fault, (sys.executable, "-P", STANDIN), cap_s=cap_s)
            if isinstance(plan, Refusal):
                result = Result(number, job.name, fault, refused=plan, done=True)
            else:
                result, self._busy = Result(number, job.name, fault, notes=plan.notes), True
            self._keep(result)
        if isinstance(plan, Refusal):
            self._tell(result)
            return result
        threading.Thread(target=self._run, args=(plan, result, prometheus), name="drill", daemon=True).start()
        return result

    def result(self, number: int) -> Result | None:
        """A drill as it stands."""
        with self._lock:
            return self._results.get(number)

    def last(self, reader: Reader, job: str) -> list[dict[str, Any]]:
        """The last result of each fault that this job was ever drilled for, from the history."""
        found = reader.meta_beginning_with(f"{META}{job}/")
        return [json.loads(text) for key, text in found.items() if key.startswith(f"{META}{job}/")]

    def restore_metrics(self, jobs: Mapping[str, Job]) -> None:
        """The gauges of earlier drills, after a start of the brain."""
        for key, text in self._store.meta_beginning_with(META).items():
            job, _, fault = key.removeprefix(META).rpartition("/")
            if job in jobs and fault in set(Fault):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    document = json.loads(text)
                    self._set_gauges(job, fault, bool(document["passed"]), float(document["at"]), document["links"])

    # ---------------------------------------------------------------- drills on a schedule

    def tick(self, jobs: Mapping[str, Job], now: datetime) -> None:
        """In the loop, about once a second: begin what is due. A fire time that passed while another drill ran waits; of those missed none is made up for."""
        for job in jobs.values():
            if not job.drills.faults or not job.enabled or self._busy:
                continue
            since = self._last_slot(job.name)
            at = schedule.next_fire(job.drills.schedule, f"{drill.PREFIX}{job.name}", since)
            if at is None or schedule.start_at(job.drills.schedule, f"{drill.PREFIX}{job.name}", at) > now:
                continue
            self._slots[job.name] = now
            with contextlib.suppress(StoreError):
                self._store.set_meta(META_SLOT + job.name, now.isoformat())
            threading.Thread(target=self._run_all, args=(job,), name="drills", daemon=True).start()
            return

    def _last_slot(self, job: str) -> datetime:
        """Fire times up to here are dealt with."""
        if job not in self._slots:
            kept = None
            with contextlib.suppress(StoreError):
                kept = self._store.meta(META_SLOT + job)
            self._slots[job] = max(self._begun_at, datetime.fromisoformat(kept)) if kept else self._begun_at
        return self._slots[job]

    def _run_all(self, job: Job) -> None:
        for fault in job.drills.faults:
            result = self.start(job, fault)
            while result is not None and not result.done:
                threading.Event().wait(1.0)
                result = self.result(result.id)

    # ---------------------------------------------------------------- one drill

    def _run(self, plan: Plan, result: Result, prometheus: Rules | None) -> None:
        course = Course(self._means, plan, lambda seen: self._see(result.id, seen), prometheus)
        try:
            course.follow()
        except Exception:  # broad: whatever we stumble over, the stand-in leaves and the drill is told as broken
            log.exception("drill_failed", job=result.job, fault=result.fault.value)
            why = "Mainstay failed to drill; its log has the traceback (this is a bug of ours)"
            self._see(result.id, Seen(Link.ARMED, holds=False, at_s=None, detail=why))
        finally:
            with contextlib.suppress(Exception):  # the loop may be gone, and we with it
                self._daemon.ask(self._daemon.give_back, ASK_S)
            ended = replace(self._results[result.id], done=True)
            with contextlib.suppress(Exception):
                self._tell(ended)  # before anybody can see that it is done, and look for what it told
            with self._lock:
                self._keep(ended)
                self._busy = False

    def _keep(self, result: Result) -> None:
        self._results[result.id] = result
        for number in sorted(self._results)[:-KEPT]:
            del self._results[number]

    def _see(self, number: int, seen: Seen) -> None:
        """One more link of a running drill."""
        with self._lock:
            result = self._results[number]
            self._keep(replace(result, chain=result.chain | seen))

    def _tell(self, result: Result) -> None:
        """Log, metrics and history of a drill that is done."""
        word = "refused" if result.refused is not None else "passed" if result.passed else "broken"
        broken = result.chain.broken
        detail = result.refused.text if result.refused is not None else broken.detail if broken is not None else ""
        (log.info if result.passed else log.error)(
            "drill_ended",
            job=result.job,
            fault=result.fault.value,
            result=word,
            link=broken.link.value if broken is not None else None,
            detail=detail,
        )
        at = self._clock.now().wall.timestamp()
        document = {**result.as_json(), "at": at}
        text = json.dumps(document, ensure_ascii=False)

        def record() -> None:
            self._metrics.inc("mainstay_drills_total", result=word)
            if result.job in self._daemon.state.jobs:
                self._set_gauges(result.job, result.fault.value, result.passed, at, document["links"])
            with contextlib.suppress(StoreError):
                self._store.set_meta(f"{META}{result.job}/{result.fault.value}", text)

        self._daemon.ask(record, ASK_S)

    def _set_gauges(self, job: str, fault: str, passed: bool, at: float, links: Any) -> None:
        self._metrics.set("mainstay_drill_passed", float(passed), job_name=job, fault=fault)
        self._metrics.set("mainstay_drill_last_run_timestamp_seconds", at, job_name=job, fault=fault)
        slowest: dict[str, float] = {}
        for link in links:
            if link["holds"] and link["seconds"] is not None:
                slowest[link["link"]] = max(slowest.get(link["link"], 0.0), float(link["seconds"]))
        for name in Link:
            if name.value in slowest:
                self._metrics.set("mainstay_drill_link_seconds", max(0.0, slowest[name.value]), job_name=job, fault=fault, link=name.value)
            else:
                self._metrics.clear("mainstay_drill_link_seconds", job_name=job, fault=fault, link=name.value)
