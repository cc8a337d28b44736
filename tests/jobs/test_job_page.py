"""The page between job and supervisor: round trip, death at any instant, hostile contents."""

import os
import signal
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import page
from supervisor.page import SIZE, TEXT_MAX, Page, Writer, create_page, parse_page, read_page


def new_page(tmp_path, name="page"):
    path = str(tmp_path / name)
    create_page(path)
    return path


def test_an_unused_page_says_nothing(tmp_path):
    page = read_page(new_page(tmp_path))
    assert page == Page(seq=0, records=0, done=None, total=None, stage="", record_in_work=None, heartbeat_mono=None, progress_seq=0)
    assert not page.says_anything


def test_what_is_written_is_read(tmp_path):
    path = new_page(tmp_path)
    writer = Writer(path)
    writer.begin("user 7")
    writer.progress(3, 10, "read")
    writer.heartbeat(5_000_000_000)
    assert read_page(path) == Page(
        seq=1, records=0, done=3, total=10, stage="read", record_in_work="user 7", heartbeat_mono=5.0, progress_seq=1
    )
    writer.finish()
    assert read_page(path).records == 1
    assert read_page(path).record_in_work is None
    writer.close()


def test_progress_without_a_number_follows_the_records(tmp_path):
    path = new_page(tmp_path)
    writer = Writer(path)
    writer.begin("a")
    writer.finish()
    writer.progress(None, 4, "users")
    assert (read_page(path).done, read_page(path).total) == (0, 4)
    writer.begin("b")
    writer.finish()
    assert read_page(path).done == 1


def test_a_second_writer_counts_on_where_the_first_stopped(tmp_path):
    path = new_page(tmp_path)
    first = Writer(path)
    first.begin("a")
    first.finish()
    first.close()
    second = Writer(path)
    second.begin("b")
    second.finish()
    assert read_page(path).records == 2


@given(st.text(max_size=600))
@settings(max_examples=200)
def test_any_key_comes_back_printable_and_cut(tmp_path_factory, key):
    path = new_page(tmp_path_factory.mktemp("page"))
    Writer(path).begin(key)
    found = read_page(path).record_in_work
    assert 0 < len(found.encode()) <= TEXT_MAX
    if key and key.isprintable() and len(key.encode()) <= TEXT_MAX:
        assert found == key


NEWER = next(
    char for char in map(chr, range(0x1FA00, 0x20000)) if unicodedata.category(char) == "Cn"
)  # to a Python newer than ours it is a letter


def test_a_key_and_a_stage_of_a_newer_python_come_back_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "name_of", lambda key: key.encode())
    monkeypatch.setattr(page, "clean_text", lambda text, _: text.encode())
    writer = Writer(new_page(tmp_path))
    writer.begin(f"user-{NEWER}")
    writer.progress(3, 10, f"load {NEWER}")
    writer.heartbeat(5_000_000_000)
    found = read_page(str(tmp_path / "page"))
    assert (found.record_in_work, found.stage, found.heartbeat_mono) == (f"user-{NEWER}", f"load {NEWER}", 5.0)


ODD = [(b"\x1b[31mred", "\\x1b[31mred"), (b"a\xff", "a\\xff"), ("a\u202eb".encode(), "a\\u202eb"), (b"\n" * 255, ("\\n" * 255)[:TEXT_MAX])]


@pytest.mark.parametrize(("raw", "shown"), ODD)
def test_what_no_job_of_ours_writes_is_shown_with_escapes_and_takes_no_sign_of_life_away(tmp_path, monkeypatch, raw, shown):
    monkeypatch.setattr(page, "name_of", lambda key: raw)
    monkeypatch.setattr(page, "clean_text", lambda text, _: raw)
    writer = Writer(new_page(tmp_path))
    writer.begin("ä")
    writer.finish()
    writer.begin("ä")
    writer.progress(3, 10, "ä")
    writer.heartbeat(5_000_000_000)
    found = read_page(str(tmp_path / "page"))
    assert (found.records, found.done, found.total, found.heartbeat_mono) == (1, 3, 10, 5.0)
    assert found.record_in_work == shown
    assert found.stage.isprintable()
    assert shown.startswith(found.stage) or found.stage.startswith(shown)


@given(st.binary(min_size=SIZE - 16, max_size=SIZE - 16))
@settings(max_examples=300)
def test_nonsense_on_a_page_never_raises(tail):
    parse_page(b"MAINSTAY" + (1).to_bytes(8, "little") + tail)


def test_what_is_no_page_is_none(tmp_path):
    good = new_page(tmp_path)
    (tmp_path / "short").write_bytes(b"MAINSTAY")
    (tmp_path / "other").write_bytes(bytes(SIZE))
    data = (tmp_path / "page").read_bytes()
    (tmp_path / "later_version").write_bytes(data[:8] + (2).to_bytes(8, "little") + data[16:])
    os.symlink(good, tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    for name in ("short", "other", "later_version", "link", "fifo", "absent", "."):
        assert read_page(str(tmp_path / name)) is None, name
    assert read_page(good) is not None


KILLED = """
import sys
from supervisor import job
def keys():
    number = 0
    while True:
        number += 1
        yield number
print("ready", flush=True)
for number in job.records(keys(), key=lambda n: f"{n}:" + str(n * 7919) * (1 + n % 9)):
    if number % 1000 == 0:
        job.progress(number, number * 3, f"stage {number}")
"""


def test_after_sigkill_at_any_moment_the_page_is_whole(tmp_path):
    seen = set()
    for turn in range(15):
        path = new_page(tmp_path, f"page{turn}")
        process = subprocess.Popen([sys.executable, "-c", KILLED], env={**os.environ, "MAINSTAY_PAGE": path}, stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"ready\n"
            while read_page(path).records < 500 * turn:
                assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            process.stdout.close()
        page = read_page(path)
        if page.record_in_work is not None:
            number, _, text = page.record_in_work.partition(":")
            assert text == str(int(number) * 7919) * (1 + int(number) % 9)
            assert int(number) == page.records + 1
        if page.stage:
            assert page.stage == f"stage {page.done}"
            assert page.total == page.done * 3
        seen.add(page.records)
    assert len(seen) > 1
