"""The HTTP side: metrics, health and the API, on loopback TCP (reads only) and on a unix socket (changes too).

It asks a ``Backend`` and shows the answer; what the answer is, and whether a change is a good idea, is decided elsewhere.
"""

from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.server import HttpServer

__all__ = ["Backend", "HttpServer"]
