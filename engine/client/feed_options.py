"""What a program asks a feed for: topics, filters, credit; checked as far as that needs no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypedDict

import msgspec

from rlpx.engine.client.errors import own_error
from rlpx.engine.client.topics import checked_prefixes, sub_protocol_of, warn_of_unknown
from rlpx.protocol.bus.data_heads import NotUnderstoodError
from rlpx.protocol.bus.feeds import FeedError, OpenFeed, Where, read_feed_message
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.wording import Expected, nearest, wrong

# The bytes that each worker may send before the program has read them: a few dozen of its usual batches, so that one is on
# its way while another is read.
CREDIT_BYTES: Final = 4 * 1024 * 1024


class FilterOptions(TypedDict, total=False):
    """The filters of a feed. Everything that is given must hold for an event."""

    # Numbers of sessions; in a fleet, those that each host gives by itself.
    session: int | Iterable[int]
    # The beginning of a peer's id, in hex digits.
    peer: str
    # Part of a client's name.
    client: str
    # A shared capability with version, "eth/69", or of any version, "eth".
    shared: str
    direction: Literal["inbound", "outbound"]
    # Types of transactions, for messages that have or announce some: one of these.
    types: Iterable[int]
    # The size of an announced transaction, or of another message's payload.
    min_size: int
    max_size: int
    # One in so many messages.
    sample: int


class FeedOptions(FilterOptions, total=False):
    """The options of a feed."""

    # Begin with the sessions that match; on, if it is not given.
    snapshot: bool
    # Miss nothing: peers whose events cannot leave are not read.
    lossless: bool
    # The bytes that each worker may send before the program has read them.
    credit: int


_OF_FEED: Final = {"snapshot", "lossless", "credit"}
# The options that are filters.
FILTERS: Final = frozenset(FeedOptions.__annotations__.keys() - _OF_FEED)


class Opening(msgspec.Struct, frozen=True):
    """What a feed asks each worker for."""

    topics: tuple[str, ...]
    where: dict[str, Any]
    credit: int = CREDIT_BYTES
    lossless: bool = False
    snapshot: bool = True

    def head(self, number: int) -> dict[str, object]:
        """The message that opens the feed with this number."""
        return {"feed": number, **msgspec.structs.asdict(self)}


def opening_of(topics: Iterable[str], options: FeedOptions) -> Opening:
    """The opening of a feed. It warns of topics that there are not, in the caller of its caller.

    Raises `InvalidParamsError`, and `TypeError` for a name or topics that are none.
    """
    prefixes = checked_prefixes(topics)
    if not prefixes:
        raise TypeError("topics: a feed has at least one")
    for name in options:
        if name not in FeedOptions.__annotations__:
            raise TypeError(f"a feed has no option '{name}'{nearest(name, FeedOptions.__annotations__)}")
    own = [found for prefix in prefixes if (found := sub_protocol_of(prefix)) is not None]
    warn_of_unknown(prefixes, own, stacklevel=3)
    given = {name: value for name, value in options.items() if value is not None}
    of_feed: dict[str, Any] = {name: given.pop(name) for name in _OF_FEED & given.keys()}
    opening = Opening(tuple(prefixes), {name: _sent(name, value) for name, value in given.items()}, **of_feed)
    _check(opening)
    return opening


def where_of(options: Mapping[str, object]) -> Where:
    """The filter that these options are. Raises `InvalidParamsError`."""
    given = {name: _sent(name, value) for name, value in options.items() if value is not None}
    return _check(Opening(("eth.",), given)).where


def _check(opening: Opening) -> OpenFeed:
    """Refuse here what workers refuse; returns what they would read. Raises `InvalidParamsError`."""
    if opening.credit == 0:
        # Credit is granted for what was read.
        expected = Expected("the bytes that a worker may send before the program has read them, from 1", str(CREDIT_BYTES))
        raise own_error(ErrorName.INVALID_PARAMS, f"credit: {wrong(opening.credit, expected)}")
    try:
        message = read_feed_message(msgspec.json.encode(opening.head(1)))
    except (FeedError, NotUnderstoodError) as error:
        raise own_error(ErrorName.INVALID_PARAMS, str(error)) from error
    except (TypeError, ValueError) as error:
        raise own_error(ErrorName.INVALID_PARAMS, f"an option that no message can have: {error}") from error
    if not isinstance(message, OpenFeed):
        raise TypeError(f"{message} opens no feed")
    return message


def _sent(name: str, value: Any) -> object:  # noqa: ANN401 - any option
    """An option as workers take it: sessions and types are lists."""
    if name == "session" and isinstance(value, int):
        return [value]
    return list(value) if name in ("session", "types") and isinstance(value, Iterable) else value
