"""The backend that the tests of pages and answers use gives what the document says, or they would test another program's answers."""

import pytest
from fullbackend import FullBackend
from shapecheck import problems

BACKEND = FullBackend()


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        ("Status", BACKEND.status()),
        ("Config", BACKEND.config()),
        ("Job", BACKEND.job("nightly")),
        ("Runs", {"runs": BACKEND.runs(None, 9)}),
        ("Slots", {"slots": BACKEND.slots("nightly", 9)}),
        ("Incidents", {"incidents": BACKEND.incidents(False, 9)}),
        ("Incident", BACKEND.incident(7)),
        ("Incident", BACKEND.incident(6)),
        ("Log", BACKEND.logs("nightly", None, 9, None)),
        ("Drill", BACKEND.drill(5)),
        ("Drills", {"drills": BACKEND.drills("nightly")}),
        ("Quarantine", BACKEND.quarantine("nightly", None)),
        ("Quarantine", BACKEND.quarantine("nightly", "user-7")),
        ("Done", BACKEND.ask("start", "nightly", {}, 1.0)[1]),
    ],
)
def test_what_the_full_backend_gives_is_what_the_document_says(shape, answer):
    assert problems(shape, answer) == []


def test_a_field_too_many_and_one_too_few_are_seen():
    assert problems("Job", {**BACKEND.job("nightly"), "colour": "red"}) == [
        "$: Additional properties are not allowed ('colour' was unexpected)"
    ]
    assert problems("Log", {"job": "nightly"}) != []
