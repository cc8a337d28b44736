"""What the job protocol costs a Python job per record: the same loop with and without, side by side, by the CPU time of the process.

Each form goes through RECORDS records in a process of its own, with a page and files as a job under Mainstay has them; forms take turns, ROUNDS times, so
that all see the same machine. A figure is the form's lower quartile less the plain loop's, per record or per call. Interpreters: this one, and python3.12
and 3.13 where PATH or pyenv has them.
"""

import json
import os
import subprocess
import sys

from bench_guard import interpreters
from harness import ROOT, UnmeasuredError, goal, quantile, run, scratch, table

sys.path.insert(0, str(ROOT))
from supervisor.page import create_page

RECORDS, CALLS, ROUNDS = 100_000, 100, 5
GOAL_NS = 1_000.0
PLAIN = "plain loop"
FORMS = {
    PLAIN: (RECORDS, "for item in items: pass"),
    "records(), named by position": (RECORDS, "for item in job.records(items): pass"),
    "records(key=...), short keys": (RECORDS, "for item in job.records(items, key=str): pass"),
    "records(key=...), one set aside": (RECORDS, "for item in job.records(items, key=str): pass"),
    "records(key=...), keys not ASCII": (RECORDS, "for item in job.records(items, key=named): pass"),
    "records(), without Mainstay": (RECORDS, "for item in job.records(items, key=str): pass"),
    "progress()": (RECORDS, "for item in items: job.progress(item)"),
    "heartbeat()": (RECORDS, "for item in items: job.heartbeat()"),
    "counter.inc()": (RECORDS, "for item in items: count.inc()"),
    "checkpoint() (JSON, fsync, rename)": (CALLS, "for item in range(CALLS): job.checkpoint({'last': item})"),
}
SCRIPT = """
import sys, time
sys.path.insert(0, {root!r})
from supervisor import job
CALLS = {calls}
items = range({records})
named = lambda item: "Jürgen-" + str(item)
count = job.counter("things_total", "Things.")
def work():
    {form}
begin = time.process_time_ns()
work()
print(time.process_time_ns() - begin)
"""


def measure(python: str, folder: str) -> dict[str, list[float]]:
    """Form → nanoseconds per record (or call), one figure per round."""
    found: dict[str, list[float]] = {form: [] for form in FORMS}
    for number in range(ROUNDS):
        for form, (records, code) in FORMS.items():
            page = os.path.join(folder, f"page-{number}-{abs(hash((python, form)))}")
            create_page(page)
            environment = {"PATH": os.environ["PATH"], "MAINSTAY_PAGE": page}
            environment |= {f"MAINSTAY_{name.upper()}": os.path.join(folder, name) for name in ("checkpoint", "metrics")}
            if "set aside" in form:
                environment["MAINSTAY_QUARANTINE"] = os.path.join(folder, "quarantine")
            if "without" in form:
                environment = {"PATH": os.environ["PATH"]}
            script = SCRIPT.format(root=str(ROOT), calls=CALLS, records=RECORDS, form=code)
            done = subprocess.run([python, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60)
            os.unlink(page)
            if done.returncode:
                raise UnmeasuredError(f"{python}: {done.stderr.strip().splitlines()[-1:]}")
            found[form].append(int(done.stdout) / records)
    return found


def main() -> None:
    with scratch() as folder:
        with open(os.path.join(folder, "quarantine"), "w", encoding="utf-8") as file:
            json.dump(["-1"], file)
        for version, python in interpreters().items():
            found = measure(python, folder)
            base = quantile(found[PLAIN], 0.25)
            rows: list[tuple[object, ...]] = []
            for form, figures in found.items():
                per = quantile(figures, 0.25) - (0.0 if form == PLAIN or form.startswith("checkpoint") else base)
                judged = goal(per, GOAL_NS) if form.startswith("records") else ""
                rows.append((form, f"{per:,.0f}", f"{min(figures) - (0 if form == PLAIN else base):,.0f}", judged))
            print(f"CPython {version[0]}.{version[1]}, {RECORDS:,} records, {ROUNDS} rounds")
            table(("form", "ns per record, lower quartile", "best", f"goal {GOAL_NS:,.0f} ns"), rows)


if __name__ == "__main__":
    run("What the job protocol costs per record", main, within_s=180)
