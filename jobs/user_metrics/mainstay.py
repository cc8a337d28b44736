"""The supervisor's job protocol where it can be imported, silence where it cannot: the job runs the same without Mainstay."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, cast

T = TypeVar("T")


class Protocol_(Protocol):  # noqa: N801 - typing owns the plain name
    """The part of ``supervisor.job`` that this job uses."""

    def records(
        self, iterable: Iterable[T], key: Callable[[T], object] | None = None, total: int | None = None, stage: str = ""
    ) -> Iterator[T]: ...
    def progress(self, done: int, total: int | None = None, stage: str = "") -> None: ...
    def heartbeat(self) -> None: ...


class Alone:
    """Nobody watches: records pass through, the rest does nothing."""

    def records(
        self,
        iterable: Iterable[T],
        key: Callable[[T], object] | None = None,  # noqa: ARG002 - the protocol's signature
        total: int | None = None,  # noqa: ARG002
        stage: str = "",  # noqa: ARG002
    ) -> Iterator[T]:
        yield from iterable

    def progress(self, done: int, total: int | None = None, stage: str = "") -> None:
        pass

    def heartbeat(self) -> None:
        pass


def _find() -> Protocol_:
    try:
        from supervisor import job as found
    except ImportError:  # Mainstay is not installed here, or another distribution owns the name
        return Alone()
    return cast("Protocol_", found)


job: Protocol_ = _find()
