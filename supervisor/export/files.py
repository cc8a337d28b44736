"""Where an export goes: a folder or stdout. Overwrites only what an earlier export made."""

import os
import sys
from collections.abc import Mapping

from supervisor.errors import SupervisorError
from supervisor.export.document import MARK


class ExportError(SupervisorError):
    """An export cannot be written: path, finding, mend."""


def write(made: Mapping[str, str], folder: str) -> None:
    """Each path below *folder* with its text, all or none as far as that can be seen beforehand. ``ExportError``."""
    try:
        for path in made:
            _check_is_ours(os.path.join(folder, path))
        for path, text in made.items():
            full = os.path.join(folder, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            _replace(full, text)
    except OSError as err:
        raise ExportError(f"{err.filename or folder}: {err.strerror}; choose another --output") from err


def _check_is_ours(path: str) -> None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            ours = MARK in file.read()
    except FileNotFoundError:
        return
    if not ours:
        raise ExportError(f"{path}: is there and was not made by an export; move it away, or choose another --output")


def _replace(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def to_stdout(made: Mapping[str, str]) -> None:
    """All files one after the other, each below a line with its path; a single one bare, so that it can be piped."""
    bare = len(made) == 1
    sys.stdout.write("".join(text if bare else f"==> {path} <==\n{text}\n" for path, text in made.items()))
