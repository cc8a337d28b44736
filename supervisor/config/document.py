"""YAML text as a tree of nodes that know where they stand. What the texts mean is for the schema to say: nothing is converted here,
so nothing can turn into a surprise (``no`` into false, ``010`` into 8, ``1:30`` into 90).

Refused: duplicate keys, anchors, aliases, tags, merge keys, a second document, nesting deeper than 32. The tree is built from parser
events, so no input can recurse or multiply.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml
from msgspec import Struct, field

from supervisor.config.problems import Report, printable
from supervisor.core.units import quoted

DEEPEST = 32
NULLS = frozenset(("", "~", "null", "Null", "NULL"))

_Loader: type = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class Scalar(Struct, eq=False):
    """One value as written. ``plain``: without quotes. Line and column count from 1."""

    line: int
    column: int
    path: str
    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in NULLS


class Sequence(Struct, eq=False):
    line: int
    column: int
    path: str
    items: list["Node"] = field(default_factory=list)


class Mapping(Struct, eq=False):
    """``keys`` has the key's own node under the same name, for findings about the key."""

    line: int
    column: int
    path: str
    items: dict[str, "Node"] = field(default_factory=dict)
    keys: dict[str, Scalar] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


class _Open(Struct):
    """A collection that is being read; ``key`` is the mapping key whose value comes next, ``keep`` is False for what is read and dropped."""

    node: Sequence | Mapping
    key: Scalar | None = None
    keep: bool = True


class _Stop(Exception):  # noqa: N818 - not an error of ours: the problem is already reported
    """The rest of the text makes no sense."""


def parse(text: str, report: Report) -> Node | None:
    """The tree of *text*; None when a problem in *report* leaves none. Duplicate keys and the like are reported and reading goes on."""
    builder = _Builder(report)
    try:
        for event in _events(text):
            builder.take(event)
    except _Stop:
        return None
    except yaml.MarkedYAMLError as err:
        place = _place(err.problem_mark or err.context_mark)
        report.problem(place, _syntax(err, _character(text, place)))
        return None
    except (yaml.YAMLError, ValueError, OverflowError) as err:  # the readers' own: characters out of range in an escape
        report.problem(Scalar(1, 1, "", "", True), f"is not YAML ({printable(str(err))}); write plain text")
        return None
    return builder.root


def _events(text: str) -> Iterator[yaml.Event]:
    # the stubs do not know that parse() takes the loaders in C, too
    return yaml.parse(text, Loader=_Loader)  # type: ignore[no-untyped-call, no-any-return, unused-ignore]


def _place(mark: Any) -> Scalar:
    """A node that is only a place: the start of the file where the parser gives no *mark*."""
    return Scalar(mark.line + 1, mark.column + 1, "", "", True) if mark else Scalar(1, 1, "", "", True)


def _spot(event: yaml.Event) -> tuple[int, int]:
    """Line and column of an event, from 1."""
    mark: Any = event.start_mark
    return mark.line + 1, mark.column + 1


class _Builder:
    def __init__(self, report: Report) -> None:
        self.report = report
        self.root: Node | None = None
        self.stack: list[_Open] = []
        self.documents = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self.refuse_extras(event)
                plain = bool(event.implicit[0]) and not event.style
                self.add(Scalar(*_spot(event), "", event.value, plain))
            case yaml.MappingStartEvent():
                self.open(event, Mapping(*_spot(event), ""))
            case yaml.SequenceStartEvent():
                self.open(event, Sequence(*_spot(event), ""))
            case yaml.CollectionEndEvent():
                self.stack.pop()
            case yaml.AliasEvent():
                self.stop(
                    event, "begins with *, which makes it an alias; put it in quotes if it is a value, or write out what it stands for"
                )
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    self.stop(event, "a second document starts here; remove the --- line")
            case _:
                pass

    def open(self, event: yaml.CollectionStartEvent, node: Sequence | Mapping) -> None:
        self.refuse_extras(event)
        if len(self.stack) >= DEEPEST:
            self.stop(event, f"is nested deeper than {DEEPEST} levels; no key of ours goes that deep, so check the brackets")
        keep = self.add(node)
        self.stack.append(_Open(node, keep=keep))

    def add(self, node: Node) -> bool:
        """Puts *node* where it belongs; False if it is only read past (a value whose key was refused)."""
        if not self.stack:
            self.root = node
            return True
        top = self.stack[-1]
        if isinstance(top.node, Sequence):
            node.path = f"{top.node.path}[{len(top.node.items)}]"
            top.node.items.append(node)
            return top.keep
        if top.key is None:
            top.key = self.key(top, top.node, node)
            return False
        key, top.key = top.key, None
        node.path = key.path
        if key.text in top.node.items or not top.keep or key is _REFUSED:
            return False
        top.node.items[key.text] = node
        top.node.keys[key.text] = key
        return True

    def key(self, top: _Open, mapping: Mapping, node: Node) -> Scalar:
        """The node as a key; ``_REFUSED`` when it cannot be one."""
        node.path = mapping.path
        if not isinstance(node, Scalar):
            self.problem(top, node, "a list or map stands where a key is needed; write a name before the colon")
            return _REFUSED
        if node.plain and node.text == "<<":
            self.problem(top, node, "<< merges maps; write the values out, or put what jobs share under defaults:")
            return _REFUSED
        first = mapping.keys.get(node.text)
        node.path = f"{mapping.path}.{node.text}" if mapping.path else node.text
        if first:
            self.problem(top, node, f"{quoted(node.text)} is here twice, first in line {first.line}; remove one of them")
            return _REFUSED
        return node

    def problem(self, top: _Open, node: Node, finding: str) -> None:
        if top.keep:
            self.report.problem(node, finding)

    def refuse_extras(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        """What begins so may be a password without quotes: no name is told."""
        if event.anchor is not None:
            self.stop(
                event, "begins with &, which makes it an anchor; put it in quotes if it is a value, or put what jobs share under defaults:"
            )
        if event.tag is not None:
            self.stop(
                event, "begins with !, which makes it a tag; put it in quotes if it is a value, or remove the tag: the key says the type"
            )

    def stop(self, event: yaml.Event, finding: str) -> None:
        place = _place(event.start_mark)
        place.path = self.stack[-1].node.path if self.stack else ""
        self.report.problem(place, finding)
        raise _Stop


_REFUSED = Scalar(0, 0, "", "", False)


def _character(text: str, place: Scalar) -> str:
    """The character at *place*, "" beyond the end."""
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    return line[place.column - 1 : place.column]


def _syntax(err: yaml.MarkedYAMLError, character: str) -> str:
    """The parser's words with what usually helps."""
    words = err.problem or "cannot be understood"
    context = f" {err.context}" if err.context else ""
    if is_sigil := bool(re.search(r"an? (?:tag|alias|anchor|directive)\b|tag handle", words + context)):
        words = words.partition(" '")[0]  # the parser in Python names what it found, which may be a part of a password
    mend = "check the brackets, quotes and indentation"
    if character == "\t":
        mend = "indent with spaces instead of tabs"
    elif "mapping values are not allowed" in words:
        mend = "put the value in quotes if it holds a colon, or check the indentation"
    elif "could not find expected ':'" in words:
        mend = "write a colon and a space after the key"
    elif "cannot start any token" in words or is_sigil:
        mend = "put the value in quotes"
    elif "unexpected end of stream" in words or not character:
        mend = "close the quote or bracket; is the file complete?"
    return f"is not YAML ({printable(words + context)}); {mend}"
