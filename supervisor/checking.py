"""``mainstay check``: every problem of the config, or what it means."""

import json
import sys

from supervisor.config.load import find_config, load
from supervisor.config.programs import missing


def check(explicit: str | None, *, show: bool) -> int:
    """Print the verdict over the config, or with *show* its effective form. ``ConfigError`` with all problems when it is wrong."""
    config = load(find_config(explicit))
    for warning in (*config.warnings, *missing(config)):
        sys.stderr.write(f"warning: {warning}\n")
    if show:
        from supervisor.config.show import show as effective

        sys.stdout.write(effective(config))
        return 0
    from supervisor.keeper.cgroup import delegated

    held = (
        "cgroup (kernel limits for whole trees)"
        if delegated()
        else "polling and rlimits (no delegated cgroup v2 here; systemd gives one with Delegate=yes)"
    )
    sys.stdout.write(f"{config.path}: good: {len(config.jobs)} jobs, {len(config.receivers)} receivers\nlimits would be held by {held}\n")
    return 0


def print_schema() -> int:
    """The JSON Schema of config.yaml on stdout."""
    from supervisor.config.jsonschema import schema

    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
    return 0


def print_dossier_schema() -> int:
    """The JSON Schema of a dossier on stdout."""
    from supervisor.core.dossierform import schema

    sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
    return 0
