"""Ends with an uncaught exception of the kind named by its argument."""

import sys


class HostileError(Exception):
    def __str__(self):
        raise ValueError("no text for you")


class Liar(type):
    def __getattribute__(cls, name):
        if name in ("__name__", "__qualname__", "__module__"):
            return "Pinocchio"
        return super().__getattribute__(name)


class LyingError(Exception, metaclass=Liar):
    pass


def inner(kind):
    if kind == "chain":
        try:
            {}["missing"]
        except KeyError as error:
            raise RuntimeError("could not look it up") from error
    if kind == "unicode":
        raise ValueError('quote " backslash \\ umlaut \u00fc emoji \U0001f600 half \udc80 bell \x07 end')
    if kind == "long":
        raise ValueError("x" * 1_000_000)
    if kind == "str":
        raise HostileError
    if kind == "metaclass":
        raise LyingError("still told")
    raise ZeroDivisionError("plain")


def outer(kind):
    inner(kind)


outer(sys.argv[1] if len(sys.argv) > 1 else "plain")
