"""The keeper's end of the brain: starts it, talks to it, notices when it is dead or silent, paces its restarts."""

import os
import signal
import socket
import time
from typing import Final

from supervisor import proctree, wire
from supervisor.keeper import launch

PATIENCE_S: Final = 10.0  # a ping that is not answered for so long: the brain hangs and is replaced
QUICK_S: Final = 5.0  # a brain that lived shorter than this died early
LONGEST_DELAY_S: Final = 10.0
_OURS: Final = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")  # between systemd and the keeper; no job may ever see them
UNSENT_MAX: Final = 64 * 2**20  # a brain that reads nothing is replaced before our memory grows; the exit records are on disk

# How glibc's malloc is to go about in a brain with a thousand jobs: one arena for all its threads, of which Python lets one run at a time, and large
# blocks given back to the system: 2.5 MiB less (mallopt(3)). No job inherits them.
_THRIFT: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


class Brain:
    """At most one brain at a time."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self._sock: socket.socket | None = None
        self._decoder = wire.Decoder()
        self._unsent = bytearray()
        self._asked_at: float | None = None
        self._started_at = 0.0
        self._quick_deaths = 0
        self.pid = -1
        self.was_ready = False  # one of them, ever
        self.is_ready = False
        self.restarts = -1

    def start(self) -> socket.socket:
        """Start the next brain; our end of its socket. ``OSError``."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        theirs.set_inheritable(True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        environment["MAINSTAY_BRAIN_FD"] = str(theirs.fileno())
        thrift = {name: value for name, value in _THRIFT.items() if name not in environment}
        environment |= thrift
        environment["MAINSTAY_BRAIN_ONLY"] = " ".join(thrift)
        plan = launch.Plan(argv=self._argv, environment=environment, directory=os.getcwd())
        try:
            child = launch.fork_child(plan)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        os.close(child.errors)
        self.pid = child.pid
        self._sock = ours
        self._decoder = wire.Decoder()
        self._unsent.clear()
        self.is_ready = False
        self._asked_at = None
        self._started_at = time.monotonic()
        self.restarts += 1
        return ours

    def fileno(self) -> int:
        return self._sock.fileno() if self._sock is not None else -1

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def send(self, message: wire.Message) -> None:
        """Queue and send as far as the socket takes it. Dropped when no brain is there: the next one hears all from HELLO."""
        if self._sock is None:
            return
        if message["op"] == wire.PING and self._asked_at is None:
            self._asked_at = time.monotonic()
        self._unsent += wire.encode(message)
        self.flush()
        if len(self._unsent) > UNSENT_MAX:
            self.kill()

    def flush(self) -> None:
        """Send what waits."""
        if self._sock is None:
            return
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()  # it is dying; its exit will be seen

    def receive(self) -> tuple[list[wire.Message], bool]:
        """What it said, and whether it can still say more. ``WireError`` for nonsense."""
        messages: list[wire.Message] = []
        if self._sock is None:
            return messages, False
        for _ in range(64):
            try:
                data = self._sock.recv(1 << 18)
            except BlockingIOError:
                return messages, True
            except OSError:
                return messages, False
            if not data:
                return messages, False
            messages += self._decoder.feed(data)
        return messages, True

    def hang_up(self) -> None:
        """The socket is at its end; the process may take a moment longer."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self._asked_at = self._asked_at or time.monotonic()  # it will not answer any more: it may hang on its way out

    def ended(self) -> None:
        """The process was reaped."""
        self.hang_up()
        self._asked_at = None
        self.is_ready = False
        self.pid = -1
        lived = time.monotonic() - self._started_at
        self._quick_deaths = self._quick_deaths + 1 if lived < QUICK_S else 0

    def delay_s(self) -> float:
        """Seconds until the next start: none after a long life, doubling for early deaths."""
        return 0.0 if self._quick_deaths <= 1 else min(LONGEST_DELAY_S, 0.1 * 2.0 ** (self._quick_deaths - 2))

    def answered(self) -> None:
        self._asked_at = None

    def is_silent(self) -> bool:
        """True when a ping has waited for its answer longer than PATIENCE_S."""
        return self._asked_at is not None and time.monotonic() - self._asked_at > PATIENCE_S

    def kill(self) -> None:
        if self.pid > 0:
            proctree.signal_process(self.pid, signal.SIGKILL)
