"""What a courier asks of every kind of receiver, and the answer. How a receiver is reached is each sender's own affair."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from supervisor.core.model import Now
from supervisor.core.records import Notification

Clock = Callable[[], Now]


class Failed(Struct, frozen=True):
    """A delivery in vain. ``detail`` is one line without secrets; ``retry_after_s`` is the receiver's own wish, if it had one."""

    detail: str
    retry_after_s: float | None = None


class Sender(Protocol):
    """One receiver. ``deliver`` blocks, at most for about the receiver's time-out, and raises nothing that it can name.

    ``batch_max`` is how many notifications it takes at once; ``repost_s`` how often it wants to hear again of every incident that is
    still open (None: never); ``pause_s`` how long it wants to be left alone after a delivery.
    """

    @property
    def batch_max(self) -> int: ...

    @property
    def repost_s(self) -> float | None: ...

    @property
    def pause_s(self) -> float: ...

    def deliver(self, batch: Sequence[Notification], openings: Mapping[int, Notification]) -> Failed | None:
        """None when the receiver has all of *batch*. *openings*: incident → the notification that opened it, where it is known."""
        ...

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        """Says again what is still true; *standing* are the opening notifications of the open incidents."""
        ...
