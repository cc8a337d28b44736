"""What has to hold between the values of config.yaml, and between them and this machine. Each check reports at the key that is easiest
to mend.
"""

import os

from supervisor.config.document import Node, Sequence
from supervisor.config.kinds import BAD
from supervisor.config.problems import Report, suggestion
from supervisor.config.shape import Section, is_inherited
from supervisor.config.source import Trust, demand
from supervisor.core.jobs import Cron, Schedule
from supervisor.core.schedule import shortest_gap
from supervisor.core.settings import TcpActions
from supervisor.core.units import format_duration, format_size, quoted


def check_job(node: Node, job: Section, receivers: set[str], report: Report) -> None:
    """Reports what is wrong between the keys of one job."""
    _check_command(node, job, report)
    _check_schedule(node, job, report)
    _check_limits(node, job, report)
    _check_restart(job, report)
    _check_exit_codes(job, report)
    _check_receivers(job, receivers, report)
    _check_people(job, report)
    _check_environment_file(job, report)
    _check_directory(job, report)
    _check_drill(job, report)


def check_web(supervisor: Section, report: Report, *, is_kept: bool) -> None:
    """Reports what is wrong with the web config file, and an address that others can reach with nothing to hold them.

    Of a kept config (*is_kept*) a web config that has broken since is only a warning: the next brain has to supervise, and shuts its door.
    """
    if not supervisor.is_sure("listen", "web_config", "actions"):
        return
    web = None
    if supervisor["web_config"] is not None:
        from supervisor.config import webconfig  # late: most have none

        web, problems = webconfig.problems_of(supervisor["web_config"])
        for problem in problems:
            if is_kept:
                report.warn(supervisor.nodes["web_config"], f"nobody is let in over TCP: {problem}")
            else:
                report.problem_elsewhere(supervisor.nodes["web_config"], problem)
        if problems:
            return
    listen = supervisor["listen"]
    if listen is None:
        if web is not None:
            report.warn(supervisor.nodes["web_config"], "is for TCP, and listen is null; remove one of them")
        return
    host = listen[0]
    is_loopback = host in ("localhost", "::1") or host.startswith("127.")
    known = web is not None and web.knows_who_asks
    if supervisor["actions"] is TcpActions.LOOPBACK and not is_loopback and not known:
        report.problem(
            supervisor.nodes["actions"],
            f"{quoted(host)} can be reached from other machines; write web_config: with TLS and basic_auth_users, or actions: auto",
        )
    if not is_loopback and not (web is not None and (web.users or known)):
        report.warn(
            supervisor.nodes["listen"],
            f"{quoted(host)} can be reached from other machines, and nobody is asked for a password; write web_config",
        )


_ONE_OF = {
    frozenset({"url", "urls"}): "url: http://127.0.0.1:9093",
    frozenset({"url", "url_file"}): "url: http://127.0.0.1:8000, or url_file: the path of a file that holds it",
    frozenset({"token", "token_file"}): "token_file: the path of a file that holds it",
    frozenset({"urls", "urls_file"}): "urls: [ntfy://host/topic]",
}


def check_receiver(node: Node, receiver: Section, report: Report) -> None:
    """Reports what is wrong between the keys of one receiver."""
    names = receiver.shape.by_name
    _check_one_of(node, receiver, report)
    for key in ("secret", "password"):
        if f"{key}_file" in names and key in receiver.written and f"{key}_file" in receiver.written:
            report.problem(receiver.nodes[key], f"stands beside {key}_file; keep one of the two")
    if "password_file" in names and receiver.is_sure("username", "password_file", "password"):
        has_password = receiver["password_file"] is not None or receiver["password"] is not None
        if (receiver["username"] is None) == has_password:
            report.problem(node, "has only one of username and password_file; write both or neither")
        elif has_password and receiver["tls"] == "none" and receiver["host"] not in ("localhost", "127.0.0.1", "::1"):
            report.warn(node, "sends its password over the network in clear; write tls: starttls")
    if receiver.shape.by_name["type"].kind.form == "one of apprise" and not _has_apprise():
        report.problem(node, "needs the apprise library, which is not installed; install the extra: pip install mainstay[notify]")


def check_heartbeat(supervisor: Section, report: Report) -> None:
    """Reports a heartbeat without an address."""
    heartbeat = supervisor["heartbeat"]
    if isinstance(heartbeat, Section):
        _check_one_of(supervisor.nodes["heartbeat"], heartbeat, report)


def _check_one_of(node: Node, section: Section, report: Report) -> None:
    for pair, mend in _ONE_OF.items():
        if pair <= section.shape.by_name.keys() and len(pair & section.written.keys()) != 1:
            first, second = sorted(pair)
            report.problem(node, f"needs either {first} or {second}; write {mend}")


def _has_apprise() -> bool:
    import importlib.util

    return importlib.util.find_spec("apprise") is not None


def _check_command(node: Node, job: Section, report: Report) -> None:
    if "command" in job.written and "shell" in job.written:
        report.problem(job.nodes["shell"], "stands beside command; keep one of the two")
    elif "command" not in job.written and "shell" not in job.written:
        report.problem(node, 'says nothing to run; write command: [python, job.py], or shell: "a | b"')


def _check_schedule(node: Node, job: Section, report: Report) -> None:
    schedule = job["schedule"]
    if not isinstance(schedule, Section):
        return
    place = job.nodes["schedule"]
    has_every, has_cron = "every" in schedule.written, "cron" in schedule.written
    if has_every and has_cron:
        report.problem(schedule.nodes["cron"], "stands beside every; keep one of the two")
    elif not has_every and not has_cron:
        report.problem(place, 'says no time; write every: 1m or cron: "*/5 * * * *", or schedule: manual for a job that is only triggered')
    if has_every and "timezone" in schedule.written:
        report.problem(schedule.nodes["timezone"], "goes with cron; remove it, an interval needs no time zone")
    if has_cron and not has_every and schedule.is_sure("cron", "timezone", "jitter") and schedule["jitter"] > 0:
        gap = shortest_gap(Schedule(Cron(schedule["cron"], schedule["timezone"])))
        if gap is not None and schedule["jitter"] >= gap.total_seconds():
            finding = f"the jitter ({format_duration(schedule['jitter'])}) is not less than the shortest time between two fire times"
            report.problem(
                _nearest(schedule, "jitter", "cron", otherwise=place),
                f"{finding} ({format_duration(gap.total_seconds())}); write a shorter jitter",
            )
    if not has_every or not schedule.is_sure("every", "jitter"):
        return
    every = schedule["every"]
    if schedule["jitter"] >= every:
        finding = f"the jitter ({format_duration(schedule['jitter'])}) is not less than the interval ({format_duration(every)})"
        report.problem(_nearest(schedule, "jitter", "every", otherwise=place), f"{finding}; write a shorter jitter")
    expect = job["expect"]
    if (
        isinstance(expect, Section)
        and expect.is_sure("success_every")
        and expect["success_every"] is not None
        and expect["success_every"] <= every
    ):
        finding = f"is not more than the interval of the schedule ({format_duration(every)}), so it will alert between any two runs"
        report.warn(_nearest(expect, "success_every", otherwise=node), f"{finding}; write at least {format_duration(2 * every)}")


def _check_drill(job: Section, report: Report) -> None:
    drill = job["drill"]
    if not isinstance(drill, Section) or not drill.is_sure("faults", "schedule"):
        return
    schedule = drill["schedule"]
    is_timed = isinstance(schedule, Section)
    if is_timed and ("every" in schedule.written) == ("cron" in schedule.written):
        report.problem(drill.nodes["schedule"], 'needs either every or cron; write {cron: "0 10 * * MON"}')
    elif is_timed and not drill["faults"]:
        report.problem(job.nodes["drill"], "names no fault; write faults: [memory], or remove the schedule")
    elif drill["faults"] and not is_timed:
        report.problem(job.nodes["drill"], 'says no time; write schedule: {cron: "0 10 * * MON"}; `mainstay drill` needs no key here')


def _check_limits(node: Node, job: Section, report: Report) -> None:
    limits = job["limits"]
    if not isinstance(limits, Section):
        return
    if limits.is_sure("memory", "memory_soft") and limits["memory_soft"] is not None and limits["memory_soft"] >= limits["memory"]:
        soft, hard = format_size(limits["memory_soft"]), format_size(limits["memory"])
        finding = f"memory_soft ({soft}) is not less than memory ({hard})"
        place = _nearest(limits, "memory_soft", "memory", otherwise=node)
        report.problem(place, f"{finding}; write a smaller memory_soft, e.g. {format_size(limits['memory'] * 3 // 4)}")
    if limits.is_sure("stall", "time") and limits.is_own("stall") and limits["stall"] is not None and limits["stall"] >= limits["time"]:
        report.warn(
            limits.nodes["stall"], f"can never strike, limits.time ({format_duration(limits['time'])}) comes first; write a shorter one"
        )


def _check_restart(job: Section, report: Report) -> None:
    restart = job["restart"]
    if not isinstance(restart, Section):
        return
    backoff = restart["backoff"]
    if isinstance(backoff, Section) and backoff.is_sure("first", "max") and backoff["first"] > backoff["max"]:
        first, longest = format_duration(backoff["first"]), format_duration(backoff["max"])
        finding = f"the first wait ({first}) is longer than the longest ({longest}); write a shorter first or a longer max"
        report.problem(_nearest(backoff, "first", "max", otherwise=job.nodes["restart"]), finding)
    if restart.is_sure("retry_on", "park_on") and restart["retry_on"]:
        both = sorted(restart["retry_on"] & restart["park_on"])
        if both:
            report.problem(restart.nodes["park_on"], f"{both[0]} stands in retry_on, too; remove it from one of them")


def _check_exit_codes(job: Section, report: Report) -> None:
    expect = job["expect"]
    if "success_exit_codes" not in job.written or not isinstance(expect, Section) or "success_exit_codes" not in expect.written:
        return
    here, there = job.nodes["success_exit_codes"], expect.nodes["success_exit_codes"]
    if is_inherited(here) == is_inherited(there):
        report.problem(here, "stands beside expect.success_exit_codes; keep one of the two")


def _check_receivers(job: Section, receivers: set[str], report: Report) -> None:
    alerts = job["alerts"]
    if not isinstance(alerts, Section):
        return
    for section in (alerts, alerts["escalate"]):
        if not isinstance(section, Section) or not section.is_sure("to") or "to" not in section.written:
            continue
        node = section.nodes.get("to")
        for name, place in zip(section["to"], node.items if isinstance(node, Sequence) else [], strict=True):
            if name not in receivers:
                mend = suggestion(name, sorted(receivers)) if receivers else f"write receivers: {{{name}: {{type: webhook, url: ...}}}}"
                report.problem(place, f"there is no receiver {quoted(name)}; {mend}")
    if isinstance(alerts["escalate"], Section) and alerts.is_sure("to") and not alerts["to"]:
        report.warn(alerts.nodes["escalate"], "escalates what nobody is told first; write alerts: {to: [...]} beside it")


def check_window(node: Node, window: Section, jobs: set[str], report: Report) -> None:
    """Reports what is wrong between the keys of one maintenance window."""
    has_every, has_cron = "every" in window.written, "cron" in window.written
    if has_every and has_cron:
        report.problem(window.nodes["cron"], "stands beside every; keep one of the two")
    elif not has_every and not has_cron:
        report.problem(node, 'says no time; write cron: "0 3 * * 0" or every: 1d')
    if has_every and "timezone" in window.written:
        report.problem(window.nodes["timezone"], "goes with cron; remove it, an interval needs no time zone")
    if has_every and window.is_sure("every", "for") and window["for"] >= window["every"]:
        report.problem(window.nodes["for"], "is not less than every, so the window never closes; write a shorter one")
    if window.is_sure("jobs") and window["jobs"] is not None:
        names = window.nodes["jobs"]
        for name, place in zip(window["jobs"], names.items if isinstance(names, Sequence) else [], strict=True):
            if name not in jobs:
                report.problem(place, f"there is no job {quoted(name)}; {suggestion(name, sorted(jobs))}")


def _check_people(job: Section, report: Report) -> None:
    """A user that does not exist is an error where we could become that user; elsewhere this may be another machine's config."""
    if not job.is_sure("user", "group", "groups"):
        return
    root = os.geteuid() == 0
    wanted = [("user", job["user"], "/etc/passwd"), ("group", job["group"], "/etc/group")]
    wanted += [("groups", name, "/etc/group") for name in job["groups"]]
    for key, name, where in wanted:
        if name is None:
            continue
        finding = f"there is no {key.removesuffix('s')} {quoted(name)} on this machine; make it, or name one from {where}"
        if not _exists(key, name):
            (report.problem if root else report.warn)(job.nodes[key], finding)
        elif not root and not _is_ours(key, name):
            report.warn(
                job.nodes[key], f"only root can start a job with another {key.removesuffix('s')}; run Mainstay as root, or remove the key"
            )
    if root and job["user"] is None and (job["group"] is not None or job["groups"]):
        report.warn(
            job.nodes["group" if job["group"] is not None else "groups"], "has no user beside it, so the job runs as root; write user"
        )


def _exists(key: str, name: str) -> bool:
    import grp
    import pwd

    if name.isdecimal():
        return int(name) < 2**32 - 1
    try:
        pwd.getpwnam(name) if key == "user" else grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _is_ours(key: str, name: str) -> bool:
    import grp
    import pwd

    number = int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid if key == "user" else grp.getgrnam(name).gr_gid
    return number == os.geteuid() if key == "user" else number in {os.getegid(), *os.getgroups()}


def _check_environment_file(job: Section, report: Report) -> None:
    """Whoever can set PATH or LD_PRELOAD of a job that runs as root is root."""
    if not job.is_sure("environment_file", "user") or job["environment_file"] is None or job["user"] not in (None, "root", "0"):
        return
    try:
        demand(job["environment_file"].path, Trust.CODE)
    except ValueError as err:
        report.problem(job.nodes["environment_file"], f"{quoted(job['environment_file'].path, 200)} {err}")


def _check_directory(job: Section, report: Report) -> None:
    path = job["directory"]
    if path is not None and path is not BAD and "directory" in job.nodes and not os.path.isdir(path):
        report.warn(job.nodes["directory"], f"{quoted(path, 200)} is not a directory; make it before the job starts")


def _nearest(section: Section, *names: str, otherwise: Node) -> Node:
    """The node of the first value that the job wrote itself, else the first that stands under defaults, else what surrounds them."""
    for name in names:
        if section.is_own(name):
            return section.nodes[name]
    return next((section.nodes[name] for name in names if name in section.nodes), otherwise)
