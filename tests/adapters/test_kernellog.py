"""Whom the OOM killer ended, by the kernel's log: from texts as kernels write them. That the log is read at all is shown in ``e2e/test_kernel_oom``."""

from pathlib import Path

import pytest

from supervisor.adapters.kernellog import fault_of, oom_victims, parse_killed
from supervisor.core.evidence import OomVictim

HOST = "Out of memory: Killed process 812 (python) total-vm:64156kB, anon-rss:52612kB, file-rss:4040kB, shmem-rss:8kB, UID:0 pgtables:168kB oom_score_adj:0"
GROUP = "Memory cgroup out of memory: Killed process 813 (a (b) c) total-vm:1kB, anon-rss:2kB, file-rss:0kB, shmem-rss:0kB, UID:0"
OLD = "Memory cgroup out of memory: Killed process 29 (sh) total-vm:100kB, anon-rss:10kB, file-rss:1kB"


@pytest.mark.parametrize(
    ("text", "victim"),
    [
        (HOST, OomVictim(812, "python", (52612 + 4040 + 8) * 1024, in_cgroup=False)),
        (GROUP, OomVictim(813, "a (b) c", 2048, in_cgroup=True)),
        (OLD, OomVictim(29, "sh", 11 * 1024, in_cgroup=True)),
        ("oom_reaper: reaped process 812 (python), now anon-rss:0kB", None),
        ("python invoked oom-killer: gfp_mask=0xcc0", None),
        ("", None),
    ],
)
def test_a_victim_is_read_out_of_the_kernels_words(text: str, victim: OomVictim | None) -> None:
    assert parse_killed(text) == victim


def log(folder: Path, *records: tuple[float, str]) -> str:
    """One record is one read of /dev/kmsg, which a file cannot give: so a single one."""
    path = folder / "kmsg"
    path.write_text("".join(f"6,{i},{int(at * 1e6)},-;{text}\n" for i, (at, text) in enumerate(records)))
    return str(path)


def test_only_those_of_the_tree_count_and_only_since_it_began(tmp_path: Path) -> None:
    path = log(tmp_path, (500.0, HOST))
    assert oom_victims(812, (), 400.0, path=path) == (OomVictim(812, "python", 58_019_840, in_cgroup=False, is_main=True),)
    assert oom_victims(1, {812}, 400.0, path=path)[0].is_main is False
    assert oom_victims(1, {2}, 400.0, path=path) == ()
    assert oom_victims(812, (), 600.0, path=path) == ()


def test_what_a_program_wrote_into_the_log_is_no_evidence(tmp_path: Path) -> None:
    path = log(tmp_path, (500.0, HOST))
    Path(path).write_text(Path(path).read_text().replace("6,0,", "14,0,"))
    assert oom_victims(812, (), 400.0, path=path) == ()


CRASH = "tool[812]: segfault at 0 ip 000055714ac35139 sp 00007ffc9c87e1d0 error 4 in tool[1139,55714ac35000+1000] likely on CPU 0 (core 0, socket 0)"
OVERFLOW = "tool[812]: segfault at 7fff7fa12e9c ip 0000563022eff134 sp 00007fff7fa12e90 error 6 in tool[1134,563022eff000+1000]"


@pytest.mark.parametrize(("text", "beside"), [(CRASH, False), (OVERFLOW, True)])
def test_a_crash_that_nobody_handled_is_told_with_its_address(tmp_path: Path, text: str, beside: bool) -> None:
    path = log(tmp_path, (500.0, text))
    fault = fault_of(812, 400.0, path=path)
    assert fault is not None
    assert fault.is_beside_stack is beside
    assert fault_of(813, 400.0, path=path) is None
    assert fault_of(812, 600.0, path=path) is None
    Path(path).write_text(Path(path).read_text().replace("6,0,", "14,0,"))  # a program's own words
    assert fault_of(812, 400.0, path=path) is None


def test_a_log_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    assert oom_victims(812, (), 400.0, path=str(tmp_path / "none")) is None
