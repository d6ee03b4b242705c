"""Static, trusted and banned peers, as users name them."""

from __future__ import annotations

from typing import Any

import pytest

from rlpx.engine.settings.settings import LimitSettings, PeerSettings
from rlpx.protocol.bus.commands import (
    AddPeerParameters,
    BanParameters,
    DialParameters,
    RemovePeerParameters,
)
from rlpx.protocol.bus.control import (
    Dial,
    DisconnectSession,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionStats,
    Verdict,
)
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.engine.fake_worker import until
from tests.engine.harness import (
    ENODE,
    NOTHING,
    OTHER,
    PEER,
    MakeEngine,
    closed,
    dialled,
    is_closed,
    refusal,
)


async def test_a_static_peer_is_dialled_by_itself_and_tells_when_it_is_tried_again(make_engine: MakeEngine) -> None:
    async with make_engine(peers=PeerSettings(static=(ENODE,))) as harness:
        session = (await harness.worker.is_told(Dial)).session
        cause = "no TCP connection: Connection refused"
        harness.worker.report(SessionClosed(session, EndedBy.NETWORK, None, cause, Stage.CONNECT, SessionStats()))
        await until(lambda: harness.worker.heard or not harness.engine.ledger.views)
        [named] = (await harness.commands.peers.peers(NOTHING)).peers
        assert (named.peer, named.static, named.trusted) == (ENODE, True, False)
        assert named.next_try_s is not None
        assert 0 < named.next_try_s <= 36


async def test_a_peer_can_be_named_and_forgotten(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        added = await harness.commands.peers.peers_add(AddPeerParameters(enode=ENODE, static=False, trusted=True))
        assert [(item.static, item.trusted) for item in added.peers] == [(False, True)]
        assert (await harness.commands.peers.peers_remove(RemovePeerParameters(peer=PEER.hex()))).peers == []
        removed_again = harness.commands.peers.peers_remove(RemovePeerParameters(peer=PEER.hex()))
        assert (await refusal(removed_again))[0] == "no_such_peer"
        assert (await refusal(harness.commands.peers.peers_add(AddPeerParameters(enode="nonsense"))))[0] == "invalid_params"


async def test_a_trusted_peer_passes_the_active_limit_and_others_do_not(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_active_inbound=1), peers=PeerSettings(trusted=(ENODE,))) as harness:
        await harness.active(OTHER)
        trusted, stranger = await harness.accepted(), await harness.accepted()
        third = PrivateKey(b"\x44" * 32).id
        harness.worker.report(SessionAuthenticated(stranger, third), SessionAuthenticated(trusted, PEER))
        assert (await harness.worker.is_told(Verdict)).refusal is DisconnectReason.TOO_MANY_PEERS
        assert (await harness.worker.is_told(Verdict)).refusal is None


async def test_a_ban_ends_what_a_peer_has_and_keeps_it_out_both_ways(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        assert (await harness.commands.peers.ban(BanParameters(peer=PEER.hex()))).sessions == 1
        assert (await harness.worker.is_told(DisconnectSession)).session == session
        harness.worker.report(closed(session))
        await harness.event("session.closed")
        assert (await refusal(harness.commands.sessions.dial(DialParameters(enode=ENODE))))[0] == "refused"
        again = await harness.accepted()
        harness.worker.report(SessionAuthenticated(again, PEER))
        assert (await harness.worker.is_told(Verdict)).cause == "the peer is banned"
        assert (await harness.commands.peers.ban(BanParameters(peer=PEER.hex(), seconds=0))).sessions == 0
        await dialled(harness)


async def test_a_banned_address_is_closed_at_the_door(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.commands.peers.ban(BanParameters(address="127.0.0.1"))
        sock = harness.connect()
        await until(lambda: is_closed(sock))
        assert (await harness.event("session.refused"))["cause"] == "the address is banned"


async def test_a_session_that_a_ban_hits_twice_is_ended_once(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.active()
        assert (await harness.commands.peers.ban(BanParameters(peer=PEER.hex(), address="127.0.0.1"))).sessions == 1


@pytest.mark.parametrize("parameters", [{}, {"address": "nonsense"}, {"peer": PEER.hex(), "address": "nonsense"}])
async def test_a_ban_of_nobody_bans_nobody(make_engine: MakeEngine, parameters: dict[str, Any]) -> None:
    async with make_engine() as harness:
        assert (await refusal(harness.commands.peers.ban(BanParameters(**parameters))))[0] == "invalid_params"
        assert (await harness.commands.peers.peers(NOTHING)).bans == []


async def test_a_ban_of_an_address_minds_no_session_without_one(make_engine: MakeEngine) -> None:
    """The kernel gives the address of a dial, and gives none for a socket that has been reset by then."""
    async with make_engine() as harness:
        session = await dialled(harness)
        harness.worker.report(SessionConnected(session, "", ""))
        await harness.event("session.opened")
        assert (await harness.commands.peers.ban(BanParameters(address="127.0.0.2"))).sessions == 0
