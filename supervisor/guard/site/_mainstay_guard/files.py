"""This process's own files in the report directory: <pid>.rep (records and counters), <pid>.fh (fatal dumps), <pid>.st (stacks on demand).

The .rep file has fixed places, so that every write is one pwrite that survives SIGKILL. Numbers are cells of 16 bytes ("%015d\\n").
supervisor/adapters/guard.py reads it; both know this table:

    0      hello, 128 bytes      128 swallowed RecursionErrors    144 swallowed MemoryErrors    160 highest limit asked for
    176    1 = orderly end       1024 + 8192 n  facts: main, thread, unraisable, lineage
    41984  who starts whom among asyncio tasks
    65536 (n + 1)  full records: main, thread, swallowed RecursionError twice in turn, census of types, arguments of the innermost
    frames of the stack that was written down last

A record is a 16-byte length line and then JSON. The length is written last: a record without it does not count.
"""

import os
import sys

HELLO = "mainstay-guard 1"
SWALLOWED_RECURSION, SWALLOWED_MEMORY, ASKED, FINALIZED = 128, 144, 160, 176
FACTS = {"main": 1024, "thread": 9216, "unraisable": 17408, "lineage": 25600}
FULL = {"main": 65536, "thread": 131072}
SWALLOWS = (196608, 262144)
CENSUS = 327680
TASKS = 41984
TASKS_BYTES = 23552 - 16
ARGUMENTS = 393216
FACTS_BYTES = 8192 - 16
FULL_BYTES = 60000
STACKS_BYTES = 1 << 20
MOST_PROCESSES = 256  # a fork bomb must not fill the disk
MOST_REFUSALS = 272  # a refusal to start is worth a file when reports of others no longer are
SUFFIXES = (".rep", ".fh", ".st")

_directory = ""
_pid = 0
_fds = []  # of the three files, in the order of SUFFIXES; the numbers stay the same over a fork
_identity = None  # (device, inode) of the .rep file
_stacks_inode = 0


def open_all(directory, depth, refusal=False):
    """Open this process's files; True when they are there. Raises nothing but OSError."""
    global _directory, _pid, _identity, _stacks_inode
    _directory, _pid, _identity = directory, os.getpid(), None
    most = MOST_REFUSALS if refusal else MOST_PROCESSES
    if len(os.listdir(directory)) >= most * len(SUFFIXES):
        return False
    for place, suffix in enumerate(SUFFIXES):
        _hold(place, _open(suffix))
    status = os.fstat(_fds[0])
    _identity = (status.st_dev, status.st_ino)
    _stacks_inode = os.fstat(_fds[2]).st_ino
    hello = "%s %d.%d.%d pid %d ppid %d depth %d" % ((HELLO,) + sys.version_info[:3] + (_pid, os.getppid(), depth))
    os.pwrite(_fds[0], hello.ljust(127).encode()[:127] + b"\n", 0)
    return True


def reopen_in_fork_child(depth):
    """Own files under the same descriptor numbers, or none at all: never the parent's."""
    if not _fds:
        return
    try:
        if open_all(_directory, depth):
            return
    except OSError:
        pass
    global _identity
    _identity = None
    nowhere = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    for fd in _fds:
        os.dup2(nowhere, fd, False)
    os.close(nowhere)


def fatal_fd():
    return _fds[1]


def add_stack(text):
    """Append to the stacks that were asked for, if the file is still ours."""
    fd = _fds[2]
    status = os.fstat(fd)
    if status.st_dev == _identity[0] and status.st_ino == _stacks_inode and status.st_size < STACKS_BYTES:
        os.write(fd, text.encode("ascii", "backslashreplace"))


def put(offset, data):
    """Write *data* at *offset* of the .rep file, if it is still ours: a job may close every descriptor and reuse the numbers."""
    if _identity is None:
        return
    try:
        status = os.fstat(_fds[0])
        if (status.st_dev, status.st_ino) == _identity:
            os.pwrite(_fds[0], data, offset)
            return
    except OSError:
        pass
    fd = os.open("%s/%d.rep" % (_directory, _pid), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == _identity:
            os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def put_number(offset, number):
    put(offset, b"%015d\n" % number)


def commit(offset, payload):
    """Write a record: take the old one back, write the new one, then say that it is whole."""
    put(offset, b"\0" * 16)
    put(offset + 16, payload)
    put_number(offset, len(payload))


def remove():
    """Unlink this process's files: it ended well and has nothing to say."""
    if _identity is not None and os.getpid() == _pid:
        for suffix in SUFFIXES:
            os.unlink("%s/%d%s" % (_directory, _pid, suffix))


def _open(suffix):
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    if suffix != ".rep":
        flags |= os.O_APPEND
    return os.open("%s/%d%s" % (_directory, _pid, suffix), flags, 0o600)


def _hold(place, fd):
    """Move *fd* to its high number, where neither the job's own files nor its habit of closing all low ones meet it."""
    if place < len(_fds):
        os.dup2(fd, _fds[place], False)
        os.close(fd)
        return
    target = min(os.sysconf("SC_OPEN_MAX"), 730) - 1 - place
    while target > fd and _taken(target):
        target -= len(SUFFIXES)
    if target > fd:
        os.dup2(fd, target, False)
        os.close(fd)
        fd = target
    _fds.append(fd)


def _taken(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
