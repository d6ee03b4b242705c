"""What a feed of a fleet asks hosts for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rlpx.engine.client.errors import InvalidParamsError
from rlpx.engine.client.fleet_items import STREAM_TOPICS, FleetOpening, fleet_opening


def opening(*topics: str, since: float | None = None) -> FleetOpening:
    return fleet_opening(topics, since, 1, has_snapshot=True)


def test_lives_come_from_the_stream_and_messages_from_subjects_none_twice() -> None:
    found = opening("session.", "eth.Transactions", "eth.GetBlock", "session.closed", "peer.breach")
    assert found.lives == ("session.authenticated", "session.closed", "session.established", "session.opened")
    assert found.wishes == ("eth.Transactions", "eth.GetBlock", "peer.")
    assert found.subjects == ("eth.*", "peer.*")
    assert opening("eth.Transactions").subjects == ("eth.Transactions",)


def test_no_prefix_means_everything_but_taps() -> None:
    found = opening("")
    assert found.lives == STREAM_TOPICS
    assert found.wishes == ("eth.", "snap.", "peer.")


@pytest.mark.parametrize("topic", ["tap.eth.", "session.refused"])
def test_what_hosts_do_not_publish_is_refused(topic: str) -> None:
    with pytest.raises(InvalidParamsError, match=f"hosts of a fleet do not publish '{topic}' over NATS"):
        opening(topic)


def test_a_replay_has_no_snapshot() -> None:
    assert opening("session.").has_snapshot
    found = opening("session.", since=0.0)
    assert (found.since, found.has_snapshot) == (datetime.fromtimestamp(0, UTC), False)


def test_a_feed_has_a_topic() -> None:
    with pytest.raises(TypeError, match="a feed has at least one"):
        opening()
