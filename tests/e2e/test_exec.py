"""``mainstay exec``: transparent while all is well, exit code 124 and a clear word when a limit struck, and nothing left behind either way."""

import contextlib
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import MARK, PROGRAM, environment, marked, read, wait_for
from overshoot import allowed

from supervisor import proctree
from supervisor.asking import GRACE_S
from supervisor.config import schema
from supervisor.config.kinds import Nullable, Whole

BOUND_S = 60
CHILDREN = Path(__file__).resolve().parent.parent / "children"
REPORT_KEYS = {
    "schema", "job", "run", "attempt", "outcome", "summary", "limit", "exit_code", "signal", "started_at", "ended_at", "duration_seconds",
    "memory_peak_bytes", "cpu_seconds", "evidence", "cycle", "exception", "stacks", "output_tail", "fingerprint",
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How one `mainstay exec` ended."""

    code: int
    out: bytes
    err: str


Exec = Callable[..., Done]


@pytest.fixture
def mark() -> Iterator[str]:
    """Marks all that a test starts; fails if anything of it is left, and ends that."""
    name = uuid.uuid4().hex
    yield name
    left = marked(name)
    for pid in left:
        proctree.signal_process(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Start `mainstay exec WORDS` with pipes; it is not waited for."""

    def begin(*words: str, stdin: int = subprocess.DEVNULL, **more: object) -> "subprocess.Popen[bytes]":
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": tmp_path, "env": environment(mark)} | more
        return subprocess.Popen([*PROGRAM, "exec", *words], **pipes)  # type: ignore[call-overload, no-any-return]

    return begin


@pytest.fixture
def run(start: Callable[..., "subprocess.Popen[bytes]"]) -> Exec:
    """Run `mainstay exec WORDS` to its end."""

    def to_the_end(*words: str, data: bytes = b"") -> Done:
        with start(*words, stdin=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(data, timeout=BOUND_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Done(process.returncode, out, err.decode(errors="backslashreplace"))

    return to_the_end


def python(*words: str) -> Sequence[str]:
    return ("--", sys.executable, *words)


# ---------------------------------------------------------------- limits


def test_the_issues_own_example(run: Exec, tmp_path: Path) -> None:
    done = run("--memory", "300MiB", "--report", "r.json", *python("-c", "x=[bytearray(2**20) for _ in range(4000)]"))
    assert done.code == 124
    assert "MEMORY" in done.err
    assert "300MiB" in done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["outcome"], report["limit"]) == ("memory", "memory")
    assert 0.95 * 300 * 2**20 < report["memory_peak_bytes"] <= allowed(report, 300 * 2**20), json.dumps(report)
    assert set(report) >= REPORT_KEYS
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o600


EVADE = str(CHILDREN / "limit_evade.py")
BUSY = "t = 0\nwhile True: t += 1\n"
LIMITS = {
    "time": (["--time", "1s", "--", "sleep", "60"], "time", "time"),
    "cpu": (["--cpu", "1s", *python("-c", BUSY)], "cpu", "cpu"),
    "recursion": (["--recursion", "200", *python(str(CHILDREN / "limit_recurse.py"), "plain")], "recursion", "recursion"),
    "recursion-raised": (["--recursion", "200", *python(str(CHILDREN / "limit_recurse.py"), "raised")], "recursion", "recursion"),
    "recursion-unguarded": (
        ["--no-guard", "--recursion", "200", *python(str(CHILDREN / "limit_recurse.py"), "raised")],
        "recursion",
        "recursion",
    ),
    "processes": (["--processes", "8", *python(str(CHILDREN / "limit_breed.py"), "40")], "processes", "processes"),
    "processes-away": (["--processes", "8", *python(str(CHILDREN / "limit_breed.py"), "40", "away")], "processes", "processes"),
    "output": (["--output", "1MiB", "--", "yes", "and so on"], "output", "output"),
    "stall": (["--stall", "1s", "--", "sh", "-c", "echo begun; sleep 60"], "stalled", "stall"),
    "memory-of-children": (
        ["--memory", "120MiB", "--", "sh", "-c", f"'{sys.executable}' -c 'x = bytearray(400 << 20); import time; time.sleep(60)'; true"],
        "memory",
        "memory",
    ),
    "memory-of-an-orphan": (
        ["--memory", "60MiB", "--", "sh", "-c", f"'{sys.executable}' '{EVADE}' orphan; sleep 60; true"],
        "memory",
        "memory",
    ),
    "memory-of-an-orphan-that-hides": (
        ["--memory", "60MiB", "--", "sh", "-c", f"env -i '{sys.executable}' '{EVADE}' orphan; sleep 60; true"],
        "memory",
        "memory",
    ),
    "processes-that-are-dead": (["--processes", "16", *python(EVADE, "unwaited")], "processes", "processes"),
    "processes-of-a-crowd-that-shares-its-memory": (
        ["--processes", "15", "--memory", "100MiB", *python(EVADE, "crowd")],
        "processes",
        "processes",
    ),
    "cpu-of-the-dead": (["--cpu", "1s", *python(EVADE, "burnt")], "cpu", "cpu"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_strikes_is_124_and_explained(run: Exec, tmp_path: Path, name: str) -> None:
    words, outcome, limit = LIMITS[name]
    done = run("--report", "r.json", *words)
    assert done.code == 124, done
    assert outcome.upper() in done.err
    assert "Traceback" not in done.err.replace("Traceback (most recent call last)", "", 1)  # the job's own may be there, ours never
    assert f"exec: --{limit}" in " ".join(done.err.split())  # how to override
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["outcome"], report["limit"]) == (outcome, limit)
    assert set(report) >= REPORT_KEYS
    if outcome == "recursion":
        assert [frame["function"] for frame in report["cycle"]["frames"]] in (["visit", "follow"], ["follow", "visit"])
        assert set(report["cycle"]) >= {"frames", "depth", "kind"}


HANGS = {
    "beside a thread that stands deeper": (
        (
            "import threading, time\ndef deeper(): idle()\ndef idle(): time.sleep(60)\n"
            "threading.Thread(target=deeper, daemon=True).start()\ndone = threading.Event()\ndef wait_for_reply(): done.wait()\nwait_for_reply()"
        ),
        "in wait_for_reply (hang.py:6), hanging: waiting for a lock; 1 other thread: sleeping",
    ),
    "in a worker of a pool": (
        (
            "import multiprocessing, os\nr, w = os.pipe()\ndef take(n): os.read(r, 1)\nif __name__ == '__main__':\n"
            "    with multiprocessing.get_context('fork').Pool(2) as pool: pool.map(take, range(4))"
        ),
        "in take (hang.py:3), hanging: reading from a pipe",
    ),
}


@pytest.mark.parametrize("name", HANGS)
def test_the_place_of_a_hang_and_its_wait_are_of_one_thread(run: Exec, tmp_path: Path, name: str) -> None:
    """And of one that matters: the main one of its process, not a heartbeat's beside it."""
    text, words = HANGS[name]
    (tmp_path / "hang.py").write_text(text)
    done = run("--time", "2s", *python(str(tmp_path / "hang.py")))
    assert done.code == 124
    assert words in " ".join(done.err.split())


@pytest.mark.parametrize(("ours", "told"), [({}, b"1.1\n"), ({"MAINSTAY_RUN": "7", "MAINSTAY_ATTEMPT": "2"}, b"7.2\n")])
def test_what_exec_starts_within_a_job_is_part_of_that_jobs_attempt(start, mark: str, ours: dict[str, str], told: bytes) -> None:
    with start("--", "sh", "-c", "echo $MAINSTAY_RUN.$MAINSTAY_ATTEMPT", env=environment(mark, ours)) as process:
        assert process.communicate(timeout=BOUND_S)[0] == told


def test_output_goes_through_up_to_its_limit(run: Exec) -> None:
    done = run("--output", "1MiB", "--", "yes")
    assert done.code == 124
    assert done.out == b"y\n" * 2**19


def test_limits_hold_although_nobody_reads_the_output(start) -> None:
    with start("--time", "1s", "--output", "1GiB", "--", "yes") as process:
        assert process.wait(BOUND_S) == 124
        process.stdout.close()


def test_a_flood_does_not_keep_the_time_limit_from_striking(start) -> None:
    with start("--time", "1s", "--output", "100GiB", "--", "yes", stdout=subprocess.DEVNULL) as process:
        assert process.wait(BOUND_S) == 124


def test_a_command_that_ends_in_time_is_not_disturbed_by_limits(run: Exec) -> None:
    limits = [
        "--memory",
        "1GiB",
        "--recursion",
        "500",
        "--time",
        "1m",
        "--cpu",
        "1m",
        "--stall",
        "30s",
        "--processes",
        "50",
        "--output",
        "1MiB",
    ]
    done = run(*limits, *python("-c", "print('well'); import sys; print('aside', file=sys.stderr)"))
    assert (done.code, done.out, done.err) == (0, b"well\n", "aside\n")


# ---------------------------------------------------------------- transparency


@pytest.mark.parametrize("code", [0, 1, 3, 77, 124, 137, 255])
def test_exit_codes_pass_through(run: Exec, code: int) -> None:
    done = run("--", "sh", "-c", f"exit {code}")
    assert done.code == code
    assert bool(done.err) == (code != 0)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "PIPE"])
def test_a_death_by_a_signal_that_we_did_not_send_is_128_and_its_number(run: Exec, name: str) -> None:
    assert run("--", "sh", "-c", f"kill -{name} $$").code == 128 + getattr(signal, f"SIG{name}")


@pytest.mark.parametrize("option", ["recursion", "processes"])
def test_a_count_has_the_bounds_that_the_config_gives_it(run: Exec, option: str) -> None:
    kind = schema.LIMITS.by_name[option].kind
    assert isinstance(kind, Nullable)
    assert isinstance(kind.kind, Whole)
    least, most = kind.kind.least, kind.kind.most
    for count in (least - 1, most + 1):
        refused = run(f"--{option}", str(count), "--", "true")
        assert refused.code == 2, count
        assert f"--{option}" in refused.err
    for count in (least, most):
        assert "--" + option not in run(f"--{option}", str(count), "--", "true").err, count


def test_what_cannot_be_found_is_127_and_what_cannot_be_executed_126(run: Exec, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    for words, code in (
        (["no-such-program-anywhere"], 127),
        ([str(tmp_path / "none")], 127),
        ([str(plain)], 126),
        ([str(tmp_path)], 126),
    ):
        done = run("--report", "r.json", "--", *words)
        assert done.code == code, words
        assert len(done.err.splitlines()) == 1
        assert words[0] in done.err
        assert json.loads((tmp_path / "r.json").read_text())["outcome"] == "launch_failed"


def test_why_it_failed_is_told_although_the_file_has_the_name_of_a_secret(run: Exec, tmp_path: Path) -> None:
    program = tmp_path / "htpasswd"
    program.write_text("not a program")
    assert f"cannot execute '{program}': Permission denied." in run("--", str(program)).err
    done = run("--output", "1MiB", "--report", "r.json", "--", "cat", str(tmp_path / "token"))
    assert done.code == 1
    assert f"cat: {tmp_path}/token: No such file or directory" in json.loads((tmp_path / "r.json").read_text())["output_tail"]
    leak = run("--output", "1MiB", "--report", "r.json", "--", "sh", "-c", f"echo '{tmp_path}/token: hunter2' >&2; exit 1")
    assert leak.code == 1
    assert f"{tmp_path}/token: [redacted]" in json.loads((tmp_path / "r.json").read_text())["output_tail"]


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('x' * 1984 + secret + ' tail')",
        "try:\n  raise RuntimeError('x' * 285 + ' ' + secret + ' tail')\nexcept RuntimeError as err:\n  raise ValueError('v') from err",
        "print('A' * 100_000 + secret + 'B' * (16 * 1024 - 15)); raise SystemExit(1)",
    ],
    ids=["message", "cause", "output"],
)
def test_a_secret_that_a_bound_cuts_in_two_is_not_written_down(run: Exec, tmp_path: Path, code: str) -> None:
    secret = "Zq7WyCanaryKk29Lm"
    words = [f"DB_PASSWORD={secret}", sys.executable, "-c", f"import os\nsecret = os.environ['DB_PASSWORD']\n{code}"]
    run("--output", "10MiB", "--report", "r.json", "--", "env", *words)
    report = (tmp_path / "r.json").read_text()
    assert not any(secret[at : at + 4] in report for at in range(len(secret) - 3))
    assert "[redacted]" in report or "dacted]B" in report or "B" * 16_000 in report


@pytest.mark.parametrize("limits", [[], ["--output", "100MiB", "--stall", "1m"]], ids=["unwatched", "watched"])
def test_standard_streams_pass_byte_for_byte(run: Exec, limits: list[str]) -> None:
    data = os.urandom(5_000_001)
    assert run(*limits, "--", "cat", data=data) == Done(0, data, "")
    both = run(*limits, "--", "sh", "-c", "printf 'to out\\n\\377\\000'; printf 'to err\\n' >&2")
    assert both == Done(0, b"to out\n\xff\x00", "to err\n")


@pytest.mark.parametrize("limits", [[], ["--output", "100GiB"]], ids=["unwatched", "watched"])
def test_a_reader_that_goes_away_ends_the_command_as_without_us(start, limits: list[str]) -> None:
    with start(*limits, "--", "yes") as process:
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(BOUND_S) == 128 + signal.SIGPIPE


def test_the_command_sees_its_own_surroundings(run: Exec, tmp_path: Path) -> None:
    seen = run("--", "sh", "-c", f"pwd; echo ${MARK}; ulimit -c; ls /proc/self/fd | wc -l; trap").out.decode().split("\n")
    assert seen[0] == str(tmp_path)
    assert len(seen[1]) == 32
    assert seen[2] == "0"
    assert seen[3] == "4"  # three, and ls's own


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
def test_signals_are_forwarded_and_the_commands_answer_is_ours(start, tmp_path: Path, name: str) -> None:
    with start("--", "sh", "-c", f"trap 'exit 7' {name}; : > up; while :; do sleep 0.02; done") as process:
        wait_for((tmp_path / "up").exists, "the command")
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.wait(BOUND_S) == 7


DEAF = ("--", "sh", "-c", "trap '' INT TERM HUP; : > up; sleep 50; sleep 51")


@pytest.mark.parametrize(("name", "called", "code"), [("INT", "Ctrl-C", 130), ("TERM", "SIGTERM", 143)])
def test_a_deaf_command_is_waited_for_in_words_and_killed_when_asked_twice(
    start, tmp_path: Path, name: str, called: str, code: int
) -> None:
    with start("--time", "60s", "--report", "r.json", *DEAF) as process:
        assert process.stderr is not None
        wait_for((tmp_path / "up").exists, "the command")
        began = time.monotonic()
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stderr.readline() == f"mainstay: waiting 9s more for sh to end; {called} once more kills it\n".encode()
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.stderr.readline() == f"mainstay: killed sh, as it was asked for twice ({called})\n".encode()
        assert process.wait(BOUND_S) == code
        assert time.monotonic() - began < GRACE_S
    assert json.loads((tmp_path / "r.json").read_text())["outcome"] == "stopped"


def test_a_deaf_command_is_killed_after_its_grace_and_who_signals_twice_at_once_asks_once(start, tmp_path: Path) -> None:
    with start(*DEAF) as process:
        wait_for((tmp_path / "up").exists, "the command")
        began = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):  # as timeout(1) and systemd do
            process.send_signal(number)
        _, err = process.communicate(timeout=BOUND_S)
        assert time.monotonic() - began >= GRACE_S
        assert process.returncode == 128 + signal.SIGTERM or process.returncode == 128 + signal.SIGHUP
    assert re.fullmatch(
        r"mainstay: waiting 9s more for sh to end; .*\nmainstay: killed sh, which did not end within 10s \(.*\)\n", err.decode()
    )


def test_a_command_that_ends_when_it_is_asked_is_not_spoken_of(start, tmp_path: Path) -> None:
    with start("--", "sh", "-c", ": > up; exec sleep 50") as process:
        wait_for((tmp_path / "up").exists, "the command")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=BOUND_S)
        assert (process.returncode, err) == (130, b"")


def test_an_interrupt_is_forwarded_although_stdin_is_a_terminal_that_is_not_ours(start) -> None:
    ours, theirs = os.openpty()
    try:
        words = ("--", "/bin/sh", "-c", "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done")
        with start(*words, stdin=theirs, start_new_session=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(BOUND_S) == 5
    finally:
        os.close(ours)
        os.close(theirs)


def test_nothing_is_left_of_a_command_that_leaves_much_behind(run: Exec, mark: str) -> None:
    done = run(
        "--report", "-", "--", "sh", "-c", "setsid sh -c 'sleep 1000 & sleep 1000' & (setsid setsid sleep 1000 &); sleep 0.2; echo end"
    )
    assert done.code == 0
    assert marked(mark) == []
    report = json.loads(done.out.partition(b"end\n")[2])
    assert report["outcome"] == "succeeded"
    assert any("left behind, ended by us" in line for line in report["evidence"])


def test_nothing_is_left_in_the_temporary_folder(run: Exec, tmp_path: Path) -> None:
    os.environ["TMPDIR"] = str(tmp_path)
    try:
        run(*python("-c", "raise ValueError"))
        run("--time", "0.3s", "--", "sleep", "10")
        run("--", "no-such-program-anywhere")
    finally:
        del os.environ["TMPDIR"]
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- reports


def test_an_exception_is_told_in_one_line_beside_the_jobs_own_words(run: Exec, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("def inner():\n    raise ValueError('no such user')\n\ninner()\n")
    done = run("--report", "r.json", *python("job.py"))
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("mainstay exec: ")
    assert "ValueError: no such user" in done.err.splitlines()[-1]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["outcome"] == "exception"
    assert report["exception"]["type"] == "ValueError"
    assert [frame["function"] for frame in report["exception"]["frames"]][-1] == "inner"
    assert (report["exit_code"], report["signal"], report["limit"]) == (1, None, None)


def test_a_good_end_has_a_report_too(run: Exec, tmp_path: Path) -> None:
    assert run("--report", "r.json", "--", "true") == Done(0, b"", "")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["outcome"], report["exit_code"], report["limit"], report["cycle"]) == ("succeeded", 0, None, None)
    assert set(report) >= REPORT_KEYS


@pytest.mark.parametrize(
    ("options", "tail", "written", "left_out"),
    [
        ([], "", 0, ["output", "output_bytes"]),  # straight to our caller: a terminal stays a terminal, and nobody counts
        (["--time", "20s"], "", 0, ["output", "output_bytes"]),
        (["--output", "10MiB"], "at 4711\n", 8, []),
        (["--stall", "20s"], "at 4711\n", 8, []),
    ],
)
def test_the_report_says_where_nobody_looked_at_the_output(
    run: Exec, tmp_path: Path, options: list[str], tail: str, written: int, left_out: list[str]
) -> None:
    done = run(*options, "--report", "r.json", "--", "sh", "-c", "echo at 4711; exit 3")
    assert (done.code, done.out) == (3, b"at 4711\n")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["output_tail"], report["output_bytes"], report["left_out"]) == (tail, written, left_out)
    (peak,) = (line["peak"] for line in report["limits"] if line["limit"] == "output")
    assert peak == (written or None)
    assert "0B" not in done.err


def test_a_program_whose_name_is_no_utf_8_keeps_its_exit_code_and_has_a_report(run: Exec, tmp_path: Path) -> None:
    program = os.fsencode(tmp_path) + b"/p\xfe.sh"
    with open(program, "wb") as file:
        file.write(b"#!/bin/sh\nexit 3\n")
    os.chmod(program, 0o755)
    done = run("--report", "r.json", "--", os.fsdecode(program))
    assert done.code == 3
    assert done.err == "mainstay exec: p\\udcfe.sh: failed: It ended with exit code 3 after " + done.err.rpartition(" after ")[2]
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["job"], report["exit_code"]) == ("p\\udcfe.sh", 3)
    assert json.loads(run("--report", "-", "--", os.fsdecode(program)).out)["job"] == report["job"]


@pytest.mark.parametrize(("code", "answer"), [(3, 3), (0, 125)])
def test_a_bug_of_ours_in_the_report_does_not_hide_how_the_command_ended(mark: str, code: int, answer: int) -> None:
    broken = "import sys; from supervisor import cli, oneshot; oneshot.OneShot.report = lambda *_: int('x'); sys.exit(cli.main())"
    words = [sys.executable, "-c", broken, "exec", "--report", "r.json", "--", "sh", "-c", f"exit {code}"]
    done = subprocess.run(words, capture_output=True, timeout=BOUND_S, env=environment(mark), check=False)
    assert done.returncode == answer
    assert done.stderr.startswith(
        b"mainstay exec: its end cannot be told, which is a bug of Mainstay: ValueError: invalid literal for int()"
    )


def test_a_report_that_cannot_be_written_is_said(run: Exec) -> None:
    done = run("--report", "no/such/folder/r.json", "--", "true")
    assert done.code == 125
    assert done.err.startswith("mainstay exec: the report could not be written to no/such/folder/r.json: No such file or directory")


def test_a_report_takes_the_place_of_a_file_or_a_link_and_is_its_owners_alone(run: Exec, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's own")
    (tmp_path / "open.json").write_text("{}")
    (tmp_path / "open.json").chmod(0o644)
    (tmp_path / "link.json").symlink_to("target")
    (tmp_path / "dangling.json").symlink_to("nowhere")
    for name in ("open.json", "link.json", "dangling.json", "new.json"):
        assert run("--report", name, "--", "sh", "-c", "exit 3").code == 3
        mode = (tmp_path / name).lstat().st_mode
        assert (stat.S_ISREG(mode), oct(stat.S_IMODE(mode))) == (True, "0o600"), name
        assert json.loads((tmp_path / name).read_text())["exit_code"] == 3
    assert target.read_text() == "somebody's own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling.json", "link.json", "new.json", "open.json", "target"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_leaves_the_report_before_as_it_was(run: Exec, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        assert run("--report", "disk/r.json", "--", "sh", "-c", "exit 3").code == 3
        before = (disk / "r.json").read_bytes()
        with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(b"x" * 4096)
        done = run("--report", "disk/r.json", "--output", "1MiB", "--", "sh", "-c", "seq 4000; exit 4")
        assert done.code == 4
        assert "mainstay exec: the report could not be written to disk/r.json: No space left on device\n" in done.err
        assert (disk / "r.json").read_bytes() == before
        assert sorted(path.name for path in disk.iterdir()) == ["fill", "r.json"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_report_goes_into_a_pipe_or_behind_what_stdout_has_and_replaces_neither(run: Exec, mark: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("--report", "pipe", "--", "true").code == 0
        assert json.loads(os.read(reader, 65536))["exit_code"] == 0
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    (tmp_path / "here").symlink_to("/dev/stdout")
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", str(tmp_path / "here")):
        done = in_shell(mark, f"cd {tmp_path} && $M exec --report {name} -- echo first >out && cat out")
        assert done.code == 0, done
        assert done.out.startswith(b"first\n{")
        assert json.loads(done.out.partition(b"\n")[2])["outcome"] == "succeeded"
    assert (tmp_path / "here").is_symlink()
    assert run("--report", ".", "--", "sh", "-c", "exit 3").err.startswith(
        "mainstay exec: the report could not be written to .: Is a directory"
    )


# ---------------------------------------------------------------- when we cannot speak, or not begin


def in_shell(mark: str, line: str, **more: str) -> Done:
    """*line* in a shell whose $M is `mainstay`, with its own redirections."""
    where = environment(mark) | {"M": shlex.join(PROGRAM)} | more
    done = subprocess.run(
        ["sh", "-c", line.replace("$M", where["M"])], capture_output=True, stdin=subprocess.DEVNULL, timeout=BOUND_S, env=where, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.parametrize(
    ("line", "code", "out"),
    [
        ("$M exec -- true 2>&-", 0, b""),
        ("$M exec -- true >&-", 0, b""),
        ("$M exec -- true <&- >&- 2>&-", 0, b""),
        ("$M exec -- sh -c 'exit 3' 2>&-", 3, b""),
        ("$M exec -- sh -c 'exit 3' >&-", 3, b""),
        ("$M exec -- sh -c 'exit 3' 2>/dev/full", 3, b""),
        ("$M exec --time 300ms -- sleep 5 2>/dev/full", 124, b""),
        ("$M exec --report no/such/r.json -- sh -c 'exit 3' 2>/dev/full", 3, b""),
        ("$M exec -- no-such-program-anywhere 2>/dev/full", 127, b""),
        ("$M exec --output 1MiB -- sh -c 'echo out; echo err >&2; exit 4' 2>&-", 4, b"out\n"),
        ("$M exec --output 1MiB -- sh -c 'sleep 0.2; exit 4' >&-", 4, b""),  # the pipe between us would stand at descriptor 1
        ("$M exec --nonsense 2>/dev/full", 2, b""),
    ],
)
def test_the_exit_code_is_told_although_nothing_else_can_be(mark: str, line: str, code: int, out: bytes) -> None:
    done = in_shell(mark, line)
    assert (done.code, done.out) == (code, out), done
    assert "bug" not in done.err


def test_a_stream_that_is_closed_is_closed_for_the_command_too(mark: str) -> None:
    done = in_shell(mark, "$M exec -- sh -c 'ls -l /proc/$$/fd/0 >&2' <&-")
    assert "No such file or directory" in done.err, done
    done = in_shell(mark, "$M exec -- echo lost >&-")
    assert (done.code, done.out) == (1, b"")
    assert "Bad file descriptor" in done.err


def test_a_report_that_does_not_fit_on_stdout_is_125(mark: str) -> None:
    done = in_shell(mark, "$M exec --report - -- true >/dev/full")
    assert done.code == 125
    assert done.err == "mainstay exec: the report could not be written to -: cannot write the output: No space left on device\n"


def test_a_temporary_folder_that_cannot_be_written_is_named_with_the_mend(mark: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=10", "none", tmp_path / "full"], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        (tmp_path / "full" / "it").write_bytes(b"x" * 4096)
        done = in_shell(mark, "$M exec -- true", TMPDIR=str(tmp_path / "full"))
        left = sorted(path.name for path in (tmp_path / "full").iterdir())
    finally:
        subprocess.run(["umount", tmp_path / "full"], check=True)
    assert (done.code, left) == (125, ["it"])
    assert (
        done.err
        == f"mainstay exec: cannot write in {tmp_path}/full: No space left on device; set TMPDIR to a folder with room that we may write\n"
    )


def test_a_working_directory_that_was_removed_is_no_obstacle(mark: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    for options in ("", "--report /dev/null "):
        done = in_shell(
            mark,
            f"cd {tmp_path}/gone && mkdir -p ../gone && rmdir ../gone; $M exec {options}-- sh -c 'echo ran; exit 3'; code=$?; mkdir {tmp_path}/gone; exit $code",
        )
        assert (done.code, done.out) == (3, b"ran\n"), done


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--time", "1s"], "no command"),
        ([], "no command"),
        (["--time", "soon", "--", "true"], "--time"),
        (["--time", "90", "--", "true"], "--time"),
        (["--memory", "5", "--", "true"], "--memory"),
        (["--memory", "0MiB", "--", "true"], "--memory"),
        (["--recursion", "deep", "--", "true"], "--recursion"),
        (["--processes", "0", "--", "true"], "--processes: 0 is out of range; write a whole number from 1 to 4194304"),
        (["--recursion", "0", "--", "true"], "--recursion: 0 is out of range; write a whole number from 10 to 10000000"),
        (["--recursion", "5", "--", "true"], "--recursion: 5 is out of range; write a whole number from 10 to 10000000"),
        (["--recursion", "1e3", "--", "true"], "--recursion: '1e3' is not a whole number; write a whole number from 10 to 10000000"),
        (["--processes", "-1", "--", "true"], "--processes"),
        (["--no-such-option", "--", "true"], "--no-such-option"),
        (["--memory"], "--memory"),
    ],
)
def test_mistakes_in_options_are_2_and_named(run: Exec, words: list[str], says: str) -> None:
    done = run(*words)
    assert done.code == 2
    assert says in done.err
    assert done.out == b""
    assert "Traceback" not in done.err


def test_a_log_of_what_it_said_is_not_needed_to_find_out(run: Exec, tmp_path: Path) -> None:
    done = run("--time", "1s", "--report", "r.json", "--output", "1MiB", "--", "sh", "-c", "echo the last words; sleep 60")
    assert done.code == 124
    assert done.out == b"the last words\n"
    assert "the last words" in json.loads(read(tmp_path / "r.json"))["output_tail"]
