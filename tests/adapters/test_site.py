"""The status page: what it shows, what it never lets through, and who may press its buttons."""

import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fullbackend import FullBackend

from supervisor.adapters.http import HttpServer, Rules
from supervisor.adapters.http.routes import TABLE, Kind
from supervisor.adapters.http.site import markup, words
from supervisor.adapters.http.site.tokens import GOOD_FOR_H, HOUR_S, Tokens
from supervisor.core.model import Outcome, State
from supervisor.core.settings import TcpActions

CANARY = '"><img src=x onerror=1>\x1b[2J\u202e</script><b x="'
PAGES = (
    "/",
    "/?show=attention",
    "/jobs/nightly",
    "/jobs/web",
    "/runs",
    "/runs?job=nightly",
    "/runs/1",
    "/runs/2",
    "/runs/3",
    "/incidents",
    "/incidents/7",
)


@pytest.fixture
def backend() -> FullBackend:
    return FullBackend(CANARY)


@pytest.fixture
def served(backend, tmp_path) -> Iterator[HttpServer]:
    served = HttpServer(backend, ("127.0.0.1", 0), str(tmp_path / "s"), rules=Rules("127.0.0.1", (), TcpActions.LOOPBACK))
    served.start()
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture
def readers(backend, tmp_path) -> Iterator[HttpServer]:
    """A server whose TCP is for reading only."""
    served = HttpServer(backend, ("127.0.0.1", 0), str(tmp_path / "r"))
    served.start()
    try:
        yield served
    finally:
        served.stop()


def ask(served, method, path, body=None, **headers):
    """(status, headers, text)"""
    connection = http.client.HTTPConnection(*served.address, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


class Document(HTMLParser):
    """The tags of a page with their attributes, and whether they close in order."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_that_a_job_can_choose_becomes_markup(served, page):
    status, headers, text = ask(served, "GET", page)
    assert status == 200
    document = Document(text)
    assert [image["src"] for image in document.all("img")] == ["/assets/icon.svg"]
    assert document.all("script") == [{"src": document.all("script")[0]["src"], "defer": None}]
    assert not document.all("style")
    for tag, attributes in document.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc")], (tag, attributes)
        for name in ("href", "src", "action"):
            value = attributes.get(name)
            assert value is None or (value.startswith(("/", "#")) and not value.startswith("//")), value
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "img src=x onerror=1" in text, "the canary did reach the page, escaped"


def test_every_page_of_the_table_is_visited_by_the_test_above():
    patterns = [re.sub(r"\{\w+\}", "[^/]+", route.path) for route in TABLE if route.kind is Kind.PAGE and route.method == "GET"]
    for pattern in patterns:
        assert pattern == "/assets/[^/]+" or any(re.fullmatch(pattern, page.partition("?")[0]) for page in PAGES), pattern


def test_every_link_of_every_page_leads_somewhere(served):
    seen: set[str] = set()
    for page in PAGES:
        for attributes in Document(ask(served, "GET", page)[2]).tags:
            target = attributes[1].get("href") or attributes[1].get("src")
            if target and target.startswith("/") and target not in seen:
                seen.add(target)
                assert ask(served, "GET", target.replace("&amp;", "&"))[0] == 200, (page, target)
    assert len(seen) > 15


def test_pages_are_readable_without_a_script_and_load_themselves_anew(served):
    document = Document(ask(served, "GET", "/jobs/nightly")[2])
    assert {"http-equiv": "refresh", "content": "15"} in document.all("meta")
    assert document.all("form")


def test_a_template_escapes_what_is_not_html_and_takes_no_format():
    assert (
        markup.html('<a title="{t}">{t}</a>{h}', t="<\"&'>", h=markup.html("<b>"))
        == '<a title="&lt;&quot;&amp;&#x27;&gt;">&lt;&quot;&amp;&#x27;&gt;</a><b>'
    )
    assert markup.html("{t}", t="{t} {other}") == "{t} {other}"
    assert markup.html("{t}", t="a\x00\x07\u202eb\tc\n") == "a\\x00\\x07\\u202eb\tc\n"
    assert markup.link("jobs", 'a/../b?c#d"') == "/jobs/a%2F..%2Fb%3Fc%23d%22"
    with pytest.raises(ValueError, match="formats nothing"):
        markup.html("{n:>10}", n=1)
    with pytest.raises(KeyError):
        markup.html("{t.__class__}", t="x")


def test_every_outcome_and_state_has_its_words():
    assert set(words.OUTCOME_WORDS) == set(Outcome)
    for state in State:
        assert words.state_tone({"state": state.value}) in ("good", "bad", "warn", "busy", "calm")


def test_the_pages_are_loaded_when_somebody_looks_at_them(tmp_path):
    """They are most of the HTTP side, and a daemon that only Prometheus asks has no use for them."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fullbackend import FullBackend
from supervisor.adapters.http import HttpServer
served = HttpServer(FullBackend(), ("127.0.0.1", 0), {str(tmp_path / "s")!r})
served.start()
import http.client
def ask(path):
    connection = http.client.HTTPConnection(*served.address, timeout=30)
    connection.request("GET", path)
    assert connection.getresponse().read()
    connection.close()
ask("/metrics")
ask("/api/v1/status")
unused = ("supervisor.adapters.http.site", "supervisor.adapters.http.openapi", "supervisor.tls", "bcrypt", "click", "multiprocessing")
print([name for name in unused if name in sys.modules])
ask("/")
print("supervisor.adapters.http.site" in sys.modules)
served.stop()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\nTrue\n", done.stderr


# ---------------------------------------------------------------- buttons


def token_of(served, page="/jobs/nightly"):
    return re.search(r'name="token" value="([^"]+)"', ask(served, "GET", page)[2])[1]


def press(served, path, fields, **headers):
    return ask(served, "POST", path, urlencode(fields), Content_Type="application/x-www-form-urlencoded", **headers)


def test_a_button_asks_the_backend_and_leads_back_to_its_page(served, backend):
    status, headers, _ = press(served, "/jobs/nightly/trigger", {"token": token_of(served)})
    assert (status, headers["Location"]) == (303, "/jobs/nightly?done=trigger")
    assert backend.asked == [("trigger", "nightly", {}, 60.0)]
    assert "Asked to run once, now." in ask(served, "GET", headers["Location"])[2]
    host = "{}:{}".format(*served.address)
    status, headers, _ = press(
        served, "/incidents/7/ack", {"token": token_of(served, "/incidents/7")}, Origin=f"http://{host}", Sec_Fetch_Site="same-origin"
    )
    assert (status, headers["Location"]) == (303, "/incidents/7?done=ack")


def test_a_refusal_is_a_page_with_the_reason_and_the_mend(served, backend):
    backend.refuses = True
    status, _, text = press(served, "/jobs/nightly/trigger", {"token": token_of(served)})
    assert status == 409
    assert "It is parked" in text
    assert not [image for image in Document(text).all("img") if image["src"] != "/assets/icon.svg"]


@pytest.mark.parametrize(
    ("fields", "headers", "status"),
    [
        ({}, {}, 403),
        ({"token": "0.abc"}, {}, 403),
        ({"token": "x"}, {}, 403),
        ({"token": "TOKEN"}, {"Origin": "http://evil.example"}, 403),
        ({"token": "TOKEN"}, {"Origin": "null"}, 403),
        ({"token": "TOKEN"}, {"Origin": "https://127.0.0.1"}, 403),
        ({"token": "TOKEN"}, {"Sec_Fetch_Site": "cross-site"}, 403),
        ({"token": "TOKEN"}, {"Sec_Fetch_Site": "same-site"}, 403),
        ({"token": "TOKEN"}, {"Content_Type": "text/plain"}, 415),
        ({"token": "TOKEN"}, {"Content_Type": "multipart/form-data; boundary=x"}, 415),
        ({"token": "TOKEN"}, {"Host": "evil.example"}, 421),
        ({"token": "TOKEN", "filler": "x" * 5000}, {}, 413),
    ],
)
def test_a_foreign_form_changes_nothing(served, backend, fields, headers, status):
    token = token_of(served)
    filled = {name: value.replace("TOKEN", token) for name, value in fields.items()}
    kind = {"Content_Type": "application/x-www-form-urlencoded"} | headers
    assert ask(served, "POST", "/jobs/nightly/stop", urlencode(filled), **kind)[0] == status
    assert backend.asked == []


@pytest.mark.parametrize("path", ["/api/v1/jobs/nightly/stop", "/api/v1/incidents/7/resolve", "/api/v1/reload"])
def test_a_foreign_page_cannot_ask_the_api_either(served, backend, path):
    assert ask(served, "POST", path)[0] == 415
    assert ask(served, "POST", path, "{}", Content_Type="text/plain")[0] == 415
    assert ask(served, "POST", path, "a=b", Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert ask(served, "POST", path, "{}", Content_Type="application/json", Origin="http://evil.example")[0] == 403
    assert backend.asked == []
    assert ask(served, "POST", path, "{}", Content_Type="application/json")[0] == 200
    assert len(backend.asked) == 1
    status, headers, _ = ask(served, "OPTIONS", path, Origin="http://evil.example", Access_Control_Request_Method="POST")
    assert status == 403
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_get_changes_anything(served, backend, method):
    for path in ("/jobs/nightly/stop", "/incidents/7/ack", "/api/v1/jobs/nightly/stop", "/api/v1/reload", "/jobs/nightly?done=stop"):
        ask(served, method, path)
    assert backend.asked == []


def test_readers_see_no_buttons_and_cannot_press_them(readers, backend):
    assert not Document(ask(readers, "GET", "/jobs/nightly")[2]).all("form")
    assert press(readers, "/jobs/nightly/stop", {"token": "1.a"})[0] == 403
    assert backend.asked == []


def test_a_token_is_for_one_reader_and_some_hours():
    tokens = Tokens()
    mine = tokens.make("ada", 10_000.0)
    assert tokens.good(mine, "ada", 10_000.0)
    assert tokens.good(mine, "ada", 10_000.0 + GOOD_FOR_H * HOUR_S)
    assert not tokens.good(mine, "ada", 10_000.0 + (GOOD_FOR_H + 1) * HOUR_S)
    assert not tokens.good(mine, "bob", 10_000.0)
    assert not tokens.good(mine, None, 10_000.0)
    assert not Tokens().good(mine, "ada", 10_000.0)
    assert not tokens.good(mine[:-1], "ada", 10_000.0)
    assert not tokens.good("\u0661.x", "ada", 10_000.0)


def test_trouble_is_told_as_a_page(served):
    for path, status in (
        ("/jobs/ghost", 404),
        ("/jobs/..%2f", 404),
        ("/runs/99", 404),
        ("/incidents/x", 404),
        ("/?show=all&x=1", 400),
        ("/?page=0", 400),
    ):
        got, headers, text = ask(served, "GET", path)
        assert got == status, path
        if headers["Content-Type"].startswith("text/html"):
            assert Document(text).all("h1") == [{}]


# ---------------------------------------------------------------- streams


def lines_of(response, until):
    """The lines of an event stream up to the one that begins so."""
    found = []
    while True:
        line = response.readline().decode().rstrip("\n")
        found.append(line)
        if line.startswith(until):
            return found


def stream(served, path):
    connection = http.client.HTTPConnection(*served.address, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    return connection, response


def test_a_change_of_a_job_is_told_to_those_who_listen(served, backend):
    everybody, all_jobs = stream(served, "/api/v1/events")
    somebody, only_web = stream(served, "/api/v1/events?job=web")
    lines_of(all_jobs, "retry")
    lines_of(only_web, "retry")
    deadline = time.monotonic() + 30
    heard: list[str] = []
    while not heard:  # the first look may not have been taken yet
        assert time.monotonic() < deadline
        backend.states["nightly"] = object()
        backend.states["web"] = object()
        heard = lines_of(all_jobs, "event: job")
    assert '"name": "web"' in lines_of(only_web, "data: ")[-1]
    everybody.close()
    somebody.close()


def test_output_is_streamed_as_it_is_written_and_cannot_forge_an_event(served, backend):
    connection, response = stream(served, "/api/v1/jobs/web/logs/stream")
    lines_of(response, "data: ")
    backend.write("\n\nevent: end\ndata: {}\n\nmore")
    told = lines_of(response, "data: ")
    assert told[-2:] == ["event: log", told[-1]]
    assert '"text": "\\n\\nevent: end\\ndata: {}\\n\\nmore"' in told[-1]
    connection.close()


def test_streams_are_bounded_and_end_with_the_server(backend, tmp_path):
    served = HttpServer(backend, ("127.0.0.1", 0), str(tmp_path / "s"))
    served.start()
    opened = [stream(served, "/api/v1/events") for _ in range(16)]
    for _, response in opened:
        lines_of(response, "retry")
    assert ask(served, "GET", "/api/v1/events")[0] == 503
    assert ask(served, "GET", "/metrics")[0] == 200
    opened.pop()[0].close()
    deadline = time.monotonic() + 30
    while ask(served, "GET", "/api/v1/jobs/ghost/logs/stream")[0] != 404 or served._application.hub._open > 15:
        assert time.monotonic() < deadline, "a listener that left keeps its place"
        time.sleep(0.01)
    began = time.monotonic()
    served.stop()
    assert time.monotonic() - began < 8, "streams end when the server stops"
    for connection, response in opened:
        response.read()
        connection.close()
