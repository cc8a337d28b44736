"""What each receiver is told, in its own format: Slack, PagerDuty, apprise, mail in HTML, templates; and that no text of a job breaks out of it."""

import email
import email.policy
import html.parser
import http.server
import json
import random
import re
import string
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receivers import WAIT_S, Facts, Server, Web, read_request

from supervisor.adapters.clock import Clock
from supervisor.adapters.notify import Failed, sender_for
from supervisor.adapters.notify.alertmanager import alert
from supervisor.adapters.notify.apprise import is_installed
from supervisor.adapters.notify.apprise import message as apprise_message
from supervisor.adapters.notify.mail import message as mail_message
from supervisor.adapters.notify.pagerduty import event
from supervisor.adapters.notify.slack import BREAK, TEXT_CHARS, payload
from supervisor.adapters.notify.webhook import document, signature
from supervisor.core.records import Notification, NotificationKind
from supervisor.core.settings import (
    AlertmanagerReceiver,
    AppriseReceiver,
    EmailReceiver,
    Layout,
    PagerDutyReceiver,
    SlackReceiver,
    WebhookReceiver,
)
from supervisor.core.template import FIELDS, parse

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CLOCK = Clock().now
ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = list(NotificationKind)
LINKED = Layout(external_url="https://mainstay.example.org")


def note(kind=NotificationKind.OPENED, incident=7, **body):
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
        "closed_at": (T0 + timedelta(minutes=5)).isoformat() if kind is NotificationKind.CLOSED else None,
        "closed_because": "run 9 succeeded" if kind is NotificationKind.CLOSED else None,
        "occurrences": 3,
        "last_run": 8,
        "duration_seconds": 300.0,
        "kind": kind.value,
        **body,
    }
    return Notification(f"{incident}/{kind}/ops", "ops", kind, incident, T0, json.dumps(full))


def give(receiver, *notes):
    return sender_for(receiver, CLOCK).deliver(list(notes) or [note()], {})


# ---------------------------------------------------------------- Slack


def test_slack_gets_one_message_with_the_whole_story():
    with Web() as web:
        assert give(SlackReceiver("s", f"{web.url}/services/T0/B0/x", layout=LINKED)) is None
        (got,) = web.got.wait_for(1)
    assert got.line == "POST /services/T0/B0/x HTTP/1.1"
    text = json.loads(got.body)["text"]
    assert text.startswith("*critical: nightly: recursion: walk() called itself 400 deep*\n")
    assert "  - RecursionError in walk()" in text
    assert "  - killed the job" in text
    assert text.endswith("More: https://mainstay.example.org/incidents/7")


def test_slack_gets_a_crowd_as_one_message():
    made = payload([note(incident=n, job=f"job-{n}") for n in range(1, 13)], SlackReceiver("s", "http://h"))
    assert made["text"].splitlines()[0] == "*12 notifications of Mainstay*"
    assert len(made["text"].splitlines()) == 13


def test_a_message_to_slack_calls_nobody_and_links_nowhere_else():
    hostile = (
        "<!channel> <@U123> <https://evil.example|click> &lt; @channel @here [a](https://evil.example) ![](https://evil.example/x.png)"
    )
    text = payload([note(summary=hostile)], SlackReceiver("s", "http://h"))["text"]
    assert not set("<>") & set(text)
    assert re.findall(r"&(?!(?:amp|lt|gt);)", text) == []
    assert "&amp;lt; @" in text
    assert not re.search(r"@\w|\]\(", text)
    assert f"@{BREAK}channel" in text


def test_the_answer_429_of_slack_comes_with_its_wish():
    with Web(["429 Slow\nRetry-After: 30"]) as web:
        failed = give(SlackReceiver("s", f"{web.url}/services/canary"))
    assert failed == Failed(f"{web.url}: answered 429 Too Many Requests", 30.0)


# ---------------------------------------------------------------- PagerDuty


def test_pagerduty_gets_trigger_acknowledge_and_resolve_with_one_key():
    with Web(["202 Accepted"]) as web:
        receiver = PagerDutyReceiver("p", "R0UTE", f"{web.url}/v2/enqueue", layout=LINKED)
        for kind in KINDS:
            assert give(receiver, note(kind)) is None
        events = [json.loads(request.body) for request in web.got.wait_for(len(KINDS))]
    assert [one["event_action"] for one in events] == ["trigger", "trigger", "trigger", "acknowledge", "resolve"]
    assert {one["dedup_key"] for one in events} == {f"mainstay-ab12-7-{int(T0.timestamp() * 1000)}"}
    assert {one["routing_key"] for one in events} == {"R0UTE"}
    payload_ = events[0]["payload"]
    assert (payload_["severity"], payload_["component"], payload_["class"]) == ("critical", "nightly", "recursion")
    assert payload_["custom_details"]["evidence"] == ["RecursionError in walk()", "no exit condition"]
    assert events[0]["links"] == [{"href": "https://mainstay.example.org/incidents/7", "text": "the incident"}]


# ---------------------------------------------------------------- webhook: the receiver's side, as docs/notifications.md has it


def test_the_documented_verification_takes_our_posts_and_no_others():
    (snippet,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs" / "notifications.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    found: dict = {}
    exec(snippet, found)
    verify = found["verify"]
    now = 1_767_225_600
    body = document(note())
    good = signature("s3cret", str(now), body)
    assert verify(b"s3cret", str(now), good, body, now)
    assert not verify(b"s3cret", str(now), good, body + b" ", now), "another body"
    assert not verify(b"other", str(now), good, body, now), "another secret"
    assert not verify(b"s3cret", str(now + 1), good, body, now), "another time"
    assert not verify(b"s3cret", str(now), good, body, now + 3600), "played again an hour later"
    assert not verify(b"s3cret", "soon", good, body, now)


# ---------------------------------------------------------------- apprise

needs_apprise = pytest.mark.skipif(not is_installed(), reason="apprise is not installed (the extra of that name)")


class JsonSink:
    """An HTTP server for apprise's json:// service."""

    def __enter__(self):
        self.got = Facts()
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.got.add((self.path, json.loads(body)))
                self.send_response(200 if "down" not in self.path else 500)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT_S)


@needs_apprise
def test_apprise_delivers_from_a_process_of_its_own():
    import sys

    loaded = set(sys.modules)
    with JsonSink() as sink:
        receiver = AppriseReceiver("a", (f"json://127.0.0.1:{sink.port}/canary",), timeout_s=WAIT_S)
        assert give(receiver, note(summary=r"a\nb {{x}} %s")) is None
        ((path, got),) = sink.got.wait_for(1)
    assert path == "/canary"
    assert got["title"] == r"critical: nightly: recursion: a\nb {{x}} %s"
    assert "  - RecursionError in walk()" in got["message"]
    assert got["type"] == "failure"
    assert "apprise" not in set(sys.modules) - loaded, "nothing of it is loaded here"


@needs_apprise
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("json://127.0.0.1:{port}/down/canary", "at least one of its services did not take the message"),
        ("nosuchservice://canary", "it knows no service for one of the urls"),
    ],
)
def test_what_apprise_cannot_deliver_is_told_without_its_url(url, words):
    with JsonSink() as sink:
        failed = give(AppriseReceiver("a", (url.format(port=sink.port),), timeout_s=WAIT_S))
    assert failed == Failed(f"apprise: {words}")


@needs_apprise
def test_apprise_that_hangs_is_killed_in_time():
    with Server(lambda connection: (read_request(connection), connection.recv(1))) as hanging:
        failed = give(AppriseReceiver("a", (f"json://127.0.0.1:{hanging.port}/",), timeout_s=3.0))
    assert failed == Failed("apprise: not done after 3 s; killed")


def test_apprise_without_the_library_is_an_error_that_says_how(monkeypatch):
    monkeypatch.setattr("supervisor.adapters.notify.apprise.is_installed", lambda: False)
    with pytest.raises(ValueError, match="install the extra"):
        sender_for(AppriseReceiver("a", ("json://h",)), CLOCK)


# ---------------------------------------------------------------- templates

TEMPLATE = Layout(
    parse("{severity}/{job}: {summary}"),
    parse("{host}\n- {evidence}\nby {acknowledged_by}\n{link}\n{{literal}}"),
    "https://m.example.org",
)


def test_a_template_shapes_what_every_receiver_is_told():
    from supervisor.adapters.notify.text import host

    body = f"{host()}\n- RecursionError in walk()\n- no exit condition\nhttps://m.example.org/incidents/7\n{{literal}}"
    head = "critical/nightly: walk() called itself 400 deep"
    made = note()
    assert payload([made], SlackReceiver("s", "http://h", layout=TEMPLATE))["text"] == f"{head}\n{body}"
    assert event(made, PagerDutyReceiver("p", "k", layout=TEMPLATE))["payload"]["summary"] == head
    mail = mail_message([made], EmailReceiver("m", ("a@b",), "m@b", layout=TEMPLATE))
    assert (mail["Subject"], mail.get_content()) == (head, body + "\n")
    annotations = alert(made, made, {}, T0, TEMPLATE)["annotations"]
    assert (annotations["summary"], annotations["description"]) == (head, body + "\n")
    told = apprise_message([made], AppriseReceiver("a", ("x://",), layout=TEMPLATE))
    assert (told["title"], told["body"]) == (head, body + "\n")
    sent = json.loads(document(made, TEMPLATE))
    assert (sent["subject"], sent["text"], sent["link"]) == (head, body + "\n", "https://m.example.org/incidents/7")


def test_a_template_may_use_slacks_own_format_and_a_job_may_not():
    layout = Layout(parse("<!here> *{job}*"), None)
    text = payload([note(job="<!channel>")], SlackReceiver("s", "http://h", layout=layout))["text"]
    assert text.startswith("*<!here> *&lt;!channel&gt;**\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_drill_says_so_to_every_receiver_whatever_its_template(kind):
    made = note(kind, drill=True)
    for layout in (Layout(), Layout(parse("{job}"), parse("{summary}"))):
        assert "drill" in payload([made], SlackReceiver("s", "http://h", layout=layout))["text"].casefold()
        mail = mail_message([made], EmailReceiver("m", ("a@b",), "m@b", html=True, layout=layout))
        parts = [part.get_content() for part in mail.walk() if part.get_content_maintype() == "text"]
        assert len(parts) == 2
        assert all("drill" in text.casefold() for text in (mail["Subject"], *parts))
        made_alert = alert(made, made, {}, T0, layout)
        assert made_alert["labels"]["drill"] == "true"
        assert all("drill" in made_alert["annotations"][name].casefold() for name in ("summary", "description"))
        told = apprise_message([made], AppriseReceiver("a", ("x://",), layout=layout))
        assert all("drill" in told[name].casefold() for name in ("title", "body"))
        sent = event(made, PagerDutyReceiver("p", "k", layout=layout))
        assert sent["dedup_key"].startswith("mainstay-drill-")
        assert "payload" not in sent or "drill" in sent["payload"]["summary"].casefold()
        assert json.loads(document(made, layout))["drill"] is True


# ---------------------------------------------------------------- fuzz

NASTY = [
    "\r\nBcc: thief@example.org\r\n\r\n", "<!channel>", "<@U1>", "@here", "@everyone", "</pre><script>alert(1)</script>", "&lt;", "&amp", "{{", "}}",
    "{link}", "{evidence}", "](http://evil)", "![x](http://evil)", "\x1b[31m", "\x00", "\u202e", "\ud800", "\udcff", "\ufeff", "\u2028", "`" * 3, "*_~",
    '"', "'", "\\", "%s", "${X}", "😀", "é" * 50, "x" * 5000, "\n" * 20, "\t", "--\n", "=?utf-8?q?x?=", "http://a b", "javascript:alert(1)",
]  # fmt: skip


def random_text(rng):
    pieces = [rng.choice(NASTY) if rng.random() < 0.6 else "".join(rng.choices(string.printable, k=rng.randint(0, 12)))]
    while rng.random() < 0.6:
        pieces.append(rng.choice(NASTY))
    return "".join(pieces)


def random_value(rng):
    return rng.choice([random_text(rng), random_text(rng), None, 7, -1.5, True, [random_text(rng)], {"a": random_text(rng)}])


def random_body(rng):
    names = [
        "job", "outcome", "severity", "summary", "fingerprint", "evidence", "did", "will", "opened_at", "closed_at", "occurrences", "last_run",
        "duration_seconds", "closed_because", "acknowledged_by", "drill", "kind", "incident",
    ]  # fmt: skip
    body = {name: random_value(rng) for name in names if rng.random() < 0.9}
    for name in ("evidence", "did", "will"):
        if rng.random() < 0.8:
            body[name] = [random_value(rng) for _ in range(rng.choice([0, 1, 3, 200]))]
    return body


class Tags(html.parser.HTMLParser):
    """The tags of a page, and what addresses they hold."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses.update(value for _, value in attrs)


def check_every_renderer(made, layout):
    """Everything that must hold of what goes out, whatever the notification says."""
    slack = payload([made], SlackReceiver("s", "http://h", layout=layout))["text"]
    assert len(slack) <= TEXT_CHARS
    assert not set("<>") & set(slack)
    assert not re.search(r"&(?!(?:amp|lt|gt);)", slack)
    assert not re.search(r"@\w|\]\(", slack)
    json.dumps(slack).encode("ascii")
    slack.encode()
    crowd = payload([made] * 8, SlackReceiver("s", "http://h", layout=layout))["text"]
    assert len(crowd.splitlines()) == 9

    sent = event(made, PagerDutyReceiver("p", "k", layout=layout))
    assert len(sent["dedup_key"]) <= 255
    assert sent["event_action"] in ("trigger", "acknowledge", "resolve")
    if "payload" in sent:
        assert 0 < len(sent["payload"]["summary"]) <= 1024
        assert sent["payload"]["severity"] in ("critical", "error", "warning", "info")
        assert len(json.dumps(sent)) < 512 * 1024
        datetime.fromisoformat(sent["payload"]["timestamp"])

    mail = mail_message([made], EmailReceiver("m", ("a@example.org",), "m@example.org", html=True, layout=layout))
    read = email.message_from_bytes(mail.as_bytes(policy=email.policy.SMTP), policy=email.policy.default)
    assert set(read.keys()) <= {
        "From", "To", "Date", "Auto-Submitted", "Subject", "Message-ID", "In-Reply-To", "References",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert read["To"] == "a@example.org"
    plain, page = (part.get_content() for part in read.walk() if part.get_content_maintype() == "text")
    assert not {"\x1b", "\x00", "\u202e"} & set(plain + page)
    tags = Tags()
    tags.feed(page)
    assert tags.tags <= {"html", "body", "h3", "pre", "p", "a"}
    assert tags.addresses <= {f"https://m.example.org/incidents/{made.incident}"}

    posted = alert(made, made, {}, T0, layout)
    assert all(value and value.isprintable() for value in posted["labels"].values())
    json.dumps(posted).encode("ascii")
    told = apprise_message([made], AppriseReceiver("a", ("x://",), layout=layout))
    assert len(told["title"].splitlines()) == 1
    assert told["type"] in ("failure", "warning", "info", "success")
    json.loads(document(made, layout))


EVERYTHING = Layout(
    parse("{" + "} {".join(FIELDS) + "}"), parse("\n".join(f"{name}: {{{name}}}" for name in FIELDS)), "https://m.example.org"
)


def fuzz_renderers(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        body = random_body(rng)
        text = json.dumps(body) if rng.random() < 0.95 else random_text(rng)
        made = Notification("k", "ops", rng.choice(KINDS), rng.randrange(1, 10**9), T0, text)
        try:
            check_every_renderer(made, EVERYTHING if rng.random() < 0.5 else LINKED_ELSEWHERE)
        except Exception as err:
            raise AssertionError(f"seed {seed}: {made!r}") from err


LINKED_ELSEWHERE = Layout(external_url="https://m.example.org")


def test_no_text_of_a_job_breaks_out_of_any_format():
    fuzz_renderers(1, 60)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_text_of_a_job_breaks_out_of_any_format_in_a_long_run():
    fuzz_renderers(2, 1_000)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_template_or_an_error_that_names_its_place(text):
    from supervisor.core.template import TemplateError, render

    problem = ""
    try:
        template = parse(text)
    except TemplateError as err:
        problem = str(err)
    if problem:
        assert re.match(r"line \d+, column \d+: ", problem)
        return
    values = dict.fromkeys(FIELDS, "{job} {{ x")
    assert render(template, values).count("{job} {{ x") == sum(not isinstance(part, str) for line in template.lines for part in line)


def test_a_rendered_template_is_bounded():
    from supervisor.core.template import CHARS_MAX, render

    text = render(parse("{evidence}\n" * 100), {"evidence": ("x" * 1000,) * 50})
    assert len(text) <= CHARS_MAX + 2


# ---------------------------------------------------------------- secrets


def test_no_receiver_shows_its_secrets_in_any_form():
    canaries = [
        SlackReceiver("s", "http://127.0.0.1:1/canary"),
        PagerDutyReceiver("p", "canary", "http://127.0.0.1:1/v2/enqueue"),
        WebhookReceiver("w", "http://127.0.0.1:1/canary", "canary", {"Authorization": "canary"}),
        AppriseReceiver("a", ("json://127.0.0.1:1/canary",)),
        EmailReceiver("m", ("a@b",), "m@b", port=1, username="u", password="canary"),
    ]
    for receiver in canaries:
        if isinstance(receiver, AppriseReceiver) and not is_installed():
            continue
        assert "canary" not in repr(receiver)
        sender = sender_for(receiver, CLOCK)
        assert "canary" not in repr(vars(sender))
        failed = sender.deliver([note()], {})
        assert failed is not None
        assert "canary" not in failed.detail


def test_an_alertmanager_gets_the_page_of_the_incident():
    with Web() as web:
        assert give(AlertmanagerReceiver("am", (web.url,), layout=LINKED)) is None
        (got,) = web.got.wait_for(1)
    (sent,) = json.loads(got.body)
    assert sent["generatorURL"] == sent["annotations"]["link"] == "https://mainstay.example.org/incidents/7"
