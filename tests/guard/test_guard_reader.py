"""The reader of last words believes nothing: whatever a job leaves in the directory, the answer is a value."""

import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.adapters.guard import read_last_words, read_stacks, swallowed
from supervisor.core.evidence import ExceptionFacts, Frame, LastWords

HELLO = b"mainstay-guard 1 3.12.1 pid 7 ppid 1 depth 0".ljust(127) + b"\n"


def _report(*pieces):
    raw = bytearray(HELLO)
    for offset, data in pieces:
        raw.extend(b"\0" * (offset + len(data) - len(raw)))
        raw[offset : offset + len(data)] = data
    return bytes(raw)


def _record(text):
    payload = text if isinstance(text, bytes) else text.encode()
    return b"%015d\n" % len(payload) + payload


FACTS = '{"n":1,"type":"ValueError","message":"first","depth":1,"files":["a.py"],"frames":[["f",0,3]]}'


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("null", None),
        ('"x"', None),
        ("{}", None),
        ('{"type":7}', None),
        ('{"text":""}', None),
        ('{"text":"\\n\\n  [Previous line repeated 9 more times]\\n"}', None),
        ('{"text":"E","levels":-1}', ("E", "", 0)),
        (
            '{"text":"  File \\"a\\", line 1, in f\\n  [Previous line repeated 999999999 more times]\\nE: x\\u001b","levels":3}',
            ("E", "x\N{REPLACEMENT CHARACTER}", 1_000_000_002),
        ),
        ('{"type":"E","message":[],"depth":"deep","frames":[["f",0,1]],"files":["a"]}', ("E", "", 1)),
        ('{"type":"E","raised":"yes","frames":7}', ("E", "", 0)),
    ],
)
def test_an_origin_is_believed_as_far_as_it_fits(tmp_path, root, told):
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS[:-1] + f',"raised":[],"root":{root}}}'))))
    error = read_last_words(str(tmp_path), 7).exception
    assert error.is_raised is None
    assert (error.root and (error.root.type, error.root.message, error.root.depth)) == told


def test_no_directory_and_no_file_are_silence(tmp_path):
    assert read_last_words(str(tmp_path / "none"), 7) == LastWords()
    assert read_last_words(str(tmp_path), 7) == LastWords()
    assert read_last_words("with\0zero", 7) == LastWords()
    assert read_stacks(str(tmp_path), 7) == ()


def test_facts_stand_where_the_fuller_record_was_not_finished(tmp_path):
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS)), (65536, b"\0" * 16 + b'{"n":1')))
    expected = ExceptionFacts("ValueError", "first", (Frame("f", "a.py", 3),), 1)
    assert read_last_words(str(tmp_path), 7) == LastWords(spoke=True, python="3.12.1", exception=expected)


def test_a_fuller_record_of_an_earlier_exception_does_not_hide_the_later_one(tmp_path):
    earlier, later = FACTS.replace("first", "earlier"), FACTS.replace('"n":1', '"n":2').replace("first", "later")
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(later)), (65536, _record(earlier))))
    assert read_last_words(str(tmp_path), 7).exception.message == "later"
    (tmp_path / "7.rep").write_bytes(_report((1024, b"\0" * 16), (65536, _record(earlier))))
    assert read_last_words(str(tmp_path), 7).exception.message == "earlier"


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 50_000,
        b"null",
        b"[1, 2]",
        b"\xff\xfe",
        b"{}",
        b'{"type": 7}',
        b'{"type": ""}',
        b"9" * 50_000,
    ],
    ids=["nested", "null", "list", "bytes", "empty", "number", "nameless", "digits"],
)
def test_a_record_of_nonsense_is_no_record(tmp_path, payload):
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(payload)), (25600, _record(payload)), (196608, _record(payload))))
    assert read_last_words(str(tmp_path), 7) == LastWords(spoke=True, python="3.12.1")


def test_fields_of_the_wrong_kind_are_left_at_their_defaults(tmp_path):
    text = '{"n":"x","type":"E\\u001b[31m\\ud800","message":[],"depth":-5,"files":[1,"b"],"frames":[["f",7,1],[],["g",1,-4],["h",true,2],{}],"chain":[3,"c"]}'
    (tmp_path / "7.rep").write_bytes(_report((128, b"-00000000000005\n"), (160, b"9" * 16), (1024, _record(text))))
    words = read_last_words(str(tmp_path), 7)
    assert words.exception == ExceptionFacts("E\ufffd[31m\ufffd", "", (Frame("g", "b", 0), Frame("h", "b", 2)), 2, "main", ("c",))
    assert (words.swallowed_recursion, words.asked_limit) == (0, None)


def test_a_file_under_another_process_number_does_not_speak_for_it(tmp_path):
    (tmp_path / "8.rep").write_bytes(_report((176, b"%015d\n" % 1)))
    assert read_last_words(str(tmp_path), 8) == LastWords()


def _link(path, tmp_path):
    (tmp_path / "elsewhere").write_bytes(_report())
    path.symlink_to(tmp_path / "elsewhere")


def _hard_link(path, tmp_path):
    (tmp_path / "elsewhere").write_bytes(_report())
    os.link(tmp_path / "elsewhere", path)


def _socket(path, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


TRAPS = {
    "symlink": _link,
    "hard link": _hard_link,
    "fifo": lambda path, _: os.mkfifo(path),
    "directory": lambda path, _: path.mkdir(),
    "socket": _socket,
    "device": lambda path, _: path.symlink_to("/dev/zero"),
    "empty": lambda path, _: path.write_bytes(b""),
    "garbage": lambda path, _: path.write_bytes(os.urandom(100_000)),
    "zeros": lambda path, _: path.write_bytes(b"\0" * 400_000),
    "unreadable hole": lambda path, _: (path.touch(), os.truncate(path, 1 << 40)),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.timeout(20)
def test_a_trap_in_the_place_of_a_file_is_silence(tmp_path, trap, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for suffix in (".rep", ".fh", ".st"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        TRAPS[trap](tmp_path / f"7{suffix}", folder)
    TRAPS[trap](tmp_path / "9.rep", tmp_path / "st") if not (tmp_path / "st" / "elsewhere").exists() else None
    assert read_last_words(str(tmp_path), 7) == LastWords()
    assert swallowed(str(tmp_path), 7) == (0, 0)
    assert read_stacks(str(tmp_path), 7) == ()


def test_a_report_directory_that_is_a_link_is_silence(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "7.rep").write_bytes(_report())
    (tmp_path / "link").symlink_to("real")
    assert read_last_words(str(tmp_path / "real"), 7).spoke
    assert not read_last_words(str(tmp_path / "link"), 7).spoke


def test_a_huge_hole_after_a_good_report_is_no_matter(tmp_path):
    dump = b"Fatal Python error: Bus error\n\nCurrent thread 0x1 (most recent call first):\n" + b'  File "x", line 1 in f\n' * 40_000
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS)), (FATAL, dump)))
    os.truncate(tmp_path / "7.rep", 1 << 40)
    words = read_last_words(str(tmp_path), 7)
    assert words.exception.message == "first"
    assert (words.fatal_signal, len(words.fatal_frames)) == ("SIGBUS", 512)


def test_ten_thousand_files_do_not_hide_the_main_process(tmp_path):
    for number in range(100, 2100):
        (tmp_path / f"{number}.rep").touch()
    (tmp_path / "7.rep").write_bytes(_report((176, b"%015d\n" % 1)))
    assert read_last_words(str(tmp_path), 7).finalized


def test_the_deepest_refusal_counts_and_the_main_exception_stays(tmp_path):
    for pid, depth in ((8, 3), (9, 8), (10, 5)):
        hello = f"mainstay-guard 1 3.12.1 pid {pid} ppid 1 depth {depth}".encode().ljust(127) + b"\n"
        refusal = _report((25600, _record(f'{{"script":"loop.py","depth":{depth},"argv":[]}}')))
        (tmp_path / f"{pid}.rep").write_bytes(hello + refusal[128:])
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS))))
    words = read_last_words(str(tmp_path), 7)
    assert words.lineage == ("loop.py", 8)
    assert words.exception.where == "main"


DUMP = """Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 [worker] (most recent call first):
  File "/w.py", line 1 in wait

Current thread 0x00007f0000000002 [main] (most recent call first):
  File "/a \\"b\\".py", line 12 in inner
  File "/a.py", line ??? in outer
  ...

Current thread's C stack trace (most recent call first):
  Binary file "/lib/libc.so", at sig+0x1 [0x7f]

Extension modules: one, two (total: 2)
"""


FATAL, ASKED = 524288, 1572864
STACK = 'Stack (most recent call first):\n  File "/s.py", line %d in waits\n\n'


def test_the_dump_of_the_crashing_thread_is_read_from_among_all(tmp_path):
    (tmp_path / "7.rep").write_bytes(_report((FATAL, DUMP.encode()), (ASKED, (STACK % 3).encode())))
    words = read_last_words(str(tmp_path), 7)
    assert words.fatal_frames == (Frame("inner", '/a \\"b\\".py', 12), Frame("outer", "/a.py", 0))
    assert (words.fatal_signal, words.fatal_truncated) == ("SIGSEGV", True)
    assert words.asked_frames == (Frame("waits", "/s.py", 3),)


def test_a_process_from_before_an_upgrade_has_files_of_its_own_for_dumps_and_stacks(tmp_path):
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS))))
    (tmp_path / "7.fh").write_text(DUMP)
    (tmp_path / "7.st").write_text(STACK % 3 + STACK % 4)
    words = read_last_words(str(tmp_path), 7)
    assert (words.fatal_signal, words.fatal_frames[0].function) == ("SIGSEGV", "inner")
    assert words.asked_frames == (Frame("waits", "/s.py", 4),)
    assert read_stacks(str(tmp_path), 7) == ((Frame("waits", "/s.py", 3),), (Frame("waits", "/s.py", 4),))


def test_a_dump_ends_where_nobody_has_written_and_where_the_stacks_begin(tmp_path):
    torn = b"Fatal Python error: Bus error\n\n\0" + DUMP.encode()
    (tmp_path / "7.rep").write_bytes(_report((FATAL, torn)))
    assert (read_last_words(str(tmp_path), 7).fatal_signal, read_last_words(str(tmp_path), 7).fatal_frames) == ("SIGBUS", ())
    flood = (DUMP.encode() + b"x" * (ASKED - FATAL))[: ASKED - FATAL]
    (tmp_path / "8.rep").write_bytes(
        b"mainstay-guard 1 3.12.1 pid 8 ppid 1 depth 0".ljust(127) + b"\n" + _report((FATAL, flood), (ASKED, DUMP.encode()))[128:]
    )
    assert read_last_words(str(tmp_path), 8).fatal_signal == "SIGSEGV"


def test_a_fatal_error_without_a_signal_keeps_its_own_words(tmp_path):
    (tmp_path / "7.rep").write_bytes(_report())
    (tmp_path / "7.fh").write_text("Fatal Python error: took a wrong turn\n")
    assert read_last_words(str(tmp_path), 7).fatal_signal == "took a wrong turn"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 300_000), st.binary(max_size=200)), max_size=8), st.binary(max_size=500))
def test_no_bytes_whatever_make_the_reader_raise(tmp_path, pieces, dump):
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS)), *pieces, (FATAL, dump), (ASKED, dump)))
    assert isinstance(read_last_words(str(tmp_path), 7), LastWords)
    swallowed(str(tmp_path), 7)


def test_origins_are_read_as_far_as_they_make_sense(tmp_path):
    good = '{"type":"KeyError","at":"0f","files":["a.py"],"frames":[["parse",0,0]]}'
    others = ',7,{"type":7},{"type":"E","at":"no hash","frames":7}' + ',{"type":"F"}' * 100
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS[:-1] + f',"origins":[{good}{others}]}}'))))
    key, other, *rest = read_last_words(str(tmp_path), 7).exception.origins
    assert key == ExceptionFacts("KeyError", "", (Frame("parse", "a.py", 0),), 1, at="0f")
    assert other == ExceptionFacts("E", "", (), 0)
    assert len(rest) < 8
    (tmp_path / "7.rep").write_bytes(_report((1024, _record(FACTS[:-1] + ',"origins":{}}'))))
    assert read_last_words(str(tmp_path), 7).exception.origins == ()
