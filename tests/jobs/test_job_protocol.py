"""supervisor.job as a job sees it: with Mainstay's channels, and without."""

import json
import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from supervisor.page import create_page, read_page


def run(code, environment=None, check=True):
    """Run *code* in a fresh interpreter, as the channel belongs to one process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
    result = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **(environment or {})}, capture_output=True, text=True, timeout=60, check=False
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def page(tmp_path):
    path = str(tmp_path / "page")
    create_page(path)
    return path


EVERYTHING = """
from supervisor import job
assert list(job.records("abc", key=str)) == ["a", "b", "c"]
job.progress(1, 2, "half")
job.heartbeat()
job.checkpoint({"last": 3})
print(job.resume())
job.counter("things_total", "Things.", kind="x").inc(2)
job.gauge("level", "Level.").set(1.5)
"""


def test_without_mainstay_every_call_is_harmless():
    assert run(EVERYTHING).stdout == "None\n"


def test_channels_that_cannot_be_used_are_harmless(tmp_path):
    (tmp_path / "short").write_bytes(b"x")
    for place in (tmp_path / "absent" / "file", tmp_path, tmp_path / "short"):
        names = ("PAGE", "CHECKPOINT", "METRICS", "QUARANTINE")
        run(EVERYTHING.replace("print(job.resume())", ""), {f"MAINSTAY_{name}": str(place) for name in names})


def test_records_tell_how_far_the_job_is(page):
    run("from supervisor import job\nfor _ in job.records([1, 2, 3]): pass", {"MAINSTAY_PAGE": page})
    found = read_page(page)
    assert (found.records, found.done, found.total, found.record_in_work) == (3, 3, 3, None)
    assert found.heartbeat_mono > 0


def test_an_exception_leaves_its_record_named(page):
    code = "from supervisor import job\nfor n in job.records([5, 6, 7], key=lambda n: f'user {n}'): 1 / (6 - n)"
    assert run(code, {"MAINSTAY_PAGE": page}, check=False).returncode == 1
    assert read_page(page).record_in_work == "user 6"
    assert read_page(page).records == 1


def test_records_in_quarantine_are_left_out(page, tmp_path):
    (tmp_path / "poison").write_text(json.dumps(["user 6", 7]))
    code = "from supervisor import job\nprint(list(job.records([5, 6, 7], key=lambda n: f'user {n}')))"
    for extra in ({"MAINSTAY_PAGE": page}, {}):
        assert run(code, {"MAINSTAY_QUARANTINE": str(tmp_path / "poison"), **extra}).stdout == "[5, 7]\n"


def test_a_forked_child_leaves_the_page_alone(page):
    code = """
import os
from supervisor import job
for n in job.records([1], key=lambda n: "parent"):
    if (pid := os.fork()) == 0:
        job.progress(99, 99, "child")
        os._exit(0)
    os.waitpid(pid, 0)
"""
    run(code, {"MAINSTAY_PAGE": page})
    assert read_page(page).stage == ""


def test_a_checkpoint_is_given_back_after_sigkill(tmp_path):
    environment = {"MAINSTAY_CHECKPOINT": str(tmp_path / "checkpoint")}
    run(
        "import os, signal\nfrom supervisor import job\njob.checkpoint({'last_id': 41})\njob.checkpoint({'last_id': 42})\nos.kill(os.getpid(), signal.SIGKILL)",
        environment,
        check=False,
    )
    assert run("from supervisor import job\nprint(job.resume())", environment).stdout == "{'last_id': 42}\n"
    assert os.listdir(tmp_path) == ["checkpoint"]
    (tmp_path / "checkpoint").write_text("{half")
    assert run("from supervisor import job\nprint(job.resume())", environment).stdout == "None\n"


def test_a_checkpoint_that_is_too_large_is_refused():
    result = run("from supervisor import job\njob.checkpoint({'a': 'x' * 100_000})", check=False)
    assert "keep a key and read the rest again" in result.stderr


def test_counters_and_gauges_become_prometheus_text(tmp_path):
    code = r"""
from supervisor import job
c = job.counter("things_total", "Things\nof a kind.", kind='a"b\\c')
c.inc(); c.inc(2)
job.counter("things_total", "Things\nof a kind.", kind="other").inc(0.5)
job.gauge("level", "Level.").set(-1)
"""
    run(code, {"MAINSTAY_METRICS": str(tmp_path / "metrics")})
    families = {family.name: family for family in text_string_to_metric_families((tmp_path / "metrics").read_text())}
    assert {(s.labels["kind"], s.value) for s in families["things"].samples} == {('a"b\\c', 3.0), ("other", 0.5)}
    assert families["level"].samples[0].value == -1
    assert families["things"].type == "counter"


@pytest.mark.parametrize(
    "call",
    [
        "job.counter('a b', '')",
        "job.counter('a', '', **{'__x': '1'})",
        "job.counter('a', '').inc(-1)",
        "job.gauge('a', ''); job.counter('a', '')",
        "job.counter('ä', '')",
    ],
)
def test_metrics_that_prometheus_would_not_take_are_refused_at_once(call):
    assert "ValueError" in run(f"from supervisor import job\n{call}", check=False).stderr


def test_the_module_loads_the_standard_library_only():
    code = "import sys\nfrom supervisor import job\nprint([name for name in sys.modules if name.startswith('supervisor')], 'msgspec' in sys.modules, 'json' in sys.modules)"
    assert run(code).stdout == "['supervisor', 'supervisor.page', 'supervisor.job'] False False\n"


def test_a_record_has_a_key_only_if_the_job_names_it(page):
    run("from supervisor import job\nfor n in job.records('ab'): break", {"MAINSTAY_PAGE": page})
    assert (read_page(page).record_in_work, read_page(page).keyed) == ("0", False)
    run("from supervisor import job\nfor n in job.records('ab', key=str): break", {"MAINSTAY_PAGE": page})
    assert (read_page(page).record_in_work, read_page(page).keyed) == ("a", True)


def test_in_a_replay_only_the_one_record_is_handed_on_although_it_is_set_aside(page, tmp_path):
    (tmp_path / "quarantine").write_text('["b"]')
    code = "from supervisor import job\nprint(list(job.records('abc', key=str)), job.only())"
    environment = {"MAINSTAY_QUARANTINE": str(tmp_path / "quarantine"), "MAINSTAY_PAGE": page}
    assert run(code, environment).stdout == "['a', 'c'] None\n"
    assert run(code, {**environment, "MAINSTAY_ONLY": "b"}).stdout == "['b'] b\n"
    assert run(code, {"MAINSTAY_ONLY": "b"}).stdout == "['b'] b\n"


ODD = ["", "a\nb", "a\rb", "k" * 300 + "1", "k" * 300 + "2", "ü" * 200 + "1", "é", "\udcff", "\x1b[31m"]


def test_keys_that_no_page_can_hold_are_told_apart_and_set_aside_one_by_one(page, tmp_path):
    named = []
    for nth in range(len(ODD)):
        code = f"from supervisor import job\nfor key in job.records({ODD!r}, key=str):\n    if key == {ODD[nth]!r}: break"
        run(code, {"MAINSTAY_PAGE": page})
        named.append(read_page(page).record_in_work)
    assert len(set(named)) == len(ODD)
    for nth, name in enumerate(named):
        (tmp_path / "quarantine").write_text(json.dumps([name]))
        code = f"from supervisor import job\nprint(ascii(list(job.records({ODD!r}, key=str))))"
        assert run(code, {"MAINSTAY_QUARANTINE": str(tmp_path / "quarantine")}).stdout.strip() == ascii(ODD[:nth] + ODD[nth + 1 :])


def test_one_loop_is_followed_and_those_inside_it_or_beside_it_are_not(page):
    code = """
import threading
from supervisor import job
seen = []
for outer in job.records("ab", key=lambda c: "outer-" + c):
    seen += [inner for inner in job.records("xy", key=str)]
    thread = threading.Thread(target=lambda: seen.extend(job.records("12", key=str)))
    thread.start()
    thread.join()
print("".join(seen))
for last in job.records("z", key=lambda c: "last-" + c):
    break
"""
    assert run(code, {"MAINSTAY_PAGE": page}).stdout == "xy12xy12\n"
    found = read_page(page)
    assert (found.records, found.record_in_work) == (2, "last-z")


def test_tasks_that_go_through_records_at_the_same_time_all_get_them(page):
    code = """
import asyncio
from supervisor import job
async def work(name):
    got = []
    for item in job.records([name + "1", name + "2"], key=str):
        await asyncio.sleep(0)
        got.append(item)
    return got
async def main():
    print(await asyncio.gather(work("a"), work("b"), work("c")))
asyncio.run(main())
"""
    assert run(code, {"MAINSTAY_PAGE": page}).stdout == "[['a1', 'a2'], ['b1', 'b2'], ['c1', 'c2']]\n"
    assert (read_page(page).records, read_page(page).record_in_work) == (2, None)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_do_their_work_and_do_not_write_on_the_page_of_their_parent(page, tmp_path, method):
    script = tmp_path / "pool.py"
    script.write_text(f"""
import multiprocessing
from supervisor import job
def work(n):
    job.progress(99, 100, "child")
    return sum(job.records(range(n), key=lambda one: "child-" + str(one)))
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        for n in job.records([3, 4], key=lambda n: "parent-" + str(n)):
            print(pool.apply(work, (n,)))
            if n == 4:
                break
""")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
    done = subprocess.run(
        [sys.executable, str(script)], env={**clean, "MAINSTAY_PAGE": page}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n6\n"), done.stderr
    found = read_page(page)
    assert (found.records, found.record_in_work, found.stage) == (1, "parent-4", "")


def test_the_next_process_takes_the_page_over_once_its_writer_is_gone(page):
    for n in (1, 2):
        run("from supervisor import job\nlist(job.records('ab'))", {"MAINSTAY_PAGE": page})
        assert read_page(page).records == 2 * n
