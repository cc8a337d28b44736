"""A job with 100,000 records, one of which kills it: ``poison_job.py KIND JOURNAL FIXED``. What it has processed stands in its journal, which it goes by."""

import ctypes
import os
import sys

from supervisor import job

RECORDS, POISON = 100_000, 61_803


def die(kind):
    if kind == "exception":
        raise KeyError("no such country")
    if kind == "crash":
        ctypes.string_at(0)
    if kind == "memory":
        hoard = []
        while True:
            hoard.append(bytearray(4 << 20))
    while True:
        pass


def main():
    kind, path, fixed = sys.argv[1:]
    begin = (job.resume() or {"next": 0})["next"]
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with open(path) as file:
        done = {int(line) for line in file}
    left = (number for number in range(begin, RECORDS) if number not in done)
    for number in job.records(left, key=lambda number: f"user-{number}", total=RECORDS):
        if number == POISON and not os.path.exists(fixed):
            die(kind)
        os.write(journal, b"%d\n" % number)
        if number % 5_000 == 4_999:
            job.checkpoint({"next": number + 1})


main()
