"""The exported unit."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.export import systemd

ROOT = Path(__file__).resolve().parents[2]


def settings(text):
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_the_template_is_the_shipped_unit():
    assert systemd.template() == (ROOT / "systemd" / "mainstay.service").read_text()


def test_a_config_that_asks_for_nothing_special_changes_only_the_paths(config_of):
    config = config_of()
    ours, shipped = settings(systemd.unit(config, "/opt/mainstay/.venv/bin/mainstay")), settings(systemd.template())
    changed = {name: value for name, value in ours.items() if shipped.get(name) != value}
    assert changed.keys() <= {"ExecStart", "WorkingDirectory", "ProtectHome"}  # the temporary folder may be below /root
    assert changed["ExecStart"] == f"/opt/mainstay/.venv/bin/mainstay -c {config.path} run"


def test_what_the_config_needs_of_systemd_is_granted_and_no_more(config_of, tmp_path):
    (tmp_path / "work of a").mkdir()
    text = f"""
jobs:
  slow: {{command: [/bin/true], stop: {{grace: 5m}}}}
  eager: {{command: [/bin/true], nice: -5, directory: '{tmp_path}/work of a'}}
"""
    unit = settings(systemd.unit(config_of(text), "/home/me/50% $HOME/mainstay"))
    assert unit["TimeoutStopSec"] == "315s"
    assert unit["CapabilityBoundingSet"].endswith(" CAP_SYS_NICE")
    assert unit["ReadWritePaths"] == f'"-{tmp_path}/work of a"'
    assert unit["ProtectHome"] == "read-only"
    assert unit["ExecStart"].startswith('"/home/me/50%% $$HOME/mainstay" -c ')


@pytest.mark.real
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here (Debian: apt install systemd)")
def test_systemd_finds_nothing_to_say(config_of, tmp_path):
    path = tmp_path / "mainstay.service"
    (tmp_path / "work of a").mkdir()
    text = f"jobs: {{a: {{command: [/bin/true], nice: -5, directory: '{tmp_path}/work of a', stop: {{grace: 5m}}}}}}\n"
    path.write_text(systemd.unit(config_of(text), "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, timeout=60, check=False)
    about_it = [line for line in done.stderr.splitlines() if "mainstay" in line and "file:///opt" not in line]
    assert (done.returncode, about_it) == (0, [])
