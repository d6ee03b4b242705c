"""The messages of feeds: a program's own events from one worker, filtered there, in one order, and sent as it grants credit.

    {"feed": 1, "topics": ["session.", "eth."], "where": {…}, "credit": BYTES, "lossless": false, "snapshot": true}   opens
    {"feed": 1, "credit": BYTES}                                        grants more
    {"feed": 1, "close": true}                                          ends it
    {"feed": 1, "run": R, "worker": I, "sessions": [session objects]}            the worker confirms
    {"feed": 1, "first": ordinal, "dropped": total, "events": [{"topic": …}]} · bodies
    {"feed": 1, "closed": cause, "first": ordinal, "dropped": total}             the last one of a feed
    {"feed": 1, "error": {"name", "message"}}

This module reads what programs send and writes what they get. What a filter means is in `feed_filters.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from rlpx.protocol.bus.batches import Publisher
from rlpx.protocol.bus.data_heads import NotUnderstoodError, not_understood
from rlpx.protocol.bus.values import SessionNumber
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.wording import Expected, WrongValueError, convert, wrong

MAX_TOPICS: Final = 64
MAX_TOPIC_CHARACTERS: Final = 64
MAX_SESSIONS: Final = 1024
# More than the longest head has: a thousand sessions of 20 digits, and topics.
MAX_HEAD_BYTES: Final = 64 * 1024
# The most credit that a feed may have: the last integer that every JSON library reads exactly (RFC 8259, section 6).
MAX_CREDIT_BYTES: Final = (1 << 53) - 1

_INT64_MAX: Final = (1 << 63) - 1
# 128 bits: nobody finds two choices with one name.
_KEY_CHARACTERS: Final = 32
# The last transaction type (EIP-2718).
_LAST_TYPE: Final = 0x7F

FeedNumber = Annotated[int, Meta(ge=1, le=_INT64_MAX, title="the feed's number, a whole number from 1", examples=[1])]
Credit = Annotated[int, Meta(ge=0, le=MAX_CREDIT_BYTES)]
Topic = Annotated[
    str,
    Meta(
        max_length=MAX_TOPIC_CHARACTERS,
        title=f"the beginning of a topic, up to {MAX_TOPIC_CHARACTERS} characters",
        examples=["eth.Transactions"],
    ),
]
_Size = Annotated[int, Meta(ge=0, le=_INT64_MAX)]


class Where(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What an event must be to enter a feed: everything that is given has to hold."""

    session: Annotated[tuple[SessionNumber, ...], Meta(min_length=1, max_length=MAX_SESSIONS)] | None = None
    peer: (
        Annotated[
            str,
            Meta(
                pattern="^[0-9a-f]{1,128}$",
                title="the beginning of a peer id in lower-case hex digits",
                examples=["d860a01f"],
            ),
        ]
        | None
    ) = None
    client: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    shared: (
        Annotated[
            str,
            Meta(
                pattern="^[a-z][a-z0-9]{0,7}(/[0-9]{1,3})?$",
                title="a capability, or its name for every version",
                examples=["eth/69"],
            ),
        ]
        | None
    ) = None
    direction: Direction | None = None
    types: (
        Annotated[tuple[Annotated[int, Meta(ge=0, le=_LAST_TYPE)], ...], Meta(min_length=1, max_length=_LAST_TYPE + 1)]
        | None
    ) = None
    min_size: _Size | None = None
    max_size: _Size | None = None
    sample: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1


class OpenFeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Open a feed of the events whose topic begins with one of `topics`, and that are as `where` says.

    `credit` is in bytes. A `lossless` feed loses nothing: what cannot leave is not read from the peers. With `snapshot`, the
    confirmation lists the sessions that match.
    """

    feed: FeedNumber
    topics: Annotated[tuple[Topic, ...], Meta(min_length=1, max_length=MAX_TOPICS)]
    where: Where = Where()
    credit: Credit = 0
    lossless: bool = False
    snapshot: bool = False


class GrantCredit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Let the worker send this many bytes more."""

    feed: FeedNumber
    credit: Credit


class CloseFeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """End a feed."""

    feed: FeedNumber
    close: Literal[True]


FeedMessage: TypeAlias = OpenFeed | GrantCredit | CloseFeed


def key_of(topics: Iterable[str], where: Where) -> str:
    """Return a name for a choice of events, 32 hex digits: feeds with the same topics and filter have the same name."""
    choice = msgspec.json.encode((sorted(set(topics)), where))
    return hashlib.sha256(choice).hexdigest()[:_KEY_CHARACTERS]


_FORMS: Final = (
    '{"feed": N, "topics": [TOPIC, ...]} with "where", "credit", "lossless" and "snapshot" to open a feed, '
    '{"feed": N, "credit": BYTES} to grant more, or {"feed": N, "close": true} to end it'
)


class FeedError(Exception):
    """What a program asks of a feed cannot be done. `name` is for programs, the text for people."""

    def __init__(self, feed: int, name: ErrorName, message: str) -> None:
        super().__init__(message)
        self.feed = feed
        self.name = name


# -- reading ----------------------------------------------------------------------------------------------------------------


def read_feed_message(head: bytes) -> FeedMessage:
    """Decode the head of a program's message. Raises `FeedError`, or `NotUnderstoodError` if it names no feed."""
    if len(head) > MAX_HEAD_BYTES:
        raise NotUnderstoodError(f"the head of a feed's message has {len(head)} bytes, over {MAX_HEAD_BYTES}")
    try:
        value: Any = msgspec.json.decode(head)
        number: int = convert(value["feed"], FeedNumber)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, WrongValueError, TypeError, KeyError) as error:
        raise not_understood(_FORMS, head) from error
    try:
        message: FeedMessage = convert(value, _form(value), thing="field")
    except WrongValueError as error:
        raise FeedError(number, ErrorName.INVALID_PARAMS, str(error)) from error
    _check_sizes(number, message)
    return message


def _form(value: dict[str, Any]) -> type[FeedMessage]:
    if "close" in value:
        return CloseFeed
    if value.keys() <= {"feed", "credit"} and "credit" in value:
        return GrantCredit
    if "topics" in value:
        return OpenFeed
    raise WrongValueError("", f"expected {_FORMS}")


def _check_sizes(number: int, message: FeedMessage) -> None:
    where = message.where if isinstance(message, OpenFeed) else Where()
    if where.min_size is not None and where.max_size is not None and where.min_size > where.max_size:
        expected = Expected(f"min_size ({where.min_size}) or more")
        problem = f"where.max_size: {wrong(where.max_size, expected)}"
        raise FeedError(number, ErrorName.INVALID_PARAMS, problem)


# -- writing ----------------------------------------------------------------------------------------------------------------


def confirmation(feed: int, publisher: Publisher, sessions: Sequence[bytes]) -> bytes:
    """Return the head that confirms a feed; `sessions` are session objects in JSON."""
    start = f'{{"feed":{feed},"run":"{publisher.run}","worker":{publisher.worker},"sessions":['
    return b"".join((start.encode(), b",".join(sessions), b"]}"))


def batch_start(feed: int, first: int, dropped: int) -> bytes:
    """Return the beginning of the head of events: they follow as JSON objects with commas, then `BATCH_END`."""
    return b'{"feed":%d,"first":%d,"dropped":%d,"events":[' % (feed, first, dropped)


BATCH_END: Final = b"]}"


def closed(feed: int, cause: str, first: int, dropped: int) -> bytes:
    """Return the last head of a feed. `first` is the ordinal that the next event would have had."""
    return msgspec.json.encode({"feed": feed, "closed": cause, "first": first, "dropped": dropped})


def refused(error: FeedError) -> bytes:
    """Return the head that says what cannot be done."""
    return msgspec.json.encode({"feed": error.feed, "error": {"name": error.name, "message": str(error)}})


def with_topic(topic: str, event: str) -> str:
    """Return the JSON of an event of a feed: its topic comes first."""
    return f'{{"topic":"{topic}",{event[1:]}'
