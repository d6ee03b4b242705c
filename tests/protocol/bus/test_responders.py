"""What workers and responders say: each reads what the other writes, and a responder hears what it should have said."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.data_heads import NotUnderstoodError, RefusedMessage
from rlpx.protocol.bus.responders import (
    MAX_CREDIT,
    OfferedRequest,
    ResponderMessage,
    read_responder_message,
    read_worker_message,
)

OFFERED = OfferedRequest(7, 42, "ab" * 64, "eth.GetBlockHeaders", 69, 5, 2000)


def test_a_registration_has_its_topics_and_credit_alone() -> None:
    assert msgspec.json.encode(ResponderMessage(("eth.GetBlockHeaders",), 16)) == (
        b'{"register":["eth.GetBlockHeaders"],"credit":16}'
    )


def test_an_answer_has_its_token_alone() -> None:
    assert msgspec.json.encode(ResponderMessage(token=7)) == b'{"token":7}'


def test_an_offered_request_has_the_promised_fields() -> None:
    assert msgspec.json.decode(msgspec.json.encode(OFFERED)) == {
        "token": 7,
        "session": 42,
        "peer": "ab" * 64,
        "topic": "eth.GetBlockHeaders",
        "version": 69,
        "request_id": 5,
        "deadline_ms": 2000,
    }


@pytest.mark.parametrize("message", [OFFERED, RefusedMessage("words")])
def test_a_responder_reads_what_a_worker_writes(message: OfferedRequest | RefusedMessage) -> None:
    assert read_worker_message(msgspec.json.encode(message)) == message


@pytest.mark.parametrize("message", [ResponderMessage(("a", "b"), MAX_CREDIT), ResponderMessage(token=1)])
def test_a_worker_reads_what_a_responder_writes(message: ResponderMessage) -> None:
    assert read_responder_message(msgspec.json.encode(message)) == message


def test_what_a_program_of_an_earlier_version_says_is_understood() -> None:
    assert read_responder_message(b'{"register":["a"],"credit":1,"start":99}').register == ("a",)


@pytest.mark.parametrize(
    "head",
    [b"", b"{", b"[]", b'{"tokn":1}', b'{"credit":1025}', b'{"register":[1]}', b"\xff", b"[" * 100_000],
)
def test_what_is_not_understood_is_answered_with_what_would_be(head: bytes) -> None:
    with pytest.raises(NotUnderstoodError, match=r'expected \{"register": \[up to 64 topics\], "credit": 0 to 1024\}'):
        read_responder_message(head)


@given(st.binary(max_size=60))
def test_no_bytes_do_worse(head: bytes) -> None:
    with suppress(NotUnderstoodError):
        read_responder_message(head)
