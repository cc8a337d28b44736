"""Secrets as values of config.yaml: read from a file or from the environment, so that the config itself need not hold them."""

import os
import re
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.config.addresses import Url
from supervisor.config.document import Scalar
from supervisor.config.files import SecretPath
from supervisor.config.kinds import MASK, Context, Json, Kind, ListOf, ScalarKind, masked_url, quoted_bare
from supervisor.core.redact import SHORTEST, looks_secret

REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Hidden:
    """A value that may be a secret, and what may be shown in its place: the reference, or the value with a mask in it."""

    shown: str
    text: str = field(repr=False)


def resolved(node: Scalar, context: Context) -> str | None:
    """The value of the variable that *node* names as ``${NAME}``; None when it names none. ``ValueError`` when the variable is not set."""
    found = REFERENCE.fullmatch(node.text)
    if found is None:
        return None
    name = found[1]
    value = os.environ.get(name, "")
    context.variables.add(name)
    if not value:
        raise ValueError(f"the variable {name} is not set in Mainstay's environment; set it there, or write a file of it")
    return value


class SecretText(ScalarKind):
    """A secret by reference only: ``${NAME}``. In clear it would stand in every copy of the config."""

    form = "${NAME}, a variable of Mainstay's environment"

    def parse(self, node: Scalar, context: Context) -> Hidden:
        value = resolved(node, context)
        if value is None:
            raise ValueError(
                f"a secret stands here in clear; write {self.form}, or the key that ends in _file and the path of a file with it"
            )
        if "\n" in value or not value.isprintable():
            raise ValueError("the variable has to hold the secret in one line of text; set it so")
        return Hidden(node.text, value)

    def plain(self, value: Any) -> Any:
        return value.shown

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}


def masked_address(address: str) -> str:
    """The address of a receiver as it may be shown: what in its path looks like a token and any longer value of its query may be one."""
    place, *query = re.split("(?=[?#])", masked_url(address), maxsplit=1)
    parts = [MASK if looks_secret(part) else part for part in place.split("/")]
    return "/".join(parts) + re.sub(rf"=[^&;#]{{{SHORTEST},}}", f"={MASK}", "".join(query))


class SecretUrl(Url):
    """An http or https address, or ``${NAME}`` for one. ``is_secret``: even its path is, so it is never shown."""

    def __init__(self, *, is_secret: bool = False) -> None:
        self.is_secret = is_secret
        self.form = f"{Url.form}; or ${{NAME}}, a variable of Mainstay's environment"

    def parse(self, node: Scalar, context: Context) -> Any:
        value = resolved(node, context)
        if value is not None:
            checked_url(value, f"the variable {REFERENCE.fullmatch(node.text)[1]}")  # type: ignore[index] # it matched
            return Hidden(node.text, value)
        if "${" in node.text:
            raise ValueError(f"{quoted_bare(node.text)} has a reference within it; write ${{NAME}} alone, and the whole address into it")
        address = super().parse(node, context)
        if not self.is_secret:
            return Hidden(masked_address(address), address)
        scheme, _, rest = address.partition("://")
        return Hidden(f"{scheme}://{re.split('[/?#]', rest.rpartition('@')[2])[0]}/{MASK}", address)

    def plain(self, value: Any) -> Any:
        return value.shown if isinstance(value, Hidden) else super().plain(value)

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^(https?://[^ ]+|{REFERENCE.pattern})$"}


class SecretUrlPath(SecretPath):
    """The path of a file that holds an http or https address."""

    form = "the path of a file that holds the address and that only its owner can read"

    def parse(self, node: Scalar, context: Context) -> Any:
        secret = super().parse(node, context)
        checked_url(secret.text, "the file")
        return secret


class AppriseUrl(ScalarKind):
    """An address of apprise's, or ``${NAME}`` for one."""

    form = "a URL as apprise has them, e.g. ntfy://host/topic; or ${NAME}, a variable of Mainstay's environment"

    def parse(self, node: Scalar, context: Context) -> Hidden:
        value = resolved(node, context) or node.text
        scheme = value.partition("://")[0]
        if not re.fullmatch(r"[a-z][a-z0-9+.-]{0,63}", scheme, re.IGNORECASE) or "://" not in value or not value.isprintable():
            raise ValueError(f"is not a URL; write {self.form}")
        return Hidden(node.text if value is not node.text else f"{scheme}://{MASK}", value)

    def plain(self, value: Any) -> Any:
        return value.shown

    def schema(self) -> Json:
        return {"type": "string", "pattern": f"^([A-Za-z][A-Za-z0-9+.-]*://.*|{REFERENCE.pattern})$"}


class AppriseUrlsPath(SecretPath):
    """The path of a file with an address of apprise's in each line."""

    form = "the path of a file with a URL in each line that only its owner can read"
    many = True

    def parse(self, node: Scalar, context: Context) -> Any:
        secret = super().parse(node, context)
        if not all("://" in line for line in secret.text.splitlines()):
            raise ValueError("the file has a line that is not a URL; write one in each line")
        return secret


def apprise_urls() -> Kind:
    """A list of apprise's addresses."""
    return ListOf(AppriseUrl(), tuple, "[ntfy://host/topic]", least=1)


def checked_url(text: str, what: str) -> None:
    """``ValueError`` that names *what* and quotes nothing of *text* unless it is an http or https address."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{what} does not hold an http or https address; write one into it")
