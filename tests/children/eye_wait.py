"""Waits in one of several ways. argv: sleep, lock, pipe, child, socket, busy, deadlock, exec PROGRAM ARGUMENT..."""

import os
import signal
import sys

signal.alarm(60)
kind = sys.argv[1]


def wait():
    if kind == "sleep":
        import time

        time.sleep(60)
    elif kind in ("lock", "deadlock"):
        import _thread

        lock = _thread.allocate_lock()
        lock.acquire()
        if kind == "deadlock":
            _thread.start_new_thread(lock.acquire, ())
        lock.acquire()
    elif kind == "pipe":
        os.read(0, 1)
    elif kind == "child":
        if os.fork() == 0:
            os.read(0, 1)
            os._exit(0)
        os.wait()
    elif kind == "socket":
        import _socket

        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener._accept()
    elif kind == "exec":
        os.read(0, 1)
        os.execv(sys.argv[2], sys.argv[2:])
    else:
        while True:
            pass


print("ready", flush=True)
wait()
