"""Filters of feeds: what they pass, by a model that decodes everything, and that no bytes of a peer disturb them."""

from __future__ import annotations

from typing import Any

import pytest
import rlp as oracle
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.feed_filters import MAX_READ_TRANSACTIONS, MessageFacts, message_test, session_test
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.eth.kinds import MessageKind, message_table
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.rlpx.capabilities import Capability, Shared

SENT, ANNOUNCED, POOLED, HEADERS = 2, 8, 10, 4


def kind(message: int, version: int = 69, name: str = "eth") -> MessageKind:
    return message_table((Shared(Capability(name, version), 16, 18),)).find(name, message)


def facts(message: int, content: Any, version: int = 69) -> MessageFacts:
    return MessageFacts(kind(message, version), bytes(oracle.encode(content)))


def passes(message: MessageFacts, **where: Any) -> bool:
    test = message_test(Where(**where))
    return test is None or test(message)


def view(**changes: Any) -> SessionView:
    found = SessionView(SessionId(7), WorkerId(0), Direction.INBOUND, "10.0.0.1:30303", 0, 0.0)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


# -- sessions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "is_match"),
    [
        ({"session": (6, 7)}, True),
        ({"session": (6,)}, False),
        ({"direction": Direction.INBOUND}, True),
        ({"direction": Direction.OUTBOUND}, False),
        ({"peer": "abab"}, True),
        ({"peer": "abac"}, False),
        ({"client": "eth/v1"}, True),
        ({"client": "geth"}, False),
        ({"shared": "eth/69"}, True),
        ({"shared": "eth"}, True),
        ({"shared": "eth/6"}, False),
        ({"shared": "snap"}, False),
        ({"shared": "et"}, False),
        ({"session": (7,), "client": "Geth", "shared": "eth"}, True),
        ({"session": (7,), "client": "Geth", "shared": "snap"}, False),
    ],
)
def test_everything_given_must_hold_of_a_session(where: dict[str, Any], *, is_match: bool) -> None:
    test = session_test(Where(**where))
    assert test is not None
    assert test(view(peer=b"\xab" * 64, client="Geth/v1", shared=("eth/69",))) is is_match


@pytest.mark.parametrize("where", [{"peer": "a"}, {"client": "G"}, {"shared": "eth"}])
def test_what_is_not_known_yet_does_not_match(where: dict[str, Any]) -> None:
    test = session_test(Where(**where))
    assert test is not None
    assert not test(view())


def test_without_a_filter_there_is_no_test() -> None:
    assert session_test(Where(types=(2,), min_size=5, sample=3)) is None
    assert message_test(Where(session=(1,), sample=3)) is None


# -- messages ---------------------------------------------------------------------------------------------------------------

BLOB = b"\x03" + b"x" * 40


def test_types_of_transactions_that_are_sent_and_pooled() -> None:
    for message, content in ((SENT, [[b"old"], BLOB]), (POOLED, [7, [[b"old"], BLOB]])):
        found = facts(message, content)
        assert found.types == {0, 3}
        assert passes(found, types=(0, 9))
        assert passes(found, types=(3,))
        assert not passes(found, types=(1, 2))


def test_an_announcement_passes_if_one_of_its_transactions_is_as_wanted() -> None:
    announced = facts(ANNOUNCED, [b"\x02\x03", [100, 130_000], [b"\x01" * 32, b"\x02" * 32]])
    assert passes(announced, types=(3,))
    assert not passes(announced, types=(0, 1))
    assert passes(announced, min_size=130_000)
    assert passes(announced, max_size=100)
    assert not passes(announced, min_size=101, max_size=129_999)
    assert passes(announced, types=(3,), min_size=100_000)
    assert not passes(announced, types=(2,), min_size=100_000)


def test_an_announcement_that_says_neither_types_nor_sizes_passes_no_filter_of_them() -> None:
    for version in (66, 67):
        announced = facts(ANNOUNCED, [b"\x01" * 32], version)
        assert passes(announced)
        assert not passes(announced, types=(0, 1, 2, 3))
        assert not passes(announced, min_size=0)
        assert not passes(announced, max_size=1 << 40)


def test_other_messages_have_the_size_of_their_payload_and_no_types() -> None:
    headers = facts(HEADERS, [7, []])
    assert passes(headers, types=(3,))
    assert passes(headers, types=(3,), min_size=3, max_size=3)
    assert not passes(headers, min_size=4)
    assert not passes(headers, max_size=2)
    assert not passes(facts(SENT, [BLOB]), types=(3,), min_size=1000)


def test_a_sub_protocols_message_is_no_transaction_whatever_its_number() -> None:
    message = MessageFacts(kind(2, 0, "wit"), b"\xc0")
    assert not message.has_transactions
    assert passes(message, types=(3,))


@pytest.mark.parametrize("payload", [b"", b"\x80", b"\xc1", b"\xc2\xb8\x00", b"\xc3\x80\x80\x80", b"\xf8", b"\x05"])
@pytest.mark.parametrize("message", [SENT, ANNOUNCED, POOLED])
def test_what_is_malformed_has_no_types(message: int, payload: bytes) -> None:
    found = MessageFacts(kind(message), payload)
    assert found.types == frozenset()
    assert not passes(found, types=tuple(range(128)))
    if message == ANNOUNCED:
        assert not passes(found, min_size=0)


def test_what_comes_before_a_mistake_is_read() -> None:
    assert MessageFacts(kind(SENT), b"\xc4\x82\x03x\xb8").types == {3}
    announced = MessageFacts(kind(ANNOUNCED), b"\xc7\x82\x02\x03\xc2\x64\xb8\xc0")
    assert announced.announces(100, 100, frozenset({2}))
    assert not announced.announces(0, None, frozenset({3}))
    assert announced.types == {2, 3}


def test_no_more_transactions_are_read_than_a_message_should_have() -> None:
    many: list[Any] = [[] for _ in range(MAX_READ_TRANSACTIONS)]
    assert facts(SENT, [*many, BLOB]).types == {0}
    count = MAX_READ_TRANSACTIONS + 5
    announced = facts(ANNOUNCED, [b"\x01" * count, list(range(1, count + 1)), []])
    assert passes(announced, min_size=MAX_READ_TRANSACTIONS)
    assert not passes(announced, min_size=MAX_READ_TRANSACTIONS + 1)


def test_a_size_without_end_is_large() -> None:
    announced = facts(ANNOUNCED, [b"\x01", [b"\x01" * 5000], [b"\x01" * 32]])
    assert passes(announced, min_size=1 << 62)
    assert not passes(announced, max_size=(1 << 63) - 1)


@given(payload=st.binary(max_size=60), message=st.sampled_from([SENT, ANNOUNCED, POOLED, HEADERS]))
def test_no_payload_raises(payload: bytes, message: int) -> None:
    found = MessageFacts(kind(message), payload)
    passes(found, types=(2,), min_size=1, max_size=100)
    passes(found, types=(2,))


@given(
    transactions=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 300))),
    types=st.none() | st.lists(st.integers(0, 5), min_size=1).map(tuple),
    least=st.none() | st.integers(0, 200),
    more=st.none() | st.integers(0, 200),
)
def test_an_announcement_passes_as_the_model_says(
    transactions: list[tuple[int, int]], types: tuple[int, ...] | None, least: int | None, more: int | None
) -> None:
    most = None if more is None else (least or 0) + more
    announced = facts(
        ANNOUNCED,
        [bytes(kind for kind, _ in transactions), [size for _, size in transactions], [bytes(32)] * len(transactions)],
    )
    is_filtered = types is not None or least is not None or most is not None
    expected = not is_filtered or any(
        (types is None or kind in types) and (least or 0) <= size and (most is None or size <= most)
        for kind, size in transactions
    )
    assert passes(announced, types=types, min_size=least, max_size=most) == expected


@given(transactions=st.lists(st.integers(0, 4)), types=st.lists(st.integers(0, 5), min_size=1).map(tuple))
def test_sent_transactions_pass_as_the_model_says(transactions: list[int], types: tuple[int, ...]) -> None:
    content = [[b"legacy"] if kind == 0 else bytes([kind]) + b"rest" for kind in transactions]
    for message, whole in ((SENT, content), (POOLED, [1, content])):
        assert passes(facts(message, whole), types=types) == (not set(types).isdisjoint(transactions))
