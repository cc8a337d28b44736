"""Finds symbols in an ELF64 file (executable or shared library), and where a loader puts them; knows nothing of Python.

Formats as in elf(5). Only what is asked for is read, so a library of 30 MB costs a few hundred kB.
"""

import os
import struct
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from supervisor.errors import LayoutError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<QQ")

_MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD = 1
_SHT_SYMTAB, _SHT_DYNAMIC, _SHT_DYNSYM = 2, 6, 11
_DT_NULL, _DT_NEEDED = 0, 1
_SHN_UNDEF = 0

_MAX_SECTION = 256 << 20  # a symbol table beyond this is not one we want to load
_PAGE_MASK = ~0xFFF


class Image(Struct, frozen=True):
    """What we know of a binary: ``symbols`` are link-time addresses; names that the file does not define are absent.

    ``needed`` are the libraries it asks the loader for (DT_NEEDED).
    """

    relocatable: bool
    first_address: int
    symbols: dict[str, int] = field(default_factory=dict)
    needed: tuple[str, ...] = ()

    def bias(self, mapped_at: int) -> int:
        """What to add to a symbol's value to get its address in a process that maps the start of the file at *mapped_at*."""
        return mapped_at - (self.first_address & _PAGE_MASK) if self.relocatable else 0


class _Section(Struct, frozen=True):
    kind: int
    offset: int
    size: int
    link: int


def read_image(fd: int, names: Iterable[str]) -> Image:
    """The image behind descriptor *fd* with the values of those *names* that it defines. ``LayoutError`` if it is not ELF64."""
    try:
        header = _HEADER.unpack(os.pread(fd, _HEADER.size, 0))
        ident, kind = header[0], header[1]
        if not ident.startswith(_MAGIC_64_LITTLE) or kind not in (_ET_EXEC, _ET_DYN):
            raise LayoutError("the executable is not a 64-bit little-endian ELF file")
        sections = _sections(fd, offset=header[6], size=header[11], count=header[12])
        first = _first_load_address(fd, offset=header[5], size=header[9], count=header[10])
        return Image(
            relocatable=kind == _ET_DYN,
            first_address=first,
            symbols=_symbols(fd, sections, list(names)),
            needed=tuple(_needed(fd, sections)),
        )
    except (struct.error, OSError) as err:
        raise LayoutError(f"the executable cannot be read as ELF: {err}") from err


def _sections(fd: int, *, offset: int, size: int, count: int) -> list[_Section]:
    if size != _SECTION.size:
        return []  # no section headers (some packers strip them): then no symbols either
    raw = os.pread(fd, size * count, offset)
    rows = _SECTION.iter_unpack(raw[: len(raw) // size * size])
    return [_Section(kind=row[1], offset=row[4], size=row[5], link=row[6]) for row in rows]


def _first_load_address(fd: int, *, offset: int, size: int, count: int) -> int:
    if size != _PROGRAM.size:
        raise LayoutError("the executable has no program headers")
    raw = os.pread(fd, size * count, offset)
    loads = [row[3] for row in _PROGRAM.iter_unpack(raw[: len(raw) // size * size]) if row[0] == _PT_LOAD]
    if not loads:
        raise LayoutError("the executable has no loadable segment")
    return int(min(loads))


def _content(fd: int, section: _Section) -> bytes:
    if section.size > _MAX_SECTION:
        raise LayoutError(f"a section of the executable is {section.size} bytes long")
    return os.pread(fd, section.size, section.offset)


def _symbols(fd: int, sections: list[_Section], names: list[str]) -> dict[str, int]:
    """Values from the dynamic table; what it lacks from the full one (present unless the file is stripped)."""
    found: dict[str, int] = {}
    for kind in (_SHT_DYNSYM, _SHT_SYMTAB):
        missing = [name for name in names if name not in found]
        for section in sections:
            if missing and section.kind == kind and section.link < len(sections):
                table, strings = _content(fd, section), _content(fd, sections[section.link])
                found.update(_lookup(table, strings, missing))
        if found:
            break  # one table that has any has all that this build exports; .symtab can be huge
    return found


def _lookup(table: bytes, strings: bytes, names: list[str]) -> dict[str, int]:
    found = {}
    for name in names:
        value = _value(table, strings, name.encode() + b"\0")
        if value is not None:
            found[name] = value
    return found


def _value(table: bytes, strings: bytes, name: bytes) -> int | None:
    """Search by bytes instead of unpacking some 10,000 symbols: a linker may store a name as the tail of a longer one."""
    for at in _positions(strings, name):
        for place in _positions(table, struct.pack("<I", at)):
            if place % _SYMBOL.size == 0 and place + _SYMBOL.size <= len(table):
                _, _, _, section, value, _ = _SYMBOL.unpack_from(table, place)
                if section != _SHN_UNDEF:
                    return int(value)
    return None


def _positions(data: bytes, needle: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)


def _needed(fd: int, sections: list[_Section]) -> Iterator[str]:
    for section in sections:
        if section.kind == _SHT_DYNAMIC and section.link < len(sections):
            strings = _content(fd, sections[section.link])
            raw = _content(fd, section)
            for tag, value in _DYNAMIC.iter_unpack(raw[: len(raw) // _DYNAMIC.size * _DYNAMIC.size]):
                if tag == _DT_NULL:
                    break
                if tag == _DT_NEEDED:
                    yield strings[value : strings.find(b"\0", value)].decode(errors="replace")
