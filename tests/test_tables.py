"""Tables for people: as wide as the terminal, whole for a program, and never cut without a word."""

import pytest

from supervisor import tables

HEADER = ["ID", "STATE", "SUMMARY"]
ROWS = [["1", "open", "It ended with exit code 3 after 0.5s, " + "as it did before, " * 6 + "at last."], ["22", "closed", "short"]]


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def words(text: str) -> list[str]:
    return text.split()


def test_for_a_program_a_row_is_a_line_and_whole() -> None:
    lines = tables.table(HEADER, ROWS).splitlines()
    assert lines[0] == "ID  STATE   SUMMARY"
    assert lines[1:] == [f"1   open    {ROWS[0][2]}", "22  closed  short"]


@pytest.mark.parametrize("columns", [32, 40, 60, 80, 132])
def test_the_last_column_is_folded_to_the_width_and_loses_no_word(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = tables.table(HEADER, ROWS).splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0] == "ID  STATE   SUMMARY"
    assert lines[-1] == "22  closed  short"
    assert words(" ".join(line[12:] for line in lines[1:-1])) == words(ROWS[0][2])
    assert all(line.startswith(" " * 12) for line in lines[2:-1])


@pytest.mark.parametrize("columns", [20, 31])
def test_where_no_table_fits_each_row_is_a_list(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = tables.table(HEADER, ROWS)
    assert max(map(len, text.splitlines())) <= columns
    first, second = text.split("\n\n")
    assert words(first) == ["ID", "1", "STATE", "open", "SUMMARY", *words(ROWS[0][2])]
    assert second == "ID       22\nSTATE    closed\nSUMMARY  short\n"


def test_a_table_without_rows_is_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    assert tables.table(HEADER, []) == "ID  STATE  SUMMARY\n"


STATUS = ["JOB", "STATE", "LAST RUN", "NEXT RUN", "FAILED", "MEMORY", "SCHEDULE"]
JOBS = [
    ["user-metrics", "idle", "succeeded 12m3s ago", "in 2m57s", "0", "31.2MiB / 512MiB", "every 15m"],
    ["nightly", "running (paused)", "memory 23h59m ago", "-", "12", "128.0MiB / 256MiB", "manual"],
    *([f"service-{n}", "running", "none ended yet", "-", "0", "8.1MiB / 64MiB", "service"] for n in range(8)),
]


def test_a_status_that_is_a_little_too_wide_is_folded_and_stays_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tables.table(STATUS, JOBS).splitlines()
    wide = max(map(len, whole))
    for columns in (wide - 1, 80, 72):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = tables.table(STATUS, JOBS).splitlines()
        assert max(map(len, lines)) <= columns
        assert len(lines) <= 2 * len(whole)
        assert lines[0].split()[:2] == ["JOB", "STATE"]
        assert sum(line.startswith("service-") for line in lines) == 8
        assert sorted(words(" ".join(lines))) == sorted(words(" ".join(whole)))  # nothing is lost, no word is broken
    monkeypatch.setenv("COLUMNS", str(wide))
    assert tables.table(STATUS, JOBS).splitlines() == whole


def test_a_folded_row_has_its_parts_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "75")
    assert tables.table(STATUS, JOBS[:2]).splitlines() == [
        "JOB           STATE     LAST RUN    NEXT RUN  FAILED  MEMORY      SCHEDULE",
        "user-metrics  idle      succeeded   in 2m57s  0       31.2MiB /   every",
        "                        12m3s ago                     512MiB      15m",
        "nightly       running   memory      -         12      128.0MiB /  manual",
        "              (paused)  23h59m ago                    256MiB",
    ]


def test_names_that_leave_no_room_are_not_broken_and_make_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    name = "a-name-of-a-job-that-somebody-will-copy-into-the-next-command"
    text = tables.table(STATUS, [[name, *JOBS[0][1:]]])
    assert text.startswith(f"JOB       {name}\nSTATE     idle\n")


def test_wide_characters_keep_the_columns_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["1", "界界", "字" * 30], ["22", "open", "e\u0301 short"]]
    assert tables.table(HEADER, rows).splitlines() == ["ID  STATE  SUMMARY", f"1   界界   {'字' * 30}", "22  open   e\u0301 short"]
    monkeypatch.setenv("COLUMNS", "40")
    lines = tables.table(HEADER, rows).splitlines()
    assert lines == ["ID  STATE  SUMMARY", f"1   界界   {'字' * 14}", " " * 11 + "字" * 14, " " * 11 + "字" * 2, "22  open   e\u0301 short"]
