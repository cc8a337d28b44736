"""This process's own file in the report directory, <pid>.rep: records, counters, and what faulthandler dumps.

It has fixed places, so that every write is one pwrite that survives SIGKILL. Numbers are cells of 16 bytes ("%015d\\n").
supervisor/adapters/guard.py reads it; both know this table:

    0      hello, 128 bytes      128 swallowed RecursionErrors    144 swallowed MemoryErrors    160 highest limit asked for
    176    1 = orderly end       192 highest recursion limit so far       208 1 = faulthandler is in other hands than ours
    224    when the 16th latest swallowed RecursionError was, and 240 the latest (ms of CLOCK_MONOTONIC); 256 and 272 of MemoryErrors
    1024 + 8192 n  facts: main, thread, unraisable, lineage
    41984  who starts whom among asyncio tasks
    65536 (n + 1)  full records: main, thread, swallowed RecursionError twice in turn, census of types, arguments of the innermost
    frames of the stack that was written down last
    524288    faulthandler's dumps of fatal signals, one behind the other      1572864  stacks that were asked for, one behind the other

A record is a 16-byte length line and then JSON. The length is written last: a record without it does not count. One file rather than three: it is the
making of a file that a start waits for, 40 us each on ext4, and what is not written takes no room.
"""

import posix
import sys

HELLO = "mainstay-guard 1"
SWALLOWED_RECURSION, SWALLOWED_MEMORY, ASKED, FINALIZED, LIMIT, ELSEWHERE = 128, 144, 160, 176, 192, 208
SWALLOWED_AT = (224, 256)
FACTS = {"main": 1024, "thread": 9216, "unraisable": 17408, "lineage": 25600}
FULL = {"main": 65536, "thread": 131072}
SWALLOWS = (196608, 262144)
CENSUS = 327680
TASKS = 41984
TASKS_BYTES = 23552 - 16
ARGUMENTS = 393216
FACTS_BYTES = 8192 - 16
FULL_BYTES = 60000
MOST_PROCESSES = 256  # a fork bomb must not fill the disk
MOST_REFUSALS = 272  # a refusal to start is worth a file when reports of others no longer are
FATAL = 524288
STACKS = 1572864

_directory = ""
_pid = 0
_fd = -1  # of the file. Its offset is where faulthandler goes on, records are written by place. The number stays the same over a fork
_identity = None  # (device, inode) of the .rep file
written = {}  # where -> how many exceptions have been written down
asked = [0, 0]  # how often somebody asked for the stack and what fills the memory, and how many bytes those stacks took


def open_all(directory, depth, refusal=False):
    """Open this process's file; True when it is there. Raises nothing but OSError."""
    global _directory, _pid, _identity
    _directory, _pid, _identity = directory, posix.getpid(), None
    most = MOST_REFUSALS if refusal else MOST_PROCESSES
    if len(posix.listdir(directory)) >= most:
        return False
    path = "%s/%d.rep" % (directory, _pid)
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
    _hold(posix.open(path, flags, 0o600))
    posix.lseek(_fd, FATAL, 0)
    status = posix.fstat(_fd)
    _identity = (status.st_dev, status.st_ino)
    hello = "%s %d.%d.%d pid %d ppid %d depth %d" % ((HELLO,) + sys.version_info[:3] + (_pid, posix.getppid(), depth))
    posix.pwrite(_fd, hello.ljust(127).encode()[:127] + b"\n" + bytes(LIMIT - 128) + b"%015d\n" % sys.getrecursionlimit(), 0)
    return True


def reopen_in_fork_child(depth):
    """An own file under the same descriptor number, or none at all: never the parent's."""
    global _fd, _identity
    if _fd < 0:
        return
    if _is_anothers():
        _fd = -1
    try:
        if open_all(_directory, depth):
            return
    except OSError:
        pass
    _identity = None
    if _fd >= 0:
        nowhere = posix.open("/dev/null", posix.O_WRONLY | posix.O_CLOEXEC)
        posix.dup2(nowhere, _fd, False)
        posix.close(nowhere)


def _is_anothers():
    """Whether the job has closed our descriptor and uses its number for something of its own."""
    try:
        status = posix.fstat(_fd)
    except OSError:
        return False
    return _identity is not None and (status.st_dev, status.st_ino) != _identity


def put(offset, data):
    """Write *data* at *offset* of the .rep file, if it is still ours: a job may close every descriptor and reuse the numbers."""
    if _identity is None:
        return
    try:
        status = posix.fstat(_fd)
        if (status.st_dev, status.st_ino) == _identity:
            posix.pwrite(_fd, data, offset)
            return
    except OSError:
        pass
    fd = posix.open("%s/%d.rep" % (_directory, _pid), posix.O_WRONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        status = posix.fstat(fd)
        if (status.st_dev, status.st_ino) == _identity:
            posix.pwrite(fd, data, offset)
    finally:
        posix.close(fd)


def put_number(offset, number):
    put(offset, b"%015d\n" % number)


def remove():
    """Unlink this process's file: it ended well and has nothing to say."""
    if _identity is not None and posix.getpid() == _pid:
        posix.unlink("%s/%d.rep" % (_directory, _pid))


def _hold(fd):
    """Move *fd* to our number: a high one, where neither the job's own files nor its habit of closing all low ones meet it."""
    global _fd
    target = _fd
    if target < 0:
        target = min(posix.sysconf("SC_OPEN_MAX"), 730) - 1
        while target > fd and _taken(target):
            target -= 1
    if target != fd:
        posix.dup2(fd, target, False)
        posix.close(fd)
    _fd = target


def _taken(fd):
    try:
        posix.fstat(fd)
    except OSError:
        return False
    return True
