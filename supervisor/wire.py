"""Messages between keeper and brain: framing, names and version. Standard library only; both halves import it.

A message is a JSON object with a key ``op``, preceded by its length as four bytes, big-endian. The socket is a
``socketpair`` of type SOCK_STREAM, so a message of any size passes and the order is kept. Keys of attempts are
``"RUN.ATTEMPT"``. What each message carries stands beside its name below; a half that does not know an ``op`` logs it and goes on,
so that a newer brain can talk to an older keeper.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any, Final

from supervisor.errors import WireError

VERSION: Final = 1
MAX_MESSAGE: Final = 16 * 2**20  # an argv with its environment is at most 2 MiB on Linux; hello lists every live attempt
_HEAD: Final = struct.Struct(">I")

# brain -> keeper
SPAWN: Final = "spawn"  # key, plan (see keeper.launch.Plan)
SIGNAL: Final = "signal"  # key, signal: asks the process group to stop
ARM: Final = (
    "arm"  # key, plan, after, not_after: start it at once when the attempt *after* has ended by itself, but not with one of those codes
)
DISARM: Final = "disarm"  # after: start nothing by yourself when that attempt has ended
KILL: Final = "kill"  # key, reason: SIGKILL to the whole tree until nothing is left
FORGET: Final = "forget"  # key: the exit record has been taken over
PONG: Final = "pong"  # answer of the brain's loop to PING
READY: Final = "ready"  # status: the brain supervises
RELOADED: Final = "reloaded"  # what RELOAD asked for was done, or refused
STATUS: Final = "status"  # status: one line for `systemctl status`
BYE: Final = "bye"  # code: everything is stopped, the keeper may go

# keeper -> brain
HELLO: Final = "hello"  # version, epoch, boot_id, keeper_pid, cgroup, restarts, stopping, live: [attempt], ended: [exit record], untold: [key], armed: [key], doubtful: {key: key}
STARTED: Final = "started"  # attempt: key, pid, pid_started, started_mono, started_wall, cgroup
ENDED: Final = "ended"  # record: see keeper.records
OUTPUT: Final = "output"  # counts: {key: [bytes, dropped]}
PING: Final = "ping"
SHUTDOWN: Final = "shutdown"  # somebody asked for the end (SIGTERM, SIGINT)
RELOAD: Final = "reload"  # SIGHUP

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    """The message as bytes for the socket. ``WireError`` if it is larger than MAX_MESSAGE."""
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=True).encode()
    if len(body) > MAX_MESSAGE:
        raise WireError(f"a message {message.get('op')!r} of {len(body)} bytes is larger than {MAX_MESSAGE}")
    return _HEAD.pack(len(body)) + body


class Decoder:
    """Bytes in, messages out; keeps what is not yet a whole message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Every message that is complete now. ``WireError`` if the peer does not speak this protocol."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._buffer)
            if length > MAX_MESSAGE:
                raise WireError(f"a message of {length} bytes was announced; at most {MAX_MESSAGE} are allowed")
            if len(self._buffer) < _HEAD.size + length:
                return
            body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            try:
                message = json.loads(body)
            except (ValueError, RecursionError) as err:  # the second: arrays in arrays in arrays
                raise WireError(f"a message is not JSON: {err}") from err
            if not isinstance(message, dict) or not isinstance(message.get("op"), str):
                raise WireError("a message has no op")
            yield message


def attempt_key(run: int, attempt: int) -> str:
    """The name of an attempt on the wire and on disk."""
    return f"{run}.{attempt}"


def split_key(key: str) -> tuple[int, int]:
    """(run, attempt) of a key. ``WireError`` if it is not one."""
    run, dot, attempt = key.partition(".")
    if not (dot and run.isdecimal() and attempt.isdecimal()):
        raise WireError(f"{key!r} is not RUN.ATTEMPT")
    return int(run), int(attempt)
