"""config.yaml as a checked ``Config``, or every problem in it at once. A config is taken whole or not at all."""

import os
import re
from dataclasses import replace
from typing import Any

from msgspec import Struct

from supervisor import errors
from supervisor.config import build, checks, document
from supervisor.config.document import Mapping, Node, Scalar
from supervisor.config.kinds import BAD, Context, quoted_bare, read
from supervisor.config.problems import Report, printable, suggestion
from supervisor.config.process import as_words
from supervisor.config.schema import JOB, MAINTENANCE, NAME, NAME_FORM, RECEIVERS, SUPERVISOR
from supervisor.config.shape import Section, Shape, is_inherited, merged
from supervisor.config.source import Trust, read_text
from supervisor.core.drill import PREFIX, is_stand_in
from supervisor.core.jobs import SERVICE_TIME_S, Service, Window
from supervisor.core.settings import Config
from supervisor.core.units import quoted

PLACES = ("config.yaml", "/etc/mainstay/config.yaml")
STATE_DIR = "var"
STATE_VARIABLE = "STATE_DIRECTORY"  # systemd.exec(5): absolute paths, joined with colons

_TOP_KEYS = ("supervisor", "defaults", "jobs", "receivers", "maintenance")
_SECTION_FORMS = {
    "supervisor": "write keys below it, e.g. state_dir: var",
    "defaults": "write keys of a job below it, e.g. limits: {memory: 512MiB}",
    "jobs": "write a job below it, e.g. nightly: {command: [python, nightly.py]}",
    "receivers": "write a receiver below it, e.g. ops: {type: webhook, url: http://127.0.0.1:8000}",
    "maintenance": 'write a window below it, e.g. patching: {cron: "0 3 * * 0", for: 2h}',
}


def find_config(explicit: str | None) -> str:
    """The path of the config to use: *explicit*, or the first of ``PLACES`` that exists. ``ConfigError`` when none does."""
    if explicit is not None:
        return explicit
    for path in PLACES:
        if os.path.lexists(path):
            return path
    raise errors.ConfigError([f"{PLACES[0]}: does not exist, nor does {PLACES[1]}; write one of them, or name another with -c"])


def load(path: str, *, copy: str | None = None) -> Config:
    """The config in the file *path*. ``ConfigError`` holds all problems, each "file:line:column: key: what is wrong; what to write".

    With *copy* the text is read from there (a kept copy of the config in force) and understood as if it stood at *path*.
    """
    report = Report(path)
    try:
        text = read_text(copy or path, Trust.CODE)
    except ValueError as err:
        raise errors.ConfigError([f"{Report(copy or path).file}: {err}"]) from err
    return _Reader(path, report, is_kept=copy is not None).config(text)


def load_in_brief(path: str, *, copy: str | None = None) -> Config:
    """The same without the text of each key and its place, which only `check --show` needs: 3 KiB for each job."""
    return replace(load(path, copy=copy), sections={})


class _Read(Struct):
    """A job or receiver and the node it stands at."""

    node: Node
    section: Section


class _Reader:
    """One reading of one file: the parts in turn, then what holds between them, then the values if nothing was wrong."""

    def __init__(self, path: str, report: Report, *, is_kept: bool = False) -> None:
        self.is_kept = is_kept
        self.path = os.path.abspath(path)
        self.report = report
        self.context = Context(report, os.path.dirname(self.path))

    def config(self, text: str) -> Config:
        top = self.top(text)
        supervisor = self.supervisor(top)
        receivers = self.receivers(top)
        jobs = self.jobs(top, set(receivers))
        windows = self.maintenance(top, set(jobs))
        self.warn_of_unused(jobs, receivers, top)
        if self.report.failed:
            raise errors.ConfigError(self.report.problems)
        settings = build.daemon(supervisor)
        return Config(
            path=self.path,
            settings=settings,
            jobs=build.jobs({name: job.section for name, job in jobs.items()}, {name: self.windows_of(name, windows) for name in jobs}),
            receivers={name: build.receiver(name, receiver.section, settings.external_url) for name, receiver in receivers.items()},
            warnings=tuple(self.report.warnings),
            text=text,
            secret_variables=frozenset(self.context.variables),
            sections={
                "supervisor": supervisor,
                "jobs": {name: job.section for name, job in jobs.items()},
                "receivers": {name: receiver.section for name, receiver in receivers.items()},
                "maintenance": {name: window.section for name, window in windows.items()},
            },
        )

    def top(self, text: str) -> Mapping:
        """The outermost map; the error at once when there is none, as nothing else can be said then."""
        root = document.parse(text, self.report)
        if (root is None and not self.report.failed) or (isinstance(root, Scalar) and root.is_null):
            self.report.problem(Scalar(1, 1, "", "", True), "is empty; write jobs: and a job below it")
        elif root is not None and not isinstance(root, Mapping):
            self.report.problem(root, f"is not a map; write the keys {', '.join(_TOP_KEYS)}, each with a colon")
        if not isinstance(root, Mapping):
            raise errors.ConfigError(self.report.problems)
        if not text.endswith("\n"):
            self.report.warn(Scalar(text.count("\n") + 1, 1, "", "", True), "does not end with a line end; is the file complete?")
        for name, key in root.keys.items():
            if name not in _TOP_KEYS:
                self.report.problem(key, f"there is no key {quoted(name)} here; {suggestion(name, list(_TOP_KEYS))}")
        return root

    def part(self, top: Mapping, name: str) -> Mapping | None:
        """One of the outermost maps, None when it is absent or no map."""
        node = top.items.get(name)
        if node is None or isinstance(node, Mapping):
            return node
        empty = isinstance(node, Scalar) and node.is_null
        self.report.problem(
            node, f"{'is empty' if empty else 'is not a map'}; {_SECTION_FORMS[name]}{', or remove it' if empty and name != 'jobs' else ''}"
        )
        return None

    def supervisor(self, top: Mapping) -> Section:
        node = self.part(top, "supervisor")
        section = SUPERVISOR.read(node, self.context) if node else Section(SUPERVISOR)
        self.state_dir(node or top, section)
        checks.check_web(section, self.report, is_kept=self.is_kept)
        checks.check_heartbeat(section, self.report)
        return section

    def state_dir(self, node: Node, section: Section) -> None:
        """Puts the state directory in its place: systemd's, the one in the file, or the default."""
        given = os.environ.get(STATE_VARIABLE, "").split(":")[0]
        if given and not os.path.isabs(given):
            self.report.problem(node, f"${STATE_VARIABLE} is {quoted(given)}; give it an absolute path, or unset it")
        elif given:
            section.written["state_dir"] = os.path.normpath(given)
            section.notes["state_dir"] = f"${STATE_VARIABLE}"
        else:
            section.written.setdefault("state_dir", os.path.join(self.context.base, STATE_DIR))

    def receivers(self, top: Mapping) -> dict[str, _Read]:
        node = self.part(top, "receivers")
        found = {}
        for name, item in self.named(node, "a receiver"):
            section = self.one_receiver(item)
            found[name] = _Read(item, section or Section(Shape([])))
            if section:
                checks.check_receiver(item, section, self.report)
        return found

    def one_receiver(self, node: Node) -> Section | None:
        types = ", ".join(RECEIVERS)
        if not isinstance(node, Mapping):
            self.report.problem(node, f"is not a map; write {{type: ..., ...}} with one of the types {types}")
            return None
        type_node = node.items.get("type")
        if not isinstance(type_node, Scalar) or type_node.text not in RECEIVERS:
            what = f"{quoted(type_node.text)} is not a type of receiver" if isinstance(type_node, Scalar) else "has no type"
            mend = suggestion(type_node.text, list(RECEIVERS)) if isinstance(type_node, Scalar) else f"write type: and one of {types}"
            self.report.problem(type_node or node, f"{what}; {mend}")
            return None
        section = RECEIVERS[type_node.text].read(node, self.context)
        if "directory" in section.shape.by_name:
            section.written.setdefault("directory", self.context.base)
        return section

    def maintenance(self, top: Mapping, jobs: set[str]) -> dict[str, _Read]:
        found = {}
        for name, item in self.named(self.part(top, "maintenance"), "a maintenance window"):
            section = read(MAINTENANCE, item, self.context)
            if section is not BAD:
                checks.check_window(item, section, jobs, self.report)
                found[name] = _Read(item, section)
        return found

    @staticmethod
    def windows_of(job: str, windows: dict[str, _Read]) -> list[Window]:
        """Those that hold for *job*."""
        mine = [
            (name, window.section) for name, window in windows.items() if window.section["jobs"] is None or job in window.section["jobs"]
        ]
        return [build.window(name, section) for name, section in mine]

    def jobs(self, top: Mapping, receivers: set[str]) -> dict[str, _Read]:
        defaults = self.part(top, "defaults")
        if defaults:
            read(JOB, defaults, self.context)
        node = self.part(top, "jobs")
        if "jobs" not in top.items or (node and not node.items and not self.report.failed):
            self.report.problem(node or top, f"has no jobs; {_SECTION_FORMS['jobs']}")
        found = {}
        for name, item in self.named(node, "a job"):
            if isinstance(item, Scalar):
                self.report.problem(item, self.not_a_job(item))
                continue
            section = read(JOB, self.over_defaults(item, defaults), self.context)
            if section is not BAD:
                self.settle_time(section)
                checks.check_job(item, section, receivers, self.report)
                self.settle(section)
                found[name] = _Read(item, section)
        return found

    @staticmethod
    def not_a_job(node: Scalar) -> str:
        if node.is_null:
            return "is empty; write command: [python, job.py] below it, or remove it"
        return f"{quoted_bare(node.text)} is not a map; write command: {as_words(node.text)} below it"

    @staticmethod
    def settle_time(section: Section) -> None:
        """Gives a service that names no time limit, here or under ``defaults``, one that ends no healthy service."""
        limits = section["limits"]
        if isinstance(section["schedule"], Service) and isinstance(limits, Section) and "time" not in limits.written:
            limits.written["time"] = SERVICE_TIME_S
            limits.notes["time"] = "default of a service"
            section.written["limits"] = limits

    def settle(self, section: Section) -> None:
        """Fills in the directory and puts the short form of ``expect.success_exit_codes`` where it belongs, unless a nearer one is there."""
        section.written.setdefault("directory", self.context.base)
        expect = section["expect"]
        if "success_exit_codes" not in section.written or not isinstance(expect, Section):
            return
        codes = section.written.pop("success_exit_codes")
        node = section.nodes.pop("success_exit_codes")
        if "success_exit_codes" not in expect.written or not is_inherited(node):
            expect.written["success_exit_codes"] = codes
            expect.nodes["success_exit_codes"] = node
            section.written["expect"] = expect

    @staticmethod
    def over_defaults(node: Node, defaults: Mapping | None) -> Node:
        """The job's keys over those in *defaults*. A schedule there that says no time is for timed jobs and makes nothing of a service."""
        whole = merged(JOB, defaults, node) or node
        if isinstance(node, Mapping) and isinstance(whole, Mapping) and "schedule" not in node.items:
            schedule = whole.items.get("schedule")
            if isinstance(schedule, Mapping) and not {"every", "cron"} & schedule.items.keys():
                del whole.items["schedule"], whole.keys["schedule"]
        return whole

    def named(self, node: Mapping | None, what: str) -> list[tuple[str, Node]]:
        """The members of a map whose keys are names, without those whose name is wrong."""
        good: list[tuple[str, Node]] = []
        if node is None:
            return good
        for name, item in node.items.items():
            if not re.fullmatch(NAME, name) or name in (".", ".."):
                self.report.problem(node.keys[name], f"{quoted(name)} cannot be the name of {what}; write {NAME_FORM}")
            elif is_stand_in(name):
                self.report.problem(
                    node.keys[name], f"{quoted(name)} begins as only the stand-ins of drills do; write a name without {PREFIX}"
                )
            else:
                good.append((name, item))
        return good

    def warn_of_unused(self, jobs: dict[str, _Read], receivers: dict[str, _Read], top: Mapping) -> None:
        used: set[str] = set()
        for job in jobs.values():
            alerts: Any = job.section["alerts"]
            for section in (alerts, alerts["escalate"]) if isinstance(alerts, Section) else ():
                if isinstance(section, Section) and section.is_sure("to"):
                    used.update(section["to"])
        part = top.items.get("receivers")
        for name in receivers:
            if name not in used and isinstance(part, Mapping):
                self.report.warn(
                    part.keys[name], f"no job alerts this receiver; write alerts: {{to: [{printable(name)}]}} in a job or in defaults"
                )
