"""python -m supervisor."""

import sys

# structlog loads rich where it happens to be installed: 5 MiB and 55 ms that neither the daemon nor a command has any use for.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

from supervisor.cli import main  # noqa: E402 - after the line above, which is its point

sys.exit(main())
