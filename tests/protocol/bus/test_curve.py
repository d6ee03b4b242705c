"""CURVE as the side that listens, against a client written from the specification and against libzmq's own."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.curve import OVERHEAD_BYTES, CurveServer, ServerKeys
from rlpx.protocol.bus.zmtp import COMMAND, Ended, Kind, Limits, Message, Ready, ServerConnection, Subscribed
from tests.fake_endpoint import events_of, greeting

LIMITS = Limits(message_bytes=1000)
SERVER = ServerKeys.from_secret(b"\x11" * 32)
CLIENT = ServerKeys.from_secret(b"\x22" * 32)
TRANSIENT = ServerKeys.from_secret(b"\x33" * 32)


class Client:
    """The connecting side, from RFC 26. A test changes what it wants wrong before it is sent."""

    def __init__(self, server_key: bytes = SERVER.public, keys: ServerKeys = CLIENT) -> None:
        self.server_key, self.keys = server_key, keys
        self.nonces = itertools.count(1)
        self.shared = b""
        self.vouched = TRANSIENT.public + server_key

    def nonce(self) -> bytes:
        return next(self.nonces).to_bytes(8, "big")

    def hello(self, version: bytes = b"\x01\x00") -> bytes:
        nonce = self.nonce()
        box = bindings.crypto_box(bytes(64), b"CurveZMQHELLO---" + nonce, self.server_key, TRANSIENT.secret)
        return zmtp.command(b"HELLO", version + bytes(72) + TRANSIENT.public + nonce + box)

    def initiate(self, welcome: bytes, socket_type: bytes = b"DEALER") -> bytes:
        """`welcome` is the whole frame."""
        _, rest = zmtp.split_command(zmtp.decode(welcome)[0])
        plain = bindings.crypto_box_open(rest[16:], b"WELCOME-" + rest[:16], self.server_key, TRANSIENT.secret)
        transient, cookie = plain[:32], plain[32:]
        self.shared = bindings.crypto_box_beforenm(transient, TRANSIENT.secret)
        vouch = bindings.crypto_box(self.vouched, b"VOUCH---" + bytes(16), transient, self.keys.secret)
        properties = zmtp.metadata({"Socket-Type": socket_type, "Identity": b""})
        nonce = self.nonce()
        plain = self.keys.public + bytes(16) + vouch + properties
        box = bindings.crypto_box_afternm(plain, b"CurveZMQINITIATE" + nonce, self.shared)
        return zmtp.command(b"INITIATE", cookie + nonce + box)

    def message(self, flags: int, body: bytes) -> bytes:
        nonce = self.nonce()
        box = bindings.crypto_box_afternm(bytes((flags,)) + body, b"CurveZMQMESSAGEC" + nonce, self.shared)
        return zmtp.frame(0, b"\x07MESSAGE" + nonce + box)

    def opened(self, wire: bytes) -> list[tuple[int, bytes]]:
        """Flags and bodies of what the server has sealed."""
        frames = []
        for body in zmtp.decode(wire):
            assert body.startswith(b"\x07MESSAGE")
            plain = bindings.crypto_box_open_afternm(body[16:], b"CurveZMQMESSAGES" + body[8:16], self.shared)
            frames.append((plain[0], plain[1:]))
        return frames


def authorise(key: bytes) -> str | None:
    """One key is known."""
    return "alice" if key == CLIENT.public else None


def server(kind: Kind = Kind.ROUTER) -> ServerConnection:
    """A connection that has greeted and been greeted."""
    entropy = itertools.count(1)
    mechanism = CurveServer(SERVER, authorise, lambda size: next(entropy).to_bytes(1, "big") * size)
    connection = ServerConnection(kind, LIMITS, mechanism)
    assert connection.outgoing()[12:33] == b"CURVE".ljust(20, b"\0") + b"\x01"
    assert events_of(connection, greeting(b"CURVE")) == []
    return connection


def welcomed(connection: ServerConnection, client: Client) -> bytes:
    """The WELCOME."""
    assert events_of(connection, client.hello()) == []
    return connection.outgoing()


def opened(kind: Kind = Kind.ROUTER, socket_type: bytes = b"DEALER") -> tuple[ServerConnection, Client]:
    """Both sides after the handshake."""
    connection, client = server(kind), Client()
    welcome = welcomed(connection, client)
    assert events_of(connection, client.initiate(welcome, socket_type)) == [Ready(socket_type.decode())]
    return connection, client


def ended(connection: ServerConnection, data: bytes) -> str:
    """It ends by these bytes: why."""
    (end,) = events_of(connection, data)
    assert isinstance(end, Ended)
    return end.cause


def test_a_handshake_names_the_key_and_ends_with_our_properties_in_a_box() -> None:
    connection, client = opened()
    assert connection.user == "alice"
    _, rest = zmtp.split_command(zmtp.decode(connection.outgoing())[0])
    plain = bindings.crypto_box_open_afternm(rest[8:], b"CurveZMQREADY---" + rest[:8], client.shared)
    assert zmtp.parse_metadata(plain) == {"socket-type": b"ROUTER", "identity": b""}


def test_messages_travel_in_boxes_both_ways() -> None:
    connection, client = opened()
    connection.outgoing()
    assert events_of(connection, client.message(1, b"one") + client.message(0, b"l" * 500)) == [
        Message([b"one", b"l" * 500])
    ]
    wire = zmtp.encode([b"topic", b"l" * 500])
    assert client.opened(bytes(connection.seal(wire))) == [(1, b"topic"), (0, b"l" * 500)]
    parts = [wire[:3], wire[3:]]
    assert client.opened(b"".join(connection.seal_parts(parts))) == [(1, b"topic"), (0, b"l" * 500)]


@pytest.mark.parametrize(("flags", "body"), [(COMMAND, b"\x09SUBSCRIBEeth."), (0, b"\x09SUBSCRIBEeth."), (0, b"\x01eth.")])
def test_subscriptions_travel_in_boxes(flags: int, body: bytes) -> None:
    connection, client = opened(Kind.XPUB, b"SUB")
    assert events_of(connection, client.message(flags, body)) == [Subscribed(b"eth.")]


@pytest.mark.parametrize("flags", [COMMAND, 0])
def test_a_ping_is_answered_in_a_box_marked_as_a_command_or_not(flags: int) -> None:
    connection, client = opened()
    connection.outgoing()
    events_of(connection, client.message(flags, b"\x04PING\x00\x0actx"))
    assert client.opened(connection.outgoing()) == [(COMMAND, b"\x04PONGctx")]


def test_a_message_is_bounded_by_what_is_in_its_boxes() -> None:
    connection, client = opened()
    assert events_of(connection, client.message(0, bytes(1000))) == [Message([bytes(1000)])]
    assert "over 1000 bytes" in ended(connection, client.message(0, bytes(1001)))


def test_a_key_that_is_not_authorised_is_told_so_as_libzmq_understands_it() -> None:
    connection, client = server(), Client(keys=ServerKeys.from_secret(b"\x44" * 32))
    welcome = welcomed(connection, client)
    assert f"its key {client.keys.public.hex()} is not authorised" in ended(connection, client.initiate(welcome))
    assert connection.outgoing() == zmtp.command(b"ERROR", b"\x03400")
    assert connection.user is None


def test_a_client_with_another_servers_key_is_turned_away() -> None:
    assert "is not ours" in ended(server(), Client(server_key=CLIENT.public).hello())


def test_a_client_key_of_low_order_is_turned_away() -> None:
    hello = zmtp.command(b"HELLO", b"\x01\x00" + bytes(72) + bytes(32) + bytes(7) + b"\x01" + bytes(80))
    assert "is not ours" in ended(server(), hello)


@pytest.mark.parametrize(
    "hello",
    [
        zmtp.command(b"HELLO", bytes(10)),
        zmtp.command(b"HOWDY", bytes(194)),
        Client().hello(b"\x02\x00"),
        zmtp.command(b"INITIATE", bytes(300)),
    ],
)
def test_a_malformed_hello_ends_it(hello: bytes) -> None:
    assert ended(server(), hello) == "a malformed HELLO"


@pytest.mark.parametrize("initiate", [zmtp.command(b"INITIATE", bytes(200)), zmtp.command(b"HELLO", bytes(400))])
def test_a_malformed_initiate_ends_it(initiate: bytes) -> None:
    connection, client = server(), Client()
    welcomed(connection, client)
    assert ended(connection, initiate) == "a malformed INITIATE"


def test_another_cookie_ends_it() -> None:
    connection, client = server(), Client()
    initiate = client.initiate(welcomed(connection, client))
    place = initiate.index(b"INITIATE") + 8
    assert "another cookie" in ended(connection, initiate[:place] + bytes(96) + initiate[place + 96 :])


def test_a_box_that_was_changed_ends_it() -> None:
    connection, client = server(), Client()
    initiate = client.initiate(welcomed(connection, client))
    assert "does not open" in ended(connection, initiate[:-1] + bytes((initiate[-1] ^ 1,)))


@pytest.mark.parametrize("vouched", [TRANSIENT.public + CLIENT.public, CLIENT.public + SERVER.public])
def test_a_vouch_for_other_keys_ends_it(vouched: bytes) -> None:
    connection, client = server(), Client()
    client.vouched = vouched
    assert "vouches for other keys" in ended(connection, client.initiate(welcomed(connection, client)))


def test_a_frame_in_the_clear_ends_it() -> None:
    connection, _ = opened()
    assert "no MESSAGE" in ended(connection, zmtp.encode([b"hello"]))


def test_a_short_message_ends_it() -> None:
    connection, _ = opened()
    assert "no MESSAGE" in ended(connection, zmtp.encode([b"\x07MESSAGE" + bytes(OVERHEAD_BYTES - 9)]))


def test_a_message_that_was_changed_ends_it() -> None:
    connection, client = opened()
    message = client.message(0, b"x")
    assert "does not open" in ended(connection, message[:-1] + bytes((message[-1] ^ 1,)))


def test_a_message_that_is_played_again_ends_it() -> None:
    connection, client = opened()
    message = client.message(0, b"x")
    connection.receive(message)
    assert connection.step() == Message([b"x"])
    assert "nonce" in ended(connection, message)


@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    for connection in (server(), opened()[0]):
        events = events_of(connection, data)
        assert not any(isinstance(event, Ended) for event in events[:-1])
