"""What is generated from the tables of keys: the JSON Schema for editors and the reference page."""

import jsonschema
import pytest
from config_examples import BAD, GOOD, data

from supervisor.config.jsonschema import schema
from supervisor.config.reference import reference
from supervisor.config.schema import JOB, RECEIVERS, SUPERVISOR, ScheduleKind
from supervisor.config.shape import Shape

# Mistakes that one value alone does not show, and spellings that only YAML knows: for ``mainstay check``, not for the schema.
BEYOND_THE_SCHEMA = {
    "actions_open_to_others",
    "backoff_first_over_max",
    "heal_after_park",
    "heal_nothing_changed",
    "command_absent",
    "drill_both_times",
    "drill_without_fault",
    "drill_without_time",
    "job_name_of_a_drill",
    "command_empty_program",
    "cron_fields",
    "cron_impossible_date",
    "cron_minute",
    "cron_nickname",
    "cron_range_of_one",
    "cron_reboot",
    "cron_seconds",
    "cron_step_zero",
    "duration_absurd",
    "environment_file_missing",
    "environment_nul",
    "environment_reserved",
    "escalate_unknown",
    "exit_codes_twice",
    "heartbeat_without_url",
    "slack_without_url",
    "secret_variable_unset",
    "template_open_brace",
    "template_unknown_field",
    "receiver_url_absent",
    "maintenance_never_closes",
    "maintenance_no_time",
    "maintenance_unknown_job",
    "history_short",
    "interval_of_nothing",
    "job_name_dots",
    "listen_port_range",
    "number_octal",
    "outcome_in_both",
    "receiver_none_there",
    "receiver_secret_file_missing",
    "receiver_unknown",
    "receiver_url_and_urls",
    "receiver_user_without_password",
    "schedule_both",
    "schedule_empty",
    "schedule_jitter_longer_than_cron",
    "schedule_jitter_too_long",
    "schedule_no_time",
    "schedule_timezone_with_every",
    "signal_that_ends_nothing",
    "signal_unknown",
    "size_of_nothing",
    "soft_above_hard",
    "soft_from_defaults_above_hard",
    "state_dir_home",
    "timezone_unknown",
}


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("file", GOOD)
def test_the_schema_accepts_a_good_file(file, validator):
    assert [error.message for error in validator.iter_errors(data(file.read_text()))] == []


@pytest.mark.parametrize("file", BAD)
def test_the_schema_refuses_a_bad_file_as_far_as_a_schema_can(file, validator):
    values = data(file.read_text())
    if values is None and file.stem != "comments_only":
        assert "YAML" in file.read_text() or file.stem in UNPARSED  # refused before any schema could look at it
        return
    assert validator.is_valid(values) == (file.stem in BEYOND_THE_SCHEMA)


UNPARSED = {
    "alias_bomb",
    "anchor",
    "duplicate_job",
    "duplicate_key",
    "list_as_key",
    "merge_key",
    "second_document",
    "tag",
    "tag_short",
    "too_deep",
}


def every_key(shape, prefix=""):
    for key in shape:
        yield prefix + key.name, key
        inner = key.kind.shape if isinstance(key.kind, ScheduleKind) else key.kind
        if isinstance(inner, Shape):
            yield from every_key(inner, f"{prefix}{key.name}.")


@pytest.mark.parametrize("shape", [SUPERVISOR, JOB, *RECEIVERS.values()])
def test_every_key_is_described_in_the_schema_and_the_reference(shape):
    text = reference()
    for name, key in every_key(shape):
        assert f"| `{name}` |" in text
        assert key.doc.endswith((".", "`."))
        assert shape.schema()["properties"][name.split(".")[0]]["description"]


def test_the_reference_states_defaults_and_forms():
    lines = reference().splitlines()
    assert (
        "| `stop.grace` | a number with ms, s, m, h, d or w, e.g. 90s or 1h30m | `10s` | How long it has before the whole tree is killed. |"
        in lines
    )
    assert any(line.startswith("| `limits.memory` |") and "`512MiB`" in line for line in lines)
    assert any(line.startswith("| `limits.time` |") and "| `1h`; of a service `52w` |" in line for line in lines)
    assert any(line.startswith("| `sender` |") and "has to be written" in line for line in lines)


def test_the_tables_in_the_reference_are_whole():
    rows = [line for line in reference().splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
