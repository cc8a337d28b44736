"""Texts that are nearly metrics: what the fuzz of the jobs' own metrics writes."""

import random

SEEDS = [
    '# HELP rows_total Rows.\n# TYPE rows_total counter\nrows_total{kind="a"} 3\nrows_total{kind="b"} 4\n',
    '# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\nh_created 5\n',
    '# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 2\ns_count 3\n# TYPE s_total gauge\ns_total 1\n',
    '# HELP g \\\\ and \\n.\n# TYPE g gauge\ng{a="\\"",b="\\\\",c="\\n",d="é\u2028"} NaN\ng +Inf\ng{a="x"} -1e-300\n',
    "# TYPE rows counter\nrows_total 5\n# TYPE h_sum gauge\nh_sum 1\nrows 2\n",
    'up{job="x",instance="y",job_name="z"} 1\nmainstay_jobs 5\nbare 1',
    '# HELP process_cpu_seconds_total Ours.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1\nexported_job{exported_job="a",job="b"} 1\n',
    "".join(f'# TYPE wide_{n} gauge\nwide_{n}{{a="{"x" * 40}",b="{n}"}} {n}\n' for n in range(30)),
    "# MAINSTAY TOTALS\n# TYPE rows_total counter\nrows_total 7 1700000000000\n",
]
TOKENS = [
    "\n",
    " ",
    "{",
    "}",
    '"',
    "\\",
    ",",
    "=",
    "#",
    "# TYPE ",
    "# HELP ",
    "h",
    "_sum",
    "_count",
    "_bucket",
    "_total",
    "le",
    "counter",
    "gauge",
]
TOKENS += [
    "NaN",
    "+Inf",
    "1e999",
    "-1",
    "1",
    "\t",
    "\r",
    "\0",
    "é",
    "\u2028",
    "\x0b",
    "\x1c",
    'le="0.1"',
    'quantile="2"',
    "histogram",
    "s",
    "rows",
    "g",
]


def mutant(rng: random.Random) -> str:
    """A text like one of the seeds, or nearly: tokens put in, put over others, taken out; lines in another order."""
    text = rng.choice(SEEDS) + (rng.choice(SEEDS) if rng.random() < 0.5 else "")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, to = rng.randint(0, len(text)), rng.randint(0, 8)
        match rng.randint(0, 3):
            case 0:
                text = text[:at] + rng.choice(TOKENS) + text[at:]
            case 1:
                text = text[:at] + rng.choice(TOKENS) + text[at + to :]
            case 2:
                text = text[:at] + text[at + to :]
            case _:
                lines = text.split("\n")
                rng.shuffle(lines)
                text = "\n".join(lines)
    return text
