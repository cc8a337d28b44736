"""Deletes folders that jobs could write, beside the loop: whatever is in them costs the loop one rename.

A folder is renamed into a directory of ours, where the job no longer reaches it by name. A thread empties that directory without going
deeper: files are unlinked, folders that are not empty are renamed up into it and have their turn. So neither depth (3,000 nested folders) nor
number (a million files) matters, at most three descriptors are open, and no symlink is followed.
"""

import contextlib
import os
import threading
from errno import ENOTEMPTY
from itertools import count
from typing import Final

import structlog

SLICE: Final = 200  # entries, then the others of this process have their turn
PAUSE_S: Final = 0.005
ROUNDS_MAX: Final = 20  # over one folder that does not become empty: something still writes there

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger()


class Trash:
    """What waits for its deletion, in the directory *path* (0700, ours). Any thread may call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_asked = False
        self._pause = threading.Event()  # never set: only waited for
        self._names = count()
        self._life = os.urandom(4).hex()
        self._done = 0
        self._kept: set[str] = set()  # what does not go; the next life tries again

    def put(self, path: str) -> None:
        """Take *path* out of its place, and delete it later. What cannot be moved stays, and the log says so; nothing there is fine."""
        try:
            _make_ours(path)
            os.rename(path, os.path.join(self._path, self._name()))
        except FileNotFoundError:
            return
        except OSError as err:
            log.warning("trash_kept", path=path, error=str(err))
            return
        self.empty()

    def empty(self) -> None:
        """Delete what is in it, now and beside the caller."""
        with self._lock:
            self._is_asked = True
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="trash", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads for us: the next one who puts something in asks again
                    thread.start()
                    self._thread = thread

    def join(self, timeout_s: float) -> bool:
        """Wait until all of it is gone; False when the time was not enough."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _name(self) -> str:
        return f"{self._life}.{next(self._names)}"

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_asked:
                    self._thread = None
                    return
                self._is_asked = False
            try:
                self._sweep()
            except Exception:  # broad: whatever a job has put there, it must not end with this thread's lock on the next one
                log.exception("trash_kept", path=self._path)

    def _sweep(self) -> None:
        """All that is in it now, and what is moved up meanwhile."""
        try:
            trash = os.open(self._path, _FOLDER)
        except OSError:
            return
        try:
            while names := [name for name in os.listdir(trash) if name not in self._kept]:
                for name in names:
                    if not self._delete(trash, name):
                        self._kept.add(name)
        finally:
            os.close(trash)

    def _delete(self, trash: int, name: str) -> bool:
        """One entry of the trash itself; False when it has to stay."""
        why: OSError | str = "it does not become empty"
        try:
            for _ in range(ROUNDS_MAX):
                if _remove(name, trash):
                    return True
                why = self._flatten(trash, name) or why
        except FileNotFoundError:
            return True
        except OSError as err:
            why = err
        log.warning("trash_kept", path=os.path.join(self._path, name), error=str(why))
        return False

    def _flatten(self, trash: int, name: str) -> OSError | None:
        """Empty one folder: what is a full folder in it moves up beside it. The last thing that did not go."""
        trouble = None
        _make_ours(name, trash)
        folder = os.open(name, _FOLDER, dir_fd=trash)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    try:
                        if not _remove(entry.name, folder):
                            _make_ours(entry.name, folder)
                            os.rename(entry.name, self._name(), src_dir_fd=folder, dst_dir_fd=trash)
                    except FileNotFoundError:
                        pass
                    except OSError as err:
                        trouble = err
                    self._done += 1
                    if self._done % SLICE == 0:
                        self._pause.wait(PAUSE_S)
        finally:
            os.close(folder)
        return trouble


def _remove(name: str, parent: int) -> bool:
    """Unlink a file or an empty folder; False for a folder that is not empty. ``OSError`` when it cannot be."""
    try:
        os.unlink(name, dir_fd=parent)
    except (IsADirectoryError, PermissionError):  # EPERM is what POSIX says of a directory
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as err:
            if err.errno != ENOTEMPTY:
                raise
            return False
    return True


def _make_ours(name: str, parent: int | None = None) -> None:
    """A folder that its job has closed to us is opened again, as far as we may; anything else is left as it is."""
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if os.fstat(fd).st_uid == os.geteuid():
                os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
