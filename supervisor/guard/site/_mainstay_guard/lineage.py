"""Who started whom: a count per script, handed down in the environment, so that a script that starts itself for ever is stopped.

MAINSTAY_LINEAGE is "PID DEPTH ID*N ID*N ...": the process that wrote it, how many guarded interpreters stand above, and how often each script
is among them. A script is known by device and inode, so other arguments, another directory or a link make no other script of it.
"""

import posix
import sys

VARIABLE = "MAINSTAY_LINEAGE"
MOST_VARIABLE = "MAINSTAY_LINEAGE_MAX"
MOST = 12  # at 35 MiB each they fit into 512 MiB
MOST_SCRIPTS = 32  # remembered; more different ones in one line of descent are no recursion


def enter(environ):
    """Add this process to its line; (depth, how often this script stands above it, script)."""
    text = environ.get(VARIABLE, "")
    pid, depth, counts = _parse(text) if text else (0, 0, {})
    name, key = _script()
    seen = 0
    again = pid == posix.getpid()  # exec over itself: the same process anew, not one more
    if not again and key is not None:
        if key not in counts and len(counts) >= MOST_SCRIPTS:
            del counts[min(counts, key=counts.get)]
        seen = counts.get(key, 0)
        counts[key] = seen + 1
    if pid and not again:
        depth += 1
    items = " ".join(["%s*%d" % item for item in counts.items()])
    environ[VARIABLE] = "%d %d %s" % (posix.getpid(), depth, items)
    return depth, seen, name


def most(environ):
    try:
        return max(1, int(environ.get(MOST_VARIABLE, "") or MOST))
    except ValueError:
        return MOST


def command_line():
    """The command as it was given, interpreter and its options included."""
    arguments = getattr(sys, "orig_argv", None)  # 3.10
    if arguments is None:
        import os

        fd = os.open("/proc/self/cmdline", os.O_RDONLY | os.O_CLOEXEC)
        try:
            arguments = os.fsdecode(os.read(fd, 65536)).split("\0")[:-1]
        finally:
            os.close(fd)
    return arguments


def _parse(text):
    pid, depth, counts = 0, 0, {}
    try:
        words = text.split()[: MOST_SCRIPTS + 2]
        pid, depth = int(words[0]), int(words[1])
        for word in words[2:]:
            key, _, times = word.partition("*")
            counts[key[:60]] = int(times)
    except (ValueError, IndexError):
        pass
    return pid, depth, counts


def _script():
    """(name for people, key or None). None: nothing that could start itself again under the same name."""
    first = sys.argv[0] if sys.argv else ""
    if first in ("-c", "-m"):
        text = _operand(first)
        if first == "-m":
            return "-m " + text, "m:" + text.replace(" ", "").replace("*", "")[:40]
        if text.startswith("from multiprocessing"):  # spawn, forkserver and tracker: a pool is not a script that starts itself
            return "-c", None
        import _imp

        return "-c " + text[:200], "c:" + _imp.source_hash(2, text.encode("utf-8", "surrogatepass")).hex()
    if first in ("", "-"):
        return "standard input", None
    try:
        status = posix.stat(first)
    except (OSError, ValueError):
        return first, None
    import os

    return os.path.abspath(first), "%x-%x" % (status.st_dev, status.st_ino)


def _operand(option):
    """What stands behind -c or -m: everything after it is the job's own, so it is counted from the end."""
    arguments = command_line()
    text = arguments[len(arguments) - len(sys.argv)]
    if text.startswith("-") and option[1] in text and arguments[len(arguments) - len(sys.argv) - 1] != option:
        joined = text.partition(option[1])[2]  # "-cCODE"
        return joined or text
    return text
