"""Exit records on disk: how an attempt ended, written durably before anybody is told, kept until the brain has taken it over.

One JSON file per attempt in ``STATE/exits/``: write, fsync, rename, fsync of the directory. That is the order that needs nothing of the file system
but what POSIX says. Where a restart must not wait for so much, the file is prepared while the attempt lives.
"""

import contextlib
import errno
import json
import os
import re
from typing import Any, Final

FOLDER: Final = "exits"
_KEY: Final = re.compile(r"[0-9]+\.[0-9]+")
_ROOM: Final = 4096  # of a prepared record; a longer one is written as any other
Record = dict[str, Any]


class Records:
    """The exit records of one state directory."""

    def __init__(self, state_dir: str) -> None:
        self._folder = os.path.join(state_dir, FOLDER)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._prepared: dict[str, int] = {}
        self._kept: dict[str, Record] = self._load()

    def _load(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if not name.endswith(".json"):
                with contextlib.suppress(OSError):
                    os.unlink(path)  # a half-written temporary file: its attempt has no record, so it is lost, which is the truth
                continue
            text, record = b"", None
            with contextlib.suppress(OSError, ValueError):
                with open(path, "rb") as file:
                    text = file.read()
                record = json.loads(text)
            if text and not text.strip(b" "):
                with contextlib.suppress(OSError):
                    os.unlink(path)  # prepared, and its attempt was alive to the last
                continue
            if isinstance(record, dict) and record.get("key") == name.removesuffix(".json") and _KEY.fullmatch(record["key"]):
                found[record["key"]] = record
            else:
                with contextlib.suppress(OSError):
                    os.replace(path, path + ".broken")
        return found

    def prepare(self, key: str) -> None:
        """Make the record of a live attempt ahead of time: its name and its blocks are on disk, filled with spaces. To write it then takes
        one fdatasync. What goes wrong here does no harm: the record is written as any other."""
        path = os.path.join(self._folder, key + ".json")
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, b" " * _ROOM)
                os.fsync(fd)
                os.fsync(self._folder_fd)
            except OSError:
                os.close(fd)
                os.unlink(path)
                raise
            self._prepared[key] = fd

    def _fill(self, fd: int, record: Record) -> bool:
        """Write into the prepared file. Half a record is no JSON, so it counts whole or not at all; False when it has to be written anew."""
        data = json.dumps(record, separators=(",", ":")).encode()
        try:
            if len(data) > _ROOM or os.pwrite(fd, data, 0) != len(data):
                return False
            os.fdatasync(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def write(self, record: Record) -> str | None:
        """Keep *record* (it has a ``key``) on disk and in memory. None, or why the disk did not take it."""
        key = record["key"]
        self._kept[key] = record
        prepared = self._prepared.pop(key, None)
        if prepared is not None and self._fill(prepared, record):
            return None
        path = os.path.join(self._folder, key + ".json")
        try:
            fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                data = json.dumps(record, separators=(",", ":")).encode()
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
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._folder, key + ".json"))

    def kept(self) -> list[Record]:
        """Every record that nobody has taken over yet."""
        return list(self._kept.values())

    def get(self, key: str) -> Record | None:
        """The record of that attempt, None when it has none (any more)."""
        return self._kept.get(key)
