"""Ends in the way named by its argument."""

import os
import sys

kind = sys.argv[1]
if kind == "exit":
    sys.exit(3)
elif kind == "message":
    sys.exit("a message")
elif kind == "_exit":
    os._exit(3)
elif kind == "exec":
    os.execv("/bin/sh", ["sh", "-c", "exit 3"])
elif kind == "closed":
    os.closerange(3, 2048)
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
    raise ValueError("after closing everything")
elif kind == "full":
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        raise RuntimeError("no descriptors left") from error
elif kind == "unraisable":

    class Bad:
        def __del__(self):
            raise ValueError("in __del__")

    Bad()
elif kind == "late":

    class Late:
        def __del__(self):
            raise ValueError("at the very end")

    sys.late = Late()
elif kind == "fork":
    pid = os.fork()
    if pid == 0:
        raise ValueError("in the forked child")
    os.waitpid(pid, 0)
    print(pid)
