"""What is made only when a report is due works wherever the job has brought itself by then; a start without compiled files is as good as one with."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from supervisor.adapters.guard import SITE, arm, read_last_words, read_stacks
from supervisor.guardsites import GuardSites

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user or change its root directory")


class Place:
    """A copy of the guard of the job's own, and what a job says with it."""

    def __init__(self, folder: Path, bare: Mapping[str, str]) -> None:
        self.site = folder / "site"
        shutil.copytree(SITE, self.site, ignore=shutil.ignore_patterns("__pycache__"))
        self.report_dir = folder / "report"
        self.report_dir.mkdir()
        self.environment = {**arm(bare, str(self.report_dir), None, site=str(self.site)), "SITE": str(self.site)}

    def compile(self, python: str, *options: str) -> None:
        subprocess.run([python, "-I", "-S", "-m", "compileall", "-q", *options, str(self.site)], check=True, timeout=60)

    def run(self, *command: str):
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            out, err = child.communicate(timeout=60)
        return child.pid, out, err, read_last_words(str(self.report_dir), child.pid)


@pytest.fixture
def place(tmp_path: Path, bare_environment: Mapping[str, str]) -> Place:
    return Place(tmp_path, bare_environment)


ELSEWHERE = {
    "another directory": "os.chdir('/')",
    "without its installation": "import shutil; shutil.rmtree(os.environ['SITE'])",
    "after an upgrade": "open(os.environ['SITE'] + '/_mainstay_guard/report.py', 'w').write('another version')",
    "without an import system": "import builtins; sys.meta_path[:] = sys.path[:] = sys.path_hooks[:] = []; builtins.__import__ = None",
    "without modules": "[sys.modules.pop(name) for name in list(sys.modules) if 'mainstay' in name or name in ('os', '_imp', 'marshal')]",
}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_an_exception_is_written_down_wherever_the_job_has_gone(python: str, place: Place, where: str) -> None:
    place.compile(python)
    words = place.run(python, "-c", f"import os, sys\n{ELSEWHERE[where]}\nraise ValueError('far away')")[3]
    assert (words.exception.type, words.exception.message) == ("ValueError", "far away")


@needs_root
@pytest.mark.parametrize("change", ["os.setuid(65534)", "os.chroot(os.environ['SITE']); os.chdir('/')"], ids=["user", "root"])
def test_an_exception_of_another_user_or_below_another_root_is_written_down(python: str, place: Place, change: str) -> None:
    place.compile(python)
    place.site.chmod(0o700)
    words = place.run(python, "-c", f"import os\n{change}\nraise ValueError('far away')")[3]
    assert words.exception.message == "far away"


def test_a_stack_is_written_on_demand_although_no_descriptor_is_left(python: str, place: Place) -> None:
    place.compile(python)
    program = (
        "import os, resource, signal\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n    while True: os.open('/dev/null', os.O_RDONLY)\nexcept OSError: pass\n"
        "def here(): signal.raise_signal(signal.SIGURG)\nhere()\nhere()\n"
    )
    pid, _, err, _ = place.run(python, "-c", program)
    assert err == ""
    assert [[frame.function for frame in frames] for frames in read_stacks(str(place.report_dir), pid)] == [["here", "<module>"]] * 2


@pytest.mark.parametrize("holder", ["late = Late()", "import builtins; builtins.late = Late()", "late = Late(); late.itself = late"])
def test_an_exception_while_the_interpreter_goes_away_is_written_down(python: str, place: Place, holder: str) -> None:
    """sys.modules is empty then, and nothing can be imported."""
    place.compile(python)
    words = place.run(python, "-c", f"class Late:\n    def __del__(self): raise ValueError('so late')\n{holder}")[3]
    assert (words.exception.where, words.exception.message, words.finalized) == ("unraisable", "so late", True)


def test_two_threads_that_die_at_once_are_told_once_and_whole(python: str, place: Place) -> None:
    place.compile(python)
    program = (
        "import threading\nbarrier = threading.Barrier(8)\ndef die():\n    barrier.wait()\n    raise KeyError('at once')\n"
        "threads = [threading.Thread(target=die) for _ in range(8)]\nfor thread in threads: thread.start()\nfor thread in threads: thread.join()\n"
    )
    words = place.run(python, "-c", program)[3]
    assert (words.exception.where, words.exception.message) == ("thread", "'at once'")
    assert words.exception.frames[-1].function == "die"


def test_nothing_of_the_reports_is_made_in_a_job_that_needs_none(python: str, place: Place) -> None:
    place.compile(python)
    out = place.run(python, "-c", "import sys; print(sorted(name for name in sys.modules if 'mainstay' in name))")[1]
    assert "_mainstay_guard.hooks" in out
    assert not any(late in out for late in ("report", "census", "tasks"))


def test_the_import_system_is_asked_by_a_first_start_alone(any_active: str, place: Place) -> None:
    """It takes several times as long, and would be asked without a word if the stamp were wrong."""
    program = "import sys; print([name for name, module in sys.modules.items() if 'mainstay' in name and module.__spec__ is not None])"
    assert [place.run(any_active, "-c", program)[1] for _ in range(3)] == ["['_mainstay_guard.bundle']\n", "[]\n", "[]\n"]
    shutil.rmtree(place.site / "_mainstay_guard" / "__pycache__")
    assert place.run(any_active, "-c", program)[1] == "['_mainstay_guard.bundle']\n"


SAYS = "import sys; print(sys._mainstay_test); raise ValueError('told')"


def _say(place: Place, what: str) -> None:
    """Have the guard's hooks say *what*: the source is a new one, of another size."""
    with open(place.site / "_mainstay_guard" / "hooks.py", "a", encoding="utf-8") as file:
        file.write(f"\nsys._mainstay_test = {what!r}\n")


def test_a_compiled_file_that_is_older_than_its_source_is_passed_over(any_active: str, place: Place) -> None:
    place.compile(any_active)
    place.run(any_active, "-c", "pass")
    _say(place, "the new source")
    _, out, _, words = place.run(any_active, "-c", SAYS)
    assert (out, words.exception.message) == ("the new source\n", "told")


def test_what_is_compiled_by_the_first_start_serves_the_second(any_active: str, place: Place) -> None:
    _say(place, "said")
    folder = place.site / "_mainstay_guard"
    for _ in range(2):
        _, out, _, words = place.run(any_active, "-c", SAYS)
        assert (out, words.exception.message) == ("said\n", "told")
        assert {path.name.partition(".")[0] for path in (folder / "__pycache__").iterdir()} >= {
            "hooks",
            "files",
            "lineage",
            "report",
            "start",
        }
        assert not [path for path in (folder / "__pycache__").iterdir() if path.suffix not in (".pyc", ".bin")]  # half-written ones


@pytest.mark.parametrize("options", [("-B",), ("-O",), ("-OO",), ("-B", "-O")])
def test_a_start_without_compiled_files_is_guarded_all_the_same(python: str, place: Place, options: tuple[str, ...]) -> None:
    _say(place, "said")
    for _ in range(2):
        _, out, _, words = place.run(python, *options, "-c", SAYS)
        assert (out, words.exception.message) == ("said\n", "told")
    assert ("-B" in options) != (place.site / "_mainstay_guard" / "__pycache__").exists()


@pytest.mark.parametrize("option", ["-B", "-OB"])
def test_a_copy_made_for_a_user_keeps_what_a_start_needs_even_where_bytecode_is_not_wanted(
    any_active: str, bare_environment: Mapping[str, str], tmp_path: Path, option: str
) -> None:
    """Most images for containers set PYTHONDONTWRITEBYTECODE, and would pay for the compiler at each start."""
    site = GuardSites(str(tmp_path / "copies"), shutil.rmtree).of(os.geteuid())
    for path in Path(site, "_mainstay_guard", "__pycache__").iterdir():
        path.unlink()
    program = "import sys; print('_mainstay_guard.bundle' in sys.modules)"
    environment = arm(bare_environment, str(tmp_path), None, site=site)
    said = [
        subprocess.run([any_active, option, "-c", program], env=environment, capture_output=True, timeout=60, check=True) for _ in range(2)
    ]
    assert [one.stdout for one in said] == [b"True\n", b"False\n"]


@pytest.mark.parametrize("mode", ["checked-hash", "unchecked-hash"])
def test_compiled_files_that_are_told_by_their_hash_are_left_to_the_import_system(python: str, place: Place, mode: str) -> None:
    place.compile(python, "--invalidation-mode", mode)
    words = place.run(python, "-c", "raise ValueError('told')")[3]
    assert words.exception.message == "told"


@pytest.mark.parametrize("bad", [b"", b"\0" * 16, b"\0" * 40_000, b"N", b")\x03NNN"])
def test_compiled_files_that_are_none_cost_nothing_but_time(python: str, place: Place, bad: bytes) -> None:
    place.compile(python)
    place.run(python, "-c", "pass")
    for path in (place.site / "_mainstay_guard" / "__pycache__").iterdir():
        path.write_bytes(bad)
    _, _, err, words = place.run(python, "-c", "raise ValueError('told')")
    assert "mainstay" not in err
    assert words.exception.message == "told"


def test_what_is_kept_is_never_written_through_a_link(python: str, place: Place, tmp_path: Path) -> None:
    """The folder may be one that another process of the job's user can write."""
    place.compile(python)
    mine = tmp_path / "mine"
    mine.write_text("untouched")
    kept = place.site / "_mainstay_guard" / "__pycache__"
    tag = subprocess.run(
        [python, "-c", "import sys; print(sys.implementation.cache_tag)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (kept / f"start.{tag}.bin").symlink_to(mine)
    assert place.run(python, "-c", "raise ValueError('told')")[3].exception.message == "told"
    assert mine.read_text() == "untouched"
    assert not (kept / f"start.{tag}.bin").is_symlink()
