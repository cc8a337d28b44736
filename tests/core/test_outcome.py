"""Verdicts: a case per kind of death, in the costumes that were measured; and what must never make a verdict."""

from signal import SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE, SIGSEGV, SIGSYS, SIGTERM, SIGTRAP, SIGXCPU

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisor.core.evidence import (
    Breach,
    BusyLine,
    Cycle,
    CycleKind,
    Evidence,
    ExceptionFacts,
    Exit,
    Fault,
    Frame,
    LastWords,
    Look,
    OomVictim,
    Pace,
    Sender,
    Stack,
    Study,
    Waiting,
)
from supervisor.core.jobs import Expect, Limits
from supervisor.core.limits import AT_THE_WALL, SWALLOWED
from supervisor.core.model import LimitName, Outcome
from supervisor.core.outcome import fingerprint_of, judge

MIB = 2**20
LIMITS = Limits(memory_bytes=300 * MIB, recursion_frames=400, time_s=120, cpu_s=90, stall_s=30, processes=16, output_bytes=64 * MIB)
A, B = Frame("walk", "/srv/app/tree.py", 14), Frame("visit", "/srv/app/tree.py", 20)
MAIN, LOAD = Frame("main", "/srv/app/job.py", 80), Frame("load", "/srv/app/job.py", 57)
CYCLE = Cycle((A, B), 52_560)
DEEP_STACK = Stack(1, (A, B) * 100, 52_560)
SLOW_STACK = Stack(1, (Frame("recv", "/usr/lib/python3.11/socket.py", 5), LOAD, MAIN), 3)
HEALTHY_DUMP = (LOAD, MAIN)
OVERFLOW_DUMP = (A, B) * 50
SPOKE = LastWords(spoke=True)
END = 5_000.0  # of CLOCK_MONOTONIC


def error(type_, message="", frames=(MAIN, LOAD), depth=None, where="main"):
    return ExceptionFacts(type_, message, frames, len(frames) if depth is None else depth, where)


RECURSION_ERROR = error("RecursionError", "maximum recursion depth exceeded", (MAIN, *(A, B) * 200), 1001)


def died(exit_, words=SPOKE, **facts):
    return Evidence(exit=exit_, words=words, duration_s=3.2, struck_mono=END, **facts)


def swallowed(errors=0, memory=0, *, ago=0.01, span=0.02, **words):
    """A guard that counted so many, the latest *ago* seconds before the end and the sixteenth latest *span* before it."""
    at = (END - ago - span, END - ago)
    return LastWords(
        spoke=True,
        swallowed_recursion=errors,
        swallowed_memory=memory,
        swallowed_recursion_at=at if errors else None,
        swallowed_memory_at=at if memory else None,
        **words,
    )


def killed(limit, measured, line, *, detail="", words=SPOKE, **facts):
    return died(Exit(signal=SIGKILL, killed_for=limit.value), words, breach=Breach(limit, measured, line, detail), **facts)


def said(code=1, **words):
    return died(Exit(code=code), LastWords(spoke=True, **words))


SLOW = Look(stacks=(SLOW_STACK,), depth=3, recursion_limit=1000, waiting="reading from a socket")
DEEP = Look(stacks=(DEEP_STACK,), depth=52_560, recursion_limit=10**9)
LEAF = Frame("load", "/srv/app/tree.py", 40)
BELOW = Look(stacks=(Stack(1, (LEAF, *(A, B) * 100), 5_003),), depth=5_003, recursion_limit=30_000)
TASKS = Look(cycle=Cycle((A,), 40_000, CycleKind.TASKS), depth=12)
CRASH = LastWords(spoke=True, fatal_signal="Segmentation fault", fatal_frames=HEALTHY_DUMP)
LOST = "<class 'list'> returned a result with an exception set: error return without exception set"
AT_ITS_TRACEBACK = Look(
    stacks=(Stack(1, (Frame("format", "/usr/lib/python3.13/traceback.py", 749),) * 9, 9),), depth=9, recursion_limit=10**8
)
BUSY_IN_ITS_CYCLE = Study(Pace.BUSY, 12, 2.2, 0.9, busy=(BusyLine(MAIN, 8, 12), BusyLine(replace(A, line=15), 3, 12)))
BUSY_ELSEWHERE = Study(Pace.BUSY, 12, 2.2, 0.9, busy=(BusyLine(MAIN, 10, 12), BusyLine(replace(A, line=15), 2, 12)))
CLIMBED = {"soft_look": Look(stacks=(Stack(1, (A, B) * 100, 9_300),), depth=9_300), "depth_peak": 12_880, "stack_share": 0.97}

CASES = [
    # our own kill
    ("memory kill", killed(LimitName.MEMORY, 312.4 * MIB, 300 * MIB, look=SLOW), Outcome.MEMORY, LimitName.MEMORY,
     "It used 312.4MiB of memory, over its limit of 300MiB; it was killed after 3.2s, in load (job.py:57)."),
    ("time kill", killed(LimitName.TIME, 120, 120, look=SLOW), Outcome.TIME, LimitName.TIME,
     "It ran for 2m; its time limit is 2m, and it was killed, in load (job.py:57), waiting: reading from a socket."),
    ("cpu kill", killed(LimitName.CPU, 90.2, 90), Outcome.CPU, LimitName.CPU,
     "It used 1m30s of CPU time; its limit is 1m30s; it was killed after 3.2s."),
    ("stall", killed(LimitName.STALL, 30, 30), Outcome.STALLED, LimitName.STALL,
     "It made no progress for 30s; its limit is 30s; it was killed after 3.2s."),
    ("processes", killed(LimitName.PROCESSES, 17, 16), Outcome.PROCESSES, LimitName.PROCESSES,
     "It had 17 processes and threads, over its limit of 16; it was killed after 3.2s."),
    ("output", killed(LimitName.OUTPUT, 64.5 * MIB, 64 * MIB), Outcome.OUTPUT, LimitName.OUTPUT,
     "It wrote 64.5MiB of output, over its limit of 64MiB; it was killed after 3.2s."),
    ("recursion kill", killed(LimitName.RECURSION, 52_560, 400, look=DEEP), Outcome.RECURSION, LimitName.RECURSION,
     "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 52,560 levels deep, over the limit of 400; it was killed after 3.2s."),
    ("recursion kill, nothing to be seen", killed(LimitName.RECURSION, 52_560, 400, depth_peak=52_560), Outcome.RECURSION, LimitName.RECURSION,
     "Runaway recursion: no cycle could be named, 52,560 levels deep, over the limit of 400; it was killed after 3.2s."),
    ("the kill came, its breach was lost with the brain", died(Exit(signal=SIGKILL, killed_for="memory"), memory_peak_bytes=301 * MIB),
     Outcome.MEMORY, LimitName.MEMORY, "It used 301MiB of memory, over its limit of 300MiB; it was killed after 3.2s."),
    # our own kill, the cause behind the limit
    ("heap of frames", killed(LimitName.MEMORY, 312 * MIB, 300 * MIB, look=DEEP), Outcome.RECURSION, LimitName.MEMORY, None),
    ("swallowed, seen from outside", killed(LimitName.RECURSION, 999, 1000, detail=SWALLOWED, swallowed_seen=5), Outcome.RECURSION, LimitName.RECURSION, None),
    ("swallowed, counted by the guard, found by the clock", killed(LimitName.TIME, 120, 120, words=swallowed(99_504, cycle=CYCLE)),
     Outcome.RECURSION, LimitName.TIME,
     ("Runaway recursion: walk → visit → walk (tree.py:14, tree.py:20), with its RecursionError caught again and again (99,504 times); "
      "it came to light at the limit on time; it was killed after 3.2s.")),
    ("one handled RecursionError, then a hang", killed(LimitName.TIME, 120, 120, words=swallowed(1, cycle=CYCLE)),
     Outcome.TIME, LimitName.TIME, None),
    ("the same of a guard that notes no time", killed(LimitName.TIME, 120, 120, words=LastWords(spoke=True, swallowed_recursion=99_504, cycle=CYCLE)), Outcome.TIME, LimitName.TIME, None),
    ("swallowed, and seen in its cycle", killed(LimitName.CPU, 90, 90, words=swallowed(40, span=0.5, cycle=CYCLE), study=BUSY_IN_ITS_CYCLE), Outcome.RECURSION, LimitName.CPU, None),
    ("many swallowed long ago, then a hang", killed(LimitName.TIME, 120, 120, words=swallowed(99_504, ago=1.0, cycle=CYCLE), look=SLOW), Outcome.TIME, LimitName.TIME,
     "It ran for 2m; its time limit is 2m, and it was killed, in load (job.py:57), waiting: reading from a socket."),
    ("swallowed now and then, and it waits for the rest", killed(LimitName.TIME, 120, 120, words=swallowed(99_504, span=0.7, cycle=CYCLE), study=Study(Pace.SLOW, 12, 2.2)), Outcome.TIME, LimitName.TIME, None),
    ("swallowed, and busy with something else", killed(LimitName.CPU, 90, 90, words=swallowed(99_504, span=0.5, cycle=CYCLE), study=BUSY_ELSEWHERE), Outcome.CPU, LimitName.CPU, None),
    ("swallowed a moment ago, then too much output", killed(LimitName.OUTPUT, 65 * MIB, 64 * MIB, words=swallowed(20, ago=0.03, span=0.005, cycle=CYCLE)), Outcome.OUTPUT, LimitName.OUTPUT, None),
    ("swallowed at ease before too much output", killed(LimitName.OUTPUT, 65 * MIB, 64 * MIB, words=swallowed(400, span=0.4, cycle=CYCLE)), Outcome.OUTPUT, LimitName.OUTPUT, None),
    ("swallowed at full speed amid too much output", killed(LimitName.OUTPUT, 65 * MIB, 64 * MIB, words=swallowed(400, cycle=CYCLE)), Outcome.RECURSION, LimitName.OUTPUT, None),
    ("swallowed MemoryErrors, found by CPU time", killed(LimitName.CPU, 90, 90, words=swallowed(memory=300_000), memory_peak_bytes=299 * MIB),
     Outcome.MEMORY, LimitName.CPU, "It caught 300,000 MemoryErrors of its own and went on without memory; it was killed after 3.2s."),
    # no Python, and refused memory: its own words cannot be known
    ("gave up where it was given no more", died(Exit(code=1, max_rss_bytes=299 * MIB), armed=True, memory_curve=((3.0, 299 * MIB),)), Outcome.FAILED, None,
     "It ended with exit code 1 after 3.2s, with its memory at its limit of 300MiB, where it was given no more."),
    # deep is not endless
    ("deep, and it hangs there", killed(LimitName.TIME, 120, 120, look=DEEP, steady_s=118.0), Outcome.TIME, LimitName.TIME, None),
    ("still getting deeper when time was up", killed(LimitName.TIME, 120, 120, look=DEEP, steady_s=0.02), Outcome.RECURSION, LimitName.TIME, None),
    ("deep, and what it called fills memory", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=BELOW, soft_look=replace(BELOW)), Outcome.MEMORY, LimitName.MEMORY, None),
    ("deep, and refused memory in what it called", replace(said(exception=error("MemoryError", "", (MAIN, *(A, B) * 90, LEAF), BELOW.depth)), soft_look=BELOW, look=BELOW, memory_peak_bytes=299 * MIB),
     Outcome.MEMORY, LimitName.MEMORY, None),
    ("as deep at the soft line, but in its cycle", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=DEEP, soft_look=replace(DEEP)), Outcome.RECURSION, LimitName.MEMORY, None),
    ("deeper than at the soft line", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=replace(BELOW, depth=BELOW.depth + 700), soft_look=BELOW), Outcome.RECURSION, LimitName.MEMORY, None),
    ("MemoryErrors caught far below the line", killed(LimitName.CPU, 90, 90, words=swallowed(memory=300_000), memory_peak_bytes=10 * MIB), Outcome.CPU, LimitName.CPU, None),
    ("MemoryErrors caught at the line and long ago", killed(LimitName.CPU, 90, 90, words=swallowed(memory=300_000, ago=1.0), memory_peak_bytes=299 * MIB), Outcome.CPU, LimitName.CPU, None),
    # a recursion that filled its memory, and was looked at late
    ("out of memory, and still at its traceback", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, detail=AT_THE_WALL, look=AT_ITS_TRACEBACK,
     words=LastWords(spoke=True, exception=error("SystemError", LOST, (MAIN, *(A, B) * 90), 10_855))), Outcome.RECURSION, LimitName.MEMORY,
     "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 10,855 levels deep; it came to light at the limit on memory; it was killed after 3.2s."),
    ("the same in a MemoryError", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=AT_ITS_TRACEBACK,
     words=LastWords(spoke=True, exception=error("MemoryError", "", (MAIN, *(A, B) * 90), 4_700))), Outcome.RECURSION, LimitName.MEMORY, None),
    ("1,500 levels, and too much data", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=AT_ITS_TRACEBACK,
     words=LastWords(spoke=True, exception=error("MemoryError", "", (MAIN, *(A, B) * 90), 1_503))), Outcome.MEMORY, LimitName.MEMORY, None),
    ("an error of a deep stack that is not about memory", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=AT_ITS_TRACEBACK,
     words=LastWords(spoke=True, exception=error("KeyError", "", (MAIN, *(A, B) * 90), 4_700))), Outcome.MEMORY, LimitName.MEMORY, None),
    ("no guard, seen in its cycle at the soft line", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, words=LastWords(), look=AT_ITS_TRACEBACK, **CLIMBED),
     Outcome.RECURSION, LimitName.MEMORY,
     "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 12,880 levels deep; it came to light at the limit on memory; it was killed after 3.2s."),
    ("the same, and it gave up by itself", replace(said(exception=error("SystemError", LOST, (), 0)), memory_peak_bytes=299 * MIB, look=AT_ITS_TRACEBACK, **CLIMBED),
     Outcome.RECURSION, None, None),
    ("no guard, and it gave up by itself", died(Exit(code=1, max_rss_bytes=299 * MIB), LastWords(), **CLIMBED), Outcome.RECURSION, LimitName.MEMORY,
     "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 12,880 levels deep, filled its memory of 299MiB and gave up after 3.2s (exit code 1)."),
    ("no guard, and it gave up far below its line", died(Exit(code=1, max_rss_bytes=250 * MIB), LastWords(), **CLIMBED), Outcome.FAILED, None, None),
    ("no guard, full, and not of its stack", died(Exit(code=1, max_rss_bytes=299 * MIB), LastWords(), **CLIMBED | {"stack_share": 0.1}), Outcome.FAILED, None, None),
    ("a guard that says nothing of an error", died(Exit(code=1, max_rss_bytes=299 * MIB), **CLIMBED), Outcome.FAILED, None, None),
    ("deep once, and then too much data", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=SLOW, **CLIMBED | {"stack_share": 0.5}), Outcome.MEMORY, LimitName.MEMORY, None),
    ("1,500 levels that came with their data", killed(LimitName.MEMORY, 301 * MIB, 300 * MIB, look=SLOW, **CLIMBED | {"depth_peak": 1_503}), Outcome.MEMORY, LimitName.MEMORY, None),
    ("deep with its data, came back, and hangs", killed(LimitName.TIME, 120, 120, look=SLOW, **CLIMBED), Outcome.TIME, LimitName.TIME, None),
    ("tasks that make tasks", killed(LimitName.MEMORY, 312 * MIB, 300 * MIB, look=TASKS), Outcome.RECURSION, LimitName.MEMORY,
     "Runaway recursion: walk → walk (tree.py:14), 40,000 tasks that start each other; it came to light at the limit on memory; it was killed after 3.2s."),
    ("deep but different frames", killed(LimitName.MEMORY, 312 * MIB, 300 * MIB, look=Look(stacks=(SLOW_STACK,), depth=6000)), Outcome.MEMORY, LimitName.MEMORY, None),
    ("a recursive tree walk that hangs", killed(LimitName.TIME, 120, 120, look=Look(stacks=(Stack(1, (A, B) * 30, 60),), depth=60)), Outcome.TIME, LimitName.TIME, None),
    ("a pool that waits for a worker the kernel killed", died(Exit(signal=SIGKILL, killed_for="time", oom_kills=1)), Outcome.WORKER_LOST, LimitName.MEMORY,
     "The kernel killed 1 process of its tree at its memory limit of 300MiB, and the rest never ended; it was killed after 3.2s."),
    # C code that does not survive a refusal of memory
    ("a crash at the wall", died(Exit(signal=SIGSEGV, max_rss_bytes=301 * MIB), CRASH, armed=True, memory_curve=((1.0, 200 * MIB), (2.0, 299 * MIB), (3.1, 0))),
     Outcome.MEMORY, LimitName.MEMORY,
     "It crashed with SIGSEGV in load (job.py:57) at 301MiB of memory, its limit of 300MiB, and got no more; it ended after 3.2s."),
    ("an abort at the wall without a dump", died(Exit(signal=SIGABRT, max_rss_bytes=300 * MIB), armed=True, memory_curve=((3.0, 300 * MIB),)), Outcome.MEMORY, LimitName.MEMORY, None),
    ("a crash of one that had had all that it asked for", died(Exit(signal=SIGSEGV, max_rss_bytes=299 * MIB), CRASH, armed=True, memory_curve=((3.0, 299 * MIB),), full_s=0.3), Outcome.CRASHED, None,
     "It crashed with SIGSEGV in load (job.py:57) after 3.2s; it stood at 299MiB of its memory limit of 300MiB, and may have been refused more."),
    ("the same where nothing was armed", died(Exit(signal=SIGSEGV, max_rss_bytes=301 * MIB), CRASH, memory_curve=((3.0, 299 * MIB),)), Outcome.CRASHED, None, None),
    ("a crash below the wall", died(Exit(signal=SIGSEGV, max_rss_bytes=280 * MIB), CRASH, armed=True, memory_curve=((3.0, 280 * MIB),)), Outcome.CRASHED, None, None),
    ("a crash of one that was refused a large piece", died(Exit(signal=SIGSEGV, max_rss_bytes=249 * MIB), replace(CRASH, swallowed_memory=1), armed=True, memory_curve=((3.0, 248 * MIB),)),
     Outcome.MEMORY, LimitName.MEMORY, None),
    ("the same, but it had given back what it had", died(Exit(signal=SIGSEGV, max_rss_bytes=280 * MIB), replace(CRASH, swallowed_memory=1), armed=True, memory_curve=((3.0, 90 * MIB),)),
     Outcome.CRASHED, None, None),
    ("a crash long after the wall", died(Exit(signal=SIGSEGV, max_rss_bytes=301 * MIB), CRASH, armed=True, memory_curve=((1.0, 299 * MIB), (3.0, 90 * MIB))), Outcome.CRASHED, None, None),
    ("tasks that crash at the wall", died(Exit(signal=SIGSEGV, max_rss_bytes=301 * MIB), replace(CRASH, tasks=TASKS.cycle), armed=True, memory_curve=((3.0, 299 * MIB),)),
     Outcome.RECURSION, None, None),
    ("a crash of tasks whose memory had not filled", died(Exit(signal=SIGSEGV, max_rss_bytes=132 * MIB), replace(CRASH, tasks=TASKS.cycle)), Outcome.CRASHED, None, None),
    # stop
    ("stopped by its signal", died(Exit(signal=SIGTERM, asked_to_stop=True)), Outcome.STOPPED, None, "It was asked to stop and ended after 3.2s (SIGTERM)."),
    ("stopped with code 0", died(Exit(code=0, asked_to_stop=True)), Outcome.STOPPED, None, "It was asked to stop and ended after 3.2s (exit code 0)."),
    ("stopped with a traceback", replace(said(exception=error("KeyboardInterrupt")), exit=Exit(code=1, asked_to_stop=True)), Outcome.STOPPED, None, None),
    ("killed after its grace", died(Exit(signal=SIGKILL, killed_for="stop", asked_to_stop=True)), Outcome.STOPPED, None,
     "It was asked to stop, did not, and was killed after 3.2s."),
    ("a limit within the grace", died(Exit(signal=SIGKILL, killed_for="memory", asked_to_stop=True)), Outcome.MEMORY, LimitName.MEMORY, None),
    # never started
    ("no such file", died(Exit(launch_error="python3.99: No such file or directory (in /srv)"), LastWords()), Outcome.LAUNCH_FAILED, None,
     "It could not be started: python3.99: No such file or directory (in /srv)."),
    # the guard's refusal
    ("a script that starts itself", said(lineage=("/srv/app/again.py", 8)), Outcome.RECURSION, LimitName.PROCESSES,
     "Runaway recursion: again.py started itself 8 levels deep, and the guard refused to go on, after 3.2s."),
    # signals
    ("C stack overflow", died(Exit(signal=SIGSEGV), LastWords(spoke=True, fatal_signal="Segmentation fault", fatal_frames=OVERFLOW_DUMP, fatal_truncated=True)),
     Outcome.RECURSION, None, "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 100 levels deep overflowed the C stack: SIGSEGV after 3.2s."),
    ("C stack overflow in a thread: nothing was left to write on", died(Exit(signal=SIGSEGV), processes_peak=2), Outcome.RECURSION, None, None),
    ("the same, and nobody saw how many threads it had", died(Exit(signal=SIGSEGV)), Outcome.RECURSION, None, None),
    ("no word of a crash, and no second thread", died(Exit(signal=SIGSEGV), processes_peak=1), Outcome.CRASHED, None, None),
    ("no word of a crash, for faulthandler was in other hands", died(Exit(signal=SIGSEGV), LastWords(spoke=True, dumps_elsewhere=True)), Outcome.CRASHED, None, None),
    ("another program in the place of a Python", died(Exit(signal=SIGSEGV), fault=Fault(0, 0x7FFF_0000_1000)), Outcome.CRASHED, None, None),
    ("a C stack overflow that nobody handled", died(Exit(signal=SIGSEGV), LastWords(), depth_peak=18_051, fault=Fault(0x7FFF_0000_0FF8, 0x7FFF_0000_1000)), Outcome.RECURSION, None, None),
    ("the same of a program of which nobody knows how deep it was", died(Exit(signal=SIGSEGV), LastWords(), fault=Fault(0x7FFF_0000_0FF8, 0x7FFF_0000_1000)), Outcome.CRASHED, None,
     "It crashed with SIGSEGV after 3.2s; it was beside its C stack, which a recursion without end or a large local variable may have filled."),
    ("a crash that nobody handled, of one that had been deep", died(Exit(signal=SIGSEGV), LastWords(), depth_peak=18_051, fault=Fault(0, 0x7FFF_0000_1000)), Outcome.CRASHED, None,
     "It crashed with SIGSEGV after 3.2s."),
    ("a crash 33 levels down a tree", died(Exit(signal=SIGSEGV), replace(CRASH, fatal_frames=(LOAD, *(B, A) * 16))), Outcome.CRASHED, None, "It crashed with SIGSEGV in load (job.py:57) after 3.2s."),
    ("a crash of which the dump is full, below Python's own limit", died(Exit(signal=SIGSEGV), replace(CRASH, fatal_frames=OVERFLOW_DUMP, recursion_limit=1000)), Outcome.CRASHED, None, None),
    ("the same with its limit raised", died(Exit(signal=SIGSEGV), replace(CRASH, fatal_frames=OVERFLOW_DUMP, recursion_limit=50_000)), Outcome.RECURSION, None, None),
    ("the same, raised where the guard does not see it", died(Exit(signal=SIGSEGV), replace(CRASH, fatal_frames=OVERFLOW_DUMP, recursion_limit=1000), depth_peak=1_640), Outcome.RECURSION, None, None),
    ("a crash of one that had been deep, and was no longer", died(Exit(signal=SIGSEGV), CRASH, depth_peak=18_051), Outcome.CRASHED, None, None),
    *[(f"{number.name} deep down a tree", died(Exit(signal=number), replace(CRASH, fatal_frames=OVERFLOW_DUMP)), Outcome.CRASHED, None, None) for number in (SIGABRT, SIGBUS)],
    ("C stack overflow, watched from outside only", died(Exit(signal=SIGSEGV), LastWords(), depth_peak=18_051), Outcome.RECURSION, None, None),
    ("stack overflow of 3.14", died(Exit(signal=SIGABRT), LastWords(spoke=True, fatal_signal="Fatal Python error: Cannot recover from stack overflow")),
     Outcome.RECURSION, None, None),
    ("null pointer", died(Exit(signal=SIGSEGV), LastWords(spoke=True, fatal_signal="Segmentation fault", fatal_frames=HEALTHY_DUMP)),
     Outcome.CRASHED, None, "It crashed with SIGSEGV in load (job.py:57) after 3.2s."),
    ("a crash below a deep framework", died(Exit(signal=SIGSEGV), LastWords(spoke=True, fatal_signal="Segmentation fault", fatal_truncated=True,
     fatal_frames=tuple(Frame(f"layer{n}", "/srv/app/f.py", n) for n in range(100)))), Outcome.CRASHED, None, None),
    ("a crash after the end of Python", died(Exit(signal=SIGSEGV), LastWords(spoke=True, finalized=True)), Outcome.CRASHED, None, None),
    ("a crash of a C program", died(Exit(signal=SIGBUS), LastWords()), Outcome.CRASHED, None, "It crashed with SIGBUS after 3.2s."),
    *[(f"crash by {number.name}", died(Exit(signal=number), LastWords(spoke=True, fatal_signal="x", fatal_frames=HEALTHY_DUMP)), Outcome.CRASHED, None, None)
      for number in (SIGABRT, SIGILL, SIGFPE, SIGSYS, SIGTRAP)],
    *[(f"somebody's {number.name}", died(Exit(signal=number)), Outcome.SIGNALLED, None, f"{number.name} ended it after 3.2s; Mainstay did not send it.")
      for number in (SIGTERM, SIGINT, SIGHUP, SIGPIPE)],
    ("an alarm of its own, amid its traceback", died(Exit(signal=SIGALRM), LastWords(spoke=True, exception=replace(RECURSION_ERROR, depth=273_144))), Outcome.RECURSION, None,
     ("Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 273,144 levels deep, ended in RecursionError, and was still busy with its traceback "
      "when SIGALRM ended it after 3.2s; Mainstay did not send it.")),
    ("somebody's SIGKILL amid its traceback", died(Exit(signal=SIGKILL), LastWords(spoke=True, exception=RECURSION_ERROR)), Outcome.RECURSION, None, None),
    ("a thread's RecursionError, and somebody's SIGTERM", died(Exit(signal=SIGTERM), LastWords(spoke=True, exception=replace(RECURSION_ERROR, where="thread"))), Outcome.SIGNALLED, None, None),
    ("another error, and somebody's SIGTERM", died(Exit(signal=SIGTERM), LastWords(spoke=True, exception=error("KeyError"))), Outcome.SIGNALLED, None, None),
    ("SIGXCPU", died(Exit(signal=SIGXCPU, cpu_s=90.1)), Outcome.CPU, LimitName.CPU, "It used 1m30s of CPU time; its limit is 1m30s; it was killed after 3.2s."),
    ("SIGXCPU at a line that is not ours", died(Exit(signal=SIGXCPU, cpu_s=0.02)), Outcome.SIGNALLED, None,
     "SIGXCPU ended it after 3.2s; Mainstay did not send it; the kernel sends it at an RLIMIT_CPU, which was not of Mainstay's making."),
    ("SIGXCPU of a swallow loop", died(Exit(signal=SIGXCPU, cpu_s=90.0), swallowed(40)), Outcome.RECURSION, LimitName.CPU, None),
    ("SIGXCPU of one that swallowed some at its start", died(Exit(signal=SIGXCPU, cpu_s=90.0), swallowed(40, ago=2.0)), Outcome.CPU, LimitName.CPU, None),
    ("SIGKILL by nobody knows whom", died(Exit(signal=SIGKILL)), Outcome.SIGNALLED, None,
     "SIGKILL ended it after 3.2s; neither Mainstay nor the kernel's OOM killer sent it."),
    ("SIGKILL where no cgroup and no host count could be read", died(Exit(signal=SIGKILL, oom_kills=None), host_oom_kills=None), Outcome.SIGNALLED, None, None),
    ("SIGKILL at a full memory is still nobody's word for OOM", died(Exit(signal=SIGKILL, oom_kills=0), memory_peak_bytes=299 * MIB), Outcome.SIGNALLED, None, None),
    ("OOM kill in the cgroup", died(Exit(signal=SIGKILL, oom_kills=1, memory_peak_bytes=300 * MIB)), Outcome.MEMORY, LimitName.MEMORY,
     "The kernel killed it at its memory limit of 300MiB after 3.2s."),
    ("OOM kill of a heap of frames", died(Exit(signal=SIGKILL, oom_kills=1), LastWords(spoke=True, cycle=CYCLE)), Outcome.RECURSION, LimitName.MEMORY, None),
    ("OOM kill by the host", died(Exit(signal=SIGKILL, max_rss_bytes=100 * MIB), host_oom_kills=1), Outcome.HOST_OOM, None,
     "The kernel killed it after 3.2s because the host ran out of memory; it used 100MiB itself, within its limit of 300MiB."),
    ("the hard CPU limit", died(Exit(signal=SIGKILL, cpu_s=92.0)), Outcome.CPU, LimitName.CPU, None),
    # exceptions
    ("RecursionError at our limit, which the guard had set", said(exception=RECURSION_ERROR), Outcome.RECURSION, LimitName.RECURSION,
     "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 1,001 levels deep, stopped at its recursion limit of 400 after 3.2s."),
    ("RecursionError at a lower limit of its own", said(exception=replace(RECURSION_ERROR, depth=50)), Outcome.RECURSION, None,
     "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 50 levels deep, ended in RecursionError after 3.2s."),
    ("RecursionError by hand", said(exception=replace(error("RecursionError", "config includes itself"), is_raised=True)), Outcome.EXCEPTION, None,
     "RecursionError: config includes itself, in load (job.py:57), after 3.2s."),
    ("the same of a guard that does not say by whom", said(exception=error("RecursionError", "config includes itself")), Outcome.EXCEPTION, None, None),
    ("by hand, in the interpreter's words and as deep", said(exception=replace(RECURSION_ERROR, is_raised=True)), Outcome.EXCEPTION, None, None),
    ("in the interpreter's words, but at the top", said(exception=error("RecursionError", "maximum recursion depth exceeded")), Outcome.EXCEPTION, None, None),
    ("by sys.setrecursionlimit", said(exception=replace(error("RecursionError", "cannot set the recursion limit to 5 at the recursion depth 9: the limit is too low"), is_raised=False)), Outcome.EXCEPTION, None, None),
    ("in C code", said(exception=replace(error("RecursionError", "maximum recursion depth exceeded while decoding a JSON array"), is_raised=False)), Outcome.RECURSION, None,
     "Runaway recursion in C code called by load (job.py:57), of unknown depth, ended in RecursionError after 3.2s."),
    ("in 3.14's words", said(exception=replace(error("RecursionError", "Stack overflow (used 8000 kB) in comparison"), is_raised=False)), Outcome.RECURSION, None, None),
    ("of a class of its own", said(exception=replace(RECURSION_ERROR, type="app.RecursionError")), Outcome.EXCEPTION, None, None),
    ("by hand in a thread", said(1, exception=replace(error("RecursionError", "cyclic", where="thread"), is_raised=True)), Outcome.FAILED, None, None),
    ("in a worker, told by its traceback", said(exception=replace(error("RecursionError", "maximum recursion depth exceeded", (MAIN,)), is_raised=True, root=replace(RECURSION_ERROR, where="child"))),
     Outcome.RECURSION, LimitName.RECURSION, "Runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 1,001 levels deep, stopped at its recursion limit of 400 after 3.2s."),
    ("by hand in a worker", said(exception=replace(error("RecursionError", "cyclic bom", (MAIN,)), is_raised=True, root=error("RecursionError", "cyclic bom", where="child"))), Outcome.EXCEPTION, None,
     "RecursionError: cyclic bom, in load (job.py:57), after 3.2s."),
    ("in a group that nobody took apart", said(exception=replace(error("ExceptionGroup", "unhandled errors in a TaskGroup (1 sub-exception)"), is_raised=True, root=RECURSION_ERROR)), Outcome.RECURSION, LimitName.RECURSION, None),
    ("made something else of", said(exception=replace(error("ValueError", "bad tree"), is_raised=True, root=RECURSION_ERROR)), Outcome.EXCEPTION, None,
     "ValueError: bad tree, in load (job.py:57), after 3.2s; it came from a runaway recursion: visit → walk → visit (tree.py:20, tree.py:14), 1,001 levels deep, at its recursion limit of 400."),
    ("RecursionError without frames", said(exception=error("RecursionError", frames=(), depth=1001)), Outcome.RECURSION, LimitName.RECURSION, None),
    ("recursion that lost its MemoryError", said(exception=error("SystemError", "<built-in> error return without exception set", depth=900_000)), Outcome.RECURSION, None, None),
    ("the same words from a shallow stack", said(exception=error("SystemError", "error return without exception set")), Outcome.EXCEPTION, None, None),
    ("at the wall of its rlimit", killed(LimitName.MEMORY, 297 * MIB, 300 * MIB, detail=AT_THE_WALL), Outcome.MEMORY, LimitName.MEMORY,
     "It stood at 297MiB of memory of 300MiB and only asked for more, which it did not get; it was killed after 3.2s."),
    ("no stack for a thread at the memory limit", replace(said(exception=error("RuntimeError", "can't start new thread")), memory_peak_bytes=301 * MIB), Outcome.MEMORY, LimitName.MEMORY, None),
    ("no thread far below it", replace(said(exception=error("RuntimeError", "can't start new thread")), memory_peak_bytes=30 * MIB), Outcome.EXCEPTION, None, None),
    ("the same words at the memory limit", replace(said(exception=error("SystemError", "error return without exception set")), memory_peak_bytes=301 * MIB), Outcome.MEMORY, LimitName.MEMORY, None),
    ("MemoryError", replace(said(exception=error("MemoryError")), memory_peak_bytes=298 * MIB), Outcome.MEMORY, LimitName.MEMORY,
     "MemoryError in load (job.py:57) at 298MiB; its limit is 300MiB. It ended after 3.2s."),
    ("numpy's MemoryError", replace(said(exception=error("numpy._core._exceptions._ArrayMemoryError")), memory_peak_bytes=298 * MIB), Outcome.MEMORY, LimitName.MEMORY, None),
    ("a MemoryError above the soft line, where an rlimit was armed", replace(said(exception=error("MemoryError")), memory_peak_bytes=230 * MIB, armed=True), Outcome.MEMORY, LimitName.MEMORY, None),
    ("a MemoryError far below it", replace(said(exception=replace(error("MemoryError"), is_raised=False)), memory_peak_bytes=12 * MIB), Outcome.EXCEPTION, None,
     "MemoryError, in load (job.py:57), after 3.2s; at 12MiB, far below its memory limit of 300MiB: it asked for more at once than there is, or met another limit."),
    ("a MemoryError by hand", replace(said(exception=replace(error("MemoryError", "tile too big"), is_raised=True)), memory_peak_bytes=298 * MIB), Outcome.EXCEPTION, None,
     "MemoryError: tile too big, in load (job.py:57), after 3.2s."),
    ("a MemoryError of the parser", replace(said(exception=error("MemoryError", "Parser stack overflowed - Python source too complex to parse")), memory_peak_bytes=298 * MIB), Outcome.EXCEPTION, None, None),
    ("a MemoryError by hand at the bottom of a heap of frames", said(exception=replace(error("MemoryError", "", (MAIN, *(A, B) * 90), 900_000), is_raised=True)), Outcome.EXCEPTION, None, None),
    ("a want of memory that it made something else of", replace(said(exception=replace(error("ValueError", "bad tile"), root=error("MemoryError"))), memory_peak_bytes=298 * MIB), Outcome.EXCEPTION, None,
     "ValueError: bad tile, in load (job.py:57), after 3.2s; it came from MemoryError in load (job.py:57)."),
    ("no thread, by hand", replace(said(exception=replace(error("RuntimeError", "can't start new thread"), is_raised=True)), memory_peak_bytes=301 * MIB), Outcome.EXCEPTION, None, None),
    ("MemoryError at the bottom of a heap of frames", said(exception=error("MemoryError", "", (MAIN, *(A, B) * 90), 900_000)), Outcome.RECURSION, LimitName.MEMORY, None),
    ("the memory of a graphics card", said(exception=error("torch.OutOfMemoryError", "CUDA")), Outcome.EXCEPTION, None, None),
    ("an exception", said(exception=error("KeyError", "'id'")), Outcome.EXCEPTION, None, "KeyError: 'id', in load (job.py:57), after 3.2s."),
    ("an exception after a worker was OOM-killed", replace(said(exception=error("BrokenProcessPool")), exit=Exit(code=1, oom_kills=2)), Outcome.WORKER_LOST, LimitName.MEMORY,
     "The kernel killed 2 processes of its tree at its memory limit of 300MiB; the rest gave up after 3.2s (exit code 1)."),
    ("a worker was OOM-killed and replaced", died(Exit(code=0, oom_kills=1)), Outcome.SUCCEEDED, None, None),
    ("no more processes", died(Exit(code=1, pids_max_hits=40)), Outcome.PROCESSES, LimitName.PROCESSES,
     "It was refused a process at its limit of 16 and ended after 3.2s (exit code 1)."),
    ("an exception in a thread", said(0, exception=error("ValueError", where="thread")), Outcome.SUCCEEDED, None, "It succeeded after 3.2s; but a thread of it died of ValueError."),
    ("an exception in a thread before an exit code", said(1, exception=error("KeyError", where="thread")), Outcome.FAILED, None, "It ended with exit code 1 after 3.2s; but a thread of it died of KeyError."),
    ("a thread that was refused memory, and was waited for", replace(said(exception=error("MemoryError", "", where="thread")), exit=Exit(signal=9, killed_for=LimitName.TIME), memory_peak_bytes=301 * MIB),
     Outcome.TIME, LimitName.TIME, "It ran for 3.2s; its time limit is 2m, and it was killed; but a thread of it died of MemoryError at its memory limit of 300MiB."),
    ("a child that died of an exception, and was tolerated", said(0, exception=error("RecursionError", where="child")), Outcome.SUCCEEDED, None, "It succeeded after 3.2s; but a process of it died of RecursionError."),
    ("an exception that nobody could catch", said(0, exception=error("ValueError", where="unraisable")), Outcome.SUCCEEDED, None, "It succeeded after 3.2s; but ValueError was raised where nobody could catch it."),
    ("output that could not be flushed", said(120, exception=error("OSError", "[Errno 9] Bad file descriptor", (), where="unraisable")), Outcome.EXCEPTION, None,
     "OSError: [Errno 9] Bad file descriptor, when its output was flushed at its end after 3.2s (exit code 120)."),
    ("an exit code of 120 of its own", said(120), Outcome.FAILED, None, "It ended with exit code 120 after 3.2s."),
    ("an exception in a thread, and a bad code", said(3, exception=error("ValueError", where="thread")), Outcome.FAILED, None, None),
    # exit codes
    ("exit 0", said(0), Outcome.SUCCEEDED, None, "It succeeded after 3.2s."),
    *[(f"exit {code}", said(code), Outcome.FAILED, None, f"It ended with exit code {code} after 3.2s.") for code in (1, 2, 124, 137, 143, 139, 255)],
    ("no record of an end", Evidence(Exit()), Outcome.LOST, None, "How it ended cannot be known: there is no record of its end."),
]  # fmt: skip


@pytest.mark.parametrize(("evidence", "outcome", "limit", "summary"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_death_has_its_verdict(evidence, outcome, limit, summary):
    verdict = judge(LIMITS, Expect(), evidence)
    assert (verdict.outcome, verdict.limit) == (outcome, limit)
    if summary is not None:
        assert verdict.summary == summary


def test_the_cases_cover_every_outcome_but_the_unmet_expectation():
    assert {case[2] for case in CASES} == set(Outcome) - {Outcome.UNMET}


@pytest.mark.parametrize(
    ("expect", "evidence", "outcome", "summary"),
    [
        (Expect(records_at_least=1), said(0), Outcome.UNMET,
         "It ended with exit code 0 after 3.2s, but reported no records; at least 1 were expected."),
        (Expect(records_at_least=1000), replace(said(0), records=999), Outcome.UNMET,
         "It ended with exit code 0 after 3.2s, but processed 999 records; at least 1,000 were expected."),
        (Expect(records_at_least=1000), replace(said(0), records=1000), Outcome.SUCCEEDED, "It succeeded after 3.2s."),
        (Expect(success_exit_codes=frozenset({0, 3})), said(3), Outcome.SUCCEEDED, "It succeeded after 3.2s."),
        (Expect(success_exit_codes=frozenset({3})), said(0), Outcome.FAILED, "It ended with exit code 0 after 3.2s."),
    ],
)  # fmt: skip
def test_what_counts_as_success_is_the_users_to_say(expect, evidence, outcome, summary):
    verdict = judge(LIMITS, expect, evidence)
    assert (verdict.outcome, verdict.summary) == (outcome, summary)


def test_a_memory_error_without_a_memory_limit_is_an_exception():
    assert judge(Limits(memory_bytes=None), Expect(), said(exception=error("MemoryError"))).outcome is Outcome.EXCEPTION


def test_the_evidence_names_each_fact_with_its_source():
    evidence = died(
        Exit(signal=SIGKILL, killed_for="memory", oom_kills=1, cpu_s=2.5, max_rss_bytes=310 * MIB, leftovers=2, unkillable=(77,)),
        LastWords(
            spoke=True,
            exception=RECURSION_ERROR,
            swallowed_recursion=3,
            asked_limit=10**9,
            cycle=replace(CYCLE, notes=("n never changes",)),
        ),
        breach=Breach(LimitName.MEMORY, 312.4 * MIB, 300 * MIB),
        look=replace(DEEP, exception_in_flight="RecursionError", waiting="futex", note="two threads unreadable"),
        depth_peak=52_560,
        swallowed_seen=2,
        host_oom_kills=1,
    )
    assert judge(LIMITS, Expect(), evidence).evidence == (
        "we killed it: memory 312.4MiB over 300MiB",
        "kernel: SIGKILL",
        "kernel: memory.events oom_kill 1",
        "kernel: the host's oom_kill count rose by 1",
        "memory peak 310MiB, CPU time 2.5s",
        "2 processes left behind, ended by us",
        "cannot be killed: pid 77",
        "guard: RecursionError, 1,001 levels deep",
        "guard: 3 RecursionErrors caught by the job",
        "guard: the job asked for a recursion limit of 1,000,000,000 and did not get it",
        "look: 52,560 levels deep, its own recursion limit is 1,000,000,000",
        "look: RecursionError in flight",
        "look: waiting: futex",
        "look: two threads unreadable",
        "samples: deepest stack 52,560 levels",
        "samples: 2 looks found a RecursionError on its way or the stack at its limit",
        "cycle: n never changes",
    )


def test_a_cycle_is_only_reported_where_it_is_the_cause():
    walking = killed(LimitName.TIME, 120, 120, look=Look(stacks=(Stack(1, (A, B) * 30, 60),), depth=60))
    assert judge(LIMITS, Expect(), walking).cycle is None
    assert judge(LIMITS, Expect(), killed(LimitName.RECURSION, 52_560, 400, look=DEEP)).cycle.depth == 52_560


def test_one_bug_has_one_fingerprint_over_all_its_costumes():
    costumes = [
        said(exception=RECURSION_ERROR),
        killed(LimitName.RECURSION, 52_560, 400, look=DEEP),
        killed(LimitName.MEMORY, 312 * MIB, 300 * MIB, look=DEEP),
        died(Exit(signal=SIGSEGV), LastWords(spoke=True, fatal_signal="Segmentation fault", fatal_frames=OVERFLOW_DUMP)),
        died(Exit(signal=SIGKILL, oom_kills=1), LastWords(spoke=True, cycle=CYCLE)),
        killed(LimitName.TIME, 120, 120, words=swallowed(99, cycle=replace(CYCLE, frames=(B, A), depth=999))),
    ]
    names = {fingerprint_of("job", judge(LIMITS, Expect(), costume), costume) for costume in costumes}
    assert len(names) == 1
    assert {len(name) for name in names} == {12}


# ---------------------------------------------------------------- properties

frames = st.lists(st.sampled_from([A, B, MAIN, LOAD]), max_size=30).map(tuple)
words = st.builds(
    LastWords,
    spoke=st.booleans(),
    finalized=st.booleans(),
    exception=st.one_of(
        st.none(),
        st.builds(
            ExceptionFacts,
            st.sampled_from(["RecursionError", "MemoryError", "SystemError", "KeyError", "x.Y"]),
            st.text(max_size=30),
            frames,
            st.integers(0, 10**6),
            st.sampled_from(["main", "thread", "unraisable"]),
        ),
    ),
    cycle=st.one_of(st.none(), st.builds(Cycle, frames, st.integers(0, 10**6), st.sampled_from(CycleKind))),
    fatal_signal=st.one_of(st.none(), st.text(max_size=20)),
    fatal_frames=frames,
    swallowed_recursion=st.integers(0, 100),
    swallowed_memory=st.integers(0, 100),
    lineage=st.one_of(st.none(), st.tuples(st.text(max_size=10), st.integers(1, 9))),
)
exits = st.one_of(
    st.builds(Exit, code=st.integers(0, 255), oom_kills=st.one_of(st.none(), st.integers(0, 2)), asked_to_stop=st.booleans()),
    st.builds(
        Exit,
        signal=st.integers(1, 64),
        killed_for=st.one_of(st.none(), st.sampled_from([*LimitName, "stop", "reload"])),
        oom_kills=st.one_of(st.none(), st.integers(0, 2)),
    ),
    st.builds(Exit, launch_error=st.text(max_size=20)),
    st.just(Exit()),
)
evidences = st.builds(
    Evidence,
    exit=exits,
    words=words,
    breach=st.one_of(st.none(), st.builds(Breach, st.sampled_from(LimitName), st.floats(0, 1e12), st.floats(0, 1e12))),
    look=st.one_of(
        st.none(), st.builds(Look, st.lists(st.builds(Stack, st.just(1), frames, st.integers(0, 10**6)), max_size=2).map(tuple))
    ),
    soft_look=st.one_of(st.none(), st.just(CLIMBED["soft_look"])),
    stack_share=st.floats(0, 1),
    armed=st.booleans(),
    memory_curve=st.one_of(st.just(()), st.just(((1.0, 299 * MIB),))),
    depth_peak=st.integers(0, 10**6),
    host_oom_kills=st.one_of(st.none(), st.integers(0, 2)),
    duration_s=st.floats(0, 1e9),
)


@given(evidence=evidences)
def test_any_evidence_has_a_verdict_in_one_line_of_printable_words(evidence):
    verdict = judge(LIMITS, Expect(), evidence)
    assert verdict.summary.isprintable()
    assert verdict.summary.endswith(".") or len(verdict.summary) >= 2000
    assert all(line.isprintable() for line in verdict.evidence)
    assert len(fingerprint_of("job", verdict, evidence)) == 12
    exit_ = evidence.exit
    # What must hold whatever the evidence:
    if verdict.outcome is Outcome.SUCCEEDED:
        assert exit_.code == 0
        assert exit_.killed_for is None
    if exit_.signal is not None and exit_.killed_for is None and evidence.words.lineage is None:
        assert verdict.outcome not in (Outcome.FAILED, Outcome.EXCEPTION, Outcome.TIME, Outcome.STALLED, Outcome.OUTPUT)
    if verdict.outcome is Outcome.HOST_OOM:
        assert evidence.host_oom_kills


@given(code=st.integers(1, 255), text=st.text(max_size=50))
def test_an_exit_code_alone_is_never_more_than_a_failure(code, text):
    del text  # no field of the evidence takes what the job wrote: words cannot reach a verdict
    assert judge(LIMITS, Expect(), said(code)).outcome is Outcome.FAILED


# ---------------------------------------------------------------- evidence before a kill, and whom the kernel named


WRAPPER = Frame("<module>", "/opt/acme/bin/acme", 8)
DUMPS = Frame("dumps", "/opt/acme/lib/python3.12/json/__init__.py", 231)


def test_a_recursion_in_c_code_is_placed_in_an_application_that_is_installed():
    frames = (WRAPPER, *(Frame(name, f"/opt/acme/lib/python3.12/site-packages/acme/{name}.py", 4) for name in ("cli", "orders")), DUMPS)
    raised = replace(error("RecursionError", "maximum recursion depth exceeded while encoding a JSON object", frames), is_raised=False)
    verdict = judge(Limits(), Expect(), said(exception=raised))
    assert verdict.summary.startswith("Runaway recursion in C code called by orders (orders.py:4)")


LINE = Frame("load", "/srv/job.py", 57)
HANG = Study(Pace.HANGING, 12, 2.2)


def growing(line=LINE, memory_errors=0, at_limit=0):
    return Study(Pace.BUSY, 10, 0.5, growing=True, busy=(BusyLine(line, 9, 10),), memory_errors=memory_errors, at_limit=at_limit)


def judged(evidence, limits=Limits(memory_bytes=100 << 20, time_s=60.0, cpu_s=50.0)):  # noqa: B008
    return judge(limits, Expect(), evidence)


def test_a_memory_error_whose_traceback_was_cut_is_placed_by_the_looks():
    cut = ExceptionFacts("MemoryError", "", (Frame("<module>", "/srv/job.py", 1),), 1)
    stack = Stack(7, (LINE, Frame("<module>", "/srv/job.py", 1)), 2)
    words = LastWords(spoke=True, exception=cut)
    found = judged(Evidence(Exit(code=1), words, look=Look(stacks=(stack,)), study=growing(), memory_peak_bytes=99 << 20))
    assert found.outcome is Outcome.MEMORY
    assert "MemoryError in load (job.py:57)" in found.summary


def test_a_memory_error_of_a_thread_at_the_limit_is_memory_and_far_below_it_is_not():
    error = ExceptionFacts("MemoryError", "", (LINE,), 1, where="thread")
    near, far = (judged(Evidence(Exit(code=1), LastWords(spoke=True, exception=error), memory_peak_bytes=size << 20)) for size in (99, 30))
    assert (near.outcome, near.limit) == (Outcome.MEMORY, LimitName.MEMORY)
    assert "in a thread of it" in near.summary
    assert (far.outcome, far.limit) == (Outcome.FAILED, None)
    armed, early = (
        judged(Evidence(Exit(code=1), LastWords(spoke=True, exception=error), memory_peak_bytes=size << 20, armed=True))
        for size in (80, 70)
    )
    assert (armed.outcome, early.outcome) == (
        Outcome.MEMORY,
        Outcome.FAILED,
    )  # an rlimit from the soft line on counts what threads reserve, too


def test_memory_errors_that_looks_found_on_their_way_are_the_cause_behind_the_cpu_limit():
    killed = Exit(signal=9, killed_for="cpu")
    breach = Breach(LimitName.CPU, 50, 50)
    swallowing = judged(Evidence(killed, breach=breach, study=growing(memory_errors=2, at_limit=9)))
    assert (swallowing.outcome, swallowing.limit) == (Outcome.MEMORY, LimitName.CPU)
    for study in (growing(memory_errors=1, at_limit=10), growing(memory_errors=5, at_limit=1), growing(at_limit=10), None):
        assert judged(Evidence(killed, breach=breach, study=study)).outcome is Outcome.CPU


def test_a_crash_after_memory_errors_that_were_caught_is_memory_and_any_other_is_a_crash():
    words = swallowed(memory=608_768, fatal_signal="SIGSEGV")
    full = judged(died(Exit(signal=11), words, memory_peak_bytes=99 << 20))
    assert (full.outcome, full.limit) == (Outcome.MEMORY, LimitName.MEMORY)
    assert "608,768 MemoryErrors" in full.summary
    assert judged(died(Exit(signal=11), words, memory_peak_bytes=9 << 20)).outcome is Outcome.CRASHED
    long_ago = swallowed(memory=608_768, ago=2.0, fatal_signal="SIGSEGV")
    assert judged(died(Exit(signal=11), long_ago, memory_peak_bytes=99 << 20)).outcome is Outcome.CRASHED
    few = LastWords(spoke=True, swallowed_memory=3, fatal_signal="SIGSEGV", fatal_frames=(LINE,))
    assert judged(Evidence(Exit(signal=11), few, memory_peak_bytes=99 << 20)).outcome is Outcome.CRASHED


def test_whom_the_kernels_log_names_decides_over_the_hosts_count():
    killed = Exit(signal=9)
    ours = OomVictim(10, "python", 5 << 20, in_cgroup=False, is_main=True)
    worker = OomVictim(11, "python", 5 << 20, in_cgroup=False)
    assert judged(Evidence(killed, host_oom_kills=1, oom_victims=(ours,))).outcome is Outcome.HOST_OOM
    assert judged(Evidence(killed, host_oom_kills=1, oom_victims=())).outcome is Outcome.SIGNALLED
    assert judged(Evidence(killed, host_oom_kills=1, oom_victims=None)).outcome is Outcome.HOST_OOM
    assert judged(Evidence(Exit(code=3), host_oom_kills=1, oom_victims=(worker,))).outcome is Outcome.WORKER_LOST
    assert judged(Evidence(Exit(code=0), host_oom_kills=1, oom_victims=(worker,))).outcome is Outcome.SUCCEEDED
    timed = judged(Evidence(Exit(signal=9, killed_for="time"), breach=Breach(LimitName.TIME, 60, 60), oom_victims=(worker,)))
    assert (timed.outcome, timed.limit) == (Outcome.WORKER_LOST, LimitName.TIME)


def test_the_sender_of_a_signal_is_named_where_the_kernel_tells():
    by_shell = judged(Evidence(Exit(signal=15), sender=Sender(15, 812, "sh")))
    assert by_shell.outcome is Outcome.SIGNALLED
    assert "sh (pid 812) sent it" in by_shell.summary
    assert "kernel: SIGTERM was sent by pid 812 (sh)" in by_shell.evidence
    assert "it sent it to itself" in judged(Evidence(Exit(signal=9), sender=Sender(9, 8, "x", is_self=True))).summary
    handled = judged(Evidence(Exit(code=3), sender=Sender(15, 812, "evil\x1b[31m")))
    assert handled.outcome is Outcome.FAILED
    assert "kernel: SIGTERM was sent by pid 812 (evil\\x1b[31m)" in handled.evidence


def test_what_a_hang_waited_for_and_a_loop_went_round_is_judged():
    threads = (Waiting(1, 1, "waiting for a lock", "futex_do_wait", 202), Waiting(1, 2, "waiting for a lock", "futex_do_wait", 202))
    timed = Evidence(Exit(signal=9, killed_for="time"), breach=Breach(LimitName.TIME, 60, 60))
    hung = judged(replace(timed, look=Look(waiting="all 2 threads wait for locks", threads=threads), study=HANG))
    assert ", hanging: all 2 threads wait for locks" in hung.summary
    assert "kernel: 2 threads waiting for a lock (wait channel futex_do_wait, system call 202)" in hung.evidence
    busy = judged(
        replace(timed, look=Look(waiting="running"), study=Study(Pace.BUSY, 12, 2.2, 0.98, busy=(BusyLine(LINE, 12, 12, in_c=True),)))
    )
    assert ", in load (job.py:57), busy inside C" in busy.summary
    assert "busy: in load (job.py:57) in 12 of 12 looks, always at the same call: inside C" in busy.evidence


@pytest.mark.parametrize("where", ["main", "thread", "unraisable", "child"])
def test_where_an_exception_was_is_not_where_the_rest_met_its_limit(where):
    words = LastWords(spoke=True, exception=error("ValueError", "", (MAIN, A), where=where))
    hangs = died(Exit(signal=9, killed_for="time"), words, breach=Breach(LimitName.TIME, 120, 120), look=SLOW, study=HANG)
    assert ", in load (job.py:57), hanging" in judged(hangs).summary


CENSUS = Frame("_take", "/opt/mainstay/guard/site/_mainstay_guard/census.py", 65)
STARTING = Frame("Thread._bootstrap", "/usr/lib/python3.12/threading.py", 1030)


def test_neither_our_guard_nor_a_thread_that_just_starts_is_where_it_was():
    killed = Evidence(Exit(signal=9, killed_for="memory"), breach=Breach(LimitName.MEMORY, 120 << 20, 100 << 20))
    stacks = (Stack(1, (CENSUS,), 1), Stack(2, (STARTING,), 1), Stack(3, (CENSUS, LINE), 2))
    assert judged(replace(killed, look=Look(stacks=stacks))).summary.endswith(", in load (job.py:57).")
    assert judged(replace(killed, look=Look(stacks=stacks[:2]))).summary.endswith(", in Thread._bootstrap (threading.py:1030).")
    assert judged(replace(killed, look=Look(stacks=stacks[:1]))).summary.endswith("killed after 0s.")
    seen = Study(Pace.BUSY, 10, 0.5, growing=True, busy=(BusyLine(LINE, 3, 10),))
    asleep = Stack(4, (Frame("<module>", "/srv/job.py", 8),), 1)
    assert judged(replace(killed, look=Look(stacks=(stacks[1], asleep)), study=seen)).summary.endswith(", in load (job.py:57).")


def test_a_stack_that_the_guard_was_asked_for_stands_in_where_nobody_could_look():
    words = LastWords(spoke=True, asked_frames=(LINE,))
    killed = judged(Evidence(Exit(signal=9, killed_for="time"), words, breach=Breach(LimitName.TIME, 60, 60), look=Look(note="not seen")))
    assert killed.stacks == (Stack(0, (LINE,), 1),)
    assert "load (job.py:57)" in killed.summary
    by_itself = judged(Evidence(Exit(code=1), words))
    assert by_itself.stacks == ()


def test_memory_that_several_processes_share_is_told_to_count_for_each():
    told = "pages that they share"
    over = killed(LimitName.MEMORY, 324 * MIB, 300 * MIB, processes_peak=13)
    assert any(told in fact for fact in judge(LIMITS, Expect(), over).evidence)
    by_the_kernel = replace(over, exit=replace(over.exit, memory_peak_bytes=300 * MIB))
    for other in (replace(over, processes_peak=1), by_the_kernel):
        assert not any(told in fact for fact in judge(LIMITS, Expect(), other).evidence)
