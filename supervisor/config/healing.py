"""``heal:`` as keys and kinds of config.yaml: for each outcome a list of steps, each a word or a map of one."""

from typing import Any, Final

from supervisor.config import document
from supervisor.config.document import Node, Scalar
from supervisor.config.kinds import BAD, Context, Json, Kind, ListOf, Nullable, TextMap, Whole
from supervisor.config.process import Command
from supervisor.config.quantities import Duration, Size
from supervisor.config.shape import Key, Section, Shape
from supervisor.core.model import Outcome
from supervisor.core.remedy import ChangeEnvironment, HealPolicy, Park, RunCommand, SetAside, Step, StepName, TryAgain
from supervisor.core.units import quoted

_WORDS: Final[dict[str, Step]] = {"restart": TryAgain(), "quarantine": SetAside(), "park": Park()}
_MENDS: Final = {"environment": "write {environment: {NAME: value}}", "command": "write {command: [program, argument]}"}
_NOT_THE_JOBS: Final = (Outcome.HOST_OOM, Outcome.LOST)  # the host's doing: nothing about them repeats
HEALED: Final = tuple(outcome for outcome in Outcome if outcome.is_bad and outcome not in _NOT_THE_JOBS)
STEPS_MAX: Final = 8


class StepKind(Kind):
    """``restart``, ``quarantine``, ``park``, ``{environment: {...}}`` or ``{command: [...], time: ..., memory: ...}``."""

    form = "restart, quarantine, park, {environment: {NAME: value}} or {command: [program, argument]}"

    def __init__(self, variables: TextMap) -> None:
        default = RunCommand(())
        self._environment = Shape([Key("environment", variables, "", required=True)])
        self._command = Shape(
            [
                Key("command", Command(""), "", required=True),
                Key("time", Duration(0.1, 86400.0), "", default.time_s),
                Key("memory", Size(2**20), "", default.memory_bytes),
            ]
        )

    def read(self, node: Node, context: Context) -> Any:
        if isinstance(node, Scalar):
            if node.text in _WORDS:
                return _WORDS[node.text]
            raise ValueError(f"{quoted(node.text)} is not a step; {_MENDS.get(node.text, f'write {self.form}')}")
        if not isinstance(node, document.Mapping):
            raise ValueError(f"a list stands where one step is needed; write {self.form}")  # noqa: TRY004 - a finding about the file
        if "command" in node.items and "environment" in node.items:
            raise ValueError("is two steps in one; write them one after the other: [{environment: {...}}, {command: [...]}]")
        section = (self._command if "command" in node.items else self._environment).read(node, context)
        if BAD in section.written.values():
            return BAD
        if section.shape is self._environment:
            if not section["environment"]:
                raise ValueError(f"changes no variable; {_MENDS['environment']}")
            return ChangeEnvironment(section["environment"])
        return RunCommand(section["command"], section["time"], section["memory"])

    def plain(self, value: Any) -> Any:
        match value:
            case ChangeEnvironment(variables):
                return {"environment": self._environment.by_name["environment"].kind.plain(variables)}
            case RunCommand(argv, time_s, memory_bytes):
                kinds = {name: key.kind for name, key in self._command.by_name.items()}
                found = {"command": argv, "time": time_s, "memory": memory_bytes}
                return {name: kinds[name].plain(value) for name, value in found.items()}
            case _:
                return next(word for word, step in _WORDS.items() if step == value)

    def schema(self) -> Json:
        return {"anyOf": [{"enum": list(_WORDS)}, self._environment.schema(), self._command.schema()]}


class StepsKind(ListOf):
    """The steps for one outcome, at most ``STEPS_MAX``; nothing can follow ``park``."""

    def read(self, node: Node, context: Context) -> Any:
        steps = super().read(node, context)
        if steps is BAD:
            return BAD
        if len(steps) > STEPS_MAX:
            raise ValueError(f"has {len(steps)} steps; write at most {STEPS_MAX}")
        if Park() in steps[:-1]:
            raise ValueError("goes on after park, which waits for a person; write park last")
        return steps


class HealShape(Shape):
    """``heal:`` as a whole; a class of its own so that ``check --show`` leaves out what nobody wrote."""


DEFAULT_NOTE: Final = "`[quarantine, park]`"


def heal_shape(variables: TextMap) -> HealShape:
    """The keys of ``heal:``; *variables* is what an environment may be."""
    steps = StepsKind(StepKind(variables), tuple, "[quarantine, park]")
    repeats = Key(
        "repeats",
        Nullable(Whole(1, 1000)),
        "So many failures in sequence, with the same fingerprint at the same place of the input, are a failure that will repeat; null: never.",
        HealPolicy().repeats,
    )
    outcomes = [
        Key(outcome.value, steps, "Steps against it, from left to right: see [healing](healing.md).", default_note=DEFAULT_NOTE)
        for outcome in HEALED
    ]
    hints = {str(outcome): f"remove it: {outcome} is the host's doing, and is retried without a limit" for outcome in _NOT_THE_JOBS}
    return HealShape([repeats, *outcomes], hints=hints | {"after": "write repeats", "times": "write repeats"})


def policy(section: Section) -> HealPolicy:
    """The frozen value of the section."""
    steps = {outcome.value: tuple(section[outcome.value]) for outcome in HEALED if section[outcome.value] is not None}
    return HealPolicy(section["repeats"], steps)


__all__ = ["HEALED", "HealShape", "StepName", "heal_shape", "policy"]
