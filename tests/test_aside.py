"""``mainstay quarantine`` before it asks the daemon: which record is meant."""

import unicodedata

import pytest

from supervisor import tables
from supervisor.aside import key_meant
from supervisor.core.prose import clean

NEWER = next(
    char for char in map(chr, range(0x1FA00, 0x20000)) if unicodedata.category(char) == "Cn"
)  # to a Python newer than ours it is a letter
KEYS = ["u1", f"user-{NEWER}", "c:\\new"]


class Daemon:
    """Answers as ours does to the question for all records that are set aside."""

    def get(self, _route: str) -> dict[str, object]:
        return {"records": [{"key": key} for key in KEYS]}


@pytest.mark.parametrize("shown", [str, tables.printable, clean])  # as it is, in the table, in a dossier
@pytest.mark.parametrize("key", KEYS)
def test_a_record_is_meant_by_its_key_however_that_was_shown(key, shown):
    assert key_meant(Daemon(), "import", shown(key)) == key


def test_a_key_that_is_not_set_aside_is_left_for_the_daemon_to_refuse():
    assert key_meant(Daemon(), "import", "u2") == "u2"
