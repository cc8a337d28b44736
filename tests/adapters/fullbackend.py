"""A backend with everything in it that a page or an answer can show; *text* stands in each field that a job or a person can choose."""

import threading
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
STAMP = "2026-11-28T03:00:00.000Z"
LATER = "2026-11-28T03:05:00.000Z"
MIB = 2**20


class FullBackend:
    """Two jobs, ``nightly`` (it has run badly, and an incident is open) and ``web`` (a service that runs), three runs, one incident."""

    def __init__(self, text: str = "words") -> None:
        self.text = text
        self.asked: list[tuple[str, str, dict[str, Any], float]] = []
        self.refuses = False
        self.states: dict[str, object] = {"nightly": object(), "web": object()}
        self.log = f"{text}\nsecond line\n"
        self.lock = threading.Lock()

    def metrics_page(self) -> bytes:
        return b"# HELP x X.\n# TYPE x gauge\nx 1\n"

    def healthy(self) -> tuple[bool, str]:
        return True, "the loop came round 0.1 s ago"

    def ready(self) -> tuple[bool, str]:
        return True, "supervising 2 jobs"

    def version(self) -> Json:
        return {"version": "1.2.3", "python": "3.11.7"}

    def config(self) -> Json:
        return {
            "path": "/etc/mainstay/config.yaml",
            "state_dir": "/var/lib/mainstay",
            "listen": "127.0.0.1:9321",
            "history_seconds": 86400.0,
            "warnings": [self.text],
            "jobs": [
                {
                    "name": "nightly",
                    "description": self.text,
                    "enabled": True,
                    "schedule": "every 1m",
                    "user": None,
                    "restart_when": "on-failure",
                    "stop_grace_seconds": 10.0,
                    "alerts_to": ["ops"],
                    "severity": "critical",
                    "limits": self.limits(),
                }
            ],
            "receivers": [{"name": "ops", "type": "webhook"}],
        }

    def pulse(self) -> Mapping[str, object]:
        return dict(self.states)

    def status(self) -> Json:
        daemon = {
            "pid": 7,
            "keeper_pid": 6,
            "version": "1.2.3",
            "containment": {"memory": "cgroup", "processes": "cgroup", "kill": "cgroup"},
            "config": f"/etc/{self.text}.yaml",
            "state_dir": "/var/lib/mainstay",
            "listen": "127.0.0.1:9321",
            "started_at": STAMP,
            "closing": False,
            "now": LATER,
            "history_behind": {"since": STAMP, "error": self.text, "rows": 3},
        }
        return {"daemon": daemon, "jobs": [self.job("nightly"), self.job("web")]}

    @staticmethod
    def limits() -> Json:
        return {
            "memory_bytes": 512 * MIB,
            "memory_soft_bytes": 400 * MIB,
            "recursion_frames": 400,
            "time_seconds": 120.0,
            "cpu_seconds": None,
            "stall_seconds": 30.0,
            "processes": 16,
            "files": None,
            "output_bytes": None,
        }

    def job(self, name: str) -> Json | None:
        if name not in ("nightly", "web"):
            return None
        runs = name == "web"
        live = {"run": 3, "attempt": 1, "phase": "running", "pid": 99, "trigger": "startup", "slot": None, "started_at": STAMP}
        last = {
            "run": 2,
            "outcome": "recursion",
            "summary": self.text,
            "ended_at": STAMP,
            "duration_seconds": 1.5,
            "memory_peak_bytes": 35 * MIB,
        }
        return {
            "name": name,
            "description": self.text,
            "state": "running" if runs else "idle",
            "schedule": "service" if runs else self.text,
            "paused": False,
            "paused_until": None,
            "parked": None if runs else self.text,
            "stop_grace_seconds": 10.0,
            "next_run": None if runs else "2026-11-28T03:06:00.000Z",
            "runs": [live] if runs else [],
            "memory_bytes": 300 * MIB if runs else None,
            "memory_limit_bytes": 512 * MIB,
            "limits": self.limits(),
            "processes": 2 if runs else None,
            "depth": None,
            "failures_in_row": 0 if runs else 2,
            "restarts": 1,
            "quarantined": 0,
            "last": None if runs else last,
            "last_success_at": None,
            "incidents": [] if runs else [7],
            "quiet": None if runs else {"until": LATER, "why": self.text},
            "silences": [] if runs else [{"number": 1, "starts_at": STAMP, "ends_at": LATER, "comment": self.text}],
        }

    def _run(self, number: int) -> Json:
        ended = number != 3
        return {
            "run": number,
            "job": "nightly" if ended else "web",
            "trigger": "schedule",
            "slot": STAMP,
            "started_at": STAMP,
            "ended_at": STAMP if ended else None,
            "attempts": 2,
            "outcome": {1: "succeeded", 2: "recursion", 3: None}[number],
            "summary": self.text,
            "duration_seconds": 1.5,
            "memory_peak_bytes": 35 * MIB,
            "cpu_seconds": 0.4,
        }

    def runs(self, job: str | None, limit: int) -> list[Json]:
        found = [self._run(number) for number in (3, 2, 1)]
        return [run for run in found if job in (None, run["job"])][:limit]

    def run(self, number: int) -> Json | None:
        return self._run(number) if number in (1, 2, 3) else None

    def slots(self, job: str | None, limit: int) -> list[Json]:
        return [{"job": job, "slot": STAMP, "result": "skipped", "reason": "daemon_down", "run": None}][:limit] if job else []

    def why(self, job: str | None, run: int | None) -> Json | None:
        if run not in (None, 1, 2) or job not in (None, "nightly"):
            return None
        frame = {"function": self.text, "file": f"/srv/{self.text}.py", "line": 42}
        return {
            "schema": 1,
            "job": "nightly",
            "run": run or 2,
            "attempt": 2,
            "outcome": "recursion",
            "summary": self.text,
            "limit": "recursion",
            "exit_code": 1,
            "signal": None,
            "started_at": STAMP,
            "ended_at": STAMP,
            "duration_seconds": 1.5,
            "memory_peak_bytes": 35 * MIB,
            "cpu_seconds": 0.4,
            "limits": [
                {"limit": "memory", "line": 512.0 * MIB, "peak": 35.0 * MIB, "unit": "bytes", "struck": False},
                {"limit": "recursion", "line": 400.0, "peak": 400.0, "unit": "frames", "struck": True},
                {"limit": "cpu", "line": None, "peak": 0.4, "unit": "seconds", "struck": False},
                {"limit": "time", "line": 120.0, "peak": None, "unit": "seconds", "struck": False},
            ],
            "memory_curve": [[0.1, 10.0 * MIB], [0.8, 20.0 * MIB], [1.5, 35.0 * MIB]],
            "memory_types": [{"type": self.text, "count": 9, "bytes": 4096}],
            "waiting": [{"pid": 9, "thread": 9, "what": self.text, "wchan": self.text, "call": 7}],
            "busy_lines": [{**frame, "samples": 9, "of": 10, "in_c": True}],
            "progress": {"record": self.text, "records": 3, "done": None, "total": None, "stage": self.text},
            "environment": {"host": self.text},
            "changed": {
                "since_run": 1,
                "since": STAMP,
                "items": [{"kind": self.text, "what": self.text, "was": None, "now": self.text}],
                "more": 2,
                "note": "",
            },
            "regression_of": 6,
            "regression_note": self.text,
            "left_out": [self.text],
            "evidence": [self.text, "kernel: exit code 1"],
            "cycle": {"frames": [frame], "depth": 400, "kind": "frames", "notes": [self.text]},
            "exception": {"type": self.text, "message": self.text, "where": self.text, "depth": 400, "frames": [frame]},
            "stacks": [{"thread": self.text, "depth": 3, "frames": [frame]}],
            "output_tail": self.log,
            "fingerprint": "6aa3623365cd",
            "did": [self.text],
            "will": [self.text],
            "incident": 7,
            "containment": {"memory": "cgroup"},
            "now": [self.text],
        }

    def _incident(self) -> Json:
        return {
            "incident": 7,
            "job": "nightly",
            "outcome": "recursion",
            "severity": "critical",
            "summary": self.text,
            "fingerprint": "6aa3623365cd",
            "opened_at": STAMP,
            "last_at": STAMP,
            "occurrences": 3,
            "first_run": 1,
            "last_run": 2,
            "alerted": True,
            "acknowledged": False,
            "closed_at": None,
            "closed_because": None,
            "closed_by": "",
            "fix": "",
            "acknowledged_at": None,
            "acknowledged_by": "",
            "acknowledged_note": "",
            "regression_of": None,
            "regression_note": "",
            "gathered": ["ops"],
            "duration_seconds": None,
            "held": True,
            "told": ["ops"],
            "escalated_at": None,
        }

    def incidents(self, open_only: bool, limit: int) -> list[Json]:
        return ([self._incident()] + ([] if open_only else [self._closed()]))[:limit]

    def _closed(self) -> Json:
        return {
            **self._incident(),
            "incident": 6,
            "closed_at": STAMP,
            "closed_because": self.text,
            "closed_by": self.text,
            "fix": self.text,
            "acknowledged": True,
            "acknowledged_at": STAMP,
            "acknowledged_by": self.text,
            "acknowledged_note": self.text,
            "regression_of": 5,
            "regression_note": self.text,
            "duration_seconds": 60.0,
        }

    def incident(self, number: int) -> Json | None:
        if number == 6:
            return {**self._closed(), "report": None}
        return {**self._incident(), "report": self.why(None, 2)} if number == 7 else None

    def logs(self, job: str, run: int | None, lines: int | None, offset: int | None, attempt: int | None = None) -> Json | None:
        if job not in ("nightly", "web"):
            return None
        with self.lock:
            text = self.log if offset is None else self.log[offset:]
            whole = len(self.log)
        text = "" if lines == 0 else text
        return {"job": job, "run": 2, "attempt": 1, "text": text, "offset": whole, "turned_over": False, "live": job == "web"}

    def drill(self, number: int) -> Json | None:
        return self._drill("nightly") if number == 5 else None

    def _drill(self, job: str) -> Json:
        return {
            "schema": 1,
            "drill": 5,
            "job": job,
            "fault": "memory",
            "done": True,
            "passed": False,
            "refused": None,
            "broken": "delivered",
            "notes": [self.text],
            "links": [{"link": "delivered", "receiver": "ops", "holds": False, "seconds": 60.1234, "detail": self.text}],
        }

    def quarantine(self, job: str, key: str | None) -> Json | None:
        record = {
            "key": "user-7",
            "at": "2026-03-01T12:00:00.000Z",
            "run": 1,
            "attempt": 2,
            "outcome": "crashed",
            "fingerprint": "c0ffee",
            "summary": "it died",
        }
        if job != "nightly" or key not in (None, "user-7"):
            return None
        return {"job": job, "records": [record if key is None else record | {"report": None}]}

    def drills(self, job: str) -> list[Json]:
        return [{**self._drill(job), "at": 1772366400.0}]

    def write(self, text: str) -> None:
        """What the job writes next."""
        with self.lock:
            self.log += text

    def ask(self, verb: str, target: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[int, Json]:
        self.asked.append((verb, target, dict(arguments), timeout_s))
        if self.refuses:
            return 409, {"error": f"it is parked {self.text}", "mend": self.text}
        if target not in ("nightly", "web", "7", ""):
            return 404, {"error": f"there is no {target}", "mend": ""}
        return 200, {"ok": True, "text": self.text}
