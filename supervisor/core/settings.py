"""What config.yaml says beside its jobs: the daemon's own settings and the receivers of alerts. Frozen data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.core.model import Job


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """``auto`` is the console on a terminal, the journal's own protocol under systemd, JSON otherwise."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class TcpActions(StrEnum):
    """Where changes are taken over TCP: ``auto`` where TLS tells who asks, ``loopback`` also from whoever is on this machine."""

    AUTO = "auto"
    LOOPBACK = "loopback"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``supervisor:`` section. ``state_dir`` is absolute; ``listen`` is (host, port) or None for the unix socket only. ``hosts``: further
    names that we are asked by; ``web_config``: the absolute path of a web config file."""

    state_dir: str
    listen: tuple[str, int] | None = ("127.0.0.1", 9321)
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    history_days: float = 90.0
    hosts: tuple[str, ...] = ()
    web_config: str | None = None
    actions: TcpActions = TcpActions.AUTO


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """POST of a JSON document; ``secret`` (optional) signs it: header X-Mainstay-Signature: sha256=HEX of HMAC(secret, body)."""

    name: str
    url: str
    secret: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class AlertmanagerReceiver:
    """Alertmanager's v2 API. ``urls`` are all members of the cluster; firing alerts are posted again every ``repost_s``."""

    name: str
    urls: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    repost_s: float = 60.0
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class EmailReceiver:
    """SMTP. ``tls`` is "none", "starttls" or "tls"; ``password`` comes from a file in the config, never in clear in it."""

    name: str
    to: tuple[str, ...]
    sender: str
    host: str = "localhost"
    port: int = 25
    tls: str = "none"
    username: str | None = None
    password: str | None = None
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class CommandReceiver:
    """A program (no shell) that gets the notification as JSON on its standard input; exit code 0 means delivered."""

    name: str
    command: tuple[str, ...]
    directory: str
    timeout_s: float = 30.0


Receiver = WebhookReceiver | AlertmanagerReceiver | EmailReceiver | CommandReceiver


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, checked config.yaml. ``path`` is the absolute path of the file; ``warnings`` are findings that do not stop us.

    ``sections`` is what the file said and where each value came from, made by ``config.load`` for ``config.show``; it is no part of the
    meaning, so two configs that differ only there are equal, and the daemon may drop it. ``text`` is the very text that was read.
    """

    path: str
    settings: Settings
    jobs: Mapping[str, Job]
    receivers: Mapping[str, Receiver] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sections: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)
