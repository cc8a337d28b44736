"""How a job ended: fatal signals with their stacks, orderly ends, ends without a mark."""

import os
import signal
import subprocess

import pytest

from supervisor.adapters.guard import arm, read_stacks


@pytest.mark.parametrize(("kind", "number", "name"), [("segv", signal.SIGSEGV, "SIGSEGV"), ("abort", signal.SIGABRT, "SIGABRT")])
def test_a_fatal_signal_leaves_its_stack(any_active, both, children, kind, number, name):
    ended, _ = both(any_active, "guard_crash.py", kind, "2")
    assert ended.code == -number
    assert ended.words.fatal_signal == name
    assert [frame.function for frame in ended.words.fatal_frames] == ["deep", "deep", "deep", "<module>"]
    assert {frame.file for frame in ended.words.fatal_frames} == {str(children / "guard_crash.py")}
    assert not ended.words.fatal_truncated
    assert not ended.words.finalized


def test_a_deep_crash_says_that_its_stack_was_cut(python, run):
    words = run(python, "guard_crash.py", "segv", "400").words
    assert len(words.fatal_frames) == 100
    assert words.fatal_truncated


def test_the_cpu_limit_leaves_its_stack_and_still_kills(python, run):
    ended = run(python, "guard_crash.py", "xcpu", "1")
    assert ended.code == -signal.SIGXCPU
    assert ended.words.fatal_signal == "SIGXCPU"
    assert [frame.function for frame in ended.words.fatal_frames] == ["deep", "deep", "<module>"]


def test_a_stack_is_written_on_demand_and_the_job_goes_on(python, run):
    ended = run(python, "guard_crash.py", "urg", "1")
    assert ended.code == 0
    assert [[frame.function for frame in frames] for frames in read_stacks(str(ended.report_dir), ended.pid)] == [
        ["deep", "deep", "<module>"]
    ]
    assert ended.words.fatal_signal is None


@pytest.mark.parametrize(
    ("kind", "code", "finalized"),
    [("none", 0, True), ("exit", 3, True), ("message", 1, True), ("_exit", 3, False), ("exec", 3, False)],
)
def test_only_an_orderly_end_leaves_its_mark(python, both, kind, code, finalized):
    ended, _ = both(python, "guard_end.py", kind)
    assert (ended.code, ended.words.finalized, ended.words.exception) == (code, finalized, None)


def test_a_job_that_wants_faulthandler_for_itself_keeps_it(python, run):
    ended = run(python, "-X", "faulthandler", "guard_crash.py", "segv", "1")
    assert "Fatal Python error: Segmentation fault" in ended.err
    assert ended.words.fatal_signal is None


def test_ctrl_c_ends_a_guarded_job_as_it_ends_any(python, both):
    ended, _ = both(python, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT); signal.pause()")
    assert ended.code == -signal.SIGINT


REUSES = """
import os
here = "/proc/self/fd/"
(ours,) = [int(name) for name in os.listdir(here) if os.path.exists(here + name) and os.readlink(here + name).endswith(".rep")]
os.closerange(3, 4096)
fd = os.open(os.environ["OWN"], os.O_RDWR | os.O_CREAT)
os.dup2(fd, ours)
pid = os.fork()
if pid == 0:
    os.write(ours, b"the child's own")
    raise ValueError("of the child")
os.waitpid(pid, 0)
"""


def test_a_forked_child_keeps_the_file_for_which_the_job_took_our_number(python, tmp_path):
    reports = tmp_path / "reports"
    reports.mkdir()
    environment = arm(dict(os.environ) | {"OWN": str(tmp_path / "own")}, str(reports), 400)
    subprocess.run([python, "-c", REUSES], env=environment, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "own").read_text() == "the child's own"
    said = [report.read_bytes() for report in reports.iterdir()]
    assert len(said) == 2
    assert sum(b"of the child" in one for one in said) == 1
