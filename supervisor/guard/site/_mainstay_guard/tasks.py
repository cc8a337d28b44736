"""Who starts whom among asyncio tasks, asked for from outside (SIGURG) when memory runs short.

A coroutine that starts itself again has no stack that grows and no limit in Python; what gives it away is that thousands of its tasks wait and that
it is its own kind that starts them. So the tasks are counted once, and then the next few starts are watched by a profile function in the thread
of the loop, which takes itself away again after WATCHED starts or WATCH_S (LONGEST_S where the thread hardly gets to run). Where two kinds take turns, those
are all of one kind: while one that makes up much of the tasks was started by such a kind and has not been seen to start any itself, it stays for its turn,
OPEN_CPU_S at most. A job without asyncio pays one look into sys.modules.
"""

import sys
import time

from _mainstay_guard import files, report

WATCHED = 2000  # starts of tasks that are looked at: where two kinds take turns, both should be among them
WATCH_S = 0.3
WATCH_CPU_S = 0.1  # that long is nothing on a busy machine, unless the thread has computed for this long as well
LONGEST_S = 3.0
OPEN_STEP_S = 0.02
OPEN_CPU_S = 1.5
OPEN_S = 10.0
LARGE_SHARE = 10  # one in so many tasks
EARLY = 200  # starts after which what is known is written down: the job may not live to the end of the watch
FEWEST = 1000  # tasks; fewer do not fill a memory
MOST_KINDS = 64
PAIRS = 8  # starts whose arguments are kept, of each kind
MOST_PAIRS = 32
ROUTES = 64  # frames between a task's own and the call that makes a task

_busy = []
_starts = {}  # (code of the starter, its line, code of the started) -> how often, over all times we were asked
_pairs = {}  # the same key -> arguments of the starter and of the started


def asked(frame, ours):
    """Called by the handler of SIGURG, each time, as kinds of tasks may take turns: in the main thread, between two instructions of the job."""
    if "asyncio.tasks" in sys.modules and not _busy:
        _take(sys.modules["asyncio.tasks"])


def _take(asyncio_tasks):
    loop = _running_loop()
    if loop is None or sys.getprofile() is not None:
        return
    kinds = {}
    total = 0
    for task in asyncio_tasks.all_tasks(loop):
        total += 1
        code = _code_of(task)
        if code is not None and (code in kinds or len(kinds) < MOST_KINDS):
            kinds[code] = kinds.get(code, 0) + 1
    task = None
    if total >= FEWEST:
        _busy.append(True)
        sys.setprofile(_watcher(asyncio_tasks, loop, total, kinds))


def _running_loop():
    """The event loop that runs in this thread, None if none does."""
    events = sys.modules.get("asyncio.events")
    running = getattr(events, "_get_running_loop", None)
    return running() if running is not None else None


def _code_of(task):
    coroutine = task.get_coro()
    return getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)


def _watcher(asyncio_tasks, loop, total, kinds):
    """A profile function that notes which coroutine starts which, and where."""
    began, began_cpu = time.monotonic(), time.thread_time()
    seen, fresh = [0], [0]
    known = set()  # who was seen to start tasks; empty until a turn is waited for
    due = [0.0]
    current_task = asyncio_tasks.current_task
    clock = time.monotonic

    def is_over(lasted):
        if lasted < due[0]:
            return False
        cpu_s = time.thread_time() - began_cpu
        if not known:
            if seen[0] < WATCHED and lasted < LONGEST_S and (lasted < WATCH_S or cpu_s < WATCH_CPU_S):
                return False
            _write(total, kinds)
        if fresh[0] >= PAIRS:
            known.update(key[0] for key in _starts)
            fresh[0] = 0
        due[0] = lasted + OPEN_STEP_S
        return lasted >= OPEN_S or cpu_s >= OPEN_CPU_S or not _waits_for_a_turn(known, total, kinds)

    def profile(frame, event, argument):
        try:
            if event == "call" and frame.f_code.co_name == "create_task" and "coro" in frame.f_code.co_varnames:
                if "asyncio" in frame.f_code.co_filename and frame.f_locals.get("self") is loop:
                    task = current_task(loop)
                    if not known or (task is not None and _code_of(task) not in known):
                        _note(frame, task)
                        fresh[0] += 1
                    seen[0] += 1
                    if seen[0] == EARLY:
                        _write(total, kinds)
            elif event != "return":
                return
            lasted = clock() - began
            if (seen[0] >= WATCHED or lasted >= WATCH_S) and is_over(lasted):
                sys.setprofile(None)
                _write(total, kinds)
                del _busy[:]
        except Exception:
            sys.setprofile(None)
            del _busy[:]

    return profile


def _waits_for_a_turn(known, total, kinds):
    """Whether a kind that was started by many has itself not been seen to start any, although there are many of it."""
    return any(
        started not in known and kinds.get(started, 0) * LARGE_SHARE >= total and kinds.get(starter, 0) * LARGE_SHARE >= total
        for starter, _, started in _starts
    )


def _note(frame, task):
    """One start of a task: *frame* is create_task of the loop, *task* the one that runs."""
    coroutine = frame.f_locals.get("coro")
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    if task is None or code is None:
        return
    starter = _code_of(task)
    caller = frame.f_back
    for _ in range(ROUTES):
        if caller is None or caller.f_code is starter:
            break
        caller = caller.f_back
    else:
        caller = None
    key = (starter, caller.f_lineno if caller is not None else 0, code)
    if key not in _starts and len(_starts) >= MOST_KINDS:
        return
    _starts[key] = _starts.get(key, 0) + 1
    started = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    if caller is not None and started is not None:
        pairs = _pairs.setdefault(key, [])
        if len(pairs) >= PAIRS:
            del pairs[0]
        pairs.append((starter, report.arguments_of(caller), code, report.arguments_of(started)))


def _write(total, kinds):
    paths = []
    starts = _starts
    pairs = [pair for found in _pairs.values() for pair in found][-MOST_PAIRS:]
    codes = list(dict.fromkeys(list(kinds) + [key[0] for key in starts] + [key[2] for key in starts]))
    place = {code: number for number, code in enumerate(codes)}
    record = {
        "total": total,
        "functions": [report._frame(code, code.co_firstlineno, paths) for code in codes],
        "tasks": [kinds.get(code, 0) for code in codes],
        "starts": [[place[starter], line, place[started], often] for (starter, line, started), often in starts.items() if starter in place],
        "files": paths,
        "pairs": [[place[starter], given, place[started], handed] for starter, given, started, handed in pairs if started in place],
    }
    payload = report.dump(record)
    if len(payload) > files.TASKS_BYTES:
        record["pairs"] = []
        payload = report.dump(record)
    if len(payload) <= files.TASKS_BYTES:
        report.commit(files.TASKS, payload)
