"""sd_notify over real sockets."""

import os
import socket
import subprocess
import sys

import pytest

from supervisor.sdnotify import Notifier


@pytest.fixture
def manager(tmp_path):
    """A service manager's socket and its path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)
        yield sock, str(tmp_path / "notify")


def test_every_message_arrives_as_systemd_reads_it(manager):
    sock, path = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    assert notifier.active
    calls = [
        (lambda: notifier.ready("3 jobs"), b"READY=1\nSTATUS=3 jobs"),
        (lambda: notifier.status("ok"), b"STATUS=ok"),
        (notifier.watchdog, b"WATCHDOG=1"),
        (lambda: notifier.reloading(123), b"RELOADING=1\nMONOTONIC_USEC=123"),
        (notifier.stopping, b"STOPPING=1"),
    ]
    for call, expected in calls:
        assert call() is True
        assert sock.recv(4096) == expected


def test_an_abstract_socket_is_spoken_to():
    name = f"mainstay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(30)
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert sock.recv(100) == b"READY=1"


def test_a_status_cannot_speak_the_protocol(manager):
    sock, path = manager
    Notifier({"NOTIFY_SOCKET": path}).status("fine\nMAINPID=1\x1b[2J" + "x" * 9999)
    (line,) = sock.recv(65536).split(b"\n")
    assert line.startswith(b"STATUS=fine MAINPID=1 [2Jxxx")
    assert len(line) < 600


@pytest.mark.parametrize("value", ["", "/nonexistent/socket", "vsock:2:3", "@" + "x" * 500, "/" + "x" * 500, "/dev/null", "relative"])
def test_a_manager_that_does_not_listen_is_no_failure(value):
    assert Notifier({"NOTIFY_SOCKET": value}).ready() is False


def test_a_full_socket_does_not_block(manager):
    _, path = manager
    notifier = Notifier({"NOTIFY_SOCKET": path})
    assert not all(notifier.watchdog() for _ in range(100_000))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),  # meant for another process
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_limit_is_read_as_systemd_means_it(environment, expected):
    assert Notifier(environment, pid=7).watchdog_s == expected


def test_it_needs_nothing_but_the_standard_library():
    code = (
        "import sys; import supervisor.sdnotify; print([m for m in sys.modules if m.split('.')[0] in ('structlog', 'psutil', 'msgspec')])"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
