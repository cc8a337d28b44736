"""Files that the configuration consists of, read with care: text out, or a ``ValueError`` that says why not.

A FIFO would block, a device would never end, a file that others can write would be their code run by us.
"""

import codecs
import os
import re
import stat
from enum import StrEnum

MOST_BYTES = 2**20  # 7,000 jobs; YAML beyond it is a mistake or an attack

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # as YAML 1.1, section 4.1.1


class Trust(StrEnum):
    """What has to be true of a file's owner and mode before we believe it."""

    ANY = "any"
    CODE = "code"  # it says what we run: when we are root, only root may have written it
    SECRET = "secret"  # noqa: S105 - the name of a demand; nobody but its owner may read it


def read_text(path: str, trust: Trust = Trust.ANY) -> str:
    """The whole file as text without a byte order mark. ``ValueError`` when it is no such file; its text starts with a verb ("is ...")."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as err:
        raise ValueError(_cannot_open(path, err)) from err
    try:
        before = os.fstat(descriptor)
        _check_type(before)
        _check_trust(path, before, trust)
        data = _read(descriptor)
        after = os.fstat(descriptor)
    except OSError as err:
        raise ValueError(f"cannot be read ({err.strerror}); check the disk it is on") from err
    finally:
        os.close(descriptor)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise ValueError("changed while it was being read; write a new file and rename it over the old one, then try again")
    return _decode(data)


def demand(path: str, trust: Trust) -> None:
    """``ValueError`` when the owner or mode of an existing file is not as *trust* demands."""
    try:
        facts = os.stat(path)
    except OSError:
        return  # it was not there, or is gone: nothing of it is used
    _check_trust(path, facts, trust)


def _cannot_open(path: str, err: Exception) -> str:
    if isinstance(err, FileNotFoundError):
        return "does not exist; write it, or name another file"
    if isinstance(err, PermissionError):
        return f"may not be read by uid {os.geteuid()}; change its mode or owner (and those of the directories above it)"
    if isinstance(err, NotADirectoryError):
        return "lies below something that is not a directory; name another file"
    if isinstance(err, OSError) and err.errno is not None:
        kind = _kind_of(path)
        return f"is {kind}; name a regular file" if kind else f"cannot be opened ({err.strerror}); name another file"
    return "is not a possible file name; name another file"  # a NUL in the path


def _kind_of(path: str) -> str:
    """Sockets and some devices fail at open; say what they are rather than ENXIO."""
    try:
        return _special(os.stat(path).st_mode)
    except OSError:
        return ""


def _special(mode: int) -> str:
    for is_kind, words in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if is_kind(mode):
            return words
    return ""


def _check_type(facts: os.stat_result) -> None:
    kind = _special(facts.st_mode)
    if kind:
        raise ValueError(f"is {kind}; name a regular file")
    if facts.st_size > MOST_BYTES:
        raise ValueError(f"is {facts.st_size} bytes long, more than the {MOST_BYTES} that are read; make it shorter")


def _check_trust(path: str, facts: os.stat_result, trust: Trust) -> None:
    mode = f"{stat.S_IMODE(facts.st_mode):04o}"
    if trust is Trust.SECRET and facts.st_mode & 0o077:
        raise ValueError(f"can be read by others (mode {mode}); run: chmod 600 {path}")
    if trust is not Trust.CODE or os.geteuid() != 0:
        return
    if facts.st_uid != 0:
        raise ValueError(f"belongs to uid {facts.st_uid}, which could make us run anything as root; run: chown root {path}")
    if facts.st_mode & stat.S_IWOTH or (facts.st_mode & stat.S_IWGRP and facts.st_gid != 0):
        raise ValueError(f"can be written by others (mode {mode}), who could make us run anything as root; run: chmod go-w {path}")
    folder = os.path.dirname(os.path.abspath(path))
    above = os.stat(folder).st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX:
        raise ValueError(f"lies in a directory that everybody can write, so anybody can replace it; run: chmod o-w {folder}")


def _read(descriptor: int) -> bytes:
    data = bytearray()
    while len(data) <= MOST_BYTES:
        piece = os.read(descriptor, 2**16)
        if not piece:
            return bytes(data)
        data += piece
    raise ValueError(f"is longer than the {MOST_BYTES} bytes that are read; make it shorter")  # /proc files and growing files state no size


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise ValueError(f"is not UTF-8 (byte {data[err.start]:#04x} in line {line}); save it as UTF-8") from err
    odd = _UNPRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        name = "a NUL byte" if odd[0] == "\0" else f"the control character U+{ord(odd[0]):04X}"
        raise ValueError(f"holds {name} in line {line}; is it a text file? remove that character")
    return text
