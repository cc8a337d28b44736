"""Decodes Python objects by their bytes: names, types, and of values only what kind they are, which one, and how big.

The content of strings and containers is never decoded, so a user's data does not leave the process that holds it. Only exact
built-in types are looked into; anything else is a type name and an address.
"""

import struct

from msgspec import Struct

from supervisor.cpython.layout import Layout
from supervisor.cpython.memory import Memory
from supervisor.errors import LayoutError

_STATE_AT = 32
_SIZED = {"str": 16, "bytes": 16, "bytearray": 16, "list": 16, "tuple": 16, "dict": 16, "set": 24, "frozenset": 24}
_MAX_DIGITS = 5  # of 30 bits: integers beyond 128 bits are reported by type only
_HEAD_BYTES = 48
_EXCEPTION_ARGS = 24  # in a BaseException, behind its head and its dict: the same from 3.11 to 3.14
_MESSAGE_CHARS = 64
_MAX_TYPES = 4096
_ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


class Value(Struct, frozen=True):
    """What is told of a value: its type's name, its address, its number if it is an int or a float, its length if it has one."""

    type: str
    identity: int
    number: int | float | None = None
    length: int | None = None


class Objects:
    """Reads objects of one process. ``kinds`` maps the addresses of the exact built-in types to their names."""

    def __init__(self, memory: Memory, layout: Layout, kinds: dict[int, str]) -> None:
        self._memory = memory
        self._layout = layout
        self._kinds = kinds
        self._names: dict[int, str] = {}

    def text(self, address: int, limit: int = 400) -> str:
        """A str object, cut at *limit* characters. For names and files of code, never for values."""
        layout = self._layout
        raw = self._memory.some(address, layout.str_compact + limit)
        if len(raw) < layout.str_ascii:
            raise LayoutError("a string ends in the middle")
        length, state = struct.unpack_from("<q", raw, 16)[0], struct.unpack_from("<I", raw, _STATE_AT)[0]
        kind, compact, ascii_only = state >> 2 & 7, state >> 5 & 1, state >> 6 & 1
        if not compact or kind not in _ENCODINGS or not 0 <= length < 1 << 31:
            raise LayoutError("a name of the code does not decode as a string")
        shown = min(length, limit)
        start = layout.str_ascii if ascii_only else layout.str_compact
        end = start + shown * kind
        if len(raw) < end:
            raw = self._memory.read(address, end)
        return raw[start:end].decode(_ENCODINGS[kind], errors="replace")

    def message(self, error: int) -> str | None:
        """The beginning of what an exception was given to say, "" if that is no text; None where there is no exception. For telling whose it is, never to be
        shown. 3.11 keeps a text alone until somebody asks for the exception."""
        if not error:
            return None
        if self._kinds.get(self._memory.pointer(error + 8)) == "str":
            return self.text(error, _MESSAGE_CHARS)
        arguments = self._memory.pointer(error + _EXCEPTION_ARGS)
        if not arguments:
            return None
        count, first = struct.unpack("<qQ", self._memory.read(arguments + 16, 16))
        is_text = count > 0 and self._kinds.get(self._memory.pointer(first + 8)) == "str"
        return self.text(first, _MESSAGE_CHARS) if is_text else ""

    def type_name(self, address: int) -> str:
        """The name of the type object at *address*."""
        known = self._kinds.get(address) or self._names.get(address)
        if known is None:
            name = self._memory.pointer(address + self._layout.type_name)
            known = self._memory.some(name, 100).split(b"\0")[0].decode(errors="replace")
            if len(self._names) < _MAX_TYPES:
                self._names[address] = known
        return known

    def value(self, address: int) -> Value | None:
        """The value at *address*, None if it cannot be read (it is being changed at this moment)."""
        try:
            raw = self._memory.some(address, _HEAD_BYTES)
            if len(raw) < 24:
                return None
            kind = self.type_name(struct.unpack_from("<Q", raw, 8)[0])
            if kind == "cell":  # a variable that an inner function shares
                inner = struct.unpack_from("<Q", raw, 16)[0]
                return self._plain(inner) if inner else None
            return self._decode(address, kind, raw)
        except LayoutError:
            return None

    def _plain(self, address: int) -> Value | None:
        raw = self._memory.some(address, _HEAD_BYTES)
        kind = self.type_name(struct.unpack_from("<Q", raw, 8)[0]) if len(raw) >= 24 else "cell"
        return None if kind == "cell" else self._decode(address, kind, raw)

    def _decode(self, address: int, kind: str, raw: bytes) -> Value:
        if kind == "int":
            return Value(kind, address, number=self._integer(raw))
        if kind == "float":
            return Value(kind, address, number=struct.unpack_from("<d", raw, 16)[0])
        at = _SIZED.get(kind)
        if at is not None and len(raw) >= at + 8:
            return Value(kind, address, length=struct.unpack_from("<q", raw, at)[0])
        return Value(kind, address)

    def _integer(self, raw: bytes) -> int | None:
        word = struct.unpack_from("<q", raw, 16)[0]
        if self._layout.version < (3, 12):  # ob_size carries the sign
            digits, negative = abs(word), word < 0
        else:  # lv_tag: number of digits above three bits, of which two are the sign (0 positive, 1 zero, 2 negative)
            digits, negative = (0 if word & 3 == 1 else word >> 3), word & 3 == 2
        if digits > _MAX_DIGITS or len(raw) < 24 + 4 * digits:
            return None
        number = 0
        for digit in reversed(struct.unpack_from(f"<{digits}I", raw, 24)):
            number = number << 30 | digit
        return -number if negative else number
