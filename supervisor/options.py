"""The parser of the command line and the kinds of values that options have. What the commands are is ``cli``'s."""

import argparse
import os
from collections.abc import Callable
from typing import Final, NoReturn

EXIT_USAGE: Final = 2


class Help(argparse.HelpFormatter):
    """argparse's, told how wide the terminal is: it would load shutil to find out, each time it adds an option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As ``shutil.get_terminal_size`` has it."""
    text = os.environ.get("COLUMNS", "")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class Parser(argparse.ArgumentParser):
    """argparse with the example last and a hint instead of the whole usage on an error."""

    def error(self, message: str) -> NoReturn:
        message = message.replace("'brain', ", "")  # the keeper's, not a person's
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\ntry: {self.prog} --help\n")


def whole(least: int, most: int) -> Callable[[str], int]:
    """An option's value that is a whole number within these bounds, both included."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def count(least: int, most: int) -> Callable[[str], int]:
    """A limit of ``exec`` that is a whole number within these bounds."""

    def parse(text: str) -> int:
        mend = f"write a whole number from {least} to {most}"
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise ValueError(f"{text!r} is not a whole number; {mend}")
        if not least <= int(text) <= most:
            raise ValueError(f"{text} is out of range; {mend}")
        return int(text)

    return parse


def duration(text: str) -> str:
    """An option's value that is a duration, as it was written: the daemon reads it again."""
    from supervisor.core.units import parse_duration

    try:
        parse_duration(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err
    return text
