"""Copies of the guard for the users that jobs run as: whole, theirs to keep compiled, and never a reason not to start."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from supervisor import command
from supervisor.adapters.guard import SITE, arm, read_last_words
from supervisor.guardsites import GuardSites

ME = os.geteuid()
IS_FIRST = "import sys; print('_mainstay_guard.bundle' in sys.modules)"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An installation of our own, with nothing compiled."""
    shutil.copytree(SITE, tmp_path / "supervisor" / "guard" / "site", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "supervisor" / "guard" / "site"


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def sites(copies: Path, source: Path, gone: list[str] | None = None) -> GuardSites:
    def discard(path: str) -> None:
        if gone is not None:
            gone.append(os.path.basename(path))
        shutil.rmtree(path, ignore_errors=True)

    return GuardSites(str(copies), discard, source=str(source))


def contents(site: str | Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in sorted(Path(site).rglob("*.py"))}


def test_a_copy_is_the_guard_and_is_made_once(copies: Path, source: Path) -> None:
    gone: list[str] = []
    several = sites(copies, source, gone)
    site = several.of(ME)
    assert contents(site) == contents(source)
    assert [several.of(ME), sites(copies, source, gone).of(ME)] == [site, site]
    assert (os.listdir(copies), gone) == ([os.path.basename(site)], [])


def test_a_copy_that_goes_away_is_made_again(copies: Path, source: Path) -> None:
    several = sites(copies, source)
    shutil.rmtree(several.of(ME))
    assert contents(several.of(ME)) == contents(source)


@pytest.mark.parametrize("name", ["sitecustomize.py", "_mainstay_guard/hooks.py"])
@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b""), Path.unlink], ids=["empty", "gone"])
def test_a_copy_that_a_crash_of_the_host_has_harmed_is_replaced(copies: Path, source: Path, name: str, harm) -> None:
    harm(Path(sites(copies, source).of(ME), name))
    assert contents(sites(copies, source).of(ME)) == contents(source)


def test_an_upgrade_makes_a_new_copy_and_the_old_one_goes_when_nothing_runs_in_it(copies: Path, source: Path) -> None:
    old = sites(copies, source).of(ME)
    with open(source / "_mainstay_guard" / "hooks.py", "a", encoding="utf-8") as file:
        file.write("# newer\n")
    gone: list[str] = []
    several = sites(copies, source, gone)
    new = several.of(ME)
    assert (new != old, contents(new), os.path.exists(old), gone) == (True, contents(source), True, [])
    (copies / "draft-0123").mkdir()
    several.sweep()
    assert sorted(gone) == sorted([os.path.basename(old), "draft-0123"])
    assert os.listdir(copies) == [os.path.basename(new)]


def test_where_nothing_can_be_written_it_is_said_and_nothing_is_left(tmp_path: Path, source: Path) -> None:
    (tmp_path / "copies").touch()
    with pytest.raises(OSError, match="copies"):
        sites(tmp_path / "copies", source).of(ME)


def test_a_copy_that_cannot_be_finished_leaves_no_draft(copies: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(OSError, match="No space"):
        sites(copies, source).of(ME)
    assert os.listdir(copies) == []


def test_several_that_make_it_at_once_all_get_a_whole_one(copies: Path, source: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        found.append(sites(copies, source).of(ME))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (8, 1)
    assert contents(found[0]) == contents(source)


def test_what_is_compiled_in_the_installation_serves_the_copy(
    any_active: str, copies: Path, source: Path, bare_environment: Mapping[str, str]
) -> None:
    """All but the file that names the places of its sources."""
    subprocess.run([any_active, "-c", "pass"], env=arm(bare_environment, str(source), None, site=str(source)), check=True, timeout=60)
    site = sites(copies, source).of(ME)
    kept = Path(site, "_mainstay_guard", "__pycache__")
    before = {path.name: path.stat().st_ino for path in kept.iterdir()}
    assert {name.partition(".")[0] for name in before} >= {"hooks", "files", "lineage", "report"}
    assert not [name for name in before if name.startswith("start")]
    program = "import sys; print(sys.setrecursionlimit.__code__.co_filename)"
    environment = arm(bare_environment, str(source), None, site=site)
    first = subprocess.run([any_active, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert first.stdout == f"{site}/_mainstay_guard/hooks.py\n"
    assert {name: (kept / name).stat().st_ino for name in before} == before  # none was compiled anew


@pytest.mark.parametrize("folder", ["copies", "/tmp/a:b/copies"])
def test_a_folder_that_pythonpath_cannot_name_is_refused(folder: str, source: Path) -> None:
    with pytest.raises(OSError, match="PYTHONPATH cannot name"):
        GuardSites(folder, shutil.rmtree, source=str(source)).of(ME)
    assert not os.path.exists(folder)


def test_copies_are_what_they_should_be_under_any_umask(copies: Path, source: Path) -> None:
    before = os.umask(0o077)
    try:
        site = Path(sites(copies, source).of(ME))
    finally:
        os.umask(before)
    modes = {str(path.relative_to(site)): stat.S_IMODE(path.lstat().st_mode) for path in [site, *site.rglob("*")] if not path.is_symlink()}
    assert {name: mode for name, mode in modes.items() if name.endswith(".py") and mode != 0o644} == {}
    assert {modes["."], modes["_mainstay_guard"]} == {0o755}
    assert {modes["__pycache__"], modes["_mainstay_guard/__pycache__"]} == {0o700}


@pytest.mark.parametrize("part", ["_mainstay_guard/home", "_mainstay_guard/__pycache__"])
def test_a_copy_that_lacks_a_part_is_replaced(copies: Path, source: Path, part: str) -> None:
    path = Path(sites(copies, source).of(ME), part)
    path.unlink() if path.is_symlink() else shutil.rmtree(path)
    assert os.path.lexists(Path(sites(copies, source).of(ME), part))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes copies for others, or gives a folder away")
@pytest.mark.parametrize("part", ["__pycache__", "_mainstay_guard/__pycache__"])
def test_a_copy_in_which_another_user_may_compile_is_replaced(copies: Path, source: Path, part: str) -> None:
    """After its number was given to somebody else, or by whoever could write to the folder once."""
    os.chown(Path(sites(copies, source).of(ME), part), 12345, -1)
    assert Path(sites(copies, source).of(ME), part).stat().st_uid == ME
    theirs = sites(copies, source).of(12345)
    assert Path(theirs, part).stat().st_uid == 12345


def test_an_installation_that_is_closed_to_the_jobs_user_is_as_if_it_were_not_there(
    copies: Path, source: Path, bare_environment: Mapping[str, str], any_active: str
) -> None:
    """Nothing of it can be read here: there is none. A job that tries to import it expects ImportError."""
    site = sites(copies, source).of(ME)
    environment = arm(bare_environment, str(source), None, site=site)
    program = "try: import supervisor\nexcept ImportError as err: print(type(err).__name__)"
    done = subprocess.run([any_active, "-c", program], env=environment, cwd="/", capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "ModuleNotFoundError\n"


def test_a_job_finds_the_protocol_from_a_copy(copies: Path, tmp_path: Path, bare_environment: Mapping[str, str], python: str) -> None:
    site = GuardSites(str(copies), shutil.rmtree).of(ME)
    report_dir = tmp_path / "report"
    report_dir.mkdir()
    environment = arm(bare_environment, str(report_dir), None, site=site)
    program = "from supervisor import job; print(job.__file__)"
    done = subprocess.run([python, "-c", program], env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == f"{os.path.dirname(os.path.dirname(SITE))}/job.py\n", done.stderr


def test_a_death_under_a_copy_is_told_as_under_the_installation(copies: Path, tmp_path: Path, bare_environment: Mapping[str, str]) -> None:
    site = GuardSites(str(copies), shutil.rmtree).of(ME)
    report_dir = tmp_path / "report"
    report_dir.mkdir()
    environment = arm(bare_environment, str(report_dir), None, site=site)
    with subprocess.Popen([sys.executable, "-c", "def f(n): return f(n + 1)\nf(0)"], env=environment, stderr=subprocess.PIPE) as child:
        child.communicate(timeout=60)
    words = read_last_words(str(report_dir), child.pid)
    assert (words.exception.type, words.exception.frames[-1].function) == ("RecursionError", "f")


# ---------------------------------------------------------------- where `exec` keeps its copy


def test_a_folder_is_ours_alone_if_nobody_else_can_change_what_lies_there(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "mainstay"
    place.mkdir(parents=True)
    assert command.is_ours_alone(str(place))
    for folder in (place, place.parent):
        folder.chmod(0o770)
        assert not command.is_ours_alone(str(place))
        folder.chmod(0o1777)  # as /tmp: others may add to it and cannot move what is ours
        assert command.is_ours_alone(str(place))
        folder.chmod(0o700)
    (tmp_path / "link").symlink_to(place)
    assert not command.is_ours_alone(str(tmp_path / "link"))
    if ME == 0:
        for folder in (place, place.parent):
            os.chown(folder, 65534, -1)
            assert not command.is_ours_alone(str(place))
            os.chown(folder, 0, -1)


@pytest.mark.parametrize("home", ["relative", "~"])
def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert command.cache_dir() is None
