"""What makes a form ours: a token that only our own page has, good for some hours and for the one who loaded it."""

import hmac
import secrets
from typing import Final

HOUR_S: Final = 3600
GOOD_FOR_H: Final = 12


class Tokens:
    """Makes and checks them. Nothing is kept: a new brain makes new ones, and a page loaded before it says so."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def make(self, who: str | None, now_s: float) -> str:
        """A token for *who*; *now_s* on any clock that only goes on."""
        hour = int(now_s // HOUR_S)
        return f"{hour}.{self._mac(who, hour)}"

    def good(self, token: str, who: str | None, now_s: float) -> bool:
        """Whether we made it for *who*, lately."""
        hour, _, mac = token.partition(".")
        if not (hour.isascii() and hour.isdigit() and len(hour) <= 12 and mac.isascii()):
            return False
        made = int(hour)
        return hmac.compare_digest(mac, self._mac(who, made)) and 0 <= now_s // HOUR_S - made <= GOOD_FOR_H

    def _mac(self, who: str | None, hour: int) -> str:
        return hmac.digest(self._key, f"{hour}\0{who or ''}".encode("utf-8", "surrogatepass"), "sha256").hex()
