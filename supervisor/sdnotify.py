"""Talks to systemd over ``$NOTIFY_SOCKET`` as in sd_notify(3): READY, STATUS, WATCHDOG, RELOADING, STOPPING.

Standard library only, for the keeper uses it too. Nothing here raises or blocks: a supervisor does not die of a service manager
that does not listen. Without the variable every call does nothing.
"""

import os
import socket
from collections.abc import Mapping

_MAX_STATUS = 500  # characters; systemd shows one line


class Notifier:
    """Reads the environment once; each method says whether the message went out."""

    def __init__(self, environment: Mapping[str, str] | None = None, pid: int | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environment, os.getpid() if pid is None else pid)
        """systemd's limit for the time between two ``watchdog`` calls, None if it sets none; call at half of it."""

    @property
    def active(self) -> bool:
        """True under a service manager that wants to hear."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Supervising has begun (or, after ``reloading``, goes on)."""
        return self._send("READY=1", status)

    def status(self, text: str) -> bool:
        """One line for ``systemctl status``."""
        return self._send("", text)

    def watchdog(self) -> bool:
        """The loop came round."""
        return self._send("WATCHDOG=1")

    def reloading(self, mono_usec: int) -> bool:
        """A reload has begun at CLOCK_MONOTONIC *mono_usec*; ``ready`` ends it."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={int(mono_usec)}")

    def stopping(self, status: str = "") -> bool:
        """The end has begun."""
        return self._send("STOPPING=1", status)

    def _send(self, message: str, status: str = "") -> bool:
        if self._address is None:
            return False
        if status:  # one line: a line break would let a text speak the protocol
            line = "".join(character if character.isprintable() else " " for character in status[:_MAX_STATUS])
            message = f"{message}\nSTATUS={line}" if message else f"STATUS={line}"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode("utf-8", "replace"), self._address)
        except (OSError, ValueError):
            return False  # gone, full or nonsense: the caller may look, nobody has to
        return True


def _address(value: str) -> bytes | None:
    """The socket's address: a path, or an abstract name written with a leading ``@``. Others (vsock) are not spoken."""
    if not value.startswith(("/", "@")):
        return None
    raw = os.fsencode(value)
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """WATCHDOG_USEC in seconds as sd_watchdog_enabled(3) reads it: for this process, a positive whole number."""
    usec, of_pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdigit() and int(usec) > 0):
        return None
    return int(usec) / 1e6 if of_pid in ("", str(pid)) else None
