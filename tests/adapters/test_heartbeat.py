"""The dead man's switch: beats come while somebody rings, in their interval, and an address that hangs holds nobody up."""

import threading
from datetime import UTC, datetime, timedelta

import structlog
from receivers import WAIT_S, Facts, Server, Web, read_request

from supervisor.adapters.clock import Clock
from supervisor.adapters.notify import Heart
from supervisor.core.model import Mono, Now
from supervisor.core.settings import Heartbeat

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class HandClock:
    """Time that stands until it is moved; the deadline of an exchange then never comes."""

    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return Now(Mono(self.s), T0 + timedelta(seconds=self.s))


def test_beats_come_in_their_interval_while_somebody_rings():
    clock, results = HandClock(), Facts()
    with Web() as web:
        heart = Heart(Heartbeat(f"{web.url}/ping/x", 60.0), clock, lambda result, when: results.add((result, when)))
        heart.beat()
        results.wait_for(1)
        for second in range(1, 60):
            clock.s = float(second)
            heart.beat()
        clock.s = 60.0
        heart.beat()
        results.wait_for(2)
        heart.stop()
        clock.s = 999.0
        heart.beat()
    assert [request.line for request in web.got.all] == ["GET /ping/x HTTP/1.1"] * 2
    assert results.all == [("sent", T0), ("sent", T0 + timedelta(seconds=60))]


def test_a_beat_that_fails_is_told_once_without_its_address_and_its_return_once():
    clock, results = HandClock(), Facts()
    with Web(["500 Oops", "302 Found\nLocation: http://127.0.0.1:1/", "200 OK"]) as web, structlog.testing.capture_logs() as lines:
        heart = Heart(Heartbeat(f"{web.url}/canary", 60.0), clock, lambda result, _: results.add(result))
        for number in range(1, 4):
            clock.s += 60.0
            heart.beat()
            results.wait_for(number)
        heart.stop()
    assert results.all == ["failed", "failed", "sent"]
    assert [line["event"] for line in lines] == ["heartbeat_failing", "heartbeat_recovered"]
    assert "canary" not in repr(lines) + repr(vars(heart))


def test_an_address_that_hangs_holds_up_nobody_who_rings():
    real, hanging = Clock().now, threading.Event()

    def behave(connection):
        read_request(connection)
        hanging.set()
        connection.recv(1)

    with Server(behave) as server:
        heart = Heart(Heartbeat(f"http://127.0.0.1:{server.port}/", 0.001, 60.0), real, lambda *_: None)
        heart.beat()
        assert hanging.wait(WAIT_S)
        before = real().mono
        for _ in range(1000):
            heart.beat()
        assert real().mono - before < 5.0, "a thousand rings, while a beat hangs for a minute"
        heart.stop()
