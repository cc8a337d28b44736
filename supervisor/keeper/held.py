"""How a child waits before its exec, to be let go by one byte: as a copy of the keeper, or better as next to nothing.

A copy of the keeper that waits shares its pages, so each page that the keeper then touches has to be copied, and its own exec has ten MiB to let go
of: together some 1.5 ms of a restart. So where it can, the child first executes a program of 127 bytes, which waits and executes the job's. It lies in
memory, is read-only, and runs after everything that has to be in place is: session, group, limits, identity, directory, signals. Where there is none
(another machine, memory that may not be executed), the copy waits itself.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

GATE: Final = 3  # where the program expects them
ERRORS: Final = 4
ARGV0: Final = "mainstay-held"  # what ps shows of it
_ABOVE: Final = 16
_MAX_FD: Final = 2**30  # close_range(2) does not count them one by one

# In words: set close-on-exec on 4 and 3, read one byte from 3; if there was one, execve(argv[1], &argv[2], environ); if that fails, write
# {9, errno} to 4 as `launch` expects it (9: the stage "exec"); exit 127. tests/keeper/test_held.py assembles it and compares.
SOURCE: Final = """
.intel_syntax noprefix
.globl _start
_start:
  mov edi, 4
  mov esi, 2                        # F_SETFD
  mov edx, 1                        # FD_CLOEXEC
  mov eax, 72                       # fcntl
  syscall
  mov edi, 3
  mov eax, 72
  syscall
  mov edi, 3
  lea rsi, [rsp-16]
  xor eax, eax                      # read, 1 byte: edx is 1 still
  syscall
  cmp eax, 1
  jne 1f
  mov rax, [rsp]                    # argc
  mov rdi, [rsp+16]                 # argv[1]
  lea rsi, [rsp+24]                 # &argv[2]
  lea rdx, [rsp+rax*8+16]           # environ
  mov eax, 59                       # execve
  syscall
  neg eax
  mov dword ptr [rsp-16], 9
  mov dword ptr [rsp-12], eax
  mov edi, 4
  lea rsi, [rsp-16]
  mov edx, 8
  mov eax, 1                        # write
  syscall
1:
  mov edi, 127
  mov eax, 231                      # exit_group
  syscall
"""
CODE: Final = bytes.fromhex(
    "bf04000000be02000000ba01000000b8480000000f05bf03000000b8480000000f05bf03000000488d7424f031c00f0583f801753e"
    "488b0424488b7c2410488d742418488d54c410b83b0000000f05f7d8c74424f009000000894424f4bf04000000488d7424f0ba08000000"
    "b8010000000f05bf7f000000b8e70000000f05"
)
_BASE: Final = 0x400000


def _elf(code: bytes) -> bytes:
    """The smallest executable of *code* for x86-64: one header, one segment to read and execute (elf(5))."""
    head = 64 + 56
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _BASE + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, head + len(code), head + len(code), 4096)
    return header + segment + code


def make_program() -> int:
    """A descriptor of the program, -1 where there is none."""
    if os.uname().machine != "x86_64" or struct.calcsize("P") != 8:
        return -1
    try:
        writable = os.memfd_create(ARGV0, os.MFD_CLOEXEC)
        try:
            os.write(writable, _elf(CODE))
            return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)  # what is open for writing cannot be executed
        finally:
            os.close(writable)
    except OSError:
        return -1


def wait(program: int, gate: int, errors: int, to_sync: Iterable[int], argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """In the child: wait until a byte comes from *gate*, or end when it closes. The number that *errors* has now.

    Before that the descriptors *to_sync* are brought to disk, here because it can take long, and "r" is written to *gate* when they are.
    With a *program* this does not return: *argv* is executed by it.
    """
    gate, errors, program = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) if fd >= 0 else -1 for fd in (gate, errors, program))
    with contextlib.suppress(OSError):
        for fd in to_sync:
            os.fsync(fd)
        os.write(gate, b"r")
    path = _find(argv[0], environment)
    if program >= 0 and path is not None:
        os.dup2(gate, GATE)
        os.dup2(errors, ERRORS)
        with contextlib.suppress(OSError):  # memory must not be executed here (vm.memfd_noexec, a security module)
            os.execve(program, [ARGV0, path, *argv], environment)  # noqa: S606 - no shell is the point
    low, high = sorted((gate, errors))
    os.closerange(3, low)  # what the keeper closes is to be closed, whoever waits here
    os.closerange(low + 1, high)
    os.closerange(high + 1, _MAX_FD)
    if not os.read(gate, 1):
        os._exit(127)
    return errors


def _find(name: str, environment: Mapping[str, str]) -> str | None:
    """The file that execvp(3) would take, as far as can be said beforehand."""
    if "/" in name:
        return name
    for folder in os.get_exec_path(environment):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK, effective_ids=True):
            return path
    return None
