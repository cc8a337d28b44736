"""The steps of ``heal:``: what may be done about an outcome beyond another attempt. Frozen data only; when each is taken is ``core.heal``'s business."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct, field


class StepName(StrEnum):
    """The words of ``heal:``; the label values of ``mainstay_job_heal_steps_total``."""

    RESTART = "restart"
    ENVIRONMENT = "environment"
    QUARANTINE = "quarantine"
    COMMAND = "command"
    PARK = "park"


class TryAgain(Struct, frozen=True):
    """Another attempt with nothing changed: for an outcome that is worth more patience than ``repeats``."""


class ChangeEnvironment(Struct, frozen=True):
    """The next attempts have these variables, over the job's own, until one of them succeeds."""

    variables: Mapping[str, str]


class SetAside(Struct, frozen=True):
    """The record in work goes into the quarantine; the next attempts leave it out."""


class RunCommand(Struct, frozen=True):
    """A program of the operator's runs once, as the job's user and in its directory, under limits of its own; then the next attempt begins."""

    argv: tuple[str, ...]
    time_s: float = 60.0
    memory_bytes: int = 256 * 2**20


class Park(Struct, frozen=True):
    """Nothing more until a person says so."""


Step = TryAgain | ChangeEnvironment | SetAside | RunCommand | Park
NAMES: Mapping[type, StepName] = MappingProxyType(
    {
        TryAgain: StepName.RESTART,
        ChangeEnvironment: StepName.ENVIRONMENT,
        SetAside: StepName.QUARANTINE,
        RunCommand: StepName.COMMAND,
        Park: StepName.PARK,
    }
)


class HealPolicy(Struct, frozen=True):
    """What is done about failures that will repeat.

    ``repeats``: so many failures in sequence with one fingerprint at one place of the input are a failure that will repeat; None: never.
    ``steps`` has, for the outcomes that the config names, what is done then, from left to right. For the others: ``DEFAULT``.
    """

    repeats: int | None = 3
    steps: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)


DEFAULT: tuple[Step, ...] = (SetAside(), Park())
