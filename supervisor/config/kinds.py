"""What a value of config.yaml may be: each kind reads a node, prints the value back, describes itself to people and as JSON Schema.

``read`` raises ``ValueError`` with the finding and the mend; the caller adds the place. Collections report their members' problems
themselves and return ``BAD`` in their place, so that one mistake hides no other.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from supervisor.config import document
from supervisor.config.document import Node, Scalar
from supervisor.config.problems import Report, suggestion
from supervisor.core.redact import REDACTED, Redactor, is_secretive, looks_secret, without_user
from supervisor.core.units import quoted

Json = dict[str, Any]


class _Bad:
    """The type of ``BAD``."""

    def __repr__(self) -> str:
        return "BAD"


BAD: Final = _Bad()


MASK = "***"


_PARAMETER: Final = re.compile(r"(?<=[?&;#])([^=&;#\s]{1,100}=)([^&;#\s]+)")


def masked_url(url: str) -> str:
    """*url* without the user and password in it, and without the values in its query whose name or form is that of a secret."""
    bare = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", rf"\1{MASK}@", without_user(url, MASK))
    if "://" not in bare:
        return bare
    return _PARAMETER.sub(lambda found: found[1] + (MASK if is_secretive(found[1][:-1]) or looks_secret(found[2]) else found[2]), bare)


def bare(text: str) -> str:
    """*text* as a message may show it, without what is a secret by its form or by the name beside it."""
    return Redactor().text(masked_url(text)).replace(REDACTED, MASK)


def quoted_bare(text: str) -> str:
    """The same in quotes, on one line."""
    return quoted(bare(text))


class Context(Struct):
    """What reading needs beside the node: where findings go and what relative paths are relative to. Files are read once.

    ``variables``: names in our environment that secrets were taken from.
    """

    report: Report
    base: str
    texts: dict[str, Any] = {}
    variables: set[str] = set()


class Kind:
    """One type of value. ``form`` says in words what to write. Kinds are made once and never change; ``frozen`` would only cost start-up time."""

    form = "a value"

    def read(self, node: Node, context: Context) -> Any:
        """The value that *node* stands for."""
        raise NotImplementedError

    def plain(self, value: Any) -> Any:
        """The value as text, number, list or map, such that reading it back gives the same value."""
        return value

    def schema(self) -> Json:
        """JSON Schema of what may be written."""
        raise NotImplementedError


class ScalarKind(Kind):
    """A kind whose values are single words, numbers or texts."""

    def read(self, node: Node, context: Context) -> Any:
        if not isinstance(node, Scalar):
            what = "a map" if isinstance(node, document.Mapping) else "a list"
            raise ValueError(f"{what} stands where one value is needed; write {self.form}")  # noqa: TRY004 - a finding about the file, like any other
        if node.is_null:
            raise ValueError(f"has no value; write {self.form}, or remove the key")
        return self.parse(node, context)

    def parse(self, node: Scalar, context: Context) -> Any:
        """The value of a scalar that is not null."""
        raise NotImplementedError


@dataclass(eq=False)
class Text(ScalarKind):
    """Text exactly as written: 010 is "010", no is "no", 3.10 is "3.10"; nothing is guessed."""

    form: str = 'text, e.g. "some words"'
    pattern: str = ""
    empty_ok: bool = False

    def parse(self, node: Scalar, context: Context) -> str:
        del context
        if "\0" in node.text:
            raise ValueError("holds a NUL, which no program can be given; remove it")
        if not node.text and not self.empty_ok:
            raise ValueError(f"is empty; write {self.form}")
        if self.pattern and not re.fullmatch(self.pattern, node.text):
            raise ValueError(f"{quoted_bare(node.text)} does not fit here; write {self.form}")
        return node.text

    def schema(self) -> Json:
        loose: Json = {"type": ["string", "number", "boolean"]}
        return {"type": "string", "pattern": f"^{self.pattern}$"} if self.pattern else loose


@dataclass(eq=False)
class Word(ScalarKind):
    """One of a closed list. With an enum the value is its member."""

    words: type[StrEnum] | tuple[str, ...]
    hints: Mapping[str, str] = field(default_factory=dict)

    @property
    def choices(self) -> list[str]:
        return [str(word) for word in self.words]

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return f"one of {', '.join(self.choices)}"

    def parse(self, node: Scalar, context: Context) -> Any:
        del context
        if node.text not in self.choices:
            hint = self.hints.get(node.text)
            raise ValueError(f"{quoted(node.text)} is not known here; {hint or suggestion(node.text, self.choices)}")
        return node.text if isinstance(self.words, tuple) else self.words(node.text)

    def plain(self, value: Any) -> Any:
        return str(value)

    def schema(self) -> Json:
        return {"enum": self.choices}


class Flag(ScalarKind):
    """true or false and no other spelling."""

    form = "true or false"
    _meant: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false", "1": "true", "0": "false"}

    def parse(self, node: Scalar, context: Context) -> bool:
        del context
        if node.text in ("true", "false"):
            if not node.plain:
                raise ValueError(f"{quoted(node.text)} is text; write {node.text} without quotes")
            return node.text == "true"
        low = node.text.lower()
        meant = self._meant.get(low, low if low in ("true", "false") else "")
        raise ValueError(f"{quoted(node.text)} is neither true nor false; write {meant or self.form}")

    def schema(self) -> Json:
        return {"type": "boolean"}


@dataclass(eq=False)
class Whole(ScalarKind):
    """A whole number in decimal, without quotes, from ``least`` to ``most``."""

    least: int
    most: int

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return f"a whole number from {self.least} to {self.most}"

    def parse(self, node: Scalar, context: Context) -> int:
        del context
        if not re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", node.text):
            raise ValueError(f"{quoted(node.text)} is not a whole number; write {self._mend(node.text)}")
        if not node.plain:
            raise ValueError(f"{quoted(node.text)} is text; write {node.text} without quotes")
        number = int(node.text)
        if not self.least <= number <= self.most:
            raise ValueError(f"{number} is out of range; write {self.form}")
        return number

    def _mend(self, text: str) -> str:
        if re.fullmatch(r"0[0-9]{1,18}", text):
            return f"{int(text)} (a leading 0 is octal to some readers of YAML)"
        if re.fullmatch(r"[0-9]{1,6}(_[0-9]{1,6}){1,3}", text):
            return text.replace("_", "")
        return self.form

    def schema(self) -> Json:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(eq=False)
class Number(ScalarKind):
    """A decimal number, from ``least`` to ``most``."""

    least: float
    most: float

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return f"a number from {self.least:g} to {self.most:g}"

    def parse(self, node: Scalar, context: Context) -> float:
        del context
        if not node.plain or not re.fullmatch(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?", node.text):
            raise ValueError(f"{quoted(node.text)} is not a plain number; write {self.form}")
        number = float(node.text)
        if not self.least <= number <= self.most:
            raise ValueError(f"{node.text} is out of range; write {self.form}")
        return number

    def plain(self, value: Any) -> Any:
        return int(value) if value == int(value) else value

    def schema(self) -> Json:
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@dataclass(eq=False)
class Nullable(Kind):
    """Another kind, or ``null`` (also written ``none``) for "not at all"."""

    kind: Kind

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return f"{self.kind.form}; null for none"

    def read(self, node: Node, context: Context) -> Any:
        if isinstance(node, Scalar) and node.plain and (node.text == "none" or (node.is_null and node.text)):
            return None
        return self.kind.read(node, context)

    def plain(self, value: Any) -> Any:
        return None if value is None else self.kind.plain(value)

    def schema(self) -> Json:
        return {"anyOf": [self.kind.schema(), {"enum": [None, "none"]}]}


@dataclass(eq=False)
class Always(Kind):
    """Another kind that cannot be switched off: ``null`` gets its own answer. ``why`` says what it is that always holds."""

    kind: Kind
    why: str

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return self.kind.form

    def read(self, node: Node, context: Context) -> Any:
        if isinstance(node, Scalar) and node.plain and (node.text == "none" or node.is_null):
            raise ValueError(f"{self.why}; write {self.form}, or remove the key for the default")
        return self.kind.read(node, context)

    def plain(self, value: Any) -> Any:
        return self.kind.plain(value)

    def schema(self) -> Json:
        return self.kind.schema()


@dataclass(eq=False)
class ListOf(Kind):
    """A list with members of one kind; the value is made by ``container``."""

    kind: Kind
    container: Callable[[list[Any]], Any] = tuple
    example: str = "[a, b]"
    least: int = 0

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return f"a list, e.g. {self.example}"

    def read(self, node: Node, context: Context) -> Any:
        if not isinstance(node, document.Sequence):
            raise ValueError(self._not_a_list(node))  # noqa: TRY004 - a finding about the file, like any other
        if len(node.items) < self.least:
            raise ValueError(f"is empty; write {self.form}")
        values = [read(self.kind, item, context) for item in node.items]
        return BAD if BAD in values else self.container(values)

    def _not_a_list(self, node: Node) -> str:
        if isinstance(node, Scalar) and not node.is_null and len(node.text) < 60 and re.fullmatch(r"[\w./:@-]+", node.text):
            return f"{quoted_bare(node.text)} is not a list; write [{bare(node.text)}]"
        return f"is not a list; write {self.form}"

    def plain(self, value: Any) -> Any:
        members = [self.kind.plain(member) for member in value]
        return sorted(members) if isinstance(value, frozenset) else members

    def schema(self) -> Json:
        bound = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.kind.schema(), **bound}


VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


@dataclass(eq=False)
class TextMap(Kind):
    """Names with a text each. ``secretive`` says from the name whether the text may be a secret."""

    name_pattern: str
    name_form: str
    secretive: Callable[[str], bool] = lambda _name: False
    reserved: str = ""
    example: str = "{NAME: text}"

    @property
    def form(self) -> str:  # type: ignore[override] # a property where the base has a plain attribute
        return f"a map, e.g. {self.example}"

    def read(self, node: Node, context: Context) -> Any:
        if not isinstance(node, document.Mapping):
            raise ValueError(f"is not a map; write {self.form}")  # noqa: TRY004 - a finding about the file, like any other
        values: dict[str, Any] = {}
        for name, item in node.items.items():
            if not re.fullmatch(self.name_pattern, name):
                context.report.problem(node.keys[name], f"{quoted_bare(name)} is not a name for this; write {self.name_form}")
                values[name] = BAD
            elif self.reserved and re.match(self.reserved, name):
                context.report.problem(node.keys[name], "is set by Mainstay itself; choose another name")
                values[name] = BAD
            else:
                values[name] = read(TEXT, item, context)
        return BAD if BAD in values.values() else values

    def plain(self, value: Any) -> Any:
        return {name: MASK if self.secretive(name) else masked_url(text) for name, text in value.items()}

    def schema(self) -> Json:
        return {"type": "object", "propertyNames": {"pattern": f"^{self.name_pattern}$"}, "additionalProperties": TEXT.schema()}


@dataclass(eq=False)
class Refused(Kind):
    """A key that is known and that this version does not have."""

    finding: str
    form: str = "nothing"

    def read(self, node: Node, context: Context) -> Any:
        del node, context
        raise ValueError(self.finding)

    def schema(self) -> Json:
        return {"not": {}}


TEXT = Text(form='text ("" for an empty one)', empty_ok=True)


def read(kind: Kind, node: Node, context: Context) -> Any:
    """The value of *node*, or ``BAD`` after reporting why it has none."""
    try:
        return kind.read(node, context)
    except ValueError as err:
        context.report.problem(node, str(err))
        return BAD
