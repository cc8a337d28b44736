"""The shipped unit under a real systemd with a real cgroup v2, in a virtual machine that the testbed boots once for all checks.

The checks themselves are in vm/guest.py, which runs inside; each is a test of its own here. The testbed is found in $MAINSTAY_TESTBED or in
../shared/testbed beside the project.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).resolve().parent / "vm" / "guest.py"
GUEST_S = 420  # the watchdog alone takes half a minute
PYTHON_OF_SUITE = {"bookworm": "3.11", "trixie": "3.13"}

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(GUEST_S + 180)]


def checks_of_the_guest() -> list[str]:
    specification = importlib.util.spec_from_file_location("mainstay_vm_guest", GUEST)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return ["installs_offline_with_hashes", *module.CHECKS]


def find_tool() -> Path:
    """The testbed's tool; skips with the reason where it cannot be used."""
    tool = Path(os.environ.get("MAINSTAY_TESTBED") or ROOT.parent / "shared" / "testbed") / "vm"
    if not tool.is_file():
        pytest.skip(f"no virtual machine: no testbed at {tool.parent}; $MAINSTAY_TESTBED names it")
    if os.geteuid() != 0:
        pytest.skip("no virtual machine: building its image needs root")
    if not shutil.which("mmdebstrap"):
        pytest.skip("no virtual machine: no mmdebstrap; `make deps` as root installs it")
    return tool


def fetch_wheels(directory: Path) -> None:
    """What requirements.lock names, for the guest's Python; the guest has no network."""
    python = PYTHON_OF_SUITE[os.environ.get("VM_SUITE", "bookworm")]
    names = ["manylinux1", "manylinux2010", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(5, 37))]
    platforms = [word for name in names for word in ("--platform", f"{name}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", "-r", str(ROOT / "requirements.lock"), "--no-deps"]
    where = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms, "--dest", str(directory)]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Check → its line, from one boot of the guest. The key "" holds all that it printed."""
    tool = find_tool()
    wheels, empty = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("data")
    fetch_wheels(wheels)
    source = ROOT / "data" / "source"
    data = empty if not source.exists() else source.resolve() if source.is_dir() else source.resolve().parent
    shares = [word for pair in (f"{ROOT}:/project", f"{wheels}:/wheels", f"{data}:/data") for word in ("--share", pair)]
    command = [str(tool), "run", "--timeout", str(GUEST_S), *shares, str(GUEST)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUEST_S + 120, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    return {
        "": {"detail": f"status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"},
        **{line["check"]: line for line in lines},
    }


@pytest.mark.parametrize("name", checks_of_the_guest())
def test_under_systemd(results: dict[str, dict[str, Any]], name: str) -> None:
    found = results.get(name)
    if not found:
        pytest.fail(f"the guest did not come to this check: {results['']['detail']}", pytrace=False)
    if found["ok"] is None:
        pytest.skip(found["detail"])
    print(found["detail"])  # shown by `pytest -rP`
    if not found["ok"]:
        pytest.fail(found["detail"], pytrace=False)
