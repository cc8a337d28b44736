"""``mainstay export KIND``: which files a config makes, and where they go."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Final

from supervisor.config.load import find_config, load
from supervisor.core.settings import Config, EmailReceiver
from supervisor.core.units import quoted
from supervisor.export import alertmanager, files, grafana, prometheus, systemd
from supervisor.export.definition import RUNBOOKS, Options, check_selector, target_labels

_URL: Final = re.compile(r"(https?://[^\s\"'<>\\]+|file:///[^\s\"'<>\\]*)")


def made(kind: str, config: Config, options: Options) -> Mapping[str, str]:
    """Path below the output folder → text."""
    return _KINDS[kind](config, options)


_KINDS: Final[Mapping[str, Callable[[Config, Options], Mapping[str, str]]]] = {
    "prometheus": lambda config, options: prometheus.files(config.settings, options),
    "alertmanager": lambda config, options: alertmanager.files(config, options.webhook, options.deadman),
    "grafana": lambda _config, options: grafana.files(options),
    "systemd": lambda config, _options: systemd.files(config),
}
KINDS: Final = tuple(_KINDS)


def run(asked: argparse.Namespace) -> int:
    """The command. 0 when all is written. ``ConfigError``, ``ExportError``."""
    try:
        selector = check_selector(asked.selector)
    except ValueError as err:
        sys.stderr.write(f"mainstay export: --selector: {err}\n")
        return 2
    for option, url in (
        ("--webhook", asked.webhook),
        ("--deadman", asked.deadman),
        ("--runbook-url", asked.runbook_url),
        ("--prometheus", asked.prometheus),
    ):
        if url is not None and not _URL.fullmatch(url):
            sys.stderr.write(f"mainstay export: {option}: {quoted(url)} is no URL; write e.g. https://example.org/path\n")
            return 2
    config = load(find_config(asked.config))
    options = Options(selector, asked.runbook_url or RUNBOOKS, asked.webhook, asked.deadman, asked.prometheus, asked.datasource_uid)
    result = made(asked.kind, config, options)
    for note in _notes(asked.kind, config, options):
        sys.stderr.write(f"mainstay export: {note}\n")
    if asked.stdout:
        files.to_stdout(result)
        return 0
    files.write(result, asked.output)
    sys.stdout.write("".join(f"{os.path.join(asked.output, path)}\n" for path in result))
    return 0


def _notes(kind: str, config: Config, options: Options) -> list[str]:
    """What the person should know, beside the files."""
    notes = []
    if kind == "prometheus":
        if config.settings.listen is None:
            notes.append("supervisor.listen is null, so Prometheus has nothing to scrape; set it, e.g. listen: 127.0.0.1:9321")
        if target_labels(options.selector) is None:
            notes.append("no unit tests were written: which labels would a target have that this --selector finds?")
    if kind == "alertmanager":
        if options.webhook is None and not any(isinstance(one, EmailReceiver) for one in config.receivers.values()):
            notes.append("the receivers are empty, so alerts go nowhere; complete them, or give --webhook URL")
        if options.deadman is None:
            notes.append("the dead man's switch is not connected; give --deadman URL, of a service outside that misses a call")
    return notes
