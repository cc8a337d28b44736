"""The first steps of a brain: the keeper's hello, then the config, then everything else, for it is the config that says what has to be loaded."""

import contextlib
import dataclasses
import importlib.util
import os
import sys
from typing import Final

from msgspec.structs import replace

from supervisor import wire
from supervisor.absent import hidden
from supervisor.adapters.keeper import KeeperLink
from supervisor.config.load import load_in_brief
from supervisor.core.settings import Config, LogFormat
from supervisor.errors import ConfigError, SupervisorError, WireError

HELLO_S: Final = 30.0
SWITCH_S: Final = 0.001  # the loop must not wait 5 ms for a thread that renders a page
_NO_THREAD: Final = "can't start new thread"  # all that Python says of the kernel's EAGAIN
_OPENSSL: Final = ("ssl", "_ssl", "_hashlib")
_DIGESTS: Final = ("_md5", "_sha1", "_sha3", "_blake2")  # what hashlib has without OpenSSL; some distributions leave it out


def main(config_path: str) -> int:
    """The life of one brain; its exit code."""
    fd = os.environ.pop("MAINSTAY_BRAIN_FD", None)
    if fd is None or not fd.isdecimal():
        sys.stderr.write("mainstay brain is started by the keeper; people run `mainstay run`\n")
        return 2
    for name in os.environ.pop("MAINSTAY_BRAIN_ONLY", "").split():
        os.environ.pop(name, None)
    sys.setswitchinterval(SWITCH_S)
    link = KeeperLink.from_fd(int(fd))
    try:
        hello = link.hello(HELLO_S)
        config, trouble = _config(config_path, hello)
    except ConfigError as err:
        sys.stderr.write("\n".join(err.problems) + "\n")
        return 78
    except WireError as err:
        sys.stderr.write(f"mainstay: {err}\n")
        return 70
    return _live(config, config_path, link, hello, trouble)


def _live(config: Config, config_path: str, link: KeeperLink, hello: wire.Message, trouble: list[str]) -> int:
    with openssl_put_off(wanted=config.settings.web_config is not None):
        from supervisor.adapters import logs  # before anybody else imports structlog, which would load rich (6 MiB)
        from supervisor.brain import Brain
    import structlog

    log = structlog.get_logger()
    logs.configure(config.settings.log_level, _log_format(config))
    try:
        return Brain(config, config_path, link, hello).run(trouble)
    except WireError as err:
        log.error("keeper_lost", error=str(err))  # noqa: TRY400 - the keeper's death ends us; a traceback says nothing more
        return 70
    except SupervisorError as err:
        log.error("cannot_start", error=str(err))  # noqa: TRY400 - the text names the mend
        return 1
    except RuntimeError as err:
        if _NO_THREAD not in str(err):
            raise
        from supervisor.keeper import launch  # late: ctypes, which a brain does without

        log.error("cannot_start", error=f"{err}: {launch.NO_PROCESS_LEFT}")  # noqa: TRY400 - the text names the mend
        return 1


def openssl_put_off(*, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """What is imported meanwhile does without OpenSSL (5 MiB): asyncio, http.client and hashlib, which have it on their own account.

    Whoever needs it later imports ``ssl`` and has it: receivers that are reached over TLS. Only asyncio's own TLS would stay without, so it is
    not put off where a web config may ask for that (*wanted*), nor where hashlib would have nothing left.
    """
    has_digests = all(map(importlib.util.find_spec, _DIGESTS)) and any(map(importlib.util.find_spec, ("_sha2", "_sha256")))
    return contextlib.nullcontext() if wanted or not has_digests else hidden(*_OPENSSL)


def _log_format(config: Config) -> LogFormat:
    """As configured; $MAINSTAY_LOG_FORMAT goes before it, so that `make run` speaks in words whatever it writes to."""
    named = os.environ.get("MAINSTAY_LOG_FORMAT")
    return LogFormat(named) if named in set(LogFormat) else config.settings.log_format


def _config(path: str, hello: wire.Message) -> tuple[Config, list[str]]:
    """The config of a first brain is the file; a later one of the same keeper goes on with what was in force."""
    copy = os.environ.get("MAINSTAY_LOADED_CONFIG", "")
    trouble: list[str] = []
    if hello["restarts"] == 0:
        config = load_in_brief(path)
    else:
        try:
            config = load_in_brief(path, copy=copy)
        except ConfigError as err:
            trouble = err.problems
            config = load_in_brief(path)
    return _beside(config, copy), trouble


def _beside(config: Config, copy: str) -> Config:
    """*config* with the state directory that the keeper has locked, and in which it keeps its *copy*: a reload may have named another for the next start."""
    if not copy:
        return config
    return dataclasses.replace(config, settings=replace(config.settings, state_dir=os.path.dirname(copy)))
