"""Uses memory, processes or CPU time where a careless count does not look: in an orphan, in the dead that nobody waits for, in a crowd. Ends by itself."""

import os
import signal
import sys
import time

signal.alarm(60)


def grow():
    kept = []
    while True:
        kept.append(bytearray(1 << 20))
        time.sleep(0.01)


def orphan():
    if os.fork():
        os._exit(0)
    grow()


def unwaited():
    for _ in range(100):
        if os.fork() == 0:
            os._exit(0)
        time.sleep(0.005)
    time.sleep(60)


def crowd():
    for _ in range(60):
        if os.fork() == 0:
            break
    time.sleep(60)


def burnt():
    for _ in range(30):
        child = os.fork()
        if child == 0:
            while time.process_time() < 0.3:
                pass
            os._exit(0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    time.sleep(60)


{"orphan": orphan, "unwaited": unwaited, "crowd": crowd, "burnt": burnt}[sys.argv[1]]()
