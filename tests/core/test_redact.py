"""Secrets by their form, by the name beside them and by being known; and what is no secret stays."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.evidence import Evidence, ExceptionFacts, Exit, Frame, LastWords, Look, Stack
from supervisor.core.jobs import Job, Launch
from supervisor.core.redact import REDACTED, Redactor, is_secretive, looks_secret, secrets_in_arguments, secrets_in_settings, secrets_of
from supervisor.core.settings import AlertmanagerReceiver, EmailReceiver, WebhookReceiver

CANARY = "c4n4ry-Value"
FORMS = [
    f"curl --password={CANARY} x",
    f"curl --password {CANARY} x",
    f"mysql --db-password '{CANARY}'",
    f"['run', '--api-key', '{CANARY}', 'x']",
    f"password={CANARY}",
    f'{{"password": "{CANARY}"}}',
    f"{{'access_token': '{CANARY}', 'n': 1}}",
    f"DB_PASSWORD={CANARY}",
    f"AWS_SECRET_ACCESS_KEY={CANARY}",
    f"client_secret: {CANARY}",
    f"Authorization: Bearer {CANARY}",
    f"Authorization: Token {CANARY}",
    f"Bearer {CANARY}",
    f"Authorization: Basic {CANARY}==",
    f"postgresql://app:{CANARY}@db/orders",
    f"https://{CANARY}@github.example/x.git",
    f"GET /hook?token={CANARY}&user=ada",
    f"Cookie: {CANARY}",
    f"Endpoint=sb://x/;SharedAccessKey={CANARY}",
    f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\nMIIE\n-----END RSA PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{CANARY} and the rest is cut",
]
SHAPES = [
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "glpat-abcdefghij0123456789",
    "xoxb-1234567890-abcdefghij",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc",
]
HARMLESS = [
    "KeyError: 'token'",
    "ValueError: the password is too short",
    "walk → visit → walk (tree.py:20, tree.py:14), 52,560 levels deep",
    "https://example.org/path?page=2&size=10",
    "ada@example.org wrote to ops@example.org",
    "could not open /srv/app/data/users.csv: No such file or directory",
    "NameError: name 'session' is not defined",
    "Basic authentication failed",
    "asyncio.exceptions.CancelledError",
    "kernel: SIGKILL",
]


@pytest.mark.parametrize("text", FORMS)
def test_a_secret_is_taken_out_by_its_form_or_by_the_name_beside_it(text):
    made = Redactor().text(text)
    assert CANARY not in made, made
    assert REDACTED in made


@pytest.mark.parametrize("token", SHAPES)
def test_tokens_are_known_by_their_shape(token):
    assert Redactor().text(f"it said {token} and went") == f"it said {REDACTED} and went"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays_as_it_is(text):
    assert Redactor().text(text) == text


def test_a_known_secret_is_found_wherever_it_stands():
    redactor = Redactor([CANARY, "short", "line one\nline two"])
    assert redactor.text(f"x{CANARY}y short line two") == f"x{REDACTED}y short {REDACTED}"


def test_the_names_that_hide_their_values():
    assert all(map(is_secretive, ("DB_PASSWORD", "API_KEY", "KEY", "X-Auth-Token", "SENTRY_DSN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD")))
    assert not any(map(is_secretive, ("PATH", "MONKEY", "BATCH_SIZE", "KEYBOARD", "HOME", "PWD", "OLDPWD", "XDG_SESSION_TYPE")))
    assert is_secretive("MYSQL_PWD")
    assert looks_secret("a8f5f167f44f4964e6c998dee827110c")
    assert not any(map(looks_secret, ("/usr/local/bin:/usr/bin:/bin", "en_GB.UTF-8", "a sentence that has 3 words and more", "x" * 30)))


def test_what_a_job_is_given_is_known():
    launch = Launch(
        ("run", "--token", "from-argv-1", "--password=from-argv-2", "postgres://app:from-url@db/x", "--verbose"),
        "/",
        {"API_TOKEN": "from-environment", "DATABASE_URL": "mysql://root:from-address@db", "BATCH_SIZE": "1000"},
    )
    found = set(
        secrets_of(Job("j", launch), {"PGPASSWORD": "inherited", "HOME": "/root", "PWD": "/srv/app", "SSH_AUTH_SOCK": "/tmp/agent.7"})
    )
    assert found == {"from-argv-1", "from-argv-2", "from-url", "from-environment", "from-address", "inherited"}
    assert list(secrets_in_arguments(["x", "--token"])) == []


def test_what_receivers_are_given_is_known():
    found = {
        *secrets_in_settings(
            {
                "hook": WebhookReceiver(
                    "hook", "https://u:userinfo1@h/services/T0000/B0000/pathpathpath1?sig=query123", "signs-bodies", {"X-Token": "header"}
                ),
                "am": AlertmanagerReceiver("am", ("http://a:9093",), {"team": "ops"}),
                "mail": EmailReceiver("mail", ("ops@example.org",), "m@example.org", password="mailword"),
            }
        )
    }
    assert found == {"userinfo1", "u:userinfo1", "pathpathpath1", "query123", "signs-bodies", "header", "mailword"}


def test_every_text_of_the_evidence_is_seen_and_the_rest_is_left_alone():
    stack = Stack(1, (Frame("f", "/srv/app.py", 1),) * 400, 400)
    words = LastWords(spoke=True, exception=ExceptionFacts("E", f"GET https://u:{CANARY}@h/ failed", (), 1, chain=(f"K: token={CANARY}",)))
    look = Look(stacks=(stack,), processes=(f"12 curl --password {CANARY}",), note="fine")
    evidence = Evidence(Exit(launch_error=f"cannot run: Bearer {CANARY}"), words, look=look)
    clean = Redactor().facts(evidence)
    assert CANARY not in repr(clean)
    assert clean.look.stacks[0] is stack
    assert clean.words.exception.message == f"GET https://{REDACTED}@h/ failed"
    plain = Evidence(Exit(code=1), look=Look(stacks=(stack,)))
    assert Redactor([CANARY]).facts(plain) is plain


pieces = st.sampled_from(
    ["password", "=", ":", "--token ", "eyJ", "://", "@", "'", '"', "Bearer ", "a", "-----BEGIN PRIVATE KEY-----", " ", "api-key", "."]
)


@settings(max_examples=30, deadline=None)
@given(st.lists(pieces, min_size=1, max_size=8).map(lambda few: ("".join(few) * 6000)[:16384]))
def test_no_text_makes_it_slow(text):
    redactor = Redactor([CANARY])
    begun = time.process_time()
    redactor.text(text)
    assert time.process_time() - begun < 1.0  # a pattern that backtracks takes minutes


@settings(deadline=None)
@given(st.lists(pieces | st.sampled_from([CANARY, "x1", "\n"]), max_size=20).map("".join))
def test_a_known_secret_survives_in_no_surroundings(text):
    redactor = Redactor([CANARY])
    once = redactor.text(text)
    assert CANARY not in once
    assert len(redactor.text(once)) <= len(once) + 10 * once.count(REDACTED)


@pytest.mark.parametrize("text", FORMS)
def test_each_form_is_stable(text):
    once = Redactor().text(text)
    assert Redactor().text(once) == once
