"""The course of one drill: one link after the other, each waited for with a bound and told with the moment at which it held.

Runs in the drill's own thread. What the loop sees of the stand-in comes as facts with times of their own; the outbox and Prometheus are asked.
"""

import contextlib
import queue
import re
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol, TypeVar

from msgspec import Struct

from supervisor.adapters.store import Reader
from supervisor.core import drill
from supervisor.core.drill import Link, Plan, Seen
from supervisor.core.events import IncidentWish, Verb, Wish
from supervisor.core.evidence import Breach, Verdict
from supervisor.core.jobs import Fault
from supervisor.core.model import Incident, Mono
from supervisor.core.prose import about_duration, counted
from supervisor.core.records import Delivery, NotificationKind
from supervisor.counting import Live
from supervisor.daemon import Daemon
from supervisor.errors import RulesError
from supervisor.ports import Clock
from supervisor.wire import attempt_key

ASK_S: Final = 30.0
START_S: Final = 30.0  # for the stand-in to begin: an interpreter's start on a busy host
END_S: Final = 30.0  # beyond the limit's own time: from the breach to the last process gone
RULE_S: Final = 300.0  # a rule may wait before it fires; the shipped ones wait at most two minutes
LOOK_S: Final = 0.02
_BEGAN: Final = re.compile(r"^fault begins at ([0-9.]+)$", re.MULTILINE)

T = TypeVar("T")


class _Stopped(Exception):  # noqa: N818 - the end of a drill, not an error
    """Nothing can follow: the chain is broken."""


class _Fact(Struct, frozen=True):
    what: str
    at: Mono
    fact: object


class Rules(Protocol):
    """A Prometheus that evaluates alert rules over our page; ``RulesError`` when it cannot be asked."""

    address: str

    def first(self, query: str) -> dict[str, Any] | None:
        """The first sample of an instant query."""


class Means(Struct, frozen=True):
    """What a course needs of the brain: the loop, the clock, the history, the page of metrics, and the captured output of an attempt."""

    daemon: Daemon
    clock: Clock
    reader: Callable[[], Reader]
    page: Callable[[], bytes]
    output: Callable[[str, str], str]


class Course:
    """The course of one drill, link after link. Each method waits for one fact, with a bound, and says what it saw."""

    def __init__(self, means: Means, plan: Plan, see: Callable[[Seen], None], prometheus: Rules | None) -> None:
        self._means = means
        self._plan = plan
        self._see = see
        self._prometheus = prometheus
        self._facts: queue.SimpleQueue[_Fact] = queue.SimpleQueue()
        self._seen: list[_Fact] = []
        self._name = plan.job.name
        self._began = Mono(0.0)
        self._before: float | None = None
        self._key = ""
        self._pause = threading.Event()  # never set
        self._offset_s = 0.0  # wall clock minus monotonic clock, to place what the outbox timed by the wall

    def follow(self) -> None:
        """From the stand-in's start to the last receiver's all-clear, or to the first broken link that nothing can follow."""
        with contextlib.suppress(_Stopped):
            self._follow()

    def _follow(self) -> None:
        self._arm()
        if self._plan.fault is Fault.SILENCE:
            incident = self._silence()
        else:
            self._fault()
            incident = self._judged()
        if self._prometheus is not None:
            self._rule(self._prometheus)
        self._deliveries(incident, NotificationKind.OPENED, Link.DELIVERED)
        self._resolve(incident)
        self._deliveries(incident, NotificationKind.CLOSED, Link.RESOLVED)

    # ------------------------------------------------ links

    def _arm(self) -> None:
        daemon = self._means.daemon
        daemon.ask(lambda: daemon.lend(self._plan.job, lambda what, at, fact: self._facts.put(_Fact(what, at, fact))), ASK_S)
        now = self._means.clock.now()
        self._began, self._offset_s = now.mono, now.wall.timestamp() - now.mono
        self._before = self._value()
        if self._before is None:
            self._broken(Link.ARMED, f"the page has no series {self._series()}: an alert on its first increase could never fire")
        held = Seen(
            Link.ARMED,
            holds=True,
            at_s=None,
            detail=f"{self._name} has the limits and receivers of {self._plan.job.name.removeprefix(drill.PREFIX)}",
        )
        self._see(held)
        if self._prometheus is not None:
            self._ask_prometheus(self._prometheus, self._series(), Link.ARMED, "Prometheus did not scrape the stand-in")
            self._see(Seen(Link.ARMED, holds=True, at_s=None, detail="Prometheus has scraped it"))

    def _fault(self) -> None:
        daemon = self._means.daemon
        answer = daemon.ask(lambda: daemon.wish(Wish(Verb.TRIGGER, self._name)), ASK_S)
        if not answer.ok:
            self._broken(Link.FAULT, answer.text)
        started = self._wait("started", START_S)
        if started is None or not isinstance(started.fact, Live):
            launch = self._find("judged")
            why = launch.fact.summary if launch is not None and isinstance(launch.fact, Verdict) else "nothing started"
            self._broken(Link.FAULT, f"the stand-in did not start: {why}")
        live = started.fact
        self._key = attempt_key(live.run, live.attempt)
        self._began = started.at
        began = self._until(lambda: _BEGAN.search(self._means.output(self._name, self._key)), START_S)
        if began is None:
            self._broken(Link.FAULT, "the stand-in started but did not come to its fault; `mainstay logs` has its output")
        self._began = Mono(float(began[1]))
        self._held(Link.FAULT, self._began, f"{self._plan.fault.value} in process {live.pid}")

    def _judged(self) -> Incident:
        ended = self._wait("ended", self._plan.patience_s + END_S)
        if ended is None:
            self._broken(Link.DETECTED, f"the fault went on for {about_duration(self._plan.patience_s + END_S)} and nothing ended it")
        breached = self._find("breached")
        if breached is not None and isinstance(breached.fact, Breach):
            breach = breached.fact
            self._held(Link.DETECTED, breached.at, drill.breach_words(breach.limit, breach.measured, breach.line))
            self._held(Link.KILLED, ended.at, "its whole tree is gone")
        else:
            self._held(Link.DETECTED, ended.at, "it ended by itself, and the keeper saw it")
        judged = self._wait("judged", END_S)
        if judged is None or not isinstance(judged.fact, Verdict):
            self._broken(Link.VERDICT, "its end was not judged")
        verdict = judged.fact
        seen = drill.verdict_link(self._plan, verdict.outcome, verdict.limit, verdict.summary, judged.at - self._began)
        self._see(seen)
        if not seen.holds:
            raise _Stopped
        self._metric()
        return self._incident()[0]

    def _silence(self) -> Incident:
        self._held(Link.FAULT, self._began, "nothing runs, and nothing will")
        incident, opened = self._incident(self._plan.patience_s + END_S, Link.DETECTED)
        seen = drill.verdict_link(self._plan, incident.outcome, None, incident.summary, opened.at - self._began)
        self._see(seen)
        if not seen.holds:
            raise _Stopped
        return incident

    def _metric(self) -> None:
        before = self._before or 0.0
        risen = self._until(lambda: (self._value() or 0.0) > before, END_S)
        if not risen:
            self._broken(Link.METRIC, f"{self._series()} did not rise")
        self._held(Link.METRIC, self._means.clock.mono(), f"{self._series()} rose to {self._value():g}")

    def _incident(self, patience_s: float = END_S, link: Link = Link.INCIDENT) -> tuple[Incident, _Fact]:
        opened = self._wait("incident opened", patience_s)
        if opened is None or not isinstance(opened.fact, Incident):
            self._broken(link, "no incident was opened")
        incident = opened.fact
        told = ", ".join(self._plan.job.alerts.to)
        self._held(link, opened.at, f"incident {incident.id} opened, an alert is due to {told}")
        return incident, opened

    def _rule(self, prometheus: Rules) -> None:
        query = f'ALERTS{{alertstate="firing",job_name="{self._name}"}}'
        alert = self._ask_prometheus(prometheus, query, Link.RULE, f"no alert rule fired for {self._name}")
        name = alert.get("metric", {}).get("alertname", "?")
        self._held(Link.RULE, self._means.clock.mono(), f"{name} fires in Prometheus")

    def _deliveries(self, incident: Incident, kind: NotificationKind, link: Link) -> None:
        """Every receiver's turn; one that does not answer breaks the chain, and the others are told all the same."""
        reader, wanted = self._means.reader(), dict.fromkeys(self._plan.job.alerts.to)
        done: dict[str, Delivery] = {}

        def look() -> bool:
            for one in reader.deliveries(incident.id):
                if one.kind is kind and one.receiver in wanted:
                    done[one.receiver] = one
            return all(name in done and done[name].state != "due" for name in wanted)

        self._until(look, self._plan.delivery_s)
        for name in wanted:
            delivery = done.get(name)
            if delivery is not None and delivery.state == "sent" and delivery.done_at is not None:
                at_s = delivery.done_at.timestamp() - self._offset_s - self._began
                self._see(Seen(link, holds=True, at_s=at_s, detail=_tries(delivery), receiver=name))
            else:
                self._see(Seen(link, holds=False, at_s=None, detail=self._undelivered(delivery, reader.last_refusal(name)), receiver=name))
        if not all(name in done and done[name].state == "sent" for name in wanted):
            raise _Stopped  # whoever was told hears the end all the same: the stand-in leaves, and its incident closes

    def _undelivered(self, delivery: Delivery | None, others: str) -> str:
        if delivery is None:
            return "nothing was sent to it"
        if delivery.state == "dropped":
            return f"given up: {delivery.last_error}"
        waited = f"not delivered within {about_duration(self._plan.delivery_s)}"
        if not delivery.tries and others:
            return f"{waited}: it waits because earlier ones fail: {others}"
        return f"{waited}, {counted(delivery.tries, 'try', 'tries')}: {delivery.last_error or 'no answer'}"

    def _resolve(self, incident: Incident) -> None:
        daemon = self._means.daemon
        daemon.ask(lambda: daemon.wish(IncidentWish(incident.id, resolve=True)), ASK_S)

    # ------------------------------------------------ waiting

    def _held(self, link: Link, at: Mono, detail: str) -> None:
        self._see(Seen(link, holds=True, at_s=at - self._began, detail=detail))

    def _broken(self, link: Link, detail: str) -> NoReturn:
        self._see(Seen(link, holds=False, at_s=None, detail=detail))
        raise _Stopped

    def _wait(self, what: str, patience_s: float) -> _Fact | None:
        """The first fact of that kind, from now or before; None when it does not come."""
        deadline = self._means.clock.mono() + patience_s
        while (found := self._find(what)) is None:
            left = deadline - self._means.clock.mono()
            if left <= 0:
                return None
            self._check_lent()
            with contextlib.suppress(queue.Empty):
                self._seen.append(self._facts.get(timeout=min(left, 1.0)))
        return found

    def _find(self, what: str) -> _Fact | None:
        while not self._facts.empty():
            self._seen.append(self._facts.get())
        return next((fact for fact in self._seen if fact.what == what), None)

    def _until(self, look: Callable[[], T], patience_s: float) -> T | None:
        """What *look* finds once it finds something; None when it never does."""
        deadline = self._means.clock.mono() + patience_s
        while not (found := look()):
            if self._means.clock.mono() >= deadline:
                return None
            self._pause.wait(LOOK_S)
        return found

    def _check_lent(self) -> None:
        if self._name not in self._means.daemon.lent:
            self._broken(Link.FAULT, "a reload took the stand-in away; drill again")

    # ------------------------------------------------ the page

    def _series(self) -> str:
        """The series that must rise: the one that alerts on a bad end look at."""
        if self._plan.fault is Fault.SILENCE:
            return f'mainstay_job_success_max_age_seconds{{job_name="{self._name}"}}'
        return f'mainstay_job_runs_total{{job_name="{self._name}",outcome="{self._plan.outcome.value}"}}'

    def _value(self) -> float | None:
        """Its value on a page that is written now; None when it is not there."""
        start = self._series() + " "
        line = next((line for line in self._means.page().decode().splitlines() if line.startswith(start)), None)
        return None if line is None else float(line.removeprefix(start))

    def _ask_prometheus(self, prometheus: Rules, query: str, link: Link, otherwise: str) -> dict[str, Any]:
        """The first sample that *query* finds, once it finds one."""
        try:
            found = self._until(lambda: prometheus.first(query), RULE_S)
        except RulesError as err:
            self._broken(link, str(err))
        if found is None:
            self._broken(link, f"{otherwise} within {about_duration(RULE_S)} ({prometheus.address})")
        return found


def _tries(delivery: Delivery) -> str:
    return (
        "accepted" if delivery.tries <= 1 else f"accepted after {delivery.tries} tries; before that: {delivery.last_error or 'no answer'}"
    )
