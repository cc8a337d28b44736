"""A bounded curve of memory over time: every sample while it is short, ever fewer as it grows, never more than ``POINTS``."""

from msgspec import Struct

POINTS = 60
FIRST_STEP_S = 0.01


class Curve(Struct, frozen=True):
    """(seconds since the start, bytes), oldest first. Points are at least ``step_s`` apart; the step doubles whenever there are too many.

    Of what falls into one step the highest is kept, so that a peak is not lost.
    """

    points: tuple[tuple[float, int], ...] = ()
    step_s: float = FIRST_STEP_S

    def add(self, at_s: float, size: int) -> "Curve":
        """With one more sample. Samples come in order of time."""
        points = self.points
        if points and at_s - points[-1][0] < self.step_s:
            last_at, last_size = points[-1]
            return self if size <= last_size else Curve((*points[:-1], (last_at, size)), self.step_s)
        added = Curve((*points, (at_s, size)), self.step_s)
        return added if len(added.points) <= POINTS else _thinned(added)


def _thinned(curve: Curve) -> Curve:
    step_s = curve.step_s * 2
    kept = Curve((), step_s)
    for at_s, size in curve.points:
        kept = kept.add(at_s, size)
    return kept if len(kept.points) <= POINTS else _thinned(kept)
