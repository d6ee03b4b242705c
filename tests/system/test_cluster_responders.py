"""Programs that answer the requests of peers at all hosts of a fleet, over NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import rlp as oracle

from rlpx.engine.client import FleetResponder, InvalidParamsError, Request, UnknownTopicWarning, connect
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders
from tests.system.cluster_fleet import Nats, fleet
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.test_responders import GET_HEADERS, answers, ask, encode

CHAIN = load_chain("dev")
TOPIC = "eth.GetBlockHeaders"


def headers(request: Request) -> bytes:
    """One header that says which session has asked."""
    assert isinstance(request.decode(), GetBlockHeaders)
    return encode([99, [[b"\x01", request.session.to_bytes(4, "big"), bytes.fromhex(request.peer)[:4]]]])


def expected(peer: Peer, request_id: int) -> bytes:
    return encode([request_id, [[b"\x01", (1).to_bytes(4, "big"), peer.node_id[:4]]]])


def established(engine: RunningEngine) -> Peer:
    return Peer(engine.address, engine.node_id, CHAIN).establish()


def answered(peer: Peer, request_id: int) -> bytes:
    ask(peer, GET_HEADERS, request_id)
    [found] = answers(peer, 1)
    return found


async def served(nats: Nats, use: Callable[[FleetResponder], object]) -> FleetResponder:
    """A responder, as long as this is done in a thread."""
    async with connect(nats.url, cluster="test") as found:
        responder = found.respond(TOPIC, headers)
        await responder.registered()
        await asyncio.to_thread(use, responder)
    return responder


def test_one_program_answers_the_peers_of_all_hosts_each_under_its_own_id() -> None:
    with Nats() as nats, fleet(nats, "a", "b", workers=2) as engines:
        peers = [established(engine) for engine in engines]

        def use(_: FleetResponder) -> None:
            for number in (7, 0, 7):
                for peer in peers:
                    assert answered(peer, number) == expected(peer, number)

        responder = asyncio.run(served(nats, use))
        assert (responder.answered, list(responder.refused)) == (6, [])
        # The program has gone, which its hosts learn with the next request.
        for peer in peers:
            assert answered(peer, 8) == encode([8, []])
            assert oracle.decode(answered(peer, 9)) == [b"\x09", []]
            peer.close()


def test_an_answer_that_is_none_fails_or_is_too_long_for_nats_is_the_empty_one() -> None:
    def handler(request: Request) -> bytes | BlockHeaders | None:
        if request.request_id == 1:
            return None
        if request.request_id == 2:
            return BlockHeaders(0, ())
        return encode([0, [bytes(20_000)]])

    with Nats(settings="max_payload: 16384") as nats, fleet(nats, "a") as [engine]:
        with connect(nats.url, cluster="test") as found:
            responder = found.respond(TOPIC, handler)
            peer = established(engine)
            for number in (1, 2, 3):
                assert answered(peer, number) == encode([number, []])
            eventually(lambda: responder.answered == 3, "all are counted")
            assert responder.refused == [f"{TOPIC}: an answer of 20010 bytes, more than NATS carries"]
            responder.close()
            responder.wait()
            assert answered(peer, 4) == encode([4, []])
        peer.close()


def test_two_programs_share_the_requests_and_one_that_leaves_leaves_them_to_the_other() -> None:
    async def use(nats: Nats, peer: Peer) -> None:
        async with connect(nats.url, cluster="test") as one, connect(nats.url, cluster="test") as two:
            both = [fleet.respond([TOPIC], headers, at_a_time=8) for fleet in (one, two)]
            for responder in both:
                await responder.registered()
            for number in range(40):
                assert await asyncio.to_thread(answered, peer, number) == expected(peer, number)
            assert sum(responder.answered for responder in both) == 40
            assert all(responder.answered for responder in both)
            both[0].close()
            await both[0].wait()
            before = both[1].answered
            for number in range(10):
                assert await asyncio.to_thread(answered, peer, number) == expected(peer, number)
            assert both[1].answered == before + 10

    with Nats() as nats, fleet(nats, "a") as [engine], established(engine) as peer:
        asyncio.run(use(nats, peer))


def test_a_topic_that_is_no_request_is_refused_by_the_hosts() -> None:
    async def use(nats: Nats) -> None:
        async with connect(nats.url, cluster="test") as found:
            with pytest.warns(UnknownTopicWarning):
                responder = found.respond("eth.BlockHeaders", headers)
            with pytest.raises(InvalidParamsError, match=r"host a: no request of a peer has the topic eth\.BlockHeaders"):
                await responder.registered()
            with pytest.raises(InvalidParamsError):
                await responder.wait()
            with pytest.raises(ValueError, match="at_a_time"):
                found.respond(TOPIC, headers, at_a_time=0)

    with Nats() as nats, fleet(nats, "a"):
        asyncio.run(use(nats))
