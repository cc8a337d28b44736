"""The only reader of clocks in the brain."""

import time
from datetime import UTC, datetime

from supervisor.core.model import Mono, Now, Wall


class Clock:
    """The machine's clocks. Monotonic time stands still while the machine is suspended, so limits do not count a suspend."""

    def now(self) -> Now:
        """Both clocks at once."""
        return Now(Mono(time.monotonic()), datetime.now(UTC))

    def mono(self) -> Mono:
        """The monotonic clock alone, for durations."""
        return Mono(time.monotonic())

    @staticmethod
    def wall(unix: float) -> Wall:
        """Unix seconds as a wall time."""
        return datetime.fromtimestamp(unix, UTC)
