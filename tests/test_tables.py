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
