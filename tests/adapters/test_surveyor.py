"""What a job is made of, looked at on real files, and what a bad end is held against."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.adapters.surveyor import FILES_MAX, Surveyor
from supervisor.core.jobs import Job, Launch, Limits
from supervisor.core.redact import Redactor
from supervisor.core.survey import CHANGES_SHOWN, Survey, changes, in_words

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Shelf:
    """What is kept, and a surveyor that reads it."""

    def __init__(self, redactor=None):
        self.kept = {}
        self.surveyor = Surveyor(self.kept.get, {"PATH": os.environ["PATH"]}, b"key", lambda _job: redactor or Redactor())

    def look(self, job, *, good=False):
        self.surveyor.begin("1.1", job)
        found = self.surveyor.finish("1.1", 20)
        if good:
            self.kept[job.name] = (found.text or self.kept[job.name][0], 41, T0)
        return found

    def words(self, job):
        return [in_words(item) for item in self.look(job).changes["items"]]


@pytest.fixture
def app(tmp_path):
    folder = tmp_path / "app"
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("import lib.tree\n")
    (folder / "lib" / "tree.py").write_text("x = 1\n")
    (folder / "users.csv").write_text("ada\n")
    git = folder / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text("a" * 40 + "\n")
    return folder


def job(app, *more, environment=None, limits=None, program=sys.executable):
    return Job("j", Launch((program, "main.py", "--source=users.csv", *more), str(app), environment or {}), limits=limits or Limits())


def test_nothing_has_changed_and_nothing_is_written_again(app):
    shelf = Shelf()
    first = shelf.look(job(app), good=True)
    assert first.changes["note"] == "it has no good run yet that it could be compared with"
    again = shelf.look(job(app))
    assert (again.text, again.changes["items"], again.changes["note"]) == (None, [], "nothing that was looked at")
    assert (again.changes["since_run"], again.changes["since"]) == (41, "2026-03-01T12:00:00.000Z")
    assert again.facts == {"executable": sys.executable, "script": str(app / "main.py")}


def test_each_kind_of_change_is_told(app):
    shelf = Shelf()
    shelf.look(job(app, environment={"API_TOKEN": "one", "N": "1"}, limits=Limits(memory_bytes=2**29)), good=True)
    (app / "lib" / "tree.py").write_text("x = 2\n")
    (app / "new.py").write_text("")
    (app / "users.csv").write_text("ada\n" * 1000)
    (app / ".git" / "refs" / "heads" / "main").unlink()
    (app / ".git" / "packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/main\n")
    words = shelf.words(job(app, "--fast", environment={"API_TOKEN": "two", "N": "1"}, limits=Limits(memory_bytes=2**30)))
    assert words[0] == "git commit: aaaaaaaaaaaa (main) → bbbbbbbbbbbb (main)"
    assert f"{app}/lib/tree.py: changed" in words
    assert f"{app}/new.py: new file" in words
    assert "config limits.memory: 512MiB → 1GiB" in words
    assert any(line.startswith("config command: ") and line.endswith("--fast") for line in words)
    (secret,) = (line for line in words if "API_TOKEN" in line)
    assert secret.startswith("config environment.API_TOKEN: (digest ")
    assert "two" not in secret
    assert not [line for line in words if "environment.N" in line]
    assert any(line.startswith(f"input {app}/users.csv: 4 bytes of ") and "4,000 bytes" in line for line in words)


def test_touching_a_file_is_no_change_of_code(app):
    shelf = Shelf()
    shelf.look(job(app), good=True)
    os.utime(app / "main.py", (1, 1))
    assert shelf.words(job(app)) == []


def test_an_edit_in_place_that_keeps_size_and_time_is_a_change_of_code_and_a_chmod_is_none(app):
    shelf, tree = Shelf(), app / "lib" / "tree.py"
    shelf.look(job(app), good=True)
    was = tree.stat()
    tree.chmod(0o600)
    os.link(tree, app / "another_name")
    assert shelf.words(job(app)) == []
    touched = tree.stat().st_ctime_ns
    while tree.stat().st_ctime_ns == touched:  # the file system's clock has ticks
        tree.write_text("x = 3\n")
        os.utime(tree, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (tree.stat().st_size, tree.stat().st_mtime_ns, tree.stat().st_ino) == (was.st_size, was.st_mtime_ns, was.st_ino)
    assert shelf.words(job(app)) == [f"{tree}: changed"]


def test_packages_and_interpreter_are_those_of_the_jobs_own_environment(app, tmp_path):
    environment = tmp_path / "venv"
    site = environment / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    (environment / "bin").mkdir()
    (environment / "pyvenv.cfg").write_text("version = 3.11.7\n")
    python = environment / "bin" / "python3"
    python.symlink_to(os.path.realpath(sys.executable))
    (site / "requests-2.31.0.dist-info").mkdir()
    shelf = Shelf()
    first = shelf.look(job(app, program=str(python)), good=True)
    assert Survey.decode(first.text).packages == {"requests": "2.31.0"}
    (site / "requests-2.31.0.dist-info").rename(site / "requests-2.32.0.dist-info")
    (site / "numpy-2.0.dist-info").mkdir()
    python.unlink()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    words = shelf.words(job(app, program=str(python)))
    assert "package requests: 2.31.0 → 2.32.0" in words
    assert "package numpy: new: 2.0" in words
    assert any(line.startswith("Python: ") for line in words)


def test_a_script_with_a_shebang_a_module_and_a_shell_line_are_found(app):
    shelf = Shelf()
    (app / "run").write_text(f"#!{sys.executable}\n")
    (app / "run").chmod(0o755)
    script = Job("j", Launch(("./run",), str(app)))
    assert shelf.look(script).facts == {"executable": sys.executable, "script": str(app / "run")}
    module = Job("j", Launch((sys.executable, "-X", "dev", "-u", "-m", "lib.tree"), str(app)))
    assert shelf.look(module).facts["script"] == str(app / "lib" / "tree.py")
    shell = shelf.look(Job("j", Launch(("/bin/sh", "-c", "echo hi"), str(app))))
    assert shell.facts["executable"] == "/bin/sh"
    assert shelf.look(Job("j", Launch(("no-such-program",), str(app)))).facts == {"executable": None, "script": None}


def test_a_program_that_is_no_python_is_told_once_and_as_what_it_is(app):
    shelf = Shelf()
    (app / "tool").write_text("#!/bin/sh\nexit 0\n")
    (app / "tool").chmod(0o755)
    tool = Job("j", Launch(("./tool",), str(app)))
    first = shelf.look(tool, good=True)
    assert Survey.decode(first.text).interpreter == ""
    (app / "tool").write_text("#!/bin/sh\nexit 3 # new\n")
    assert shelf.words(tool) == [f"{app}/tool: changed"]


def test_hostile_folders_are_bounded_and_nothing_blocks(app):
    for n in range(FILES_MAX + 50):
        (app / f"m{n:04}.py").write_text("")
    os.mkfifo(app / "main_fifo.py")
    (app / "loop").symlink_to(app)
    (app / "huge.py").write_bytes(b"x" * (2**20 + 1))
    os.mkfifo(app / "fifo")
    found = Shelf().look(job(app, str(app / "fifo"), "x" * 5000, "\udcff", "--in=\0"))
    survey = Survey.decode(found.text)
    assert len(survey.code) <= FILES_MAX + 1
    assert str(app / "fifo") not in survey.inputs
    assert "bytes of" in survey.code[str(app / "huge.py")]


def test_secrets_in_arguments_and_environment_are_not_kept(app):
    canary = "c4n4ry-value"
    found = Shelf(Redactor([canary])).look(
        job(app, f"--password={canary}", f"https://u:{canary}@h/", environment={"TOKEN": canary, "PLAIN": canary})
    )
    assert canary not in found.text
    assert canary not in repr(found)


def test_many_changes_are_counted(tmp_path):
    before = Survey(code={f"/a/{n}.py": "1" for n in range(100)})
    found = changes(before, Survey(), 1, T0)
    assert (len(found["items"]), found["more"]) == (CHANGES_SHOWN, 100 - CHANGES_SHOWN)


def test_more_starts_than_it_can_look_at_are_left_out(app, monkeypatch):
    shelf = Shelf()
    surveyor = shelf.surveyor
    surveyor._thread = object()  # nobody works
    for n in range(300):
        surveyor.begin(str(n), job(app))
    assert surveyor.finish("299", 0) is None
    assert surveyor.finish("0", 0) is None


def test_a_repository_of_a_worktree_is_read(app, tmp_path):
    main = tmp_path / "main.git"
    own = main / "worktrees" / "w"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/topic\n")
    (own / "commondir").write_text("../..\n")
    (main / "refs" / "heads").mkdir(parents=True)
    (main / "refs" / "heads" / "topic").write_text("c" * 40)
    for path in sorted((app / ".git").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (app / ".git").rmdir()
    Path(app / ".git").write_text(f"gitdir: {own}\n")
    assert Survey.decode(Shelf().look(job(app)).text).commit == "cccccccccccc (topic)"
