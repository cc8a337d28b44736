"""The curve of memory stays short and true."""

import random

from supervisor.core.curve import POINTS, Curve


def drawn(samples):
    curve = Curve()
    for at_s, size in samples:
        curve = curve.add(at_s, size)
    return curve


def test_a_short_run_is_kept_sample_by_sample():
    samples = [(i * 0.02, i * 1000) for i in range(POINTS)]
    assert drawn(samples).points == tuple(samples)


def test_a_long_run_has_a_bounded_number_of_points_from_its_beginning_to_its_end():
    curve = drawn((i * 0.1, i) for i in range(100_000))
    assert POINTS // 4 < len(curve.points) <= POINTS
    assert curve.points[0] == (0.0, curve.points[0][1])
    assert curve.points[-1][0] > 10_000 - 2 * curve.step_s
    assert all(later[0] - earlier[0] >= curve.step_s for earlier, later in zip(curve.points, curve.points[1:], strict=False))


def test_a_peak_is_not_lost_when_points_are_thinned():
    lots = random.Random(5)
    samples = [(i * 0.05, lots.randrange(1000)) for i in range(5000)]
    samples[1234] = (samples[1234][0], 10**9)
    assert max(size for _, size in drawn(samples).points) == 10**9


def test_samples_in_quick_sequence_are_one_point_with_the_highest_of_them():
    assert drawn([(0.0, 5), (0.001, 9), (0.002, 7)]).points == ((0.0, 9),)
