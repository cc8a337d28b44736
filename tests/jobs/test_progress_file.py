"""The text file by which a job says where it stands: what is taken, what is passed over, and which of file and page holds."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.page import Writer, create_page, is_plain
from supervisor.progressfile import parse_progress, read_progress, read_signs


@pytest.mark.parametrize(
    ("text", "record", "records", "progress"),
    [
        (b"record u7\n", "u7", 0, (None, None, "")),
        (b"record u7\nrecords 3\nrecord u8\nrecords 4\n", "u8", 4, (None, None, "")),
        (b"record u7\nrecord\n", None, 0, (None, None, "")),
        (b"record two words\r\n", "two words", 0, (None, None, "")),
        (b"progress 3 10 load the rest\n", None, 0, (3, 10, "load the rest")),
        (b"progress 3\n", None, 0, (3, None, "")),
        (b"records 5\nrecord torn", None, 5, (None, None, "")),
        (b"records -5\nrecords x\nprogress x y\nnonsense\n\n", None, 0, (None, None, "")),
        (b"record \x1b[31m\n", None, 0, (None, None, "")),
        ("record \U0001fbff\n".encode(), "\U0001fbff", 0, (None, None, "")),  # no Python knows it yet
        (b"record \xff\n", None, 0, (None, None, "")),
        (b"record " + b"k" * 256 + b"\n", None, 0, (None, None, "")),
        (b"records " + b"9" * 30 + b"\n", None, 0, (None, None, "")),
    ],
)
def test_what_the_lines_mean(text, record, records, progress):
    page = parse_progress(text, 17)
    assert (page.record_in_work, page.records, (page.done, page.total, page.stage)) == (record, records, progress)
    assert page.keyed is (record is not None)


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail(data):
    page = parse_progress(data, 1)
    assert page.says_anything
    assert page.record_in_work is None or is_plain(page.record_in_work)


def test_only_the_end_of_a_long_file_is_read(tmp_path):
    (tmp_path / "progress").write_bytes(b"record old\n" + b"heartbeat\n" * 10_000 + b"record new\nrecords 9\n")
    page = read_progress(str(tmp_path / "progress"))
    assert (page.record_in_work, page.records) == ("new", 9)


def test_each_write_is_a_sign_of_life(tmp_path):
    path = tmp_path / "progress"
    path.write_text("heartbeat\n")
    first = read_progress(str(path)).pulse
    os.utime(path, ns=(1, 2))
    assert read_progress(str(path)).pulse != first


def test_the_page_goes_before_the_file_once_it_is_used(tmp_path):
    create_page(str(tmp_path / "page"))
    assert not read_signs(str(tmp_path / "page")).says_anything
    (tmp_path / "progress").write_text("record by-text\n")
    assert read_signs(str(tmp_path / "page")).record_in_work == "by-text"
    Writer(str(tmp_path / "page")).begin("by-page")
    assert read_signs(str(tmp_path / "page")).record_in_work == "by-page"


def test_what_is_no_plain_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name in ("fifo", "link", "absent", "."):
        assert read_progress(str(tmp_path / name)) is None
