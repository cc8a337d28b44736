"""Writes monitoring/ anew: what `mainstay export` makes of the shipped config.yaml, for readers and for those who copy files."""

import sys
from pathlib import Path
from typing import Final

from supervisor.config.load import load
from supervisor.export import export, files
from supervisor.export.definition import Options

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "monitoring"


def expected() -> dict[str, str]:
    """Path below monitoring/ → text. Not the unit: that stands in systemd/, with the paths of an installation."""
    config = load(str(ROOT / "config.yaml"))
    made: dict[str, str] = {}
    for kind in export.KINDS:
        if kind != "systemd":
            made |= export.made(kind, config, Options())
    return made


def main() -> int:
    """0 when the folder holds exactly what the code makes."""
    made = expected()
    files.write(made, str(FOLDER))
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.relative_to(FOLDER).as_posix() not in {*made, "README.md"}:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
