"""Recurses: for ever, in a turn of three, to a healthy depth, or with the limit raised out of reach."""

import sys


def down(n):
    return down(n + 1)


def ping(n):
    return pong(n)


def pong(n):
    return pang(n)


def pang(n):
    return ping(n + 1)


def healthy(n):
    return 0 if n == 0 else 1 + healthy(n - 1)


kind = sys.argv[1]
if kind == "forever":
    down(0)
elif kind == "turn":
    ping(0)
elif kind == "raised":
    sys.setrecursionlimit(10**9)
    print(sys.getrecursionlimit())
    down(0)
elif kind == "handled":
    try:
        down(0)
    except RecursionError as error:
        print("handled:", error)
elif kind == "healthy":
    print(healthy(int(sys.argv[2])))
elif kind == "limits":
    for n in (150, 500, 10**6):
        sys.setrecursionlimit(n)
        print(sys.getrecursionlimit())
elif kind == "refused":
    for n in (0, -1, "many", 2**40):
        try:
            sys.setrecursionlimit(n)
        except (TypeError, ValueError, OverflowError) as error:
            print(type(error).__name__, error)
