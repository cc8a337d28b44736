"""Starts itself for ever as a module."""

import subprocess
import sys

if __name__ == "__main__":
    sys.exit(subprocess.run([sys.executable, "-m", "guard_relaunch_as_module"], check=False).returncode)
