"""A TLS server's context from a web config: shared by the check of the file and by the server. Only ``ssl`` and the core are needed.

Nothing is written to disk: OpenSSL reads files only, so a certificate goes through an anonymous file in memory.
"""

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import Final

from supervisor.core.webconfig import ClientAuth, TlsServer

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY: Final = {
    ClientAuth.NONE: ssl.CERT_NONE,
    ClientAuth.IF_GIVEN: ssl.CERT_OPTIONAL,
    ClientAuth.REQUIRED: ssl.CERT_REQUIRED,
}


def server_context(tls: TlsServer) -> ssl.SSLContext:
    """The context. ``ValueError`` in words ("the certificate and the key ...") when OpenSSL does not take what there is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.maximum_version = _VERSIONS[tls.max_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if tls.prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    with _in_memory(tls.certificate) as certificate, _in_memory(tls.key) as key:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as err:
            raise ValueError(f"the certificate and the key are no pair that can be used ({_words(err)})") from err
    try:
        if tls.ciphers:
            context.set_ciphers(":".join(tls.ciphers))
        if tls.curve:
            context.set_ecdh_curve(tls.curve)
    except (ssl.SSLError, ValueError) as err:
        raise ValueError(f"the ciphers or the curve are not known to this OpenSSL ({_words(err)})") from err
    context.verify_mode = _VERIFY[tls.client_auth]
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(cadata=tls.client_ca)
        except (ssl.SSLError, ValueError) as err:
            raise ValueError(f"the clients' authority is no certificate ({_words(err)})") from err
    elif tls.client_auth is not ClientAuth.NONE:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    return context


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    fd = os.memfd_create("mainstay-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "w", encoding="utf-8") as file:
            file.write(text)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _no_password() -> str:
    """An encrypted key must not make OpenSSL ask the terminal."""
    raise ValueError("the key is encrypted; write it without a passphrase")


def _words(err: Exception) -> str:
    return str(getattr(err, "reason", None) or getattr(err, "strerror", None) or err).replace("_", " ").lower()
