"""What is reported and published of a session, from its socket to its one end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from rlpx.protocol.bus import control, zmtp
from rlpx.protocol.bus.control import (
    DisconnectSession,
    GetStats,
    RequestPeer,
    SendMessage,
    SessionAuthenticated,
    SessionClosed,
    SessionEstablished,
    SessionId,
    SessionKeyed,
    SessionStalled,
    Verdict,
)
from rlpx.protocol.errors import DisconnectReason, Severity
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.events import Established
from rlpx.workers.wheel import BUCKET_SECONDS
from tests.pair import CHAIN, DEV, DIALER, PROTOCOLS, SessionSpec, encoded, key
from tests.workers.hosted import (
    BLOCK_HEADERS,
    DRAIN,
    GET_BLOCK_HEADERS,
    ONE,
    QUITTING,
    TRANSACTIONS,
    TWO,
    hosted,
)

LIAR = SessionSpec(hello=Hello("tests/liar", tuple(protocol.capability for protocol in PROTOCOLS), 30303, key(77).id))
OTHER_NETWORK = SessionSpec(chain=msgspec.structs.replace(CHAIN, network_id=CHAIN.network_id + 1))
# The events of a session's life, in the order in which every reader receives them.
LIFE = ["session.opened", "session.authenticated", "session.established", "eth.Transactions", "session.closed"]


async def test_a_handed_over_peer_is_reported_judged_established_and_ended_once(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE)
        established = asyncio.ensure_future(peer.until(Established))
        authenticated = await engine.until(control.SessionAuthenticated)
        assert authenticated == control.SessionAuthenticated(ONE, DIALER.key.id)
        engine.command(Verdict(ONE))
        report = await engine.until(SessionEstablished)
        await established
        assert (report.session, report.client, report.listen_port) == (ONE, "tests/1", 30303)
        assert report.shared == ("eth/72", "snap/2")
        assert "eth/66" in report.capabilities
        assert report.local.startswith("127.0.0.1:")
        assert (report.chain.network_id, report.chain.latest) == (3503995874084926, 1000)
        peer.leave(QUITTING)
        closed = await engine.until(SessionClosed)
        assert (closed.session, closed.ended_by, closed.reason, closed.stage) == (
            ONE,
            EndedBy.PEER,
            QUITTING,
            Stage.ACTIVE,
        )
        assert closed.stats.messages_in == 3
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_neither_side_is_established_before_the_verdict(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE)
        established = asyncio.ensure_future(peer.until(Established))
        await engine.until(control.SessionAuthenticated)
        stage = Stage.AUTH
        # Hello and the peer's Status are exchanged meanwhile.
        while stage is not Stage.VERDICT:
            engine.command(GetStats(engine.call(), (ONE,)))
            stage = (await engine.until(control.Stats)).sessions[ONE][0]
        assert not established.done()
        engine.command(Verdict(ONE))
        await engine.until(SessionEstablished)
        await established


async def test_a_peer_that_lies_about_its_id_is_known_by_the_one_it_proved_and_told_so(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE, LIAR)
        told = asyncio.ensure_future(peer.until_closed())
        authenticated = await engine.until(SessionAuthenticated)
        assert authenticated.peer == LIAR.key.id
        engine.command(Verdict(ONE))
        closed = await engine.until(SessionClosed)
        assert (closed.ended_by, closed.severity) == (EndedBy.US, Severity.FATAL)
        assert closed.reason is DisconnectReason.UNEXPECTED_IDENTITY
        assert (await told).reason is DisconnectReason.UNEXPECTED_IDENTITY
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_a_peer_of_another_network_is_told_so_and_known_as_such(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.accepted(ONE, OTHER_NETWORK)
        told = asyncio.ensure_future(peer.until_closed())
        await engine.until(SessionAuthenticated)
        engine.command(Verdict(ONE))
        # Both see the other's Status, and either may be the first to disconnect.
        closed = await engine.until(SessionClosed)
        assert closed.reason is DisconnectReason.SUBPROTOCOL_ERROR
        assert (await told).reason is DisconnectReason.SUBPROTOCOL_ERROR
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_a_peer_without_a_shared_version_is_useless(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        old = SubProtocol(Capability("eth", 65), 17)
        peer = await engine.accepted(ONE, SessionSpec(protocols=(old,)))
        told = asyncio.ensure_future(peer.until_closed())
        closed = await engine.until(SessionClosed)
        assert (closed.reason, closed.stage) == (DisconnectReason.USELESS_PEER, Stage.HELLO)
        assert (await told).reason is DisconnectReason.USELESS_PEER


async def test_a_peer_that_left_may_come_again_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        for session in (ONE, TWO):
            peer = await engine.established(session)
            peer.leave(QUITTING)
            closed = await engine.until(SessionClosed, session)
            assert (closed.ended_by, closed.reason) == (EndedBy.PEER, QUITTING)


async def test_a_peer_that_is_slow_to_send_its_auth_is_named_and_whether_it_has_spoken(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.accepted(ONE)
        slow = await engine.accepted(TWO)
        slow.writer.write(slow.session.data_to_send()[:100])
        assert await engine.until(SessionStalled, ONE) == SessionStalled(ONE, has_spoken=False)
        assert await engine.until(SessionStalled, TWO) == SessionStalled(TWO, has_spoken=True)


async def test_a_peer_whose_auth_has_come_is_named_where_its_hello_has_not(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        for session, is_late in ((ONE, False), (TWO, True)):
            peer = await engine.accepted(session)
            if is_late:
                await engine.until(SessionStalled, session)
            # The peer answers nothing.
            peer.writer.write(peer.session.data_to_send())
            assert await engine.until(SessionKeyed) == SessionKeyed(session)


async def test_of_a_peer_that_proves_its_id_at_once_nothing_else_is_told(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        await asyncio.sleep(2 * BUCKET_SECONDS)
        peer.leave(QUITTING)
        await engine.until(SessionClosed)
        assert not [item for item in engine.reports if isinstance(item, SessionKeyed | SessionStalled)]


async def test_a_peer_that_drips_its_auth_ends_by_a_deadline_of_its_own(tmp_path: Path) -> None:
    async with hosted(tmp_path, auth_s=0.3) as engine:
        peer = await engine.accepted(ONE)
        auth = peer.session.data_to_send()

        async def drip() -> None:
            for byte in auth:
                peer.writer.write(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        closed = await engine.until(SessionClosed, ONE)
        dripping.cancel()
        assert (closed.cause, closed.stage) == ("the peer took too long at auth", Stage.AUTH)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_peer_that_answers_nothing_is_told_of_and_ended_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    monkeypatch.setattr("rlpx.protocol.session.requests.INITIAL_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr("rlpx.protocol.session.requests.BREACH_SECONDS", 0.2)
    async with hosted(tmp_path, ends_on_breach=ends) as engine:
        await engine.subscribe(b"peer.")
        peer = await engine.established(ONE)
        call = engine.call()
        reply = await engine.asked(RequestPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
        assert (reply.call, reply.error) == (call, "timed_out")
        [told] = (await engine.batch("peer.breach"))[0]["events"]
        assert (told["session"], told["peer"], told["count"]) == (ONE, DIALER.key.id.hex(), 1)
        if ends:
            closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
            assert (await peer.until_closed()).reason is DisconnectReason.PROTOCOL_BREACH
        else:
            assert (await engine.asked(SendMessage(engine.call(), ONE, "eth", TRANSACTIONS, b"\xc0"))).error is None


async def test_answers_that_nobody_asked_for_are_told_and_then_a_breach(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"peer.")
        peer = await engine.established(ONE)
        for _ in range(4):
            peer.send("eth", BLOCK_HEADERS, encoded([77, []]))
        told: list[dict[str, Any]] = []
        while len(told) < 4:
            told += (await engine.batch("peer.bad_message"))[0]["events"]
        assert [event["count"] for event in told] == [1, 2, 3, 4]
        assert {event["session"] for event in told} == {ONE}
        closed = await engine.until(SessionClosed)
        assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
        assert closed.cause.startswith("4 bad messages, the last: ")
        assert (await peer.until_closed()).reason is DisconnectReason.PROTOCOL_BREACH


async def test_a_life_is_published_in_one_order_whatever_the_topics(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"")
        peer = await engine.established(ONE)
        peer.send("eth", TRANSACTIONS, encoded([b"tx"]))
        peer.leave(QUITTING)
        closed = await engine.until(SessionClosed)
        engine.command(DRAIN)
        await engine.rest()
        heads = {published.topic: orjson.loads(zmtp.decode(published.wire)[1]) for published in engine.published}
        assert list(heads) == LIFE
        events = {topic: head["events"][0] for topic, head in heads.items()}
        assert {event["session"] for event in events.values()} == {ONE}
        assert events["session.opened"]["direction"] == "inbound"
        assert events["session.authenticated"]["peer"] == DIALER.key.id.hex()
        established = events["session.established"]
        assert (established["phase"], established["client"], established["worker"]) == ("active", "tests/1", 3)
        assert established["local"].startswith("127.0.0.1:")
        end = events["session.closed"]
        assert (end["ended_by"], end["reason"], end["stage"]) == ("peer", "client_quitting", "active")
        assert end["duration_ms"] == closed.duration_ms


async def test_a_life_of_many_at_once_is_in_order_for_each_of_them(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"session.")
        peers = [await engine.accepted(SessionId(number), SessionSpec(seed=number)) for number in range(1, 20)]
        for peer in peers:
            peer.close()
        ended = [await engine.until(SessionClosed) for _ in peers]
        engine.command(DRAIN)
        await engine.rest()
        told: dict[int, list[str]] = {}
        for published in engine.published:
            for event in orjson.loads(zmtp.decode(published.wire)[1])["events"]:
                told.setdefault(event["session"], []).append(published.topic)
        assert told == {report.session: ["session.opened", "session.closed"] for report in ended}


async def test_an_end_before_the_socket_is_taken_over_is_told_behind_its_opening(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"session.")
        sessions = [SessionId(number) for number in range(1, 60)]
        for session in sessions:
            peer = await engine.accepted(session)
            # The disconnect comes before the socket, before it is attached, or after that, as the loop orders them.
            for _ in range(session % 4):
                await asyncio.sleep(0)
            engine.command(DisconnectSession(session, QUITTING, "at once"))
            await engine.until(SessionClosed, session)
            peer.close()
        engine.command(DRAIN)
        await engine.rest()
        told: dict[int, list[str]] = {}
        for published in engine.published:
            for event in orjson.loads(zmtp.decode(published.wire)[1])["events"]:
                told.setdefault(event["session"], []).append(published.topic)
        assert told == {session: ["session.opened", "session.closed"] for session in sessions}


async def test_openings_and_ends_are_marked_though_nobody_reads_them(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        peer.leave(QUITTING)
        await engine.until(SessionClosed)
        refused = await engine.accepted(TWO, refusal=DisconnectReason.TOO_MANY_PEERS)
        await refused.until_closed()
        engine.command(DRAIN)
        await engine.rest()
        marks = [(published.topic, published.sessions, published.wire) for published in engine.published]
        # Nothing is published about a goodbye.
        assert marks == [("session.opened", (ONE,), b""), ("session.closed", (ONE,), b"")]


@pytest.mark.parametrize("proof_of_stake", [True, False])
async def test_block_gossip_is_a_breach_where_the_chain_file_says_proof_of_stake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, proof_of_stake: bool
) -> None:
    monkeypatch.setattr("tests.workers.hosted.DEV", msgspec.structs.replace(DEV, proof_of_stake=proof_of_stake))
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        peer.send("eth", 1, encoded([[b"\x22" * 32, 5]]))
        peer.leave(QUITTING)
        closed = await engine.until(SessionClosed)
        assert closed.reason is (DisconnectReason.PROTOCOL_BREACH if proof_of_stake else QUITTING)
