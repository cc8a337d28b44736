"""Mistakes of ours in the loop: what stands in ``guarded`` costs only itself, is logged with its traceback, and the loop goes on."""

import contextlib
from collections.abc import Iterator

import structlog

from supervisor.errors import WireError

log = structlog.get_logger()


class Mistakes:
    """Counts them over the life of one brain."""

    def __init__(self) -> None:
        self._count = 0

    @contextlib.contextmanager
    def guarded(self, during: str, **facts: object) -> Iterator[None]:
        """Broad, because what a job left behind is looked at here, and the record that we fail on would be met by every next brain."""
        try:
            yield
        except WireError:  # the keeper is gone, and we with it
            raise
        except Exception:
            self._count += 1
            log.exception("step_failed", during=during, failures=self._count, **facts)
