"""Puts what every start needs into one file. Loaded by a first start, and by one that may keep nothing."""

import os
import sys
from _frozen_importlib_external import SourceFileLoader
from marshal import dumps


def collect(path, stamp, names, late):
    """(code objects of *names*, marshalled code of *late*), kept under *path* for the next start.

    Who asked Python to write no bytecode (-B, PYTHONDONTWRITEBYTECODE: containers do) does not find any beside our installation. In the copy that
    supervisor.guardsites makes for a user there is nothing that could be spoilt, and without it each start would take 10 ms longer.
    """
    folder = os.path.dirname(os.path.dirname(path))
    codes = tuple([_code(folder, name) for name in names])
    code = dumps(_code(folder, late))
    if not sys.dont_write_bytecode or os.path.islink(folder + "/home"):
        try:
            _keep(path, dumps((stamp, codes, code)))
        except OSError:
            pass
    return codes, code


def _code(folder, name):
    return SourceFileLoader("_mainstay_guard." + name, "%s/%s.py" % (folder, name)).get_code("_mainstay_guard." + name)


def _keep(path, data):
    """Whole or not at all, and never through a link: others of this user may be starting too."""
    draft = "%s.%s" % (path, os.urandom(8).hex())
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        try:
            written = os.write(fd, data)
        finally:
            os.close(fd)
        if written == len(data):
            os.rename(draft, path)
            return
    except OSError:
        pass
    os.unlink(draft)
