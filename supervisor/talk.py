"""The commands that ask a running daemon, and what they print."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from supervisor import client, tables
from supervisor.client import Client, RefusedError, job_route
from supervisor.errors import ConfigError

WAIT_S: Final = 0.1
GONE: Final = 404
ENDED: Final = ("run", "outcome", "summary", "ended_at", "duration_seconds", "memory_peak_bytes")  # as a job's `last`
OVERDUE_S: Final = 10.0  # beyond a job's grace, for the kill and its record
_STATE_DIR: Final = re.compile(r"""\bstate_dir:\s*["']?([^"'\s,}#]+)""")
Json = dict[str, Any]


def _client(explicit: str | None) -> Client:
    """The daemon of that config. A config that has become unreadable, or is gone, must not keep anybody from asking the daemon that runs."""
    from supervisor.config.load import PLACES, find_config, load

    try:
        path = find_config(explicit)
    except ConfigError as err:
        earlier = [place for place in PLACES if client.is_run(place)]
        if not earlier:
            raise
        return _earlier(earlier[0], err)
    try:
        state_dir = load(path).settings.state_dir
    except ConfigError as err:
        return _earlier(path, err)
    return client.find(path, state_dir)


def _earlier(path: str, err: ConfigError) -> Client:
    sys.stderr.write(f"mainstay: {path} has problems ({err.problems[0]}); asking the daemon that runs with an earlier one\n")
    return client.find(path, _guessed_state_dir(path))


def _guessed_state_dir(path: str) -> str | None:
    """What a config that cannot be understood seems to say of its state directory; the daemon there is asked which config it serves."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = _STATE_DIR.search(file.read(1 << 20))
    except OSError:
        return None
    return None if found is None else os.path.join(os.path.dirname(os.path.abspath(path)), found[1])


def daemon_of(config: str | None) -> Client:
    """The daemon that runs *config*. ``NoDaemonError``."""
    return _client(config)


def print_json(value: object) -> int:
    """As JSON, with exit code 0."""
    return _print(value)


def _print(value: object) -> int:
    """As JSON; in ASCII on a terminal, lest what a job wrote drives it, and in an encoding that lacks characters."""
    ascii_only = sys.stdout.isatty() or sys.stdout.encoding.lower() != "utf-8"
    sys.stdout.write(json.dumps(value, ensure_ascii=ascii_only, indent=2) + "\n")
    return 0


def wish(config: str | None, verb: str, job: str, body: Mapping[str, object], *, wait: bool, as_json: bool) -> int:
    """start, stop, restart, trigger, pause, resume."""
    daemon = _client(config)
    before = daemon.get(job_route(job))
    answer = daemon.post(job_route(job, verb), body)
    runs = [run["run"] for run in before["runs"]]
    patience_s = before["stop_grace_seconds"] + OVERDUE_S
    if not as_json:
        sys.stdout.write(answer["text"] + "\n")
        sys.stdout.flush()
    ended, left = _wait_for_end(daemon, job, runs, patience_s) if wait and runs else (None, [])
    if as_json:
        _print({**answer, "ended": ended})
    elif ended is not None:
        sys.stdout.write(tables.printable(f"run {ended['run']} ended: {ended['outcome']}: {ended['summary']}") + "\n")
    for run in left:
        process = f"; its process {run['pid']} does not go away" if run["pid"] is not None else ""
        sys.stderr.write(f"mainstay: run {run['run']} has not ended within {patience_s:g} s: it is {run['phase']}{process}\n")
    return 1 if left else 0


def trigger(config: str | None, job: str, *, as_json: bool) -> int:
    """Run the job once and wait for the end of that run, all of its attempts: 0 when it succeeded, else 1."""
    daemon = _client(config)
    answer = daemon.post(job_route(job, "trigger"))
    if not as_json:
        sys.stdout.write(answer["text"] + "\n")
        sys.stdout.flush()
    ended = _end_of(daemon, job, answer["run"])
    if as_json:
        _print({**answer, "ended": ended})
    elif ended is None:
        sys.stderr.write(f"mainstay: how run {answer['run']} ended is not known: the history does not have it\n")
    else:
        sys.stdout.write(tables.printable(f"run {ended['run']} ended: {ended['outcome']}: {ended['summary']}") + "\n")
    return 0 if ended is not None and ended["outcome"] == "succeeded" else 1


def _end_of(daemon: Client, job: str, run: int) -> Json | None:
    """How *run* ended, once it did: its row, so that what asks next finds it; a history that cannot be written has none, then what the daemon remembers."""
    last, _ = _wait_for_end(daemon, job, [run], math.inf)
    deadline = time.monotonic() + OVERDUE_S  # noqa: TID251 - a command waits by its own clock
    while True:
        row = next((one for one in daemon.get("/runs", job=job)["runs"] if one["run"] == run), None)
        if row is not None and row["outcome"] is not None:
            return {name: row[name] for name in ENDED}
        if time.monotonic() >= deadline:  # noqa: TID251
            return last if last is not None and last["run"] == run else None
        time.sleep(WAIT_S)


def silence(config: str | None, job: str, body: Mapping[str, object], *, as_json: bool) -> int:
    """Begin a silence, or end all of the job's (an empty *body*)."""
    answer = _client(config).post(job_route(job, "silence" if body else "unsilence"), body)
    if as_json:
        return _print(answer)
    sys.stdout.write(tables.printable(answer["text"]) + "\n")
    return 0


def silences(config: str | None, *, as_json: bool) -> int:
    """What is quiet now, and why."""
    found = [one for one in _client(config).get("/status")["jobs"] if one["quiet"] or one["silences"]]
    if as_json:
        return _print({"jobs": [{key: one[key] for key in ("name", "quiet", "silences")} for one in found]})
    for one in found:
        text = f"{one['name']}: nobody is alerted until {one['quiet']['until']}: {one['quiet']['why']}"
        sys.stdout.write(tables.printable(text) + "\n")
    if not found:
        sys.stdout.write("no job is silenced\n")
    return 0


def _wait_for_end(daemon: Client, job: str, runs: list[int], patience_s: float) -> tuple[Json | None, list[Json]]:
    """(how the job's last run ended, those of *runs* that have not ended within the patience)."""
    deadline = time.monotonic() + patience_s  # noqa: TID251 - a command waits by its own clock
    while True:
        try:
            state = daemon.get(job_route(job))
        except RefusedError as err:
            if err.status != GONE:
                raise
            return _last_of_gone(daemon, job), []  # a reload took it out of the config, and it is out once it has ended
        left = [run for run in state["runs"] if run["run"] in runs]
        if not left:
            last = state["last"]
            return (dict(last) if last is not None else None), []
        if time.monotonic() >= deadline:  # noqa: TID251
            return None, left
        time.sleep(WAIT_S)


def _last_of_gone(daemon: Client, job: str) -> Json | None:
    sys.stderr.write(f"mainstay: {job} is no longer in the config\n")
    rows = daemon.get("/runs", job=job, limit=1)["runs"]
    return dict(rows[0]) if rows else None


def reload(config: str | None, *, plan: bool, as_json: bool) -> int:
    """Take the config anew, or show what that would do."""
    answer = _client(config).post("/reload" + ("?plan=1" if plan else ""))
    if as_json:
        return _print(answer)
    sys.stdout.write(answer["text"] + "\n")
    return 0


def drill(config: str | None, job: str, body: Mapping[str, object], *, as_json: bool) -> int:
    """Begin a drill and show each link as it holds; 1 when one is broken."""
    from supervisor.core.drill import head_lines, verdict_line

    daemon = _client(config)
    found = daemon.post(job_route(job, "drill"), body)
    if not as_json:
        sys.stdout.write(tables.printable(head_lines(found)))
    try:
        found = _follow_drill(daemon, found, as_json=as_json)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"mainstay: the drill goes on without you, and alerts as it would; `mainstay drill {job} --last` shows how it ended\n"
        )
        raise
    except RefusedError as err:
        if err.status != GONE:
            raise
        sys.stderr.write("mainstay: the drill was cut short: the supervising process was replaced meanwhile; begin it again\n")
        return 1
    if as_json:
        _print(found)
    else:
        sys.stdout.write(tables.printable(verdict_line(found)) + "\n")
    return 0 if found["passed"] else 1


def _follow_drill(daemon: Client, found: Json, *, as_json: bool) -> Json:
    """The drill once it is done; each link is shown as it comes, unless *as_json*."""
    from supervisor.core.drill import link_line

    told = 0
    while True:
        if not as_json:
            for link in found["links"][told:]:
                sys.stdout.write(tables.printable(link_line(link)) + "\n")
                told += 1
            sys.stdout.flush()
        if found["done"]:
            return found
        time.sleep(WAIT_S)
        found = daemon.get(f"/drills/{found['drill']}")


def last_drills(config: str | None, job: str, *, as_json: bool) -> int:
    """The last result of each fault that the job was drilled for; 1 when one of them is broken."""
    from supervisor.core.drill import screen

    found = _client(config).get(job_route(job, "drills"))["drills"]
    if as_json:
        _print(found)
    elif not found:
        sys.stdout.write(f"{job} was never drilled; try `mainstay drill {job} --fault memory`\n")
    for one in () if as_json else found:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one["at"]))
        sys.stdout.write(tables.printable(f"{at} UTC\n{screen(one)}\n"))
    return 0 if all(one["passed"] for one in found) else 1


def status(config: str | None, job: str | None, *, watch: bool, as_json: bool) -> int:
    """All jobs, or one."""
    daemon = _client(config)
    while True:
        found = daemon.get("/status")
        if job is not None:
            found["jobs"] = [one for one in found["jobs"] if one["name"] == job]
            if not found["jobs"]:
                sys.stderr.write(f"mainstay: there is no job {job!r}; `mainstay status` lists them\n")
                return 1
        if as_json:
            _print(found)
        else:
            clear = "\x1b[H\x1b[2J" if watch and sys.stdout.isatty() else ""
            sys.stdout.write(clear + tables.status(found))
        if not watch:
            return 0
        sys.stdout.flush()
        time.sleep(1.0)


def logs(config: str | None, job: str, run: int | None, lines: int, *, follow: bool, as_json: bool) -> int:
    """What the job wrote; with *follow* for as long as it goes on, over its next runs too."""
    daemon = _client(config)
    chunk = daemon.get(job_route(job, "logs"), run=run, n=lines)
    if as_json:
        return _print(chunk)
    if chunk["attempt"] is None:
        sys.stderr.write(f"mainstay: {job} has written nothing yet\n")
    sys.stdout.write(tables.printable(chunk["text"]))
    while follow:
        sys.stdout.flush()
        time.sleep(WAIT_S * 3)
        try:
            chunk = _follow(daemon, job, run, chunk)
        except RefusedError as err:
            if err.status != GONE:
                raise
            sys.stderr.write(f"mainstay: {job} is no longer in the config, or its output is no longer kept\n")
            return 1
    return 0


def _follow(daemon: Client, job: str, run: int | None, chunk: Json) -> Json:
    """Print what came since; the place to go on from. An attempt is read to its end before the next one's turn."""
    route = job_route(job, "logs")
    latest = daemon.get(route, run=run, n=0)
    if chunk["attempt"] is not None:
        chunk = _drain(daemon, route, chunk)
    if latest["attempt"] is None:
        daemon.get(job_route(job))  # refused once the job is gone
        return chunk
    if (latest["run"], latest["attempt"]) != (chunk["run"], chunk["attempt"]):
        sys.stdout.write(f"--- run {latest['run']}, attempt {latest['attempt']} ---\n")
        return _drain(daemon, route, {**latest, "offset": 0})
    if not latest["live"]:
        daemon.get(job_route(job))
    return chunk


def _drain(daemon: Client, route: str, chunk: Json) -> Json:
    while True:
        was = chunk["offset"]
        chunk = daemon.get(route, run=chunk["run"], attempt=chunk["attempt"], offset=was)
        if chunk["turned_over"]:
            sys.stdout.write("--- its file was turned over: some lines may be missing here ---\n")
        sys.stdout.write(tables.printable(chunk["text"]))
        if not chunk["text"] or chunk["offset"] < was:
            return chunk


def runs(config: str | None, job: str | None, limit: int, *, as_json: bool) -> int:
    """Runs, and the due slots that did not run."""
    daemon = _client(config)
    ran = daemon.get("/runs", job=job, limit=limit)["runs"]
    slots = daemon.get("/slots", job=job, limit=limit)["slots"]
    if as_json:
        return _print({"runs": ran, "slots": slots})
    sys.stdout.write(tables.ledger(ran, slots, limit))
    return 0


def why(config: str | None, what: str | None, *, as_json: bool) -> int:
    """One screen: what happened."""
    from supervisor.core.explain import screen

    daemon = _client(config)
    by_run = what is not None and what.isdecimal()
    report = daemon.get("/why", job=None if by_run else what, run=what if by_run else None)
    if as_json:
        return _print(report)
    sys.stdout.write(screen(report))
    now = "; ".join(report.get("now", ()))
    if now:
        sys.stdout.write(tables.printable(f"Now: {now}.") + "\n")
    return 0


def _me() -> str:
    """The login name of whoever asks, for the incident's record; it is what this process says, and proves nothing."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def incidents(config: str | None, limit: int, *, open_only: bool, as_json: bool) -> int:
    """The list of incidents."""
    found = _client(config).get("/incidents", open=1 if open_only else None, limit=limit)["incidents"]
    if as_json:
        return _print(found)
    sys.stdout.write(tables.incidents(found))
    return 0


def incident(config: str | None, number: int, verb: str | None, said: Mapping[str, str], *, as_json: bool) -> int:
    """One incident; acknowledge or resolve it. *said* has note and fix."""
    from supervisor.core.explain import screen

    daemon = _client(config)
    if verb is not None:
        answer = daemon.post(f"/incidents/{number}/{verb}", {"who": _me(), **said})
        if not as_json:
            sys.stdout.write(answer["text"] + "\n")
            return 0
    found = daemon.get(f"/incidents/{number}")
    if as_json:
        return _print(found)
    sys.stdout.write(tables.incident(found))
    if found.get("report"):
        sys.stdout.write("\n" + screen(found["report"]))
    return 0
