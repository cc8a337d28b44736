"""What follows the end of an attempt: another one after a wait, a job that gives up, or nothing; always with the reason.

Which attempts there were, and starting the next one, is the engine's business. What counts against the budget:

- every restart decided here counts, whatever the outcome was, except after the outcomes in ``HOST_WIDE``: for those the host is to
  blame and not the job, so they neither count nor park, they only wait (``counts`` says so to whoever keeps the list);
- ``launch_failed`` counts for what the job has wrong (a missing file), not for what the host is out of (processes, memory, descriptors, disk);
- the restart right after a record was set aside does not count: it begins without what killed the job (see ``core.heal``);
- a restart that an operator asks for, and the next fire time of a schedule, are not restarts and never counted.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from supervisor.core.jitter import unit
from supervisor.core.jobs import RestartPolicy, RestartWhen
from supervisor.core.model import Mono, Outcome

HOST_WIDE = frozenset({Outcome.HOST_OOM, Outcome.LOST})
HOST_WIDE_WAIT_S = 0.1  # no budget holds these, so a back-off of 0s must not make a loop of them


class ParkReason(StrEnum):
    """Why the job needs a person."""

    BUDGET_SPENT = "budget_spent"
    PARK_ON = "park_on"
    REPEATS = "repeats"


class DoneReason(StrEnum):
    """Why no attempt follows. ``budget_spent`` is for a job with fire times: the next one is its next chance, so it need not be parked.

    ``paused``: an operator wants no restarts for now; ``parked``: another run of the job has given it up meanwhile.
    """

    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    NEVER = "never"
    NOT_RETRIED = "not_retried"
    BUDGET_SPENT = "budget_spent"
    PAUSED = "paused"
    PARKED = "parked"


class Restart(Struct, frozen=True):
    """Another attempt, ``after_s`` seconds from now; ``reason`` is the outcome that it follows, a label value of ``mainstay_job_restarts_total``."""

    after_s: float
    reason: Outcome


class Park(Struct, frozen=True):
    """No more attempts until a person says so."""

    reason: ParkReason


class Done(Struct, frozen=True):
    """No attempt follows this one."""

    reason: DoneReason


Decision = Restart | Park | Done


def decide(
    policy: RestartPolicy,
    job: str,
    outcome: Outcome,
    restarts: Sequence[Mono],
    attempt: int,
    now: Mono,
    *,
    failures_in_row: int,
    free: bool = False,
    hosts: bool = False,
) -> Decision:
    """What follows *outcome* of attempt number *attempt*.

    *restarts* are the times of the earlier counted restarts of this boot (older than the window does no harm), *failures_in_row* the
    failed attempts up to and with this one since the last that lived ``stable_s`` (0 after a success). A stop is never followed by a
    restart; ``park_on`` goes before everything else. *free*: what killed the job was set aside, so that this restart does not count and waits
    no longer than the first. *hosts*: the host would not start it, which neither counts nor parks.
    """
    if outcome is Outcome.STOPPED:
        return Done(DoneReason.STOPPED)
    if outcome in policy.park_on:
        return Park(ParkReason.PARK_ON)
    if (refusal := refusal_of(policy, outcome)) is not None:
        return Done(refusal)
    spent = policy.budget.restarts == 0 if free else _in_window(policy, restarts, now) >= policy.budget.restarts
    own = counts(outcome) and not hosts
    if own and spent:
        return Park(ParkReason.BUDGET_SPENT)
    wait_s = backoff_s(policy, 1 if free else max(failures_in_row, 1), unit(job, attempt))
    if not own:
        wait_s = max(wait_s, HOST_WIDE_WAIT_S)
    return Restart(wait_s, outcome)


def follows_at_once(policy: RestartPolicy, restarts: Sequence[Mono], now: Mono) -> bool:
    """Whether ``decide`` would answer every bad end with a restart that does not wait, so that it need not be asked first.

    Holds for a run that nobody stops or pauses; a host-wide outcome, for which ``decide`` would wait a moment, is then to be counted, or no
    budget would hold it. Whatever else may keep a job from its next attempt has to be asked here too.
    """
    never_waits = policy.backoff.first_s <= 0 or policy.backoff.max_s <= 0
    unconditional = policy.when is not RestartWhen.NEVER and policy.retry_on is None and not policy.park_on
    return never_waits and unconditional and _in_window(policy, restarts, now) < policy.budget.restarts


def counts(outcome: Outcome) -> bool:
    """Whether a restart after *outcome* belongs on the list that ``decide`` gets as *restarts*."""
    return outcome not in HOST_WIDE


def backoff_s(policy: RestartPolicy, nth: int, u: float = 0.5) -> float:
    """Seconds to wait before the restart after the *nth* failure in a row (from 1), never more than ``backoff.max_s``.

    ``first_s * factor**(nth-1)``, spread by *u* in [0, 1) over ± ``jitter``. ``ValueError`` if *nth* < 1.
    """
    if nth < 1:
        raise ValueError(f"nth is {nth}; failures are counted from 1")
    backoff = policy.backoff
    try:
        grown = backoff.first_s * backoff.factor ** (nth - 1)
    except OverflowError:
        grown = backoff.max_s
    spread = 1 + backoff.jitter * (2 * u - 1)
    return max(0.0, min(min(grown, backoff.max_s) * spread, backoff.max_s))


def refusal_of(policy: RestartPolicy, outcome: Outcome) -> DoneReason | None:
    """Why the policy does not want another attempt after *outcome*, which nobody asked for; None when it does."""
    if policy.when is RestartWhen.NEVER:
        return DoneReason.SUCCEEDED if outcome is Outcome.SUCCEEDED else DoneReason.NEVER
    if outcome is Outcome.SUCCEEDED:
        return None if policy.when is RestartWhen.ALWAYS else DoneReason.SUCCEEDED
    if policy.retry_on is not None and outcome not in policy.retry_on:
        return DoneReason.NOT_RETRIED
    return None


def _in_window(policy: RestartPolicy, restarts: Sequence[Mono], now: Mono) -> int:
    """How many of *restarts* lie in the window that ends now. Both of its ends belong to it, so no shifted window holds more."""
    return sum(1 for at in restarts if now - at <= policy.budget.within_s)
