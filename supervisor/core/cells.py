"""Text by the cells that it takes on a terminal, for screens and tables: how wide it is, its beginning, and folded into lines.

A character takes two cells where Unicode calls it wide (UAX #11: W and F, so nearly all emoji too), none where it is a combining mark, else one.
What a terminal draws as one picture of several characters is counted by its characters. Meant for text whose unprintable characters are escaped.
"""

import re
import unicodedata
from typing import Final

ELLIPSIS: Final = "…"
_WORD: Final = re.compile(r"( *)([^ ]+)")


def cells(text: str) -> int:
    """How many cells *text* takes."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def padded(text: str, width: int) -> str:
    """*text* with spaces behind it up to *width* cells."""
    return text + " " * (width - cells(text))


def cut(text: str, most: int) -> str:
    """*text* in at most *most* cells; an ellipsis stands for what had to go."""
    return text if cells(text) <= most else _beginning(text, most - 1) + ELLIPSIS


def folded(text: str, width: int, most: int | None = None) -> list[str]:
    """*text* in lines of at most *width* cells, at least one, broken between words; a word longer than a line goes on in the next.

    Of more than *most* lines the rest goes, and the last line ends with an ellipsis.
    """
    if cells(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for gap, word in _WORD.findall(text.expandtabs()):
        begun = line + gap if line or not lines else ""  # a line that goes on another begins with its word
        if cells(begun) + cells(word) <= width:
            line = begun + word
            continue
        if cells(word) > width:
            piece = _beginning(word, width - cells(begun))
            line, word = (begun + piece, word[len(piece) :]) if piece else (line, word)  # noqa: PLW2901 - what is left of it
        lines += [line] if line else []
        while cells(word) > width:
            piece = _beginning(word, width) or word[0]
            lines.append(piece)
            word = word[len(piece) :]  # noqa: PLW2901 - what is left of it
        line = word
    lines += [line] if line or not lines else []
    if most is not None and len(lines) > most:
        lines = [*lines[: most - 1], _with_ellipsis(lines[most - 1], width)]
    return lines


def _with_ellipsis(line: str, width: int) -> str:
    """*line* without as many of its last words as the ellipsis needs room."""
    room = width - 2
    while cells(line) > room and " " in line.lstrip():
        line = line.rpartition(" ")[0].rstrip()
    return f"{_beginning(line, room)} {ELLIPSIS}"


def _beginning(text: str, most: int) -> str:
    """As much of *text* as *most* cells take, each character with its marks."""
    for i, char in enumerate(text):
        most -= _cells_of(char)
        if most < 0:
            return text[:i]
    return text


def _cells_of(char: str) -> int:
    if char.isascii():
        return 1
    return 0 if unicodedata.category(char) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
