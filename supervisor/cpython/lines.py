"""Byte offset in a code object → line, by the location table of PEP 626 as 3.11 and later write it (Objects/locations.md in CPython)."""

# Codes 0 to 9 (same line, one more byte with columns) need nothing here.
_ONE_LINE = range(10, 13)  # codes 10 to 12: 0 to 2 lines further, two more bytes with columns
_NO_COLUMNS = 13
_LONG = 14
_NO_LINE = 15


def line_at(table: bytes, first_line: int, offset: int) -> int:
    """The line of the instruction at *offset* bytes; *first_line* for one before the first, the last known for one without a line."""
    line = known = first_line
    at = address = 0
    if offset < 0:
        return first_line
    while at < len(table):
        head = table[at]
        code = head >> 3 & 15
        at += 1
        if code in _ONE_LINE:
            line += code - _ONE_LINE.start
        elif code in (_NO_COLUMNS, _LONG):
            line += _signed(table, at)
        if code != _NO_LINE:
            known = line
        address += ((head & 7) + 1) * 2
        if offset < address:
            return known
        while at < len(table) and not table[at] & 0x80:
            at += 1  # the rest of this entry: only the first byte of an entry has its high bit set
    return known


def _signed(table: bytes, at: int) -> int:
    """A signed variable-length number: six bits a byte, low bits first, bit 6 for "more", the sign in the lowest bit."""
    value = shift = 0
    while at < len(table):
        byte = table[at]
        value |= (byte & 0x3F) << shift
        shift += 6
        at += 1
        if not byte & 0x40:
            break
    return -(value >> 1) if value & 1 else value >> 1
