from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import nats_wire
from rlpx.protocol.bus.nats_wire import Info, Message, NatsWireError, Reader, Said, Verb

# Every kind of line that a server sends, and messages with and without replies, headers and line ends in them.
STREAM = (
    b'INFO {"nonce":"abc","tls_required":true,"headers":true} \r\n+OK\r\nPONG\r\nMSG _INBOX.a.7 0 8\r\n{"seq":1}'[:-1]
    + b"\r\n"
    b"MSG 1 1 0\r\n\r\n"
    b"MSG _INBOX.b.8 1 rlpx.reply 4\r\na\r\nb\r\n"
    b"HMSG _INBOX.a.9 0 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"HMSG _INBOX.a.10 0 rlpx.reply 12 14\r\nNATS/1.0\r\n\r\nok\r\n"
    b"PING\r\n-ERR 'Slow Consumer'\r\n"
)
FIRST: list[Message] = [(7, b'{"seq":1'), (9, b""), (10, b"ok")]
SECOND: list[Message] = [(1, b""), (8, b"a\r\nb")]
SAID = [
    Said(Verb.INFO, b'{"nonce":"abc","tls_required":true,"headers":true}'),
    Said(Verb.PONG, b""),
    Said(Verb.PING, b""),
    Said(Verb.ERROR, b"'Slow Consumer'"),
]


@given(sizes=st.lists(st.integers(1, 40), max_size=80))
def test_chunking_changes_nothing(sizes: list[int]) -> None:
    reader, rest = Reader(2), STREAM
    messages: tuple[list[Message], list[Message]] = ([], [])
    lines: list[Said] = []
    for size in [*sizes, len(STREAM)]:
        read, said = reader.receive(rest[:size])
        for kept, new in zip(messages, read, strict=True):
            kept.extend(new)
        lines += said
        rest = rest[size:]
    assert messages == (FIRST, SECOND)
    assert lines == SAID


def test_answers_of_one_read_come_in_their_order() -> None:
    usual = b"".join(b"MSG _INBOX.a.%d %d 2\r\nok\r\n" % (number, number % 2) for number in range(5))
    # A body with a line end, and one that looks like a message, are read like others.
    strange = b"MSG _INBOX.a.5 0 6\r\nok\r\nok\r\nMSG _INBOX.a.6 0 24\r\nMSG _INBOX.a.7 0 2\r\nok\r\n\r\n"
    [first, second], said = Reader(2).receive(usual + strange + usual)
    assert first == [
        *((number, b"ok") for number in (0, 2, 4)),
        (5, b"ok\r\nok"),
        (6, b"MSG _INBOX.a.7 0 2\r\nok\r\n"),
        *((number, b"ok") for number in (0, 2, 4)),
    ]
    assert second == [(number, b"ok") for number in (1, 3, 1, 3)]
    assert not said


@pytest.mark.parametrize("size", [9_999, 10_000, 4_000_000])
def test_a_long_answer_that_comes_in_parts_is_read_like_a_short_one(size: int) -> None:
    short = b"MSG _INBOX.a.1 0 2\r\nok\r\n"
    sent = short + b"MSG _INBOX.a.2 0 %d\r\n%b\r\n" % (size, bytes(size)) + short
    reader = Reader(1)
    read = [answer for at in range(0, len(sent), 65536) for answer in reader.receive(sent[at : at + 65536])[0][0]]
    assert read == [(1, b"ok"), (2, bytes(size)), (1, b"ok")]


@pytest.mark.parametrize("name", [b"garbage", b"-1", b"9" * 20, b"9" * 5000])
def test_what_is_published_to_our_inbox_and_is_no_answer_is_left_out(name: bytes) -> None:
    messages, said = Reader(1).receive(b"MSG _INBOX.a.%b 0 2\r\nok\r\nMSG _INBOX.a.%d 0 0\r\n\r\n" % (name, 10**18))
    assert messages == [[(10**18, b"")]]
    assert not said


@pytest.mark.parametrize(
    "line",
    [
        b"HELLO\r\n",
        b"MSG a 0\r\n",
        b"MSG a x 3\r\n",
        b"MSG a 2 0\r\n\r\n",
        b"MSG a -1 0\r\n\r\n",
        b"MSG a 0 -3\r\n",
        b"MSG a 0 r more 3\r\n",
        b"HMSG a 0 4 3\r\n",
        b"HMSG a 0 3\r\n",
        b"HMSG a 0 r more 3 3\r\n",
        b"MSG a 0 99999999999\r\n",
        b"MSG a 0 2\r\nabc\r\n",
        b"MSG a 0 2\r\na\r\n  ",
        b"x" * (nats_wire.MAX_LINE_BYTES + 1) + b"\r\n",
        b"x" * (nats_wire.MAX_LINE_BYTES + 2),
    ],
)
def test_what_is_not_the_protocol_is_refused(line: bytes) -> None:
    with pytest.raises(NatsWireError):
        Reader(2).receive(line)


def test_a_server_describes_itself() -> None:
    assert nats_wire.read_info(SAID[0].text) == Info(nonce="abc", tls_required=True)
    for text in (b"", b"[]", b'{"nonce":7}', b'{"nonce":"\xff"}'):
        with pytest.raises(NatsWireError):
            nats_wire.read_info(text)


def test_what_we_send() -> None:
    line = nats_wire.connect({"name": "rlpx a"})
    assert line.startswith(b"CONNECT {")
    assert line.endswith(b"}\r\n")
    assert msgspec.json.decode(line[8:])["name"] == "rlpx a"
    assert msgspec.json.decode(line[8:])["headers"] is True
    assert nats_wire.subscribe(b"inbox.*", 1) == b"SUB inbox.* 1\r\n"
    headers = nats_wire.header_block({"Nats-Msg-Id": "x"})
    assert headers == b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n"
    assert nats_wire.publish(b"a.b", b"inbox.7", b"", b"{}") == b"PUB a.b inbox.7 2\r\n{}\r\n"
    assert nats_wire.publish(b"a.b", b"inbox.7", headers, b"{}") == b"HPUB a.b inbox.7 28 30\r\n" + headers + b"{}\r\n"
