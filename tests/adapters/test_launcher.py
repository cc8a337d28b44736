"""What the keeper is told of an attempt: environment and identity."""

import os
import pwd

import pytest

from supervisor.adapters import launcher
from supervisor.adapters.launcher import Identity, environment, identity
from supervisor.core.jobs import Job, Launch
from supervisor.errors import LaunchError

OURS = {
    "PATH": "/opt/x/bin:/usr/bin",
    "LANG": "C.UTF-8",
    "SSH_AUTH_SOCK": "/run/agent",
    "DATABASE_PASSWORD": "canary",
    "NOTIFY_SOCKET": "/run/notify",
    "WATCHDOG_USEC": "1",
    "LISTEN_FDS": "1",
    "MAINSTAY_BRAIN_FD": "7",
    "CREDENTIALS_DIRECTORY": "/run/credentials",
}
JOB = Job("a", Launch(("true",), "/", environment={"MODE": "x", "LANG": "de_DE.UTF-8"}))


def test_a_job_inherits_our_environment_without_what_is_between_us_and_systemd():
    found = environment(OURS, JOB, Identity())
    assert found == {
        "PATH": "/opt/x/bin:/usr/bin",
        "LANG": "de_DE.UTF-8",
        "SSH_AUTH_SOCK": "/run/agent",
        "DATABASE_PASSWORD": "canary",
        "MODE": "x",
    }


def test_a_job_with_a_user_of_its_own_starts_clean():
    found = environment(OURS, JOB, Identity(1000, 1000, (1000,), "kim", "/home/kim", "/bin/bash"))
    assert found == {
        "PATH": "/opt/x/bin:/usr/bin",
        "LANG": "de_DE.UTF-8",
        "USER": "kim",
        "LOGNAME": "kim",
        "HOME": "/home/kim",
        "SHELL": "/bin/bash",
        "MODE": "x",
    }


def test_a_job_with_a_user_gets_a_path_even_where_we_have_none():
    assert environment({}, JOB, Identity(1000, 1000, (), "kim"))["PATH"] == "/usr/local/bin:/usr/bin:/bin"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may name another user")
def test_names_become_numbers_and_the_groups_of_the_user():
    nobody = pwd.getpwnam("nobody")
    assert identity(Launch(("true",), "/", user="nobody")) == Identity(
        nobody.pw_uid, nobody.pw_gid, tuple(os.getgrouplist("nobody", nobody.pw_gid)), "nobody", nobody.pw_dir, nobody.pw_shell
    )


def test_an_unknown_user_is_a_launch_that_failed_with_its_reason():
    with pytest.raises(LaunchError, match="there is no user 'nobody-here' on this machine"):
        identity(Launch(("true",), "/", user="nobody-here"))


def test_another_user_is_refused_where_we_are_not_root(monkeypatch):
    monkeypatch.setattr(launcher.os, "geteuid", lambda: 1000)
    with pytest.raises(LaunchError, match="only root can change users"):
        identity(Launch(("true",), "/", user="root"))
