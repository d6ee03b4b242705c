"""What a feed of a fleet asks hosts for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Unpack

import pytest

from rlpx.engine.client.errors import InvalidParamsError, RefusedError
from rlpx.engine.client.fleet_items import STREAM_TOPICS, FleetFeedOptions, FleetOpening, fleet_opening


def opening(*topics: str, **options: Unpack[FleetFeedOptions]) -> FleetOpening:
    return fleet_opening(topics, options)


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


def test_a_filter_has_a_subject_of_its_own_whoever_asks_for_it() -> None:
    found = opening("eth.Transactions", "session.", "eth.GetBlock", client="Geth", types=[3])
    [subject] = found.subjects
    assert subject.startswith("feed.")
    assert found.is_filtered
    assert opening("eth.GetBlock", "eth.Transactions", types=(3,), client="Geth").subjects == (subject,)
    assert opening("eth.Transactions", client="Geth").subjects != (subject,)
    # Lives alone come from the stream.
    assert opening("session.", client="Geth").subjects == ()


def test_a_filter_reads_the_events_that_say_what_later_ones_do_not() -> None:
    assert opening("session.closed", peer="ab").tracked == ("session.closed",)
    found = opening("session.closed", client="Geth", snapshot=False)
    assert set(found.tracked) == {"session.opened", "session.established", "session.closed"}
    assert (found.has_snapshot, found.takes_snapshots) == (False, True)
    assert not opening("session.closed", client="Geth", since=0.0).takes_snapshots
    assert not opening("eth.", client="Geth", snapshot=False).takes_snapshots


def test_what_a_feed_of_a_fleet_cannot_do_is_said() -> None:
    with pytest.raises(RefusedError, match="lossless: NATS may lose messages"):
        opening("eth.", lossless=True)  # type: ignore[call-arg]  # a program without types
    with pytest.raises(TypeError, match="a feed has no option 'clent'; did you mean client"):
        opening("eth.", clent="Geth")  # type: ignore[call-arg]  # a program without types
    with pytest.raises(InvalidParamsError, match=r"where.direction"):
        opening("eth.", direction="up")  # type: ignore[arg-type]  # a program without types
