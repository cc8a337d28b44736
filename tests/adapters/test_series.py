"""The cells behind the metrics: arrays and dictionaries that hold the same, whatever is done to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.adapters.series import Buckets, Grid, Loose, Owners

KNOWN = [("a",), ("b",), ("c",)]
DEEDS = st.lists(
    st.tuples(st.sampled_from(["clear", "put", "drop"]), st.integers(0, 3), st.sampled_from(KNOWN), st.floats(-10, 10)), max_size=40
)


@given(DEEDS)
def test_a_grid_holds_what_dictionaries_hold(deeds):
    grid, loose = Grid(KNOWN), Loose()
    for row in range(4):
        grid.clear(row)
        loose.clear(row)
    for deed, row, values, value in deeds:
        for cells in (grid, loose):
            if deed == "clear":
                cells.clear(row)
            elif deed == "put":
                cells.put(row, values, value)
        if deed == "drop":
            assert grid.drop(row, values) == loose.drop(row, values)
    for row in range(4):
        assert dict(grid.items(row)) == dict(loose.items(row))
        assert [grid.get(row, values) for values in KNOWN] == [loose.get(row, values) for values in KNOWN]
    assert grid.count() == loose.count()


def test_a_label_value_that_was_not_declared_has_no_cell():
    grid = Grid(KNOWN)
    grid.clear(0)
    with pytest.raises(KeyError):
        grid.put(0, ("d",), 1.0)


def test_the_row_of_an_owner_that_left_is_used_again():
    owners = Owners()
    assert [owners.add(name) for name in "abc"] == [0, 1, 2]
    owners.remove("b")
    assert owners.add("d") == 1
    assert owners.add("e") == 3
    assert list(owners.rows) == ["a", "c", "d", "e"]


def test_histograms_of_two_owners_do_not_touch():
    buckets = Buckets(2)
    for row in (0, 1):
        buckets.set(row, [0.0, 0.0, 0.0], 0.0)
    buckets.observe(0, 2, 7.5)
    buckets.observe(1, 0, 0.5)
    buckets.observe(1, 0, 0.25)
    assert (list(buckets.counts(0)), buckets.sum(0)) == ([0, 0, 1], 7.5)
    assert (list(buckets.counts(1)), buckets.sum(1)) == ([2, 0, 0], 0.75)
