"""What a job says of itself in lines of text, where it cannot use the page: a shell, PHP or awk. Owns the form and a reader.

The job writes to the file that ``$MAINSTAY_PROGRESS`` names, whole each time or a line more each time; of two lines that speak of the same, the later one
holds. Only the last 4 KiB are read, and a last line without its end is passed over.

    record KEY                  the record in work; without KEY: none
    records N                   so many are finished
    progress DONE [TOTAL [STAGE]]
    heartbeat                   proof of life; any other line is one too

A line may end with CRLF; so a KEY from a CRLF file is named without the carriage return, and $MAINSTAY_SKIP has it both ways.
A KEY is printable and at most 255 bytes, or it is as if none were named. Nothing here decides anything; standard library only.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from supervisor.page import COUNT_MAX, STAGE_MAX, TEXT_MAX, Page, clean_text, is_plain, read_page

NAME: Final = "progress"
READ_BYTES: Final = 4096


def read_signs(page_path: str) -> Page | None:
    """What the job says of itself: on its page or, where it does not use that, in the file beside it. None where there is no page."""
    page = read_page(page_path)
    if page is not None and page.says_anything:
        return page
    return read_progress(os.path.join(os.path.dirname(page_path), NAME)) or page


def read_progress(path: str) -> Page | None:
    """What the file at *path* says, as a page; None where there is none. The file is the job's: no link is followed, nothing that could block is opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        start = max(0, found.st_size - READ_BYTES)
        data = os.pread(fd, READ_BYTES, start)
    except OSError:
        return None
    finally:
        os.close(fd)
    if start:
        data = data.partition(b"\n")[2]
    return parse_progress(data, found.st_mtime_ns)


def parse_progress(data: bytes, mtime_ns: int) -> Page:
    """The lines in *data*; *mtime_ns*, the time of the last write, is what changes with every sign of life."""
    record: str | None = None
    records, done, total, stage = 0, None, None, ""
    for raw in data.split(b"\n")[:-1]:
        word, _, rest = raw.strip(b"\r").partition(b" ")
        if word == b"record":
            record = _key(rest)
        elif word == b"records":
            records = _count(rest) or 0
        elif word == b"progress":
            figures = rest.split(b" ", 2)
            done = _count(figures[0])
            total = _count(figures[1]) if len(figures) > 1 else None
            stage = clean_text(figures[2].decode(errors="replace"), STAGE_MAX).decode() if len(figures) > 2 else ""
    return Page(0, records, done, total, stage, record, None, max(1, min(mtime_ns, COUNT_MAX)), keyed=record is not None)


def _key(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text and len(raw) <= TEXT_MAX and is_plain(text) else None


def _count(raw: bytes) -> int | None:
    return int(raw) if raw.isdigit() and len(raw) < 19 else None
