"""What a verdict rests on, a line for each fact and in front of it who says so: we, the kernel, the guard, a look, the samples."""

from supervisor.core import testimony
from supervisor.core.limits import FILLING_FRAMES
from supervisor.core.model import LimitName
from supervisor.core.prose import about_duration, about_size, counted
from supervisor.core.verdict.case import Case, peak_bytes
from supervisor.core.verdict.phrases import how_it_ended
from supervisor.core.verdict.signals import FATAL_SIGNALS

LONG_AGO_S = 0.5  # less is what a busy machine takes for an end


def all_facts(case: Case) -> list[str]:
    """Every fact, ours first."""
    return [*_our_facts(case), *_kernel_facts(case), *testimony.facts(case.evidence), *_guard_facts(case), *_outside_facts(case)]


def _our_facts(case: Case) -> list[str]:
    facts, breach = case.evidence.exit, case.evidence.breach
    found: list[str] = []
    if facts.launch_error is not None:
        found.append(f"start: {facts.launch_error}")
    if facts.killed_for is not None:
        figures = f" {_figures(breach.limit, breach.measured)} over {_figures(breach.limit, breach.line)}" if breach is not None else ""
        found.append(f"we killed it: {facts.killed_for}{figures}{f' ({breach.detail})' if breach is not None and breach.detail else ''}")
    elif breach is not None:
        found.append(
            f"seen, but it ended by itself: {breach.limit.value} {_figures(breach.limit, breach.measured)} over {_figures(breach.limit, breach.line)}"
        )
    if facts.asked_to_stop:
        found.append("we asked it to stop")
    if facts.output_dropped_bytes:
        found.append(f"output: {about_size(facts.output_dropped_bytes)} of {about_size(facts.output_bytes)} dropped")
    if case.evidence.records is not None:
        found.append(f"job: {counted(case.evidence.records, 'record')} processed")
    return found


def _figures(limit: LimitName, number: float) -> str:
    if limit in (LimitName.MEMORY, LimitName.MEMORY_SOFT, LimitName.OUTPUT):
        return about_size(number)
    if limit in (LimitName.TIME, LimitName.CPU, LimitName.STALL):
        return about_duration(number)
    return f"{number:,.0f}"


def _kernel_facts(case: Case) -> list[str]:
    facts = case.evidence.exit
    found: list[str] = []
    if facts.code is not None or facts.signal is not None:
        found.append(f"kernel: {how_it_ended(case)}")
    if (fault := case.evidence.fault) is not None:
        found.append(f"kernel log: it asked for address {fault.address:#x}, {'beside' if fault.is_beside_stack else 'far from'} its stack")
    if facts.oom_kills:
        found.append(f"kernel: memory.events oom_kill {facts.oom_kills}")
    if case.evidence.host_oom_kills:
        found.append(f"kernel: the host's oom_kill count rose by {case.evidence.host_oom_kills}")
    if facts.pids_max_hits:
        found.append(f"kernel: pids.events max {facts.pids_max_hits}")
    if peak := peak_bytes(case):
        found.append(f"memory peak {about_size(peak)}, CPU time {about_duration(facts.cpu_s)}")
    if facts.killed_for == LimitName.MEMORY and facts.memory_peak_bytes is None and case.evidence.processes_peak > 1:
        found.append("where it had several processes, they were added up: pages that they share (after a fork, say) count for each of them")
    if facts.leftovers:
        found.append(f"{counted(facts.leftovers, 'process', 'processes')} left behind, ended by us")
    if facts.unkillable:
        found.append(f"cannot be killed: pid {', '.join(str(pid) for pid in facts.unkillable)}")
    return found


def _guard_facts(case: Case) -> list[str]:
    words = case.evidence.words
    found: list[str] = []
    if words.exception is not None:
        where = "" if words.exception.where == "main" else f" ({words.exception.where})"
        found.append(f"guard: {words.exception.type}{where}, {counted(words.exception.depth, 'level')} deep")
    if words.exception is not None and (root := words.exception.root) is not None:
        where = " in another process" if root.where == "child" else ""
        found.append(f"guard: it came from {root.type}{where}, {counted(root.depth, 'level')} deep")
    if words.lineage is not None:
        found.append(f"guard: {words.lineage[0]} started itself {words.lineage[1]} levels deep; refused to go on")
    if words.fatal_signal is not None:
        more = " and more" if words.fatal_truncated else ""
        found.append(f"guard: {words.fatal_signal}, {counted(len(words.fatal_frames), 'frame')}{more}")
    elif case.evidence.exit.signal in FATAL_SIGNALS and words.dumps_elsewhere:
        found.append("guard: the job took faulthandler into its own hands; a crash leaves no report here")
    elif case.evidence.exit.signal in FATAL_SIGNALS and words.spoke:
        found.append(
            "guard: was there, but its crash report is empty: no stack was left to write it on, or another program had taken its place"
        )
    for count, at, kind in (
        (words.swallowed_recursion, words.swallowed_recursion_at, "RecursionError"),
        (words.swallowed_memory, words.swallowed_memory_at, "MemoryError"),
    ):
        if count:
            found.append(f"guard: {counted(count, kind)} caught by the job{_long_ago(case, at)}")
    if words.asked_limit is not None:
        found.append(f"guard: the job asked for a recursion limit of {words.asked_limit:,} and did not get it")
    if not words.spoke:
        found.append("guard: not active in this process")
    return found


def _long_ago(case: Case, at: tuple[float, float] | None) -> str:
    """When the last one was, where that was some time before the end."""
    before_s = case.evidence.struck_mono - at[1] if at is not None else 0.0
    return f", the last one {about_duration(before_s)} before the end" if before_s >= LONG_AGO_S and at is not None else ""


def _outside_facts(case: Case) -> list[str]:
    look, facts = case.evidence.look, case.evidence
    found: list[str] = []
    if look is not None:
        if look.depth:
            limit = "" if look.recursion_limit is None else f", its own recursion limit is {look.recursion_limit:,}"
            found.append(f"look: {counted(look.depth, 'level')} deep{limit}")
        if look.exception_in_flight:
            found.append(f"look: {look.exception_in_flight} in flight")
        if look.waiting:
            found.append(f"look: waiting: {look.waiting}")
        if look.note:
            found.append(f"look: {look.note}")
    if facts.depth_peak:
        growth = (
            f"; {facts.stack_share:.0%} of the growth of memory came while it got deeper"
            if facts.stack_share and facts.depth_peak > FILLING_FRAMES
            else ""
        )
        found.append(f"samples: deepest stack {counted(facts.depth_peak, 'level')}{growth}")
    if facts.swallowed_seen:
        found.append(f"samples: {counted(facts.swallowed_seen, 'look')} found a RecursionError on its way or the stack at its limit")
    return found


def cycle_facts(case: Case) -> list[str]:
    """What the cycle's arguments say."""
    return [] if case.cycle is None else [f"cycle: {note}" for note in case.cycle.notes]
