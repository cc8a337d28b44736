"""The parts of uvicorn that we use, without those that we do not.

``import uvicorn`` loads its command line, and with it click and multiprocessing (2 MiB), which nobody here has a use for; and logging.config with
configparser, socketserver and the handlers (0.7 MiB), for a configuration of its log that it is never given. Where ssl was put off (``wake``), two of its
constants are enough.
"""

import logging
import sys
from types import ModuleType

_COMMAND_LINE = ModuleType("uvicorn.main")
_COMMAND_LINE.__dict__.update(Server=None, main=None, run=None)
sys.modules.setdefault("uvicorn.main", _COMMAND_LINE)
_OURS = "logging.config" not in sys.modules
if _OURS:
    sys.modules["logging.config"] = logging.config = ModuleType("logging.config")

_WITHOUT_SSL = sys.modules.get("ssl", logging) is None
if _WITHOUT_SSL:
    sys.modules["ssl"] = ModuleType("ssl")
    sys.modules["ssl"].__dict__.update(PROTOCOL_TLS_SERVER=16, CERT_NONE=0)

from uvicorn.config import Config  # noqa: E402  # after the lines above, which are its point
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402  # stays with its neighbour
from uvicorn.server import Server  # noqa: E402

if _WITHOUT_SSL:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # put off as before
if _OURS:  # whoever else wants it is to have the real one
    del sys.modules["logging.config"], logging.config

__all__ = ["Config", "H11Protocol", "Server"]
