"""Reads directories of CSV files, plain or gzip. Recognises three shapes and maps them to accounts, items and events.

    users + events             users(id, created_at, invited_by), events(id, ts, type, actor, target)
    users + messages           a message is an event of its sender to its recipient
    users + posts + comments   a question-and-answer site: an answer goes to the owner of its question, a comment to the owner of its post, a question
                               to nobody; rows of other kinds of posts are no events; user -1 is the site's own process

One physical line is one row: a broken quote then costs one row, not the rest of the file. The position holds the offset and a digest of everything before
it, so a file that only grew is read on, and any other change is noticed.
"""

import csv
import gzip
import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import IO, Any, Final, cast

from user_metrics.check import RAW_MAX, Kind, Reason, Row, Table
from user_metrics.errors import JobError
from user_metrics.source import Batch, Options, Position, Source, Stream, plain_tables, present_columns

LINE_MAX: Final = 1 << 20  # bytes; what is longer is no row of ours and is not kept in memory
CHUNK: Final = 1 << 20
SETTLE_S: Final = 60.0  # a last line without its newline may still be in the making; after this time it is taken as it is

_POST_TYPES: Final = {"1": "question", "2": "answer"}
_OTHER_POSTS: Final = frozenset(
    str(number) for number in range(3, 20)
)  # wikis, nominations: kinds of the site's software that are no events


def open_directory(path: str, options: Options) -> Source:
    """The CSV source in the directory *path*. ``JobError`` when it has none of the three shapes."""
    files = _csv_files(path)
    for needed, tables, system in _shapes(options):
        if needed <= files.keys():
            streams: list[Stream] = [CsvStream(files[table.relation], table) for table in tables]
            return Source(os.path.abspath(path), streams, options.system_users | system)
    found = ", ".join(sorted(files)) or "no CSV file at all"
    raise JobError(
        f"{path}: needs users.csv with events.csv, with messages.csv, or with posts.csv and comments.csv (or .csv.gz); found: {found}"
    )


def _csv_files(path: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for name in sorted(os.listdir(path)):
        stem = name.removesuffix(".gz").removesuffix(".csv")
        if name.removesuffix(".gz").endswith(".csv"):
            if stem in files:
                raise JobError(f"{path}: both {stem}.csv and {stem}.csv.gz are there; remove the one that is out of date")
            files[stem] = os.path.join(path, name)
    return files


def _shapes(options: Options) -> list[tuple[frozenset[str], Sequence[Table], frozenset[str]]]:
    everything = frozenset({"*"})
    users = Table("users", Kind.ACCOUNTS, "users", ("user_id", "created_at", None))
    message_columns = ("message_id", "sent_at", None, "sender_id", "recipient_id")
    messages = Table("messages", Kind.EVENTS, "messages", message_columns, one_type="message", needs_target=everything)
    items = Table("items", Kind.ITEMS, "posts", ("post_id", "owner_user_id"))
    post_columns = ("post_id", "created_at", "post_type_id", "owner_user_id", "parent_id")
    posts = Table(
        "posts", Kind.EVENTS, "posts", post_columns, types=_POST_TYPES, skip=_OTHER_POSTS, by_item=True, needs_target=frozenset({"answer"})
    )
    comment_columns = ("comment_id", "created_at", None, "user_id", "post_id")
    comments = Table("comments", Kind.EVENTS, "comments", comment_columns, one_type="comment", by_item=True, needs_target=everything)
    plain_users, plain_events = plain_tables(options)
    return [
        (frozenset({plain_users.relation, plain_events.relation}), (plain_users, plain_events), frozenset()),
        (frozenset({"users", "messages"}), (users, messages), frozenset()),
        (frozenset({"users", "posts", "comments"}), (users, items, posts, comments), frozenset({"-1"})),
    ]


class CsvStream:
    """One CSV file as a table."""

    def __init__(self, path: str, table: Table) -> None:
        self.path = path
        self.table = table

    def batches(self, position: Position | None, size: int) -> Iterator[Batch]:
        """See ``source.Stream``."""
        try:
            signature = _signature(self.path)
            if position is not None and position.get("signature") == signature:
                return
            with open(self.path, "rb") as raw:
                file = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if self.path.endswith(".gz") else raw
                cursor = _Cursor(
                    self.path, file, settled=self.path.endswith(".gz") or time.time() - os.fstat(raw.fileno()).st_mtime > SETTLE_S
                )
                pick = self._header(cursor)
                if position is not None and not cursor.skip_to(position):
                    file.seek(0)
                    cursor = _Cursor(self.path, file, settled=cursor.settled)
                    pick = self._header(cursor)
                yield from self._read(cursor, pick, raw, signature, size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as err:
            raise JobError(
                f"{self.path}: the compressed data ends early or is damaged ({err}); what was read is kept, copy the file again"
            ) from err
        except OSError as err:
            raise JobError(f"{self.path}: {err.strerror or err}; it has to be a file that this user can read") from err

    def _header(self, cursor: "_Cursor") -> Callable[[list[str | None]], tuple[Any, ...]]:
        line = cursor.next_line()
        text = line.decode("utf-8-sig", "replace").rstrip("\r\n") if line else ""
        header = [name.strip() for name in next(csv.reader([text]), [])]
        if not any(header):
            raise JobError(f"{self.path}:1: there is no header line; the first line has to name the columns")
        cursor.width = len(header)
        columns = present_columns(self.table, header, f"{self.path}:1")
        return itemgetter(*(cursor.width if column is None else header.index(column) for column in columns))

    def _read(
        self, cursor: "_Cursor", pick: Callable[[list[str | None]], tuple[Any, ...]], raw: IO[bytes], signature: list[int], size: int
    ) -> Iterator[Batch]:
        name = os.path.basename(self.path)
        total = signature[2]
        rows: list[Row] = []
        while (line := cursor.next_line()) is not None:
            if line.strip():
                rows.append(_row(name, cursor, line, pick))
            if len(rows) >= size:
                yield Batch(rows, cursor.position(), min(raw.tell(), total), total)
                rows = []
        position = cursor.position()
        if cursor.complete:
            position["signature"] = signature
        yield Batch(rows, position, total, total)


class _Cursor:
    """Lines of a file with their number, their offset, and a running digest of all before them."""

    def __init__(self, path: str, file: IO[bytes], *, settled: bool) -> None:
        self.path = path
        self.file = file
        self.settled = settled
        self.complete = False
        self.width = 0
        self.line = 0
        self.start = 0  # of the line handed out last
        self.offset = 0
        self.digest = hashlib.blake2b(digest_size=16)

    def next_line(self) -> bytes | None:
        """The next line, cut at LINE_MAX, or None at the end (then ``complete`` says whether nothing was left unread)."""
        line = self.file.readline(LINE_MAX)
        if not line:
            self.complete = True
            return None
        whole = line.endswith(b"\n")
        if not whole and len(line) < LINE_MAX and not self.settled:
            return None  # it may still be written; ``complete`` stays False, the next run reads it
        self._took(line)
        if not whole and len(line) == LINE_MAX:
            self._skip_rest()
        self.line += 1
        return line

    def _skip_rest(self) -> None:
        """Read past the rest of an overlong line without keeping it."""
        while data := self.file.readline(CHUNK):
            self.digest.update(data)
            self.offset += len(data)
            if data.endswith(b"\n"):
                return

    def _took(self, data: bytes) -> None:
        self.start = self.offset
        self.digest.update(data)
        self.offset += len(data)

    def skip_to(self, position: Position) -> bool:
        """Go to *position*; False when what stands before it is not what was read then."""
        while self.offset < position["offset"]:
            data = self.file.read(min(CHUNK, position["offset"] - self.offset))
            if not data:
                return False
            self._took(data)
        self.line = position["line"]
        return bool(self.offset == position["offset"]) and self.digest.hexdigest() == position["digest"]

    def position(self) -> Position:
        """Where the next line starts."""
        return {"offset": self.offset, "line": self.line, "digest": self.digest.copy().hexdigest()}


def _row(name: str, cursor: _Cursor, line: bytes, pick: Callable[[list[str | None]], tuple[Any, ...]]) -> Row:
    place = f"{name}:{cursor.line}:{cursor.start}"
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return Row(place, (), line[:RAW_MAX].decode(errors="backslashreplace").rstrip("\r\n"), Reason.ENCODING)
    fields: list[str | None]
    if '"' in text:
        try:
            fields = next(cast("Iterator[list[str | None]]", csv.reader([text], strict=True)))
        except (csv.Error, StopIteration):
            fields = []
    else:
        fields = text.split(",")  # type: ignore[assignment]  # a list of str is one of str | None once None is appended
    if len(fields) != cursor.width or len(line) >= LINE_MAX:
        return Row(place, (), text[:RAW_MAX], Reason.COLUMNS_WRONG)
    fields.append(None)  # what ``pick`` finds for columns that are not there
    return Row(place, pick(fields), text[:RAW_MAX])


def _signature(path: str) -> list[int]:
    facts = os.stat(path)
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns]
