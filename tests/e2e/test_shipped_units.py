"""The shipped units, read by systemd's own tools. They run for real in test_systemd.py."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).resolve().parents[2] / "systemd"
PLAIN, TEMPLATE = "mainstay.service", "mainstay@.service"
WORST_EXPOSURE = 3.0

analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze (Debian package systemd)")


def systemd_analyze(*words: str, where: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_PAGER": "", "LC_ALL": "C"}
    return subprocess.run(["systemd-analyze", *words], cwd=where, env=environment, capture_output=True, text=True, timeout=60, check=False)


def settings(name: str) -> list[tuple[str, str]]:
    lines = (UNITS / name).read_text(encoding="utf-8").splitlines()
    return [(key, value) for key, separator, value in (line.partition("=") for line in lines if not line.startswith("#")) if separator]


@analyze
@pytest.mark.parametrize("name", [PLAIN, TEMPLATE])
def test_systemd_finds_nothing_wrong_with_the_unit(name: str, tmp_path: Path) -> None:
    # Only the place of the program is changed: it is not installed there on the machine of the test.
    text = (UNITS / name).read_text(encoding="utf-8").replace("/opt/mainstay/.venv/bin/mainstay", "/bin/true")
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = systemd_analyze("verify", "--man=no", f"./{name}", where=tmp_path)
    ours = [line for line in done.stderr.splitlines() if "mainstay" in line]
    assert (done.returncode, ours) == (0, [])


@analyze
@pytest.mark.parametrize("name", [PLAIN, TEMPLATE])
def test_the_unit_is_hardened(name: str) -> None:
    done = systemd_analyze("security", "--offline=true", "--no-pager", f"./{name}", where=UNITS)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= WORST_EXPOSURE


def test_the_template_is_the_plain_unit_with_names_of_its_own() -> None:
    differing = {
        "Description": ("Mainstay, supervisor of this host's jobs", "Mainstay, supervisor of this host's %i jobs"),
        "ExecStart": tuple(f"/opt/mainstay/.venv/bin/mainstay -c /etc/mainstay/{name}.yaml run" for name in ("config", "%i")),
        "StateDirectory": ("mainstay", "mainstay/%i"),
        "RuntimeDirectory": ("mainstay", "mainstay-%i"),
    }
    pairs = list(zip(settings(PLAIN), settings(TEMPLATE), strict=True))
    assert {plain[0]: (plain[1], other[1]) for plain, other in pairs if plain != other} == differing


def test_what_the_daemon_relies_on_is_granted() -> None:
    found = dict(settings(PLAIN))
    assert found["Type"] == "notify"
    assert found["NotifyAccess"] == "main"  # a job that finds the socket cannot speak for us
    assert found["Delegate"] == "yes"
    assert found["OOMPolicy"] == "continue"  # the default would end the unit when one job is killed for memory
    assert found["KillMode"] == "mixed"
    assert found["ProtectControlGroups"] == "no"
    assert "ProcSubset" not in found
    assert {"CAP_SYS_PTRACE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE"} <= set(
        found["CapabilityBoundingSet"].split()
    )
