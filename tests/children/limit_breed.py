"""A fork bomb with an end: so many processes, each in a session of its own and orphaned at once if "away" is said, each asleep for a minute."""

import os
import sys
import time

count, away = int(sys.argv[1]), "away" in sys.argv[2:]
for _ in range(count):
    if os.fork():
        continue
    if away:
        os.setsid()
        if os.fork():
            os._exit(0)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
