"""Network addresses as values of config.yaml: where we post to and where we listen."""

import re
from typing import Any

from supervisor.config.document import Scalar
from supervisor.config.kinds import MASK, Context, Json, ScalarKind, masked_url, quoted_bare
from supervisor.core.units import quoted


class Url(ScalarKind):
    """An http or https address."""

    form = "an http or https address, e.g. http://127.0.0.1:9093"

    def parse(self, node: Scalar, context: Context) -> str:
        from urllib.parse import urlsplit

        text = node.text if "://" in node.text else re.sub("^.*@", f"{MASK}@", node.text)  # user and password may stand there all the same
        shown = quoted_bare(text)
        try:
            parts = urlsplit(node.text)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not node.text.isascii() or not node.text.isprintable() or " " in node.text:
            raise ValueError(f"{shown} is not an address to post to; write {self.form}")
        if parts.password or parts.username:
            context.report.warn(node, "has a user name or password in the address, where logs and process lists may show it")
        return node.text

    def plain(self, value: Any) -> Any:
        return masked_url(value)

    def schema(self) -> Json:
        return {"type": "string", "pattern": "^https?://[^ ]+$"}


class Listen(ScalarKind):
    """host:port; the value is (host, port)."""

    form = "host:port, e.g. 127.0.0.1:9321"

    def parse(self, node: Scalar, context: Context) -> tuple[str, int]:
        if node.text.isdecimal() and node.text.isascii():
            raise ValueError(f"{quoted(node.text)} has no host; write 127.0.0.1:{node.text}")
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][A-Za-z0-9.-]*)):([0-9]{1,5})", node.text)
        if not found or int(found[3]) > 65535:
            raise ValueError(f"{quoted(node.text)} is not an address to listen at; write {self.form}, or null for the unix socket only")
        del context
        return found[1] or found[2], int(found[3])

    def plain(self, value: Any) -> Any:
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def schema(self) -> Json:
        return {"type": "string", "pattern": "^.+:[0-9]{1,5}$"}
