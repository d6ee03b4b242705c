"""What the reader beside every system test finds: each event of a session that does not fit the ones before."""

from __future__ import annotations

import pytest

from rlpx.engine.client.batch_reader import Event, Gap
from tests.reader_model import ReaderModel

OPENED, AUTHENTICATED, ESTABLISHED, CLOSED = (
    f"session.{name}" for name in ("opened", "authenticated", "established", "closed")
)


def told(*topics: str) -> list[Event]:
    """The events of session 7 in this order."""
    return [Event(topic, 0, {"session": 7, "peer": "ab"}, b"", ordinal=number) for number, topic in enumerate(topics)]


@pytest.mark.parametrize(
    "topics",
    [
        (OPENED, AUTHENTICATED, ESTABLISHED, CLOSED),
        (OPENED, CLOSED),
        (OPENED, AUTHENTICATED, CLOSED),
    ],
)
def test_a_life_that_is_whole_fits(topics: tuple[str, ...]) -> None:
    model = ReaderModel()
    model.take(told(*topics))
    assert (model.sessions, model.received) == ({}, len(topics))


@pytest.mark.parametrize(
    "topics",
    [
        (CLOSED,),
        (AUTHENTICATED,),
        (OPENED, OPENED),
        (OPENED, AUTHENTICATED, AUTHENTICATED),
        (OPENED, CLOSED, CLOSED),
        (OPENED, CLOSED, ESTABLISHED),
        (OPENED, AUTHENTICATED, ESTABLISHED, AUTHENTICATED),
    ],
)
def test_a_hole_a_double_and_an_event_after_the_end_are_found(topics: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        ReaderModel().take(told(*topics))


def test_after_a_loss_that_was_told_holes_fit_but_doubles_do_not() -> None:
    model = ReaderModel()
    model.take([Gap("session.opened", 0, 3)])
    model.take(told(AUTHENTICATED, CLOSED))
    with pytest.raises(AssertionError):
        model.take(told(CLOSED))
