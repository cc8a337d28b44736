"""The protocol between the halves: whatever is encoded is decoded, however the bytes arrive; whatever else comes is refused."""

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import wire
from supervisor.errors import WireError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
messages = st.builds(lambda op, facts: {**facts, "op": op}, st.text(), st.dictionaries(st.text(), json_values, max_size=5))


@given(st.lists(messages, max_size=6), st.lists(st.integers(1, 200), max_size=40))
def test_what_is_encoded_is_decoded_in_order_however_the_bytes_are_cut(sent: list[wire.Message], cuts: list[int]) -> None:
    data = b"".join(wire.encode(message) for message in sent)
    decoder, received = wire.Decoder(), []
    for size in [*cuts, len(data)]:
        piece, data = data[:size], data[size:]
        received += list(decoder.feed(piece))
    received += list(decoder.feed(data))
    assert received == sent


@given(st.binary(max_size=300))
def test_any_other_bytes_are_refused_or_waited_on_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(WireError):
        assert all(isinstance(message["op"], str) for message in wire.Decoder().feed(data))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_that_is_no_message_is_refused(value: object) -> None:
    body = json.dumps(value).encode()
    framed = struct.pack(">I", len(body)) + body
    if isinstance(value, dict) and isinstance(value.get("op"), str):
        assert list(wire.Decoder().feed(framed)) == [value]
    else:
        with pytest.raises(WireError):
            list(wire.Decoder().feed(framed))


def test_a_length_beyond_the_largest_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(WireError, match="was announced"):
        list(wire.Decoder().feed(struct.pack(">I", wire.MAX_MESSAGE + 1)))
    with pytest.raises(WireError, match="is larger than"):
        wire.encode({"op": "x", "data": "y" * wire.MAX_MESSAGE})


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"op": "x", "n": ' + b"9" * 10_000 + b"}", b"\xff\xfe", b""])
def test_json_that_breaks_parsers_is_a_wire_error_or_a_message(body: bytes) -> None:
    with contextlib.suppress(WireError):
        assert [message["op"] for message in wire.Decoder().feed(struct.pack(">I", len(body)) + body)] == ["x"]


@given(st.integers(0, 2**62), st.integers(0, 2**31))
def test_keys_of_attempts_go_there_and_back(run: int, attempt: int) -> None:
    assert wire.split_key(wire.attempt_key(run, attempt)) == (run, attempt)


@given(st.text())
def test_other_text_is_no_key(text: str) -> None:
    try:
        run, attempt = wire.split_key(text)
    except WireError:
        return
    assert text.partition(".")[0].isdecimal()
    assert (run, attempt) >= (0, 0)
