"""What other threads want done or answered in the loop: a queue, and a pipe that wakes the loop for it."""

import os
import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from msgspec import Struct


class Request(Struct, frozen=True):
    """Something that another thread wants done or answered."""

    work: Callable[[], Any]
    answer: "Future[Any]"


class Requests:
    """``ask`` is for other threads, all else for the loop, which watches ``fileno``."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Readable when something is asked for."""
        return self._read

    def ask(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """Run *work* in the loop and wait for what it returns. ``TimeoutError``; what *work* raises."""
        answer: Future[Any] = Future()
        self._queue.put(Request(work, answer))
        os.write(self._write, b"x")
        return answer.result(timeout_s)

    def answer(self) -> None:
        """Everything that was asked for until now."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            return
        while not self._queue.empty():
            request = self._queue.get()
            try:
                request.answer.set_result(request.work())
            except Exception as err:  # noqa: BLE001 - it goes to whoever asked, and into the log there
                request.answer.set_exception(err)

    def close(self) -> None:
        """Gives the pipe back."""
        os.close(self._read)
        os.close(self._write)
