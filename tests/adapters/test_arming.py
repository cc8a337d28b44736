"""The limits that a job gets, whatever the keeper and its brains have taken for themselves."""

import os
import subprocess
import sys

from supervisor import arming

PROBE = """
import resource
from supervisor import arming
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1000))
arming.raise_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE), arming.rlimits(None, None)["NOFILE"], arming.rlimits(None, 77)["NOFILE"])
"""


def test_we_take_all_descriptors_that_we_may_and_jobs_get_what_we_were_given():
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == "(1000, 1000) [512, 1000] [77, 77]"


def test_without_a_keeper_the_limit_on_descriptors_is_left_alone():
    assert arming.GIVEN_FILES not in os.environ
    assert "NOFILE" not in arming.rlimits(None, None)
