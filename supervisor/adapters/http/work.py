"""Worker threads for what the backend is asked: scrapes, questions and changes have their own, for a change may block for minutes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

READ_DEADLINE_S: Final = 15.0  # for the backend to answer a question


class Workers:
    """Functions of the backend, awaited."""

    def __init__(self) -> None:
        self._scrapers = ThreadPoolExecutor(2, "http-scrape")
        self._readers = ThreadPoolExecutor(4, "http-read")
        self._askers = ThreadPoolExecutor(8, "http-ask")

    def close(self) -> None:
        """Lets the worker threads go; what they are in is not waited for."""
        for pool in (self._scrapers, self._readers, self._askers):
            pool.shutdown(wait=False, cancel_futures=True)

    async def scrape(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For metrics and health. ``TimeoutError`` if it takes too long."""
        return await asyncio.wait_for(_on(self._scrapers, function, *args, **kwargs), READ_DEADLINE_S)

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For questions. ``TimeoutError`` if it takes too long."""
        return await asyncio.wait_for(_on(self._readers, function, *args, **kwargs), READ_DEADLINE_S)

    async def ask(self, timeout_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For changes; the backend gives up by itself after *timeout_s*, and says it better than we do a moment later."""
        return await asyncio.wait_for(_on(self._askers, function, *args, **kwargs), timeout_s + 5)


async def _on(pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: function(*args, **kwargs))
