from __future__ import annotations

from rlpx.engine.ledger.counter import NO_LEASE, Leased, SessionCounter
from rlpx.engine.settings.settings import LimitSettings
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.lifecycle import Direction

IN, OUT = Direction.INBOUND, Direction.OUTBOUND


def counter(here: int, elsewhere: int) -> SessionCounter:
    """A counter of a host of a fleet. Its own limits of active sessions do not apply."""
    made = SessionCounter(LimitSettings(max_active_outbound=1), b"\xff" * 64)
    made.leased = {IN: Leased(), OUT: Leased(here, elsewhere)}
    for number in range(1, 6):
        assert made.admit(SessionId(number), WorkerId(0), OUT) is None
    return made


def grant(made: SessionCounter, number: int, *, passes_limits: bool = False) -> object:
    return made.grant(SessionId(number), bytes([number]) * 64, now=1.0, passes_limits=passes_limits)


def test_a_place_is_one_that_the_fleet_has_leased_to_this_host() -> None:
    made = counter(2, 3)
    assert [grant(made, number) for number in (1, 2, 3)] == [None, None, NO_LEASE]
    assert made.active_room(OUT) is None
    made.leased = {IN: Leased(), OUT: Leased(3, 0)}
    assert grant(made, 3) is None
    refusal = made.active_room(OUT)
    assert refusal is not None
    assert refusal.cause == "all outbound places of the fleet are taken"
    assert made.turned_away == {OUT: 1}
    made.release(SessionId(1))
    assert made.active_room(OUT) is None
    assert made.limited(OUT) == 2


def test_a_session_that_passes_the_limits_needs_no_place_of_the_fleet() -> None:
    made = counter(1, 0)
    assert grant(made, 1, passes_limits=True) is None
    assert made.limited(OUT) == 0
    assert grant(made, 2) is None
    made.release(SessionId(1))
    assert made.limited(OUT) == 1
