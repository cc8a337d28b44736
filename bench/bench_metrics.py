"""What the page /metrics costs with 1,000 jobs: size, CPU time and wall time per scrape, and what the loop feels of it.

The daemon runs 1,000 sleeping services; a client scrapes over one kept-alive TCP connection, with and without gzip. CPU time is the whole
brain's during the scrapes less its idle share. The loop's delay is Mainstay's own histogram (how late a due deadline was taken up) for a few
jobs that fire every second, while nobody scrapes and while somebody scrapes without a pause.
"""

import argparse
import gzip
import http.client
import os
import re
import time
from dataclasses import dataclass

from bench_idle import jobs_text
from harness import Mainstay, compile_floor, cpu_s, quantile, run, scratch, table

FIRING = 10
WATCH_S = 15.0
DELAY = re.compile(rb'^mainstay_loop_delay_seconds_(sum|count|bucket\{le="[^"]*"\}) (\S+)$', re.MULTILINE)
DURATION = re.compile(rb"^mainstay_exposition_duration_seconds (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scrapes:
    """What a number of scrapes took."""

    walls_ms: list[float]
    renders_ms: list[float]
    cpu_ms: float
    sent: int
    page: bytes


def scrape(connection: http.client.HTTPConnection, *, packed: bool) -> tuple[float, int, bytes]:
    """(ms, bytes on the wire, page)."""
    begin = time.perf_counter()
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip" if packed else "identity"})
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - begin) * 1e3
    return took, len(body), gzip.decompress(body) if packed else body


def scrapes(
    mainstay: Mainstay, connection: http.client.HTTPConnection, times: int, pause_s: float, *, packed: bool, idle: float
) -> Scrapes:
    walls, renders, sent, page = [], [], 0, b""
    before, begin = cpu_s((mainstay.brain,)), time.monotonic()
    for _ in range(times):
        took, sent, page = scrape(connection, packed=packed)
        walls.append(took)
        found = DURATION.search(page)
        renders.append(float(found[1]) * 1e3 if found else 0.0)
        time.sleep(pause_s)
    used = cpu_s((mainstay.brain,)) - before - idle * (time.monotonic() - begin)
    return Scrapes(walls, renders, used / times * 1e3, sent, page)


def delay(before: bytes, after: bytes) -> tuple[int, float, str]:
    """(deadlines, mean ms, the bound below which 99 % of the delays lie) between two pages."""
    first, last = (dict(DELAY.findall(page)) for page in (before, after))
    moved = {name: float(value) - float(first.get(name, 0)) for name, value in last.items()}
    count = moved.pop(b"count")
    total = moved.pop(b"sum")
    bound = next((name for name, below in moved.items() if below >= 0.99 * count), b'"?"')
    return int(count), total / max(count, 1) * 1e3, bound.split(b'"')[1].decode()


def measure(folder: str, count: int, times: int) -> None:
    binary = compile_floor(folder)
    command = f"[{binary}, sleep]" if binary else "[sleep, 1000000]"
    firing = "".join(f"  firing-{n}: {{command: ['true'], schedule: {{every: 1s}}}}\n" for n in range(FIRING))
    with Mainstay(os.path.join(folder, "m"), jobs_text(command, count) + firing, listen=True) as mainstay:
        connection = http.client.HTTPConnection("127.0.0.1", mainstay.port or 0, timeout=30)
        time.sleep(8)
        before, begin = cpu_s((mainstay.brain,)), time.monotonic()
        quiet_first = scrape(connection, packed=False)[2]
        time.sleep(WATCH_S)
        idle = (cpu_s((mainstay.brain,)) - before) / (time.monotonic() - begin)
        quiet_last = scrape(connection, packed=False)[2]
        found = {name: scrapes(mainstay, connection, times, 0.1, packed=name == "gzip", idle=idle) for name in ("plain", "gzip")}
        busy_first = scrape(connection, packed=False)[2]
        begin = time.monotonic()
        while time.monotonic() - begin < WATCH_S:
            scrape(connection, packed=True)
        busy_last = scrape(connection, packed=False)[2]
        connection.close()
    rows = []
    for name, one in found.items():
        times_ms = (quantile(one.walls_ms, 0.5), quantile(one.walls_ms, 0.99), one.cpu_ms, quantile(one.renders_ms, 0.5))
        rows.append(
            (
                name,
                len(one.walls_ms),
                one.page.count(b"\n"),
                f"{len(one.page) / 1024:.0f}",
                f"{one.sent / 1024:.0f}",
                *(f"{value:.1f}" for value in times_ms),
            )
        )
    table(
        (f"/metrics, {count} jobs", "scrapes", "lines", "page KiB", "sent KiB", "wall p50 ms", "wall p99", "CPU ms", "of it rendering"),
        rows,
    )
    delays = [("nobody scrapes", *delay(quiet_first, quiet_last)), ("scraped without a pause, gzip", *delay(busy_first, busy_last))]
    table(
        ("delay of a due deadline", "deadlines", "mean ms", "99 % below, s"),
        [(name, n, f"{mean:.2f}", bound) for name, n, mean, bound in delays],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--times", type=int, default=50)
    options = parser.parse_args()

    def work() -> None:
        with scratch() as folder:
            measure(folder, options.jobs, options.times)

    run("the metrics page", work, within_s=240)


if __name__ == "__main__":
    main()
