"""Takes a survey of what a job is made of, in a thread of its own: its files may lie on a disk that does not answer.

Only looks: nothing of the job's is executed, no package's metadata is opened, git is read as files. Everything is bounded; the digests of files
that have not changed are remembered.
"""

import hashlib
import hmac
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct

from supervisor.core.jobs import Job
from supervisor.core.model import RunId, Wall
from supervisor.core.redact import Redactor, is_secretive
from supervisor.core.survey import Survey, changes, config_of, sized

FILES_MAX: Final = 300  # of code, per job
ENTRIES_MAX: Final = 3000  # of folders that are walked for it
DEPTH_MAX: Final = 6
HASHED_BYTES_MAX: Final = 1 << 20  # a larger file is known by its size and time
INPUTS_MAX: Final = 20
PACKAGES_MAX: Final = 2000
REMEMBERED: Final = 20_000
WAITING_MAX: Final = 200  # starts that wait for their survey; beyond, it is left out
_TEMPORARY: Final = ("/tmp", "/var/tmp")  # noqa: S108 - names only
SHARED: Final = frozenset(
    {"/", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/root", "/home", "/opt", "/srv", *_TEMPORARY}
)  # no job's own
_PYTHON: Final = re.compile(r"python(\d+(\.\d+)?)?|pypy3?")
_VALUE: Final = re.compile(r"-{0,2}[\w-]+=(.+)", re.DOTALL)

log = structlog.get_logger()


class Found(Struct, frozen=True):
    """What a survey came to: ``changes`` for the dossier, ``facts`` (executable, python), and ``text`` to be kept if the run is good.

    ``text`` is None when it is what is kept already.
    """

    changes: Mapping[str, object]
    facts: Mapping[str, object]
    text: str | None


Kept = tuple[str, RunId, Wall]
"""The kept survey's text, and the last good run with its end."""


class Surveyor:
    """One thread. *kept* reads what is kept of a job; it is called there. *key* makes the digests of secret values useless elsewhere."""

    def __init__(
        self, kept: Callable[[str], Kept | None], inherited: Mapping[str, str], key: bytes, redactor_for: Callable[[Job], Redactor]
    ) -> None:
        self._kept = kept
        self._inherited = inherited
        self._key = key
        self._redactor_for = redactor_for
        self._digests: dict[str, tuple[tuple[int, ...], str]] = {}
        self._packages: dict[str, tuple[int, dict[str, str]]] = {}
        self._changed = threading.Condition()
        self._asked: dict[str, Job] = {}
        self._in_work = ""
        self._results: dict[str, bytes] = {}  # packed: of a thousand services each waits for the end of its attempt
        self._thread: threading.Thread | None = None

    def begin(self, key: str, job: Job) -> None:
        """Have it surveyed for the attempt *key*; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="surveyor", daemon=True)
            self._thread.start()
        with self._changed:
            if len(self._asked) < WAITING_MAX:
                self._asked[key] = job
                self._changed.notify_all()

    def finish(self, key: str, patience_s: float) -> Found | None:
        """What was found for the attempt; None when it is not known within *patience_s*."""
        with self._changed:
            self._changed.wait_for(lambda: key not in self._asked and key != self._in_work, patience_s)
            self._asked.pop(key, None)
            if key == self._in_work:
                self._in_work = ""  # nobody waits for it any more
            packed = self._results.pop(key, None)
        return None if packed is None else msgspec.json.decode(zlib.decompress(packed), type=Found)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked)
                key = next(iter(self._asked))
                job, self._in_work = self._asked.pop(key), key
            packed = None
            try:
                packed = zlib.compress(msgspec.json.encode(self.survey(job)))
            except Exception:  # whatever a job's files are like, the next job is surveyed
                log.exception("survey_failed", job=job.name)
            with self._changed:
                if packed is not None and self._in_work == key:
                    self._results[key] = packed
                self._in_work = ""
                self._changed.notify_all()

    def survey(self, job: Job) -> Found:
        """Look at it now."""
        environment = {**self._inherited, **job.launch.environment}
        path, script, rest = _program(job, environment)
        redactor = self._redactor_for(job)
        packages = dict(self._packages_of(path)) if path is not None and _is_python(path) else {}
        now = Survey(
            code=_spelled(self._code(script)),
            commit=_commit(script or job.launch.directory),
            packages=_spelled(packages.items()),
            interpreter=_utf8(_interpreter(path)) if path is not None and _is_python(path) else "",
            inputs=_spelled(_inputs(rest, job.launch.directory, script)),
            config=_spelled((key, self._value(key, value, redactor)) for key, value in config_of(job)),
        )
        text, kept = now.encode(), self._kept(job.name)
        before = None
        if kept is not None:
            try:
                before = Survey.decode(kept[0])
            except ValueError:
                log.warning("survey_unreadable", job=job.name)
        since = (None, None) if before is None or kept is None else (kept[1], kept[2])
        found = changes(before, now, *since)
        facts: dict[str, object] = {"executable": path, "script": script}
        return Found(_clean(found, redactor), _clean(facts, redactor), None if kept is not None and kept[0] == text else text)

    def _value(self, key: str, value: Any, redactor: Redactor) -> str:
        """A config value as it may be kept: secret parts only as a digest under our own key."""
        text = (
            " ".join(map(str, value))
            if isinstance(value, tuple)
            else ", ".join(sorted(map(str, value)))
            if isinstance(value, frozenset)
            else str(value)
        )
        shown = "" if is_secretive(key) else redactor.text(text)
        if key.startswith("environment."):
            shown = ""  # any variable may hold what its name does not say
        return (
            shown
            if shown == text
            else f"{shown[:200]} (digest {hmac.new(self._key, text.encode('utf-8', 'replace'), 'sha256').hexdigest()[:8]})".lstrip()
        )

    # ---------------------------------------------------------------- code

    def _code(self, script: str | None) -> Iterator[tuple[str, str]]:
        if script is None:
            return
        found = {script: None, **dict.fromkeys(_sources(os.path.dirname(script)))} if script.endswith(".py") else {script: None}
        for path in found:
            digest = self._digest(path)
            if digest is not None:
                yield path, digest

    def _digest(self, path: str) -> str | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            # With the change time, which no editor can set back. A chmod or a hard link moves it too: then the file is read again, to the same digest.
            mark = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            known = self._digests.get(path)
            if known is not None and known[0] == mark:
                return known[1]
            if status.st_size > HASHED_BYTES_MAX:
                return sized(status.st_size, status.st_mtime)
            digest = hashlib.blake2b(os.read(fd, HASHED_BYTES_MAX), digest_size=8).hexdigest()
            if len(self._digests) >= REMEMBERED:
                self._digests.clear()
            self._digests[path] = (mark, digest)
        except OSError:
            return None
        finally:
            os.close(fd)
        return digest

    # ---------------------------------------------------------------- packages

    def _packages_of(self, python: str) -> Iterator[tuple[str, str]]:
        for folder in _package_folders(python):
            try:
                changed = os.stat(folder).st_mtime_ns
                known = self._packages.get(folder)
                if known is None or known[0] != changed:
                    known = self._packages[folder] = (changed, dict(_installed(folder)))
                yield from known[1].items()
            except OSError:
                continue


def _spelled(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {_utf8(name): _utf8(value) for name, value in pairs}


def _utf8(text: str) -> str:
    """A name as it can be kept: bytes that are no UTF-8 are spelled out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _clean(found: Any, redactor: Redactor) -> Any:
    if isinstance(found, dict):
        return {key: _clean(value, redactor) for key, value in found.items()}
    if isinstance(found, list):
        return [_clean(value, redactor) for value in found]
    return redactor.text(_utf8(found)) if isinstance(found, str) else found


# ---------------------------------------------------------------- what the command names


def _program(job: Job, environment: Mapping[str, str]) -> tuple[str | None, str | None, list[str]]:
    """(the program's path, the script that it runs or the program itself where it is one, the other arguments)."""
    argv, directory = list(job.launch.argv), job.launch.directory
    path = _which(argv[0], directory, environment.get("PATH", "/usr/local/bin:/usr/bin:/bin"))
    if path is None or not _is_python(path):
        interpreter = _shebang(path, environment) if path is not None else None
        return interpreter or path, path, argv[1:]
    arguments = argv[1:]
    while arguments and arguments[0].startswith("-") and arguments[0] not in ("-m", "-c", "-"):
        arguments = arguments[2:] if arguments[0] in ("-X", "-W", "--check-hash-based-pycs") else arguments[1:]
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        return path, _module(arguments[1], [directory, *environment.get("PYTHONPATH", "").split(os.pathsep)]), arguments[2:]
    if not arguments or arguments[0] in ("-c", "-"):
        return path, None, arguments[2:]
    script = os.path.normpath(os.path.join(directory, arguments[0]))
    if os.path.isdir(script):
        script = os.path.join(script, "__main__.py")
    return path, script, arguments[1:]


def _is_python(path: str) -> bool:
    return _PYTHON.fullmatch(os.path.basename(path)) is not None


def _which(name: str, directory: str, search: str) -> str | None:
    places = [directory] if "/" in name else search.split(os.pathsep)
    for place in places:
        found = os.path.normpath(os.path.join(directory, place, name))
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return None


def _shebang(path: str, environment: Mapping[str, str]) -> str | None:
    """The Python that a script names in its first line."""
    words = _start(path, 200).split(b"\n", 1)[0].decode("utf-8", "replace").split()
    if not words or not words[0].startswith("#!"):
        return None
    program = words[0][2:] or (words[1] if len(words) > 1 else "")
    if os.path.basename(program) == "env" and len(words) > 1:
        program = next((word for word in words[1:] if not word.startswith("-")), "")
    found = _which(program, "/", environment.get("PATH", "")) if program else None
    return found if found is not None and _is_python(found) else None


def _module(name: str, places: list[str]) -> str | None:
    tail = name.replace(".", "/")
    for place in filter(None, places):
        for candidate in (f"{tail}/__main__.py", f"{tail}.py"):
            path = os.path.join(place, candidate)
            if os.path.isfile(path):
                return path
    return None


def _start(path: str, size: int) -> bytes:
    """The first bytes of a regular file, none of anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(fd, size) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


# ---------------------------------------------------------------- folders


def _sources(folder: str) -> Iterator[str]:
    """Python files under *folder*, breadth first in a stable order; no hidden folders, environments or caches."""
    if folder in SHARED:
        return
    level, left, given = [folder], ENTRIES_MAX, 0
    for _ in range(DEPTH_MAX):
        below: list[str] = []
        for each in level:
            try:
                with os.scandir(each) as entries:
                    listed = sorted((entry for entry, _ in zip(entries, range(left), strict=False)), key=lambda entry: entry.name)
            except OSError:
                continue
            left -= len(listed)
            if each != folder and any(entry.name == "pyvenv.cfg" for entry in listed):
                continue
            for entry in listed:
                if entry.name.startswith((".", "__pycache__", "node_modules", "site-packages")):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif entry.name.endswith(".py"):
                    yield entry.path
                    given += 1
                    if given >= FILES_MAX:
                        return
        level = below
        if not level or left <= 0:
            return


def _inputs(arguments: list[str], directory: str, script: str | None) -> Iterator[tuple[str, str]]:
    """Files and folders that the arguments name, with their size."""
    found = 0
    for argument in arguments:
        match = _VALUE.fullmatch(argument)
        name = match[1] if match else argument
        if found >= INPUTS_MAX or not name or "\0" in name or len(name) > 4096 or (name.startswith("-") and not match):
            continue
        path = os.path.normpath(os.path.join(directory, name))
        try:
            status = os.stat(path)
        except OSError:
            continue
        if path in (script, "/"):
            continue
        if stat.S_ISREG(status.st_mode):
            yield path, sized(status.st_size, status.st_mtime)
        elif stat.S_ISDIR(status.st_mode):
            yield path, _entries(path)
        else:
            continue
        found += 1


def _entries(folder: str) -> str:
    size, count = 0, 0
    try:
        with os.scandir(folder) as entries:
            for entry, _ in zip(entries, range(ENTRIES_MAX), strict=False):
                count += 1
                size += entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
    except OSError:
        pass
    return f"{count:,} entries, {size:,} bytes in its files"


# ---------------------------------------------------------------- git, Python


def _commit(path: str) -> str:
    """Branch and commit of the repository that *path* lies in, read from its files."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    for _ in range(20):
        git = os.path.join(folder, ".git")
        if os.path.isfile(git):  # a worktree, or a submodule
            named = _start(git, 4096).decode("utf-8", "replace").strip()
            git = os.path.normpath(os.path.join(folder, named.removeprefix("gitdir: "))) if named.startswith("gitdir: ") else ""
        if git and os.path.isdir(git):
            return _head(git)
        if folder == os.path.dirname(folder):
            break
        folder = os.path.dirname(folder)
    return ""


def _head(git: str) -> str:
    head = _start(os.path.join(git, "HEAD"), 4096).decode("utf-8", "replace").strip()
    if not head.startswith("ref: "):
        return head[:12] if re.fullmatch(r"[0-9a-f]{40,64}", head) else ""
    ref = head.removeprefix("ref: ")
    if not re.fullmatch(r"refs/[\w./+@-]{1,200}", ref) or ".." in ref:
        return ""
    shared = _start(os.path.join(git, "commondir"), 4096).decode("utf-8", "replace").strip()
    for place in (git, os.path.join(git, shared)):
        commit = _start(os.path.join(place, ref), 200).decode("ascii", "replace").strip()
        if not commit:
            packed = _start(os.path.join(place, "packed-refs"), 1 << 20).decode("utf-8", "replace")
            commit = next((line.split(" ")[0] for line in packed.splitlines() if line.endswith(f" {ref}")), "")
        if commit:
            return f"{commit[:12]} ({ref.removeprefix('refs/heads/')})"
    return ""


def _interpreter(path: str) -> str:
    """The real file behind it, with its size and time: an upgrade in place changes those."""
    real = os.path.realpath(path)
    try:
        status = os.stat(real)
    except OSError:
        return path
    return f"{real} ({sized(status.st_size, status.st_mtime)})"


def _package_folders(python: str) -> Iterator[str]:
    """Where that Python's packages lie: its virtual environment's, or its own."""
    bare = os.path.dirname(os.path.dirname(python))
    real = os.path.dirname(os.path.dirname(os.path.realpath(python)))
    prefixes = [bare] if os.path.isfile(os.path.join(bare, "pyvenv.cfg")) else [bare, real, "/usr/local" if real == "/usr" else ""]
    for prefix in dict.fromkeys(filter(None, prefixes)):
        library = os.path.join(prefix, "lib")
        try:
            names = sorted(name for name in os.listdir(library) if name.startswith("python"))
        except OSError:
            continue
        yield from (os.path.join(library, name, kind) for name in names for kind in ("site-packages", "dist-packages"))


def _installed(folder: str) -> Iterator[tuple[str, str]]:
    for name in sorted(os.listdir(folder))[: PACKAGES_MAX * 4]:
        stem, dot, kind = name.rpartition(".")
        if dot and kind in ("dist-info", "egg-info"):
            package, _, version = stem.partition("-")
            yield package, version.partition("-")[0] or "?"
