"""Property tests are judged by what they find, not by how busy the machine is, and leave nothing behind."""

import pytest
from hypothesis import settings

settings.register_profile("core", deadline=None, database=None)
settings.load_profile("core")
pytest.register_assert_rewrite("laws", "playbook", "world")
