"""Recurses up and down all the time, so that its stack changes while it is read."""

import signal

signal.alarm(60)


def up_and_down(n, text):
    if n:
        up_and_down(n - 1, text)
        down_again(n // 2)


def down_again(n):
    if n:
        down_again(n - 1)


print("ready", flush=True)
while True:
    up_and_down(60, "x")
