"""Which attempts the keeper may begin by itself, and which it has begun: the loop's notes on them (decision 0015). Decides nothing."""

from typing import Any

from supervisor import wire


class Successions:
    """From the leave to begin an attempt until the end of the one before it is judged."""

    def __init__(self) -> None:
        self._armed: dict[str, str] = {}  # attempt → the one that may follow it at once
        self._begun: set[str] = set()  # begun while no brain was there, after an attempt that is not judged yet
        self._lost: set[str] = set()  # those among them that nobody holds any more
        self._early: dict[str, wire.Message] = {}  # their ends, told before the end of the one before them

    def take_over(self, hello: wire.Message) -> None:
        """What the keeper, or the one before it, began by itself."""
        self._begun = {record["next"] for record in hello["ended"] if record.get("next") is not None}
        held = {one["key"] for one in (*hello["live"], *hello["ended"])} | set(hello.get("untold", ()))
        self._lost = self._begun - held

    def arm(self, after: str, key: str) -> None:
        """The keeper may begin *key* at the end of *after*."""
        self._armed[after] = key

    def settle(self, key: str, following: Any) -> str | None:
        """The attempt *key* has ended, and the keeper has begun *following*: what was prepared for nothing, if anything was."""
        armed = self._armed.pop(key, None)
        return armed if armed != following else None

    def has_begun(self, key: str) -> bool:
        """True for an attempt that began while no brain was there, until the one before it is judged."""
        return key in self._begun

    def put_off(self, key: str, message: wire.Message) -> None:
        """Keep what was said of *key* until its time has come."""
        self._early[key] = message

    def take_up(self, key: str) -> wire.Message | None:
        """The attempt before *key* is judged: what was said too early of it."""
        self._begun.discard(key)
        return self._early.pop(key, None)

    def is_lost(self, key: str) -> bool:
        """True for an attempt that was begun and that nobody holds any more."""
        return key in self._lost
