"""The keeper's own few log lines, on stderr: JSON as the brain's, or plain words on a terminal. Standard library only."""

import contextlib
import json
import os
import sys
import time


def say(event: str, **facts: object) -> None:
    """Log *event* (a constant noun_verbed) with its facts. Never raises: the keeper lives on with a full disk or a closed stderr."""
    with contextlib.suppress(OSError, ValueError):
        if os.isatty(2) or os.environ.get("MAINSTAY_LOG_FORMAT") == "console":
            line = f"{time.strftime('%H:%M:%S', time.gmtime())}  keeper: {event.replace('_', ' ')} " + " ".join(
                f"{name}={value}" for name, value in facts.items()
            )
        else:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = json.dumps({"event": event, "level": "warning", "timestamp": stamp, "half": "keeper", **facts}, default=str)
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
