"""Starts itself for ever: with other arguments each time, from another directory, or by exec."""

import os
import subprocess
import sys

level = int(sys.argv[1])
print(level, flush=True)
if level > 30:
    sys.exit("nobody stopped me")
command = [sys.executable, os.path.abspath(__file__), str(level + 1), *sys.argv[2:]]
if "exec" in sys.argv[2:]:
    if level == 24:
        sys.exit(0)
    os.execv(sys.executable, command)
if "twins" in sys.argv[2:]:
    if level:
        sys.exit(0)
    sys.exit(max(subprocess.run(command, check=False).returncode for _ in range(24)))
sys.exit(subprocess.run(command, cwd="/", check=False).returncode)
