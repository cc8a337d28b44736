"""That ``mainstay exec`` was asked to end: the command hears of it and has its grace; who asks once more does not want to wait."""

import signal
from typing import Final

GRACE_S: Final = 10.0
SAY_AFTER_S: Final = 1.0  # most commands are gone by then, and nothing needs to be said
ONE_ASKING_S: Final = 0.5  # timeout(1) signals us, then our group; systemd sends SIGHUP right after SIGTERM


class Asking:
    """Times are seconds on one clock that does not jump, as ``now``."""

    def __init__(self) -> None:
        self._first: signal.Signals | None = None
        self._at = 0.0
        self._again = False
        self._is_said = False

    def __bool__(self) -> bool:
        return self._first is not None

    def hear(self, number: int, now: float) -> None:
        """One of the signals that ask us to end has come."""
        if self._first is None:
            self._first, self._at = signal.Signals(number), now
        elif now - self._at >= ONE_ASKING_S:
            self._again = True

    def is_over(self, now: float) -> bool:
        """Whether to kill: the grace is over, or somebody asked twice."""
        return self._first is not None and (self._again or now >= self._at + GRACE_S)

    def next_due(self) -> float | None:
        """When there is something to do or to say, unless the command has ended by then."""
        if self._first is None:
            return None
        return self._at + (GRACE_S if self._is_said else SAY_AFTER_S)

    def notice(self, name: str, now: float) -> str | None:
        """What to say while the command *name* does not end; once."""
        if self._first is None or self._is_said or now < self._at + SAY_AFTER_S:
            return None
        self._is_said = True
        return f"waiting {self._at + GRACE_S - now:.0f}s more for {name} to end; {self._called} once more kills it"

    def last_word(self, name: str) -> str:
        """What to say of the kill."""
        why = "as it was asked for twice" if self._again else f"which did not end within {GRACE_S:g}s"
        return f"killed {name}, {why} ({self._called})"

    def exit_code(self) -> int:
        """Ours, for a command that we had to kill: as if the signal that asked had ended us."""
        return 128 + (self._first or signal.SIGKILL)

    @property
    def _called(self) -> str:
        return "Ctrl-C" if self._first == signal.SIGINT else self._first.name if self._first is not None else ""
