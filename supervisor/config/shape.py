"""Maps with known keys: what stands in one, where each value came from, and how the defaults go beneath a job's own keys."""

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct, field

from supervisor.config.document import Mapping, Node, Scalar
from supervisor.config.kinds import BAD, Context, Json, Kind, Refused, quoted_bare, read
from supervisor.config.problems import suggestion
from supervisor.core.units import quoted


class Key(Struct, frozen=True):
    """One key: what it may be, what it means, and what holds when it is absent. ``default_note`` says so where a value cannot."""

    name: str
    kind: Kind
    doc: str
    default: Any = None
    required: bool = False
    default_note: str = ""


class Section(Struct):
    """A map that was read: the values that somebody wrote, and the node of each. Absent keys answer with their default."""

    shape: "Shape"
    written: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        if name in self.written:
            return self.written[name]
        key = self.shape.by_name[name]
        return Section(key.kind) if isinstance(key.kind, Shape) else key.default

    def is_sure(self, *names: str) -> bool:
        """True when none of the values is known to be wrong, so that a further finding would not mislead."""
        return all(self[name] is not BAD for name in names)

    def is_own(self, name: str) -> bool:
        """True when the value was written in this section itself, not under ``defaults``."""
        return name in self.nodes and not is_inherited(self.nodes[name])

    def origin(self, name: str) -> str:
        """Where the value came from, in a few words."""
        if name in self.notes:
            return self.notes[name]
        if name not in self.nodes:
            return "default"
        node = self.nodes[name]
        return f"defaults, line {node.line}" if is_inherited(node) else f"line {node.line}"


def is_inherited(node: Node) -> bool:
    """True for what stands under ``defaults``."""
    return node.path.startswith("defaults.")


class Shape(Kind):
    """A map with known keys. Of each set of ``rivals`` only one key can hold: what a job writes displaces the others from the defaults.

    ``hints`` has the mend for keys that are nearly right in a way that spelling does not show.
    """

    form = "a map"

    def __init__(self, keys: Iterable[Key], rivals: tuple[frozenset[str], ...] = (), hints: dict[str, str] | None = None) -> None:
        self.keys = tuple(keys)
        self.by_name = {key.name: key for key in self.keys}
        self.rivals = rivals
        self.hints = hints or {}
        self.names = [key.name for key in self.keys if not isinstance(key.kind, Refused)]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def read(self, node: Node, context: Context) -> Section:
        """The section; ``ValueError`` when *node* is no map. Wrong members are reported and stand in it as ``BAD``."""
        if not isinstance(node, Mapping):
            raise ValueError(self._not_a_map(node))  # noqa: TRY004 - a finding about the file, like any other
        section = Section(self)
        for name, item in node.items.items():
            key = self.by_name.get(name)
            if key is None:
                context.report.problem(node.keys[name], self._unknown(name, full=context.report.is_full))
                continue
            section.written[name] = read(key.kind, item, context)
            section.nodes[name] = item
        for key in self.keys:
            if key.required and key.name not in node.items:
                context.report.problem(node, f"has no {key.name}; write {key.name}: {key.kind.form}")
                section.written[key.name] = BAD
        return section

    def _not_a_map(self, node: Node) -> str:
        keys = f"write keys below it: {', '.join(self.names)}"
        if isinstance(node, Scalar) and node.is_null:
            return f"is empty; {keys}; or remove it"
        if isinstance(node, Scalar):
            return f"{quoted_bare(node.text)} is not a map; {keys}"
        return f"is a list, not a map; {keys}"

    def _unknown(self, name: str, *, full: bool) -> str:
        if name in self.hints:
            return f"there is no key {quoted(name)} here; {self.hints[name]}"
        mend = "" if full else f"; {suggestion(name, self.names)}"
        return f"there is no key {quoted(name)} here{mend}"

    def plain(self, value: Any) -> Any:
        return {key.name: key.kind.plain(value[key.name]) for key in self.keys if key.name in value.written}

    def schema(self) -> Json:
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {key.name: _property(key) for key in self.keys},
            "required": [key.name for key in self.keys if key.required],
        }


def _property(key: Key) -> Json:
    described = {"description": key.doc, **key.kind.schema()}
    if not isinstance(key.kind, Shape) and key.default is not None:
        described["default"] = key.kind.plain(key.default)
    return described


def merged(kind: Kind, below: Node | None, above: Node | None) -> Node | None:
    """*above* with what only *below* has: maps key by key, anything else whole."""
    if above is None or below is None or not (isinstance(above, Mapping) and isinstance(below, Mapping)):
        return above if above is not None else below
    shape = kind if isinstance(kind, Shape) else getattr(kind, "shape", None)
    displaced: set[str] = set()
    for rivals in shape.rivals if shape else ():
        if rivals & above.items.keys():
            displaced |= rivals
    result = Mapping(above.line, above.column, above.path, dict(above.items), dict(above.keys))
    for name, node in below.items.items():
        if name in displaced and name not in above.items:
            continue
        inner = shape.by_name.get(name) if shape else None
        joined = merged(inner.kind, node, above.items.get(name)) if inner else above.items.get(name, node)
        if joined is not None:
            result.items[name] = joined
            result.keys.setdefault(name, below.keys[name])
    return result
