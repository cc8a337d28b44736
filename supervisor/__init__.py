"""Mainstay: a self-healing supervisor for the Python jobs that companies live on."""

__version__ = "0.1.0"
