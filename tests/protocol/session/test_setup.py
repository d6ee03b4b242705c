"""A setup says how long the session it starts may take."""

from __future__ import annotations

import pytest

from rlpx.protocol.session.session import Session
from rlpx.protocol.settings import TimeoutSettings
from tests.pair import DIALER, LISTENER, SessionSpec

TIMEOUTS = TimeoutSettings(auth_s=3, handshake_s=5, pending_inbound_s=10, pending_outbound_s=20)


def test_an_accept_has_the_times_of_auth_and_of_inbound_sessions() -> None:
    setup = SessionSpec(timeouts=TIMEOUTS).setup()
    assert (setup.handshake_seconds, setup.pending_seconds) == (3, 10)


@pytest.mark.parametrize(("spent", "times"), [(0.0, (5, 20)), (12.5, (5, 7.5)), (19.0, (1, 1))])
def test_a_dial_has_its_own_times_and_its_connect_counts(spent: float, times: tuple[float, float]) -> None:
    setup = SessionSpec(timeouts=TIMEOUTS, spent_seconds=spent).setup(LISTENER.key.id)
    assert (setup.handshake_seconds, setup.pending_seconds) == times


def test_the_handshake_is_part_of_what_is_left() -> None:
    short = TimeoutSettings(auth_s=3, pending_inbound_s=2)
    assert SessionSpec(timeouts=short).setup().handshake_seconds == 2


def test_a_session_takes_its_times_from_its_setup() -> None:
    listener = Session(LISTENER.setup(), now=100.0)
    assert listener.deadline == 100.0 + LISTENER.setup().handshake_seconds
    dialer = Session(DIALER.setup(LISTENER.key.id), now=100.0)
    assert dialer.deadline == 100.0 + DIALER.setup(LISTENER.key.id).handshake_seconds
