"""Exit records on disk: how an attempt ended, written durably before anybody is told, kept until the brain has taken it over.

One JSON file per attempt in ``STATE/exits/``: write, fsync, rename, fsync of the directory. That is the order that needs nothing of the file system
but what POSIX says. Where a restart must not wait for so much, the file is prepared while the attempt lives, and says what may follow it.
"""

import contextlib
import errno
import json
import os
import re
from typing import Any, Final

FOLDER: Final = "exits"
_KEY: Final = re.compile(r"[0-9]+\.[0-9]+")
# A prepared record: the first half is for it (a longer one is written as any other), the second has the leave for what may follow.
_HALF: Final = 2048
Record = dict[str, Any]
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode  # ``json.dumps`` makes a new one each time


class Records:
    """The exit records of one state directory."""

    def __init__(self, state_dir: str, boot_id: str) -> None:
        self._folder = os.path.join(state_dir, FOLDER)
        self._boot_id = boot_id
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._prepared: dict[str, int] = {}
        self._confirmed: set[str] = set()
        self.doubtful: dict[str, str] = {}  # attempt → the one that had leave to follow it when the machine went down, and may have
        self._kept: dict[str, Record] = self._load()

    def _load(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if not name.endswith(".json"):
                with contextlib.suppress(OSError):
                    os.unlink(path)  # a half-written temporary file: its attempt has no record, so it is lost, which is the truth
                continue
            key, text = name.removesuffix(".json"), b""
            with contextlib.suppress(OSError), open(path, "rb") as file:
                text = file.read()
            record, leave = _parsed(text[:_HALF], key), _parsed(text[_HALF:], key)
            if record is None and leave is None:
                record = _parsed(text, key)  # it was not prepared, and is as long as it is
            if record is not None:
                found[key] = record
            elif leave is not None and not text[:_HALF].strip() and leave.get("boot_id") == self._boot_id:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # its attempt was alive to the last, so nothing followed it
            elif leave is not None and isinstance(leave.get("leave"), str):
                self.doubtful[key] = leave["leave"]
            else:
                with contextlib.suppress(OSError):
                    os.replace(path, path + ".broken")
        return found

    def prepare(self, key: str, following: str) -> tuple[int, ...]:
        """Make the record of a live attempt ahead of time, with the leave for *following* to begin after it; what is to be fsynced for that.

        Once that is done (not here: it can take long), to note the record is a write into the page cache, and to write it one fdatasync. What goes
        wrong here does no harm: the record is written as any other.
        """
        path = os.path.join(self._folder, key + ".json")
        leave = json.dumps({"key": key, "leave": following, "boot_id": self._boot_id}).encode()
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, b" " * _HALF + leave.ljust(_HALF))
            except OSError:
                os.close(fd)
                os.unlink(path)
                raise
            self._prepared[key] = fd
            return fd, self._folder_fd
        return ()

    def confirm(self, key: str) -> None:
        """What ``prepare`` asked for was done."""
        self._confirmed.add(key)

    def note(self, record: Record) -> bool:
        """Put *record* where it outlives us, though not yet a loss of power; False where nothing was prepared for it. ``write`` has to follow."""
        fd = self._prepared.get(record["key"])
        if fd is None:
            return False
        data = _encode(record).encode()
        with contextlib.suppress(OSError):
            if len(data) <= _HALF and os.pwrite(fd, data, 0) == len(data):
                return True
        os.close(self._prepared.pop(record["key"]))
        return False

    def _flush(self, key: str) -> bool:
        """The rest of the way for a record that was noted; False when it has to be written anew."""
        fd = self._prepared.pop(key)
        try:
            os.fdatasync(fd)
            if key not in self._confirmed:
                os.fsync(self._folder_fd)
        except OSError:
            return False
        finally:
            os.close(fd)
            self._confirmed.discard(key)
        return True

    def write(self, record: Record) -> str | None:
        """Keep *record* (it has a ``key``) on disk and in memory. None, or why the disk did not take it."""
        key = record["key"]
        self._kept[key] = record
        if self.note(record) and self._flush(key):
            return None
        path = os.path.join(self._folder, key + ".json")
        try:
            fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                data = _encode(record).encode()
                if os.write(fd, data) != len(data):  # not an error yet: the disk became full, or the file too large, on the way
                    raise OSError(errno.ENOSPC, "only a part of the record could be written")
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(path + ".tmp", path)
            os.fsync(self._folder_fd)
        except OSError as err:
            return str(err)
        return None

    def forget(self, key: str) -> None:
        """The brain has it in its history."""
        self._kept.pop(key, None)
        self.doubtful.pop(key, None)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._folder, key + ".json"))

    def kept(self) -> list[Record]:
        """Every record that nobody has taken over yet."""
        return list(self._kept.values())

    def get(self, key: str) -> Record | None:
        """The record of that attempt, None when it has none (any more)."""
        return self._kept.get(key)


def _parsed(text: bytes, key: str) -> Record | None:
    """The JSON object for *key* in *text*; None when it is not whole, or another's."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict) and found.get("key") == key and _KEY.fullmatch(key):
            return found
    return None
