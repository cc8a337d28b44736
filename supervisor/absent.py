"""Import something as if a module that it would load on its own account were not installed: it does without, and saves the time or the memory."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(*modules: str) -> Iterator[None]:
    """Whoever asks for one of *modules* meanwhile gets an ImportError; afterwards they can be had again. What is loaded already stays."""
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # as the import system has it
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
