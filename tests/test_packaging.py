"""The wheel as a stranger gets it: complete, installable, and free of what belongs to the checkout only."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("supervisor", "pyproject.toml", "README.md", "LICENSE")


def run(*command: object, cwd: str | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100, check=False, cwd=cwd, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: the build backend writes beside its sources."""
    source = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    output = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", output, source)
    (found,) = output.glob("mainstay-*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(names: set[str]) -> None:
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "supervisor").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {name for name in names if ".dist-info/" not in name} == ours


def test_the_guard_is_in_the_wheel_as_plain_files(names: set[str]) -> None:
    assert "supervisor/guard/site/sitecustomize.py" in names
    assert not [name for name in names if name.endswith(".pyc")]  # jobs run other Pythons than ours


def test_the_licence_is_in_the_wheel(names: set[str]) -> None:
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_an_installed_wheel_tells_its_version(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    # Our own dependencies come from the environment of this test, as a path entry: its own .pth files are not read that way.
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    where = run(python, "-c", "import supervisor; print(supervisor.__file__)", cwd="/", env=clean).strip()
    assert where.startswith(str(packages))
    version = run(python, "-c", "import supervisor; print(supervisor.__version__)", cwd="/", env=clean).strip()
    assert version in run(python, "-m", "supervisor", "--version", cwd="/", env=clean)
    assert version in run(home / "bin" / "mainstay", "--version", cwd="/", env=clean)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_every_package_with_hashes_and_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    entries = [entry for entry in text.replace("\\\n", " ").splitlines() if entry and not entry.startswith("#")]
    for entry in entries:
        pin, *hashes = entry.split()
        assert pin.count("==") == 1, entry
        assert hashes, entry
        assert all(text.startswith("--hash=sha256:") for text in hashes), entry


def test_the_locks_hold_all_that_the_project_asks_for() -> None:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    runtime = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["metrics"],
        *project["build-system"]["requires"],
    ]
    for name, wanted in (("requirements.lock", runtime), ("requirements-dev.lock", [*runtime, *project["dependency-groups"]["dev"]])):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        pins = dict(line.split()[0].split("==") for line in lines if "==" in line)
        for text in wanted:
            requirement = Requirement(text)
            found = pins.get(canonicalize_name(requirement.name))
            assert found, f"{name} lacks {text}: make lock"
            assert requirement.specifier.contains(found), f"{name} has {requirement.name} {found}, not {text}: make lock"
