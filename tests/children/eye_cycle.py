"""Functions that call each other without an exit condition, down to a level where they wait to be looked at. argv: kind, levels."""

import os
import random
import signal
import sys

signal.alarm(60)
LEVELS = int(sys.argv[2])
sys.setrecursionlimit(LEVELS + 100)
below = iter(range(LEVELS - 1))


def wait_at_the_bottom():
    if next(below, None) is None:
        print("ready", flush=True)
        os.read(0, 1)


def one(user):
    wait_at_the_bottom()
    one(user)  # one calls one


def ping(n, node):
    wait_at_the_bottom()
    pong(n - 1, node)  # ping calls pong


def pong(n, node):
    wait_at_the_bottom()
    ping(n, node)  # pong calls ping


def alpha(seen):
    wait_at_the_bottom()
    beta([*seen, None])  # alpha calls beta


def beta(seen):
    wait_at_the_bottom()
    gamma(seen)  # beta calls gamma


def gamma(seen):
    wait_at_the_bottom()
    alpha(seen)  # gamma calls alpha


def walk(tree):
    wait_at_the_bottom()
    random.choice((walk, visit))(tree)  # walk calls any


def visit(tree):
    wait_at_the_bottom()
    random.choice((walk, visit))(tree)  # visit calls any


def start():
    match sys.argv[1]:
        case "one":
            one(object())
        case "two":
            ping(3, object())
        case "three":
            alpha([])
        case "random":
            walk({})


start()
