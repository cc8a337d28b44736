"""Raises RecursionErrors by hand and catches them, for at most a minute. argv: what it gives them to say."""

import sys
import time
from contextlib import suppress

print("ready", flush=True)
end = time.monotonic() + 60


def check(number, *words):
    if number % 4:
        raise RecursionError(*words)


def through(number, depth, *words):
    if depth:
        return through(number, depth - 1, *words)
    return check(number, *words)


while time.monotonic() < end:
    for number in range(1000):
        with suppress(RecursionError):
            through(number, 30, *sys.argv[1:])
