"""The figures of this process, and what is said where /proc says nothing."""

import os

import pytest

from supervisor.adapters import ownprocess


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields():
    fields = ["S"] + ["0"] * 49
    for number, value in ((14, 300), (15, 100), (20, 5), (22, 1000), (23, 4096), (24, 2)):  # as proc_pid_stat(5) numbers them
        fields[number - 3] = str(value)
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    assert ownprocess.parse_stat(f"1 (a) b (c) {' '.join(fields)}", booted_at=50.0) == {
        "process_cpu_seconds_total": 400 / ticks,
        "process_threads": 5.0,
        "process_start_time_seconds": 50.0 + 1000 / ticks,
        "process_virtual_memory_bytes": 4096.0,
        "process_resident_memory_bytes": 2.0 * page,
    }


def test_the_limit_on_files_may_be_no_limit():
    assert ownprocess.parse_max_fds("Max open files            1024                 4096                 files\n") == 1024
    assert ownprocess.parse_max_fds("Max open files            unlimited            unlimited            files\n") == float("inf")
    with pytest.raises(ValueError, match="no limit"):
        ownprocess.parse_max_fds("")


def test_a_proc_that_is_hidden_gives_no_figures_rather_than_zeros(tmp_path):
    assert ownprocess.figures(str(tmp_path)) == {}


def test_the_real_proc_gives_all():
    assert len(ownprocess.figures()) == 7
