"""Halts one thread of another process and lets the others run: what a system call that never returns does to it."""

import ctypes
import os
import sys
import time

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 17, 0x4206, 0x4207, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    thread, length_s = int(sys.argv[1]), float(sys.argv[2])
    ptrace(PTRACE_SEIZE, thread)
    ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WALL)
    print("halted", flush=True)
    end = time.monotonic() + length_s
    while time.monotonic() < end:
        if os.waitpid(thread, WALL | os.WNOHANG)[0]:
            sys.exit(0)  # it was killed
        time.sleep(0.05)
    ptrace(PTRACE_DETACH, thread)
