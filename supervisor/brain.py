"""Wires a brain together: everything but the keeper. Started by the keeper, replaced by it when it dies."""

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog

from supervisor import __version__, wire
from supervisor.adapters import guard, kernellog, logs
from supervisor.adapters.clock import Clock
from supervisor.adapters.eye import Eye
from supervisor.adapters.http import HttpServer, Rules
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.keeper import KeeperLink
from supervisor.adapters.launcher import Launcher
from supervisor.adapters.metrics import Metrics
from supervisor.adapters.multiproc import Tally
from supervisor.adapters.notify import Heart, Outbox
from supervisor.adapters.sampler import Sampler
from supervisor.adapters.signaltrace import SignalTrace
from supervisor.adapters.statedir import StateDir
from supervisor.adapters.store import Reader, Store
from supervisor.adapters.surveyor import Surveyor
from supervisor.backend import Backend
from supervisor.config.load import load_in_brief
from supervisor.core import engine
from supervisor.core.crowd import MEMO, Crowd
from supervisor.core.model import Incident, Mono, Now, Wall
from supervisor.core.records import QuarantinedRecord
from supervisor.core.settings import Config
from supervisor.core.state import EngineState, Memo
from supervisor.core.webconfig import WebConfig
from supervisor.daemon import Daemon
from supervisor.drill.drills import Drills
from supervisor.errors import StoreError
from supervisor.evidence import Gatherer, Hider

log = structlog.get_logger()


def _web_config(path: str) -> WebConfig:
    from supervisor.config import webconfig  # late: most have none

    return webconfig.load(path)


class Brain:
    """The parts of one brain, and the order in which they start and stop."""

    def __init__(self, config: Config, config_path: str, link: KeeperLink, hello: wire.Message) -> None:
        self.config = config
        self.config_path = config_path
        self.link = link
        self.hello = hello
        self.clock = Clock()
        self.environment = dict(os.environ)  # what jobs inherit
        self._keep_secrets(config)
        self.places = StateDir(config.settings.state_dir)
        self.places.create()
        self.now = self.clock.now()
        self.store = Store.open(config.settings.state_dir, now=self.now.wall)
        self.counters = self.store.counters()
        self.metrics = Metrics(self.counters)
        self.job_metrics = JobMetrics(self.counters)
        if self.store.quarantined:
            log.error("history_set_aside", path=self.store.quarantined, consequence="a new history was begun")
            self.metrics.inc("mainstay_store_errors_total", operation="open")
        self.survey_reader: Reader | None = None
        self.drills: Drills | None = None
        self.hider = Hider(os.environ, (*config.receivers.values(), config.settings))
        logs.hide(self.hider.ours.text)
        self.outbox = self._outbox(config)
        self.heart = self._heart(config)
        self.trace = self._trace() if config.settings.trace_signals else None

    def run(self, trouble: list[str]) -> int:
        restored = self._restore()
        containment = self._containment()
        daemon = self._daemon(restored.state, containment)
        self._first_metrics(daemon, containment)
        daemon.begin(self.hello)
        drills = Drills(
            daemon, self.store, self.places, self.metrics, clock=self.clock, page=lambda: self.metrics.render(self.job_metrics.lines())
        )
        drills.restore_metrics(self.config.jobs)
        self.drills = drills
        backend = self._backend(daemon, drills)
        http = self._http(backend)
        http.start()
        self.outbox.start()
        if self.hello["restarts"] == 0 or trouble:
            self._keep_loaded()  # a later brain goes on with the copy and must not take what is in the file now for what was taken
        for problem in trouble:
            log.warning("kept_config_refused", problem=problem)
        for warning in self.config.warnings:
            log.warning("config_warning", warning=warning)
        log.info(
            "supervising",
            version=__version__,
            jobs=len(self.config.jobs),
            config=self.config.path,
            state_dir=self.places.path,
            listen=self.config.settings.listen,
            web_config=self.config.settings.web_config,
            pid=os.getpid(),
            keeper_pid=self.hello["keeper_pid"],
            brain_restarts=self.hello["restarts"],
            **{f"containment_{name}": how for name, how in containment.items()},
        )
        try:
            daemon.take_over(restored, self.hello)
            del restored  # with what it wrote and ordered for each job: 2 MiB of a thousand
            return daemon.run()
        finally:
            http.stop()
            self._stop_heart()
            self.outbox.stop(2.0)
            if self.trace is not None:
                self.trace.close()
            with contextlib.suppress(StoreError):
                self.store.set_meta("stopped_at", self.clock.now().wall.isoformat())
            self.store.close()

    # ---------------------------------------------------------------- parts

    def _trace(self) -> SignalTrace | None:
        found = SignalTrace.open()
        if found is None:
            log.warning(
                "signal_trace_unavailable", mend="run as root with tracefs at /sys/kernel/tracing, or set supervisor.trace_signals: false"
            )
        return found

    def _outbox(self, config: Config) -> Outbox:
        def on_result(receiver: str, result: str) -> None:
            self.metrics.inc("mainstay_notifications_total", receiver=receiver, result=result)

        for receiver in config.receivers:
            self.metrics.add_receiver(receiver)
        return Outbox(self.store.outbox, config.receivers, self.clock.now, on_result)

    def _heart(self, config: Config) -> Heart | None:
        def on_result(result: str, when: Wall) -> None:
            self.metrics.inc("mainstay_heartbeats_total", result=result)
            if result == "sent":
                self.metrics.set("mainstay_heartbeat_last_success_timestamp_seconds", when.timestamp())

        heartbeat = config.settings.heartbeat
        return Heart(heartbeat, self.clock.now, on_result) if heartbeat is not None else None

    def _stop_heart(self) -> None:
        if self.heart is not None:
            self.heart.stop()

    def _beat(self) -> None:
        if self.heart is not None:
            self.heart.beat()

    def _restore(self) -> engine.Step:
        memos: dict[str, Memo] = {}
        texts = self.store.memos()
        crowd = self._crowd(texts.pop(MEMO, None))
        for name, text in texts.items():
            try:
                memos[name] = Memo.decode(text)
            except ValueError as err:
                log.error("memo_unreadable", job=name, error=str(err), consequence="the job starts afresh")  # noqa: TRY400
        incidents: dict[str, tuple[Incident, ...]] = {}
        for incident in self.store.open_incidents():
            incidents[incident.job] = (*incidents.get(incident.job, ()), incident)
        aside: dict[str, tuple[QuarantinedRecord, ...]] = {}
        for record in self.store.records_aside():
            aside[record.job] = (*aside.get(record.job, ()), record)
        live = {wire.split_key(one["key"]): (one["pid"], Mono(one["started_mono"])) for one in self.hello["live"]}
        told = (record["key"] for record in self.hello["ended"])
        ended = frozenset(wire.split_key(key) for key in (*told, *self.hello.get("untold", ())))
        doubtful = frozenset(map(wire.split_key, self.hello.get("doubtful", ())))
        keeper = engine.KeeperView(self.hello["epoch"], self.hello["boot_id"], live, ended, bool(self.hello.get("stopping")), doubtful)
        next_run, next_incident = self.store.next_ids()
        next_run = max([next_run, *(run + 1 for run, _ in {*live, *ended})])  # a history that was lost knows nothing of these
        now = Now(self.now.mono, self.now.wall)
        return engine.restore(self.config.jobs, memos, incidents, (next_run, next_incident), keeper, now, crowd, aside)

    @staticmethod
    def _crowd(text: str | None) -> Crowd:
        """What receivers were told of lately."""
        try:
            return Crowd() if text is None else Crowd.decode(text)
        except ValueError as err:
            log.error("memo_unreadable", job=MEMO, error=str(err), consequence="alerts are counted afresh")  # noqa: TRY400
            return Crowd()

    def _containment(self) -> Mapping[str, str]:
        if self.hello["cgroup"] is not None:
            return {"memory": "cgroup", "processes": "cgroup", "kill": "cgroup"}
        return {"memory": "poll", "processes": "poll", "kill": "poll"}

    def _daemon(self, state: EngineState, containment: Mapping[str, str]) -> Daemon:
        def eye_for(pid: int) -> Eye:
            return Eye(pid, self.places.cache)

        launcher = Launcher(self.places, self.environment)
        return Daemon(
            config=self.config,
            state=state,
            link=self.link,
            keeper_pid=self.hello["keeper_pid"],
            clock=self.clock,
            store=self.store,
            places=self.places,
            planner=launcher,
            sampler_for=lambda pid, group, run_dir: Sampler(pid, group, eye_for, guard.Guards(run_dir)),
            gatherer=Gatherer(guard.read_last_words, kernellog.oom_victims, self.trace, kernellog.fault_of),
            metrics=self.metrics,
            job_metrics=self.job_metrics,
            containment=containment,
            reload_config=lambda: load_in_brief(self.config_path),
            wake_outbox=lambda: self.outbox.wake(),  # noqa: PLW0108 - a reload makes a new outbox
            configured=self._configured,
            keep_config=self._keep_loaded,
            counters=self.counters,
            beat=self._beat,
            tally=Tally(self.places.multiproc),
            hider=self.hider,
            surveyor=Surveyor(self._kept_survey, self.environment, self._survey_key(), self.hider.of),
            drills_due=lambda jobs, now: None if self.drills is None else self.drills.tick(jobs, now),
            hourly=lambda: threading.Thread(target=self._prune, name="prune", daemon=True).start(),
        )

    def _backend(self, daemon: Daemon, drills: Drills) -> Backend:
        return Backend(
            daemon,
            self.store,
            self.places,
            self.metrics,
            self.job_metrics,
            clock=self.clock,
            keeper_pid=self.hello["keeper_pid"],
            started_at=self.now.wall,
            read_config=lambda: load_in_brief(self.config_path),
            queue_lengths=self._queue_lengths,
            drills=drills,
        )

    def _http(self, backend: Backend) -> HttpServer:
        settings = self.config.settings
        rules = None if settings.listen is None else Rules(settings.listen[0], settings.hosts, settings.actions)
        path = settings.web_config
        return HttpServer(
            backend,
            settings.listen,
            self.places.socket,
            rules=rules,
            web_config=None if path is None else lambda: _web_config(path),
            tcp_may_wait=self.hello["restarts"] > 0,  # jobs are running: who supervises them does not fail for a port
        )

    def _kept_survey(self, job: str) -> tuple[str, int, datetime] | None:
        """Asked by the surveyor in its own thread."""
        if self.survey_reader is None:
            self.survey_reader = self.store.reader()
        try:
            return self.survey_reader.good_run(job)
        except StoreError as err:
            log.warning("survey_unreadable", job=job, error=str(err))
            return None

    def _survey_key(self) -> bytes:
        """Under which secret values are compared from run to run; it never leaves the history."""
        key = self.store.meta("survey_key")
        if key is None:
            key = os.urandom(16).hex()
            with contextlib.suppress(StoreError):
                self.store.set_meta("survey_key", key)
        return bytes.fromhex(key)

    def _prune(self) -> None:
        """Let old history go, beside the loop: it may take a while."""
        try:
            gone = self.store.prune(self.clock.now().wall - timedelta(days=self.config.settings.history_days))
        except StoreError as err:
            self.metrics.inc("mainstay_store_errors_total", operation="prune")
            log.warning("history_not_pruned", error=str(err))
            return
        if gone:
            log.info("history_pruned", rows=gone)

    # ---------------------------------------------------------------- config and metrics

    def _configured(self, config: Config) -> None:
        """A reload took *config*: receivers may have changed."""
        old = self.config
        self.config = config
        self._keep_secrets(config)
        self.hider.take((*config.receivers.values(), config.settings))
        logs.hide(self.hider.ours.text)
        if old.settings.heartbeat != config.settings.heartbeat:
            self._stop_heart()
            self.heart = self._heart(config)
        if old.receivers == config.receivers:
            return
        self.outbox.stop(2.0)
        for name in old.receivers.keys() - config.receivers.keys():
            self.metrics.remove_receiver(name)
        self.outbox = self._outbox(config)
        self.outbox.start()

    def _keep_secrets(self, config: Config) -> None:
        """No job inherits a variable that the config takes a secret from."""
        for name in config.secret_variables:
            self.environment.pop(name, None)

    def _keep_loaded(self) -> None:
        """Keep the text of the config that was just taken: what the next brain of this keeper goes on with, whatever is done to the file meanwhile."""
        try:
            temporary = self.places.loaded_config + ".tmp"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(self.config.text)
            os.replace(temporary, self.places.loaded_config)
        except OSError as err:
            log.warning("config_copy_not_kept", error=str(err))

    def _first_metrics(self, daemon: Daemon, containment: Mapping[str, str]) -> None:
        self.metrics.info("mainstay_build_info", version=__version__, python_version="{}.{}.{}".format(*sys.version_info))
        self.metrics.info("mainstay_containment_info", **containment)
        self.metrics.inc("mainstay_starts_total", reason=self._start_reason())
        daemon.mark_config_taken()

    def _start_reason(self) -> str:
        """How the life before this one ended."""
        boot, stopped = self.store.meta("boot_id"), self.store.meta("stopped_at")
        with contextlib.suppress(StoreError):
            self.store.set_meta("boot_id", self.hello["boot_id"])
            self.store.set_meta("stopped_at", "")
        if boot is None:
            return "first"
        if stopped:
            return "clean"
        return "crash" if boot == self.hello["boot_id"] else "reboot"

    def _queue_lengths(self) -> None:
        for name in self.config.receivers:
            self.metrics.set("mainstay_notification_queue_length", self.outbox.queue_length(name), receiver=name)
            last = self.outbox.last_success(name)
            if last is not None:
                self.metrics.set("mainstay_notification_last_success_timestamp_seconds", last.timestamp(), receiver=name)
