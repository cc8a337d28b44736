"""Catches its own RecursionErrors and MemoryErrors, says how many, and may wait to be killed."""

import sys

recursions, memories = int(sys.argv[1]), int(sys.argv[2])


def visit(n):
    return follow(n + 1)


def follow(n):
    return visit(n)


class Passing:
    def __enter__(self):
        return self

    def __exit__(self, *info):
        return False


class OwnMemoryError(MemoryError):
    pass


for _ in range(recursions):
    try:
        with Passing():  # a handler on the way must not count twice
            visit(0)
    except RecursionError:
        pass
for _ in range(memories):
    try:
        raise OwnMemoryError
    except MemoryError:
        pass
for _ in range(1000):
    try:
        raise KeyError
    except KeyError:
        pass
print("done", flush=True)
if len(sys.argv) > 3:
    sys.stdin.read()
