"""python -m supervisor.keeper: starts the guardian and the keeper's loop. Made by ``mainstay run``, not by people."""

import gc
import os
import sys

from supervisor.keeper.guardian import guard
from supervisor.keeper.loop import Keeper


def main() -> int:
    """Split in two: the guardian stays here, the keeper goes on in the child."""
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    os.set_inheritable(int(options["--lock-fd"]), False)  # it holds the lock of the state directory for as long as one of the two lives
    brain = [sys.executable, "-I", "-m", "supervisor", "-c", options["--config"], "brain"]
    # Under systemd its unit is the guardian: it ends what we leave behind, and it wants the main process to be its own child (one that is
    # not it kills at once instead of waiting for it to stop).
    if "NOTIFY_SOCKET" in os.environ:
        return Keeper(options["--state-dir"], brain).run()
    gc.freeze()  # what both have stays shared: a collection in one of them would copy it
    return guard(lambda: Keeper(options["--state-dir"], brain).run())


if __name__ == "__main__":
    sys.exit(main())
