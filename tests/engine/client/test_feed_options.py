"""What a program asks a feed for, as the worker gets it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rlpx.engine.client import InvalidParamsError, UnknownTopicWarning
from rlpx.engine.client.feed_options import CREDIT_BYTES, FeedOptions, opening_of
from rlpx.protocol.bus.feeds import OpenFeed, Where, read_feed_message


def test_every_filter_of_workers_is_an_option_and_the_other_way_round() -> None:
    assert set(FeedOptions.__annotations__) == {*Where.__struct_fields__, "snapshot", "lossless", "credit"}


def test_what_is_asked_for_is_what_a_worker_reads() -> None:
    options = FeedOptions(
        session=range(3),
        peer="ab",
        client="Geth",
        shared="eth/69",
        direction="inbound",
        types={3},
        min_size=1,
        max_size=9,
        sample=4,
        lossless=True,
        credit=5,
        snapshot=False,
    )
    opened = read_feed_message(msgspec.json.encode(opening_of(["session.", "eth."], options).head(7)))
    assert isinstance(opened, OpenFeed)
    assert opened == OpenFeed(
        feed=7,
        topics=("session.", "eth."),
        where=msgspec.convert(
            {
                "session": [0, 1, 2],
                "peer": "ab",
                "client": "Geth",
                "shared": "eth/69",
                "direction": "inbound",
                "types": [3],
                "min_size": 1,
                "max_size": 9,
                "sample": 4,
            },
            Where,
        ),
        credit=5,
        lossless=True,
        snapshot=False,
    )


def test_without_options_a_feed_has_credit_and_a_snapshot() -> None:
    opening = opening_of(["eth."], FeedOptions(session=3))
    assert opening.head(1) == {
        "feed": 1,
        "topics": ("eth.",),
        "where": {"session": [3]},
        "credit": CREDIT_BYTES,
        "lossless": False,
        "snapshot": True,
    }


def test_what_is_no_option_or_no_topic_is_a_mistake_at_once() -> None:
    with pytest.raises(TypeError, match="no option 'clint'; did you mean client"):
        opening_of(["eth."], {"clint": "Geth"})  # type: ignore[typeddict-unknown-key]  # what a program may do
    with pytest.raises(TypeError, match="at least one"):
        opening_of([], {})

    def program() -> None:
        opening_of(["eth.Transaction."], {})

    with pytest.warns(UnknownTopicWarning, match=r"eth\.Transactions") as caught:
        program()
    assert Path(caught[0].filename) == Path(__file__)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (FeedOptions(credit=0), "credit: expected the bytes that a worker may send .* from 1, for example 4194304; got 0"),
        (FeedOptions(credit=-1), "credit: expected a whole number"),
        (FeedOptions(session=range(1025)), "where.session: expected a list of 1 to 1024 items"),
        (FeedOptions(session=range(100_000)), "bytes, over 65536"),
        (FeedOptions(types=3), r"where.types: expected a list"),  # type: ignore[typeddict-item]  # what a program may do
        (FeedOptions(client="\ud800"), "surrogates"),
        (FeedOptions(min_size=2, max_size=1), "where.max_size: expected min_size"),
    ],
)
def test_what_workers_would_refuse_is_refused_at_once(options: FeedOptions, words: str) -> None:
    with pytest.raises(InvalidParamsError, match=words):
        opening_of(["eth."], options)
