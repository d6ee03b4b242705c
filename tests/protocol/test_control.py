"""Engine and worker understand each other: every message and record, in any cut of the stream."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import control, eth, snap
from protocol.control import (
    CallId,
    Command,
    Configure,
    Dial,
    DisconnectSession,
    Drain,
    Figures,
    Handoff,
    Handoffs,
    Judge,
    NodeConfig,
    OutboxConfig,
    Record,
    Reply,
    Report,
    ResponderConfig,
    SessionConfig,
    SessionId,
    Traffic,
    WorkerId,
)
from protocol.errors import DisconnectReason
from protocol.eth import Head
from protocol.events import Stage
from protocol.forkid import Chain

repeatable = settings(derandomize=True, deadline=None)

CONF = Path(__file__).parents[2] / "conf"
KEY: Final = bytes(range(0x80, 0xA0))

UNSIGNED = st.integers(0, 2**63 - 1)
CHAINS = st.builds(
    Chain,
    name=st.text(max_size=8),
    network_id=UNSIGNED,
    genesis_hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
    genesis_time=UNSIGNED,
    fork_blocks=st.lists(UNSIGNED, max_size=3).map(tuple),
    fork_times=st.lists(UNSIGNED, max_size=3).map(tuple),
)
# What a field's annotation stands for; structs, enums, tuples and unions are taken apart below.
LEAVES: Final[dict[Any, st.SearchStrategy[Any]]] = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(st.characters(codec="utf-8"), max_size=10),
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
    type(None): st.none(),
    Chain: CHAINS,
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type: a message that is added to `control` is tested without being named here."""
    annotation = getattr(annotation, "__supertype__", annotation)
    if annotation in LEAVES:
        return LEAVES[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return st.one_of(*map(values, arguments))
    if origin is dict:
        return st.dictionaries(*map(values, arguments), max_size=3)
    if origin is tuple:
        is_any_length = arguments[-1] is Ellipsis
        return st.lists(values(arguments[0]), max_size=3).map(tuple) if is_any_length else st.tuples(*map(values, arguments))
    return st.sampled_from(annotation) if issubclass(annotation, Enum) else structs(annotation)


def structs(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a struct."""
    return st.builds(kind, **{field.name: values(field.type) for field in msgspec.structs.fields(kind)})


def kinds(union: Any) -> tuple[Any, ...]:
    """The members of one direction's union."""
    members: tuple[Any, ...] = get_args(union)
    return members


commands = st.one_of(*map(structs, kinds(Command)))
reports = st.one_of(*map(structs, kinds(Report)))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """The stream in pieces, some of them empty."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 10**6), max_size=12)


# -- the stream -------------------------------------------------------------------------------------------------------------


@repeatable
@given(messages=st.lists(commands, max_size=4), places=CUTS)
def test_commands_arrive_whole_and_in_order_in_any_chunking(messages: list[Command], places: list[int]) -> None:
    decoder = control.command_decoder()
    stream = b"".join(map(control.encode, messages))
    assert [message for piece in cut(stream, places) for message in decoder.feed(piece)] == messages


@repeatable
@given(messages=st.lists(reports, max_size=4), places=CUTS)
def test_reports_arrive_whole_and_in_order_in_any_chunking(messages: list[Report], places: list[int]) -> None:
    decoder = control.report_decoder()
    stream = b"".join(map(control.encode, messages))
    assert [message for piece in cut(stream, places) for message in decoder.feed(piece)] == messages


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [
        *[pytest.param(kind, control.command_decoder, id=kind.__name__) for kind in kinds(Command)],
        *[pytest.param(kind, control.report_decoder, id=kind.__name__) for kind in kinds(Report)],
    ],
)
def test_each_message_arrives_as_what_it_was(kind: Any, decoder: Callable[[], control.StreamDecoder[Any]]) -> None:
    @settings(repeatable, max_examples=20)
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
        control.report_decoder().feed(control.encode(Judge(SessionId(1))))
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
        msgspec.msgpack.encode(["drain", 12, ""]),
        msgspec.msgpack.encode(["judge"]),
        msgspec.msgpack.encode({"type": "drain", "reason": 8, "cause": ""}),
    ],
)
def test_bad_data_of_our_own_is_a_fault(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        control.command_decoder().feed(len(body).to_bytes(4, "big") + body)


def test_what_is_left_out_has_its_default() -> None:
    (judge,) = control.command_decoder().feed(control.encode(Judge(SessionId(1))))
    assert isinstance(judge, Judge)
    assert judge.refusal is None
    assert Traffic() == Traffic(0, 0, 0, 0, None, 0)


def test_no_message_changes_after_it_was_made() -> None:
    for union in (Command, Report, Record):
        assert all(kind.__struct_config__.frozen for kind in kinds(union))


def test_figures_keep_their_session_ids_and_stages() -> None:
    figures = Figures(
        CallId(3),
        {42: (Stage.ACTIVE, Traffic(bytes_in=2**40, rtt_ms=1.5), (1, 2, "0xab")), 7: (Stage.CONNECT, Traffic(), None)},
    )
    assert control.report_decoder().feed(control.encode(figures)) == [figures]


def test_a_message_of_a_mebibyte_arrives_in_small_pieces() -> None:
    message = control.SendMessage(CallId(1), SessionId(2), "eth", 2, bytes(range(256)) * 4096)
    stream = control.encode(message)
    decoder = control.command_decoder()
    arrived = [message for start in range(0, len(stream), 65536) for message in decoder.feed(stream[start : start + 65536])]
    assert arrived == [message]


# -- records ----------------------------------------------------------------------------------------------------------------


def configuration(chain_file: str) -> Configure:
    """A worker's configuration with a chain of `conf/`."""
    chain = msgspec.convert(tomllib.loads((CONF / f"{chain_file}.toml").read_text(encoding="utf-8")), Chain)
    return Configure(
        worker=WorkerId(1),
        node=NodeConfig(KEY, "rlpx-engine/0.1.0", 30303),
        protocols=(eth.sub_protocol(69), snap.sub_protocol(1)),
        required=("eth",),
        chain=chain,
        head=Head(0, chain.genesis, total_difficulty="58750003716598352816469"),
        is_head_known=True,
        session=SessionConfig(5.0, 10.0, 20.0, 15.0, 15.0, 15.0, 2.0, 256, 4, True, 1048576, 20.0),
        outbox=OutboxConfig("ipc:///run/events.ipc", 0.002, 131072, 1000),
        responder=ResponderConfig("ipc:///run/worker-0.ipc", 5.0, 4),
    )


@repeatable
@given(record=st.one_of(*map(structs, kinds(Record))))
def test_a_record_reads_back_as_it_was(record: Record) -> None:
    again = control.decode_record(control.encode_record(record))
    assert type(again) is type(record)
    assert again == record


@pytest.mark.parametrize("chain", ["mainnet", "sepolia", "hoodi", "dev"])
def test_the_configuration_of_each_chain_fits_a_record(chain: str) -> None:
    record = control.encode_record(configuration(chain))
    assert control.decode_record(record) == configuration(chain)
    assert len(record) < control.RECORD_MAX_BYTES // 8


@pytest.mark.parametrize("data", [b"", b"\xc1", control.encode_record(Handoffs((Handoff(SessionId(1)),)))[:-1]])
def test_a_record_that_is_not_one_is_a_fault(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        control.decode_record(data)


def test_a_command_is_no_record() -> None:
    with pytest.raises(msgspec.ValidationError):
        control.decode_record(control.encode(Dial(SessionId(1), bytes(64), "192.0.2.1", 30303))[4:])


def test_the_nodes_key_stands_in_no_representation() -> None:
    configure = configuration("dev")
    assert control.decode_record(control.encode_record(configure)) == configure
    for text in (
        repr(configure),
        str(configure),
        f"{configure}",
        repr(configure.node),
        str(configure.node),
        repr([configure]),
        # What a rich traceback asks for; msgspec's own tells every field.
        str(configure.node.__rich_repr__()),
    ):
        assert "rlpx-engine/0.1.0" in text
        for spelling in (repr(KEY), repr(KEY)[2:-1], KEY.hex(), str(list(KEY))):
            assert spelling not in text
