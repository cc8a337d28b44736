"""`from supervisor import job` in a Python that has no Mainstay: lent by the guard, asked last, and only where it runs."""

import json

SCRIPT = """
import json, sys
from supervisor import job
seen = [record for record in job.records(["a", "b", "c"], key=str)]
job.progress(1, 2, "half")
job.heartbeat()
job.counter("things_total", "Things.").inc(2)
print(json.dumps([seen, job.only(), job.resume(), "supervisor" in [entry.rpartition("/")[2] for entry in sys.path]]))
"""


def test_every_python_that_the_guard_speaks_to_can_import_it(any_active, run):
    ended = run(any_active, "-c", SCRIPT)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == [["a", "b", "c"], None, None, False]


def test_a_supervisor_of_the_jobs_own_goes_first(any_active, run, tmp_path):
    (tmp_path / "supervisor.py").write_text("name = 'the one from PyPI'\n")
    ended = run(any_active, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import supervisor; print(supervisor.name)")
    assert ended.out == "the one from PyPI\n", ended.err
