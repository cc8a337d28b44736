"""The parts of uvicorn that we use, without those that we do not.

``import uvicorn`` loads its command line, and with it click and multiprocessing (2 MiB), which nobody here has a use for.
"""

import sys
from types import ModuleType

_COMMAND_LINE = ModuleType("uvicorn.main")
_COMMAND_LINE.__dict__.update(Server=None, main=None, run=None)
sys.modules.setdefault("uvicorn.main", _COMMAND_LINE)

from uvicorn.config import Config  # noqa: E402  # after the line above, which is its point
from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402  # stays with its neighbour
from uvicorn.server import Server  # noqa: E402

__all__ = ["Config", "H11Protocol", "Server"]
