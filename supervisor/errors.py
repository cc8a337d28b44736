"""Our own failures, as a tree. Expected ends of a job are values (``Outcome``), not exceptions."""


class SupervisorError(Exception):
    """Something of ours went wrong; the text is one line that an operator can act on."""


class ConfigError(SupervisorError):
    """config.yaml is wrong. ``problems`` holds every problem found, each "file:line:column: key: finding; mend"."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LaunchError(SupervisorError):
    """A child could not be started: argv[0], errno, directory."""


class KernelError(SupervisorError):
    """A cgroup, pidfd or procfs operation failed: path, operation, errno."""


class StoreError(SupervisorError):
    """The database cannot be read or written."""


class WireError(SupervisorError):
    """Two processes of ours do not understand each other."""


class RulesError(SupervisorError):
    """A Prometheus cannot be asked, or does not answer as one does."""


class LayoutError(SupervisorError):
    """A live interpreter cannot be read from outside; the text says why."""


class NotYetError(LayoutError):
    """The interpreter is still starting (or already ending): try again in some milliseconds."""


class NotPythonError(LayoutError):
    """The process runs no CPython; trying again makes sense only after it has executed another program."""


class GoneError(LayoutError):
    """The process has ended, or has executed another program since we attached."""
