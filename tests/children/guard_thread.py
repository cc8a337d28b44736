"""A thread dies of an exception; the main thread ends well."""

import sys
import threading


def work():
    raise LookupError("in a thread")


def leave():
    sys.exit("only the thread ends")


for target in (leave, work):
    thread = threading.Thread(target=target, name="worker")
    thread.start()
    thread.join()
