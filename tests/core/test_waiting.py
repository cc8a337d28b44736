"""Words for what threads wait for, from texts as the kernel writes them."""

import pytest

from supervisor.core.waiting import Call, describe_link, parse_call, parse_state, process_words, thread_words

TAIL = "0x7f00 0x1 0x0 0x0 0x0 0x0 0x7ffc 0x7f12"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("17 (python3) S 1 17 17 0 -1", "S"),
        ("17 (a name) with) brackets) R 1 17", "R"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_the_state_stands_after_the_last_bracket(text: str, state: str) -> None:
    assert parse_state(text) == state


@pytest.mark.parametrize(
    ("text", "machine", "call"),
    [
        (f"0 0x5 {TAIL}", "x86_64", Call("reading from", 5)),
        (f"63 0x5 {TAIL}", "aarch64", Call("reading from", 5)),
        (f"202 {TAIL}", "x86_64", Call("waiting for a lock")),
        (f"202 0x4 {TAIL}", "aarch64", Call("accepting a connection on", 4)),
        (f"999 0x5 {TAIL}", "x86_64", Call("in system call 999")),
        (f"0 0x5 {TAIL}", "riscv64", Call("in system call 0")),
        ("running", "x86_64", None),
        ("-1 0x7ffc 0x7f12", "x86_64", None),
        ("", "x86_64", None),
        ("0 banana", "x86_64", Call("reading from")),
    ],
)
def test_a_system_call_has_words_on_each_machine(text: str, machine: str, call: Call | None) -> None:
    assert parse_call(text, machine) == call


@pytest.mark.parametrize(
    ("state", "call", "described", "wchan", "words"),
    [
        ("R", None, "", "0", "running"),
        ("T", None, "", "do_signal_stop", "running (stopped by a signal)"),
        ("D", None, "", "nfs_wait", "stuck in the kernel (nfs_wait)"),
        ("S", Call("reading from", 0), "a pipe", "anon_pipe_read", "reading from a pipe (fd 0)"),
        ("T", Call("reading from", 9), "", "do_signal_stop", "reading from fd 9"),
        ("S", None, "", "0", "waiting"),  # another user's process: the call is not told
        ("S", None, "", "futex_do_wait", "waiting (futex_do_wait)"),
        ("Z", None, "", "", "ended"),
        ("", None, "", "", "ended"),
    ],
)
def test_one_thread_in_words(state: str, call: Call | None, described: str, wchan: str, words: str) -> None:
    assert thread_words(state, call, described, wchan) == words


def test_what_a_descriptor_leads_to() -> None:
    assert describe_link("pipe:[123]") == "a pipe"
    assert describe_link("socket:[123]") == "a socket"
    assert describe_link("/dev/pts/0") == "a terminal"
    assert describe_link("/var/lib/data.db") == "/var/lib/data.db"


def test_a_process_is_its_main_thread_and_the_others_counted() -> None:
    assert process_words([]) == ""
    assert process_words(["sleeping"]) == "sleeping"
    assert process_words(["sleeping", "running", "running"]) == "sleeping; 2 other threads: running"
    lock = "waiting for a lock"
    assert process_words([lock]) == lock
    assert process_words([lock, lock]) == "all 2 threads wait for locks: a deadlock, if nothing outside is to release them"
