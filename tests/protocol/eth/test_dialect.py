"""A dialect made of a small table: forms by version, bounds, and what is refused."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
import rlp as oracle

from rlpx.protocol.errors import MessageError, RlpError, UsageError
from rlpx.protocol.eth.dialect import Dialect, Form
from rlpx.protocol.eth.dialects import DIALECTS
from rlpx.protocol.eth.messages import ETH
from rlpx.protocol.eth.schema import Uint64, list_of, record, uint
from rlpx.protocol.eth.snap_messages import SNAP
from rlpx.protocol.eth.table import MAX_MESSAGE_BYTES, MessageType


class Numbers(msgspec.Struct, frozen=True):
    numbers: Annotated[tuple[int, ...], list_of(uint(8), 10)]


class Pair(msgspec.Struct, frozen=True):
    low: Uint64
    high: Uint64


def check_pair(pair: Pair) -> None:
    if pair.low > pair.high:
        raise MessageError("a pair in the wrong order")


ROWS = (MessageType(0, "Numbers"), MessageType(1, "Pair", since=2))
FORMS = {
    "Numbers": {1: Form(Numbers, record(Numbers), 3), 3: Form(Pair, record(Pair), 3, check_pair)},
    "Pair": {1: Form(Pair, record(Pair), 3, check_pair)},
}
LAX: Dialect[Numbers | Pair] = Dialect("toy", ((1, 2, 3), ROWS), FORMS, is_exact=False)
EXACT: Dialect[Numbers | Pair] = Dialect("toy", ((1, 2, 3), ROWS), FORMS, is_exact=True)


def test_a_version_has_the_latest_form_that_it_knows() -> None:
    assert {version: dict(table) for version, table in LAX.messages.items()} == {
        1: {0: Numbers},
        2: {0: Numbers, 1: Pair},
        3: {0: Pair, 1: Pair},
    }


def test_a_message_is_read_as_it_was_written() -> None:
    for message in (Numbers((1, 2)), Pair(1, 2)):
        payload = LAX.encode(2, message)
        assert LAX.decode(2, LAX.id_of(2, message), payload) == message


def test_bytes_after_a_message_are_ignored_or_refused() -> None:
    payload = oracle.encode([1, 2]) + b"rest"
    assert LAX.decode(2, 1, payload) == Pair(1, 2)
    with pytest.raises(RlpError, match="Pair: bytes after the message"):
        EXACT.decode(2, 1, payload)


def test_what_the_version_does_not_have_is_refused() -> None:
    with pytest.raises(MessageError, match="toy/1 has no message 0x01"):
        LAX.decode(1, 1, b"\xc0")
    with pytest.raises(UsageError, match="toy/1 has no Pair"):
        LAX.encode(1, Pair(1, 2))
    for call in (lambda: LAX.decode(4, 0, b"\xc0"), lambda: LAX.encode(4, Pair(1, 2)), lambda: LAX.id_of(4, Pair(1, 2))):
        with pytest.raises(UsageError, match="toy/4 is not spoken here"):
            call()


def test_the_bounds_of_a_form_hold() -> None:
    with pytest.raises(MessageError, match=r"Numbers\.numbers: more list elements than fit the message"):
        LAX.decode(1, 0, oracle.encode([[1, 2, 3, 4]]))
    with pytest.raises(MessageError, match="a message of 10485761 bytes"):
        LAX.decode(1, 0, bytes(MAX_MESSAGE_BYTES + 1))


def test_fields_that_do_not_fit_each_other_are_the_peers_fault_or_the_users() -> None:
    with pytest.raises(MessageError, match="Pair: a pair in the wrong order"):
        LAX.decode(2, 1, oracle.encode([2, 1]))
    with pytest.raises(UsageError, match="a pair in the wrong order"):
        LAX.encode(2, Pair(2, 1))


def test_there_are_two_dialects_by_name() -> None:
    assert DIALECTS == {"eth": ETH, "snap": SNAP}
