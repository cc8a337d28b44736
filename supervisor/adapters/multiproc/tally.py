"""Sums over the attempts of a job, kept in a file of ours, so that neither a death of the job nor one of ours counts twice or not at all.

    STATE/multiproc/JOB/RUN.ATTEMPT/   the job's own: what $PROMETHEUS_MULTIPROC_DIR names
    STATE/multiproc/JOB/sums.json      ours: the sums of the attempts that are over, and which those are

An attempt that is over is *folded*: its files are added to the sums, the sums with its name are written aside and renamed, then its directory goes.
Whatever dies in between, a directory whose name stands in the sums is only removed. The same is done to files of processes that are gone while their
attempt goes on, when there are many.
"""

import contextlib
import json
import os
import re
from collections.abc import Collection
from typing import Any, Final

from msgspec import Struct, field

from supervisor.adapters.exposition import Caps, Family, RejectReason, TextError, parse
from supervisor.adapters.multiproc.files import (
    RawFile,
    Sums,
    as_text,
    decode,
    digest,
    encode,
    joined,
    read_folder,
    summed,
    without_live,
)

SUMS: Final = "sums.json"
SUMS_MAX: Final = 4 * 2**20
DEAD_MAX: Final = 64  # files of processes that are gone, before they are folded while the attempt goes on
_KEY: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})")
_FOLDED_KINDS: Final = ("counter", "histogram", "summary")


class Problem(Struct, frozen=True):
    """Something that was not taken; as in ``jobmetrics``."""

    reason: RejectReason
    detail: str


class Look(Struct, frozen=True):
    """What one look found: all families of the job as they stand now (None: nothing new), what was wrong, and folders that may go."""

    families: list[Family] | None = None
    problems: tuple[Problem, ...] = ()
    discard: tuple[str, ...] = ()


class _Job(Struct):
    """One job: sums of what is over, what is folded in them, and the state of the open attempts at the last look."""

    base: Sums = field(default_factory=dict)
    folded: set[str] = field(default_factory=set)
    seen: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    is_saved: bool = True
    is_shown: bool = False


class Tally:
    """The sums of all jobs below one directory. For one thread."""

    def __init__(self, root: str, caps: Caps | None = None) -> None:
        self._root = root
        self._caps = caps or Caps()
        self._jobs: dict[str, _Job] = {}

    def look(self, job: str, live: Collection[str]) -> Look:
        """The job's families, if anything changed since the last look. *live* are the attempts ("RUN.ATTEMPT") that go on."""
        folder = os.path.join(self._root, job)
        known = self._jobs.get(job)
        if known is None:
            known = self._jobs[job] = _load(os.path.join(folder, SUMS))
        keys = _attempts(folder)
        problems: list[Problem] = []
        open_sums: list[Sums] = []
        changed = not known.is_shown
        gone: list[str] = []
        for key in keys:
            if key in known.folded:
                continue
            try:
                changed |= self._take(known, folder, key, open_sums, gone, is_live=key in live)
                known.wrong.pop(key, None)
            except TextError as err:
                if known.wrong.get(key) != str(err):
                    problems.append(Problem(err.reason, f"{os.path.join(folder, key)}: {err}"))
                known.wrong[key] = str(err)
                if key not in live:  # it will not get better
                    known.folded.add(key)
                    known.is_saved = False
        if not known.is_saved:
            changed = True
            self._save(known, folder)
        discard = self._discard(known, folder, keys, gone)
        if not changed:
            return Look(None, tuple(problems), discard)
        known.is_shown = True
        try:
            return Look(self._families(known, open_sums), tuple(problems), discard)
        except TextError as err:
            if known.wrong.get("") != str(err):
                problems.append(Problem(err.reason, f"{folder}: {err}"))
            known.wrong[""] = str(err)
            return Look(None, tuple(problems), discard)

    def drop(self, job: str) -> str:
        """Forgets *job*; the folder that may go."""
        self._jobs.pop(job, None)
        return os.path.join(self._root, job)

    # ------------------------------------------------ one attempt

    def _take(self, known: _Job, folder: str, key: str, open_sums: list[Sums], gone: list[str], *, is_live: bool) -> bool:
        """Reads one attempt, and folds it if it is over; whether anything is new."""
        files = [one for one in read_folder(os.path.join(folder, key)) if f"{key}/{one.identity}" not in known.folded]
        if not is_live:
            self._fold(known, summed(files, lambda _: False))
            known.folded.add(key)
            known.seen.pop(key, None)
            return True
        dead = [one for one in files if not _is_alive(one.process) and one.kind in _FOLDED_KINDS]
        if len(dead) > DEAD_MAX:
            self._fold(known, summed(dead, lambda _: False))
            known.folded |= {f"{key}/{one.identity}" for one in dead}
            gone += [os.path.join(key, one.name) for one in dead]
            files = [one for one in files if one not in dead]
        stale = [one for one in files if one.kind.startswith("gauge_live") and not _is_alive(one.process)]
        gone += [os.path.join(key, one.name) for one in stale]
        files = [one for one in files if one not in stale]
        sums = summed(files, _is_alive)
        now = (digest(files), tuple(one.name for one in files if _is_alive(one.process)))
        is_new = known.seen.get(key) != now
        known.seen[key] = now
        open_sums.append(sums)
        return is_new

    def _fold(self, known: _Job, sums: Sums) -> None:
        """Adds *sums* to what is kept, if the whole is still what may be shown; else ``TextError``, and what was kept stays."""
        base = joined(known.base, without_live(sums))
        parse(as_text(base), self._caps)
        known.base = base
        known.is_saved = False

    def _families(self, known: _Job, open_sums: list[Sums]) -> list[Family]:
        total = known.base
        for sums in open_sums:
            total = joined(total, sums)
        families = parse(as_text(total), self._caps)
        known.wrong.pop("", None)
        return families

    # ------------------------------------------------ our file

    def _save(self, known: _Job, folder: str) -> None:
        document = {"schema": 1, "folded": sorted(known.folded), "families": encode(known.base)}
        path = os.path.join(folder, SUMS)
        try:
            fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.rename(path + ".new", path)
        except OSError:
            return  # a full disk: nothing is removed, and the next look tries again
        known.is_saved = True

    def _discard(self, known: _Job, folder: str, keys: list[str], gone: list[str]) -> tuple[str, ...]:
        """Removes what is folded once that is written down; names the directories, whose removal may take long, for somebody else."""
        if not known.is_saved:
            return ()
        for name in gone:
            _unlink(folder, name)
        still_there = {key for key in known.folded if key.partition("/")[0] in keys}
        known.folded = still_there
        return tuple(os.path.join(folder, key) for key in keys if key in known.folded)


def _is_alive(process: str) -> bool:
    """Whether a process of that number exists; a name that is no number is somebody's own, and taken for alive."""
    return not process.isdecimal() or os.path.exists(f"/proc/{process}")


def _attempts(folder: str) -> list[str]:
    """The attempts that have a directory, oldest first."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if _KEY.fullmatch(name)]
        return sorted(names, key=lambda name: tuple(map(int, name.split("."))))
    return []


def _unlink(folder: str, name: str) -> None:
    """A file in an attempt's directory, which is the job's: not through a link that the job may have put there."""
    key, _, file = name.partition("/")
    with contextlib.suppress(OSError):
        fd = os.open(os.path.join(folder, key), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.unlink(file, dir_fd=fd)
        finally:
            os.close(fd)


def _load(path: str) -> _Job:
    """What an earlier life kept; nothing when it kept nothing, or nothing that can be read (then the counters begin anew)."""
    try:
        with open(path, "rb") as file:
            document: Any = json.loads(file.read(SUMS_MAX))
        return _Job(decode(document["families"]), {str(key) for key in document["folded"]})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return _Job()


__all__ = ["Look", "Problem", "RawFile", "Tally"]
