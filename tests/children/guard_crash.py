"""Dies of a fatal signal, or writes a stack on demand."""

import faulthandler
import os
import signal
import sys


def deep(n, kind):
    if n:
        deep(n - 1, kind)
    elif kind == "segv":
        faulthandler._sigsegv()
    elif kind == "abort":
        os.abort()
    elif kind == "xcpu":
        os.kill(os.getpid(), signal.SIGXCPU)
        signal.pause()
    elif kind == "urg":
        os.kill(os.getpid(), signal.SIGURG)


deep(int(sys.argv[2]), sys.argv[1])
