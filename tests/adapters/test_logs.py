"""Log lines as an operator or a machine reads them."""

import io
import json
import logging
import os
import pty
import subprocess
import sys

import pytest
import structlog

from supervisor.adapters import logs
from supervisor.core.settings import LogFormat, LogLevel


@pytest.fixture(autouse=True)
def as_before():
    """structlog and logging as they were."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    structlog.reset_defaults()
    root.handlers = handlers


def written(act, layout=LogFormat.JSON, level=LogLevel.INFO) -> list[str]:
    stream = io.StringIO()
    logs.configure(level, layout, stream)
    act(structlog.get_logger())
    return stream.getvalue().splitlines()


def test_a_line_is_one_json_object_with_time_level_and_event_first():
    (line,) = written(lambda log: log.info("attempt_exited", job="nightly", run=812, outcome="memory", peak_bytes=5.5, limit=None))
    event = json.loads(line)
    assert list(event) == ["timestamp", "level", "event", "job", "run", "outcome", "peak_bytes", "limit"]
    assert event["timestamp"].endswith("Z")
    assert (event["level"], event["event"], event["run"], event["limit"]) == ("info", "attempt_exited", 812, None)


def test_lines_below_the_level_are_not_written():
    def act(log):
        log.debug("d")
        log.info("i")
        log.warning("w")
        log.error("e")

    assert [json.loads(line)["event"] for line in written(act, level=LogLevel.WARNING)] == ["w", "e"]


@pytest.mark.parametrize("layout", [LogFormat.JSON, LogFormat.CONSOLE])
def test_no_value_moves_the_cursor_or_forges_a_line(layout):
    nasty = "a\x1b[2J\nforged\r\x00\x7f\x9b\u2028\u202egnp"
    lines = written(lambda log: log.info("output_read", text=nasty, inside={"k": [nasty, nasty.encode()]}, **{nasty: 1}), layout)
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert "forged" in lines[0]


def test_an_exception_is_told_with_its_traceback():
    def act(log):
        try:
            raise ValueError("odd \x1b[2J thing")
        except ValueError:
            log.exception("handler_failed")

    (line,) = written(act)
    event = json.loads(line)
    assert event["level"] == "error"
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert event["exception"].endswith("ValueError: odd \\x1b[2J thing")
    console = written(act, LogFormat.CONSOLE)
    assert any("Traceback" in line for line in console)
    assert all(line.isprintable() for line in console)


def test_values_of_any_kind_are_written():
    deep: list = []
    deep.append(deep)
    lines = written(lambda log: log.info("e", a={1, 2}, b=object(), c=float("nan"), d=deep, e=LogLevel.INFO, f="\udcff"))
    assert len(lines) == 1


def test_under_systemd_lines_carry_their_priority(monkeypatch):
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as lines:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure(LogLevel.DEBUG, LogFormat.AUTO, stream)
        log = structlog.get_logger()
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(log, level)("spoke")
            line = lines.readline()
            assert line[:3] == f"<{logs._PRIORITIES[level]}>"
            assert json.loads(line[3:])["level"] == level


def test_another_pipe_than_the_journals_gets_plain_json(monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert written(lambda log: log.info("e"), LogFormat.AUTO)[0].startswith("{")


def test_a_terminal_gets_words_and_colours_unless_told_otherwise(monkeypatch):
    for no_color, colours in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        leader, follower = pty.openpty()
        with os.fdopen(follower, "w") as stream:
            logs.configure(LogLevel.INFO, LogFormat.AUTO, stream)
            structlog.get_logger().warning("daemon_started", jobs=3)
            line = os.read(leader, 4096).decode()
        os.close(leader)
        assert "daemon started" in line
        assert not line.startswith("{")
        assert ("\x1b[" in line) is colours


def test_a_stream_that_is_gone_costs_the_line_only():
    reader, writer = os.pipe()
    os.close(reader)
    before = logs.lost_lines()
    stream = os.fdopen(writer, "w")
    logs.configure(LogLevel.INFO, LogFormat.JSON, stream)
    structlog.get_logger().info("e")
    assert logs.lost_lines() == before + 1
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_what_libraries_say_becomes_an_event_once():
    stream = io.StringIO()
    for _ in range(2):
        logs.configure(LogLevel.INFO, LogFormat.JSON, stream)
    logging.getLogger("some.library").warning("it is %s", "late")
    logging.getLogger("some.library").info("never mind")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line) | {"timestamp": ""} == {
        "timestamp": "",
        "level": "warning",
        "event": "library_spoke",
        "library": "some.library",
        "message": "it is late",
    }


def test_the_daemon_side_does_not_load_what_it_does_not_need():
    code = (
        "import sys; import supervisor.adapters.logs, supervisor.adapters.metrics, supervisor.adapters.jobmetrics, supervisor.adapters.http\n"
        "supervisor.adapters.logs.configure()\n"
        "names = {name.split('.')[0] for name, module in sys.modules.items() if module is not None}\n"
        "print(sorted(names & {'rich', 'pydantic', 'requests', 'textual', 'httpx', 'jinja2', 'websockets', 'uvloop', 'psutil', 'fastapi', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
