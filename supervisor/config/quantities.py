"""Sizes, durations and ratios as values of config.yaml; their grammar is ``core.units``."""

from dataclasses import dataclass
from typing import Any

from supervisor.config.document import Scalar
from supervisor.config.kinds import Context, Json, ScalarKind
from supervisor.core import units
from supervisor.core.units import quoted


@dataclass(eq=False)
class Size(ScalarKind):
    """Bytes with a unit, from ``least`` to ``most``."""

    least: int = 1
    most: int = units.MAX_SIZE
    form: str = units.SIZE_FORM

    def parse(self, node: Scalar, context: Context) -> int:
        del context
        size = units.parse_size(node.text)
        if not self.least <= size <= self.most:
            bounds = f"{units.format_size(self.least)} to {units.format_size(self.most)}"
            raise ValueError(f"{quoted(node.text)} is out of range; write a size from {bounds}")
        return size

    def plain(self, value: Any) -> Any:
        return units.format_size(value)

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^{units.SIZE_PATTERN}$"}


@dataclass(eq=False)
class Duration(ScalarKind):
    """Seconds, written with units, from ``least`` to ``most``."""

    least: float = 0.001
    most: float = units.MAX_DURATION_S
    form: str = units.DURATION_FORM

    def parse(self, node: Scalar, context: Context) -> float:
        del context
        seconds = units.parse_duration(node.text)
        if not self.least <= seconds <= self.most:
            bounds = f"{units.format_duration(self.least)} to {units.format_duration(self.most)}"
            raise ValueError(f"{quoted(node.text)} is out of range; write a duration from {bounds}")
        return seconds

    def plain(self, value: Any) -> Any:
        return units.format_duration(value)

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^{units.DURATION_PATTERN}$"}


class Ratio(ScalarKind):
    """A share, written as a percentage."""

    form = units.RATIO_FORM

    def parse(self, node: Scalar, context: Context) -> float:
        del context
        return units.parse_ratio(node.text)

    def plain(self, value: Any) -> Any:
        return units.format_ratio(value)

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^{units.RATIO_PATTERN}$"}
