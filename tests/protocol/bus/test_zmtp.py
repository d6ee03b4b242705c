"""The listening side of ZMTP: what a user may say, what it is answered, and where it is stopped."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.zmtp import (
    COMMAND,
    LONG,
    MORE,
    Cancelled,
    Ended,
    Event,
    Kind,
    Limits,
    Message,
    Null,
    Ready,
    ServerConnection,
    Subscribed,
    ZmtpError,
)
from tests.fake_endpoint import events_of, greeting, ready

LIMITS = Limits(message_bytes=1000, message_frames=4, prefixes=3, prefix_bytes=100, dropped_bytes=300)


def opened(kind: Kind, socket_type: bytes, limits: Limits = LIMITS) -> ServerConnection:
    """A connection after its handshake."""
    connection = ServerConnection(kind, limits, Null())
    assert events_of(connection, greeting() + ready(socket_type)) == [Ready(socket_type.decode())]
    connection.outgoing()
    return connection


def subscriber(limits: Limits = LIMITS) -> ServerConnection:
    """A SUB socket's."""
    return opened(Kind.XPUB, b"SUB", limits)


def caller(limits: Limits = LIMITS) -> ServerConnection:
    """A DEALER socket's."""
    return opened(Kind.ROUTER, b"DEALER", limits)


# -- handshake --------------------------------------------------------------------------------------------------------------


def test_it_greets_first_as_zmtp_3_1_with_its_mechanism() -> None:
    assert ServerConnection(Kind.XPUB, LIMITS, Null()).outgoing() == greeting()


def test_the_handshake_ends_with_our_socket_type() -> None:
    connection = ServerConnection(Kind.ROUTER, LIMITS, Null())
    connection.outgoing()
    assert events_of(connection, greeting() + ready(b"REQ")) == [Ready("REQ")]
    answer = connection.outgoing()
    assert answer == b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER\x08Identity\x00\x00\x00\x00"
    assert connection.is_ready
    assert connection.user is None


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"GET / HTTP/1.1\r\n", "does not speak ZMTP 3"),
        (b"\xff" + bytes(9), "does not speak ZMTP 3"),
        (greeting(major=0)[:11], "speaks ZMTP 1, which is older than 3.0"),
        (greeting(major=2)[:11], "speaks ZMTP 2, which is older than 3.0"),
        (greeting(b"PLAIN"), "the peer's mechanism is PLAIN, ours is NULL"),
        (greeting(b"CURVE"), "the peer's mechanism is CURVE, ours is NULL"),
    ],
)
def test_what_greets_otherwise_is_closed_without_a_word(data: bytes, cause: str) -> None:
    connection = ServerConnection(Kind.ROUTER, LIMITS, Null())
    connection.outgoing()
    (ended,) = events_of(connection, data)
    assert isinstance(ended, Ended)
    assert cause in ended.cause
    assert connection.outgoing() == b""


@pytest.mark.parametrize(
    ("kind", "socket_type"),
    [(Kind.ROUTER, b"SUB"), (Kind.ROUTER, b"PUSH"), (Kind.XPUB, b"REQ"), (Kind.XPUB, b"PUB"), (Kind.XPUB, b"")],
)
def test_a_socket_that_cannot_use_the_endpoint_is_told_so(kind: Kind, socket_type: bytes) -> None:
    connection = ServerConnection(kind, LIMITS, Null())
    connection.outgoing()
    (ended,) = events_of(connection, greeting() + ready(socket_type))
    assert isinstance(ended, Ended)
    assert f"a {socket_type.decode()} socket cannot use this endpoint; it takes " in ended.cause
    assert connection.outgoing() == zmtp.error_command(ended.cause)
    assert not connection.is_ready


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (zmtp.encode([b"hello"]), "a message before the end of the handshake"),
        (zmtp.command(b"PING", b"\0\0"), "PING where READY is due"),
        (zmtp.command(b"ERROR", b"\x03no!"), "the peer gave up: no!"),
        (zmtp.frame(COMMAND, b""), "a malformed command"),
        (zmtp.frame(COMMAND, b"\x00"), "a malformed command"),
        (zmtp.frame(COMMAND, b"\x09READY"), "a malformed command"),
        (b"\x06" + (1 << 40).to_bytes(8, "big"), "over 2048"),
        (zmtp.command(b"READY", b"\x00\0\0\0\0"), "malformed properties"),
        (zmtp.command(b"READY", b"\x03ab"), "malformed properties"),
        (zmtp.command(b"READY", b"\x01a\0\0"), "malformed properties"),
        (zmtp.command(b"READY", b"\x01a\0\0\0\x02b"), "malformed properties"),
        (b"\x80\x00", "reserved bits"),
    ],
)
def test_a_broken_handshake_is_an_end_with_an_error_command(data: bytes, cause: str) -> None:
    connection = ServerConnection(Kind.ROUTER, LIMITS, Null())
    connection.outgoing()
    (ended,) = events_of(connection, greeting() + data)
    assert isinstance(ended, Ended)
    assert cause in ended.cause
    assert connection.outgoing().startswith(b"\x04")
    assert connection.is_ended
    assert events_of(connection, ready(b"DEALER")) == []


def test_the_reason_of_an_error_command_fits_its_length() -> None:
    assert zmtp.error_command("ü" * 300) == b"\x06" + (262).to_bytes(8, "big") + b"\x05ERROR\xff" + b"?" * 255


class TwoSteps(Null):
    """A mechanism with one more command in its handshake."""

    def on_command(self, command: bytes) -> tuple[bytes, zmtp.Properties | None]:
        if command.startswith(b"\x05HELLO"):
            return zmtp.command(b"WELCOME", b""), None
        return super().on_command(command)


def test_a_handshake_may_take_several_commands() -> None:
    connection = ServerConnection(Kind.ROUTER, LIMITS, TwoSteps())
    connection.outgoing()
    assert events_of(connection, greeting() + zmtp.command(b"HELLO", b"")) == []
    assert connection.outgoing() == zmtp.command(b"WELCOME", b"")
    assert not connection.is_ready
    assert events_of(connection, ready(b"DEALER")) == [Ready("DEALER")]


# -- messages ---------------------------------------------------------------------------------------------------------------


def test_a_message_of_several_frames_is_one_event() -> None:
    frames = [b"", b"short", b"l" * 300]
    assert events_of(caller(), zmtp.encode(frames)) == [Message(frames)]


@given(
    messages=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=3), max_size=5),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
)
def test_chunking_changes_nothing(messages: list[list[bytes]], cuts: list[int]) -> None:
    wire = greeting() + ready(b"DEALER") + b"".join(map(zmtp.encode, messages))
    connection = ServerConnection(Kind.ROUTER, LIMITS, Null())
    events: list[Event] = []
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    for start, end in pairwise(places):
        events += events_of(connection, wire[start:end])
    assert events == [Ready("DEALER"), *map(Message, messages)]
    assert connection.held_bytes == 0


@given(st.lists(st.binary(max_size=600), min_size=1, max_size=5))
def test_what_is_encoded_is_decoded(frames: list[bytes]) -> None:
    assert zmtp.decode(zmtp.encode(frames)) == frames


def test_a_message_is_bounded_over_all_its_frames() -> None:
    connection = caller()
    more = zmtp.encode([bytes(400), b""])[: -len(zmtp.encode([b""]))]
    assert events_of(connection, more * 2) == []
    assert connection.held_bytes == 800
    (ended,) = events_of(connection, more)
    assert ended == Ended("a message of over 1000 bytes")
    assert connection.held_bytes == 0


def test_an_announced_length_over_the_bound_is_not_awaited() -> None:
    assert events_of(caller(), bytes((LONG,)) + (1 << 62).to_bytes(8, "big")) == [Ended("a message of over 1000 bytes")]


def test_what_only_a_command_may_be_longer_by_is_refused_to_a_message() -> None:
    assert events_of(caller(), zmtp.encode([bytes(1005)])) == [Ended("a message of over 1000 bytes")]


def test_a_message_is_bounded_in_frames() -> None:
    assert events_of(caller(), bytes((MORE, 0)) * 5) == [Ended("a message of over 4 frames")]


def test_after_the_handshake_nobody_is_told_by_an_error_command() -> None:
    connection = caller()
    events_of(connection, b"\xff\xff")
    assert connection.outgoing() == b""


# -- subscriptions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscribe", "cancel"),
    [
        (zmtp.command(b"SUBSCRIBE", b"eth."), zmtp.command(b"CANCEL", b"eth.")),
        (zmtp.encode([b"\x01eth."]), zmtp.encode([b"\x00eth."])),
    ],
    ids=["3.1", "3.0"],
)
def test_subscriptions_come_as_commands_or_as_messages(subscribe: bytes, cancel: bytes) -> None:
    connection = subscriber()
    assert events_of(connection, subscribe * 2) == [Subscribed(b"eth.")]
    assert connection.prefixes == {b"eth."}
    assert events_of(connection, cancel * 2) == [Cancelled(b"eth.")]
    assert connection.prefixes == set()


def test_the_empty_prefix_is_all_topics() -> None:
    assert events_of(subscriber(), zmtp.encode([b"\x01"])) == [Subscribed(b"")]


def test_subscriptions_are_bounded_in_number() -> None:
    connection = subscriber()
    (*_, ended) = events_of(connection, b"".join(zmtp.encode([b"\x01%d" % number]) for number in range(4)))
    assert ended == Ended("over 3 subscriptions, or over 100 bytes of them")


def test_subscriptions_are_bounded_in_bytes() -> None:
    connection = subscriber()
    sent = [zmtp.encode([b"\x01" + bytes(60)]), zmtp.encode([b"\x00" + bytes(60)]), zmtp.encode([b"\x01" + bytes(90)])]
    assert len(events_of(connection, b"".join(sent))) == 3
    (ended,) = events_of(connection, zmtp.encode([b"\x01" + bytes(11)]))
    assert isinstance(ended, Ended)


@pytest.mark.parametrize(
    "junk",
    [
        zmtp.encode([b"hello"]),
        zmtp.encode([b""]),
        zmtp.encode([b"\x01a", b"\x01b"]),
        zmtp.command(b"PONG", b""),
        zmtp.command(b"DANCE", b""),
    ],
)
def test_what_a_subscriber_says_otherwise_is_dropped_and_soon_ends_it(junk: bytes) -> None:
    connection = subscriber()
    assert events_of(connection, junk) == []
    assert connection.prefixes == set()
    (ended,) = events_of(connection, junk * 5)
    assert ended == Ended("the peer goes on sending what this endpoint does not take")


def test_after_a_dropped_message_of_several_frames_subscriptions_count_again() -> None:
    assert events_of(subscriber(), zmtp.encode([b"x", b"\x01a"]) + zmtp.encode([b"\x01b"])) == [Subscribed(b"b")]


def test_a_caller_cannot_subscribe() -> None:
    connection = caller()
    assert events_of(connection, zmtp.command(b"SUBSCRIBE", b"a") + zmtp.command(b"CANCEL", b"a")) == []
    assert connection.prefixes == set()


# -- heartbeats -------------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_context() -> None:
    connection = subscriber()
    assert events_of(connection, zmtp.command(b"PING", b"\x00\x0acontext")) == []
    assert connection.outgoing() == zmtp.command(b"PONG", b"context")


@pytest.mark.parametrize("rest", [b"", b"\x00", bytes(19)])
def test_a_malformed_ping_ends_the_connection(rest: bytes) -> None:
    assert events_of(subscriber(), zmtp.command(b"PING", rest)) == [Ended("a malformed PING")]


def test_null_changes_nothing_on_the_wire() -> None:
    wire = zmtp.encode([b"topic", b"head"])
    assert subscriber().seal(wire) is wire
    parts = [wire, b"more"]
    assert subscriber().seal_parts(parts) is parts


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    for connection in (ServerConnection(Kind.ROUTER, LIMITS, Null()), subscriber(), caller()):
        events = events_of(connection, data)
        assert not any(isinstance(event, Ended) for event in events[:-1])


def test_properties_are_found_whatever_their_case() -> None:
    assert zmtp.parse_metadata(zmtp.metadata({"SOCKET-type": b"SUB"})) == {"socket-type": b"SUB"}
    with pytest.raises(ZmtpError):
        zmtp.parse_metadata(b"\x05")


def test_a_byte_at_a_time_is_enough() -> None:
    connection = ServerConnection(Kind.ROUTER, LIMITS, Null())
    wire = greeting() + ready(b"DEALER") + zmtp.encode([bytes(300)])
    events = [event for place in range(len(wire)) for event in events_of(connection, wire[place : place + 1])]
    assert events == [Ready("DEALER"), Message([bytes(300)])]


def test_a_long_frame_is_decoded() -> None:
    assert zmtp.decode(zmtp.encode([bytes(300), b"", bytes(255)])) == [bytes(300), b"", bytes(255)]
