"""Counts the RecursionErrors and MemoryErrors that the job's own code catches (3.12 and later: sys.monitoring).

One callback, for exceptions that reach a handler; code that raises none pays nothing, a handled one costs 45 to 70 ns. It may run at the recursion
limit, where no further Python call fits: so it calls nothing of ours, and the stack is written down by a helper thread, which has a recursion
counter of its own. In a frame that stands at the very limit even the callback does not fit: there the interpreter passes over that frame's handler and the
RecursionError goes on to the one above it, as if the limit were one lower. MAINSTAY_COUNT_SWALLOWED=no switches all of this off.
"""

import _thread
import posix
import sys
from time import monotonic_ns

from _mainstay_guard import files

MARK = "_mainstay_counted"
STEP = 64  # counts between two writes once there are many: 300,000 swallowed MemoryErrors a second were seen
PAUSE_NS = 100000000  # but not much longer than that
LAST = 16  # of which it is told when they were: whether they still go on when a limit strikes, or were long ago
PATIENCE_S = 0.5
LOOKS = (1, 16, 1024, 65536)  # the first may be a healthy one, so the stack is looked at again when they do not end
MOST_TYPES = 256  # remembered as harmless; they live as long as the process
WATCHED = (RecursionError, MemoryError)
OVERRUN = ("maximum recursion depth exceeded", "Stack overflow")  # the interpreter's own words
ARGUMENTS = BaseException.__dict__["args"]  # whatever a class of the job's makes of that name

_counts = [0, 0]
_times = ([0] * LAST, [0] * LAST)
_written = [0, 0]
_harmless = set()
_report = None


def watch(report):
    """Start counting; the pair [RecursionErrors, MemoryErrors], or None where no tool number is free. *report* gives the module that writes stacks down."""
    global _report
    _report = report
    monitoring = sys.monitoring
    for tool in (4, 3):  # 0 to 2 and 5 are spoken for by debuggers, coverage, profilers and optimizers
        try:
            monitoring.use_tool_id(tool, "mainstay")
            break
        except ValueError:
            continue
    else:
        return None
    event = monitoring.events.EXCEPTION_HANDLED
    monitoring.register_callback(tool, event, _handled)
    monitoring.set_events(tool, event)
    return _counts


def _handled(code, offset, error):
    try:
        if type(error) in _harmless:  # half as long as the next question takes
            return
        if not issubclass(type(error), WATCHED):  # isinstance would ask the job's own __class__
            if len(_harmless) < MOST_TYPES:
                _harmless.add(type(error))
            return
        which = 0 if issubclass(type(error), RecursionError) else 1
        if which == 0:  # one that the job raises by hand is its own way of saying something
            said = ARGUMENTS.__get__(error)
            if not said or type(said[0]) is not str or not said[0].startswith(OVERRUN):
                return
        try:
            marks = error.__dict__  # each exception counts once: every `with` and `finally` on its way is a handler too
            if MARK in marks:
                return
            marks[MARK] = True
        except Exception:
            pass
        count = _counts[which] = _counts[which] + 1
        times = _times[which]
        now = times[count % LAST] = monotonic_ns()
        if (count < STEP or count % STEP == 0 or now - _written[which] > PAUSE_NS) and files._identity is not None:
            _written[which] = now
            status = posix.fstat(files._fd)
            if (status.st_dev, status.st_ino) == files._identity:
                posix.pwrite(files._fd, b"%015d\n" % count, files.SWALLOWED_MEMORY if which else files.SWALLOWED_RECURSION)
                stamps = b"%015d\n%015d\n" % (times[(count + 1) % LAST] // 1000000, now // 1000000)
                posix.pwrite(files._fd, stamps, files.SWALLOWED_AT[which])
        if which == 0 and count in LOOKS:
            done = _thread.allocate_lock()
            done.acquire()
            threads = posix.stat("/proc/self/task").st_nlink
            _thread.start_new_thread(_look, (error, sys._getframe(1), count, done))
            done.acquire(True, PATIENCE_S)
            for _ in range(200):  # until it is gone: a job that forks now would be warned of a second thread
                if posix.stat("/proc/self/task").st_nlink <= threads:
                    break
                done.acquire(True, 0.00005)  # nobody gives it back any more: a sleep
    except Exception:  # no room for even this, or the interpreter is going away
        pass


def _look(error, frame, count, done):
    try:
        _report().swallowed(error, frame, LOOKS.index(count) + 1)
    except Exception:
        pass
    finally:
        error = frame = None
        done.release()
