"""Prometheus' and Alertmanager's own tools, in every version that is here, and a config to make files for them."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

HOME = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", "/tmp"), ".cache")
NEWER = Path(os.environ.get("MAINSTAY_NEWER") or os.path.join(HOME, "mainstay", "debian-testing")) / "usr" / "bin"
MISSING = "not here (Debian: apt install prometheus prometheus-alertmanager)"
NEWER_MISSING = f"no current Prometheus in {NEWER} (make deps unpacks Debian testing's)"

CONFIG = """
supervisor: {listen: '127.0.0.1:9321'}
jobs:
  nightly: {command: [/bin/true], schedule: {every: 1m}, alerts: {to: [ops]}}
receivers:
  ops: {type: alertmanager, url: 'http://127.0.0.1:9093'}
"""


@dataclass(frozen=True)
class Generation:
    """One Prometheus and its relatives. A path is None where the program is not there."""

    name: str
    prometheus: str | None
    promtool: str | None
    alertmanager: str | None
    amtool: str | None

    def need(self, program: str) -> str:
        """The path of *program*; skips the test where there is none."""
        found = getattr(self, program)
        if found is None:
            pytest.skip(NEWER_MISSING if self.name == "newer" else f"{program}: {MISSING}")
        return str(found)


def _newer(name: str) -> str | None:
    path = NEWER / name
    return str(path) if os.access(path, os.X_OK) else None


INSTALLED = Generation(
    "installed",
    shutil.which("prometheus"),
    shutil.which("promtool"),
    shutil.which("prometheus-alertmanager") or shutil.which("alertmanager"),
    shutil.which("amtool"),
)
CURRENT = Generation("newer", *(_newer(name) for name in ("prometheus", "promtool", "prometheus-alertmanager", "amtool")))
GENERATIONS = (INSTALLED, CURRENT)


def run(*argv: str, cwd: Path | None = None, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, input=text, capture_output=True, text=True, timeout=100, check=False)
