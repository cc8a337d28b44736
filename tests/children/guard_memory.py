"""Runs into RLIMIT_DATA in the way named by its argument, in the main thread or in another."""

import resource
import sys
import threading

resource.setrlimit(resource.RLIMIT_DATA, (150 << 20, 150 << 20))


def hoard(kind):
    kept = []
    while True:
        if kind == "dict":
            kept.append({"number": len(kept), "name": str(len(kept))})
        else:
            kept.append("x" * 100_000 + str(len(kept)))


if sys.argv[1] == "thread":
    thread = threading.Thread(target=hoard, args=("list",))
    thread.start()
    thread.join()
else:
    hoard(sys.argv[1])
