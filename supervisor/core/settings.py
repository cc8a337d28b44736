"""What config.yaml says beside its jobs: the daemon's own settings and the receivers of alerts. Frozen data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from msgspec import Struct

from supervisor.core.jobs import Job
from supervisor.core.template import Template


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
class Heartbeat:
    """The dead man's switch: while the loop supervises, ``url`` is asked for every ``every_s`` seconds. It may hold a secret."""

    url: str = field(repr=False)
    every_s: float = 60.0
    timeout_s: float = 10.0


class Settings(Struct, frozen=True):
    """The ``supervisor:`` section. ``state_dir`` is absolute; ``listen`` is (host, port) or None for the unix socket only. ``hosts``: further
    names that we are asked by; ``web_config``: the absolute path of a web config file. ``external_url`` is where people reach the status page,
    without a slash at its end; notifications link to it.
    """

    state_dir: str
    listen: tuple[str, int] | None = ("127.0.0.1", 9321)
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.AUTO
    history_days: float = 90.0
    hosts: tuple[str, ...] = ()
    web_config: str | None = None
    actions: TcpActions = TcpActions.AUTO
    external_url: str | None = None
    heartbeat: Heartbeat | None = None
    trace_signals: bool = False


class Layout(Struct, frozen=True):
    """How a receiver's texts are written: the templates of the config (None: our own words), and what links begin with."""

    subject: Template | None = None
    body: Template | None = None
    external_url: str | None = None


_AS_IT_IS: Final = Layout()


@dataclass(frozen=True, slots=True)  # and not a Struct, as all with a secret: a field can be left out of its repr
class WebhookReceiver:
    """POST of a JSON document; ``secret`` (optional) signs it: X-Mainstay-Signature: v1=HEX of HMAC-SHA256(secret, "TIMESTAMP.BODY"), the
    timestamp (Unix time) being that of X-Mainstay-Timestamp."""

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    layout: Layout = _AS_IT_IS


class AlertmanagerReceiver(Struct, frozen=True):
    """Alertmanager's v2 API. ``urls`` are all members of the cluster; firing alerts are posted again every ``repost_s``."""

    name: str
    urls: tuple[str, ...]
    labels: Mapping[str, str] = {}
    repost_s: float = 60.0
    timeout_s: float = 10.0
    layout: Layout = _AS_IT_IS


@dataclass(frozen=True, slots=True)
class EmailReceiver:
    """SMTP. ``tls`` is "none", "starttls" or "tls"; ``password`` comes from a file or the environment, never in clear in the config.

    ``html``: an HTML part beside the plain text.
    """

    name: str
    to: tuple[str, ...]
    sender: str
    host: str = "localhost"
    port: int = 25
    tls: str = "none"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout_s: float = 20.0
    html: bool = False
    layout: Layout = _AS_IT_IS


@dataclass(frozen=True, slots=True)
class SlackReceiver:
    """An incoming webhook of Slack, or of something that speaks like it (Mattermost, Rocket.Chat). The URL is the password."""

    name: str
    url: str = field(repr=False)
    timeout_s: float = 10.0
    layout: Layout = _AS_IT_IS


PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


@dataclass(frozen=True, slots=True)
class PagerDutyReceiver:
    """PagerDuty's Events API v2. ``routing_key`` is the integration key of a service."""

    name: str
    routing_key: str = field(repr=False)
    url: str = PAGERDUTY_URL
    timeout_s: float = 10.0
    layout: Layout = _AS_IT_IS


@dataclass(frozen=True, slots=True)
class AppriseReceiver:
    """Any service that the apprise library knows, by its URLs, which may hold secrets."""

    name: str
    urls: tuple[str, ...] = field(repr=False)
    timeout_s: float = 30.0
    layout: Layout = _AS_IT_IS


class CommandReceiver(Struct, frozen=True):
    """A program (no shell) that gets the notification as JSON on its standard input; exit code 0 means delivered."""

    name: str
    command: tuple[str, ...]
    directory: str
    timeout_s: float = 30.0
    layout: Layout = _AS_IT_IS


Receiver = WebhookReceiver | AlertmanagerReceiver | EmailReceiver | SlackReceiver | PagerDutyReceiver | CommandReceiver | AppriseReceiver


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, checked config.yaml. ``path`` is the absolute path of the file; ``warnings`` are findings that do not stop us.

    ``sections`` is what the file said and where each value came from, made by ``config.load`` for ``config.show``; it is no part of the
    meaning, so two configs that differ only there are equal, and the daemon may drop it. ``text`` is the very text that was read. ``secret_variables`` are
    the names in our environment that the file takes secrets from; no job inherits them.
    """

    path: str
    settings: Settings
    jobs: Mapping[str, Job]
    receivers: Mapping[str, Receiver] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sections: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    text: str = field(default="", compare=False, repr=False)
    secret_variables: frozenset[str] = frozenset()
