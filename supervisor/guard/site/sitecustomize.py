"""Starts the guard inside a job's Python, then makes room for the sitecustomize it shadows.

It never prints, and raises only what the shadowed module raises. It parses on every Python; the guard itself needs CPython 3.8.
"""

_HERE = __file__


def _arm():
    import os
    import sys

    here = os.path.dirname(__file__)
    try:
        is_wanted = (
            "MAINSTAY_GUARD_DIR" in os.environ and "_mainstay_guard" not in sys.modules
        )  # but for a guard that stands before us in the path
        if is_wanted and sys.version_info >= (3, 8) and sys.implementation.name == "cpython":
            _load(os.path.join(here, "_mainstay_guard")).arm(os.environ)
            sys.meta_path.append(type(sys.implementation)(find_spec=_find_for_jobs))
    except Exception:  # not BaseException: a Ctrl-C that lands here has to end the job, as it would without us
        pass
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)


def _load(folder):
    """The guard's hooks, with what they need, out of one file, which the first start leaves for those after it.

    The import system asks the disk ten times for each module, and every job waits for that at its start.
    """
    import builtins
    import sys
    from marshal import loads

    package = sys.modules["_mainstay_guard"] = type(sys)("_mainstay_guard")
    package.__path__ = [folder]
    package.__file__ = folder + "/__init__.py"
    _preload()
    level = sys.flags.optimize
    path = "%s/__pycache__/start.%s%s.bin" % (folder, sys.implementation.cache_tag, ".opt-%d" % level if level else "")
    names = (
        ("files", "lineage", "swallow", "hooks") if sys.version_info >= (3, 12) else ("files", "lineage", "hooks")
    )  # each after those it needs
    stamp = _stamp(folder, names + ("report",))
    codes, report = _kept(path, stamp, loads) or _collect(path, stamp, names)
    for name, code in zip(names, codes):
        module = sys.modules["_mainstay_guard." + name] = type(sys)("_mainstay_guard." + name)
        module.__file__ = "%s/%s.py" % (folder, name)
        module.__package__ = "_mainstay_guard"
        exec(code, module.__dict__)
        setattr(package, name, module)
    package.hooks.keep_for_later("report", report, loads, vars(builtins))
    return package.hooks


def _preload():
    """Builtin modules that hooks imports, made as the import system makes its own: 10 to 15 us less each without its locks and its search."""
    import sys

    try:
        from _frozen_importlib import _builtin_from_name

        for name in ("atexit", "faulthandler"):
            if name not in sys.modules:
                _builtin_from_name(name)
    except ImportError:  # a private function, or an interpreter that has them elsewhere: then it is asked after all
        pass


def _stamp(folder, names):
    """What tells whether a compiled file fits the interpreter and the sources, and names them by the folder in which they lie."""
    import os
    from _frozen_importlib_external import MAGIC_NUMBER

    found = [os.stat("%s/%s.py" % (folder, name)) for name in names]
    return (MAGIC_NUMBER, folder) + tuple([(status.st_mtime_ns, status.st_size) for status in found])


def _kept(path, stamp, loads):
    """(codes, marshalled code of report) as bundle.collect has left them; None where there are none of this *stamp*."""
    import os

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
        found, codes, report = loads(data)
        return (codes, report) if found == stamp else None
    except Exception:  # there is none, or it is broken, in whatever way
        return None


def _collect(path, stamp, names):
    __import__("_mainstay_guard.bundle")
    import sys

    return sys.modules["_mainstay_guard.bundle"].collect(path, stamp, names, "report")


def _find_for_jobs(name, path=None, target=None):
    """Finds ``supervisor``, for ``from supervisor import job``, where the job's own Python has nothing of that name: asked last of all."""
    if name != "supervisor":
        return None
    import os
    from _frozen_importlib_external import spec_from_file_location

    here = os.path.dirname(os.path.abspath(_HERE))
    try:
        folder = os.readlink(os.path.join(here, "_mainstay_guard", "home"))  # of a copy (supervisor.guardsites)
    except OSError:
        folder = os.path.dirname(os.path.dirname(here))
    if not os.access(os.path.join(folder, "__init__.py"), os.R_OK):  # closed to the job's user: as if it were not there
        return None
    return spec_from_file_location(name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])


def _shadowed():
    """Run the sitecustomize that would have been found without us, in our place.

    We may replace ourselves in sys.modules but not vanish from it: the import system looks there once more.
    """
    import sys

    if sys.version_info < (3, 5):
        import imp

        try:
            found = imp.find_module("sitecustomize", sys.path)
        except ImportError:
            return
        imp.load_module("sitecustomize", *found)
        return
    for finder in sys.meta_path:
        spec = finder.find_spec("sitecustomize", None) if hasattr(finder, "find_spec") else None
        if spec is not None:
            break
    else:
        return
    if spec.loader is None:
        return
    from _frozen_importlib import module_from_spec

    module = sys.modules["sitecustomize"] = module_from_spec(spec)
    spec.loader.exec_module(module)


try:
    _arm()
except Exception:
    pass
_shadowed()
