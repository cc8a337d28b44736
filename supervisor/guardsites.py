"""Copies of the guard, one for each user that jobs run as, in which that user's Pythons may keep it compiled.

A Python that cannot write beside a module what it made of it makes it anew at every start: 8 to 13 ms for the guard, many times what it takes
itself. And beside our own it cannot write, as a rule: an installation belongs to root, under systemd it is read-only for everybody, and what
came with it compiled is compiled for one version of Python, its own. So jobs get a copy:

    FOLDER/UID-CHECKSUM/sitecustomize.py, _mainstay_guard/*.py    ours, as in the installation
    FOLDER/UID-CHECKSUM/_mainstay_guard/home                      a link to the installation's package, for ``from supervisor import job``
    FOLDER/UID-CHECKSUM/**/__pycache__/                           the user's; nobody else's Python reads it, and no other user may write there

The checksum is that of the sources: an upgrade makes new copies, and what was started before goes on with the old one. Light, for ``exec``
starts with it.
"""

import os
import zlib
from collections.abc import Callable
from errno import EINVAL
from typing import Final

from supervisor.arming import SITE

ENTER: Final = 0o711
READ: Final = 0o755
PARTS: Final = ("", "_mainstay_guard")
COMPILED: Final = "__pycache__"
HOME: Final = "_mainstay_guard/home"


class GuardSites:
    """The copies in *folder* of the guard in *source*. *discard* deletes a folder in which a job could write."""

    def __init__(self, folder: str, discard: Callable[[str], None], *, source: str = SITE) -> None:
        self._folder = folder
        self._discard = discard
        self._source = source
        self._known: dict[int, str] = {}

    def of(self, uid: int) -> str:
        """The folder that goes into PYTHONPATH for *uid*, made where it is missing or is not what it should be. ``OSError``."""
        if not os.path.isabs(self._folder) or os.pathsep in self._folder:
            raise OSError(EINVAL, "PYTHONPATH cannot name a folder below it", self._folder)
        site = self._known.get(uid)
        if site is None or not os.path.exists(site + "/sitecustomize.py"):
            self._known[uid] = site = self._make(uid)
        return site

    def sweep(self) -> None:
        """Discard what is no copy of these sources: other versions, in which nothing may be running any more, and what a crash left half made.

        ``OSError``.
        """
        suffix = f"-{_checksum(_sources(self._source)):08x}"
        for name in os.listdir(self._folder):
            if not name.endswith(suffix):
                self._discard(os.path.join(self._folder, name))

    def _make(self, uid: int) -> str:
        sources = _sources(self._source)
        site = os.path.join(self._folder, f"{uid}-{_checksum(sources):08x}")
        if _is_whole(site, sources, uid):
            return site
        os.makedirs(self._folder, ENTER, exist_ok=True)
        draft = os.path.join(self._folder, f"draft-{os.urandom(8).hex()}")
        try:
            self._write(draft, sources, uid)
            self._put(draft, site, lambda: _is_whole(site, sources, uid))
        except OSError:
            self._discard(draft)
            raise
        return site

    def _put(self, draft: str, site: str, is_whole: Callable[[], bool]) -> None:
        """*draft* in the place of *site*, but never of one that somebody has made meanwhile: jobs may be starting from it."""
        try:
            os.rename(draft, site)
        except OSError:
            if is_whole():
                self._discard(draft)
                return
            self._discard(site)
            os.rename(draft, site)

    def _write(self, draft: str, sources: dict[str, bytes], uid: int) -> None:
        for part in PARTS:
            folder = os.path.join(draft, part)
            os.mkdir(folder)
            os.chmod(folder, READ)
        for name in sources:
            _copy(os.path.join(self._source, name), os.path.join(draft, name))
        os.symlink(os.path.dirname(os.path.dirname(self._source)), os.path.join(draft, HOME))
        owner = -1 if uid == os.geteuid() else uid
        for part in PARTS:
            theirs = os.path.join(draft, part, COMPILED)
            os.mkdir(theirs, 0o700)
            for name in _compiled(os.path.join(self._source, part)):
                path = os.path.join(theirs, name)
                _copy(os.path.join(self._source, part, COMPILED, name), path)
                os.chown(path, owner, -1)
            os.chown(theirs, owner, -1)


def _copy(source: str, target: str) -> None:
    """With its time: that is what compiled files are told by."""
    with open(source, "rb") as file, open(target, "xb") as copy:
        copy.write(file.read())
        os.fchmod(copy.fileno(), 0o644)
        status = os.fstat(file.fileno())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _compiled(folder: str) -> list[str]:
    """What came with the installation or was compiled there since, in the form that every Python knows."""
    try:
        with os.scandir(os.path.join(folder, COMPILED)) as entries:
            return [entry.name for entry in entries if entry.name.endswith(".pyc") and entry.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _sources(site: str) -> dict[str, bytes]:
    """Name below *site* → content."""
    found = {}
    for part in PARTS:
        for name in sorted(os.listdir(os.path.join(site, part))):
            if name.endswith(".py"):
                with open(os.path.join(site, part, name), "rb") as file:
                    found[os.path.join(part, name)] = file.read()
    return found


def _checksum(sources: dict[str, bytes]) -> int:
    total = 0
    for name, data in sources.items():
        total = zlib.crc32(data, zlib.crc32(name.encode(), total))
    return total


def _is_whole(site: str, sources: dict[str, bytes], uid: int) -> bool:
    """Whether *site* is a copy that *uid* can use: a crash of the host may have left one of empty files."""
    try:
        owners = {os.lstat(os.path.join(site, part, COMPILED)).st_uid for part in PARTS}
        return _sources(site) == sources and owners == {uid} and os.path.lexists(os.path.join(site, HOME))
    except OSError:
        return False
