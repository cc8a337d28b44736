"""Who sent a signal: lines of the kernel's trace, and the trace itself in a mount namespace of its own where we may have one."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from supervisor.adapters.signaltrace import SignalTrace, parse_line
from supervisor.core.evidence import Sender

LINE = "         python3-28187   [000] d..1.   762.303495: signal_generate: sig=15 errno=0 code=0 comm=sleep pid=28230 grp=1 res=0"
ODD = "  a-b [0] (c)-99   [001] d..1.   762.3: signal_generate: sig=9 errno=0 code=-6 comm=x pid=1 y pid=99 grp=0 res=0"
PROGRAM = """
import json, os, signal, subprocess, sys, time
sys.path.insert(0, {root!r})
from supervisor.adapters.signaltrace import SignalTrace
trace = SignalTrace.open()
assert trace is not None
told = {{}}
child = subprocess.Popen(["sleep", "60"])
killer = subprocess.Popen(["/bin/sh", "-c", f"kill -KILL {{child.pid}}"])
killer.wait()
child.wait()
told["killed"] = trace.sender_of(child.pid, 9).pid == killer.pid
child = subprocess.Popen(["/bin/sh", "-c", "trap 'exit 4' TERM; echo; while :; do sleep 0.02; done"], stdout=subprocess.PIPE)
child.stdout.readline()
child.terminate()
told["asked"] = [child.wait(), trace.sender_of(child.pid).pid == os.getpid(), trace.sender_of(child.pid, 9) is None]
child = subprocess.Popen(["/bin/sh", "-c", "kill -HUP $$"])
child.wait()
told["itself"] = trace.sender_of(child.pid, 1).is_self
trace.forget(child.pid)
told["forgotten"] = trace.sender_of(child.pid, 1) is None
trace.close()
told["left"] = [name for name in os.listdir("/sys/kernel/tracing/instances") if name.endswith(str(os.getpid()))]
print(json.dumps(told))
"""


def test_a_line_names_sender_and_target() -> None:
    assert parse_line(LINE) == (28230, Sender(15, 28187, "python3"))


def test_a_name_that_is_made_to_mislead_does_not() -> None:
    assert parse_line(ODD) == (99, Sender(9, 99, "a-b [0] (c)", is_self=True))


@pytest.mark.parametrize("line", ["", "# tracer: nop", "CPU:0 [LOST 12 EVENTS]", LINE.replace("signal_generate", "signal_deliver")])
def test_other_lines_are_left_out(line: str) -> None:
    assert parse_line(line) is None


def test_where_there_is_no_trace_there_is_none(tmp_path: Path) -> None:
    assert SignalTrace.open(str(tmp_path)) is None
    (tmp_path / "instances").mkdir()
    assert SignalTrace.open(str(tmp_path)) is None
    assert list((tmp_path / "instances").iterdir()) == []


def test_the_kernel_tells_who_killed_asked_or_hung_up() -> None:
    program = textwrap.dedent(PROGRAM).format(root=str(Path(__file__).resolve().parents[2]))
    script = 'mount -t tracefs none /sys/kernel/tracing 2>/dev/null; test -d /sys/kernel/tracing/instances || exit 77; exec "$0" -c "$1"'
    try:
        done = subprocess.run(
            ["unshare", "--mount", "/bin/sh", "-c", script, sys.executable, program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except OSError:
        pytest.skip("no unshare(1)")
    if done.returncode in (1, 77) and not done.stdout and "Traceback" not in done.stderr:
        pytest.skip(f"no tracefs here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"killed": True, "asked": [4, True, True], "itself": True, "forgotten": True, "left": []}
