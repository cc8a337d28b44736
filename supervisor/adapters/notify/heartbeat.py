"""The dead man's switch: while the loop that supervises comes round, somebody elsewhere hears of it at an interval.

The loop only rings; a thread of its own does the asking, so an address that hangs delays nothing. A beat that fails is not repeated before the
next one is due: what counts there is that they come, not that none is missing.
"""

import threading
from collections.abc import Callable

import structlog

from supervisor.adapters.notify.channel import Endpoint, refusal
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.core.model import Wall
from supervisor.core.settings import Heartbeat

log = structlog.get_logger()


class Heart:
    """``beat`` is for the loop: as often as it likes, from one thread. *on_result("sent" | "failed", when)* counts, from another thread."""

    def __init__(self, heartbeat: Heartbeat, clock: Clock, on_result: Callable[[str, Wall], None]) -> None:
        self._every_s = heartbeat.every_s
        self._timeout_s = heartbeat.timeout_s
        self._endpoint = Endpoint.parse(heartbeat.url)
        self._clock = clock
        self._on_result = on_result
        self._due_at = float("-inf")
        self._failing = False
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """The loop came round. Never blocks."""
        now = self._clock().mono
        if now < self._due_at or self._stopping.is_set():
            return
        self._due_at = now + self._every_s
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
            self._thread.start()
        self._bell.set()

    def stop(self) -> None:
        """No more beats; one that is under way may end by itself."""
        self._stopping.set()
        self._bell.set()

    def _run(self) -> None:
        while True:
            self._bell.wait()
            self._bell.clear()
            if self._stopping.is_set():
                return
            try:
                self._send()
            except Exception:  # broad: a bug of ours here must not end the thread, or the alarm elsewhere would be false
                log.exception("heartbeat_failed")

    def _send(self) -> None:
        answer = self._endpoint.get(self._timeout_s, self._clock)
        failed = answer if isinstance(answer, Failed) else None if answer.is_good else refusal(self._endpoint, answer)
        if failed is not None and not self._failing:
            log.warning("heartbeat_failing", error=failed.detail)
        elif failed is None and self._failing:
            log.info("heartbeat_recovered")
        self._failing = failed is not None
        self._on_result("failed" if failed else "sent", self._clock().wall)
