"""Jobs of another user than the daemon's: the same guard, the same evidence, and no more rights than that user has."""

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import otheruser
import pytest
from harness import Mainstay
from otheruser import EVERYBODYS, NOBODY, as_nobody

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start jobs of another user"),
    pytest.mark.skipif(EVERYBODYS is None, reason="there is no Python that every user may run"),
]

SCRIPTS = {
    "runaway.py": """
        def visit(node): return visit(node)
        visit("the same")
    """,
    "crash.py": """
        import ctypes
        def touch(): ctypes.string_at(0)
        touch()
    """,
    "records.py": """
        from supervisor import job
        for key in job.records(["a", "b", "c"]):
            if key == "b": raise ValueError("poison")
    """,
    "tell.py": """
        import json, os, sys
        print(json.dumps({"uid": os.getuid(), "path": os.environ["PYTHONPATH"], "first": "_mainstay_guard.bundle" in sys.modules, "bytecode": not sys.dont_write_bytecode}))
    """,
    "spoil.py": """
        import os
        site = os.environ["PYTHONPATH"]
        for path in (site + "/sitecustomize.py", site + "/_mainstay_guard/hooks.py", site + "/_mainstay_guard/home"):
            try: os.unlink(path)
            except PermissionError: print("refused")
    """,
}
CONFIG = "\n".join(
    [
        "defaults: {schedule: manual, user: nobody, restart: {when: never}, limits: {recursion: 400, memory: 256MiB, time: 60s}}",
        "jobs:",
        *(f"  {name[:-3]}: {{command: [{EVERYBODYS}, {name}]}}" for name in SCRIPTS),
        f"  root: {{command: [{EVERYBODYS}, tell.py], user: root}}",
        f"  container: {{command: [{EVERYBODYS}, tell.py], environment: {{PYTHONDONTWRITEBYTECODE: '1'}}}}",
    ]
)


@pytest.fixture(scope="module")
def mainstay() -> Iterator[Mainstay]:
    with otheruser.folder() as folder:
        for name, text in SCRIPTS.items():
            (folder / name).write_text(textwrap.dedent(text))
        daemon = Mainstay(folder, CONFIG)
        try:
            yield daemon.start()
        finally:
            daemon.close()


def told(mainstay: Mainstay, job: str) -> dict[str, object]:
    """What the job printed in a run of its own."""
    run = mainstay.run_job(job)
    assert run["outcome"] == "succeeded", run
    found: dict[str, object] = json.loads(mainstay.cli("logs", job, "--run", str(run["run"])).stdout.splitlines()[-1])
    return found


def test_a_recursion_is_told_with_its_cycle(mainstay: Mainstay) -> None:
    assert mainstay.run_job("runaway")["outcome"] == "recursion"
    assert [frame["function"] for frame in mainstay.why("runaway")["cycle"]["frames"]] == ["visit"]


def test_a_crash_is_told_with_its_stack(mainstay: Mainstay) -> None:
    assert mainstay.run_job("crash")["outcome"] == "crashed"
    assert "touch" in json.dumps(mainstay.why("crash"))


def test_the_record_in_work_is_known(mainstay: Mainstay) -> None:
    assert mainstay.run_job("records")["outcome"] == "exception"
    assert mainstay.why("records")["progress"]["record"] == "1"  # by its place, where the job gives no key


@pytest.mark.parametrize("job", ["tell", "container"])
def test_only_the_first_start_of_a_user_compiles_the_guard(mainstay: Mainstay, job: str) -> None:
    for path in (mainstay.state / "guard").glob("65534-*/_mainstay_guard/__pycache__/*"):
        path.unlink()
    said = [told(mainstay, job) for _ in range(2)]
    assert [(one["uid"], one["first"]) for one in said] == [(NOBODY, True), (NOBODY, False)]
    assert said[0]["path"] == str(next((mainstay.state / "guard").glob("65534-*")))


def test_users_do_not_share_what_they_compile(mainstay: Mainstay) -> None:
    paths = {told(mainstay, job)["path"] for job in ("tell", "root")}
    assert {os.path.basename(str(path)).partition("-")[0] for path in paths} == {"0", str(NOBODY)}
    mine = next((mainstay.state / "guard").glob("0-*"))
    refused = subprocess.run(["ls", str(mine / "__pycache__")], user=NOBODY, capture_output=True, check=False, timeout=60)
    assert b"Permission denied" in refused.stderr


def test_the_guard_is_not_the_users_to_change(mainstay: Mainstay) -> None:
    run = mainstay.run_job("spoil")
    assert mainstay.cli("logs", "spoil", "--run", str(run["run"])).stdout.count("refused") == 3


def test_a_copy_that_is_gone_is_made_for_the_next_start(mainstay: Mainstay) -> None:
    shutil.rmtree(str(told(mainstay, "tell")["path"]))
    assert told(mainstay, "tell")["uid"] == NOBODY


def test_where_no_copy_can_be_made_the_installation_guards(mainstay: Mainstay) -> None:
    folder = mainstay.state / "guard"
    aside = mainstay.folder / "aside"
    folder.rename(aside)
    try:
        folder.touch()
        assert mainstay.run_job("runaway")["outcome"] == "recursion"
        assert [one["level"] for one in mainstay.log_events("guard_not_copied")] == ["warning"]
    finally:
        folder.unlink()
        aside.rename(folder)


def test_exec_keeps_the_guard_compiled_for_a_user_who_may_not_write_beside_it(open_folder: Path) -> None:
    (open_folder / "tell.py").write_text(textwrap.dedent(SCRIPTS["tell.py"]))
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    site = open_folder / "lib" / "supervisor" / "guard" / "site"
    said = []
    for _ in range(2):
        done = as_nobody(open_folder, "exec", "--", str(EVERYBODYS), "tell.py", HOME=str(home))
        assert done.returncode == 0, done
        said.append(json.loads(done.stdout))
    assert [one["path"].startswith(f"{home}/.cache/mainstay/guard/{NOBODY}-") for one in said] == [True, True]
    assert said[1]["first"] is False
    os.chown(home / ".cache", 0, 0)  # whoever owns that could put something else there
    (home / ".cache").chmod(0o777)
    others = as_nobody(open_folder, "exec", "--", str(EVERYBODYS), "tell.py", HOME=str(home))
    assert (others.returncode, json.loads(others.stdout)["path"]) == (0, str(site)), others
    homeless = as_nobody(open_folder, "exec", "--", str(EVERYBODYS), "tell.py", HOME="/proc")
    assert (homeless.returncode, json.loads(homeless.stdout)["path"]) == (0, str(site)), homeless
