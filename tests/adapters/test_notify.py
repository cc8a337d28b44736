"""The outbox and its receivers: real sockets with bad manners, a real SMTP sink, real processes, fake time for long outages."""

import email
import email.policy
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from receivers import WAIT_S, Facts, Mailbox, Server, Web, certificate, free_port, read_request, reset

from supervisor.adapters.clock import Clock
from supervisor.adapters.notify import Courier, Failed, Outbox, Patience, sender_for
from supervisor.adapters.notify.alertmanager import alert
from supervisor.adapters.notify.mail import message
from supervisor.adapters.notify.text import one_line
from supervisor.adapters.notify.webhook import document
from supervisor.adapters.store import Store
from supervisor.core.model import Incident, Mono, Now, Outcome
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import AlertmanagerReceiver, CommandReceiver, EmailReceiver, WebhookReceiver
from supervisor.errors import ConfigError, StoreError

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CLOCK = Clock().now
OPENED, REMINDER, CLOSED = NotificationKind.OPENED, NotificationKind.REMINDER, NotificationKind.CLOSED
QUICK = Patience(first_s=0.01, max_s=0.05)


def note(incident=1, kind=OPENED, receiver="ops", at=T0, **body):
    full = {
        "incident": incident,
        "job": "nightly",
        "outcome": "recursion",
        "severity": "critical",
        "summary": "walk() called itself 400 deep",
        "fingerprint": "ab12",
        "evidence": ["RecursionError in walk()", "no exit condition"],
        "did": ["killed the job"],
        "will": ["restart in 4 s"],
        "opened_at": T0.isoformat(),
        "closed_at": (T0 + timedelta(minutes=5)).isoformat() if kind is CLOSED else None,
        "occurrences": 3,
        "kind": kind.value,
        **body,
    }
    return Notification(f"{incident}/{kind}/0/{receiver}", receiver, kind, incident, at, json.dumps(full))


def incident_row(incident=1, **changes):
    row = Incident(incident, "nightly", "ab12", Outcome.RECURSION, "it called itself", "critical", T0, T0, 1, 1, alerted=True)
    return structs.replace(row, **changes)


def give(receiver, notification=None):
    """One delivery by the sender that the config's *receiver* gets."""
    return sender_for(receiver, CLOCK).deliver([notification or note()], {})


def webhook(url, **more):
    return WebhookReceiver("ops", url, **{"timeout_s": 20.0, **more})


@pytest.fixture
def store(tmp_path):
    opened = Store.open(str(tmp_path / "state"), now=T0)
    yield opened
    opened.close()


@pytest.fixture
def outboxes(store):
    """Makes outboxes over the store that are stopped at the end; results are in ``.results``."""
    made = []

    def make(*receivers, **more):
        results = Facts()
        box = Outbox(store.outbox, {r.name: r for r in receivers}, CLOCK, lambda name, result: results.add((name, result)), **more)
        box.results = results
        made.append(box)
        return box

    yield make
    for box in made:
        box.stop(WAIT_S)


def outbox_rows(store):
    import sqlite3

    connection = sqlite3.connect(store.path)
    try:
        return connection.execute("SELECT key, state, tries, last_error FROM outbox ORDER BY seq").fetchall()
    finally:
        connection.close()


# ---------------------------------------------------------------- webhook


def test_a_webhook_gets_signed_json_with_the_same_key_at_every_try():
    with Web() as web:
        receiver = webhook(f"{web.url}/hook?room=1", secret="s3cret", headers={"X-Team": "data"})
        assert give(receiver) is None
        assert give(receiver) is None
        first, second = web.got.wait_for(2)
    assert first.line == "POST /hook?room=1 HTTP/1.1"
    sent_at = first.headers["x-mainstay-timestamp"]
    assert abs(int(sent_at) - CLOCK().wall.timestamp()) < 60
    expected = hmac.new(b"s3cret", sent_at.encode() + b"." + first.body, hashlib.sha256).hexdigest()
    assert first.headers["x-mainstay-signature"] == f"v1={expected}"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["x-team"] == "data"
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == "1/opened/0/ops"
    sent = json.loads(first.body)
    assert (sent["job"], sent["kind"], sent["incident"], sent["evidence"][1]) == ("nightly", "opened", 1, "no exit condition")


@pytest.mark.parametrize(
    ("answer", "detail", "retry_after_s"),
    [
        ("500 Oops", "answered 500 Internal Server Error", None),
        ("404 Not Found", "answered 404 Not Found", None),
        ("799 What", "answered 799 no known status", None),
        ("429 Slow\nRetry-After: 7", "answered 429 Too Many Requests", 7.0),
        ("503 Later\nRetry-After: 999999999", "answered 503 Service Unavailable", 3600.0),
        ("503 Later\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT", "answered 503 Service Unavailable", 0.0),
        ("503 Later\nRetry-After: soon", "answered 503 Service Unavailable", None),
    ],
)
def test_a_refusal_is_told_in_one_line_with_the_receivers_own_wish(answer, detail, retry_after_s):
    with Web([answer]) as web:
        assert give(webhook(web.url)) == Failed(f"{web.url}: {detail}", retry_after_s)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_never_followed(status):
    with Web() as elsewhere, Web([f"{status}\nLocation: {elsewhere.url}/steal"]) as web:
        failed = give(webhook(web.url, headers={"Authorization": "Bearer x"}))
        assert "redirects are not followed, write the final address" in failed.detail
        assert elsewhere.got.all == []


def drip(connection, head=b""):
    """One byte at a time, for ever."""
    read_request(connection)
    connection.sendall(head)
    while True:
        connection.sendall(b"x")
        threading.Event().wait(0.02)


def flood(connection, head=b"HTTP/1.1 500 Oops\r\n\r\n"):
    read_request(connection)
    connection.sendall(head)
    while True:
        connection.sendall(b"x" * 65536)


def silent(connection):
    read_request(connection)
    connection.recv(1)


def reset_after_request(connection):
    read_request(connection)
    reset(connection)


def interim(connection):
    read_request(connection)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def say(text):
    def behave(connection):
        read_request(connection)
        connection.sendall(text)

    return behave


RUDE = {
    "never answers": (silent, "no complete answer in time"),
    "one byte at a time in the status line": (drip, "no complete answer in time"),
    "one byte at a time in the body": (lambda c: drip(c, b"HTTP/1.1 500 Oops\r\n\r\n"), "no complete answer in time"),
    "an endless body": (flood, "answered 500 Internal Server Error"),
    "an endless header": (lambda c: flood(c, b"HTTP/1.1 200 OK\r\nX: "), "does not speak HTTP (LineTooLong)"),
    "interim answers for ever": (interim, "the answer is too long"),
    "a reset after the request": (reset_after_request, "Connection reset by peer"),
    "a closed door in the middle": (say(b""), "Remote end closed connection without response"),
    "another protocol": (say(b"220 smtp ready\r\n"), "does not speak HTTP (BadStatusLine)"),
}


@pytest.mark.parametrize("manner", RUDE)
def test_a_rude_receiver_fails_in_bounded_time_and_in_words(manner):
    behave, words = RUDE[manner]
    with Server(behave) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert give(webhook(url, timeout_s=0.5 if "time" in words else 20.0)) == Failed(f"{url}: {words}")


def test_a_good_status_counts_even_when_ten_megabytes_follow():
    with Server(lambda c: flood(c, b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")) as server:
        assert give(webhook(f"http://127.0.0.1:{server.port}")) is None


def test_a_refused_connection_is_named():
    port = free_port()
    assert give(webhook(f"http://127.0.0.1:{port}")) == Failed(f"http://127.0.0.1:{port}: Connection refused")


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")


@needs_openssl
def test_a_certificate_is_verified(tmp_path, monkeypatch):
    context, path = certificate(tmp_path)
    with Web(tls=context) as web:
        assert give(webhook(web.url)).detail.startswith(f"{web.url}: its certificate is not valid: self")
        assert web.got.all == []
        monkeypatch.setenv("SSL_CERT_FILE", path)
        assert give(webhook(web.url)) is None
        wrong_name = webhook(web.url.replace("127.0.0.1", "localhost"))
        assert "certificate is not valid: Hostname mismatch" in give(wrong_name).detail


def test_a_body_that_is_no_object_or_holds_half_a_surrogate_is_still_valid_json():
    broken = structs.replace(note(), body="not json")
    assert json.loads(document(broken)) == {"kind": "opened", "incident": 1, "key": "1/opened/0/ops", "summary": "not json"}
    odd = note(summary="caf\udce9", evidence=["\ud800", {"deep": ["\udfff"]}])
    read = json.loads(document(odd))
    assert (read["summary"], read["evidence"]) == ("caf?", ["?", {"deep": ["?"]}])


# ---------------------------------------------------------------- the outbox


def test_no_thread_runs_before_the_first_notification_and_one_per_receiver_after(store, outboxes):
    with Web() as web:
        box = outboxes(WebhookReceiver("a", web.url), WebhookReceiver("b", web.url))
        before = {t.name for t in threading.enumerate()}
        box.start()
        assert not {"courier-a", "courier-b"} & ({t.name for t in threading.enumerate()} - before)
        store.apply([note(receiver="a")])
        box.wake("a")
        web.got.wait_for(1)
        assert {t.name for t in threading.enumerate()} >= {"courier-a"}
        assert "courier-b" not in {t.name for t in threading.enumerate()}


def test_a_dead_receiver_delays_no_other_and_gets_its_own_when_it_is_back(store, outboxes):
    with Server(silent) as dead, Web() as web:
        box = outboxes(WebhookReceiver("dead", f"http://127.0.0.1:{dead.port}", timeout_s=600), WebhookReceiver("live", web.url))
        box.start()
        store.apply([note(n, receiver=name) for n in range(1, 4) for name in ("dead", "live")])
        box.wake()
        web.got.wait_for(3)
        assert box.results.wait_for(3) == [("live", "sent")] * 3
        assert (box.queue_length("dead"), box.queue_length("live")) == (3, 0)
        assert box.last_success("live") is not None
        assert box.last_success("dead") is None
        dead.__exit__()  # the hanging delivery ends, so that the courier can


def test_retries_go_on_until_the_receiver_takes_it_and_the_log_has_a_line_per_change(store, outboxes):
    with Web(["500 Oops", "429 Slow\nRetry-After: 0", "503 No", "200 OK"]) as web, structlog.testing.capture_logs() as lines:
        box = outboxes(webhook(web.url), patience=QUICK)
        store.apply([note()])
        box.wake()
        assert box.results.wait_for(4) == [("ops", "failed")] * 3 + [("ops", "sent")]
        box.stop(WAIT_S)
    assert len({request.headers["idempotency-key"] for request in web.got.all}) == 1
    assert [line["event"] for line in lines] == ["receiver_failing", "receiver_recovered"]
    assert outbox_rows(store) == [("1/opened/0/ops", "sent", 4, None)]


def test_what_one_life_could_not_send_the_next_one_does(store, outboxes):
    first = outboxes(webhook(f"http://127.0.0.1:{free_port()}"), patience=QUICK)
    store.apply([note()])
    first.wake()
    first.results.wait_for(2)
    first.stop(WAIT_S)
    with Web() as web:
        second = outboxes(webhook(web.url))
        second.start()
        web.got.wait_for(1)
        second.results.wait_for(1)
        third = outboxes(webhook(web.url))
        third.start()
        assert third.last_success("ops") is not None
        assert third.queue_length("ops") == 0


SENDER = """
    import sys, threading
    from supervisor.adapters.clock import Clock
    from supervisor.adapters.notify import Outbox
    from supervisor.adapters.store import OutboxQueue
    from supervisor.core.settings import WebhookReceiver
    box = Outbox(lambda: OutboxQueue(sys.argv[1]), {"ops": WebhookReceiver("ops", sys.argv[2])}, Clock().now, lambda *_: None)
    box.start()
    threading.Event().wait(60)
"""


def test_a_crash_between_sending_and_noting_it_has_one_effect_at_a_receiver_that_looks_at_the_key(store, outboxes):
    store.apply([note()])
    child, effects, tries = [], {}, Facts()

    def behave(connection):
        request = read_request(connection)
        effects[request.headers["idempotency-key"]] = request.body
        if not tries.all:
            child[0].send_signal(signal.SIGKILL)
            child[0].wait(WAIT_S)
        tries.add(request)
        connection.sendall(b"HTTP/1.1 204 Done\r\n\r\n")

    with Server(behave) as server:
        url = f"http://127.0.0.1:{server.port}"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ready = threading.Lock()
        with ready:
            child.append(subprocess.Popen([sys.executable, "-c", textwrap.dedent(SENDER), store.path, url], env=environment))
        tries.wait_for(1)
        child[0].wait(WAIT_S)
        assert outbox_rows(store)[0][1] == "due"
        box = outboxes(webhook(url))
        box.start()
        tries.wait_for(2)
        box.results.wait_for(1)
    assert list(effects) == ["1/opened/0/ops"]
    assert outbox_rows(store)[0][1] == "sent"


def test_what_waits_for_a_receiver_that_left_the_config_is_dropped_and_counted(store, outboxes):
    store.apply([note(receiver="gone"), note(2, receiver="gone")])
    box = outboxes(webhook("http://127.0.0.1:1"))
    with structlog.testing.capture_logs() as lines:
        box.start()
    assert box.results.all == [("gone", "dropped")] * 2
    assert [(line["event"], line["count"]) for line in lines] == [("notifications_dropped", 2)]


BAD_RECEIVERS = [
    (WebhookReceiver("x", "file:///etc/passwd"), "receivers.x: its url is not an http or https address"),
    (WebhookReceiver("x", "http://h/canary\r\nX: y z"), "receivers.x: its url has a character that must be percent-encoded"),
    (AlertmanagerReceiver("x", ()), "receivers.x: it has no urls"),
    (EmailReceiver("x", ("a@b\r\nBcc: c@d",), "m@b"), "receivers.x: 'a@b\\r\\nBcc: c@d' is not a mail address"),
    (EmailReceiver("x", (), "m@b"), "receivers.x: it has no recipients"),
    (
        EmailReceiver("x", ("a@b",), "m@b", host="mail.example", username="u", password="canary"),
        "receivers.x: a password would go over the network in clear; set tls: starttls or tls: tls",
    ),
    (CommandReceiver("x", (), "/"), "receivers.x: its command is empty"),
]


@pytest.mark.parametrize(("receiver", "text"), BAD_RECEIVERS)
def test_a_receiver_that_can_never_work_is_a_config_error(outboxes, receiver, text):
    with pytest.raises(ConfigError) as error:
        outboxes(receiver)
    assert error.value.problems == [text]


# ---------------------------------------------------------------- a courier in fake time


class FakeTime:
    def __init__(self):
        self.s = 0.0
        self.jump_s = 0.0

    def __call__(self):
        return Now(Mono(self.s), T0 + timedelta(seconds=self.s + self.jump_s))


class FakeSender:
    """Says what *answer(batch)* says; keeps what it took."""

    repost_s = None

    def __init__(self, answer=lambda _: None, batch_max=1, pause_s=0.0):
        self.answer, self.batch_max, self.pause_s, self.took, self.tries = answer, batch_max, pause_s, [], 0

    def deliver(self, batch, openings):
        self.tries += 1
        failed = self.answer(batch)
        if failed is None:
            self.took.append([one.incident if one.kind is OPENED else -one.incident for one in batch])
        return failed

    def repost(self, standing):
        return None


class Play:
    """One courier over the real store on a fake clock."""

    def __init__(self, store, sender, **patience):
        self.time, self.sender, self.results = FakeTime(), sender, []
        self.queue = store.outbox()
        self.courier = Courier(
            "ops", sender, self.queue, self.time, on_result=lambda _, result: self.results.append(result), patience=Patience(**patience)
        )

    def run(self, until_s):
        while self.time.s < until_s:
            wait = self.courier.turn()
            if wait is None:
                return
            self.time.s += max(wait, 0.001)


def test_an_hour_of_outage_costs_few_tries_and_then_everything_arrives_in_order(store):
    sender = FakeSender(lambda _: Failed("down") if play.time.s < 3600 else None)
    play = Play(store, sender)
    store.apply([note(n) for n in range(1, 6)] + [note(n, CLOSED) for n in range(1, 6)])
    with structlog.testing.capture_logs() as lines:
        play.run(86400)
    assert play.time.s < 3600 + 2 * 400, "the receiver was back, and we did not notice for long"
    assert 10 < play.results.count("failed") < 40
    assert play.results.count("sent") == 10
    order = [one for batch in sender.took for one in batch]
    assert all(order.index(n) < order.index(-n) for n in range(1, 6))
    assert [line["event"] for line in lines] == ["receiver_failing", "receiver_recovered"]
    play.queue.close()


def test_retry_after_is_honoured(store):
    times = []

    def answer(_):
        times.append(play.time.s)
        return Failed("slow", retry_after_s=1000.0) if len(times) == 1 else None

    play = Play(store, FakeSender(answer))
    store.apply([note()])
    play.run(5000)
    assert len(times) == 2
    assert 1000.0 <= times[1] - times[0] < 1010
    play.queue.close()


def test_a_receiver_that_wants_a_pause_gets_it(store):
    play = Play(store, FakeSender(pause_s=1.0))
    store.apply([note(n) for n in range(1, 6)])
    play.run(3.5)
    assert play.sender.took == [[1], [2], [3], [4]]
    play.run(100)
    assert play.results == ["sent"] * 5
    play.queue.close()


def test_waits_double_up_to_their_cap_and_differ_from_one_another():
    waits = [Patience().wait_s(n, "key") for n in range(1, 40)]
    assert 0.75 <= waits[0] <= 1.25
    assert all(225 <= wait <= 375 for wait in waits[10:])
    assert len(set(waits)) == len(waits)
    assert Patience().wait_s(1, "a") != Patience().wait_s(1, "b")


def test_one_message_that_the_receiver_never_takes_holds_up_no_other(store):
    sender = FakeSender(lambda batch: Failed("bad request") if batch[0].incident == 1 else None)
    play = Play(store, sender)
    store.apply([note(1), note(1, CLOSED), *(note(n) for n in range(2, 8))])
    play.run(120)
    assert sorted(one for batch in sender.took for one in batch) == [2, 3, 4, 5, 6, 7]
    play.queue.close()


def test_the_oldest_beyond_the_cap_are_dropped_and_counted(store):
    play = Play(store, FakeSender())
    store.apply([note(n) for n in range(1, 1006)])
    play.run(100)
    assert play.results.count("dropped") == 5
    assert [one for batch in play.sender.took for one in batch] == list(range(6, 1006))
    play.queue.close()


def test_after_three_days_in_vain_it_is_given_up_and_counted(store):
    play = Play(store, FakeSender(lambda _: Failed("down")))
    store.apply([note()])
    play.run(4 * 86400)
    assert play.results[-1] == "dropped"
    assert play.results.count("dropped") == 1
    assert 3 * 86400 <= play.time.s < 3 * 86400 + 1000
    assert [(row[1], row[3]) for row in outbox_rows(store)] == [("dropped", "down")]
    play.queue.close()


@pytest.mark.parametrize("jump_s", [400 * 86400.0, -400 * 86400.0])
def test_a_wall_clock_that_jumps_neither_drops_nor_delays(store, jump_s):
    sender = FakeSender(lambda _: Failed("down") if play.time.s < 10 else None)
    play = Play(store, sender)
    store.apply([note()])
    play.run(5)
    play.time.jump_s = jump_s
    play.run(100)
    assert (play.sender.took, play.results.count("dropped")) == ([[1]], 0)
    play.queue.close()


def test_a_storm_goes_out_in_batches_and_the_count_is_right(store):
    play = Play(store, FakeSender(batch_max=50))
    store.apply([note(n) for n in range(1, 1001)])
    play.run(100)
    assert play.sender.tries <= 25
    assert play.results.count("sent") == 1000
    assert sorted(one for batch in play.sender.took for one in batch) == list(range(1, 1001))
    play.queue.close()


def test_a_few_notifications_go_out_one_by_one(store):
    play = Play(store, FakeSender(batch_max=50))
    store.apply([note(n) for n in range(1, 4)])
    play.run(100)
    assert play.sender.took == [[1], [2], [3]]
    play.queue.close()


def test_a_store_that_cannot_note_the_delivery_does_not_make_us_say_it_twice(store, monkeypatch):
    play = Play(store, FakeSender())
    store.apply([note()])
    marks = []
    real = play.queue.sent

    def sent(keys, now):
        marks.append(set(keys))
        if len(marks) < 4:
            raise StoreError("disk full")
        real(keys, now)

    monkeypatch.setattr(play.queue, "sent", sent)
    for _ in range(3):
        with pytest.raises(StoreError):
            play.courier.turn()
    play.run(10)
    assert (play.sender.tries, len(marks)) == (1, 4)
    assert outbox_rows(store)[0][1] == "sent"
    play.queue.close()


# ---------------------------------------------------------------- email


def mail_to(box, **more):
    return EmailReceiver("mail", ("ops@example.org", "b@example.org"), "mainstay@example.org", "127.0.0.1", box.port, **more)


def parsed(data):
    return email.message_from_bytes(data, policy=email.policy.default)


def test_an_incident_is_one_mail_thread_in_plain_text():
    with Mailbox() as box:
        for kind in (OPENED, REMINDER, CLOSED):
            assert give(mail_to(box), note(kind=kind, receiver="mail")) is None
        opened, reminder, closed = map(parsed, box.got.wait_for(3))
        assert give(mail_to(box), note(receiver="mail")) is None
        assert parsed(box.got.wait_for(4)[3])["Message-ID"] == opened["Message-ID"], "a repeat must be recognisable"
    assert opened["Subject"].strip() == "[Mainstay] critical: nightly: recursion: walk() called itself 400 deep"
    assert closed["Subject"].strip().startswith("[Mainstay] over: nightly")
    assert opened["To"] == "ops@example.org, b@example.org"
    assert reminder["References"] == closed["References"] == opened["Message-ID"]
    assert len({opened["Message-ID"], reminder["Message-ID"], closed["Message-ID"]}) == 3
    assert opened.get_content_type() == "text/plain"
    assert "  - RecursionError in walk()" in opened.get_content()
    assert "seen 3 times" in opened.get_content()


def test_many_waiting_notifications_are_one_digest():
    with Mailbox() as box:
        batch = [note(n, receiver="mail", job=f"job-{n % 3}") for n in range(1, 31)]
        assert sender_for(mail_to(box), CLOCK).deliver(batch, {}) is None
        (digest,) = map(parsed, box.got.wait_for(1))
    assert digest["Subject"] == "[Mainstay] 30 notifications: job-0, job-1, job-2"
    assert digest.get_content().count("walk() called itself") == 30


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(exclude_categories=()) | st.sampled_from("\r\n\x1b\x00\u202e<>@{}`*."), max_size=300),
    st.sampled_from(list(NotificationKind)),
)
def test_no_text_of_a_job_can_add_a_header_or_steer_a_terminal(text, kind):
    hostile = f"x\r\nBcc: thief@example.org\r\n\r\n{text}"
    made = note(kind=kind, job=hostile, summary=hostile, outcome=hostile, severity=hostile, evidence=[hostile, 7, None, {"a": hostile}])
    mail = message([made], EmailReceiver("m", ("a@example.org",), "m@example.org"))
    read = parsed(mail.as_bytes(policy=email.policy.SMTP))
    assert set(read.keys()) <= {
        "From", "To", "Date", "Auto-Submitted", "Subject", "Message-ID", "In-Reply-To", "References",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert read["To"] == "a@example.org"
    assert not {"\x1b", "\x00", "\u202e", "\r"} & set(read.get_content().replace("\r\n", "\n"))
    labels = alert(made, made, {}, T0)["labels"]
    assert all(value and value.isprintable() for value in labels.values())
    json.loads(document(made))


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=())), st.integers(1, 50))
def test_one_line_is_one_clean_line(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    line.encode()


@pytest.mark.parametrize(
    ("refuse", "detail"),
    [
        ({"RCPT": "550 no such user"}, "refused all recipients (550)"),
        ({"MAIL": "451 try later"}, "answered 451 try later"),
        ({"DATA": "554 spam hunter2"}, "answered 554 spam ***"),
        ({"AUTH": "535 wrong: hunter2"}, "answered 535 wrong: ***"),
        ({"EHLO": "500 what", "HELO": "500 what"}, "answered 500 what"),
    ],
)
def test_a_mail_servers_refusal_is_told_without_the_password(refuse, detail):
    with Mailbox(refuse) as box:
        failed = give(mail_to(box, username="u", password="hunter2"))
        assert failed == Failed(f"smtp://127.0.0.1:{box.port}: {detail}")
        assert box.got.all == []


def test_a_mail_server_that_closes_rudely_after_taking_the_mail_has_it():
    with Mailbox({"QUIT": "500 never"}) as box:
        assert give(mail_to(box)) is None
        box.got.wait_for(1)


def test_a_mail_server_that_talks_one_byte_at_a_time_or_for_ever_is_cut_off():
    def slow(connection):
        while True:
            connection.sendall(b"2")
            threading.Event().wait(0.02)

    def endless(connection):
        while True:
            connection.sendall(b"220-hello\r\n" * 1000)

    for behave, timeout_s, words in ((slow, 0.5, "no complete answer in time"), (endless, 20.0, "the answer is too long")):
        with Server(behave) as server:
            failed = give(mail_to(server, timeout_s=timeout_s))
            assert failed is not None
            assert words in failed.detail


def test_without_starttls_on_offer_nothing_is_sent_in_clear():
    with Mailbox() as box:
        assert give(mail_to(box, tls="starttls", username="u", password="p")).detail.endswith("offers no STARTTLS")
        assert not any("AUTH" in line for line in box.said.all)


@needs_openssl
@pytest.mark.parametrize("tls", ["tls", "starttls"])
def test_mail_over_tls_checks_the_certificate(tmp_path, monkeypatch, tls):
    context, path = certificate(tmp_path)
    with Mailbox(tls=context, starttls=tls == "starttls") as box:
        receiver = mail_to(box, tls=tls, username="u", password="p")
        assert "its certificate is not valid" in give(receiver).detail
        monkeypatch.setenv("SSL_CERT_FILE", path)
        assert give(receiver) is None
        assert "[Mainstay] critical" in parsed(box.got.wait_for(1)[0])["Subject"]
        assert any(line.startswith("AUTH") for line in box.said.all)


# ---------------------------------------------------------------- command


def script(tmp_path, code):
    path = tmp_path / "hook.py"
    path.write_text(textwrap.dedent(code))
    return CommandReceiver("ops", (sys.executable, str(path), str(tmp_path)), str(tmp_path))


def test_a_command_gets_json_and_none_of_our_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MAINSTAY_CANARY", "secret-canary")
    receiver = script(
        tmp_path,
        """
        import json, os, sys
        open(sys.argv[1] + "/got", "w").write(json.dumps([json.load(sys.stdin), dict(os.environ), os.getcwd()]))
        """,
    )
    assert give(receiver) is None
    body, environment, directory = json.loads((tmp_path / "got").read_text())
    assert (body["job"], body["key"], directory) == ("nightly", "1/opened/0/ops", str(tmp_path))
    assert set(environment) <= {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LC_CTYPE"}


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import sys; sys.exit(3)", "exited 3"),
        ("import sys; sys.exit('first\\nlast \\x1b[31mword')", "exited 1: last  [31mword"),
        ("import os; os.kill(os.getpid(), 15)", "died by signal 15"),
        ("import sys; [sys.stderr.write('x' * 65536) for _ in range(200)]; sys.exit(4)", "exited 4: " + "x" * 199 + "…"),
    ],
)
def test_a_command_that_fails_is_told_with_its_last_word(tmp_path, code, detail):
    receiver = script(tmp_path, code)
    assert give(receiver) == Failed(f"{sys.executable}: {detail}")


def test_a_command_that_is_missing_is_told(tmp_path):
    assert (
        give(CommandReceiver("ops", ("/no/such",), str(tmp_path))).detail
        == "/no/such: cannot be started: /no/such: No such file or directory"
    )


def test_a_command_that_leaves_a_child_behind_is_done_when_it_is_done_itself(tmp_path):
    receiver = script(
        tmp_path,
        """
        import os, sys, time
        if os.fork() == 0:
            open(sys.argv[1] + "/pid", "w").write(str(os.getpid()))
            time.sleep(60)
            os._exit(0)
        while not os.path.exists(sys.argv[1] + "/pid") or not open(sys.argv[1] + "/pid").read():
            pass
        """,
    )
    try:
        assert give(receiver) is None
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_the_time_out_of_a_command_kills_its_whole_group(tmp_path):
    receiver = script(
        tmp_path,
        """
        import os, signal, socket, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        connection = socket.create_connection(("127.0.0.1", int(open(sys.argv[1] + "/port").read())))
        connection.send(b"x")
        time.sleep(600)
        """,
    )
    up, ended = Facts(), Facts()

    def behave(connection):
        up.add(connection.recv(1))
        connection.recv(1)
        ended.add("gone")

    def clock():  # time passes only when both processes are up
        return Now(Mono(100.0 if len(up.all) == 2 else 0.0), T0)

    with Server(behave) as server:
        (tmp_path / "port").write_text(str(server.port))
        failed = sender_for(structs.replace(receiver, timeout_s=0.1), clock).deliver([note()], {})
        assert failed.detail.endswith("not done after 0.1 s; killed")
        ended.wait_for(2)


# ---------------------------------------------------------------- secrets


def test_no_secret_reaches_a_log_or_the_database(store, outboxes, tmp_path):
    url_secret, header_secret, signing, password = (f"canary{n}" for n in range(4))
    with Web(["500 Oops canary0"]) as web, Mailbox({"AUTH": "535 no canary3"}) as box, structlog.testing.capture_logs() as lines:
        netloc = f"user:{url_secret}@127.0.0.1:{web.port}/{url_secret}?t={url_secret}"
        made = outboxes(
            WebhookReceiver("hook", f"http://{netloc}", secret=signing, headers={"Authorization-2": header_secret}),
            WebhookReceiver("odd", f"http://{netloc}", headers={"X": f"{header_secret}\r\nY: z"}),
            WebhookReceiver("kyrillic", f"http://{netloc}", headers={"X": f"{header_secret}\u0416"}),
            AlertmanagerReceiver("am", (f"http://{netloc}",)),
            mail_to(box, username="u", password=password),
            patience=QUICK,
        )
        names = ("hook", "odd", "kyrillic", "am", "mail")
        store.apply([note(n, receiver=name) for n, name in enumerate(names, 1)])
        made.wake()
        made.results.wait_for(15)
        while {name for name, _ in made.results.all} != set(names):
            made.results.wait_for(len(made.results.all) + 1)
        made.stop(WAIT_S)
    assert {line["event"] for line in lines} == {"receiver_failing"}
    everything = repr(lines) + repr(outbox_rows(store)) + repr(made.__dict__) + "".join(map(repr, made._senders.values()))
    assert "canary" not in everything
    assert {r.headers["authorization"][:6] for r in web.got.all if r.line} == {"Basic "}


# ---------------------------------------------------------------- Alertmanager


def test_an_alert_keeps_the_labels_it_opened_with_and_cleans_them():
    opening = note(severity="critical")
    closing = note(kind=CLOSED, severity="warning", summary="fine again")
    ends = T0 + timedelta(minutes=9)
    first = alert(opening, opening, {"team-name": "da\nta", "9": "x", "empty": "", "alertname": "mine"}, ends)
    last = alert(closing, opening, {"team-name": "da\nta", "9": "x", "empty": "", "alertname": "mine"}, ends)
    assert first["labels"] == last["labels"] == {
        "alertname": "MainstayIncident", "job_name": "nightly", "outcome": "recursion", "severity": "critical", "incident": "1",
        "fingerprint": "ab12", "team_name": "da ta", "_9": "x",
    }  # fmt: skip
    assert (first["startsAt"], first["endsAt"]) == ("2026-03-01T12:00:00+00:00", "2026-03-01T12:09:00+00:00")
    assert last["endsAt"] == "2026-03-01T12:05:00+00:00"
    assert last["annotations"]["summary"] == "fine again"
    backwards = alert(note(kind=CLOSED, closed_at="2020-01-01T00:00:00Z"), opening, {}, ends)
    assert backwards["endsAt"] == backwards["startsAt"], "the API refuses an end before the start"


def test_every_member_is_told_and_one_of_them_is_enough():
    with Web() as one, Web() as two, structlog.testing.capture_logs() as lines:
        receiver = AlertmanagerReceiver("am", (one.url, f"http://127.0.0.1:{free_port()}", f"{two.url}/prefix/"), timeout_s=20)
        sender = sender_for(receiver, CLOCK)
        assert sender.deliver([note()], {}) is None
        assert sender.deliver([note()], {}) is None
        assert one.got.wait_for(2)[0].line == "POST /api/v2/alerts HTTP/1.1"
        assert two.got.wait_for(2)[0].line == "POST /prefix/api/v2/alerts HTTP/1.1"
    assert [line["event"] for line in lines] == ["alertmanager_member_failing"]


def test_no_member_at_all_is_a_failure():
    urls = tuple(f"http://127.0.0.1:{free_port()}" for _ in range(2))
    assert give(AlertmanagerReceiver("am", urls)) == Failed(f"{urls[0]}: Connection refused")


def test_open_incidents_are_said_again_also_by_the_next_life(store, outboxes):
    with Web() as web:
        receiver = AlertmanagerReceiver("ops", (web.url,), repost_s=0.05)
        first = outboxes(receiver)
        store.apply([incident_row(1), incident_row(2), note(1), note(2)])
        first.wake()
        web.got.wait_for(6)
        first.stop(WAIT_S)
        seen = len(web.got.all)
        store.apply([incident_row(1, closed_at=T0), note(1, CLOSED)])
        second = outboxes(receiver)
        second.start()
        second.results.wait_for(1)
        requests = web.got.wait_for(seen + 8)[seen:]
    posts = [[(one["labels"]["incident"], one["endsAt"] > CLOCK().wall.isoformat()) for one in json.loads(r.body)] for r in requests]
    assert posts.count([("1", False)]) == 1
    assert set(map(tuple, posts)) == {(("1", False),), (("2", True),)}


ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


class RealAlertmanager:
    """The real program on the loopback, without its gossip port."""

    def __init__(self, folder, port, cluster=()):
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        config = folder / "alertmanager.yml"
        config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
        arguments = [f"--config.file={config}", f"--storage.path={folder / f'am{port if cluster else str()}'}"]
        arguments.append(f"--web.listen-address=127.0.0.1:{port}")
        self._process = subprocess.Popen(
            [ALERTMANAGER, *arguments, *(cluster or ["--cluster.listen-address="]), "--log.level=error"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        self.until(lambda: self._get("/-/ready") is not None)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(WAIT_S)

    def _get(self, path):
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def alerts(self):
        return json.loads(self._get("/api/v2/alerts") or "[]")

    def until(self, fact):
        pause, end = threading.Event(), CLOCK().mono + WAIT_S
        while not fact():
            assert CLOCK().mono < end, f"never came true; alerts: {self.alerts()}"
            pause.wait(0.05)


@pytest.mark.real
@pytest.mark.skipif(ALERTMANAGER is None, reason="Alertmanager is not installed")
def test_the_real_alertmanager_has_one_alert_per_incident_until_it_closes(store, outboxes, tmp_path):
    now = CLOCK().wall
    port = free_port()
    receiver = AlertmanagerReceiver("ops", (f"http://127.0.0.1:{port}",), labels={"team-name": "data\x07"}, repost_s=0.2)
    opened = {n: note(n, at=now, opened_at=now.isoformat()) for n in (1, 2)}
    box = outboxes(receiver, patience=QUICK)
    with RealAlertmanager(tmp_path, port) as real_one:
        store.apply([incident_row(1), incident_row(2), *opened.values()])
        box.wake("ops")
        real_one.until(lambda: len(real_one.alerts()) == 2)
        first = {one["labels"]["incident"]: one for one in real_one.alerts()}
        assert first["1"]["labels"] == {
            "alertname": "MainstayIncident", "job_name": "nightly", "outcome": "recursion", "severity": "critical", "incident": "1",
            "fingerprint": "ab12", "team_name": "data",
        }  # fmt: skip
        assert first["1"]["annotations"]["summary"] == "walk() called itself 400 deep"
        store.apply([note(1, REMINDER, at=now, severity="page")])
        box.wake("ops")
        box.results.wait_for(3)
        real_one.until(lambda: all(one["updatedAt"] > first[one["labels"]["incident"]]["updatedAt"] for one in real_one.alerts()))
        again = real_one.alerts()
        assert sorted((one["labels"]["incident"], one["status"]["state"]) for one in again) == [("1", "active"), ("2", "active")]
        assert {one["fingerprint"] for one in again} == {one["fingerprint"] for one in first.values()}
        box.stop(WAIT_S)
    # Alertmanager and Mainstay both start anew, Alertmanager without its memory: the open incidents are there again.
    shutil.rmtree(tmp_path / "am")
    with RealAlertmanager(tmp_path, port) as real_one:
        box = outboxes(receiver, patience=QUICK)
        box.start()
        real_one.until(lambda: len(real_one.alerts()) == 2)
        closed = CLOCK().wall
        store.apply(
            [incident_row(1, closed_at=closed), note(1, CLOSED, at=closed, opened_at=now.isoformat(), closed_at=closed.isoformat())]
        )
        box.wake("ops")
        real_one.until(lambda: [one["labels"]["incident"] for one in real_one.alerts()] == ["2"])
        before = real_one.alerts()[0]["updatedAt"]
        real_one.until(lambda: real_one.alerts()[0]["updatedAt"] > before)
        assert [one["labels"]["incident"] for one in real_one.alerts()] == ["2"]
        box.stop(WAIT_S)


def test_who_heard_by_escalation_is_reminded_of_it_as_of_an_opening(store):
    queue = store.outbox()
    store.apply([incident_row(1), note(1), note(1, NotificationKind.ESCALATED), note(1, NotificationKind.ESCALATED, receiver="boss")])
    queue.sent({"1/opened/0/ops", "1/escalated/0/ops", "1/escalated/0/boss"}, T0)
    assert [one.kind.value for one in queue.standing("ops")] == ["opened"]
    assert [one.kind.value for one in queue.standing("boss")] == ["escalated"]
    assert queue.openings("boss", {1})[1].kind is NotificationKind.ESCALATED
    assert queue.openings("ops", {1})[1].kind is OPENED
    queue.close()


@pytest.mark.real
@pytest.mark.skipif(ALERTMANAGER is None, reason="Alertmanager is not installed")
def test_each_member_of_a_real_cluster_has_the_alert_and_loses_it_at_the_end_though_one_was_away(store, outboxes, tmp_path):
    now = CLOCK().wall
    ports, gossip = [free_port(), free_port()], [free_port(), free_port()]
    arguments = [
        [f"--cluster.listen-address=127.0.0.1:{gossip[0]}"],
        [f"--cluster.listen-address=127.0.0.1:{gossip[1]}", f"--cluster.peer=127.0.0.1:{gossip[0]}"],
    ]
    receiver = AlertmanagerReceiver("ops", tuple(f"http://127.0.0.1:{port}" for port in ports), repost_s=0.2)
    box = outboxes(receiver, patience=QUICK)
    with RealAlertmanager(tmp_path, ports[0], arguments[0]) as one:
        with RealAlertmanager(tmp_path, ports[1], arguments[1]) as two:
            two.until(lambda: len(json.loads(two._get("/api/v2/status"))["cluster"]["peers"]) == 2)
            store.apply([incident_row(1), note(1, at=now, opened_at=now.isoformat(), drill=True)])
            box.wake("ops")
            for member in (one, two):
                member.until(lambda member=member: len(member.alerts()) == 1)
                assert member.alerts()[0]["labels"]["drill"] == "true"
        before = one.alerts()[0]["updatedAt"]
        one.until(lambda: one.alerts()[0]["updatedAt"] > before)  # said again to the one that is left
        with RealAlertmanager(tmp_path, ports[1], arguments[1]) as two:
            two.until(lambda: len(two.alerts()) == 1)  # and to the other when it is back
            closed = CLOCK().wall
            ending = note(1, CLOSED, at=closed, opened_at=now.isoformat(), closed_at=closed.isoformat(), drill=True)
            store.apply([incident_row(1, closed_at=closed), ending])
            box.wake("ops")
            for member in (one, two):
                member.until(lambda member=member: member.alerts() == [])
            box.stop(WAIT_S)
