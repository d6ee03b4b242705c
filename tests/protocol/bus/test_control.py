"""Engine and worker understand each other: every message, in any cut of the stream."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import (
    CallId,
    Command,
    DisconnectSession,
    Drain,
    Reply,
    Report,
    SessionId,
    SessionStats,
    Stats,
    Verdict,
)
from rlpx.protocol.bus.framing import StreamDecoder
from rlpx.protocol.bus.records import (
    Record,
)
from rlpx.protocol.bus.reports import ReportReader
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from tests.generated import examples
from tests.protocol.bus.any_struct import kinds, structs

commands = st.one_of(*map(structs, kinds(Command)))
reports = st.one_of(*map(structs, kinds(Report)))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10**6), max_size=12)


# -- the stream -------------------------------------------------------------------------------------------------------------


@given(messages=st.lists(commands, max_size=4), places=CUTS)
def test_commands_arrive_whole_and_in_order_in_any_chunking(messages: list[Command], places: list[int]) -> None:
    decoder = control.command_decoder()
    stream = b"".join(map(control.encode, messages))
    assert [message for piece in cut(stream, places) for message in decoder.feed(piece)] == messages


@given(messages=st.lists(reports, max_size=4), places=CUTS)
def test_reports_arrive_whole_and_in_order_in_any_chunking(messages: list[Report], places: list[int]) -> None:
    decoder = ReportReader()
    stream = b"".join(map(control.encode, messages))
    assert [message for piece in cut(stream, places) for message in decoder.feed(piece)] == messages


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [
        *[pytest.param(kind, control.command_decoder, id=kind.__name__) for kind in kinds(Command)],
        *[pytest.param(kind, ReportReader, id=kind.__name__) for kind in kinds(Report)],
    ],
)
def test_each_message_arrives_as_what_it_was(kind: Any, decoder: Callable[[], StreamDecoder[Any]]) -> None:
    @examples(20)
    @given(message=structs(kind))
    def arrives(message: Any) -> None:
        (arrived,) = decoder().feed(control.encode(message))
        assert type(arrived) is kind
        assert arrived == message

    arrives()


def test_a_message_comes_with_its_last_byte_and_not_before() -> None:
    decoder = control.command_decoder()
    message = DisconnectSession(SessionId(42), DisconnectReason.USELESS_PEER, "not needed any more")
    stream = control.encode(message)
    assert [decoder.feed(stream[place : place + 1]) for place in range(len(stream) - 1)] == [[]] * (len(stream) - 1)
    assert decoder.feed(b"") == []
    assert decoder.feed(stream[-1:]) == [message]
    assert decoder.feed(stream + stream) == [message, message]


def test_a_message_stands_behind_its_length_in_four_bytes() -> None:
    stream = control.encode(Drain(DisconnectReason.CLIENT_QUITTING, "the engine stops"))
    assert int.from_bytes(stream[:4], "big") == len(stream) - 4
    assert msgspec.msgpack.decode(stream[4:]) == ["drain", 8, "the engine stops"]


def test_a_command_is_no_report() -> None:
    with pytest.raises(msgspec.ValidationError):
        ReportReader().feed(control.encode(Verdict(SessionId(1))))
    with pytest.raises(msgspec.ValidationError):
        control.command_decoder().feed(control.encode(Reply(CallId(1))))


def test_no_two_messages_of_one_direction_share_a_tag() -> None:
    for union in (Command, Report, Record):
        tags = [kind.__struct_config__.tag for kind in kinds(union)]
        assert len(tags) == len(set(tags))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["reboot"]),
        msgspec.msgpack.encode(["drain", -1, ""]),
        msgspec.msgpack.encode(["judge"]),
        msgspec.msgpack.encode({"type": "drain", "reason": 8, "cause": ""}),
    ],
)
def test_bad_data_of_our_own_is_a_fault(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        control.command_decoder().feed(len(body).to_bytes(4, "big") + body)


def test_what_is_left_out_has_its_default() -> None:
    (judge,) = control.command_decoder().feed(control.encode(Verdict(SessionId(1))))
    assert isinstance(judge, Verdict)
    assert judge.refusal is None
    assert SessionStats() == SessionStats(0, 0, 0, 0, None, 0)


def test_no_message_changes_after_it_was_made() -> None:
    for union in (Command, Report, Record):
        assert all(kind.__struct_config__.frozen for kind in kinds(union))


def test_figures_keep_their_session_ids_and_stages() -> None:
    stats = Stats(
        CallId(3),
        {
            42: (Stage.ACTIVE, SessionStats(bytes_in=2**40, rtt_ms=1.5), (1, 2, "0xab")),
            7: (Stage.CONNECT, SessionStats(), None),
        },
    )
    assert ReportReader().feed(control.encode(stats)) == [stats]


def test_a_message_of_a_mebibyte_arrives_in_small_pieces() -> None:
    message = control.SendMessage(CallId(1), SessionId(2), "eth", 2, bytes(range(256)) * 4096)
    stream = control.encode(message)
    decoder = control.command_decoder()
    arrived = [message for start in range(0, len(stream), 65536) for message in decoder.feed(stream[start : start + 65536])]
    assert arrived == [message]
