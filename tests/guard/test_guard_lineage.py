"""A script that starts itself is stopped twelve levels deep; process trees that mean no harm are left alone."""

import pytest


def test_a_script_that_starts_itself_is_stopped_twelve_levels_deep(any_active, run, children):
    ended = run(any_active, "guard_relaunch.py", "0")
    assert ended.out.split() == [str(level) for level in range(12)]
    assert (ended.code, ended.err) == (79, "")
    assert ended.words.spoke
    assert ended.words.lineage == (str(children / "guard_relaunch.py"), 12)


def test_the_number_of_levels_can_be_set(python, run):
    ended = run(python, "guard_relaunch.py", "0", environment={"MAINSTAY_LINEAGE_MAX": "2"})
    assert ended.out.split() == ["0", "1"]
    assert ended.words.lineage[1] == 2


def test_a_module_and_a_command_that_start_themselves_are_stopped(python, run, children):
    ended = run(python, "-m", "guard_relaunch_as_module", environment={"PYTHONPATH": str(children)}, cwd=children)
    assert ended.words.lineage == ("-m guard_relaunch_as_module", 12)
    program = (
        "import os, subprocess, sys; print('x', flush=True); sys.exit(subprocess.run([sys.executable, '-c', os.environ['P']]).returncode)"
    )
    ended = run(python, "-c", program, environment={"P": program})
    assert ended.out == "x\n" * 12
    assert ended.words.lineage == ("-c " + program, 12)


def test_brothers_are_no_descent(python, run):
    ended = run(python, "guard_relaunch.py", "0", "twins")
    assert (ended.code, ended.words.lineage) == (0, None)


def test_a_service_that_starts_afresh_by_exec_is_no_descent(python, run):
    ended = run(python, "guard_relaunch.py", "0", "exec")
    assert ended.out.split() == [str(level) for level in range(25)]
    assert (ended.code, ended.words.lineage) == (0, None)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pools_of_processes_work_as_without_us(python, both, method):
    ended, _ = both(python, "guard_pool.py", method)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{[n * n for n in range(12)]}\n"
    assert ended.words.lineage is None


def test_a_chain_of_different_scripts_is_left_alone(python, run, tmp_path):
    for level in range(20):
        following = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, 's{level + 1}.py']).returncode)\n"
        (tmp_path / f"s{level}.py").write_text(following if level < 19 else "print('the end')\n")
    ended = run(python, "s0.py")
    assert (ended.code, ended.out, ended.words.lineage) == (0, "the end\n", None)


def test_helpers_that_end_well_leave_no_file(python, run):
    program = "import subprocess, sys\nfor _ in range(3): subprocess.run([sys.executable, '-c', 'pass'], check=True)"
    ended = run(python, "-c", program)
    assert {path.name for path in ended.report_dir.iterdir()} == {f"{ended.pid}.rep"}


def test_a_flood_of_forks_does_not_fill_the_directory(python, run):
    ended = run(python, "-c", _FLOOD)
    assert (ended.code, ended.out) == (0, "")
    names = [path.name for path in ended.report_dir.iterdir()]
    assert len([name for name in names if name.endswith(".rep")]) == 256
    assert ended.words.exception is None
    assert ended.words.finalized


_FLOOD = """
import os
for _ in range(300):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
"""
