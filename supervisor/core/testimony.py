"""Evidence in words: what the looks before a line say, what the threads waited for, where the memory went, whom the kernel killed, who sent a signal."""

from collections import Counter
from collections.abc import Sequence

from supervisor.core.evidence import BusyLine, Evidence, MemoryType, OomVictim, Pace, Sender, Study, Waiting
from supervisor.core.prose import about_duration, about_size, at, counted, signal_name

LINES_TOLD = 4
TYPES_TOLD = 5
THREADS_TOLD = 4
CURVE_TOLD = 5  # points of the curve in a sentence
MANY_LOOKS = 8
HEADLINE_SHARE = 0.5  # a line that was found less often than this is not where it was

PACES = {
    Pace.BUSY: "busy",
    Pace.SLOW: "slow: it woke up now and then, and waited for the rest",
    Pace.HANGING: "hanging: no CPU time, no wake-up, the same stacks in every look",
}


def facts(evidence: Evidence) -> list[str]:
    """A sentence for each thing that was seen, the telling ones first."""
    look, words = evidence.look, evidence.words
    return [
        *([sender_words(evidence.sender)] if evidence.sender is not None else []),
        *(victims_words(evidence.oom_victims) if evidence.oom_victims else []),
        *(_study(evidence.study) if evidence.study is not None else []),
        *(_waits(look.threads) if look is not None else []),
        *(_curve(evidence.memory_curve) if evidence.study is not None and evidence.study.growing else []),
        *([types_words(words.memory_types)] if words.memory_types else []),
    ]


def doing(evidence: Evidence) -> str:
    """What it did when a limit on time struck, for the end of a sentence: ", busy" or ", hanging: waiting for a lock"."""
    waiting = evidence.look.waiting if evidence.look is not None else ""
    study = evidence.study
    if study is None or study.looks < 2:
        return f", waiting: {waiting}" if waiting and not waiting.startswith("running") else ""
    if study.pace is Pace.BUSY:
        first = study.busy[0] if study.busy else None
        return f", busy{' inside C' if first is not None and first.in_c else ''}"
    return f", {study.pace.value}{f': {waiting}' if waiting else ''}"


def main_line(study: Study | None) -> BusyLine | None:
    """The one line where most looks found it, if there is one."""
    first = study.busy[0] if study is not None and study.busy else None
    return first if first is not None and first.samples >= HEADLINE_SHARE * first.of else None


def sender_words(sender: Sender) -> str:
    """Who sent the signal, with the source."""
    who = "itself" if sender.is_self else f"pid {sender.pid} ({sender.name})"
    return f"kernel: {signal_name(sender.signal)} was sent by {who}"


def victims_words(victims: Sequence[OomVictim]) -> list[str]:
    """A sentence for each process of the tree that the kernel's log names."""
    found = []
    for victim in victims[:LINES_TOLD]:
        why = "at the limit of a control group" if victim.in_cgroup else "because the host had no memory left"
        found.append(
            f"kernel log: the OOM killer ended pid {victim.pid} ({victim.name}), {about_size(victim.resident_bytes)} resident, {why}"
        )
    return found


def types_words(types: Sequence[MemoryType]) -> str:
    """The largest types in a line: "dict 41.2MiB (120,000), User 30MiB (120,000)"."""
    shown = ", ".join(f"{each.type} {about_size(each.bytes)} ({each.count:,})" for each in types[:TYPES_TOLD])
    return f"largest types at the soft line, by a sample: {shown}"


def _study(study: Study) -> list[str]:
    if study.growing:
        return [
            f"growing: in {at(line.frame)} in {line.samples} of {counted(line.of, 'look')} while memory grew"
            for line in study.busy[:LINES_TOLD]
        ]
    if study.looks < 2:
        return []
    span = f"{counted(study.looks, 'look')} in the last {about_duration(study.span_s)}"
    used = f", {study.cpu_share:.2f} of a core" if study.pace is not Pace.HANGING else ""
    found = [f"{span}: {PACES[study.pace]}{used}"]
    if study.pace is not Pace.HANGING:
        for line in study.busy[:LINES_TOLD]:
            inside = ", always at the same call: inside C" if line.in_c else ""
            found.append(f"busy: in {at(line.frame)} in {line.samples} of {counted(line.of, 'look')}{inside}")
    if study.pace is Pace.BUSY and study.at_limit == study.looks >= MANY_LOOKS:
        found.append(
            "its memory stood within a tenth of the limit in every look: MemoryErrors that it catches are counted from Python 3.12 on"
        )
    if study.memory_errors:
        found.append(f"{counted(study.memory_errors, 'look')} found a MemoryError on its way")
    return found


def _waits(threads: Sequence[Waiting]) -> list[str]:
    """Threads that wait alike in one sentence each, with the kernel's own words."""
    alike = Counter((each.what, each.wchan, each.call) for each in threads if not each.what.startswith(("running", "ended")))
    found = []
    for (what, wchan, call), count in alike.most_common(THREADS_TOLD):
        kernel = ", ".join(
            filter(None, [f"wait channel {wchan}" if wchan else "", f"system call {call}" if call is not None and call >= 0 else ""])
        )
        found.append(f"kernel: {counted(count, 'thread')} {what}{f' ({kernel})' if kernel else ''}")
    return found


def _curve(curve: Sequence[tuple[float, int]]) -> list[str]:
    """How it grew up to its peak."""
    if len(curve) < 2:
        return []
    curve = curve[: max(range(len(curve)), key=lambda i: curve[i][1]) + 1]
    step = (len(curve) - 1) / (CURVE_TOLD - 1)
    chosen = [curve[round(i * step)] for i in range(CURVE_TOLD)] if len(curve) > CURVE_TOLD else list(curve)
    shown = ", ".join(f"{about_size(size)} at {about_duration(at_s)}" for at_s, size in chosen)
    (first_s, first), (last_s, last) = curve[0], curve[-1]
    rate = (last - first) / (last_s - first_s) if last_s > first_s else 0.0
    return [f"memory over time: {shown}{f' ({about_size(rate)} a second)' if rate > 0 else ''}"]
