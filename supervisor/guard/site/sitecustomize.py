"""Starts the guard inside a job's Python, then makes room for the sitecustomize it shadows.

It never prints, and raises only what the shadowed module raises. It parses on every Python; the guard itself needs CPython 3.8.
"""

_HERE = __file__
_MOST_BYTES = 32768  # of a compiled file; ours have half of that at most. Twice as much, and malloc would ask the kernel for it
_AT_START = ("files", "lineage", "swallow", "hooks")  # each after those it needs


def _arm():
    import os
    import sys

    here = os.path.dirname(__file__)
    try:
        if sys.version_info >= (3, 8) and sys.implementation.name == "cpython" and "MAINSTAY_GUARD_DIR" in os.environ:
            _load(os.path.join(here, "_mainstay_guard")).arm(os.environ)
            sys.meta_path.append(type(sys.implementation)(find_spec=_find_for_jobs))
    except Exception:  # not BaseException: a Ctrl-C that lands here has to end the job, as it would without us
        pass
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)


def _load(folder):
    """The guard's hooks, with what they need, straight from the compiled files.

    The import system asks the disk ten times for each module, and every job waits for that at its start. Where a compiled file is missing or
    old, it is asked all the same, and writes one if it may.
    """
    import builtins
    import sys
    from marshal import loads

    package = sys.modules["_mainstay_guard"] = type(sys)("_mainstay_guard")
    package.__path__ = [folder]
    package.__file__ = folder + "/__init__.py"
    _preload()
    for name in _AT_START:
        if name == "swallow" and sys.version_info < (3, 12):
            continue
        code = _compiled(folder, name)
        if code is None:
            __import__("_mainstay_guard." + name)
            continue
        module = sys.modules["_mainstay_guard." + name] = type(sys)("_mainstay_guard." + name)
        module.__file__ = "%s/%s.py" % (folder, name)
        module.__package__ = "_mainstay_guard"
        exec(loads(code), module.__dict__)
        setattr(package, name, module)
    package.hooks.keep_for_later("report", _compiled(folder, "report"), loads, vars(builtins))
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


def _compiled(folder, name):
    """The code of a module as marshal knows it, from a compiled file that fits the interpreter and the source (PEP 552, by time and size), or None."""
    import os
    import sys
    from _frozen_importlib_external import MAGIC_NUMBER

    level = sys.flags.optimize
    try:
        source = os.stat("%s/%s.py" % (folder, name))
        cached = "%s/__pycache__/%s.%s%s.pyc" % (folder, name, sys.implementation.cache_tag, ".opt-%d" % level if level else "")
        fd = os.open(cached, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, _MOST_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return None
    stamp = [(int(number) & 0xFFFFFFFF).to_bytes(4, "little") for number in (0, source.st_mtime, source.st_size)]
    return data[16:] if data[:16] == MAGIC_NUMBER + b"".join(stamp) and len(data) < _MOST_BYTES else None


def _find_for_jobs(name, path=None, target=None):
    """Finds ``supervisor``, for ``from supervisor import job``, where the job's own Python has nothing of that name: asked last of all."""
    if name != "supervisor":
        return None
    import os
    from _frozen_importlib_external import spec_from_file_location

    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(_HERE))))
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
