"""Judges of a page: prometheus_client's parser and Prometheus's own (promtool, where it is installed)."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt install prometheus)")


def series(page: bytes) -> dict[str, float]:
    """'name{labels sorted by name}' → value, as prometheus_client reads the page."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found, f"{key} stands twice"
            found[key] = sample.value
    return found


def check_metrics(page: bytes) -> tuple[int, str]:
    """promtool's exit code (0 good, 1 unreadable, 3 lint) and what it said."""
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode()
