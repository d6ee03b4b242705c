"""Dials: static peers as places come free, host names resolved, refusals reported once."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from rlpx.engine.intake.resolver import Resolver
from rlpx.engine.settings.settings import AccessSettings, LimitSettings, PeerSettings
from rlpx.protocol.bus.commands import (
    AddPeerParameters,
    BanParameters,
    DialParameters,
    DisconnectParameters,
    HistoryParameters,
    SetLimitsParameters,
)
from rlpx.protocol.bus.control import (
    Dial,
    DisconnectSession,
    SessionAuthenticated,
    SessionClosed,
    SessionConnected,
    SessionId,
    SessionStats,
    Verdict,
)
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.engine.fake_worker import until
from tests.engine.harness import KEY, NOTHING, EngineHarness, MakeEngine, closed, established, refusal

PEERS = [PrivateKey(bytes([number]) * 32).id for number in range(0x51, 0x56)]


def enode(number: int, host: str = "192.0.2.1", port: int = 30303) -> str:
    """The URL of one of the peers."""
    return f"enode://{PEERS[number].hex()}@{host}:{port}"


def static(*numbers: int) -> PeerSettings:
    """Some static peers."""
    return PeerSettings(static=tuple(enode(number) for number in numbers))


async def fails(harness: EngineHarness, session: SessionId, cause: str = "no TCP connection") -> None:
    """Let a dial fail."""
    harness.worker.report(SessionClosed(session, EndedBy.NETWORK, None, cause, Stage.CONNECT, SessionStats()))
    assert (await harness.event("dial.failed"))["session"] == session


async def comes_up(harness: EngineHarness, dial: Dial) -> None:
    """Let a dial lead to an active session."""
    harness.worker.report(SessionAuthenticated(dial.session, dial.peer))
    await harness.worker.is_told(Verdict)
    harness.worker.report(established(dial.session))


async def why_not(harness: EngineHarness) -> list[str | None]:
    """The causes for which static peers are not dialled."""
    return [peer.why_not for peer in (await harness.commands.peers.peers(NOTHING)).peers]


# -- static peers -----------------------------------------------------------------------------------------------------------


async def test_as_many_static_peers_are_dialled_as_there_are_places_and_the_others_as_places_come_free(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(limits=LimitSettings(max_pending_outbound=2), peers=static(0, 1, 2, 3, 4)) as harness:
        first, second = await harness.worker.is_told(Dial), await harness.worker.is_told(Dial)
        assert [first.peer, second.peer] == PEERS[:2]
        waits = "all 2 places for dials are taken"
        assert await why_not(harness) == [None, None, waits, waits, waits]
        # Both ways in which a place comes free lead to a dial at once, not with the next second.
        began_at = asyncio.get_running_loop().time()
        await comes_up(harness, first)
        third = await harness.worker.is_told(Dial)
        await fails(harness, second.session)
        fourth = await harness.worker.is_told(Dial)
        assert [third.peer, fourth.peer] == PEERS[2:4]
        assert asyncio.get_running_loop().time() - began_at < 0.9
        assert harness.worker.heard == []


async def test_a_static_peer_that_we_refuse_to_dial_is_told_of_once_for_each_cause(make_engine: MakeEngine) -> None:
    async with make_engine(access=AccessSettings(deny_cidrs=("192.0.2.0/24",))) as harness:
        denied = "the address is on the deny list"
        await harness.commands.peers.peers_add(AddPeerParameters(enode=enode(0)))
        failed = await harness.event("dial.failed")
        assert (failed["session"], failed["cause"], failed["why_not"]) == (None, denied, denied)
        assert (failed["enode"], failed["peer"], failed["next_try_us"]) == (enode(0), PEERS[0].hex(), None)
        assert await why_not(harness) == [denied]
        [past] = await harness.commands.sessions.history(HistoryParameters())
        assert (past.session, past.cause, past.ended_by, past.stage) == (None, denied, "us", "connect")
        for _ in range(3):
            harness.engine.dials.reconsider()
            await asyncio.sleep(0)
        assert len(await harness.commands.sessions.history(HistoryParameters())) == 1
        await harness.commands.peers.ban(BanParameters(peer=PEERS[0].hex(), seconds=60))
        harness.engine.dials.reconsider()
        assert (await harness.event("dial.failed"))["why_not"] == "the peer or its address is banned"


async def test_our_own_id_as_a_static_peer_is_refused_with_that_reason(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        await harness.commands.peers.peers_add(AddPeerParameters(enode=f"enode://{KEY.id.hex()}@192.0.2.1:1"))
        assert (await harness.event("dial.failed"))["why_not"] == "that enode is this very node"


async def test_what_a_static_peer_was_refused_for_may_change(make_engine: MakeEngine) -> None:
    async with make_engine(limits=LimitSettings(max_active_outbound=0)) as harness:
        await harness.commands.peers.peers_add(AddPeerParameters(enode=enode(0)))
        assert (await harness.event("dial.failed"))["why_not"] == "0 outbound sessions are active"
        await harness.commands.running.set_limits(SetLimitsParameters(max_active_outbound=1))
        dial = await harness.worker.is_told(Dial)
        assert await why_not(harness) == [None]
        await fails(harness, dial.session)


async def test_a_new_address_calls_the_old_dial_off_and_its_end_is_not_booked_on_the_new_one(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(peers=static(0)) as harness:
        old = await harness.worker.is_told(Dial)
        await harness.commands.peers.peers_add(AddPeerParameters(enode=enode(0, "192.0.2.9")))
        assert (await harness.worker.is_told(DisconnectSession)).session == old.session
        new = await harness.worker.is_told(Dial)
        assert new.addresses == (("192.0.2.9", 30303), ("192.0.2.1", 30303))
        await fails(harness, old.session, "the dial was called off")
        [peer] = (await harness.commands.peers.peers(NOTHING)).peers
        assert (peer.last_end, peer.next_try_s) == (None, None)
        await comes_up(harness, new)
        await harness.event("session.established")


async def test_a_dial_whose_peer_has_proved_its_id_goes_on_and_so_does_one_to_the_same_address(
    make_engine: MakeEngine,
) -> None:
    async with make_engine(peers=static(0)) as harness:
        dial = await harness.worker.is_told(Dial)
        await harness.commands.peers.peers_add(AddPeerParameters(enode=enode(0)))
        harness.worker.report(SessionAuthenticated(dial.session, dial.peer))
        await harness.worker.is_told(Verdict)
        await harness.commands.peers.peers_add(AddPeerParameters(enode=enode(0, "192.0.2.9")))
        await asyncio.sleep(0.02)
        assert harness.worker.heard == []


async def test_the_reason_of_a_goodbye_is_told_with_the_failed_dial_and_in_the_list(make_engine: MakeEngine) -> None:
    async with make_engine(peers=static(0)) as harness:
        session = (await harness.worker.is_told(Dial)).session
        harness.worker.report(SessionConnected(session, "127.0.0.1:1", "192.0.2.1:30303"), closed(session, Stage.HELLO))
        await harness.event("session.closed")
        # The failure follows on the end.
        assert "dial.failed" not in {item.topic for item in harness.events}
        failed = await harness.event("dial.failed")
        assert (failed["reason"], failed["cause"]) == ("too_many_peers", "the peer said goodbye")
        [peer] = (await harness.commands.peers.peers(NOTHING)).peers
        assert peer.last_end == "the peer said goodbye (too_many_peers)"


# -- addresses --------------------------------------------------------------------------------------------------------------


def names(monkeypatch: pytest.MonkeyPatch, known: dict[str, list[str]]) -> asyncio.Event:
    """A resolver that knows these names; others hang until the event."""
    is_over = asyncio.Event()

    async def addresses(_: Resolver, name: str) -> list[str]:
        if name in known:
            if not known[name]:
                raise OSError(-2, "Name or service not known")
            return known[name]
        await is_over.wait()
        raise TimeoutError

    monkeypatch.setattr(Resolver, "addresses", addresses)
    return is_over


async def dialled(harness: EngineHarness, host: str) -> SessionId:
    """Dial a peer at a host."""
    return SessionId((await harness.commands.sessions.dial(DialParameters(enode=enode(0, host)))).session)


async def test_a_host_name_is_dialled_at_all_its_addresses_but_those_that_are_denied(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, {"node.example": ["2001:db8::1", "10.0.0.1", "192.0.2.7", "0.0.0.0"]})  # noqa: S104 - nobody binds it
    async with make_engine(access=AccessSettings(deny_cidrs=("10.0.0.0/8",))) as harness:
        session = await dialled(harness, "node.example")
        dial = await harness.worker.is_told(Dial)
        assert (dial.session, dial.addresses) == (session, (("2001:db8::1", 30303), ("192.0.2.7", 30303)))
        assert await harness.counted() == {"pending outbound": 1}


@pytest.mark.parametrize(
    ("host", "cause", "is_ours"),
    [
        ("denied.example", "the address is on the deny list", True),
        ("nobody.example", "nobody.example does not resolve: Name or service not known", False),
    ],
)
async def test_a_host_name_that_leads_nowhere_ends_the_dial(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, host: str, cause: str, *, is_ours: bool
) -> None:
    names(monkeypatch, {"denied.example": ["10.0.0.1"], "nobody.example": []})
    async with make_engine(access=AccessSettings(deny_cidrs=("10.0.0.0/8",))) as harness:
        session = await dialled(harness, host)
        failed = await harness.event("dial.failed")
        assert (failed["session"], failed["cause"]) == (session, cause)
        assert failed["why_not"] == (cause if is_ours else None)
        assert await harness.counted() == {}
        assert harness.worker.heard == []


async def test_a_name_that_is_not_resolved_in_time_ends_the_dial(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:
        names(monkeypatch, {}).set()
        await dialled(harness, "slow.example")
        assert (await harness.event("dial.failed"))["cause"] == "slow.example was not resolved within 5 s"


async def test_a_dial_whose_name_is_being_resolved_can_be_called_off(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:
        names(monkeypatch, {})
        session = await dialled(harness, "slow.example")
        await harness.commands.sessions.disconnect(DisconnectParameters(session=session))
        failed = await harness.event("dial.failed")
        assert (failed["session"], failed["cause"]) == (session, "the dial was called off")
        assert await harness.counted() == {}
        assert harness.worker.heard == []


async def test_where_its_worker_is_lost_meanwhile_a_dial_ends_once(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as harness:
        is_over = names(monkeypatch, {})
        session = await dialled(harness, "slow.example")
        harness.worker.die(-9)
        assert (await harness.event("dial.failed"))["session"] == session
        is_over.set()
        name = f"resolve the names of session {session}"
        await until(lambda: all(task.get_name() != name for task in asyncio.all_tasks()))
        assert len(await harness.commands.sessions.history(HistoryParameters())) == 1


@pytest.mark.parametrize("is_banned", [False, True])
async def test_an_address_that_was_denied_or_banned_while_it_was_dialled_by_name_is_told_goodbye(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, *, is_banned: bool
) -> None:
    names(monkeypatch, {"node.example": ["192.0.2.7"]})
    async with make_engine() as harness:
        session = await dialled(harness, "node.example")
        await harness.worker.is_told(Dial)
        denying = AccessSettings(deny_cidrs=("192.0.2.0/24",))
        if is_banned:
            await harness.commands.peers.ban(BanParameters(address="192.0.2.7"))
        else:
            harness.engine.reload(msgspec.structs.replace(harness.engine.settings, access=denying))
        assert harness.worker.heard == []
        harness.worker.report(SessionConnected(session, "127.0.0.1:1", "192.0.2.7:30303"))
        ended = await harness.worker.is_told(DisconnectSession)
        cause = "the address is banned" if is_banned else "the address is on the deny list"
        assert (ended.session, ended.cause) == (session, cause)


async def test_a_denied_address_among_others_is_left_out_and_alone_it_is_the_reason(make_engine: MakeEngine) -> None:
    both = PeerSettings(static=(enode(0, "10.0.0.1"), enode(0)))
    async with make_engine(access=AccessSettings(deny_cidrs=("10.0.0.0/8",)), peers=both) as harness:
        first = await harness.worker.is_told(Dial)
        assert first.addresses == (("192.0.2.1", 30303),)
        asked: Any = harness.commands.sessions.dial(DialParameters(enode=enode(1, "10.0.0.1")))
        assert await refusal(asked) == ("refused", "the address is on the deny list")


@pytest.mark.parametrize("is_first_refused", [True, False])
async def test_a_crossing_session_waits_until_the_first_one_is_active_or_the_peer_has_refused_that(
    make_engine: MakeEngine, *, is_first_refused: bool
) -> None:
    """Our id is the lower one: we decide, unless the peer has already decided."""
    async with make_engine() as harness:
        higher = next(key.id for key in (PrivateKey(bytes([n]) * 32) for n in range(1, 99)) if key.id > KEY.id)
        url = f"enode://{higher.hex()}@192.0.2.1:1"
        outbound = SessionId((await harness.commands.sessions.dial(DialParameters(enode=url))).session)
        await harness.worker.is_told(Dial)
        inbound = await harness.accepted()
        harness.worker.report(SessionAuthenticated(inbound, higher), SessionAuthenticated(outbound, higher))
        assert await harness.worker.is_told(Verdict) == Verdict(inbound)
        await asyncio.sleep(0.02)
        assert harness.worker.heard == []
        if is_first_refused:
            harness.worker.report(closed(inbound, Stage.STATUS))
            assert await harness.worker.is_told(Verdict) == Verdict(outbound)
        else:
            harness.worker.report(established(inbound))
            verdict = await harness.worker.is_told(Verdict)
            assert (verdict.session, verdict.refusal) == (outbound, DisconnectReason.ALREADY_CONNECTED)


async def test_a_crossing_session_ends_when_the_other_one_is_established(make_engine: MakeEngine) -> None:
    """Our id is the higher one: both go on until the peer has chosen."""
    async with make_engine() as harness:
        lower = next(key.id for key in (PrivateKey(bytes([n]) * 32) for n in range(1, 99)) if key.id < KEY.id)
        url = f"enode://{lower.hex()}@192.0.2.1:1"
        outbound = (await harness.commands.sessions.dial(DialParameters(enode=url))).session
        await harness.worker.is_told(Dial)
        inbound = await harness.accepted()
        for session in (SessionId(outbound), inbound):
            harness.worker.report(SessionAuthenticated(session, lower))
            assert await harness.worker.is_told(Verdict) == Verdict(session)
        harness.worker.report(established(inbound))
        ended = await harness.worker.is_told(DisconnectSession)
        assert (ended.session, ended.reason) == (outbound, DisconnectReason.ALREADY_CONNECTED)
