"""What a web config file says, as frozen data: TLS, who may ask, which headers go out. The format is that of Prometheus' exporter-toolkit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct


class ClientAuth(StrEnum):
    """What is asked of a client's certificate; the values are the format's own words."""

    NONE = "NoClientCert"
    IF_GIVEN = "VerifyClientCertIfGiven"
    REQUIRED = "RequireAndVerifyClientCert"


@dataclass(frozen=True, slots=True)
class TlsServer:
    """``tls_server_config``. *certificate*, *key* and *client_ca* are PEM text; *ciphers* (below TLS 1.3) and *curve* are OpenSSL's names."""

    certificate: str
    key: str = field(repr=False)
    client_ca: str | None = None
    client_auth: ClientAuth = ClientAuth.NONE
    allowed_sans: tuple[str, ...] = ()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True
    curve: str | None = None


class RateLimit(Struct, frozen=True):
    """A request each *interval_s*, and *burst* at once."""

    interval_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """A whole web config file. *users*: name → bcrypt hash. *files*: everything that was read for it, itself first."""

    files: tuple[str, ...]
    tls: TlsServer | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    rate: RateLimit | None = None

    @property
    def knows_who_asks(self) -> bool:
        """Whether nobody is answered who has not shown, over TLS, who they are. A certificate of just any public authority shows nothing."""
        tls = self.tls
        if tls is None:
            return False
        by_certificate = tls.client_auth is ClientAuth.REQUIRED and bool(tls.client_ca or tls.allowed_sans)
        return bool(self.users) or by_certificate
