"""Arms the guard: recursion clamp, lineage, own files, faulthandler, exception hooks, swallowed errors, how the process ended.

Every step stands alone: one that fails (an odd build, a full disk, a forbidden call) leaves the job and the other steps as they are.
Hooks that may run while the interpreter is going away hold what they need in closures, because module globals are None by then.
What lasts as long as the hooks do, here and in files, asks posix and not os: a module that is still held then is taken apart name by name, and os holds
ten others, a tenth of a millisecond of each job's end.
"""

import _signal
import _thread
import atexit
import faulthandler
import posix
import sys

from _mainstay_guard import files, lineage

REFUSED = 79  # exit code of a process that is one self-start too many; sysexits.h ends at 78
THREAD_LEVELS = 1500
THREAD_STACK_BYTES = 64 << 20
RESERVE_BYTES = (
    2 << 20
)  # what is left to write a report with once a MemoryError has been raised; bytes() leaves it untouched, so it costs address space only

_reserve = []
_depth = 0
_counts = None
_report = None


def keep_for_later(name, code, loads, all_builtins):
    """Hold *code*, of a module that most jobs never need, as bytes: until somebody asks for the module, and wherever the job has brought itself by then.

    No file can be opened, found or trusted to be of our version when a report is due: the job may have no descriptor left, another user,
    another root, or run since before an upgrade.
    """
    global _report
    _report = _late(
        name, code, type(sys), loads, {"posix": posix, "sys": sys, "_imp": sys.modules["_imp"], "_thread": _thread}, all_builtins
    )


def _late(name, code, module_type, loads, needs, all_builtins):
    """A function that gives the module. It works while the interpreter goes away: sys.modules is empty then, so imports are answered from *needs*.

    Two threads may make it twice; what has to last is kept in files.
    """
    full = "_mainstay_guard." + name
    needs["_mainstay_guard"] = package = sys.modules["_mainstay_guard"]

    def import_held(name, *rest):
        return needs[name]

    def module():
        made = getattr(package, name, None)
        if made is None:
            made = module_type(full)
            made.__dict__["__builtins__"] = dict(all_builtins, __import__=import_held)
            exec(loads(code), made.__dict__)
            sys.modules[full] = made
            setattr(package, name, made)
        return made

    return module


def arm(environ):
    """Arm everything, in the order in which it can be missed least. Does not raise (except KeyboardInterrupt)."""
    for step in (_clamp, _enter, _catch_exceptions, _count_swallowed, _follow):
        try:
            step(environ)
        except Exception:
            pass


def _clamp(environ):
    real, limit_now = sys.setrecursionlimit, sys.getrecursionlimit
    cap = 12000 if sys.version_info < (3, 12) else 50000  # below 3.12 the limit is also what keeps the C stack whole
    wanted = environ.get("MAINSTAY_RECURSION", "")
    if wanted:
        cap = 0
        for digit in wanted:  # the first int() of a process takes 16 us: it has the C library look for log()
            cap = 10 * cap + "0123456789".index(digit)
        try:
            real(cap)
        except RecursionError:  # a limit below the depth of start-up itself
            cap += 100
            real(cap)
    highest = [0, limit_now()]  # asked for, in force

    def setrecursionlimit(*args, **kwargs):
        real(*args, **kwargs)
        asked = limit_now()
        if asked > THREAD_LEVELS:
            _widen_threads()
        if asked > cap:
            real(cap)
        try:
            if asked > cap and asked > highest[0]:
                highest[0] = asked
                files.put_number(files.ASKED, asked)
            if min(asked, cap) > highest[1]:
                highest[1] = min(asked, cap)
                files.put_number(files.LIMIT, highest[1])
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
            _report().refused(script, seen)
    finally:
        if refusal:
            posix._exit(REFUSED)
    if is_open:
        _catch_signals(files._fd)


def _catch_signals(fatal):
    if faulthandler.is_enabled():  # the job's own wish (-X faulthandler) goes before ours
        files.put_number(files.ELSEWHERE, 1)
    else:
        # Without the C stack (3.14): it is no evidence of ours, and to unwind it takes locks that the crash may have left taken.
        faulthandler.enable(fatal, all_threads=True, **{"c_stack": False} if sys.version_info >= (3, 14) else {})
        faulthandler.enable, faulthandler.disable = _given_away(faulthandler.enable), _given_away(faulthandler.disable)
    # One thread only: walking the others while they run has crashed healthy jobs.
    faulthandler.register(_signal.SIGXCPU, fatal, all_threads=False, chain=True)
    # SIGURG is ignored by default, so it cannot kill a process that has no guard (any more). It is answered between two instructions of the job and not by
    # faulthandler, which reads frames in the middle of one: one dump in some hundreds to thousands crashed a healthy asyncio job (3.11 to 3.13).
    if _signal.getsignal(_signal.SIGURG) in (_signal.SIG_DFL, _signal.SIG_IGN):
        _signal.signal(_signal.SIGURG, _asked)


def _given_away(real):
    """*real*, and a mark that a crash leaves no dump with us from now on: an empty one means that there was no stack to write it on."""

    def replaced(*args, **kwargs):
        try:
            files.put_number(files.ELSEWHERE, 1)
        except Exception:
            pass
        return real(*args, **kwargs)

    replaced.__doc__ = real.__doc__
    return replaced


def _asked(number, frame):
    """For the stack, and for what fills the memory."""
    for name in ("report", "census", "tasks"):  # the last leaves a profile function behind, which would see the others
        try:
            _report()  # the others write by it
            __import__("_mainstay_guard." + name)
            getattr(sys.modules["_mainstay_guard"], name).asked(frame, _reserve)
        except Exception:
            pass


def _catch_exceptions(environ):
    _reserve.append(bytes(RESERVE_BYTES))
    _take("excepthook", _main_hook(sys.excepthook, _reserve, _report))
    _take("unraisablehook", _hook("unraisable", sys.unraisablehook, _reserve, _report))
    threading = sys.modules.get("threading")
    if threading is not None:
        threading.excepthook = _hook("thread", threading.excepthook, _reserve, _report)
    elif hasattr(_thread, "_excepthook"):
        _thread._excepthook = _hook("thread", _thread._excepthook, _reserve, _report)  # threading will copy it


def _take(name, hook):
    """Be the hook of that *name*, and the one that came with the interpreter where that is in force: many a library asks whether it still is."""
    if getattr(sys, name) is getattr(sys, "__%s__" % name):
        setattr(sys, "__%s__" % name, hook)
    setattr(sys, name, hook)


def _main_hook(previous, reserve, report):
    size = RESERVE_BYTES

    def excepthook(kind, value, trace):
        try:
            del reserve[:]
            if not report().uncaught(kind, value, trace):
                reserve.append(bytes(size))  # the process goes on
        except BaseException:
            pass
        previous(kind, value, trace)

    return excepthook


def _hook(where, previous, reserve, report):
    size = RESERVE_BYTES

    def excepthook(args):
        try:
            kind = args.exc_type
            if kind is not SystemExit:  # which only ends the thread
                del reserve[:]
                report().exception(kind, args.exc_value, args.exc_traceback, where)
                reserve.append(bytes(size))  # the process goes on
        except BaseException:
            pass
        previous(args)

    return excepthook


def _count_swallowed(environ):
    global _counts
    if sys.version_info >= (3, 12) and environ.get("MAINSTAY_COUNT_SWALLOWED") != "no":
        from _mainstay_guard import swallow

        _counts = swallow.watch(_report)


def _follow(environ):
    atexit.register(_ended)
    posix.register_at_fork(after_in_child=_forked)


def _ended():
    """Runs last of all atexit functions, because it was registered first. os._exit, exec and signals leave no mark."""
    try:
        if getattr(sys, "last_value", None) is not None:
            del _reserve[:]
            _report().passed_by(sys.last_value, sys.last_traceback)
    except Exception:
        pass
    try:
        files.put_number(files.FINALIZED, 1)
        if _counts is not None and (_counts[0] or _counts[1]):
            files.put_number(files.SWALLOWED_RECURSION, _counts[0])
            files.put_number(files.SWALLOWED_MEMORY, _counts[1])
        elif _depth and not files.written:
            files.remove()  # a service that starts a thousand helpers keeps room for the one that fails
    except Exception:
        pass


def _forked():
    global _depth
    try:
        _depth += 1
        files.written.clear()
        files.asked[:] = [0, 0]
        if _counts is not None:
            _counts[:] = [0, 0]
        files.reopen_in_fork_child(_depth)
    except Exception:
        pass
