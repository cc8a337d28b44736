"""Makes an invented community of any size in a SQLite file, with the true figures written beside the data.

    users(id, created_at, invited_by)   events(id, ts, type, actor, target)   truth(name, value)

It has what real communities have: growth, weekdays and hours, people who leave or never act, a few who act a thousand times, replies, circles of who wrote first
to whom. And what databases have: rows without an id, a time or an addressee, ids used twice, rows written twice. The table ``truth`` says how much of each there
is, counted here by plain loops and not by the code it is meant to test. The same seed gives the same file contents. Standard library only.
"""

import argparse
import math
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

DAYS: Final = 365
START: Final = 1_704_067_200  # 2024-01-01: fixed, or the same seed would give another file tomorrow
DAY_S: Final = 86_400
WEEKDAY: Final = (1.0, 1.05, 1.05, 1.0, 0.95, 0.6, 0.55)  # activity from Monday to Sunday
HOUR: Final = (2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 10, 11, 10, 10, 10, 10, 11, 12, 13, 13, 11, 8, 4)
CYCLES: Final = (1, 2, 2, 3, 5, 1000)  # sizes of the circles planted among the invitations, at most a sixth of all users each
CHAIN: Final = 2000  # users in the longest planted chain, at most a quarter of all
DIRTY_SHARE: Final = 0.002  # of the events, per kind of dirt

User = tuple[int, str, int | None]
Event = tuple[int | None, str | None, str, int | None, int | None]


@dataclass(slots=True)
class Community:
    """All rows, in the order in which they are written, and what is true of them."""

    users: list[User]
    events: list[Event]
    truth: dict[str, int]


def make(events: int, seed: int, *, dirty: bool = True) -> Community:
    """A community with *events* good events. ``ValueError`` if there are fewer than 1000."""
    if events < 1000:
        raise ValueError(f"{events} events are no community; ask for at least 1000")
    dice = random.Random(seed)  # noqa: S311 - nothing secret, and it has to be repeatable
    count = events // 20
    joined = _signups(dice, count)
    parents = _invitations(dice, count)
    users = [(number + 1, _iso(at), parents[number]) for number, at in enumerate(joined)]
    good = _events(dice, events, joined)
    truth = _truth(users, good)
    rows: list[Event] = list(good)
    if dirty:
        rows = _with_dirt(dice, good, truth)
    truth["rows_events"] = len(rows)
    return Community(users, rows, truth)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _signups(dice: random.Random, count: int) -> list[float]:
    """Joining times in order: the community grows, and grows more slowly on weekends."""
    times: list[float] = []
    while len(times) < count:
        day = int(DAYS * math.sqrt(dice.random()))
        if dice.random() < WEEKDAY[day % 7]:
            times.append(START + day * DAY_S + _second_of_day(dice))
    return sorted(times)


def _second_of_day(dice: random.Random) -> int:
    return dice.choices(range(24), HOUR)[0] * 3600 + dice.randrange(3600)


def _invitations(dice: random.Random, count: int) -> list[int | None]:
    """Who invited whom: a forest of earlier users, then planted circles and one long chain among the last users."""
    parents: list[int | None] = [None if number == 0 or dice.random() < 0.4 else dice.randrange(number) + 1 for number in range(count)]
    free = count - count // 20  # the youngest may have been invited by anybody, so that some stand below a circle
    chain = min(CHAIN, count // 4)
    for size in (*(min(size, count // 6) for size in CYCLES), chain):
        first = free - size
        for number in range(first, free):
            parents[number] = number  # user number is the one before, as ids start from 1
        parents[first] = None if size == chain else free
        free = first
    return parents


def _events(dice: random.Random, count: int, joined: Sequence[float]) -> list[tuple[int, str, str, int, int | None]]:
    """*count* good events in the order of time."""
    people = len(joined)
    acting = [number for number in range(people) if dice.random() < 0.75] or [0]
    end = START + DAYS * DAY_S
    leaves = [dice.lognormvariate(math.log(60), 1.2) * DAY_S for _ in range(people)]
    weights = [dice.lognormvariate(0, 1.75) * min(leaves[number], end - joined[number]) for number in acting]
    drafts: list[tuple[float, int]] = []
    while len(drafts) < count:
        for actor in dice.choices(acting, weights, k=count - len(drafts)):
            span = min(leaves[actor], end - joined[actor])
            at = joined[actor] + dice.random() * max(span, 3600.0)
            day = int((at - START) // DAY_S)
            at = max(joined[actor] + 1, START + day * DAY_S + _second_of_day(dice))
            if at < end and dice.random() < WEEKDAY[day % 7]:
                drafts.append((at, actor))
    drafts.sort()
    rows: list[tuple[int, str, str, int, int | None]] = []
    recent: list[tuple[int, int]] = []  # (actor, target) of the latest events between two people
    for number, (at, actor) in enumerate(drafts, 1):
        kind, target = _what(dice, actor, recent, joined, at)
        if target is not None and target != actor:
            recent.append((actor, target))
            del recent[:-50]
        rows.append((number, _iso(at), kind, actor + 1, None if target is None else target + 1))
    return rows


def _what(dice: random.Random, actor: int, recent: Sequence[tuple[int, int]], joined: Sequence[float], at: float) -> tuple[str, int | None]:
    """Type and target of an event: a visit, an answer to somebody who wrote lately, a note to oneself, or a message."""
    roll = dice.random()
    if roll < 0.10:
        return "visit", None
    if roll < 0.55 and recent:
        return "reply", dice.choice(recent)[0]
    if roll < 0.58:
        return "message", actor
    known = len(joined)
    if dice.random() < 0.6:  # somebody who joined at about the same time
        near = actor + round(2 * math.tan(math.pi * (dice.random() - 0.5)))
        target = near % known
    else:  # an older user: the older, the better known
        target = int(known * dice.random() ** 3)
    return "message", target if joined[target] <= at else actor


# ---------------------------------------------------------------- dirt


def _with_dirt(dice: random.Random, good: Sequence[tuple[int, str, str, int, int | None]], truth: dict[str, int]) -> list[Event]:
    """*good* with bad rows strewn in; each kind's number goes into *truth* under the reason it has to be rejected for."""
    each = max(1, int(len(good) * DIRTY_SHARE))
    spoiled: list[tuple[int, Event]] = []  # (index of the good row after which it stands, row)
    fresh = len(good)

    def place() -> int:
        return dice.randrange(len(good))

    for kind in (
        "id_missing",
        "timestamp_missing",
        "timestamp_unparsable",
        "timestamp_out_of_range",
        "actor_missing",
        "target_missing",
        "id_duplicate",
    ):
        truth[f"rejected:{kind}"] = each
        for _ in range(each):
            index = place()
            number, ts, _type, actor, _target = good[index]
            fresh += 1
            bad: dict[str, Event] = {
                "id_missing": (None, ts, "visit", actor, None),
                "timestamp_missing": (fresh, None, "visit", actor, None),
                "timestamp_unparsable": (
                    fresh,
                    dice.choice(("yesterday", "2024-02-30T10:00:00Z", "0000-00-00 00:00:00", ts.replace("T", "T9"))),
                    "visit",
                    actor,
                    None,
                ),
                "timestamp_out_of_range": (fresh, dice.choice(("1970-01-01T00:00:00Z", "2999-12-31T23:59:59Z")), "visit", actor, None),
                "actor_missing": (fresh, ts, "visit", None, None),
                "target_missing": (fresh, ts, "reply", actor, None),
                "id_duplicate": (number, ts, "other_content", actor, None),
            }
            spoiled.append((index, bad[kind]))
    truth["repeated"] = each
    for _ in range(each):
        index = place()
        spoiled.append((index, good[index]))
    spoiled.sort(key=lambda pair: pair[0])
    rows: list[Event] = []
    at = 0
    for index, row in enumerate(good):
        rows.append(row)
        while at < len(spoiled) and spoiled[at][0] == index:
            rows.append(spoiled[at][1])
            at += 1
    return rows


# ---------------------------------------------------------------- truth, by plain loops


def _truth(users: Sequence[User], events: Sequence[tuple[int, str, str, int, int | None]]) -> dict[str, int]:
    truth = {"users": len(users), "events": len(events)}
    truth.update({f"events:{kind}": count for kind, count in Counter(event[2] for event in events).items()})
    truth["acting_users"] = len({event[3] for event in events})
    truth["self_events"] = sum(event[3] == event[4] for event in events)
    truth["edges"] = len({(actor, target) for *_, actor, target in events if target is not None and target != actor})
    first: dict[int, int] = {}
    for *_, actor, target in sorted(events, key=lambda event: event[1]):
        if target is not None and target != actor:
            first.setdefault(target, actor)
    truth.update({f"first_contact:{name}": value for name, value in _walks(first).items()})
    invited = {user: parent for user, _, parent in users if parent is not None}
    truth.update({f"invited_by:{name}": value for name, value in _walks(invited).items()})
    return truth


def _walks(parent: dict[int, int]) -> dict[str, int]:
    """Circles, users on them and below them, and the greatest distance to an end or a circle: each user's walk, with a visited set."""
    on_circle: set[int] = set()
    circles = 0
    level: dict[int, int] = {}
    unresolved: set[int] = set()
    for user in parent:
        path: list[int] = []
        seen: dict[int, int] = {}
        here = user
        while here not in seen and here in parent and here not in level:
            seen[here] = len(path)
            path.append(here)
            here = parent[here]
        if here in seen:
            circle = path[seen[here] :]
            circles += 1
            on_circle.update(circle)
            level.update(dict.fromkeys(circle, 0))
            unresolved.update(circle)
            path = path[: seen[here]]
        elif here not in level:
            level[here] = 0
        for step in reversed(path):
            level[step] = level[parent[step]] + 1
            if parent[step] in unresolved:
                unresolved.add(step)
    return {
        "parents": len(parent),
        "cycles": circles,
        "cycle_users": len(on_circle),
        "below_cycle_users": len(unresolved) - len(on_circle),
        "level_max": max(level.values(), default=0),
    }


# ---------------------------------------------------------------- the file


def write(path: str, community: Community) -> None:
    """Write everything into a new SQLite file at *path*, in one step: a killed generator leaves no half file. ``OSError``, ``sqlite3.Error``."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        connection = sqlite3.connect(temporary, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, created_at TEXT NOT NULL, invited_by INTEGER)")
        connection.execute(
            "CREATE TABLE events (id INTEGER, ts TEXT, type TEXT, actor INTEGER, target INTEGER)"
        )  # no key: real logs have none either
        connection.execute("CREATE TABLE truth (name TEXT PRIMARY KEY, value INTEGER NOT NULL)")
        connection.executemany("INSERT INTO users VALUES (?, ?, ?)", community.users)
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", community.events)
        connection.executemany("INSERT INTO truth VALUES (?, ?)", sorted(community.truth.items()))
        connection.execute("COMMIT")
        connection.close()
        os.rename(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="community",
        description="Makes an invented community in a SQLite file.",
        epilog="example: python jobs/community.py --output community.db",
    )
    parser.add_argument("--output", required=True, metavar="FILE.db", help="replaced whole if it is there")
    parser.add_argument("--events", type=int, default=60_000, metavar="N", help="good events (default: 60000); there are N / 20 users")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the same seed gives the same community (default: 1)")
    parser.add_argument("--clean", action="store_true", help="without bad rows")
    args: Any = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        community = make(args.events, args.seed, dirty=not args.clean)
        write(args.output, community)
    except ValueError as err:
        print(f"community: --events: {err}", file=sys.stderr)
        return 2
    except (OSError, sqlite3.Error) as err:
        print(f"community: {args.output}: {err}; --output needs a file in a directory that this user can write to", file=sys.stderr)
        return 1
    rejected = sum(count for name, count in community.truth.items() if name.startswith("rejected:"))
    circles = community.truth["first_contact:cycles"]
    print(
        f"{args.output}: {len(community.users)} users, {len(community.events)} rows of events of which {rejected} are bad, {circles} circles of first contact"
    )
    print(f"the truth is in its table truth; {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
