"""Pings, probes and every deadline of a session: time is an argument."""

from __future__ import annotations

import math

import pytest

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.session.events import (
    Alive,
    Closed,
    Event,
)
from tests.pair import (
    PING,
    PONG,
    RawPeer,
    encoded,
)
from tests.protocol.session.checks import (
    BREACH,
    PENDING,
    TIMED,
    TIMEOUT,
    TIMEOUTS,
    TRANSACTIONS,
    check_end,
    is_dialer,
)

# -- time ---------------------------------------------------------------------------------------------------------------


def test_a_verdict_that_never_comes_is_not_the_peers_fault() -> None:
    peer = RawPeer.at(Stage.VERDICT, TIMED)
    peer.waits(TIMEOUTS.pending_inbound_s)
    closed = peer.closed
    assert (closed.ended_by, closed.reason, closed.cause) == (
        EndedBy.ENGINE,
        DisconnectReason.TOO_MANY_PEERS,
        "no verdict came in time",
    )
    assert peer.goodbye == DisconnectReason.TOO_MANY_PEERS


@pytest.mark.parametrize("stage", [stage for stage in PENDING if stage is not Stage.VERDICT])
def test_a_stage_that_takes_too_long_ends_at_its_deadline(stage: Stage) -> None:
    peer = RawPeer.at(stage, TIMED, is_dialer=is_dialer(stage))
    allowed = TIMEOUTS.handshake_s if stage in {Stage.AUTH, Stage.ACK} else TIMEOUTS.pending_inbound_s
    has_cipher = stage not in {Stage.AUTH, Stage.ACK}
    if not has_cipher:
        peer.session.data_to_send()
    assert peer.session.deadline == peer.clock.now + allowed
    assert peer.waits(allowed - 0.001) == []
    assert peer.session.stage is stage
    peer.waits(0.001)
    check_end(peer, TIMEOUT if has_cipher else None, f"took too long at {stage}", stage)
    assert peer.session.deadline == math.inf
    assert peer.waits(1000) == []


@pytest.mark.parametrize("stage", [Stage.HELLO, Stage.STATUS, Stage.VERDICT])
def test_all_stages_of_a_pending_session_share_one_deadline(stage: Stage) -> None:
    peer = RawPeer(TIMED)
    deadline = peer.clock.now + TIMEOUTS.pending_inbound_s
    peer.waits(2.5)
    for step in (peer.authenticates, peer.says_hello, peer.says_status):
        if peer.session.stage is not stage:
            step()
            peer.waits(1.0)
    assert peer.session.deadline == deadline


def test_an_auth_that_drips_is_not_given_more_time() -> None:
    peer = RawPeer(TIMED)
    auth = peer.opening()
    for byte in auth[:29]:
        assert peer.gives(bytes([byte])) + peer.waits(0.1) == []
    peer.waits(0.2)
    check_end(peer, None, "took too long at auth", Stage.AUTH)


def test_an_active_session_pings_when_its_interval_is_over() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    peer.hears()
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_interval_s
    assert peer.waits(TIMEOUTS.ping_interval_s - 0.5) == []
    assert peer.hears() == []
    assert peer.waits(0.5) == []
    assert peer.hears() == [(PING, b"\x01\x00\xc0")]
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_s


def test_the_interval_starts_with_the_verdict() -> None:
    peer = RawPeer.at(Stage.VERDICT, TIMED)
    peer.waits(2.0)
    peer.is_admitted()
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_interval_s


def test_a_pong_tells_the_round_trip_and_starts_the_interval_anew() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    peer.waits(TIMEOUTS.ping_interval_s)
    peer.clock.passes(0.25)
    assert peer.says(PONG) == []
    assert peer.session.rtt_seconds == 0.25
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_interval_s
    peer.hears()
    assert peer.waits(TIMEOUTS.ping_interval_s) == []
    assert peer.hears() == [(PING, b"\x01\x00\xc0")]


def test_a_missed_pong_ends_it_at_once() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    peer.waits(TIMEOUTS.ping_interval_s)
    peer.hears()
    peer.clock.passes(1.0)
    peer.says(TRANSACTIONS)
    assert peer.waits(TIMEOUTS.ping_s - 1.5) == []
    peer.waits(0.5)
    check_end(peer, TIMEOUT, "no pong within 11 s", Stage.ACTIVE)


def test_a_pong_that_nobody_asked_for_is_ignored() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    deadline = peer.session.deadline
    peer.clock.passes(3.0)
    assert peer.says(PONG) == []
    assert peer.session.rtt_seconds is None
    assert peer.session.deadline == deadline


def test_sixteen_pings_at_once_are_answered_and_then_one_a_second() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    for _ in range(18):
        assert peer.says(PING) == []
    assert peer.hears() == [(PONG, b"\x01\x00\xc0")] * 16
    assert peer.session.deadline == peer.clock.now + 1.0
    for _ in range(2):
        assert peer.waits(0.5) + peer.waits(0.5) == []
        assert peer.hears() == [(PONG, b"\x01\x00\xc0")]
    assert peer.session.deadline == peer.clock.now - 2.0 + 15.0


@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
def test_a_flood_of_pings_is_a_breach(stage: Stage) -> None:
    peer = RawPeer.at(stage)
    for _ in range(16 + 256):
        assert peer.says(PING) == []
    peer.says(PING)
    check_end(peer, BREACH, "256 pings more than the 16 at once and one a second", stage)


@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
@pytest.mark.parametrize("payload", [b"", b"\x80", encoded([1, 2, 3])])
@pytest.mark.parametrize("is_snappy", [True, False])
def test_a_ping_and_a_pong_may_have_any_small_payload(stage: Stage, payload: bytes, *, is_snappy: bool) -> None:
    peer = RawPeer.at(stage)
    peer.hears()
    assert peer.says(PING, payload, is_snappy=is_snappy) == []
    assert peer.hears() == [(PONG, b"\x01\x00\xc0")]
    assert peer.says(PONG, payload, is_snappy=is_snappy) == []


def test_a_ping_a_second_goes_on_for_ever() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    for _ in range(50):
        peer.clock.passes(1.0)
        assert peer.says(PING) == []
    assert peer.session.stage is Stage.ACTIVE


# -- probes -----------------------------------------------------------------------------------------------------------------


def probed(peer: RawPeer) -> list[Event]:
    """The session is asked whether its peer is there."""
    return peer.session.probe(now=peer.clock.now)


@pytest.mark.parametrize("is_pinged_before", [True, False])
def test_a_probed_peer_that_answers_is_alive(*, is_pinged_before: bool) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.waits(15 if is_pinged_before else 10)
    assert probed(peer) == []
    assert [code for code, _ in peer.hears()].count(PING) == 1
    peer.clock.passes(1.9)
    assert peer.says(PONG) == [Alive()]
    # And is asked again in its own time.
    assert peer.session.deadline == peer.clock.now + 15
    assert peer.says(PONG) == []


@pytest.mark.parametrize("is_choked", [True, False])
def test_a_probed_peer_that_is_silent_for_two_seconds_is_gone(*, is_choked: bool) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.waits(10)
    probed(peer)
    if not is_choked:
        peer.hears()
    assert peer.waits(1.9) == []
    [closed] = peer.waits(0.1)
    assert isinstance(closed, Closed)
    assert (closed.reason, closed.cause) == (TIMEOUT, "no pong within 2 s after its peer connected anew")


def test_a_peer_that_was_heard_lately_is_alive_and_is_not_asked() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    peer.waits(0.9)
    assert probed(peer) == [Alive()]
    assert peer.hears() == []
    peer.waits(0.1)
    assert probed(peer) == []
    assert [code for code, _ in peer.hears()] == [PING]


def test_a_probed_peer_whose_socket_we_do_not_read_is_taken_to_be_alive() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.waits(10)
    probed(peer)
    peer.clock.passes(2)
    assert peer.session.tick(now=peer.clock.now, is_read=False) == [Alive()]
    assert peer.session.deadline == peer.clock.now + 15


def test_a_session_that_is_not_active_is_alive_until_its_deadline_and_one_that_ended_is_not() -> None:
    peer = RawPeer.at(Stage.STATUS)
    assert probed(peer) == [Alive()]
    peer.is_disconnected(DisconnectReason.TOO_MANY_PEERS)
    assert probed(peer) == []


@pytest.mark.parametrize("code", [PONG, 0x0F])
def test_a_flood_of_what_means_nothing_is_a_breach_and_a_few_are_not(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    for _ in range(256):
        assert peer.says(code) == []
    peer.says(code)
    check_end(peer, BREACH, "over 256 messages that mean nothing, and more than one a second", Stage.ACTIVE)


def test_pongs_that_were_asked_for_do_not_count_as_a_flood() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    for _ in range(300):
        peer.waits(15)
        peer.hears()
        peer.clock.passes(-14.99)
        assert peer.says(PONG) == []
