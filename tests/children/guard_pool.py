"""A pool of processes in each start method, and a helper started within a worker."""

import concurrent.futures
import multiprocessing
import subprocess
import sys


def square(n):
    done = subprocess.run([sys.executable, "-c", f"print({n} ** 2)"], check=True, capture_output=True, text=True)
    return int(done.stdout)


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        print(list(pool.map(square, range(12))))
