"""One bug in all its costumes, in every CPython of this machine: it is called recursion, the cycle is named, the memory holds, the name is one."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from overshoot import allowed
from wardrobe import BUG, COSTUMES, MIB, WALK, Costume, Death, Python, Wardrobe, die, find_pythons, own_functions

PYTHONS = find_pythons()
PAIRS = [(costume, python) for costume in COSTUMES for python in PYTHONS if costume.fits(python)]


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Wardrobe]:
    """All that the chosen tests need is begun at once, so that it dies side by side."""
    found = Wardrobe(tmp_path_factory.mktemp("costumes"))
    for item in request.session.items:
        parameters = getattr(item, "callspec", None)
        if parameters is not None and {"costume", "python"} <= parameters.params.keys():
            found.wear(parameters.params["costume"], parameters.params["python"])
    yield found
    found.close()


@pytest.mark.parametrize(("costume", "python"), PAIRS, ids=[f"{costume.name}-{python}" for costume, python in PAIRS])
def test_it_is_called_a_recursion_and_its_cycle_is_named(wardrobe: Wardrobe, costume: Costume, python: Python) -> None:
    death = wardrobe.wear(costume, python).result()
    report, cycle = death.report, death.report["cycle"]
    assert report["outcome"] == "recursion", death.said[-800:]
    assert cycle["kind"] == costume.kind
    assert own_functions(report) == costume.functions
    assert cycle["depth"] > 0
    assert report["memory_peak_bytes"] <= allowed(report, costume.memory_mib * MIB)
    for words in costume.tells:
        assert any(words in note for note in cycle["notes"]), cycle["notes"]
    if costume.functions == WALK:
        lines = BUG.read_text(encoding="utf-8").splitlines()
        assert all(WALK & set(_words(lines[frame["line"] - 1])) for frame in cycle["frames"] if Path(frame["file"]) == BUG)


def _words(line: str) -> list[str]:
    return "".join(letter if letter.isidentifier() else " " for letter in line).split()


@pytest.mark.parametrize("bug", sorted({costume.bug for costume in COSTUMES}))
def test_one_bug_has_one_name_in_all_its_costumes_and_in_every_python(wardrobe: Wardrobe, bug: str) -> None:
    worn = [(costume, python, wardrobe.wear(costume, python).result()) for costume, python in PAIRS if costume.bug == bug]
    deaths = {(costume.name, str(python)): death for costume, python, death in worn}
    named = {key: death.report["fingerprint"] for key, death in deaths.items()}
    usual = Counter(named.values()).most_common(1)[0][0]
    assert set(named.values()) == {usual}, {key: (name, deaths[key].report["summary"]) for key, name in named.items() if name != usual}


def test_different_bugs_have_different_names(wardrobe: Wardrobe) -> None:
    python = PYTHONS[0]
    names = {costume.bug: wardrobe.wear(costume, python).result().report["fingerprint"] for costume in COSTUMES if costume.fits(python)}
    assert len(set(names.values())) == len(names), names


def test_the_name_holds_in_another_directory_and_after_unrelated_lines_moved(wardrobe: Wardrobe, tmp_path: Path) -> None:
    moved = tmp_path / "srv" / "elsewhere" / BUG.name
    moved.parent.mkdir(parents=True)
    moved.write_text("# one more line\n\n\n\n" + BUG.read_text(encoding="utf-8"), encoding="utf-8")
    for number, costume in enumerate(costume for costume in COSTUMES if costume.name in ("plain", "limit raised from C", "json default=")):
        there = die(PYTHONS[0].path, costume, tmp_path / str(number), script=moved)
        assert there.report["fingerprint"] == wardrobe.wear(costume, PYTHONS[0]).result().report["fingerprint"]
        assert _lines(there) == [line + 4 for line in _lines(wardrobe.wear(costume, PYTHONS[0]).result())]


def _lines(death: Death) -> list[int]:
    return [frame["line"] for frame in death.report["cycle"]["frames"] if Path(frame["file"]).name == BUG.name]


@pytest.mark.parametrize("python", PYTHONS, ids=str)
@pytest.mark.parametrize("word", ["legal", "caught"])
def test_a_deep_recursion_that_comes_back_and_one_that_the_job_handles_are_left_alone(tmp_path: Path, word: str, python: Python) -> None:
    death = die(python.path, Costume(word, word), tmp_path / "job")
    assert (death.report["outcome"], death.report["cycle"], death.code) == ("succeeded", None, 0)


@pytest.mark.parametrize("python", PYTHONS, ids=str)
@pytest.mark.parametrize("start", ["script", "isolated"])
@pytest.mark.parametrize("word", ["deep-data", "deep-walks"])
def test_a_legal_recursion_of_1500_levels_beside_too_much_data_is_a_matter_of_memory(
    tmp_path: Path, word: str, start: str, python: Python
) -> None:
    death = die(python.path, Costume(word, word, start=start, recursion=None, memory_mib=96), tmp_path / "job")
    # Without a guard nobody knows of what it died that ended by itself.
    assert death.report["outcome"] in (("memory",) if start == "script" else ("memory", "failed")), death.said[-800:]
    assert death.report["cycle"] is None


@pytest.mark.parametrize("python", PYTHONS, ids=str)
def test_a_crowd_of_tasks_that_somebody_else_starts_is_a_matter_of_memory(tmp_path: Path, python: Python) -> None:
    death = die(python.path, Costume("crowd", "crowd", memory_mib=64), tmp_path / "job")
    assert death.report["memory_peak_bytes"] <= allowed(death.report, 64 * MIB)
    # 3.13.0 crashes where a set of a hundred thousand tasks is refused its next size, at 53 of 64 MiB: that it was refused is not always to be seen.
    expected = ("memory", "crashed") if python.version == (3, 13, 0) else ("memory",)
    assert death.report["outcome"] in expected, death.said[-800:]


CONTAINED = [python for python in PYTHONS if python.path.endswith("-here")]


@pytest.mark.skipif(not CONTAINED or os.geteuid() != 0, reason="no Python with a root of its own (scripts/newer-python.sh), or not root")
@pytest.mark.parametrize("word", ["bypass", "swallow-loop"])
def test_a_python_with_another_root_is_seen_from_outside(tmp_path: Path, word: str) -> None:
    """As in a container: its paths mean nothing out here, and the guard is not there."""
    python = CONTAINED[0].path.removesuffix("-here")
    root = python.partition("/usr/bin/")[0]
    shutil.copy(BUG, root + "/tmp/bug.py")
    death: Death = die("chroot", Costume(word, word), tmp_path / "job", script=Path(root + "/tmp/bug.py"), root=root)
    assert death.report["outcome"] == "recursion", death.said[-800:]
    assert own_functions(death.report) == WALK
