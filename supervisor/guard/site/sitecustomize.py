"""Starts the guard inside a job's Python, then makes room for the sitecustomize it shadows.

It never prints, and raises only what the shadowed module raises. It parses on every Python; the guard itself needs CPython 3.8.
"""


class _ForJobs:
    """Finds ``supervisor``, for ``from supervisor import job``, where the job's own Python has nothing of that name: asked last of all."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "supervisor":
            return None
        import os
        from _frozen_importlib_external import spec_from_file_location

        folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(_HERE))))
        return spec_from_file_location(name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])


_HERE = __file__


def _arm():
    import os
    import sys

    here = os.path.dirname(__file__)
    try:
        if sys.version_info >= (3, 8) and sys.implementation.name == "cpython" and "MAINSTAY_GUARD_DIR" in os.environ:
            from _mainstay_guard import hooks

            hooks.arm()
            sys.meta_path.append(_ForJobs)
    except Exception:  # not BaseException: a Ctrl-C that lands here has to end the job, as it would without us
        pass
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)


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
