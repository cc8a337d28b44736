"""The web config file: TLS, basic auth and headers of the HTTP side, in the format of Prometheus' exporter-toolkit.

Source of the format: github.com/prometheus/exporter-toolkit, docs/web-configuration.md. What is taken here, ``promtool check web-config``
takes too; what Python's ssl cannot do is refused in words and not passed over. Relative paths start at the file's directory.
"""

import os
import re
from typing import Any, Final

from supervisor import errors
from supervisor.config import document
from supervisor.config.document import Mapping, Node, Scalar
from supervisor.config.kinds import BAD, Context, Flag, Kind, ListOf, ScalarKind, Text, TextMap, Whole, Word
from supervisor.config.problems import Report
from supervisor.config.quantities import Duration
from supervisor.config.shape import Key, Section, Shape
from supervisor.config.source import Trust, read_text
from supervisor.core.units import quoted
from supervisor.core.webconfig import ClientAuth, RateLimit, TlsServer, WebConfig

MOST_COST: Final = 16  # of a bcrypt hash: 64 times the work of the usual 10, some seconds for each guess

_HASH: Final = re.compile(r"\$2[abxy]?\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_TLS13_CIPHERS: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_CIPHERS: Final = {
    f"TLS_ECDHE_{signature}_WITH_{go}": f"ECDHE-{signature}-{openssl}"
    for signature in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
    )
}
_HEADERS: Final = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
_UNSERVED_AUTH: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")


class _Pem(ScalarKind):
    """Text in PEM, written in the file itself."""

    form = "text that begins with -----BEGIN"

    def parse(self, node: Scalar, context: Context) -> str:
        del context
        if "-----BEGIN " not in node.text:
            raise ValueError(f"is not PEM; write {self.form}")
        return node.text


class _PemFile(ScalarKind):
    """The path of a file with text in PEM; the value is (path, text)."""

    form = "the path of a file in PEM"

    def parse(self, node: Scalar, context: Context) -> tuple[str, str]:
        if not node.text:
            raise ValueError(f"is empty; write {self.form}")
        path = os.path.normpath(os.path.join(context.base, node.text))
        try:
            text = read_text(path)
        except ValueError as err:
            raise ValueError(f"{quoted(path, 200)} {err}") from err
        if "-----BEGIN " not in text:
            raise ValueError(f"{quoted(path, 200)} is not PEM; name a file that begins with -----BEGIN")
        return path, text


class _Auth(Word):
    """A policy for clients' certificates that Python's ssl can hold."""

    def parse(self, node: Scalar, context: Context) -> Any:
        if node.text in _UNSERVED_AUTH:
            raise ValueError(
                f"{node.text} takes certificates that nobody has verified, which Mainstay does not; write {ClientAuth.REQUIRED}"
            )
        return super().parse(node, context)


class _Version(Word):
    """A version of TLS that is still served."""

    def parse(self, node: Scalar, context: Context) -> Any:
        if node.text in ("TLS10", "TLS11"):
            raise ValueError(f"{node.text} is broken and not served; write TLS12")
        return super().parse(node, context)


class _Headers(Kind):
    """The headers that may be set, with the values that some of them are held to."""

    form = f"a map with headers out of {', '.join(_HEADERS)}"

    def read(self, node: Node, context: Context) -> Any:
        values: Any = TextMap(r"[A-Za-z-]+", "a header").read(node, context)
        if values is BAD or not isinstance(node, Mapping):
            return BAD
        for name, text in values.items():
            allowed = _HEADERS.get(name)
            if allowed is None:
                context.report.problem(node.keys[name], f"the header {quoted(name)} cannot be set here; write {self.form}")
            elif allowed and text not in allowed:
                context.report.problem(node.items[name], f"{quoted(text)} is not a value of {name}; write {' or '.join(allowed)}")
            elif not (text.isascii() and text.isprintable()):
                context.report.problem(node.items[name], "holds characters that no header can; write printable ASCII")
        return values


class _Users(Kind):
    """Names, each with the bcrypt hash of a password."""

    form = "a map, e.g. {prometheus: $2y$10$...}"

    def read(self, node: Node, context: Context) -> Any:
        values: Any = TextMap(r"[^:\x00-\x1f\x7f]{1,128}", "a user's name without a colon", lambda _name: True).read(node, context)
        if values is BAD or not isinstance(node, Mapping):
            return BAD
        for name, text in values.items():
            found = _HASH.fullmatch(text)
            if found is None:  # what stands there may be the password itself, so it is not shown
                context.report.problem(node.items[name], "is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':'")
            elif not 4 <= int(found[1]) <= MOST_COST:
                context.report.problem(node.items[name], f"has the cost {int(found[1])}; make a hash with a cost from 4 to {MOST_COST}")
        if values and not _has_bcrypt():
            context.report.problem(node, "needs the package bcrypt, which is not installed; run: pip install 'mainstay[auth]'")
        return values


def _has_bcrypt() -> bool:
    import importlib.util

    return importlib.util.find_spec("bcrypt") is not None


_TLS = Shape(
    [
        Key("cert", _Pem(), "The certificate chain."),
        Key("key", _Pem(), "Its private key."),
        Key("cert_file", _PemFile(), "A file with the certificate chain."),
        Key("key_file", _PemFile(), "A file with its private key."),
        Key("client_ca", _Pem(), "The authority of clients' certificates."),
        Key("client_ca_file", _PemFile(), "A file with it."),
        Key("client_auth_type", _Auth(ClientAuth), "What is asked of clients' certificates.", ClientAuth.NONE),
        Key(
            "client_allowed_sans",
            ListOf(Text(form="a name"), tuple, "[prometheus.example.org]", least=1),
            "Whose certificates are taken.",
            (),
        ),
        Key("min_version", _Version(("TLS12", "TLS13")), "The oldest version of TLS.", "TLS12"),
        Key("max_version", _Version(("TLS12", "TLS13")), "The newest.", "TLS13"),
        Key("cipher_suites", ListOf(Word((*_TLS13_CIPHERS, *_CIPHERS)), tuple, "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]"), "Ciphers.", ()),
        Key("prefer_server_cipher_suites", Flag(), "Whether our order of ciphers holds.", True),
        Key("curve_preferences", ListOf(Word(tuple(_CURVES)), tuple, "[CurveP256]"), "The curve.", ()),
    ]
)
_HTTP = Shape([Key("http2", Flag(), "Accepted and without effect: HTTP/1.1 is served.", True), Key("headers", _Headers(), "Headers.", {})])
_RATE = Shape([Key("interval", Duration(0.0), "Time for one request.", 0.0), Key("burst", Whole(0, 10**9), "Requests at once.", 0)])
WEB_CONFIG = Shape(
    [
        Key("tls_server_config", _TLS, "TLS."),
        Key("http_server_config", _HTTP, "Headers."),
        Key("basic_auth_users", _Users(), "Users.", {}),
        Key("rate_limit", _RATE, "How many requests."),
    ]
)


def load(path: str) -> WebConfig:
    """The web config in the file *path*. ``ConfigError`` with all problems, each "file:line:column: key: what is wrong; what to write"."""
    report = Report(path)
    try:
        text = read_text(path, Trust.CODE)
    except ValueError as err:
        raise errors.ConfigError([f"{report.file}: {err}"]) from err
    path = os.path.abspath(path)
    root = document.parse(text, report)
    section = Section(WEB_CONFIG)
    if isinstance(root, Mapping):
        section = WEB_CONFIG.read(root, Context(report, os.path.dirname(path)))
    elif root is not None and not (isinstance(root, Scalar) and root.is_null):
        report.problem(root, f"is not a map; write the keys {', '.join(WEB_CONFIG.names)}")
    tls = _tls(section, root, report) if not report.failed else None
    if report.failed:
        raise errors.ConfigError(report.problems)
    files = [section["tls_server_config"].written[key][0] for key in _FILES if key in section["tls_server_config"].written]
    rate = section["rate_limit"]
    return WebConfig(
        files=(path, *files),
        tls=tls,
        headers=section["http_server_config"]["headers"],
        users=section["basic_auth_users"],
        rate=RateLimit(rate["interval"], rate["burst"]) if rate["interval"] else None,
    )


_FILES: Final = ("cert_file", "key_file", "client_ca_file")


def _tls(section: Section, root: Node | None, report: Report) -> TlsServer | None:
    """The TLS part, tried out: None when there is none. Reports what does not go together."""
    part: Section = section["tls_server_config"]
    if not {"cert", "key", "client_ca", "client_auth_type", *_FILES} & part.written.keys():
        return None
    place = section.nodes.get("tls_server_config") or root or Scalar(1, 1, "", "", True)
    certificate, key, client_ca = (_text(part, name) for name in ("cert", "key", "client_ca"))
    for name, text in (("cert", certificate), ("key", key)):
        if text is None:
            report.problem(place, f"has neither {name} nor {name}_file; write {name}_file: and a path")
    auth = part["client_auth_type"]
    if client_ca is not None and auth is ClientAuth.NONE:
        report.problem(place, f"has an authority for clients and no policy; write client_auth_type: {ClientAuth.REQUIRED}")
    if part["client_allowed_sans"] and auth is not ClientAuth.REQUIRED:
        report.problem(part.nodes["client_allowed_sans"], f"needs client_auth_type: {ClientAuth.REQUIRED}")
    if part["min_version"] > part["max_version"]:
        report.problem(part.nodes.get("max_version", place), "is older than min_version; write TLS13")
    if len(part["curve_preferences"]) > 1:
        report.problem(part.nodes["curve_preferences"], "names more than one curve, and Python's ssl takes one; keep the first")
    ciphers = tuple(_CIPHERS[name] for name in part["cipher_suites"] if name in _CIPHERS)
    if part["cipher_suites"] and not ciphers and part["min_version"] == "TLS12":
        report.problem(part.nodes["cipher_suites"], "has no cipher for TLS 1.2; add one, or write min_version: TLS13")
    if report.failed or certificate is None or key is None:
        return None
    tls = TlsServer(
        certificate=certificate,
        key=key,
        client_ca=client_ca,
        client_auth=auth,
        allowed_sans=part["client_allowed_sans"],
        min_version=part["min_version"],
        max_version=part["max_version"],
        ciphers=ciphers,
        prefer_server_ciphers=part["prefer_server_cipher_suites"],
        curve=_CURVES[part["curve_preferences"][0]] if part["curve_preferences"] else None,
    )
    from supervisor import tls as maker  # late: ssl costs 3 MiB

    try:
        maker.server_context(tls)
    except ValueError as err:
        report.problem(place, f"{err}; mend the files")
    return tls


def _text(part: Section, name: str) -> str | None:
    """PEM text, from its file if one is named; the file wins, as in the toolkit."""
    if f"{name}_file" in part.written:
        return str(part.written[f"{name}_file"][1])
    return part.written.get(name)


def problems_of(path: str) -> tuple[WebConfig | None, list[str]]:
    """The web config, or what is wrong with it."""
    try:
        return load(path), []
    except errors.ConfigError as err:
        return None, err.problems
