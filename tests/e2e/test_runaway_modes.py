"""The founding bug in each of its modes, on the data and under the limits of the config that comes with Mainstay."""

import json
import subprocess
from pathlib import Path

import pytest
from harness import PROGRAM, environment, marked

from supervisor.config.load import load
from supervisor.core.jobs import Limits

ROOT = Path(__file__).resolve().parents[2]
ENDS = {
    "runaway": {"recursion"},
    "runaway-memory": {"recursion"},
    "runaway-swallow": {"recursion"},
    "runaway-fork": {"recursion", "processes"},
    "runaway-spin": {"stalled", "cpu"},
}
OPTIONS = {
    "memory": "memory_bytes",
    "recursion": "recursion_frames",
    "time": "time_s",
    "cpu": "cpu_s",
    "stall": "stall_s",
    "processes": "processes",
}
UNITS = {"memory": "", "time": "s", "cpu": "s", "stall": "s"}


def options(limits: Limits) -> list[str]:
    given = {name: getattr(limits, field) for name, field in OPTIONS.items()}
    return [
        word
        for name, value in given.items()
        if value is not None
        for word in (f"--{name}", f"{value:g}{UNITS.get(name, '')}" if name != "memory" else f"{value}B")
    ]


@pytest.mark.skipif(not (ROOT / "data" / "source").exists(), reason="`make data` makes what the jobs of config.yaml read")
@pytest.mark.parametrize("name", ENDS)
def test_each_mode_ends_as_what_it_is(name: str, tmp_path: Path) -> None:
    job = load(str(ROOT / "config.yaml")).jobs[name]
    command = [*PROGRAM, "exec", *options(job.limits), "--report", str(tmp_path / "r.json"), "--", *job.launch.argv]
    done = subprocess.run(command, cwd=ROOT, env=environment(name), capture_output=True, text=True, timeout=110, check=False)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["outcome"] in ENDS[name], done.stderr
    assert done.returncode == 124 or name == "runaway"
    assert report["memory_peak_bytes"] <= 1.05 * (job.limits.memory_bytes or 0)
    assert marked(name) == []
