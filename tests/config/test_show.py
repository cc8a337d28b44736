"""The effective configuration: complete, with the origin of each value, without secrets, and loading again to the same meaning."""

from dataclasses import replace

import pytest
import yaml
from config_examples import GOOD
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.config.load import load
from supervisor.config.show import show
from supervisor.core import units
from supervisor.core.settings import Config, Settings

SERVICE = "jobs:\n  web:\n    command: [serve]\n    limits: {time: 7d}\n"


def meaning(config):
    """What a config says, wherever it was read from. Warnings name places in the file."""
    return replace(config, path="", warnings=())


@pytest.mark.parametrize("file", GOOD)
def test_what_is_shown_loads_again_and_means_the_same(file, write):
    config = load(write(file.read_text()))
    shown = show(config)
    again = load(write(shown, "shown.yaml"))
    assert meaning(again) == meaning(config)
    assert show(again).count("\n") == shown.count("\n")


def test_each_value_says_where_it_came_from(write, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/mainstay")
    config = load(write("defaults:\n  stop: {grace: 5s}\n" + SERVICE))
    lines = show(config).splitlines()
    assert lines[0].startswith("# The effective configuration: ")
    for line in (
        "  state_dir: /var/lib/mainstay  # $STATE_DIRECTORY",
        "    command: [serve]  # line 5",
        "    schedule: service  # default",
        "      memory: 512MiB  # default",
        "      time: 7d  # line 6",
        "      signal: TERM  # default",
        "      grace: 5s  # defaults, line 2",
    ):
        assert line in lines


def test_the_time_limit_of_a_service_says_why_it_is_not_the_usual_one(write):
    config = load(write("jobs:\n  web: {command: [serve]}\n  nightly: {command: [x], schedule: manual}\n"))
    lines = show(config).splitlines()
    assert [line for line in lines if line.lstrip().startswith("time:")] == [
        "      time: 52w  # default of a service",
        "      time: 1h  # default",
    ]
    assert meaning(load(write(show(config), "shown.yaml"))) == meaning(config)


def test_no_secret_is_shown(write, folder):
    secret = folder / "hook.secret"
    secret.write_text("canary-1")
    secret.chmod(0o600)
    config = load(
        write(
            SERVICE
            + "    environment: {DB_PASSWORD: canary-2, API_KEY: canary-3, PLAIN: seen, DB: 'pg://u:canary-7@h/d'}\n    alerts: {to: [r, a]}\n"
            "receivers:\n  r:\n    type: webhook\n    url: http://me:canary-4@127.0.0.1/\n    secret_file: hook.secret\n"
            "    headers: {Authorization: canary-5}\n  a: {type: alertmanager, urls: ['http://canary-6@127.0.0.1/']}\n"
        )
    )
    shown = show(config)
    assert config.receivers["r"].secret == "canary-1"
    assert "canary" not in shown
    assert 'environment: {DB_PASSWORD: "***", API_KEY: "***", PLAIN: seen, DB: "pg://***@h/d"}  # line 5; a secret is masked' in shown
    assert f"secret_file: {folder}/hook.secret" in shown
    assert "***@127.0.0.1" in shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("command: [run, --token=canary-1, --user, ada]", 'command: [run, "--token=***", "--user", ada]'),
        ("command: [run, --api-key, canary-2, --force]", 'command: [run, "--api-key", "***", "--force"]'),
        ("command: [env, DB_PASSWORD=canary-3, run]", 'command: [env, "DB_PASSWORD=***", run]'),
        ("command: [run, 'pg://u:canary-4@h/d?sslmode=require']", 'command: [run, "pg://***@h/d?sslmode=require"]'),
        ("command: [run, 'pg://u:can/ary-4@h/d']", 'command: [run, "pg://***@h/d"]'),
        ("command: [run, 'pg://u:c@nary/canary-4@h/d']", 'command: [run, "pg://***@h/d"]'),
        ("command: [run, 'http://h/x?a=1&token=canary-5']", 'command: [run, "http://h/x?a=1&token=***"]'),
        ("command: [run, 'Authorization: Bearer canary-6x']", 'command: [run, "Authorization: Bearer ***"]'),
        ("command: [run, --token-file, /etc/app/token, --key-path=/k]", 'command: [run, "--token-file", /etc/app/token, "--key-path=/k"]'),
        ("command: [run, --password, --verbose]", 'command: [run, "--password", "--verbose"]'),  # it is asked for
        ("shell: 'run --token=canary-7 | tee x'", 'shell: "run --token=*** | tee x"'),
        ("shell: 'TOKEN=canary-8 run'", 'shell: "TOKEN=*** run"'),
    ],
)
def test_a_secret_in_a_command_is_not_shown_and_the_rest_is(write, written, shown):
    text = show(load(write(f"jobs:\n  j:\n    {written}\n")))
    assert "canary" not in text
    line = next(line for line in text.splitlines() if line.strip().startswith(written.split(":")[0]))
    assert line.strip().partition("  #")[0] == shown
    assert ("a secret is masked" in line) == ("***" in shown)


def test_a_token_in_the_address_of_a_receiver_is_not_shown(write):
    hooks = {
        "r": "https://x.example/h?token=canary1",
        "s": "https://x.example/api/17/canary2AAAA1111bbbb2222cccc/send",
        "t": "https://x.example/h?code=canary3&sig=canary4#canary5=canary6",
    }
    text = "".join(f"  {name}: {{type: webhook, url: '{url}'}}\n" for name, url in hooks.items())
    shown = show(load(write(SERVICE + f"    alerts: {{to: [r, s, t]}}\nreceivers:\n{text}")))
    for found in ("https://x.example/h?token=***", "https://x.example/api/17/***/send", "https://x.example/h?code=***&sig=***#"):
        assert f'"{found}' in shown
    assert not [word for word in ("canary1", "canary2", "canary3", "canary4", "canary6") if word in shown]


def test_a_config_that_was_not_read_has_nothing_to_show():
    with pytest.raises(ValueError, match="was not read from a file"):
        show(Config("x", Settings("/x"), {}))


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
duration = st.integers(1000, 10**9).map(lambda ms: units.format_duration(ms / 1000))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(text, min_size=1, max_size=4).filter(lambda words: words[0]),
    environment=st.dictionaries(st.from_regex(r"[A-Z][A-L]{0,5}", fullmatch=True), text, max_size=3),
    memory=st.integers(2**20, 2**50),
    grace=st.integers(0, 3600 * 1000).map(lambda ms: units.format_duration(ms / 1000)),
    every=duration,
    jitter=st.integers(0, 10**6).map(lambda n: units.format_ratio(n / 10**6)),
    description=text,
)
def test_any_values_survive_being_shown(write, words, environment, memory, grace, every, jitter, description):
    body = {
        "command": words,
        "environment": environment,
        "limits": {"memory": units.format_size(memory)},
        "stop": {"grace": grace},
        "schedule": {"every": every},
        "restart": {"backoff": {"jitter": jitter}},
        "description": description,
    }
    config = load(write(yaml.safe_dump({"jobs": {"j": body}}, default_style='"')))
    job = config.jobs["j"]
    assert (job.launch.argv, job.launch.environment, job.description) == (tuple(words), environment, description)
    assert job.limits.memory_bytes == memory
    assert meaning(load(write(show(config), "shown.yaml"))) == meaning(config)
