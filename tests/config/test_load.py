"""config.yaml as a whole: what is accepted and what it means, what is refused with which words, and the file itself."""

import os
import socket
import time

import pytest
import yaml
from config_examples import BAD, GOOD
from msgspec.structs import replace

from supervisor import errors
from supervisor.config import document
from supervisor.config.load import find_config, load
from supervisor.core.jobs import (
    SERVICE_TIME_S,
    AlertPolicy,
    Backoff,
    Budget,
    CatchUp,
    Cron,
    Escalation,
    Every,
    Expect,
    Job,
    Launch,
    Limits,
    LogPolicy,
    Manual,
    OutputAction,
    Overlap,
    RestartPolicy,
    RestartWhen,
    Schedule,
    Service,
    StopPolicy,
    Window,
)
from supervisor.core.model import Outcome
from supervisor.core.remedy import ChangeEnvironment, HealPolicy, Park, RunCommand, SetAside, TryAgain
from supervisor.core.settings import (
    AlertmanagerReceiver,
    CommandReceiver,
    EmailReceiver,
    LogFormat,
    LogLevel,
    Settings,
    TcpActions,
    WebhookReceiver,
)

JOB = "jobs:\n  nightly:\n    command: [python, nightly.py]\n    schedule: manual\n"
HOOK = "receivers:\n  ops: {type: webhook, url: http://127.0.0.1:1, SECRET}\n".replace("SECRET", "secret_file: hook.secret")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is protected from other people's files")


def good(name):
    return next(param.values[0].read_text() for param in GOOD if param.id == name)


def problems(path):
    with pytest.raises(errors.ConfigError) as refusal:
        load(path)
    return refusal.value.problems


@pytest.mark.parametrize("file", GOOD)
def test_a_good_file_loads(file, write):
    assert load(write(file.read_text())).jobs


@pytest.mark.parametrize("file", BAD)
def test_a_bad_file_is_refused_with_the_message_in_its_first_line(file, write, folder):
    text = file.read_text()
    path = write(text)
    expected = text.splitlines()[0].removeprefix("# ").replace("{directory}", str(folder))
    assert problems(path) == [f"{path}:{expected}"]


def test_a_minimal_config_has_exactly_the_defaults_of_the_model(write, folder):
    config = load(write(good("minimal")))
    assert config.settings == Settings(state_dir=str(folder / "var"))
    hello = Job("hello", Launch(("echo", "hello"), str(folder)), limits=replace(Limits(), time_s=SERVICE_TIME_S))
    assert dict(config.jobs) == {"hello": hello}
    assert dict(config.receivers) == {}


def test_every_key_arrives_in_its_field(write, folder):
    config = load(write(good("full")))
    hosts, web_config = ("mainstay.example.org", "mainstay"), str(folder / "web.yml")
    assert config.settings == Settings(
        "/var/lib/example", ("::1", 9400), LogLevel.DEBUG, LogFormat.JSON, 30.0, hosts, web_config, TcpActions.NEVER
    )
    environment = {"BATCH_SIZE": "1000", "MODE": "0755", "FLAG": "no", "VERSION": "3.10", "EMPTY": "", "TILDE": "~", "WORD": "null"}
    assert config.jobs["every-key"] == Job(
        name="every-key",
        launch=Launch(
            argv=("python", "-c", "print('a # b: {c}')", "010", "no", "", "1:30"),
            directory=str(folder / "work"),
            environment=environment,
            user="root",
            group="0",
            groups=("0",),
            umask=0o027,
            nice=10,
            guard=False,
        ),
        schedule=Schedule(Every(5400.0), 90.0, CatchUp.ALL, 21600.0, Overlap.REPLACE),
        limits=Limits(3 * 2**29, 2**30, 5000, 7200.0, 3600.0, 300.0, 64, 1024, 2**40, OutputAction.DROP),
        restart=RestartPolicy(
            when=RestartWhen.ALWAYS,
            backoff=Backoff(0.5, 1.5, 90.0, 0.125),
            budget=Budget(0, 3600.0),
            retry_on=frozenset({Outcome.EXCEPTION, Outcome.MEMORY}),
            park_on=frozenset({Outcome.RECURSION, Outcome.CRASHED}),
            stable_s=300.0,
        ),
        stop=StopPolicy("INT", 0.0),
        expect=Expect(86400.0, 100, frozenset({0, 3})),
        alerts=AlertPolicy(("ops", "hook"), 3, 86400.0, "info", Escalation(1800.0, ("mail",))),
        logs=LogPolicy(65536, 3),
        heal=HealPolicy(
            5,
            {
                "memory": (
                    TryAgain(),
                    ChangeEnvironment({"BATCH_SIZE": "100", "MODE": "slow"}),
                    SetAside(),
                    RunCommand(("./clean", "--all"), 5.0, 64 * 2**20),
                    Park(),
                ),
                "failed": (),
            },
        ),
        enabled=False,
        description='Every key: says what it does | with signs, ünïcode and "quotes"',
        maintenance=(Window("backups", Every(86400.0), 1800.0),),
        multiprocess_metrics=True,
    )
    patching = Window("patching", Cron("0 3 * * 0", "Europe/Berlin"), 7200.0)
    assert config.jobs["cron"].maintenance == (patching, Window("backups", Every(86400.0), 1800.0))
    assert config.jobs["cron"].launch.argv == ("/bin/sh", "-c", "a | b && c # not a comment")
    assert config.jobs["cron"].schedule == Schedule(Cron("0 0 * * *", "Europe/London"), overlap=Overlap.ALLOW)
    assert config.jobs["cron"].expect.success_exit_codes == {0, 99}
    assert dict(config.receivers) == {
        "ops": AlertmanagerReceiver("ops", ("http://127.0.0.1:9093", "https://am.example.org/prefix"), {"team": "ops"}, 30.0, 5.0),
        "hook": WebhookReceiver("hook", "https://example.org/hook?x=1", None, {"X-Team": "ops"}, 0.5),
        "mail": EmailReceiver(
            "mail", ("a@example.org", "b@example.org"), "m@example.org", "mail.example.org", 465, "tls", None, None, 60.0
        ),
        "script": CommandReceiver("script", ("./tell", "--loud"), str(folder / "bin"), 2.0),
    }


def test_the_example_of_the_contract_means_what_it_says(write, folder):
    config = load(write(good("example")))
    job = config.jobs["user-metrics"]
    assert job.launch.argv == ("python", "jobs/user_metrics.py", "--source", "data/quantum-se")
    assert job.launch.directory == str(folder)
    assert job.schedule == Schedule(Every(60.0))
    assert job.limits == Limits(512 * 2**20, 400 * 2**20, 400, 120.0, 90.0, 30.0, 16, 256, 64 * 2**20)
    assert job.restart == RestartPolicy()
    assert job.expect == Expect(600.0, 1)
    assert job.alerts == AlertPolicy(("ops",), 1, 14400.0, "critical")
    assert config.settings == Settings(str(folder / "var"))
    assert config.warnings == ()


def test_a_jobs_own_keys_go_over_the_defaults_key_by_key(write):
    jobs = load(write(good("defaults"))).jobs
    default, own = jobs["as-default"], jobs["own"]
    assert default.launch.argv == ("python", "-m", "app")
    assert default.schedule == Schedule(Cron("0 3 * * *", "Europe/London"), 30.0, overlap=Overlap.REPLACE)
    assert default.expect.success_exit_codes == {0, 2}
    assert own.launch.argv == ("/bin/sh", "-c", "echo own")
    assert own.schedule == Schedule(Every(600.0), 30.0, overlap=Overlap.REPLACE)  # neither cron nor its time zone is left
    assert own.launch.environment == {"A": "from defaults", "B": "own", "C": "own"}
    assert own.limits == replace(Limits(), memory_bytes=512 * 2**20, time_s=300.0)  # cpu: null takes the line away again
    assert own.restart == RestartPolicy(backoff=Backoff(first_s=3.0, max_s=60.0))  # lists replace
    assert own.expect.success_exit_codes == {0, 7}
    assert jobs["triggered"].schedule.when == Manual()
    assert jobs["service"].schedule.when == Service()


def test_defaults_for_schedules_make_no_service_a_timed_job(write):
    jobs = load(write(good("partial_schedule"))).jobs
    assert jobs["timed"].schedule == Schedule(Every(60.0), catch_up=CatchUp.LAST, overlap=Overlap.REPLACE)
    assert jobs["service"].schedule == Schedule(Service())


def test_a_service_that_names_no_time_limit_is_not_ended_every_hour(write):
    jobs = load(
        write(
            "jobs:\n  bare: {command: [x]}\n  said: {command: [x], schedule: service, limits: {cpu: 1h, stall: 2h}}\n"
            "  own: {command: [x], limits: {time: 7d}}\n  asked: {command: [x], schedule: manual}\n  timed: {command: [x], schedule: {every: 1m}}\n"
        )
    )
    year = 52 * 7 * 86400.0
    assert jobs.warnings == ()
    assert {name: job.limits.time_s for name, job in jobs.jobs.items()} == {
        "bare": year,
        "said": year,
        "own": 7 * 86400.0,
        "asked": 3600.0,
        "timed": 3600.0,
    }


def test_the_time_limit_under_defaults_holds_for_services_too(write):
    jobs = load(
        write(
            "defaults: {limits: {time: 3d}}\njobs:\n  web: {command: [x], limits: {memory: 1GiB}}\n  timed: {command: [x], schedule: manual}\n"
        )
    ).jobs
    assert {name: job.limits.time_s for name, job in jobs.items()} == {"web": 3 * 86400.0, "timed": 3 * 86400.0}


def test_the_environment_is_the_file_and_over_it_the_map(write):
    job = load(write(good("environment"))).jobs["hello"]
    assert job.launch.environment == {"A": "from map", "B": "quoted # not a comment", "C": "x=y", "EMPTY": ""}


def test_how_often_a_script_may_start_itself_is_the_jobs_to_set(write):
    job = load(write(JOB + '    environment: {MAINSTAY_LINEAGE_MAX: "40"}\n')).jobs
    assert [each.launch.environment for each in job.values()] == [{"MAINSTAY_LINEAGE_MAX": "40"}]
    for name in ("MAINSTAY_LINEAGE_MAXIMUM", "MAINSTAY_LINEAGE", "MAINSTAY_PAGE"):
        assert "is set by Mainstay itself" in problems(write(JOB + f'    environment: {{{name}: "40"}}\n'))[0]


def test_a_wrong_environment_file_is_named_with_its_line_and_without_its_text(write, folder):
    (folder / "bad.env").write_text("A=1\nhunter2\nB-C=1\n")
    path = write(JOB + "    environment_file: bad.env\n")
    complaint = "is not KEY=VALUE; write one variable in each line"
    assert problems(path) == [f"{folder}/bad.env:2:1: {complaint}", f"{folder}/bad.env:3:1: {complaint}"]


def test_all_problems_are_told_at_once_and_in_the_order_of_the_file(write):
    path = write(
        "supervisor: {listen: 9321}\ndefaults: {nice: 99}\njobs:\n  a: {command: x, limits: {memory: 5, tiem: 3}}\n"
        "  b: {nice: 7, alerts: {to: [nobody]}}\n  a: {}\nreceivers:\n  r: {type: pager}\nextra: 1\n"
    )
    assert [line.removeprefix(path).split("; ")[0] for line in problems(path)] == [
        ':1:22: supervisor.listen: "9321" has no host',
        ":2:18: defaults.nice: 99 is out of range",
        ':4:16: jobs.a.command: "x" is one text',
        ':4:36: jobs.a.limits.memory: "5" has no unit',
        ':4:39: jobs.a.limits.tiem: there is no key "tiem" here',
        ":5:6: jobs.b: says nothing to run",
        ':5:30: jobs.b.alerts.to[0]: there is no receiver "nobody"',
        ':6:3: jobs.a: "a" is here twice, first in line 4',
        ':8:13: receivers.r.type: "pager" is not a type of receiver',
        ':9:1: extra: there is no key "extra" here',
    ]


def test_a_file_full_of_mistakes_is_answered_briefly(write):
    started = time.process_time()
    found = problems(write("jobs:\n" + "".join(f"  j{n}: {{comand: [x]}}\n" for n in range(30_000))))
    assert len(found) == 101
    assert "29900 more problems are not shown" in found[-1] or "59900 more problems are not shown" in found[-1]
    assert time.process_time() - started < 30


# ---------------------------------------------------------------- warnings


def warnings(path):
    return [line.removeprefix(path) for line in load(path).warnings]


def test_a_password_in_an_address_is_a_warning(write):
    found = warnings(write(JOB + "    alerts: {to: [r]}\nreceivers:\n  r: {type: webhook, url: 'http://me:hunter2@127.0.0.1/'}\n"))
    message = "has a user name or password in the address, where logs and process lists may show it"
    assert found == [f":7:27: receivers.r.url: {message}"]


def test_what_is_probably_a_mistake_is_a_warning(write, folder):
    path = write(
        "supervisor: {listen: '0.0.0.0:9321'}\njobs:\n  a: {command: [x]}\n  b:\n    command: [x]\n    schedule: {every: 1h}\n    directory: gone\n"
        "    expect: {success_every: 1h}\n    limits: {stall: 2h}\nreceivers:\n  r: {type: webhook, url: http://127.0.0.1}"
    )
    restless = "the interval of the schedule (1h), so it will alert between any two runs"
    assert warnings(path) == [
        ':1:22: supervisor.listen: "0.0.0.0" can be reached from other machines, and nobody is asked for a password; write web_config',
        f':7:16: jobs.b.directory: "{folder}/gone" is not a directory; make it before the job starts',
        f":8:29: jobs.b.expect.success_every: is not more than {restless}; write at least 2h",
        ":9:21: jobs.b.limits.stall: can never strike, limits.time (1h) comes first; write a shorter one",
        ":11:1: does not end with a line end; is the file complete?",
        ":11:3: receivers.r: no job alerts this receiver; write alerts: {to: [r]} in a job or in defaults",
    ]


def test_a_user_that_does_not_exist_stops_root_and_warns_others(write):
    path = write(JOB + "    user: nobody-has-this-name\n    group: nor-this\n")
    found = problems(path) if os.geteuid() == 0 else list(load(path).warnings)
    assert found == [
        f'{path}:5:11: jobs.nightly.user: there is no user "nobody-has-this-name" on this machine; make it, or name one from /etc/passwd',
        f'{path}:6:12: jobs.nightly.group: there is no group "nor-this" on this machine; make it, or name one from /etc/group',
    ]


# ---------------------------------------------------------------- where things are


def test_systemds_state_directory_wins_and_the_first_of_several_counts(write, monkeypatch):
    path = write("supervisor: {state_dir: elsewhere}\n" + JOB)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/mainstay:/var/lib/other")
    assert load(path).settings.state_dir == "/var/lib/mainstay"
    monkeypatch.setenv("STATE_DIRECTORY", "")
    assert load(path).settings.state_dir == os.path.join(os.path.dirname(path), "elsewhere")


def test_a_relative_state_directory_from_the_environment_is_refused(write, monkeypatch):
    path = write(JOB)
    monkeypatch.setenv("STATE_DIRECTORY", "var")
    assert problems(path) == [f'{path}:1:1: $STATE_DIRECTORY is "var"; give it an absolute path, or unset it']


def test_relative_paths_start_at_the_config_file_and_not_where_we_stand(write, folder, monkeypatch):
    write(JOB + "    directory: work\n")
    monkeypatch.chdir("/")
    config = load(os.path.relpath(folder / "config.yaml"))
    assert config.path == str(folder / "config.yaml")
    assert config.jobs["nightly"].launch.directory == str(folder / "work")
    assert config.settings.state_dir == str(folder / "var")


def test_the_config_is_looked_for_here_and_then_in_etc(folder, write, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("supervisor.config.load.PLACES", ("config.yaml", str(folder / "etc.yaml")))
    with pytest.raises(errors.ConfigError) as refusal:
        find_config(None)
    assert refusal.value.problems == [
        f"config.yaml: does not exist, nor does {folder}/etc.yaml; write one of them, or name another with -c"
    ]
    write(JOB, "etc.yaml")
    assert find_config(None) == str(folder / "etc.yaml")
    write(JOB, "config.yaml")
    assert find_config(None) == "config.yaml"
    assert find_config("other.yaml") == "other.yaml"


# ---------------------------------------------------------------- the file itself


def fifo(path):
    os.mkfifo(path)


def directory(path):
    os.mkdir(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def device(path):
    os.symlink("/dev/zero", path)


def loop(path):
    os.symlink(path, path)


def huge(path):
    with open(path, "wb") as file:
        file.truncate(2**30)


@pytest.mark.parametrize(
    ("make", "finding"),
    [
        (lambda _path: None, "does not exist; write it, or name another file"),
        (directory, "is a directory; name a regular file"),
        (fifo, "is a FIFO; name a regular file"),
        (unix_socket, "is a socket; name a regular file"),
        (device, "is a device; name a regular file"),
        (loop, "cannot be opened (Too many levels of symbolic links); name another file"),
        (huge, "is 1073741824 bytes long, more than the 1048576 that are read; make it shorter"),
    ],
)
def test_what_is_no_readable_file_is_said_to_be_what_it_is(make, finding, folder, monkeypatch):
    monkeypatch.chdir(folder)
    make("c.yaml")
    assert problems("c.yaml") == [f"c.yaml: {finding}"]


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", ":1:1: is empty; write jobs: and a job below it"),
        (b" \n\n", ":1:1: is empty; write jobs: and a job below it"),
        (b"jobs:\n  a\0b: {}\n", ": holds a NUL byte in line 2; is it a text file? remove that character"),
        (b"jobs:\n\x1b[31m", ": holds the control character U+001B in line 2; is it a text file? remove that character"),
        (b"jobs:\n  caf\xe9: {}\n", ": is not UTF-8 (byte 0xe9 in line 2); save it as UTF-8"),
        ("jobs: {}\n".encode("utf-16"), ": is UTF-16; save it as UTF-8"),
        (b"\x7fELF\x02\x01\x01\0\0\0", ": holds the control character U+007F in line 1; is it a text file? remove that character"),
        (b"jobs: {a: {command: ['\\\n", ":2:1: is not YAML (found unexpected end of stream while scanning a quoted scalar); "),
    ],
)
def test_what_is_no_yaml_text_is_said_to_be_what_it_is(content, finding, write):
    path = write(content)
    found = problems(path)
    assert len(found) == 1
    assert found[0].startswith(path + finding)


def test_a_file_in_proc_that_states_no_size_is_still_read_with_a_bound(folder, monkeypatch):
    monkeypatch.setattr("supervisor.config.source.MOST_BYTES", 10)
    found = problems("/proc/self/status")
    assert found == ["/proc/self/status: is longer than the 10 bytes that are read; make it shorter"]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(write):
    assert load(write(b"\xef\xbb\xbf" + JOB.replace("\n", "\r\n").encode())).jobs["nightly"].launch.argv == ("python", "nightly.py")


def test_a_name_with_a_nul_is_no_file():
    assert problems("a\0b") == ["a\\x00b: is not a possible file name; name another file"]


def test_an_unreadable_file_says_who_may_not_read_it(write):
    path = write(JOB)
    os.chmod(path, 0)
    ours, theirs = os.geteuid(), os.geteuid() or 65534
    os.seteuid(theirs)  # root may read everything
    try:
        found = problems(path)
    finally:
        os.seteuid(ours)
    assert found == [f"{path}: may not be read by uid {theirs}; change its mode or owner (and those of the directories above it)"]


@as_root
def test_root_takes_no_config_that_others_can_write(write):
    path = write(JOB)
    os.chmod(path, 0o646)
    assert problems(path) == [
        f"{path}: can be written by others (mode 0646), who could make us run anything as root; run: chmod go-w {path}"
    ]


@as_root
def test_root_takes_no_config_that_a_group_can_write_unless_it_is_roots(write):
    path = write(JOB)
    os.chmod(path, 0o664)
    assert load(path).jobs
    os.chown(path, 0, 65534)
    assert "can be written by others (mode 0664)" in problems(path)[0]


@as_root
def test_root_takes_no_config_of_somebody_else(write):
    path = write(JOB)
    os.chown(path, 65534, 0)
    assert problems(path) == [f"{path}: belongs to uid 65534, which could make us run anything as root; run: chown root {path}"]


@as_root
def test_root_takes_no_config_from_a_directory_that_everybody_can_write(write, folder):
    path = write(JOB)
    os.chmod(folder, 0o777)
    assert "so anybody can replace it" in problems(path)[0]
    os.chmod(folder, 0o1777)  # sticky, as /tmp: only the owner can replace it
    assert load(path).jobs


@as_root
def test_a_job_of_roots_takes_no_environment_from_a_file_of_somebody_else(write, folder):
    path = write(good("environment"))
    os.chown(folder / "values.env", 65534, 0)
    assert f'"{folder}/values.env" belongs to uid 65534' in problems(path)[0]
    assert load(write(good("environment") + "    user: nobody\n")).jobs  # it could change that job anyway


def test_a_secret_is_read_from_a_file_that_only_its_owner_can_read(write, folder):
    path = write(JOB + "    alerts: {to: [ops]}\n" + HOOK)
    secret = folder / "hook.secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o644)
    place = f"{path}:7:62: receivers.ops.secret_file:"
    assert problems(path) == [f'{place} "{secret}" can be read by others (mode 0644); run: chmod 600 {secret}']
    secret.chmod(0o600)
    config = load(path)
    assert config.receivers["ops"].secret == "hunter2"
    secret.write_text("\n")
    assert problems(path) == [f'{place} "{secret}" has to hold the secret in one line; write it there']


def test_what_is_equal_in_several_jobs_is_one_value(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "jobs:\n  a: {command: [x], limits: {memory: 1GiB}}\n  b: {command: [y], limits: {memory: 1GiB}}\n  c: {command: [z], schedule: {every: 1m}}\n"
    )
    a, b, c = load(str(path)).jobs.values()
    assert (a.limits, a.restart) == (b.limits, b.restart)
    assert a.limits is b.limits
    assert a.restart is c.restart
    assert a.limits != c.limits
    assert a.launch != b.launch


CANARY = "Kan7xQ9pw"


@pytest.mark.parametrize(
    "line",
    [
        *(f"environment: {{DB_PASSWORD: {sigil}{CANARY}{more}}}" for sigil in "*&!%@`|>" for more in ("", " x", "!x", "*", ",a")),
        f"environment: {{DB_PASSWORD: !{CANARY}!x y}}",
        f"environment: {{DB_PASSWORD: {CANARY}: x}}",
        f'environment: {{DB_PASSWORD: "{CANARY}\\0"}}',
        f"environment: {{DB_PASSWORD={CANARY}}}",
        f"environment: [DB_PASSWORD={CANARY}]",
        f"environment: DB_PASSWORD={CANARY}",
        f"command: run --password {CANARY}",
        f"command: postgres://app:{CANARY}@db/x",
        f"limits: token={CANARY}",
        f"heal: token={CANARY}",
        f"DB_PASSWORD: {CANARY}",
    ],
)
@pytest.mark.parametrize("reader", [yaml.CSafeLoader, yaml.SafeLoader])
def test_no_problem_shows_a_secret(write, line, reader, monkeypatch):
    monkeypatch.setattr(document, "_Loader", reader)
    with pytest.raises(errors.ConfigError) as caught:
        load(write(f"jobs:\n  j:\n    {line}\n"))
    assert CANARY not in str(caught.value)
    assert ":3:" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://h/x?token={}", "h/x?token={}", "http:/h/x?api_key={}", "app:{}@h/x", "ftp://app:{}@h/x", "http://a:{}/b@h/\u00e9"]
)
def test_no_bad_address_shows_a_secret(write, url):
    with pytest.raises(errors.ConfigError) as caught:
        load(write(f"receivers:\n  hook: {{type: webhook, url: '{url.format(CANARY)}'}}\njobs: {{j: {{command: [run]}}}}\n"))
    assert CANARY not in str(caught.value)
    assert "is not an address" in str(caught.value)
