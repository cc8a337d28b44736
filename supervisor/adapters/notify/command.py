"""A program of the operator's: the notification as JSON on its standard input, exit code 0 for delivered. No shell."""

import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence

from supervisor.adapters.notify.channel import Deadline
from supervisor.adapters.notify.sender import Clock, Failed
from supervisor.adapters.notify.text import one_line
from supervisor.adapters.notify.webhook import document
from supervisor.core.records import Notification
from supervisor.core.settings import CommandReceiver

COMPLAINT_BYTES = 4096  # of its standard error that are kept
# Our own environment holds our secrets ($CREDENTIALS_DIRECTORY, tokens of the unit); a receiver needs none of it but this.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class CommandSender:
    """One process per notification, in a session of its own; its time-out kills the whole process group."""

    batch_max = 1
    repost_s = None
    pause_s = 0.0

    def __init__(self, receiver: CommandReceiver, clock: Clock) -> None:
        if not receiver.command:
            raise ValueError("its command is empty")
        self._receiver = receiver
        self._clock = clock

    def deliver(self, batch: Sequence[Notification], _openings: Mapping[int, Notification]) -> Failed | None:
        for notification in batch:
            if failed := self._run(notification):
                return failed
        return None

    def repost(self, standing: Sequence[Notification]) -> Failed | None:
        return self.deliver(standing, {})

    def _run(self, notification: Notification) -> Failed | None:
        content = document(notification, self._receiver.layout)
        return run(self._receiver.command, content, self._receiver.directory, self._receiver.timeout_s, self._clock)


def run(argv: Sequence[str], content: bytes, directory: str, timeout_s: float, clock: Clock, *, tells: bool = True) -> Failed | None:
    """One process in a session of its own with *content* on its standard input; at the time-out its whole process group is killed.

    With *tells* its last line of complaint is repeated; without, it may hold secrets.
    """
    name = argv[0]
    source = _memory_file(content)
    try:
        process = subprocess.Popen(
            argv,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={key: os.environ[key] for key in PASSED_ON if key in os.environ},
            start_new_session=True,
        )
    except OSError as err:
        return Failed(f"{name}: cannot be started: {err.filename}: {err.strerror}")
    finally:
        os.close(source)
    with process:
        try:
            complaint = _listen(process, Deadline(timeout_s, clock))
        except TimeoutError:
            return Failed(f"{name}: not done after {timeout_s:g} s; killed")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is still this group's
    if process.returncode == 0:
        return None
    end = f"exited {process.returncode}" if process.returncode > 0 else f"died by signal {-process.returncode}"
    return Failed(f"{name}: {end}" + (f": {complaint}" if complaint and tells else ""))


def _listen(process: subprocess.Popen[bytes], deadline: Deadline) -> str:
    """Waits for the main process (not for what it left running); its last line of complaint. ``TimeoutError`` at the deadline."""
    stream = process.stderr
    if stream is None:
        raise ValueError("standard error is not a pipe")
    tail = b""
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            selector.register(stream, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(deadline.left_s())}
                if stream.fileno() in ready:
                    chunk = os.read(stream.fileno(), 65536)
                    tail = (tail + chunk)[-COMPLAINT_BYTES:]
                    if not chunk:
                        selector.unregister(stream)
                elif ended in ready:
                    process.wait()
                    return one_line((tail.decode("utf-8", "replace").strip().splitlines() or [""])[-1], 200)
    finally:
        os.close(ended)


def _memory_file(content: bytes) -> int:
    """A descriptor to read *content* from: unlike a pipe it can be filled before there is a reader."""
    descriptor = os.memfd_create("notification")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
