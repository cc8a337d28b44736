"""The page a job and its supervisor share: record in work, counts, progress, heartbeat. Owns the format, a writer and a reader.

One file of 4 KiB, made by the supervisor before the job starts and mapped by ``supervisor.job``; it belongs to the kernel's page cache, so it tells the
truth after any death, SIGKILL included. What is longer than a machine word lives in two slots that are used in turn: the other slot is written first, and
one aligned store of eight bytes, ``sequence << 8 | length``, commits it. A job killed at any instant leaves the old value or the new one, never a mixture.

    offset  size     content (little-endian)
    0       8        the word "MAINSTAY"
    8       8        version (1)
    16      8        record word:    sequence << 8 | length in bytes of its key; length 0: none in work
    24      8        records finished
    32      8        progress word:  sequence << 8 | length in bytes of the stage's name
    40      8        heartbeat: CLOCK_MONOTONIC in nanoseconds, 0: none yet
    48      8        1: the job names its records by keys of its own; 0: their names are only positions
    56      8        pid of the process that writes here; 0: none yet
    512     2 x 256  record keys, UTF-8
    1024    2 x 256  progress: done, total, base (8 bytes each, see ``Page.done``), then the stage's name, UTF-8

Nothing else is stored; what the supervisor decides from it is not here. Standard library only, and for Python 3.8 and newer: jobs import this.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

SIZE: Final = 4096
VERSION: Final = 1
MAGIC: Final = int.from_bytes(b"MAINSTAY", "little")
TEXT_MAX: Final = 255  # a length has to fit into the low byte of its word

_SLOT: Final = 256
_KEYS: Final = 512
_STAGES: Final = 1024
_PROGRESS: Final = struct.Struct("<QQQ")
STAGE_MAX: Final = _SLOT - _PROGRESS.size
_NONE: Final = 2**64 - 1  # "not known" for total, "not counted by records" for base
_SEQUENCE: Final = 2**56 - 1
COUNT_MAX: Final = 2**63 - 1  # larger numbers on a page are nonsense

# Indices of the eight-byte words.
_W_MAGIC, _W_VERSION, _W_RECORD, _W_RECORDS, _W_PROGRESS, _W_HEARTBEAT, _W_KEYED, _W_WRITER = range(8)
_HEAD: Final = struct.Struct("<8Q")


class Page(NamedTuple):
    """What a page said at one moment.

    ``seq`` counts the commits of a record key; ``records`` the records finished. ``done`` and ``total`` are in the job's own unit, None where it
    does not say; while ``records()`` of a known length runs, ``done`` follows it. ``heartbeat_mono`` is CLOCK_MONOTONIC seconds of this boot.
    ``keyed``: the record's name is a key that the job gave it, not its position.
    """

    seq: int
    records: int
    done: int | None
    total: int | None
    stage: str
    record_in_work: str | None
    heartbeat_mono: float | None
    progress_seq: int
    keyed: bool = False

    @property
    def pulse(self) -> tuple[int, int, int, float | None]:
        """A value that changes with every sign of life; unchanged between two looks means no progress in between."""
        return (self.seq, self.records, self.progress_seq, self.heartbeat_mono)

    @property
    def says_anything(self) -> bool:
        """False while the job has not used the page at all: most jobs never do, and are not to be called stalled for it."""
        return bool(self.seq or self.records or self.progress_seq or self.heartbeat_mono)


def create_page(path: str, *, uid: int = -1, gid: int = -1) -> None:
    """Make an empty page at *path*, readable and writable by *uid* (-1: ourselves) only. ``OSError``, also when something is there already."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _HEAD.pack(MAGIC, VERSION, 0, 0, 0, 0, 0, 0).ljust(SIZE, b"\0"))
        if uid != -1 or gid != -1:
            os.fchown(fd, uid, gid)
    finally:
        os.close(fd)


def read_page(path: str) -> Page | None:
    """What the page at *path* says; None where there is none or where it is not one.

    The file belongs to the job and is not trusted: no symbolic link is followed, nothing that could block is opened, 4 KiB are read and no more.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        for _ in range(4):  # a live job may commit twice while we read; the second look is then whole
            data = os.pread(fd, SIZE, 0)
            if len(data) != SIZE or os.pread(fd, _HEAD.size, 0)[16:40] == data[16:40]:
                break
        return parse_page(data)
    except OSError:
        return None
    finally:
        os.close(fd)


def parse_page(data: bytes) -> Page | None:
    """The page in *data*; None when it is not 4 KiB of our version or holds what no job of ours can have written."""
    if len(data) != SIZE:
        return None
    magic, version, record, records, progress, heartbeat, keyed, _ = _HEAD.unpack_from(data)
    if magic != MAGIC or version != VERSION or max(records, heartbeat) > COUNT_MAX:
        return None
    stage = _stage(data, progress)
    if stage is None:
        return None
    name, done, total, base = stage
    if base is not None:
        done = max(0, records - base)
    return Page(
        seq=record >> 8,
        records=records,
        done=done if progress else None,
        total=total,
        stage=name,
        record_in_work=_key(data, record) or None,
        heartbeat_mono=heartbeat / 1e9 if heartbeat else None,
        progress_seq=progress >> 8,
        keyed=keyed == 1,
    )


def _key(data: bytes, word: int) -> str:
    """The key that *word* commits, "" for none."""
    at = _KEYS + (word >> 8 & 1) * _SLOT
    return _text(data[at : at + (word & 0xFF)])


def _stage(data: bytes, word: int) -> tuple[str, int, int | None, int | None] | None:
    """(name, done, total, base) that *word* commits, None for numbers that make no sense."""
    if word == 0:
        return "", 0, None, None
    at = _STAGES + (word >> 8 & 1) * _SLOT
    done, total, base = _PROGRESS.unpack_from(data, at)
    at += _PROGRESS.size
    name = _text(data[at : at + min(word & 0xFF, STAGE_MAX)])
    if done > COUNT_MAX or COUNT_MAX < total < _NONE or COUNT_MAX < base < _NONE:
        return None
    return name, done, None if total == _NONE else total, None if base == _NONE else base


def _text(raw: bytes) -> str:
    text = raw.decode(errors="backslashreplace")
    if is_plain(text):
        return text
    return "".join(char if is_plain(char) else char.encode("unicode_escape").decode() for char in text)[:TEXT_MAX]


def is_plain(text: str) -> bool:
    """Whether *text*, which ends up on terminals and in log lines, holds nothing that drives them.

    Characters that our Python does not know are let through: the job's may be newer, and its key has to come back to it as it wrote it. Who shows a
    key escapes them.
    """
    if text.isprintable():
        return True
    from unicodedata import category  # most texts never need it

    return all(char.isprintable() or category(char) == "Cn" for char in text)


def clean_text(text: str, size: int = TEXT_MAX) -> bytes:
    """*text* as a page takes it: printable, UTF-8, at most *size* bytes, cut between characters."""
    if text.isascii() and text.isprintable() and len(text) <= size:
        return text.encode()
    kept = "".join(char if char.isprintable() else "?" for char in text[:size])
    return kept.encode(errors="replace")[:size].decode(errors="ignore").encode()


def name_of(key: str) -> bytes:
    """*key* as a page has it, and the quarantine after it. What does not fit or cannot be shown is told apart by a digest of the whole; so is the empty
    key, for a length of 0 says that no record is in work."""
    if key and key.isprintable():
        raw = key.encode(errors="replace")
        if len(raw) <= TEXT_MAX:
            return raw
    from hashlib import blake2b  # most keys never need it

    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return clean_text(key or "(empty)", TEXT_MAX - len(digest) - 1) + b"~" + digest.encode()


class Writer:
    """The job's end of a page. Not for several threads at once; a forked child must not use its parent's.

    A page has one writer: the first process that opens it, and after its end the next. ``OSError`` or ``ValueError`` when *path* is not a page of our
    version, or another process writes there.
    """

    __slots__ = ("_map", "_progress_seq", "_record_seq", "_records", "_words")

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode) or os.fstat(fd).st_size != SIZE:
                raise ValueError(f"{path} is not a page of {SIZE} bytes")
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._words = memoryview(self._map).cast("Q")
        if self._words[_W_MAGIC] != MAGIC or self._words[_W_VERSION] != VERSION:
            raise ValueError(f"{path} is not a page of version {VERSION}")
        if _lives(self._words[_W_WRITER]):
            raise ValueError(f"process {self._words[_W_WRITER]} writes on {path}")
        self._words[_W_WRITER] = os.getpid()
        self._record_seq = self._words[_W_RECORD] >> 8
        self._progress_seq = self._words[_W_PROGRESS] >> 8
        self._records = self._words[_W_RECORDS]

    @property
    def records(self) -> int:
        """How many records are finished."""
        return self._records

    def keyed(self, value: bool) -> None:
        """Whether the names of records are keys of the job's own."""
        self._words[_W_KEYED] = int(value)

    def begin(self, key: str) -> None:
        """The record *key* is in work from now on."""
        raw = key.encode() if key.isascii() and key.isprintable() and 0 < len(key) <= TEXT_MAX else name_of(key)
        seq = self._record_seq = (self._record_seq + 1) & _SEQUENCE
        at = _KEYS + (seq & 1) * _SLOT
        self._map[at : at + len(raw)] = raw
        self._words[_W_RECORD] = seq << 8 | len(raw)

    def finish(self) -> None:
        """The record in work is finished; none is in work until the next ``begin``."""
        seq = self._record_seq = (self._record_seq + 1) & _SEQUENCE
        self._words[_W_RECORD] = seq << 8  # before the count: a death between the two must not blame a record that is finished
        self._records += 1
        self._words[_W_RECORDS] = self._records

    def each(self, named: Iterable[tuple[str, T]]) -> Iterator[T]:
        """The records of (key, record) pairs, each between its ``begin`` and its ``finish``; written out here because it is paid per record."""
        page, words = self._map, self._words
        for key, item in named:
            raw = key.encode() if key.isascii() and key.isprintable() and 0 < len(key) <= TEXT_MAX else name_of(key)
            seq = (self._record_seq + 1) & _SEQUENCE
            at = _KEYS + (seq & 1) * _SLOT
            page[at : at + len(raw)] = raw
            words[_W_RECORD] = seq << 8 | len(raw)
            self._record_seq = seq
            yield item  # an exception in the caller's loop ends us here, with the record still named: that is the point
            self._record_seq = seq = (self._record_seq + 1) & _SEQUENCE
            words[_W_RECORD] = seq << 8
            self._records += 1
            words[_W_RECORDS] = self._records

    def progress(self, done: int | None, total: int | None, stage: str) -> None:
        """*done* of *total* (None: not known) in *stage*. *done* None: counted from here on by ``finish``."""
        raw = clean_text(stage, STAGE_MAX)
        seq = self._progress_seq = (self._progress_seq + 1) & _SEQUENCE
        at = _STAGES + (seq & 1) * _SLOT
        base = self._records if done is None else _NONE
        numbers = _PROGRESS.pack(_count(done or 0), _NONE if total is None else _count(total), base)
        self._map[at : at + len(numbers) + len(raw)] = numbers + raw
        self._words[_W_PROGRESS] = seq << 8 | len(raw)

    def heartbeat(self, mono_ns: int) -> None:
        """Proof of life at *mono_ns* (CLOCK_MONOTONIC, nanoseconds)."""
        self._words[_W_HEARTBEAT] = mono_ns

    def close(self) -> None:
        """Let go of the page; it stays as it is."""
        self._words.release()
        self._map.close()


def _lives(pid: int) -> bool:
    """Whether another process than ours has that pid."""
    if pid in (0, os.getpid()) or pid > 2**31 - 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _count(number: int) -> int:
    return min(max(int(number), 0), COUNT_MAX)
