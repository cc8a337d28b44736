"""Symbols out of ELF files, checked against what the loader knows of ourselves."""

import ctypes
import os
import struct
import sys
from pathlib import Path

import pytest

from supervisor.cpython.elf import Image, read_image
from supervisor.cpython.target import locate
from supervisor.errors import LayoutError


def image_of(path: str, *names: str) -> Image:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_image(fd, names)
    finally:
        os.close(fd)


def test_the_addresses_found_in_our_own_process_are_those_of_the_loader() -> None:
    target = locate(os.getpid())
    for name in ("PyLong_Type", "PyCode_Type", "_PyNone_Type", "PyExc_RecursionError"):
        assert target.symbols[name] == ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, name))
    assert target.version == sys.version_info[:2]
    target.memory.close()


def test_names_that_a_file_does_not_define_are_absent() -> None:
    assert image_of("/bin/sh", "_PyRuntime", "no_such_symbol").symbols == {}


def test_the_libraries_that_a_program_needs_are_listed() -> None:
    assert any(name.startswith("libc.") for name in image_of("/bin/sh").needed)


@pytest.mark.parametrize(
    "content",
    [
        b"",  # empty
        b"#!/bin/sh\necho hello world, this is a script and not a program\n",  # a script
        b"\x7fELF\x01\x01" + bytes(200),  # 32 bits
        b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 3, 62) + bytes(44),  # no headers
        b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 3, 62) + b"\xff" * 44,  # nonsense in them
    ],
)
def test_a_file_that_is_no_elf_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(LayoutError) as caught:
        image_of(str(file), "x")
    assert "\n" not in str(caught.value)
