"""The unit for this config: systemd/mainstay.service with what the config and the installation decide put in place."""

import os
import re
import sys
from importlib import resources
from typing import Final

from supervisor.core.settings import Config
from supervisor.export.document import MARK

PATH: Final = "systemd/mainstay.service"
SHIPPED_STOP_S: Final = 90
MARGIN_S: Final = 15  # after the longest grace: the kill, the last rows, the goodbye
_HIDDEN: Final = ("/home", "/root", "/run/user")  # what ProtectHome=yes takes away
_PLAIN: Final = re.compile(r"[A-Za-z0-9/_.:@+,=-]+")


def files(config: Config, program: str | None = None) -> dict[str, str]:
    """Path → text. *program* is the ``mainstay`` to start; without it the one that runs now."""
    return {PATH: unit(config, program or _program())}


def template() -> str:
    """The shipped unit."""
    return resources.files("supervisor.export").joinpath("mainstay.service").read_text(encoding="utf-8")


def unit(config: Config, program: str) -> str:
    """The unit's text."""
    base = os.path.dirname(config.path)
    text = template()
    text = _put(text, "ExecStart", f"{_quoted(program)} -c {_quoted(config.path)} run")
    text = _put(text, "WorkingDirectory", base.replace("%", "%%"))
    grace = max((job.stop.grace_s for job in config.jobs.values()), default=0.0)
    if grace + MARGIN_S > SHIPPED_STOP_S:
        text = _put(text, "TimeoutStopSec", f"{int(grace + MARGIN_S)}s")
    if any(job.launch.nice is not None and job.launch.nice < 0 for job in config.jobs.values()):
        text = _put(text, "CapabilityBoundingSet", _value(text, "CapabilityBoundingSet") + " CAP_SYS_NICE")
    folders = sorted({job.launch.directory for job in config.jobs.values()} - {base, "/"})
    if any(_is_hidden(path) for path in (program, config.path, *folders)):
        text = _put(text, "ProtectHome", "read-only")
    if folders:
        paths = " ".join(_quoted(f"-{folder}") for folder in folders)
        text = _put(
            text,
            "ProtectSystem",
            f"strict\n# The working directories of jobs; everything else but the state directory stays read-only.\nReadWritePaths={paths}",
        )
    _, _, rest = text.partition("\n\n[Unit]")
    about = f"# Mainstay under systemd, for {config.path.translate(_ONE_LINE)}. systemd/README.md says how to install it and how to loosen it for jobs that need more."
    return f"{about}\n# This file was {MARK}; a later export overwrites it.\n\n[Unit]{rest}"


_ONE_LINE: Final = dict.fromkeys(range(32), " ")


def _program() -> str:
    """The installed command beside this interpreter, else the one that was called."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "mainstay")
    return beside if os.access(beside, os.X_OK) else os.path.abspath(sys.argv[0])


def _is_hidden(path: str) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in _HIDDEN)


def _value(text: str, name: str) -> str:
    found = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
    if found is None:
        raise AssertionError(name)
    return found[1]


def _put(text: str, name: str, value: str) -> str:
    """The line of *name* with another value. It is in the template; a test holds that."""
    old = f"\n{name}={_value(text, name)}\n"
    return text.replace(old, f"\n{name}={value}\n", 1)


def _quoted(word: str) -> str:
    """One word of a command line or a list of paths, as systemd.syntax(7) has it; % begins a specifier there, $ a variable."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return escaped if _PLAIN.fullmatch(word) else f'"{escaped}"'
