"""Secrets by their form, by the name beside them and by being known; and what is no secret stays."""

import errno
import json
import os
import re
import time
import urllib.parse
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core import complaints, redact
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
    f"postgres://app:Kan@{CANARY}@db/x",
    f"postgres://app:Kan/{CANARY}@db/x",
    f"postgres://app:K@n/{CANARY}@db/x",
    f"postgres://app:/K@n/{CANARY}@db.example:5432/x",
    f"two: http://a:8080/x,amqp://u:Kan/{CANARY}@mq1/,amqp://u:{CANARY}@mq2/",
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
    "https://registry.example/@babel/core and http://localhost:8080/@vite/client",
    "http://[::1]:8080/users/ada@example.org",
    "https://example.org/users/ada@example.org?cc=ops@example.org",
    "see 'http://db:5432/x','ops@example.org'",
    "file:///C:/x@2.png",
    "oci://registry:5000/team/image@sha256:0123",
    "could not open /srv/app/data/users.csv: No such file or directory",
    "NameError: name 'session' is not defined",
    "Basic authentication failed",
    "asyncio.exceptions.CancelledError",
    "kernel: SIGKILL",
    "cannot execute '/tmp/x/htpasswd': Permission denied.",
    "cat: /run/secrets/token: No such file or directory",
    "open /etc/app/secret: permission denied",
    "bash: /usr/bin/htpasswd: No such file or directory",
    "/srv/app/rotate-token: line 3: psql: command not found",
    "htpasswd: command not found",
    "passwd: user 'bob' does not exist",
    "passwd: Authentication token manipulation error",
    "api_key: not set",
    "API_TOKEN: is not set",
    "db_password: must be at least 12 characters",
    "run.py: error: argument --token: expected one argument",
    "run.py: error: --token is required",
    "option --password requires an argument",
    "could not read the token: FileNotFoundError: [Errno 2] No such file or directory: '/run/x'",
    "token: [Errno 13] Permission denied: '/run/x'",
    "GET /token: 401 Client Error: Unauthorized for url",
    "SyntaxError: unexpected token: EOF",
    "jwt.exceptions.ExpiredSignatureError: Signature has expired",
    "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
    "gpg: signing failed: no secret: no such key",
]
# Words that stay where they stand before the sentence they begin, and nowhere else.
SPOKEN = """
    a is was are were has must should may can could will would cannot can't couldn't unable failed did does do not no missing unknown invalid
    unexpected illegal bad wrong incorrect empty malformed unrecognized unsupported expected duplicate command module key file entry user value
    secret object resource group line row column field argument parameter access authentication authorization permission connection the
    signature token credential credentials password passwords requires needs takes expects error error: warning: fatal: usage: [errno eof end
    newline indent dedent identifier punc operator keyword
"""
BEGINNINGS = {*SPOKEN.split()} | {text.lower().split()[0] for text in complaints.ERRNO_TEXTS}
NOT_SENTENCES = [  # the value stands in « »
    "password: «hunter2»",
    "password: «not»",  # nothing follows
    "password: «invalid»",
    "token: «abc»",
    "token: «abc» is not valid",  # the sentence is of its value
    "secret: «expired»",
    "passwd: «user»",
    "password:«not» set",  # no blank: nobody writes so
    "password:\n  «not» set",  # a file of settings may
    "password:\n  «no» such file or directory",
    "/run/secrets/db_password:«hunter2»",  # what grep prints
    "/run/secrets/db_password: «hunter2»",
    "unexpected token: «hunter2»",  # the file that was parsed may be the one with the passwords
    "invalid token: «EOF»",
    "API_KEY=«not» set",
    "export TOKEN=«no» such file",
    "token=«Permission» denied",
    '"token": "«not set»"',
    "Authorization: «error»",
    "X-Auth-Token: «missing»",
    "mysql --password «not»",
    "curl --token «is»",
    "curl --token «no» such file",
    "['--token', '«is» not set']",
    "password: «error:/x»",
    "password: «ValueError»",
    "password: «401»",
    "password: «No» such-file",
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


@pytest.mark.parametrize("text", NOT_SENTENCES)
def test_a_value_that_is_like_the_beginning_of_a_sentence_is_taken_out(text):
    assert Redactor().text(text.replace("«", "").replace("»", "")) == re.sub("«.*»", REDACTED, text)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
@pytest.mark.parametrize(
    "place", ["cat: /run/secrets/token: {}", "open '/srv/app/htpasswd': {}.", "db_password: {}\nnext", "credentials: {} (os error 13)"]
)
def test_what_the_kernel_says_of_a_file_stays_whatever_the_file_is_called(number, place):
    said = os.strerror(number)
    if " " not in said:
        pytest.skip("one word may always be the password")
    for text in (place.format(said), place.format(said.lower())):
        assert Redactor().text(text) == text


def test_a_known_secret_is_found_wherever_it_stands():
    redactor = Redactor([CANARY, "short", "line one\nline two"])
    assert redactor.text(f"x{CANARY}y short line two") == f"x{REDACTED}y short {REDACTED}"


@pytest.mark.parametrize("seen", range(4, len(CANARY)))
def test_what_is_left_of_a_known_secret_at_a_cut_is_taken_out(seen):
    redactor = Redactor([CANARY, "another-1"])
    message = "x" * 300 + CANARY[:seen]
    evidence = Evidence(Exit(code=1), LastWords(exception=ExceptionFacts("E", message, (), 1, chain=(f"K: {message}",))))
    error = redactor.facts(evidence).words.exception
    assert (error.message, error.chain) == ("x" * 300 + REDACTED, ("K: " + "x" * 300 + REDACTED,))
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIE\n" * 860 + "-----END PRIVATE KEY-----"
    assert redactor.end_of_output(f"{CANARY[-seen:]} {key} done\n", 100, is_cut=False) == f"{REDACTED} {REDACTED} done\n"
    assert redactor.end_of_output("done " + CANARY[:seen], 100, is_cut=True) == f"done {REDACTED}"


def test_only_what_may_have_been_cut_is_searched_for_the_beginnings_of_secrets():
    redactor = Redactor(["postgres-9", "aaaaaaab"])
    assert redactor.message("cannot reach postgres") == "cannot reach postgres"
    assert redactor.message("x" * 300 + " post office") == "x" * 300 + " post office"
    assert redactor.message("x" * 300 + "pos") == "x" * 300 + "pos"
    assert redactor.message("x" * 300 + "b" + "a" * 9) == "x" * 300 + "baa" + REDACTED
    assert redactor.end_of_output("aab and post\n", 100, is_cut=True) == "aab and post\n"
    whole = "aaab processed, now in postgres"  # ends and begins as secrets do
    assert redactor.end_of_output(whole, 100, is_cut=False) == whole


def test_the_end_of_an_output_has_its_bound_and_is_cut_after_secrets_were_seen():
    cut = redact.SLACK_BYTES * "a" + "-" + CANARY + "é" * 20
    made = Redactor([CANARY]).end_of_output(cut, 41, is_cut=True)
    assert made == "]" + "é" * 20
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIE\n" * 600 + "-----END PRIVATE KEY-----\n"
    assert Redactor().end_of_output(key + "done" * 100, 500, is_cut=True) == f"{REDACTED}\n" + "done" * 100


def test_no_bound_of_the_guard_is_below_what_is_looked_at():
    source = Path(redact.__file__).parents[1] / "guard" / "site" / "_mainstay_guard" / "report.py"
    text = source.read_text()
    bounds = [int(found) for found in re.findall(r"message_of\(\w+\)\[:(\d+)\]|MESSAGE_CHARS = (\d+)", text) for found in found if found]
    assert len(bounds) == 3
    assert min(bounds) >= redact._CUT_CHARS


@pytest.mark.parametrize("secret", ["Qx7\\C4nary9", "it's-c4nary", "c4n\"ry-it's", "ключ-c4nary", "tab\tc4nary", "p@ss/c4nary %é"])
def test_a_known_secret_is_found_as_programs_print_it(secret):
    address = urllib.parse.quote(secret)
    whole = urllib.parse.quote(secret, safe="")
    printed = [
        secret,
        repr(secret)[1:-1],
        repr(secret + " '\"")[1:-5],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        address,
        whole,
    ]
    for text in printed:
        assert Redactor([secret]).text(f"<{text}>") == f"<{REDACTED}>"
    for encoded in (address, whole):
        assert Redactor([encoded]).text(f"<{secret}>") == f"<{REDACTED}>"


@pytest.mark.parametrize("password", ["Kan@c4nary", "Kan/c4nary", "/Kan-c4nary", "K@n/c4nary", "Kan'c4nary", 'Kan"c4nary', "Kan%2Fc4nary"])
def test_a_password_in_an_address_is_known_whatever_is_in_it(password):
    redactor = Redactor(secrets_of(Job("j", Launch((), "/", {"URL": f"mysql://app:{password}@db/x?y=1"})), {}))
    for one in (password, urllib.parse.unquote(password)):
        assert redactor.text(f"login with {one} failed") == f"login with {REDACTED} failed"
    assert redactor.text("db/x?y=1 app") == "db/x?y=1 app"


def test_only_user_and_password_are_taken_out_of_an_address():
    made = Redactor().text("pip: git+https://ada:c4nary@github.example/o/r@v1.2 ssh://git@server/o/r@main")
    assert made == f"pip: git+https://{REDACTED}@github.example/o/r@v1.2 ssh://{REDACTED}@server/o/r@main"


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


def test_a_secret_may_begin_with_a_slash_and_a_place_is_none():
    secrets = {"DB_PASSWORD": "/x8KdCanary", "API_KEY": "/a/b8/Canary", "SEED": "q/83CanaryAAAbbbccc/01=="}
    places = {
        "SSH_AUTH_SOCK": "/tmp/agent.7",
        "XAUTHORITY": "/data/me/.Xauthority",
        "SUDO_ASKPASS": "/data/bin/ask",
        "PGPASSFILE": "/data/pg.pass",
        "VAULT_TOKEN_PATH": "/data/token",
        "CREDENTIALS_DIRECTORY": "/data/credentials",
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc/app/key.json",
        "TLS_PRIVATE_KEY": "/srv/app/key.pem",
        "INPUT": "share/python3/Data/2024/x",
    }
    assert set(secrets_of(Job("j", Launch((), "/", places)), secrets)) == set(secrets.values())


BESIDE_A_NAME = [  # the value stands in « »
    ["env", "DB_PASSWORD=«KanVal01»", "run"],
    ["sh", "-c", "DB_PASSWORD=«hunterhunter» exec run"],
    ["sh", "-c", "DB_PASS='«correct horse»' MODE=fast run --token \"«KanVal03»\""],
    ["host=db user=app password=«KanVal04»"],
    ["-H", "X-Api-Key: «correct-horse»"],
    ["-H", "Authorization: Bearer «KanVal05»"],
    ["https://api.example/v1?page=100000&token=«KanVal06»&sort=created_at"],
    ['{"user": "postgres", "password": "«KanVal07»"}'],
    ["-Dkeystore.password=«KanVal08»"],
    ["python3", "-c", "connect('db', password='«KanVal09»')"],
]
BESIDE_NO_NAME = [
    ["python3", "-c", "connect(host, password=password, token=get_token(1), key=itemgetter(0))"],
    ["python3", "-c", "raise KeyError('token: missing') from os.environ['DB_PASSWORD']"],
    ["python3", "-c", "token: Optional[str] = None; assert password == 'required'"],
    ["sh", "-c", "TOKEN=$(cat /data/token) API_KEY=$KEY_OF_API X_TOKEN=${TOKEN} run --token-file=/run/token"],
    ["curl", "-H", "Authorization: Bearer $API_TOKEN"],
    ["auth.type=oauth2 auth.mode=required max_tokens=100000 token_type=sha256"],
    ["cat: /run/secrets/token: No such file or directory"],
    ["PRIVATE_KEY=/srv/app/key.pem", "PASSWORD_FILE=/data/password"],
]


@pytest.mark.parametrize("argv", BESIDE_A_NAME)
def test_what_stands_beside_a_name_in_a_command_is_known(argv):
    bare = [word.replace("«", "").replace("»", "") for word in argv]
    marked = next(word for word in argv if "«" in word)
    in_a_variable = secrets_of(Job("j", Launch((), "/", {"OPTIONS": re.sub("[«»]", "", marked)})), {})
    for redactor in (Redactor(secrets_in_arguments(bare)), Redactor(in_a_variable)):
        for secret in re.findall("«(.*?)»", marked):
            assert secret not in redactor.text(f"login with {secret} failed"), argv
        harmless = "run exec postgres 100000 created_at keystore connect app db fast"
        assert redactor.text(harmless) == harmless


@pytest.mark.parametrize("argv", BESIDE_NO_NAME)
def test_words_of_a_script_are_no_secrets(argv):
    assert [found for found in secrets_in_arguments(argv) if len(found) >= redact.SHORTEST and found != "/run/token"] == []


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


names = st.sampled_from(["password", "DB_PASSWORD", "/run/secrets/token", "api_key", "htpasswd", "client_secret", "credentials", "Cookie"])
values = st.from_regex(r"[A-Za-z][A-Za-z0-9!#%+._-]{0,20}", fullmatch=True)
ends = st.sampled_from(["", "\n", ", x", "; x", " x", " is not valid", " not set", ": No such file or directory", " (os error 13)"])
between = st.sampled_from([": ", ":", "=", " = ", ": \n", '": "', "': '"])


@settings(deadline=None, max_examples=400)
@given(names, between, values, ends)
def test_a_value_that_begins_no_sentence_is_taken_out_whatever_follows(name, separator, value, end):
    """The quote that the separator opens is closed, as in JSON and in a printed dict."""
    quote = separator[0] if separator[0] in "\"'" else ""
    text = f"{quote}{name}{separator}{value}{quote}{end}"
    if value.lower() not in BEGINNINGS:
        assert Redactor().text(text).startswith(f"{quote}{name}{separator}{REDACTED}"), text


@settings(deadline=None)
@given(
    names,
    st.sampled_from(sorted(BEGINNINGS)),
    st.sampled_from(["", "\n", "\nset", ", not set", "; not found", '"', "hunter2", " hunter2", "=x"]),
)
def test_a_word_that_begins_sentences_is_taken_out_where_it_begins_none(name, word, end):
    made = Redactor().text(f"{name}: {word}{end}")
    assert re.match(rf"{name}: (token\s+)?\[redacted\]", made) or word.endswith(":"), (
        made
    )  # `Authorization: Token ...` names a scheme first


words = (
    st.sampled_from(
        [
            "password",
            "/run/secrets/token",
            "--api-key",
            "unexpected token",
            ": ",
            ":",
            "=",
            " ",
            "\n",
            "'",
            '"',
            ", ",
            "Bearer",
            "token",
            "hunter2",
            "x1",
        ]
    )
    | st.sampled_from(sorted(BEGINNINGS))
    | st.sampled_from(
        ["set", "found", "required", "is", "not", "such", "argument", "does not exist", "expired", "OSError: ", "401 Forbidden", "been"]
    )
    | st.sampled_from(complaints.ERRNO_TEXTS)
)
SPARED = BEGINNINGS | {"401", "oserror:"}


@settings(deadline=None, max_examples=1000)
@given(st.lists(words | st.just(" "), max_size=24).map("".join))
def test_all_that_sentences_spare_is_the_first_word_of_one(text):
    """Beside what was taken out before there were sentences: nothing else may stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact, "_is_prose", lambda _match: False)
        strict = Redactor().text(text)
    made = Redactor().text(text)
    more = Counter(made.replace(REDACTED, " ").split()) - Counter(strict.replace(REDACTED, " ").split())
    assert {word.lower() for word in more} <= SPARED, (strict, made)
    assert Redactor().text(made) == made or Redactor().text(strict) != strict


PROSE = ("walk visited 52,560 rows of /srv/app/tree.py:20 and wrote them to the table of orders\n" * 300)[:16384]
SLOW = 16  # times prose; what began anew at each dash took 60 times as long, the slowest that is left takes 5
MOTIFS = [
    *"-=_#*.:;@/&'\"[(<aA1é \n",
    *("---", "--\n", "--token", "-----BEGIN ", "-----END ", "://", "://a:", "://a:b@", "@/", "a@b ", "password", "secret--", "token: ", "not "),
    *("eyJ", "eyJaaaaaaaa.", "Bearer ", "Basic a", "ghp_", "xoxb-", "\\", "%40", "''", "'\"", "[redacted]", "=[redacted]", "unexpected token: "),
]  # fmt: skip


@pytest.mark.parametrize("motif", MOTIFS)
@pytest.mark.parametrize("often", [1, 30])
def test_no_run_of_like_characters_costs_many_times_what_prose_does(motif, often):
    """An output may end with any separator: what is made of it holds the only loop of the daemon."""
    redactor = Redactor([CANARY])
    text = ((motif * often + "\n" * (often > 1)) * 16384)[:16384]

    def least_cpu_s(text):
        spent = []
        for _ in range(3):
            begun = time.process_time()
            redactor.text(text)
            spent.append(time.process_time() - begun)
        return min(spent)

    assert least_cpu_s(text) < SLOW * max(0.002, least_cpu_s(PROSE))
