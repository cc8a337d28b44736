"""The main thread waits, another one stands deep; then a second wait says where. argv: levels of the other thread."""

import _thread
import os
import signal
import sys

signal.alarm(60)
done = _thread.allocate_lock()
done.acquire()


def other(n):
    if n:
        other(n - 1)
    else:
        print(_thread.get_native_id(), flush=True)
        os.read(0, 1)  # the other thread waits
        done.release()


_thread.start_new_thread(other, (int(sys.argv[1]),))
done.acquire()  # the main thread waits
