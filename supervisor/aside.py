"""``mainstay quarantine``: the records of a job's input that are set aside: listed, shown, released, replayed."""

import os
import sys
from typing import Any

from supervisor import tables
from supervisor.client import Client, job_route
from supervisor.core.prose import clean
from supervisor.errors import LaunchError
from supervisor.talk import daemon_of, print_json

Json = dict[str, Any]
BECAUSE = "a replay of it ended well"


def listing(config: str | None, job: str, *, as_json: bool) -> int:
    """What is set aside, oldest first."""
    found = daemon_of(config).get(job_route(job, "quarantine"))
    if as_json:
        return print_json(found)
    sys.stdout.write(tables.quarantine(found["records"]) if found["records"] else f"no record of {job} is set aside\n")
    return 0


def show(config: str | None, job: str, key: str, *, as_json: bool) -> int:
    """One record, and the dossier of the death that it is there for."""
    from supervisor.core.explain import screen

    daemon = daemon_of(config)
    found = _record(daemon, job, key_meant(daemon, job, key))
    if as_json:
        return print_json(found)
    sys.stdout.write(tables.quarantine([found]))
    if found["report"]:
        sys.stdout.write("\n" + screen(found["report"]))
    return 0


def release(config: str | None, job: str, key: str, *, as_json: bool) -> int:
    """Take it out: the next attempt is given it again."""
    daemon = daemon_of(config)
    answer = daemon.post(job_route(job, "release"), {"key": key_meant(daemon, job, key)})
    if as_json:
        return print_json(answer)
    sys.stdout.write(answer["text"] + "\n")
    return 0


def replay(config: str | None, job: str, key: str, *, as_json: bool) -> int:
    """Run the job for this record alone, under its own limits; release the record when that ends well. 1 when it does not."""
    from supervisor.config.load import find_config, load
    from supervisor.core.explain import screen
    from supervisor.replay import base_of
    from supervisor.replay import replay as run

    daemon = daemon_of(config)
    key = key_meant(daemon, job, key)
    _record(daemon, job, key)
    jobs = load(find_config(config)).jobs
    if job not in jobs:
        sys.stderr.write(f"mainstay: {job} is not in the config file (any more), so there is nothing to run\n")
        return 1
    base = base_of(daemon.get("/status")["daemon"]["pid"])
    if base is None:
        sys.stderr.write("mainstay: the daemon's environment cannot be read; the job gets that of this command instead\n")
    try:
        done = run(jobs[job], key, os.environ if base is None else base)
    except OSError as err:
        place = f"{err.filename}: " if err.filename else ""
        raise LaunchError(f"the replay could not begin: {place}{err.strerror}") from err
    if done.processed:
        daemon.post(job_route(job, "release"), {"key": key, "because": BECAUSE})
    if as_json:
        print_json(
            {"job": job, "key": key, "met": done.met, "processed": done.processed, "released": done.processed, "report": done.report}
        )
    else:
        sys.stdout.write(_told(job, key, met=done.met, processed=done.processed))
        if not done.processed:
            sys.stdout.write("\n" + screen(done.report))
    return 0 if done.processed else 1


def _told(job: str, key: str, *, met: bool, processed: bool) -> str:
    if processed:
        return tables.printable(f"record {key} went through: it is released, and has been processed by this replay\n")
    if not met:
        return tables.printable(
            f"{job} was not given record {key}: it is no longer in the input, or the job does not take its records from supervisor.job.records\n"
        )
    return tables.printable(f"record {key} still ends badly; it stays in quarantine\n")


def key_meant(daemon: Client, job: str, key: str) -> str:
    """The key of a record that is set aside, for one that was typed as it is shown: with escapes for what our Python cannot show. Else *key* as it is."""
    keys: list[str] = [one["key"] for one in daemon.get(job_route(job, "quarantine"))["records"]]
    return key if key in keys else next((one for one in keys if key in (tables.printable(one), clean(one))), key)


def _record(daemon: Client, job: str, key: str) -> Json:
    found: Json = daemon.get(job_route(job, "quarantine"), key=key)["records"][0]
    return found
