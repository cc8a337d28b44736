"""The founding bug, on purpose: how deep does each user stand below whoever first wrote to them?

    depth(user) = 1 + depth(first_writer[user])

looks right and passed every test on invented data. In the messages of real communities people write to each other in circles, there is no visited set, and for
1,854 of the 1,899 users of uci-messages the answer never comes. ``user_metrics`` computes the same thing and ends. The modes are the ways in which it dies:

    stack    as it was first written: Python's recursion limit ends it
    memory   "it needs more depth": the limit is raised, the stack eats the memory
    swallow  "make it robust": the exception is caught and the user tried again, for ever
    fork     "isolate it": the job starts itself for the parent user and waits
    spin     "do it in the database": WITH RECURSIVE without end, no memory, one core

Standard library only. In case nobody supervises it, each mode ends at a safety limit of its own with exit code 3 and says so.
"""

import argparse
import csv
import gzip
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final, NoReturn

EXIT_USAGE: Final = 2
EXIT_SAFETY: Final = 3
GENERATION: Final = "RUNAWAY_GENERATION"  # how many processes stand above this one

first_writer: dict[str, str] = {}


def depth(user: str) -> int:
    """How many people stand above *user* in the chain of who first wrote to whom. Never ends for users on or below a circle."""
    if user not in first_writer:
        return 0
    return 1 + depth(first_writer[user])


def depth_or_try_again(user: str) -> int:
    """``depth``, made robust: whatever goes wrong is certainly temporary."""
    tries = 0
    while True:
        try:
            return depth(user)
        except Exception as err:  # noqa: BLE001 - the bug to be shown
            tries += 1
            if tries in (1, 1000):
                print(f"runaway: user {user}: {type(err).__name__} at try {tries}, trying again", flush=True)


def depth_by_process(user: str, arguments: argparse.Namespace) -> int:
    """``depth``, isolated: this job starts itself for the parent user and waits for the answer."""
    if user not in first_writer:
        return 0
    generation = int(os.environ.get(GENERATION, "0"))
    if generation + 1 >= arguments.safety_processes:
        ended_by_safety(f"{arguments.safety_processes} processes deep")
    command = [sys.executable, os.path.abspath(__file__), "--mode", "fork", "--source", arguments.source, "--user", first_writer[user]]
    for name in ("safety_memory", "safety_seconds", "safety_processes"):
        command += [f"--{name.replace('_', '-')}", f"{getattr(arguments, name):g}"]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, GENERATION: str(generation + 1)})
    if child.returncode != 0:
        sys.exit(child.returncode if child.returncode > 0 else 128 - child.returncode)
    return 1 + int(child.stdout.split()[-1])


def depth_by_query(user: str) -> int:
    """``depth``, in the database: a recursive query with UNION ALL, which has no visited set either."""
    connection = sqlite3.connect(":memory:")
    connection.set_progress_handler(lambda: 0, 100_000)  # lets the safety limit's signal through
    connection.execute("CREATE TABLE first_writer (user TEXT PRIMARY KEY, parent TEXT NOT NULL) WITHOUT ROWID")
    connection.executemany("INSERT INTO first_writer VALUES (?, ?)", first_writer.items())
    walk = """
        WITH RECURSIVE up (user, depth) AS (
            SELECT ?, 0
            UNION ALL
            SELECT first_writer.parent, up.depth + 1 FROM up JOIN first_writer ON first_writer.user = up.user
        )
        SELECT max(depth) FROM up"""
    return int(connection.execute(walk, (user,)).fetchone()[0])


def main() -> None:
    """Read the source, then ask for the depth of every user (or of one) in the chosen way."""
    arguments = parse()
    guard_itself(arguments)
    try:
        users, events = read(arguments.source)
    except (OSError, EOFError, KeyError, ValueError, sqlite3.Error) as err:
        print(
            f"runaway: {arguments.source}: {err}; --source takes a directory of CSV files or a SQLite file with users and events",
            file=sys.stderr,
        )
        sys.exit(1)
    for actor, target in events:
        if actor != target:
            first_writer.setdefault(target, actor)
    asked = users if arguments.user is None else [arguments.user]
    if GENERATION not in os.environ:
        print(
            f"runaway: {len(users)} users, {len(first_writer)} of them were first written to by somebody; now asking how deep "
            f"{'each of them' if arguments.user is None else f'user {arguments.user}'} stands, mode {arguments.mode}",
            flush=True,
        )
    if arguments.mode == "memory":
        sys.setrecursionlimit(10**9)
    for user in asked:
        match arguments.mode:
            case "swallow":
                answer = depth_or_try_again(user)
            case "fork":
                answer = depth_by_process(user, arguments)
            case "spin":
                answer = depth_by_query(user)
            case _:
                answer = depth(user)
        print(f"user {user}: depth {answer}", flush=True)


# ---------------------------------------------------------------- the data: ids in the order of time


def read(source: str) -> tuple[list[str], list[tuple[str, str]]]:
    """(users, (actor, target) of each event that has both, oldest first)."""
    if os.path.isdir(source):
        users, events = read_directory(source)
    else:
        users, events = read_database(source)
    events.sort(key=lambda event: event[0])
    return users, [(actor, target) for at, actor, target in events if at and actor and target]


Events = list[tuple[str, str, str]]


def read_directory(path: str) -> tuple[list[str], Events]:
    """Users and events of users + messages, users + events, or users + posts + comments."""
    present = os.listdir(path)
    users = [row.get("user_id") or row["id"] for row in rows(path, "users")]
    if any(name.startswith("messages.csv") for name in present):
        return users, [(row["sent_at"], row["sender_id"], row["recipient_id"]) for row in rows(path, "messages")]
    if any(name.startswith("events.csv") for name in present):
        return users, [(row["ts"], row["actor"], row["target"]) for row in rows(path, "events")]
    owner = {row["post_id"]: row["owner_user_id"] for row in rows(path, "posts")}
    answers = [
        (row["created_at"], row["owner_user_id"], owner.get(row["parent_id"], ""))
        for row in rows(path, "posts")
        if row["post_type_id"] == "2"
    ]
    return users, answers + [(row["created_at"], row["user_id"], owner.get(row["post_id"], "")) for row in rows(path, "comments")]


def rows(path: str, table: str) -> Iterator[dict[str, str]]:
    """The rows of one CSV file, plain or gzip."""
    plain = os.path.join(path, f"{table}.csv")
    if os.path.exists(plain):
        with open(plain, encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    else:
        with gzip.open(f"{plain}.gz", "rt", encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def read_database(path: str) -> tuple[list[str], Events]:
    """Users and events of a SQLite file."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    users = [str(user) for (user,) in connection.execute("SELECT id FROM users ORDER BY id")]
    events = connection.execute(
        "SELECT ts, actor, target FROM events WHERE ts GLOB '[12][0-9][0-9][0-9]-*' AND actor IS NOT NULL AND target IS NOT NULL ORDER BY rowid"
    )
    return users, [(str(at), str(actor), str(target)) for at, actor, target in events]


# ---------------------------------------------------------------- the net under it


def guard_itself(arguments: argparse.Namespace) -> None:
    """Look ten times a second whether a safety limit is reached. The kernel's limits, set wider, hold if that look should ever fail."""
    deadline = time.monotonic() + arguments.safety_seconds

    def look(_signal: int, _frame: FrameType | None) -> None:
        if peak_bytes() > arguments.safety_memory * 2**20:
            ended_by_safety(f"{arguments.safety_memory:g} MiB of memory")
        if time.monotonic() > deadline:
            ended_by_safety(f"{arguments.safety_seconds:g} s")

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    lower(resource.RLIMIT_AS, int(arguments.safety_memory * 2 * 2**20))
    lower(resource.RLIMIT_CPU, int(arguments.safety_seconds) + 10)


def peak_bytes() -> int:
    """The most memory we had. Not getrusage(2): its peak is handed on by fork and exec, so it may be that of whoever started us."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)


def lower(limit: int, value: int) -> None:
    """Set a limit of the kernel, unless it is lower already."""
    soft, hard = resource.getrlimit(limit)
    wanted = value if soft == resource.RLIM_INFINITY else min(soft, value)
    resource.setrlimit(limit, (wanted, hard))


def ended_by_safety(what: str) -> NoReturn:
    """Say which limit was reached and end at once: no unwinding, which after a million levels takes minutes."""
    os.write(2, f"runaway: ended by its own safety limit: {what}. Nobody else had stopped it.\n".encode())
    os._exit(EXIT_SAFETY)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="runaway",
        description="The founding bug: a walk up a chain of people without a visited set.",
        epilog="example: python jobs/runaway.py --mode memory --source community.db",
    )
    parser.add_argument(
        "--mode", choices=("stack", "memory", "swallow", "fork", "spin"), default="stack", help="how it dies (default: stack)"
    )
    parser.add_argument("--source", required=True, metavar="PATH", help="a directory of CSV files, or a SQLite file with users and events")
    parser.add_argument("--user", metavar="ID", help="ask only for this user (default: all of them in turn)")
    parser.add_argument("--safety-memory", type=float, default=1024.0, metavar="MIB", help="ends itself above it (default: 1024)")
    parser.add_argument("--safety-seconds", type=float, default=300.0, metavar="S", help="ends itself after it (default: 300)")
    parser.add_argument(
        "--safety-processes", type=int, default=64, metavar="N", help="ends itself at this depth of processes (default: 64)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    finally:  # or the timer would kill the interpreter while it shuts down, and hide how it really ended
        signal.setitimer(signal.ITIMER_REAL, 0)
