"""What a person at a terminal reads instead of keys and values."""

import pytest
import structlog

from supervisor.adapters.sentences import SentenceRenderer, sentence


def test_an_event_with_a_sentence_is_told_in_words():
    event = {
        "event": "slots_missed",
        "job": "a",
        "count": 1,
        "reason": "overlap",
        "first": "2026-03-01T00:00:00Z",
        "last": "2026-03-01T00:00:00Z",
    }
    assert sentence(event) == "a: the fire time 2026-03-01T00:00:00Z did not run (overlap)."


def test_an_event_without_a_sentence_shows_its_keys():
    assert sentence({"event": "disk_odd", "level": "error", "timestamp": "x", "path": "/a", "free": 3}) == "disk odd path=/a free=3"


def test_a_sentence_whose_keys_are_missing_falls_back_to_the_keys_it_has():
    assert sentence({"event": "attempt_ended", "job": "a"}) == "attempt ended job=a"


def test_what_another_event_has_told_is_dropped():
    with pytest.raises(structlog.DropEvent):
        SentenceRenderer(colours=False)(None, "info", {"event": "run_ended", "timestamp": "2026-03-01T00:00:00Z"})


def test_a_traceback_follows_its_sentence():
    line = SentenceRenderer(colours=False)(
        None, "error", {"event": "step_failed", "level": "error", "timestamp": "2026-03-01T01:02:03Z", "job": "a", "exception": "Traceback"}
    )
    assert line == "01:02:03  error: step failed job=a\nTraceback"
