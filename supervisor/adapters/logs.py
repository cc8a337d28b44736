"""Sets structlog up: colours on a terminal, JSON lines otherwise, with the journal's priorities under systemd.

Import this module before any other that imports structlog: it keeps rich, which structlog would load for its own tracebacks
if it happens to be installed, out of the daemon (50 ms and 5 MiB).
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None makes "import rich" an ImportError

import structlog  # noqa: E402  # after the line above, which is its point

from supervisor.adapters.sentences import SentenceRenderer  # noqa: E402  # stays with its neighbour
from supervisor.core.settings import LogFormat, LogLevel  # noqa: E402  # stays with its neighbour

_EventDict = MutableMapping[str, Any]

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # as in syslog(3)
_MAX_DEPTH = 6
_KEEP_LINES = frozenset({"exception", "stack"})


def configure(
    level: LogLevel = LogLevel.INFO,
    format: LogFormat = LogFormat.AUTO,  # noqa: A002  # the key's name in config.yaml
    stream: TextIO | None = None,
) -> None:
    """Sends structlog's events, and warnings of libraries that use ``logging``, to *stream* (standard error)."""
    stream = sys.stderr if stream is None else stream
    terminal = _is_terminal(stream)
    console = format is LogFormat.CONSOLE or (format is LogFormat.AUTO and terminal)
    journal = format is LogFormat.AUTO and not console and goes_to_journal(stream)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _hide_secrets,
            escape_controls,
            *_renderers(console=console, colours=terminal and not os.environ.get("NO_COLOR"), journal=journal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        logger_factory=lambda *_: _LineLogger(stream),
        cache_logger_on_first_use=False,
    )
    _adopt_library_logs()


def _renderers(*, console: bool, colours: bool, journal: bool) -> list[Any]:
    if console:
        return [SentenceRenderer(colours=colours)]
    return [render_json, prefix_priority] if journal else [render_json]


def goes_to_journal(stream: TextIO, environment: MutableMapping[str, str] | None = None) -> bool:
    """True if *stream* is the very pipe that systemd connected to its journal, as in systemd.exec(5), JOURNAL_STREAM."""
    named = (os.environ if environment is None else environment).get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


# ---------------------------------------------------------------- processors


_hidden: list[Callable[[str], str]] = []


def hide(redact: Callable[[str], str]) -> None:
    """From now on every text of every event goes through *redact*, instead of through the one before."""
    _hidden[:] = [redact]


def _hide_secrets(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """What passwords a library's error or a config's problem names does not get into the log."""
    for redact in _hidden:
        for key, value in event.items():
            if isinstance(value, str) and key not in ("event", "level", "timestamp", "job"):
                event[key] = redact(value)
    return event


def escape_controls(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Every string without control characters: what a job or a client chose must not move the cursor or forge a line."""
    return {clean(str(key)): clean(value, keep="\n\t" if key in _KEEP_LINES else "") for key, value in event.items()}


def clean(value: Any, keep: str = "", depth: int = 0) -> Any:
    r"""*value* with control, bidirectional and line-breaking characters written as ``\x1b``, but those in *keep*; containers too."""
    if isinstance(value, str):
        return value if value.isprintable() else "".join(char if char in keep else _visible(char) for char in value)
    if isinstance(value, bytes | bytearray):
        return clean(value.decode("utf-8", "backslashreplace"), keep)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= _MAX_DEPTH:
        return clean(repr(value)[:200])
    if isinstance(value, dict):
        return {clean(str(key)): clean(item, keep, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean(item, keep, depth + 1) for item in value]
    return clean(str(value), keep)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def render_json(_logger: object, _method: str, event: _EventDict) -> str:
    """One JSON object on one line: time, level, event, then the rest in the order it was given."""
    head = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return json.dumps(head | dict(event), ensure_ascii=False, default=str)


def prefix_priority(_logger: object, method: str, line: str) -> str:
    """The line with its level as sd-daemon(3) writes it (``<4>``), which is how the journal knows it."""
    return f"<{_PRIORITIES.get(method, 6)}>{line}"


# ---------------------------------------------------------------- output

_write_lock = threading.Lock()


class _LineLogger:
    """Writes whole lines. A stream that is gone or full loses the line: the supervisor does not die of its log."""

    lost = 0

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        with _write_lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                _LineLogger.lost += 1

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def lost_lines() -> int:
    """Lines that could not be written since the process started."""
    return _LineLogger.lost


class _LibraryHandler(logging.Handler):
    """Records of the standard library's ``logging`` become structlog events."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        level = "error" if record.levelno >= logging.ERROR else "warning"
        getattr(log, level)("library_spoke", library=record.name, message=record.getMessage(), exc_info=record.exc_info)


def _adopt_library_logs() -> None:
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _LibraryHandler)]
    root.addHandler(_LibraryHandler(logging.WARNING))
