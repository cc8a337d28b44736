"""python -m supervisor.keeper: starts the guardian and the keeper's loop. Made by ``mainstay run``, not by people."""

import argparse
import os
import sys

from supervisor.keeper.guardian import guard
from supervisor.keeper.loop import Keeper


def main() -> int:
    """Split in two: the guardian stays here, the keeper goes on in the child."""
    parser = argparse.ArgumentParser(prog="mainstay-keeper", description="The half of Mainstay that owns the jobs' processes.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--lock-fd", type=int, required=True, help="descriptor that holds the lock of the state directory")
    options = parser.parse_args()
    os.set_inheritable(options.lock_fd, False)
    brain = [sys.executable, "-I", "-m", "supervisor", "-c", options.config, "brain"]
    # Under systemd its unit is the guardian: it ends what we leave behind, and it wants the main process to be its own child (one that is
    # not it kills at once instead of waiting for it to stop).
    if "NOTIFY_SOCKET" in os.environ:
        return Keeper(options.state_dir, brain).run()
    return guard(lambda: Keeper(options.state_dir, brain).run())


if __name__ == "__main__":
    sys.exit(main())
