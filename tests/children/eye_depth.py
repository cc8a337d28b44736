"""Stands at a depth of its own choice, says how deep it counts itself, and waits. argv: levels, [recursion limit]."""

import os
import signal
import sys

signal.alarm(60)


def count():
    depth, frame = 0, sys._getframe(1)
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    return depth


def dive(n, user, seen, ratio=0.5, *rest, key=None, **more):
    if n > 0:
        return dive(n - 1, user, [*seen[-50:], n], ratio - 0.25, *rest, key=key, **more)  # deeper
    print(count(), flush=True)
    os.read(0, 1)  # here it waits
    return None


class User:
    pass


if len(sys.argv) > 2:
    sys.setrecursionlimit(int(sys.argv[2]))
dive(int(sys.argv[1]), User(), [], 0.5, 1, 2, key=b"1234567", extra="secret")  # outermost
