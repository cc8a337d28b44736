"""The status page: HTML made here, readable without a script, with a small script that keeps it live. Loaded when somebody first looks."""

from supervisor.adapters.http.site.site import Site

__all__ = ["Site"]
