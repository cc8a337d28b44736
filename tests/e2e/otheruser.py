"""Mainstay and its jobs as a user who owns nothing: what tests need for that."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, environment, free_port

NOBODY = 65534
EVERYBODYS = shutil.which("python3", path="/usr/bin:/usr/local/bin")  # this suite's own may lie in a home that is closed to others


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder that every user can reach; pytest's own are closed."""
    found = Path("/tmp") / f"mainstay-test-{os.getpid()}-{free_port()}"
    found.mkdir(mode=0o755)
    try:
        yield found
    finally:
        shutil.rmtree(found)


def as_nobody(place: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The mainstay command as nobody, from a copy in *place* that is root's; *more* goes into its environment."""
    if EVERYBODYS is None or shutil.which("setpriv") is None:
        pytest.skip("no setpriv, or no Python that another user can execute")
    packages = subprocess.run(
        [sys.executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = place / "lib"
    if not found.exists():
        shutil.copytree(ROOT / "supervisor", found / "supervisor")
    for name in ("yaml", "msgspec", "cronsim", "structlog", "psutil"):
        if not (found / name).exists() and (Path(packages) / name).is_dir():
            shutil.copytree(Path(packages) / name, found / name)
    start = f"import sys; sys.path.insert(0, {str(found)!r}); sys.argv[0] = 'mainstay'; from supervisor.cli import main; sys.exit(main())"
    return subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", EVERYBODYS, "-I", "-B", "-c", start, *words],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment("nobody", more),
    )
