"""A Prometheus asked over its HTTP API. Loaded only when a drill is to be followed through its rules."""

import http.client
import json
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from supervisor.errors import RulesError

HTTP_S: Final = 5.0
BODY_MAX: Final = 2**20


class Prometheus:
    """A Prometheus, asked over its HTTP API. ``ValueError`` for an address that is no http URL."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{address!r} is not the address of a Prometheus; write for example http://127.0.0.1:9090")
        self.address = f"{parts.hostname}:{parts.port or 9090}"
        self._host, self._port, self._path = parts.hostname, parts.port or 9090, parts.path.rstrip("/")

    def first(self, query: str) -> dict[str, Any] | None:
        """The first sample of an instant query. ``RulesError`` when it cannot be asked."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=HTTP_S)
        try:
            connection.request("GET", f"{self._path}/api/v1/query?{urlencode({'query': query})}")
            response = connection.getresponse()
            found = json.loads(response.read(BODY_MAX))["data"]["result"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as err:
            raise RulesError(f"{self.address} does not answer as a Prometheus does: {type(err).__name__}: {err}") from err
        finally:
            connection.close()
        return found[0] if found else None
