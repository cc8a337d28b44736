"""The jobs' own metrics under attack: mutants by the hundred thousand against the reader and the page, then a daemon whose jobs write nothing else.

First, in this process: every mutant is written as a job writes it, read, merged with those of 49 other jobs; after each hundred the whole page is read by
prometheus_client's parser and by our own (which is stricter: no series twice), now and then by promtool. An exception ends it with the seed.

Then against a real daemon: attackers write a new mutant 50 times a second each, some as large as the caps allow, while a client scrapes /metrics five
times a second. Every page must parse, the log must hold no traceback; p99 of the scrapes is the figure.
"""

import argparse
import http.client
import os
import random
import shutil
import subprocess
import sys
import time
import zlib
from collections import Counter

from harness import ROOT, Mainstay, UnmeasuredError, goal, quantile, run, scratch, table
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests"))
from metricmutants import mutant

from supervisor.adapters.exposition import Caps, parse
from supervisor.adapters.jobmetrics import JobMetrics
from supervisor.adapters.metrics import Metrics

JOBS = 50
PAGE_EVERY = 100
PROMTOOL_EVERY = 5_000
P99_GOAL_MS = 250.0
ATTACKERS = 20

ATTACKER = """
import os, random, sys, time
sys.path.insert(0, sys.argv[1])
from metricmutants import mutant
rng, path = random.Random(sys.argv[2]), os.environ["MAINSTAY_METRICS"]
large = "".join(f'large_{{n}}{{{{a="{{"y" * 500}}"}}}} {{n}}\\n' for n in range(990))
while True:
    text = large + mutant(rng) if rng.random() < 0.2 else mutant(rng)
    with open(path + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.rename(path + ".new", path)
    time.sleep(0.02)
""".replace("{{", "{").replace("}}", "}")


def in_process(folder: str, count: int, seed: int) -> None:
    """*count* mutants against the reader and the page."""
    rng, metrics, ours = random.Random(seed), JobMetrics(), Metrics({})
    path = os.path.join(folder, "a.prom")
    reasons: Counter[str] = Counter()
    reads_ms: list[float] = []
    pages_ms: list[float] = []
    pages = checked = 0
    promtool = shutil.which("promtool")
    began = time.monotonic()
    for number in range(1, count + 1):
        text = mutant(rng)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        begin = time.perf_counter()
        problems = metrics.update(f"job-{number % JOBS}", path, number)
        reads_ms.append((time.perf_counter() - begin) * 1e3)
        reasons.update(problem.reason.value for problem in problems)
        reasons["taken"] += not problems
        if any("\n" in problem.detail for problem in problems):
            raise AssertionError(f"seed {seed}, mutant {number}: a problem of several lines")
        if number % PAGE_EVERY == 0:
            begin = time.perf_counter()
            page = ours.render(metrics.lines())
            pages_ms.append((time.perf_counter() - begin) * 1e3)
            list(text_string_to_metric_families(page.decode()))
            parse(page.decode(), Caps(samples=10**6, text=10**6))
            pages += 1
            if promtool and number % PROMTOOL_EVERY == 0:
                done = subprocess.run([promtool, "check", "metrics"], check=False, input=page, capture_output=True, timeout=60)
                if done.returncode not in (0, 3):  # 3: words about names and help, which are the jobs' affair
                    raise AssertionError(f"seed {seed}, mutant {number}: promtool: {done.stderr.decode()[:500]}")
                checked += 1
    table(
        ("in process", "figure"),
        [
            ("mutants", f"{count:,} (seed {seed}) in {time.monotonic() - began:.0f} s"),
            ("pages read by both parsers", pages),
            ("of them by promtool", checked if promtool else "not here"),
            ("reading one, p50 and p99", f"{quantile(reads_ms, 0.5):.2f} and {quantile(reads_ms, 0.99):.2f} ms"),
            ("rendering, p50 and p99", f"{quantile(pages_ms, 0.5):.2f} and {quantile(pages_ms, 0.99):.2f} ms"),
            *((name, f"{times:,}") for name, times in reasons.most_common()),
        ],
    )


def against_a_daemon(folder: str, seconds: float) -> None:
    """Attackers and a client at once."""
    script = os.path.join(folder, "attacker.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(ATTACKER)
    jobs = "".join(
        f"  attacker-{n}: {{command: ['{sys.executable}', '-I', '{script}', '{ROOT / 'tests'}', '{n}'], guard: false}}\n"
        for n in range(ATTACKERS)
    )
    with Mainstay(os.path.join(folder, "m"), jobs, listen=True) as mainstay:
        connection = http.client.HTTPConnection("127.0.0.1", mainstay.port or 0, timeout=30)
        walls, rejected, pages = [], 0.0, {}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.perf_counter()
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            page = answer.read()
            walls.append((time.perf_counter() - begin) * 1e3)
            if answer.status != 200:
                raise UnmeasuredError(f"/metrics answered {answer.status}")
            pages.setdefault(hash(page), zlib.compress(page, 1))  # a rendering is shared for a second; read when the attack is over
            time.sleep(0.2)
        for packed in pages.values():
            text = zlib.decompress(packed).decode()
            families = list(text_string_to_metric_families(text))
            rejected = sum(s.value for family in families for s in family.samples if s.name == "mainstay_job_metrics_rejected_total")
            parse(text, Caps(samples=10**6, text=10**6))
        with open(os.path.join(folder, "m", "log"), encoding="utf-8", errors="replace") as file:
            log = file.read()
        if "Traceback" in log or "step_failed" in log:
            raise AssertionError("the log holds a traceback")
        p99 = quantile(walls, 0.99)
        table(
            (f"{ATTACKERS} attackers, {seconds:g} s", "figure", "goal"),
            [
                ("scrapes", len(walls), ""),
                ("different pages, each read by both parsers", len(pages), ""),
                ("page", f"{len(page) / 1024:.0f} KiB", ""),
                ("rejections counted", f"{rejected:.0f}", ""),
                ("scrape, p50", f"{quantile(walls, 0.5):.1f} ms", ""),
                ("scrape, p99", f"{p99:.1f} ms", goal(p99, P99_GOAL_MS)),
            ],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the attack on a daemon; 0 leaves it out")
    options = parser.parse_args()
    with scratch() as folder:
        in_process(folder, options.mutants, options.seed)
        if options.seconds:
            against_a_daemon(folder, options.seconds)


if __name__ == "__main__":
    run("the jobs' own metrics under attack", main, within_s=1800)
