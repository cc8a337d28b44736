"""What jobs count with prometheus_client's multiprocess mode: the files, and what they add up to over attempts."""

from supervisor.adapters.multiproc.tally import Look, Problem, Tally

__all__ = ["Look", "Problem", "Tally"]
