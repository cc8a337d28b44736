"""Calls itself without an exit condition, in the costume named by its first argument."""

import asyncio
import functools
import subprocess
import sys


def visit(user):
    return follow(user + 1)


def follow(user):
    return visit(user)


class Node:
    def __init__(self):
        self.next = self

    def __repr__(self):
        return f"<{self.next!r}>"


def chain(depth):
    return functools.partial(chain, depth + 1)() if depth >= 0 else None


def keep(rows):
    """A heap of frames: each level holds on to something."""
    return keep([*rows[:10], bytearray(2000)])


def walk(user):
    yield user
    yield from walk(user + 1)


async def spawn(level):
    for _ in range(2):
        asyncio.get_running_loop().create_task(spawn(level + 1))
    await asyncio.sleep(0)


async def tasks():
    await spawn(0)
    await asyncio.sleep(1000)


def main(kind):
    if kind == "plain":
        visit(0)
    elif kind == "raised":
        sys.setrecursionlimit(10**9)
        visit(0)
    elif kind == "heap":
        sys.setrecursionlimit(10**9)
        keep([])
    elif kind == "repr":
        repr(Node())
    elif kind == "c":
        sys.setrecursionlimit(10**9)
        chain(0)
    elif kind == "generator":
        for user in walk(0):
            assert user >= 0
    elif kind == "swallow":
        while True:
            try:
                visit(0)
            except RecursionError:
                continue
    elif kind == "tasks":
        asyncio.run(tasks())
    elif kind == "processes":
        sys.exit(subprocess.run([sys.executable, __file__, "processes"], check=False).returncode)


main(sys.argv[1])
