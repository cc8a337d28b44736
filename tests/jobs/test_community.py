"""The generator: deterministic, honest about itself, and fit for both jobs."""

import hashlib

import community
import pytest


def test_the_same_seed_gives_the_same_file(tmp_path):
    sums = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        community.write(str(tmp_path / name), community.make(1000, seed))
        sums.append(hashlib.sha256((tmp_path / name).read_bytes()).digest())
    assert sums[0] == sums[1] != sums[2]


def test_it_has_what_real_communities_have():
    made = community.make(20_000, 1)
    truth = made.truth
    assert len(made.users) == truth["users"] == 1000
    assert 0.3 < truth["acting_users"] / truth["users"] < 0.9
    assert truth["first_contact:cycles"] > 0
    assert truth["first_contact:below_cycle_users"] > truth["users"] / 2
    assert truth["invited_by:cycles"] == 6
    assert truth["invited_by:level_max"] >= 249
    assert {name for name in truth if name.startswith("rejected:")} == {
        f"rejected:{kind}"
        for kind in (
            "id_missing",
            "id_duplicate",
            "timestamp_missing",
            "timestamp_unparsable",
            "timestamp_out_of_range",
            "actor_missing",
            "target_missing",
        )
    }
    assert truth["rows_events"] == len(made.events) == 20_000 + 8 * 40
    times = [row[1] for row in community.make(2000, 1, dirty=False).events]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ({}, (0, 0, 0, 0, 0)),
        ({1: 1}, (1, 1, 1, 0, 0)),
        ({1: 2, 2: 1, 3: 1, 4: 3}, (4, 1, 2, 2, 2)),
        ({2: 1, 3: 2, 4: 3, 9: 8}, (4, 0, 0, 0, 3)),
        ({1: 2, 2: 3, 3: 1, 4: 4, 5: 4, 6: 7}, (6, 2, 4, 1, 1)),
    ],
)
def test_its_own_count_of_circles_is_right(parent, expected):
    assert tuple(community._walks(parent).values()) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "says"), [(["--events", "5"], 2, "at least 1000"), (["--output", "/proc/none/x.db"], 1, "--output needs a file")]
)
def test_an_error_is_one_line(capsys, tmp_path, arguments, code, says):
    assert community.main(["--output", str(tmp_path / "x.db"), *arguments]) == code
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
