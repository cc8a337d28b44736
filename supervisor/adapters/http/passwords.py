"""Basic auth: bcrypt in a thread, one at a time, remembered by digest; an unknown user costs as much time as a wrong password."""

import asyncio
import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

MOST_REMEMBERED: Final = 100
MOST_WAITING: Final = 8  # guesses; those who are remembered do not wait behind them
DUMMY_HASH: Final = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"  # as in exporter-toolkit: nobody's password
MOST_PASSWORD_BYTES: Final = 72  # more of it bcrypt never sees


class CrowdedError(Exception):
    """Too many passwords are being tried."""


class Passwords:
    """Checks passwords against hashes. Lives on one event loop."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, bool] = {}
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def right(self, users: Mapping[str, str], header: str) -> str | None:
        """The user that an Authorization header proves to be; None if it proves nothing. ``CrowdedError``."""
        given = _given(header)
        if given is None:
            return None
        user, password = given
        hashed = users.get(user, DUMMY_HASH)
        digest = self._digest(user, hashed, password)
        good = self._known.get(digest)
        if good is None:
            if self._waiting >= MOST_WAITING:
                raise CrowdedError
            self._waiting += 1
            try:
                async with self._lock:
                    good = await asyncio.get_running_loop().run_in_executor(None, _matches, password, hashed)
            finally:
                self._waiting -= 1
            while len(self._known) >= MOST_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[digest] = good
        return user if good and user in users else None

    def _digest(self, user: str, hashed: str, password: bytes) -> bytes:
        """What is remembered of a password: nothing that it can be found from."""
        parts = (user.encode("utf-8", "surrogatepass").hex(), hashed, password.hex())
        return hmac.digest(self._key, ":".join(parts).encode(), "sha256")


def _given(header: str) -> tuple[str, bytes] | None:
    """(user, password) out of a header, RFC 7617."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        return (user.decode("utf-8"), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt  # an extra: it is there, or the web config would have been refused

    long = len(password) > MOST_PASSWORD_BYTES or b"\0" in password
    good = bcrypt.checkpw(b"" if long else password, hashed.encode("ascii"))
    return good and not long
