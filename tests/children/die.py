"""Dies of the kind named by its first argument; the bench of deaths judges it. Runs in CPython 3.11 and later with the standard library only."""

import ctypes
import itertools
import json
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

KEEP = []


def clean():
    print("done")


def exception():
    raise ValueError("no such user")


def chained():
    try:
        {}["user"]
    except KeyError as error:
        raise RuntimeError("the report is not there") from error


def thread_exception():
    thread = threading.Thread(target=exception)
    thread.start()
    thread.join()


# ---------------------------------------------------------------- recursion


def visit(user):
    return follow(user + 1)


def follow(user):
    return visit(user)


def recursion():
    visit(0)


def recursion_raised():
    sys.setrecursionlimit(10**9)
    visit(0)


def recursion_raised_past_the_guard():
    ctypes.pythonapi.Py_SetRecursionLimit(10**9)
    visit(0)


def alpha(user):
    return beta(user)


def beta(user):
    return gamma(user)


def gamma(user):
    return alpha(user)


def recursion_of_three():
    alpha(object())


class Node:
    def __init__(self):
        self.next = self

    def __repr__(self):
        return f"<{self.next!r}>"

    def __getattr__(self, name):
        return getattr(self, name + "x")


def recursion_repr():
    repr(Node())


def recursion_getattr():
    sys.setrecursionlimit(10**6)
    Node().missing


def by_key(user):
    return sorted([user], key=by_key)


def recursion_sorted():
    sys.setrecursionlimit(10**6)
    by_key(1)


def encode(thing):
    return json.dumps(thing, default=encode)


def recursion_json():
    encode(object())


class Growing:
    def __reduce__(self):
        return Growing, (Growing(),)


def recursion_pickle():
    pickle.dumps(Growing())


def walk(user):
    yield user
    yield from walk(user + 1)


def recursion_generator():
    for _ in walk(0):
        pass


def recursion_swallowed():
    while True:
        try:
            visit(0)
        except Exception:
            continue


def twice(user):
    try:
        twice(user + 1)
    except Exception:
        pass
    try:
        twice(user + 1)
    except Exception:
        pass


def recursion_doubled():
    twice(0)


def default(user, seen=None):
    default(user + 1)


def recursion_default_argument():
    default(0)


def gather(users):
    return gather(users + b"x")


def recursion_growing_argument():
    sys.setrecursionlimit(10**9)
    gather(b"")


def recursion_in_a_thread():
    thread = threading.Thread(target=visit, args=(0,))
    thread.start()
    thread.join()
    sys.exit(3)


# ---------------------------------------------------------------- memory


def memory_list():
    while True:
        KEEP.append([None] * 1000)


def memory_bytes():
    while True:
        KEEP.append(bytearray(2**18))


class User:
    def __init__(self, number):
        self.name = f"user {number}"
        self.orders = {}


def memory_objects():
    for number in itertools.count():
        KEEP.append(User(number))
        if number % 5000 == 0:
            time.sleep(0.005)  # so slow that somebody who looks has time to, also on a busy machine


def memory_dict():
    users = {}
    KEEP.append(users)
    for number in itertools.count():
        users[number] = (str(number), number)
        if number % 5000 == 0:
            time.sleep(0.005)  # so slow that somebody who looks has time to, also on a busy machine


def memory_linked():
    chain = None
    for number in itertools.count():
        chain = (chain, object())
        if number % 5000 == 0:
            time.sleep(0.005)  # so slow that somebody who looks has time to, also on a busy machine


def memory_threads():
    threads = [threading.Thread(target=memory_bytes) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(1)


def memory_at_once():
    KEEP.append(b"x" * (3 << 30))


def memory_swallowed():
    while True:
        try:
            KEEP.append(bytearray(2**20))
        except MemoryError:
            pass


def memory_shared():
    import mmap

    area = mmap.mmap(-1, 3 << 30)
    for place in range(0, 3 << 30, 4096):
        area[place] = 1


def memory_of_a_child():
    subprocess.run([sys.executable, __file__, "memory_bytes"], check=True)


# ---------------------------------------------------------------- time


def cpu_python():
    total = 0
    while True:
        total += 1


def cpu_regex():
    re.match(r"(a+)+$", "a" * 64 + "b")


def cpu_number():
    7 ** (7**11)


def cpu_children():
    children = [subprocess.Popen([sys.executable, __file__, "cpu_python"]) for _ in range(2)]
    for child in children:
        child.wait()


def time_sleep():
    time.sleep(600)


def time_deadlock():
    first, second = threading.Lock(), threading.Lock()
    both = threading.Barrier(2)

    def take(one, other):
        with one:
            both.wait()
            with other:
                pass

    threads = [threading.Thread(target=take, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def time_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def time_queue():
    import queue

    queue.Queue().get()


def time_socket():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    print(server.getsockname()[1], flush=True)
    client.recv(1)


def time_child():
    subprocess.run(["sleep", "600"], check=True)


def time_pipe():
    read, write = os.pipe()
    KEEP.append(write)
    os.read(read, 1)


def time_file_lock():
    import fcntl

    path = sys.argv[2]
    with open(path, "w") as held, open(path, "w") as wanted:
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.flock(wanted, fcntl.LOCK_EX)


def time_events():
    import asyncio

    asyncio.run(asyncio.sleep(600))


def time_slowly():
    while True:
        time.sleep(0.05)
        sum(range(1000))


def stall():
    print("on my way", flush=True)
    time.sleep(600)


def processes():
    for _ in range(60):
        KEEP.append(subprocess.Popen(["sleep", "60"]))
    time.sleep(60)


def output():
    while True:
        print("a line that says nothing")


# ---------------------------------------------------------------- crashes and ends


def null():
    ctypes.string_at(0)


def null_in_a_thread():
    thread = threading.Thread(target=null)
    thread.start()
    thread.join()


def overflow_in_c():
    chain = iter([])
    for _ in range(2_000_000):
        chain = map(int, chain)
    next(chain)


def overflow_in_c_in_a_thread():
    thread = threading.Thread(target=overflow_in_c)
    thread.start()
    thread.join()


def abort():
    os.abort()


def killed_by_itself():
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(60)


def killed_by_another():
    subprocess.run(["/bin/sh", "-c", f"kill -{sys.argv[2]} {os.getpid()}"], check=True)
    time.sleep(60)


def exit_code():
    sys.exit(int(sys.argv[2]))


def exit_message():
    sys.exit("the source is not there")


def hard_exit():
    os._exit(int(sys.argv[2]))


def exec_another():
    os.execv("/bin/sh", ["sh", "-c", "exit 9"])


def file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with open(sys.argv[2], "wb") as file:
        for _ in range(1000):
            file.write(bytes(10_000))


def cpu_rlimit():
    """The kernel's own limit, set by the job itself."""
    resource.setrlimit(resource.RLIMIT_CPU, (1, 3))
    cpu_python()


def worker_killed():
    """A pool whose worker is killed: the pool hangs, or breaks."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
