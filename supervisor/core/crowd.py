"""How many alerts a receiver hears one by one, and how the rest is told: many problems at once become one summary.

A receiver hears of at most ``BURST`` openings within ``BURST_S`` and ``TIRING`` within ``TIRING_S``. What opens beyond that is *gathered*: it is
counted and marked (``Incident.gathered``), and ``FIRST_S`` later one summary says how many there are and names some. The summary is an incident of its
own, of the job ``EVERYONE``: it is told again when there are more (each time after a longer wait), and it ends when the last of them has. What was
gathered is neither reminded of nor ended one by one. What opened and closed again before its summary was due is only counted.

Pure: ``admit`` is asked for every notification that ``core.incidents`` makes, ``summarize`` when a summary is due. Only the few times and numbers of
``Crowd`` are kept beside the incidents, so that the next brain neither repeats nor forgets.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final, Self

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from supervisor.core.incidents import Facts, body
from supervisor.core.model import Incident, Outcome, Wall
from supervisor.core.prose import counted, stamp
from supervisor.core.records import Notification, NotificationKind

EVERYONE: Final = "*"  # no job can be called so
MEMO: Final = "*crowd"  # nor so: the row of the memos that ``Crowd`` is kept in
BURST, BURST_S = 10, 600.0
TIRING, TIRING_S = 30, 3600.0
FIRST_S: Final = 30.0  # long enough for what fails together to be told together
WAITS_S: Final = (FIRST_S, 300.0, 900.0, 3600.0)  # before the first summary, the second, and so on
NAMES_SHOWN: Final = 20
_BEGINNINGS: Final = ("opened", "escalated")
_LOUDEST: Final = ("critical", "warning", "info")


class Gathering(Struct, frozen=True):
    """One receiver: when it was told of openings one by one, when it is told more in a summary (there are more, or a reminder is due), when is looked
    whether its summary is over, and how many times it was told."""

    told: tuple[Wall, ...] = ()
    tell_at: Wall | None = None
    look_at: Wall | None = None
    summaries: int = 0

    @property
    def due(self) -> Wall | None:
        """When ``summarize`` has something to do."""
        return min((at for at in (self.tell_at, self.look_at) if at is not None), default=None)


class Crowd(Struct, frozen=True):
    """All receivers that were told of anything lately."""

    receivers: Mapping[str, Gathering] = field(default_factory=dict)

    def encode(self) -> str:
        """As JSON text."""
        return msgspec.json.encode(self.receivers).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """From JSON text. ``ValueError`` if it is not one of ours."""
        return cls(msgspec.json.decode(text, type=dict[str, Gathering]))

    def due_at(self) -> Wall | None:
        """When the next summary is due."""
        return min((one.due for one in self.receivers.values() if one.due is not None), default=None)

    def _of(self, receiver: str) -> Gathering:
        return self.receivers.get(receiver, Gathering())

    def _with(self, receiver: str, gathering: Gathering) -> "Crowd":
        return Crowd({**self.receivers, receiver: gathering})


class Admitted(Struct, frozen=True):
    """What ``admit`` let through; ``incidents`` as they are to be written, ``gathered`` the receivers that hear of an opening in a summary only."""

    crowd: Crowd
    incidents: tuple[Incident, ...]
    notifications: tuple[Notification, ...]
    gathered: tuple[str, ...] = ()


def admit(crowd: Crowd, incidents: Sequence[Incident], notifications: Sequence[Notification], now: Wall) -> Admitted:
    """Which *notifications* about *incidents* go out one by one."""
    known = {incident.id: incident for incident in incidents}
    passed: list[Notification] = []
    gathered: list[str] = []
    for one in notifications:
        incident = known.get(one.incident)
        gathering = crowd._of(one.receiver)  # noqa: SLF001 - of this module
        if one.kind.value in _BEGINNINGS and incident is not None:
            recent = tuple(at for at in gathering.told if abs((now - at).total_seconds()) <= TIRING_S)
            if _has_room(recent, now):
                gathering = replace(gathering, told=(*recent, now))
                passed.append(one)
            else:
                gathering = _to_tell(replace(gathering, told=recent), now)
                known[incident.id] = replace(incident, gathered=(*incident.gathered, one.receiver))
                gathered.append(one.receiver)
        elif incident is not None and one.receiver in incident.gathered:
            if one.kind is NotificationKind.REMINDER:
                gathering = _to_tell(gathering, now)
            gathering = replace(gathering, look_at=_sooner(gathering.look_at, now + timedelta(seconds=FIRST_S)))
        else:
            passed.append(one)
        if gathering != crowd._of(one.receiver):  # noqa: SLF001
            crowd = crowd._with(one.receiver, gathering)  # noqa: SLF001
    return Admitted(crowd, tuple(known.values()), tuple(passed), tuple(gathered))


def _has_room(told: Sequence[Wall], now: Wall) -> bool:
    lately = sum(abs((now - at).total_seconds()) <= BURST_S for at in told)
    return lately < BURST and len(told) < TIRING


def _to_tell(gathering: Gathering, now: Wall) -> Gathering:
    """There is something to tell, after a wait that grows; one that waits already keeps its time, unless the clock was set back."""
    wait = timedelta(seconds=WAITS_S[min(gathering.summaries, len(WAITS_S) - 1)])
    return replace(gathering, tell_at=_sooner(gathering.tell_at, now + wait))


def _sooner(at: Wall | None, other: Wall) -> Wall:
    return other if at is None else min(at, other)


class Summarized(Struct, frozen=True):
    """What ``summarize`` decided: summaries that changed (open or closed), and what goes out."""

    crowd: Crowd
    summaries: tuple[Incident, ...] = ()
    notifications: tuple[Notification, ...] = ()
    next_id: int = 0


def summarize(crowd: Crowd, open_: Iterable[Incident], standing: Mapping[str, Incident], now: Wall, next_id: int) -> Summarized:
    """The summaries that are due. *open_* are the open incidents of all jobs, *standing* the open summaries by receiver."""
    due = [name for name, gathering in crowd.receivers.items() if gathering.due is not None and gathering.due <= now]
    members: dict[str, list[Incident]] = {name: [] for name in due}
    for incident in open_:
        for name in incident.gathered:
            if name in members:
                members[name].append(incident)
    changed: list[Incident] = []
    notifications: list[Notification] = []
    for name in due:
        gathering, summary = crowd.receivers[name], standing.get(name)
        is_time = gathering.tell_at is not None and gathering.tell_at <= now
        turned, kind = _turned(name, members[name], summary, now, next_id, is_time=is_time)
        next_id += turned is not None and summary is None
        if turned is not None:
            changed.append(turned)
        if turned is not None and kind is not None:
            said = _as_now(turned, members[name]) if kind is NotificationKind.REMINDER else turned
            notifications.append(_notification(name, said, kind, members[name], now))
        if not members[name]:
            gathering = Gathering(gathering.told)
        elif is_time:
            gathering = replace(gathering, tell_at=None, summaries=gathering.summaries + 1)
        crowd = crowd._with(name, replace(gathering, look_at=None))  # noqa: SLF001 - of this module
    return Summarized(crowd, tuple(changed), tuple(notifications), next_id)


def _turned(
    name: str, members: Sequence[Incident], summary: Incident | None, now: Wall, next_id: int, *, is_time: bool
) -> tuple[Incident | None, NotificationKind | None]:
    """The summary as it is now, and what is said of that."""
    if summary is None:
        return (_summary(name, members, now, next_id), NotificationKind.OPENED) if members and is_time else (None, None)
    if not members:
        over = replace(summary, closed_at=max(now, summary.opened_at), closed_because="all of them are over")
        return over, NotificationKind.CLOSED
    now_open = _as_now(summary, members)
    largest = now_open if now_open.occurrences >= summary.occurrences else summary  # what its end tells of: not the few that were left last
    turned = replace(largest, severity=now_open.severity, last_at=now)
    return turned, NotificationKind.REMINDER if is_time and not summary.acknowledged else None


def _as_now(summary: Incident, members: Sequence[Incident]) -> Incident:
    """The summary of those that are open at present."""
    fresh = _summary(receiver_of(summary), members, summary.opened_at, summary.id)
    return replace(summary, outcome=fresh.outcome, severity=fresh.severity, summary=fresh.summary, occurrences=fresh.occurrences)


def receiver_of(summary: Incident) -> str:
    """To whom a summary speaks."""
    return summary.fingerprint.partition(":")[2]


def _summary(receiver: str, members: Sequence[Incident], opened_at: Wall, id_: int) -> Incident:
    jobs = list(dict.fromkeys(one.job for one in members))
    names = ", ".join(jobs[:NAMES_SHOWN]) + (f" and {len(jobs) - NAMES_SHOWN} more" if len(jobs) > NAMES_SHOWN else "")
    commonest = Counter(one.outcome for one in members).most_common(1)[0][0]
    return Incident(
        id=id_,
        job=EVERYONE,
        fingerprint=f"summary:{receiver}",
        outcome=Outcome(commonest),
        summary=f"{counted(len(members), 'more incident')} of {counted(len(jobs), 'job')} opened at about the same time: {names}",
        severity=min((one.severity for one in members), key=_LOUDEST.index, default="critical"),
        opened_at=opened_at,
        last_at=opened_at,
        run=0,
        last_run=0,
        occurrences=len(members),
        alerted=True,
    )


def _notification(receiver: str, summary: Incident, kind: NotificationKind, members: Sequence[Incident], now: Wall) -> Notification:
    by_outcome = Counter(one.outcome.value for one in members)
    lines = [f"{outcome}: {count}" for outcome, count in by_outcome.most_common()]
    facts = Facts(lines, (), ("tell when all of them are over; `mainstay incidents` lists them",) if members else ())
    nth = f"/{stamp(now)}" if kind is NotificationKind.REMINDER else ""
    text = body(summary, kind, facts, now)
    return Notification(f"{summary.id}/{kind.value}{nth}/{receiver}", receiver, kind, summary.id, now, text)
