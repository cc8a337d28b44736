"""The HTTP side: metrics, health, the API and the status page, on TCP (changes only where it is known who asks) and on a unix socket.

It asks a ``Backend`` and shows the answer; what the answer is, and whether a change is a good idea, is decided elsewhere.
"""

from supervisor.adapters.http.backend import Backend
from supervisor.adapters.http.door import Rules
from supervisor.adapters.http.server import HttpServer

__all__ = ["Backend", "HttpServer", "Rules"]
