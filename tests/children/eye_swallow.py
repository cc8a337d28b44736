"""Recurses without end, swallows the RecursionError, and does it again, for at most a minute."""

import signal

signal.alarm(60)


def recurse():
    recurse()


print("ready", flush=True)
while True:
    try:
        recurse()
    except RecursionError:
        continue
