"""Arms the guard: recursion clamp, lineage, own files, faulthandler, exception hooks, swallowed errors, how the process ended.

Every step stands alone: one that fails (an odd build, a full disk, a forbidden call) leaves the job and the other steps as they are.
Hooks that may run while the interpreter is going away hold what they need in closures, because module globals are None by then.
"""

import _signal
import _thread
import atexit
import faulthandler
import os
import sys

from _mainstay_guard import files, lineage, report

REFUSED = 79  # exit code of a process that is one self-start too many; sysexits.h ends at 78
STACK_LEVELS = 100  # told of a stack that was asked for
THREAD_LEVELS = 1500
THREAD_STACK_BYTES = 64 << 20
RESERVE_BYTES = (
    2 << 20
)  # what is left to write a report with once a MemoryError has been raised; bytes() leaves it untouched, so it costs address space only

_reserve = []
_looked = []
_depth = 0
_counts = None


def arm():
    """Arm everything, in the order in which it can be missed least. Does not raise (except KeyboardInterrupt)."""
    environ = os.environ
    for step in (_clamp, _enter, _catch_exceptions, _count_swallowed, _mark_the_end, _follow_forks):
        try:
            step(environ)
        except Exception:
            pass


def _clamp(environ):
    real, limit_now = sys.setrecursionlimit, sys.getrecursionlimit
    cap = 12000 if sys.version_info < (3, 12) else 50000  # below 3.12 the limit is also what keeps the C stack whole
    wanted = environ.get("MAINSTAY_RECURSION", "")
    if wanted:
        cap = int(wanted)
        try:
            real(cap)
        except RecursionError:  # a limit below the depth of start-up itself
            cap += 100
            real(cap)
    highest = [0]

    def setrecursionlimit(*args, **kwargs):
        real(*args, **kwargs)
        asked = limit_now()
        if asked > THREAD_LEVELS:
            _widen_threads()
        if asked > cap:
            real(cap)
            if asked > highest[0]:
                highest[0] = asked
                try:
                    files.put_number(files.ASKED, asked)
                except Exception:
                    pass

    setrecursionlimit.__doc__ = real.__doc__
    sys.setrecursionlimit = setrecursionlimit


def _widen_threads():
    """Who asks for deep recursion gets it in threads too: their C stacks of 8 MB end after 1,600 levels through C, with a SIGSEGV and no word.

    Address space only; where that is scarce, or somebody chose a size, it is left alone.
    """
    try:
        import resource

        space = resource.getrlimit(resource.RLIMIT_AS)[0]
        if _thread.stack_size() == 0 and (space == resource.RLIM_INFINITY or space >= 16 * THREAD_STACK_BYTES):
            _thread.stack_size(THREAD_STACK_BYTES)
    except Exception:
        pass


def _enter(environ):
    """Take our place in the line of descent and open our files; a script that starts itself for ever ends here."""
    global _depth
    _depth, seen, script = lineage.enter(environ)
    refusal = seen >= lineage.most(environ)
    try:
        is_open = files.open_all(environ["MAINSTAY_GUARD_DIR"], _depth, refusal)
        if refusal and is_open:
            report.refused(script, seen)
    finally:
        if refusal:
            os._exit(REFUSED)
    if is_open:
        _catch_signals()


def _catch_signals():
    if not faulthandler.is_enabled():  # the job's own wish (-X faulthandler) goes before ours
        faulthandler.enable(files.fatal_fd(), all_threads=True)
    # One thread only: walking the others while they run has crashed healthy jobs.
    faulthandler.register(_signal.SIGXCPU, files.fatal_fd(), all_threads=False, chain=True)
    # SIGURG is ignored by default, so it cannot kill a process that has no guard (any more). It is answered between two instructions of the job and not by
    # faulthandler, which reads frames in the middle of one: one dump in some hundreds to thousands crashed a healthy asyncio job (3.11 to 3.13).
    if _signal.getsignal(_signal.SIGURG) in (_signal.SIG_DFL, _signal.SIG_IGN):
        _signal.signal(_signal.SIGURG, _asked)


def _asked(number, frame):
    """For the stack, each time; for types once, when memory passes its soft line; for tasks each time, as those may take turns."""
    for look in (
        lambda: _write_stack(frame),
        _look_at_types,
        _look_at_tasks,
    ):  # the last leaves a profile function behind, which would see the first
        try:
            look()
        except Exception:
            pass


def _write_stack(frame):
    """The main thread's stack, in faulthandler's words."""
    lines = ["Stack (most recent call first):"]
    while frame is not None and len(lines) <= STACK_LEVELS:
        code = frame.f_code
        lines.append('  File "%s", line %s in %s' % (code.co_filename[:500].replace("\n", " "), frame.f_lineno, code.co_name[:500]))
        frame = frame.f_back
    files.add_stack("\n".join(lines) + "\n\n")


def _look_at_types():
    """The first time, for there may be no other, and the third: at the soft line, if memory grew no faster than we were asked."""
    _looked.append(True)
    if len(_looked) in (1, 3):
        from _mainstay_guard import census

        census.take(_reserve)


def _look_at_tasks():
    from _mainstay_guard import tasks

    tasks.asked()


def _catch_exceptions(environ):
    _reserve.append(bytes(RESERVE_BYTES))
    sys.excepthook = _main_hook(sys.excepthook, _reserve, report.exception)
    sys.unraisablehook = _hook("unraisable", sys.unraisablehook, _reserve, report.exception)
    threading = sys.modules.get("threading")
    if threading is not None:
        threading.excepthook = _hook("thread", threading.excepthook, _reserve, report.exception)
    elif hasattr(_thread, "_excepthook"):
        _thread._excepthook = _hook("thread", _thread._excepthook, _reserve, report.exception)  # threading will copy it


def _main_hook(previous, reserve, write):
    def excepthook(kind, value, trace):
        try:
            del reserve[:]
            write(kind, value, trace, "main")
        except BaseException:
            pass
        previous(kind, value, trace)

    return excepthook


def _hook(where, previous, reserve, write):
    size = RESERVE_BYTES

    def excepthook(args):
        try:
            kind = args.exc_type
            if kind is not SystemExit:  # which only ends the thread
                del reserve[:]
                write(kind, args.exc_value, args.exc_traceback, where)
                reserve.append(bytes(size))  # the process goes on
        except BaseException:
            pass
        previous(args)

    return excepthook


def _count_swallowed(environ):
    global _counts
    if sys.version_info >= (3, 12) and environ.get("MAINSTAY_COUNT_SWALLOWED") != "no":
        from _mainstay_guard import swallow

        _counts = swallow.watch()


def _mark_the_end(environ):
    atexit.register(_ended)


def _ended():
    """Runs last of all atexit functions, because it was registered first. os._exit, exec and signals leave no mark."""
    try:
        files.put_number(files.FINALIZED, 1)
        if _counts is not None:
            files.put_number(files.SWALLOWED_RECURSION, _counts[0])
            files.put_number(files.SWALLOWED_MEMORY, _counts[1])
        if _depth and not report._written and not (_counts and any(_counts)):
            files.remove()  # a service that starts a thousand helpers keeps room for the one that fails
    except Exception:
        pass


def _follow_forks(environ):
    os.register_at_fork(after_in_child=_forked)


def _forked():
    global _depth
    try:
        _depth += 1
        report._written.clear()
        del _looked[:]
        if _counts is not None:
            _counts[:] = [0, 0]
        files.reopen_in_fork_child(_depth)
    except Exception:
        pass
