"""Whether the programs that a config names are there to be executed. Asked by ``mainstay check`` alone: what is missing here may be on the machine that
runs it, and whoever runs it hears of it as ``launch_failed``.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

from supervisor.config.problems import Report
from supervisor.config.shape import Section
from supervisor.core.settings import CommandReceiver, Config
from supervisor.core.units import quoted


def missing(config: Config) -> list[str]:
    """A warning for each job and receiver whose program cannot be executed on this machine, with the place of its ``command``."""
    report = Report(config.path)
    for section, argv, directory, environment in _programs(config):
        finding = _finding(argv[0], directory, environment.get("PATH", os.environ.get("PATH", os.defpath)))
        if finding is not None and "command" in section.nodes:
            report.warn(section.nodes["command"], finding)
    return report.warnings


def _programs(config: Config) -> Iterator[tuple[Section, tuple[str, ...], str, Mapping[str, str]]]:
    sections = cast("dict[str, Any]", config.sections)
    for name, job in config.jobs.items():
        if job.enabled:
            yield sections["jobs"][name], job.launch.argv, job.launch.directory, job.launch.environment
    for name, receiver in config.receivers.items():
        if isinstance(receiver, CommandReceiver):
            yield sections["receivers"][name], receiver.command, receiver.directory, {}


def _finding(program: str, directory: str, path: str) -> str | None:
    """What keeps *program* from being executed in *directory*, as execvp(3) looks for it; None when nothing that can be seen from here does."""
    try:
        if "/" in program:
            return _of_file(os.path.join(directory, program), program)
        folders = [os.path.join(directory, folder) for folder in path.split(os.pathsep)]
        if any(_of_file(os.path.join(folder, program), program) is None for folder in folders):
            return None
    except PermissionError:  # another user's; that one may see it
        return None
    return f"{quoted(program, 200)} is in no folder of PATH, as that is here; write its path, or set PATH under environment"


def _of_file(path: str, shown: str) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        raise
    except OSError:
        return f"there is no program {quoted(shown, 200)}; write the path of one"
    if os.path.isdir(path):
        return f"{quoted(shown, 200)} is a directory; write the path of a program"
    return None if mode & 0o111 else f"{quoted(shown, 200)} is not executable; say chmod +x, or name its interpreter: [python, {shown}]"
