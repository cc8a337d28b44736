"""`mainstay check` warns of a program that is not there; whoever only reads the config does not look."""

import os

import pytest

from supervisor.config.load import load
from supervisor.config.programs import missing

HEAD = "jobs:\n  j:\n"


def found(path):
    return [line.removeprefix(path) for line in missing(load(path))]


@pytest.fixture
def plain(folder):
    """A file beside the config that nobody may execute."""
    (folder / "plain.py").write_text("")
    (folder / "plain.py").chmod(0o644)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("command", "finding"),
    [
        ("[/no/such/prog-abs]", 'there is no program "/no/such/prog-abs"; write the path of one'),
        ("[./nothing]", 'there is no program "./nothing"; write the path of one'),
        ("[nosuchcmd, -x]", '"nosuchcmd" is in no folder of PATH, as that is here; write its path, or set PATH under environment'),
        ("[/etc]", '"/etc" is a directory; write the path of a program'),
        ("[./plain.py]", '"./plain.py" is not executable; say chmod +x, or name its interpreter: [python, ./plain.py]'),
    ],
)
def test_a_program_that_cannot_be_executed_is_a_warning_with_its_place(write, command, finding):
    path = write(f"{HEAD}    command: {command}\n")
    assert found(path) == [f":3:14: jobs.j.command: {finding}"]
    assert load(path).warnings == (), "the machine that runs it may have it"


@pytest.mark.parametrize(
    "job",
    [
        "command: [/bin/sh, -c, nosuchcmd]",
        "command: [sh]",
        "shell: nosuchcmd",
        "{command: [nosuchcmd], enabled: false}",
        "{command: [own], environment: {PATH: bin}}",  # relative to the directory, as execvp(3) has it
        "{command: [./own], directory: bin}",
    ],
)
def test_what_is_there_is_no_warning(write, folder, job):
    (folder / "bin").mkdir()
    (folder / "bin" / "own").write_text("")
    (folder / "bin" / "own").chmod(0o755)
    assert found(write(f"jobs:\n  j: {job}\n" if job.startswith("{") else f"{HEAD}    {job}\n")) == []


def test_the_program_of_a_receiver_is_looked_for_too(write):
    path = write("jobs:\n  j: {command: ['true'], alerts: {to: [r]}}\nreceivers:\n  r: {type: command, command: [/no/such/pager]}\n")
    assert found(path) == [':4:31: receivers.r.command: there is no program "/no/such/pager"; write the path of one']


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_what_this_user_may_not_see_is_no_warning(write, folder):
    (folder / "closed").mkdir(mode=0)
    assert found(write(f"{HEAD}    command: [closed/own]\n")) == []
