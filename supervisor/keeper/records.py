"""Exit records on disk: how an attempt ended, written durably before anybody is told, kept until the brain has taken it over.

One JSON file per attempt in ``STATE/exits/``: write, fsync, rename, fsync of the directory. That is the order that needs nothing of the file system
but what POSIX says; the two fsyncs are the largest part of a restart.
"""

import contextlib
import errno
import json
import os
import re
from typing import Any, Final

FOLDER: Final = "exits"
_KEY: Final = re.compile(r"[0-9]+\.[0-9]+")
Record = dict[str, Any]


class Records:
    """The exit records of one state directory."""

    def __init__(self, state_dir: str) -> None:
        self._folder = os.path.join(state_dir, FOLDER)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept: dict[str, Record] = self._load()

    def _load(self) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for name in os.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if not name.endswith(".json"):
                with contextlib.suppress(OSError):
                    os.unlink(path)  # a half-written temporary file: its attempt has no record, so it is lost, which is the truth
                continue
            try:
                with open(path, "rb") as file:
                    record = json.load(file)
            except (OSError, ValueError):
                record = None
            if isinstance(record, dict) and record.get("key") == name.removesuffix(".json") and _KEY.fullmatch(record["key"]):
                found[record["key"]] = record
            else:
                with contextlib.suppress(OSError):
                    os.replace(path, path + ".broken")
        return found

    def write(self, record: Record) -> str | None:
        """Keep *record* (it has a ``key``) on disk and in memory. None, or why the disk did not take it."""
        key = record["key"]
        self._kept[key] = record
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
