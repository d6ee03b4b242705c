"""The words of a session's life: what users read in events and in the log, and what depends on them."""

from __future__ import annotations

from rlpx.protocol.lifecycle import Conduct, Direction, EndedBy, Stage


def test_the_words_that_users_read_stay_as_they_are() -> None:
    assert [*Stage] == ["connect", "auth", "ack", "hello", "status", "verdict", "active", "closed"]
    assert [*Direction] == ["inbound", "outbound"]
    assert [*EndedBy] == ["us", "peer", "network", "worker_lost", "engine"]
    assert [*Conduct] == ["bad_message", "breach"]
