"""Writes requirements.lock and requirements-dev.lock: every package pinned, every wheel's hash, no index and no host named.

Owns what ``make lock`` does; leaves resolving to pip. Resolved on the lowest Python we support, so backports that newer ones do not
need are in (they are harmless there), and refused when a newer one would need a package that is not. Standard library and pip only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
RUNTIME_EXTRAS = ("metrics", "auth")
MACHINES = ("x86_64", "aarch64")
PLATFORMS = (
    "manylinux1",
    "manylinux2010",
    "manylinux2014",
    *(f"manylinux_2_{minor}" for minor in (5, 12, 17, 24, 26, 27, 28, 31, 34, 35, 36)),
)
HEADER = """\
# Made by `make lock` from pyproject.toml; do not edit. {what}
# CPython {first} to {last} on Linux ({machines}); install with: pip install --require-hashes -r {name}
"""

Lock = dict[str, tuple[str, set[str]]]  # canonical name → version, sha256 of its wheels


class LockError(Exception):
    """The lock cannot be made; the text says why."""


def pip_report(arguments: Iterable[str], constraints: Iterable[str] = ()) -> list[dict[str, Any]]:
    """What pip would install under *constraints*; nothing is installed. ``LockError`` with pip's own last words."""
    with tempfile.TemporaryDirectory() as folder:
        report, limits = Path(folder, "report.json"), Path(folder, "constraints.txt")
        limits.write_text("".join(line + "\n" for line in constraints), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--quiet", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--report", str(report), "--constraint", str(limits), *arguments], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise LockError(done.stderr.strip() or f"pip ended with {done.returncode}")
        items: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return items


def wanted() -> tuple[list[str], list[str]]:
    """Requirements of the running daemon with the extras of ``RUNTIME_EXTRAS`` and the build backend; and those of the dev group and all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    runtime = [
        *project["project"]["dependencies"],
        *(requirement for extra in RUNTIME_EXTRAS for requirement in extras[extra]),
        *project["build-system"]["requires"],
    ]
    return runtime, [*project["dependency-groups"]["dev"], *(requirement for extra in extras.values() for requirement in extra)]


def resolve(requirements: list[str], constraints: Iterable[str] = ()) -> dict[str, str]:
    """One consistent set for the running Python, canonical name → version; refuses what a newer Python would find incomplete."""
    found = pip_report(requirements, constraints)
    versions: dict[str, str] = {canonicalize_name(item["metadata"]["name"]): str(item["metadata"]["version"]) for item in found}
    for item in found:
        for text in item["metadata"].get("requires_dist", []):
            needed = Requirement(text)
            for python in PYTHONS:
                applies = needed.marker is None or needed.marker.evaluate(
                    {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
                )
                if applies and canonicalize_name(needed.name) not in versions:
                    raise LockError(f"{item['metadata']['name']} needs {text} on Python {python}: name it in pyproject.toml too")
    return versions


def hashes(pins: list[str], python: str, machine: str) -> Iterable[tuple[str, str]]:
    """(canonical name, sha256) of the wheel that pip chooses for each of *pins* on that Python and machine."""
    with tempfile.TemporaryDirectory() as target:
        platforms = [argument for name in PLATFORMS for argument in ("--platform", f"{name}_{machine}")]
        where = ["--no-deps", "--target", target, "--implementation", "cp", "--python-version", python, *platforms]
        for item in pip_report([*where, *pins]):
            yield canonicalize_name(item["metadata"]["name"]), item["download_info"]["archive_info"]["hashes"]["sha256"]


def lock(versions: dict[str, str]) -> Lock:
    """The pins with their hashes for all Pythons and machines."""
    entries: Lock = {name: (version, set()) for name, version in versions.items()}
    pins = [f"{name}=={version}" for name, version in versions.items()]
    for python in PYTHONS:
        for machine in MACHINES:
            for name, digest in hashes(pins, python, machine):
                entries[name][1].add(digest)
    return entries


def text_of(entries: Lock, name: str, what: str) -> str:
    """The file *name*: sorted, one hash a line, so that a change shows as one."""
    head = HEADER.format(what=what, first=PYTHONS[0], last=PYTHONS[-1], machines=", ".join(MACHINES), name=name)
    blocks = [
        " \\\n    ".join([f"{package}=={version}", *(f"--hash=sha256:{digest}" for digest in sorted(digests))])
        for package, (version, digests) in sorted(entries.items())
    ]
    return head + "\n".join(blocks) + "\n"


def main() -> int:
    """Both locks from one resolution, so that they never disagree on a version."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=ROOT, help="where the two files go (default: the project's root)")
    output: Path = parser.parse_args().output
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running != PYTHONS[0]:
        print(f"lock: run me with Python {PYTHONS[0]} (the lowest we support), not {running}", file=sys.stderr)
        return 2
    runtime, development = wanted()
    try:
        entries = lock(resolve([*runtime, *development]))
        needed = resolve(runtime, [f"{name}=={version}" for name, (version, _) in entries.items()])
    except LockError as err:
        print(f"lock: {err}", file=sys.stderr)
        return 1
    for name, what, chosen in (
        ("requirements.lock", "What Mainstay runs on, with its `metrics` and `auth` extras and the build backend.", sorted(needed)),
        ("requirements-dev.lock", "The same, and what the checks and tests need.", sorted(entries)),
    ):
        (output / name).write_text(text_of({key: entries[key] for key in chosen}, name, what), encoding="utf-8")
        print(f"lock: {name}: {len(chosen)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
