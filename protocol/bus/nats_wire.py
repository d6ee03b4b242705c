"""The protocol between a NATS server and a client that only publishes and takes answers (docs.nats.io, "Client protocol").

A client library connects and watches; this is for what travels with every session, where its dispatch costs more than the
work. Messages of one read are returned together, and many may be sent in one write.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

# A server announces itself and the other servers of its cluster in one line, the longest there is.
MAX_LINE_BYTES: Final = 64 * 1024
# The largest message that nats-server can be configured to carry.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
CRLF: Final = b"\r\n"
PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"


class NatsWireError(ValueError):
    """What the server sends is not its protocol."""


class Verb(StrEnum):
    """What a server says besides messages."""

    INFO = "INFO"
    PING = "PING"
    PONG = "PONG"
    ERROR = "-ERR"


class Said(NamedTuple):
    """A line that is no message. `text`: what follows the verb, the description of an `INFO` in JSON."""

    verb: Verb
    text: bytes


class Info(msgspec.Struct, frozen=True):
    """The part of a server's description that a client needs."""

    nonce: str = ""
    tls_required: bool = False
    max_payload: int = 1024 * 1024


# An answer as its number, which is the last word of its subject, and its body, without headers.
Message: TypeAlias = tuple[int, bytes]

_VERBS: Final = {verb.value.encode(): verb for verb in Verb}
_ACKNOWLEDGED: Final = b"+OK"
_TOO_LONG: Final = f"a line is longer than {MAX_LINE_BYTES} bytes"
# Those who wait for answers know them by numbers of 64 bits. Whatever else is published to our inbox is not ours.
_MAX_NUMBER_DIGITS: Final = 19
# Nearly all messages: without headers and reply, with a body of one line. Longer ones come in many parts, and with each of
# them all would be searched once more.
_MAX_USUAL_BYTES: Final = 9_999
_USUAL: Final = re.compile(
    rb"(MSG \S{1,256}\.(\d{1,%d}) (\d{1,3}) (\d{1,4})\r\n([^\r\n]{0,%d})\r\n)" % (_MAX_NUMBER_DIGITS, _MAX_USUAL_BYTES)
)


class Reader:
    """Reads what a server sends, in any cut. `subscriptions`: how many there are, which are numbered from 0."""

    def __init__(self, subscriptions: int) -> None:
        self._subscriptions = subscriptions
        # The beginning of a line or message whose end has not arrived.
        self._rest = b""

    def receive(self, data: bytes) -> tuple[list[list[Message]], list[Said]]:
        """Take a chunk; returns the answers that it completes, by subscription, and what the server says besides.

        Messages whose subjects do not end in a number are left out. Raises `NatsWireError`; the connection is of no use
        after that.
        """
        if self._rest:
            data = self._rest + data
        messages: list[list[Message]] = [[] for _ in range(self._subscriptions)]
        said: list[Said] = []
        begin = self._read_usual(data, messages)
        after: int | None = begin
        while after is not None:
            begin, after = after, self._read(data, after, messages, said)
        self._rest = data[begin:]
        return messages, said

    def _read_usual(self, data: bytes, messages: list[list[Message]]) -> int:
        """Read the usual messages with which the data begin; returns where something else begins."""
        at = 0
        if _USUAL.match(data) is None:
            return at
        for whole, number, subscription, size, body in _USUAL.findall(data):
            if len(body) != int(size) or int(subscription) >= self._subscriptions or not data.startswith(whole, at):
                break
            messages[int(subscription)].append((int(number), body))
            at += len(whole)
        return at

    def _read(self, data: bytes, start: int, messages: list[list[Message]], said: list[Said]) -> int | None:
        """Read what begins at `start`; returns where it ends, or nothing if its end has not arrived."""
        end = data.find(CRLF, start)
        length = (len(data) - 1 if end < 0 else end) - start  # without the first byte of its end, which may be there
        if length > MAX_LINE_BYTES:
            raise NatsWireError(_TOO_LONG)
        if end < 0:
            return None
        line, body = data[start:end], end + len(CRLF)
        if not line.startswith((b"MSG ", b"HMSG ")):
            _read_line(line, said)
            return body
        subscription, name, headers, total = self._head(line)
        after = body + total
        if after + len(CRLF) > len(data):
            return None
        if data[after : after + len(CRLF)] != CRLF:
            raise NatsWireError("a message does not end where it should")
        if name.isdigit() and len(name) <= _MAX_NUMBER_DIGITS:
            messages[subscription].append((int(name), data[body + headers : after]))
        return after + len(CRLF)

    def _head(self, line: bytes) -> tuple[int, bytes, int, int]:
        """The subscription and name of the message with this first line, and the bytes of its headers and in all.

        It is `MSG subject subscription [reply] bytes`, or `HMSG` with the bytes of the headers before those of both.
        """
        words = line.split()
        has_headers = line.startswith(b"H")
        try:
            subscription, total = int(words[2]), int(words[-1])
            headers = int(words[-2]) if has_headers else 0
        except (ValueError, IndexError) as error:
            raise NatsWireError(f"a message begins with {line[:80]!r}") from error
        is_known = 0 <= subscription < self._subscriptions and 4 + has_headers <= len(words) <= 5 + has_headers
        if not is_known or not 0 <= headers <= total <= MAX_MESSAGE_BYTES:
            raise NatsWireError(f"a message begins with {line[:80]!r}")
        return subscription, words[1].rpartition(b".")[2], headers, total


def _read_line(line: bytes, said: list[Said]) -> None:
    word, _, text = line.partition(b" ")
    verb = _VERBS.get(word)
    if verb is not None:
        said.append(Said(verb, text.strip()))
    elif word != _ACKNOWLEDGED:
        raise NatsWireError(f"a line begins with {line[:80]!r}")


def read_info(text: bytes) -> Info:
    """A server's description. Raises `NatsWireError`."""
    try:
        return msgspec.json.decode(text, type=Info)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NatsWireError(f"the server describes itself as {text[:80]!r}: {error}") from error


def connect(options: dict[str, Any]) -> bytes:
    """The first line of a client: who it is, with `options` that let it in. Headers are used, and nothing is confirmed."""
    ours = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1, "lang": "python"}
    return b"CONNECT %b\r\n" % msgspec.json.encode({**ours, **options})


def subscribe(subject: bytes, subscription: int) -> bytes:
    """Ask for messages of a subject; they come with our number of the subscription."""
    return b"SUB %b %d\r\n" % (subject, subscription)


def header_block(fields: dict[str, str]) -> bytes:
    """The headers of a message."""
    return b"NATS/1.0\r\n%b\r\n" % "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()


def publish(subject: bytes, reply: bytes, headers: bytes, body: bytes) -> bytes:
    """A message with a block of headers, or none, whose answer goes to `reply`. Subjects must have no white space."""
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)
    size = len(headers)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(body), headers, body)
