"""``mainstay run``: takes the lock of the state directory, then becomes guardian and keeper."""

import fcntl
import os
import sys
from typing import NoReturn

from supervisor.adapters.statedir import StateDir
from supervisor.core.settings import Config
from supervisor.errors import SupervisorError


def start(config: Config) -> NoReturn:
    """Never returns: this process becomes ``supervisor.keeper``. ``SupervisorError`` when another Mainstay has the state, or the port is taken."""
    for warning in config.warnings:
        sys.stderr.write(f"mainstay: warning: {warning}\n")
    places = StateDir(config.settings.state_dir)
    places.create()
    lock = _lock(places)
    if config.settings.listen is not None:
        _try_port(*config.settings.listen)
    os.set_inheritable(lock, True)
    os.environ["MAINSTAY_LOADED_CONFIG"] = places.loaded_config
    argv = [sys.executable, "-I", "-m", "supervisor.keeper", "--config", config.path, "--state-dir", places.path, "--lock-fd", str(lock)]
    sys.stderr.flush()
    os.execv(sys.executable, argv)  # noqa: S606 - no shell is the point


def _lock(places: StateDir) -> int:
    """An exclusive flock that lasts as long as guardian or keeper live; nothing is touched when somebody else has it."""
    try:
        fd = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise SupervisorError(
            f"cannot open the lock {places.lock}: {err.strerror}; remove it, or set supervisor.state_dir elsewhere"
        ) from err
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        who = f" (pid {holder})" if holder.isdecimal() else ""
        raise SupervisorError(
            f"another Mainstay{who} runs on {places.path}; stop that one, or give this config a supervisor.state_dir of its own"
        ) from err
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _try_port(host: str, port: int) -> None:
    """Say at once, on the terminal, when the port is taken; the brain says it again if it is lost later."""
    from supervisor.adapters.http.listen import listen_tcp

    listen_tcp(host, port).close()
