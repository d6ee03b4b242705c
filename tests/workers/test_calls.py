"""Commands of programs at the data endpoint: carried out here, answered once, bounded, cancelled, over with the program."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from rlpx.protocol.bus.control import SessionClosed
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy
from rlpx.protocol.session.events import MessageReceived
from rlpx.workers import calls, sending
from tests.pair import SessionSpec, encoded
from tests.workers.hosted import (
    BLOCK_HEADERS,
    ONE,
    QUITTING,
    TWO,
    Peer,
    hosted,
)
from tests.workers.program import Program, connected

TO_ONE: dict[str, Any] = {"session": ONE, "capability": "eth"}
ASKED = {**TO_ONE, "message": "GetBlockHeaders"}
QUESTION = encoded([77, [1, 2, 0, 0]])


async def received(peer: Peer, count: int) -> list[MessageReceived]:
    """The messages that the peer has got, when there are so many."""
    while len(found := [event for event in peer.events if isinstance(event, MessageReceived)]) < count:
        await peer.hear()
    return found


async def requests(peer: Peer, count: int) -> list[int]:
    """The ids of the requests that the peer has got, when there are so many."""
    while len(found := [event.request_id for event in await received(peer, 0) if event.request_id is not None]) < count:
        await peer.hear()
    return found


def answer(peer: Peer, request_id: int, *headers: Any) -> None:
    peer.send("eth", BLOCK_HEADERS, encoded([request_id, list(headers)]))


async def test_a_message_is_sent_as_it_is(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            call = program.asks("send", b"\xc1\x80", **TO_ONE, message="Transactions", raw=True)
            assert await program.reply(call) == ({"jsonrpc": "2.0", "id": call, "result": {"sessions": 1}}, None)
        message = await peer.until(MessageReceived)
        assert (message.kind.topic, message.payload) == ("eth.Transactions", b"\xc1\x80")


async def test_a_request_is_answered_with_the_peers_bytes_in_a_frame(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            call = program.asks("request", QUESTION, **ASKED)
            [request_id] = await requests(peer, 1)
            answer(peer, request_id, [b"\x01" * 40])
            reply, payload = await program.reply(call)
            assert reply == {"jsonrpc": "2.0", "id": call, "result": {"message": "BlockHeaders"}}
            # The request id is the caller's own again.
            assert payload == encoded([77, [[b"\x01" * 40]]])


async def test_answers_come_in_the_order_of_the_peer_not_of_the_calls(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            asked = [program.asks("request", encoded([number, [1, 2, 0, 0]]), **ASKED) for number in range(3)]
            for request_id in reversed(await requests(peer, 3)):
                answer(peer, request_id)
            heard = [await program.hears() for _ in asked]
            assert [reply["id"] for reply, _ in heard] == list(reversed(asked))
            assert [payload for _, payload in heard] == [encoded([number, []]) for number in (2, 1, 0)]


@pytest.mark.parametrize(
    ("method", "params", "payload", "error"),
    [
        ("send", {"session": 9, "capability": "eth", "message": 2}, b"\xc0", "no_such_session"),
        ("send", {**TO_ONE, "capability": "les", "message": 2}, b"\xc0", "not_shared"),
        ("send", {**TO_ONE, "message": 99}, b"\xc0", "not_shared"),
        # What peers punish is refused, and with `raw` it is not.
        ("send", {**TO_ONE, "message": "Transactions"}, b"nonsense", "invalid_params"),
        ("send", {**TO_ONE, "message": "Trnsactions"}, b"\xc0", "invalid_params"),
        ("send", {**TO_ONE, "message": 2}, None, "invalid_params"),
        ("send", {**TO_ONE, "message": 2, "payload": "c0"}, None, "invalid_params"),
        ("request", {**TO_ONE, "message": 2}, b"\xc0", "invalid_params"),
        ("request", {**ASKED, "timeout_s": 26}, QUESTION, "invalid_params"),
        ("request", {**ASKED, "session": 9}, QUESTION, "no_such_session"),
        ("broadcast", {"capability": "eth", "message": 2, "phase": "closed"}, b"\xc0", "invalid_params"),
        ("broadcast", {"capability": "eth", "message": "Transactions"}, b"nonsense", "invalid_params"),
        ("broadcast", {"capability": "eth", "message": 2, "except": [-1]}, b"\xc0", "invalid_params"),
        ("disconnect", {"session": 9}, None, "no_such_session"),
        ("disconnect", {"session": ONE, "reason": "bored"}, None, "invalid_params"),
        ("disconnect", {"session": ONE}, b"payload", "invalid_params"),
        ("status", {}, None, "no_such_method"),
    ],
)
async def test_what_cannot_be_done_is_an_error_with_its_name(
    tmp_path: Path, method: str, params: dict[str, Any], payload: bytes | None, error: str
) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        with connected(tmp_path) as program:
            name, text = await program.error(program.asks(method, payload, **params))
            assert name == error
            assert text


@pytest.mark.parametrize(
    ("head", "reply_id", "error"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":5}', None, "invalid_request"),
        (b'{"jsonrpc":"2.0","id":7}', None, "invalid_request"),
        (b'{"jsonrpc":"1.0","id":7,"method":"send"}', None, "invalid_request"),
        (b'{"jsonrpc":"2.0","id":7,"method":"send","params":[1]}', 7, "invalid_params"),
        (b'{"jsonrpc":"2.0","id":"seven","method":"send"}', "seven", "invalid_params"),
        (b'{"jsonrpc":"2.0","method":"send"}', None, "invalid_params"),
        (b'{"jsonrpc":"2.0","method":"cancel"}', None, "invalid_params"),
        # With an id it is a request, and there is no such method.
        (b'{"jsonrpc":"2.0","id":7,"method":"cancel","params":{"id":8}}', 7, "no_such_method"),
        (b'{"jsonrpc":"2.0","method":"cancel","params":{"id":[]}}', None, "invalid_params"),
    ],
)
async def test_what_is_no_call_is_answered_all_the_same(tmp_path: Path, head: bytes, reply_id: object, error: str) -> None:
    async with hosted(tmp_path):
        with connected(tmp_path) as program:
            program.says(head)
            reply, _ = await program.hears()
            assert (reply["id"], reply["error"]["data"]["name"]) == (reply_id, error)


async def test_a_broadcast_goes_to_the_sessions_of_this_worker_that_match(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        other = await engine.established(TWO, SessionSpec(seed=5))
        with connected(tmp_path) as program:
            message = {"capability": "eth", "message": "Transactions", "raw": True}
            assert await program.result(program.asks("broadcast", b"\xc1\x01", **message)) == {"sent": 2, "refused": {}}
            left_out = program.asks("broadcast", b"\xc1\x02", **message, **{"except": [ONE, 99]})
            assert await program.result(left_out) == {"sent": 1, "refused": {}}
            nobody = program.asks("broadcast", b"\xc1\x03", **message, worker=0)
            assert await program.result(nobody) == {"sent": 0, "refused": {}}
        for reached, payloads in ((peer, [b"\xc1\x01"]), (other, [b"\xc1\x01", b"\xc1\x02"])):
            assert [event.payload for event in await received(reached, len(payloads))] == payloads


async def test_a_broadcast_names_the_sessions_that_could_not_get_it(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        with connected(tmp_path) as program:
            refused = program.asks("broadcast", b"\xc0", capability="les", message=2)
            assert await program.result(refused) == {"sent": 0, "refused": {str(ONE): "not_shared"}}


async def test_a_broadcast_larger_than_allowed_is_refused_at_once(tmp_path: Path) -> None:
    async with hosted(tmp_path, broadcast_bytes=1024) as engine:
        await engine.established(ONE)
        with connected(tmp_path) as program:
            call = program.asks("broadcast", bytes(1025), capability="eth", message=2)
            text = "1025 bytes for all sessions, 1024 are allowed in one broadcast"
            assert await program.error(call) == ("queue_full", text)


async def test_a_disconnect_ends_the_session_as_one_of_the_engines_does(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            call = program.asks("disconnect", session=ONE, reason="too_many_peers")
            assert await program.result(call) == {"sessions": 1}
            closed = await engine.until(SessionClosed)
            assert (closed.session, closed.ended_by, closed.reason) == (ONE, EndedBy.US, DisconnectReason.TOO_MANY_PEERS)
            assert closed.cause == "disconnected by command"
            assert (await program.error(program.asks("disconnect", session=ONE)))[0] == "no_such_session"
        assert (await peer.until_closed()).reason is DisconnectReason.TOO_MANY_PEERS


async def test_a_request_has_the_time_that_its_caller_gives_it(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            call = program.asks("request", QUESTION, **ASKED, timeout_s=0.05)
            text = "no answer within 0.05 s, by way of worker 3"
            assert await program.error(call) == ("timed_out", text)
            # The late answer is for nobody, and no misconduct.
            [request_id] = await requests(peer, 1)
            answer(peer, request_id)
            assert await program.result(program.asks("send", b"\xc0", **TO_ONE, message=2)) == {"sessions": 1}
            assert program.replies == []


async def test_a_call_that_is_cancelled_has_an_error_as_its_one_reply(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program, connected(tmp_path) as other:
            call, kept = (program.asks("request", QUESTION, **ASKED) for _ in range(2))
            first, second = await requests(peer, 2)
            # Ids that are unknown, another program's, or over already, cancel nothing.
            for request_id in (99, "x", None, call):
                other.cancels(request_id)
            await other.error(other.asks("disconnect", session=9))
            program.cancels(call)
            program.cancels(call)
            assert await program.error(call) == ("cancelled", "cancelled by its caller")
            answer(peer, first)
            answer(peer, second)
            assert (await program.reply(kept))[1] == encoded([77, []])
            assert program.replies == []


async def test_the_requests_of_a_program_that_leaves_are_cancelled(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            # As many as a session may have in flight.
            for _ in range(256):
                program.asks("request", QUESTION, **ASKED)
            await requests(peer, 256)
            assert (await program.error(program.asks("request", QUESTION, **ASKED)))[0] == "queue_full"
        with connected(tmp_path) as program:
            async with asyncio.timeout(30):
                while True:
                    call = program.asks("request", QUESTION, **ASKED)
                    ids = await requests(peer, 257) if not await _is_refused(program, call) else None
                    if ids:
                        break
            answer(peer, ids[-1])
            assert (await program.reply(call))[1] == encoded([77, []])


async def _is_refused(program: Program, call: int) -> bool:
    """Whether a call is refused at once."""
    await asyncio.sleep(0.05)
    return program.socket.poll(0) != 0 and (await program.error(call))[0] == "queue_full"


async def test_a_session_that_ends_ends_its_requests(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            asked = [program.asks("request", QUESTION, **ASKED) for _ in range(3)]
            await requests(peer, 3)
            peer.leave(QUITTING)
            for call in asked:
                assert (await program.error(call))[0] == "session_ended"
            assert program.replies == []


async def test_calls_in_progress_are_bounded_in_number_and_others_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_OPEN_CALLS", 2)
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            first, second, third = (program.asks("request", QUESTION, **ASKED) for _ in range(3))
            assert await program.error(third) == ("queue_full", "2 calls of this connection are in progress")
            # Messages, which are over at once, go on, and so do those of others.
            assert await program.result(program.asks("send", b"\xc0", **TO_ONE, message=2)) == {"sessions": 1}
            with connected(tmp_path) as other:
                others = other.asks("request", QUESTION, **ASKED)
                for request_id in (await requests(peer, 3))[:2]:
                    answer(peer, request_id)
                await program.reply(first)
                await program.reply(second)
                answer(peer, (await requests(peer, 3))[-1])
                assert (await other.reply(others))[1] == encoded([77, []])


async def test_calls_in_progress_are_bounded_in_bytes_alone_and_in_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_OPEN_BYTES", 4000)
    monkeypatch.setattr(calls, "MAX_OPEN_BYTES_OF_ALL", 7000)
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        with connected(tmp_path) as one, connected(tmp_path) as two, connected(tmp_path) as three:
            # Each holds 1,024 bytes: three fit into 4,000, and six into 7,000.
            for program in (one, two):
                for _ in range(3):
                    program.asks("request", QUESTION, **ASKED)
                await program.error(program.asks("disconnect", session=9))
            text = "3072 bytes of calls of this connection are in progress, 6144 of all"
            assert await one.error(one.asks("request", QUESTION, **ASKED)) == ("queue_full", text)
            text = "0 bytes of calls of this connection are in progress, 6144 of all"
            assert await three.error(three.asks("request", QUESTION, **ASKED)) == ("queue_full", text)
        with connected(tmp_path) as program:
            large = program.asks("broadcast", bytes(4000), capability="eth", message=2)
            assert (await program.error(large))[0] == "queue_full"


async def test_a_program_that_reads_nothing_is_not_read_and_loses_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "UNREAD_BYTES", 100_000)
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path, receives=1) as program:
            asked = [program.asks("disconnect", session=10_000_000 + number) for number in range(20_000)]
            await peer.ping()
            with connected(tmp_path) as other:
                assert (await other.error(other.asks("disconnect", session=9)))[0] == "no_such_session"
            assert [(await program.hears())[0]["id"] for _ in asked] == asked


async def test_an_answer_without_room_becomes_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.workers.data_endpoint.QUEUE_BYTES", 1 << 20)
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            asked = [program.asks("request", QUESTION, **ASKED) for _ in range(8)]
            for request_id in await requests(peer, 8):
                answer(peer, request_id, os.urandom(1 << 20))
            await asyncio.sleep(0.5)
            outcomes = [await program.reply(call) for call in asked]
            answered = [payload for _, payload in outcomes if payload is not None]
            refused = [reply["error"]["data"]["name"] for reply, payload in outcomes if payload is None]
            assert len(answered) + len(refused) == 8
            assert set(refused) == {"queue_full"}
            assert len(answered) >= 1


async def test_broadcasts_of_several_programs_take_turns_and_a_cancelled_one_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BROADCAST_SLICE_BYTES", 1)
    async with hosted(tmp_path) as engine:
        peers = [await engine.established(ONE), await engine.established(TWO, SessionSpec(seed=5))]
        with connected(tmp_path) as one, connected(tmp_path) as two:
            message = {"capability": "eth", "message": "Transactions", "raw": True}
            await one.error(one.asks("disconnect", session=9))
            await two.error(two.asks("disconnect", session=9))
            asked = [one.asks("broadcast", bytes((0xC1, number)), **message) for number in range(1, 6)]
            one.cancels(asked[-1])
            late = two.asks("broadcast", b"\xc1\x09", **message)
            assert await two.result(late) == {"sent": 2, "refused": {}}
            assert await one.error(asked[-1]) == ("cancelled", "cancelled by its caller")
            for call in asked[:-1]:
                assert await one.result(call) == {"sent": 2, "refused": {}}
            for peer in peers:
                got = [event.payload[1] for event in await received(peer, 5)]
                assert sorted(got) == [1, 2, 3, 4, 9]
                assert [number for number in got if number != 9] == [1, 2, 3, 4]


async def test_a_head_that_is_too_long_to_be_read_is_refused_unread(tmp_path: Path) -> None:
    async with hosted(tmp_path):
        with connected(tmp_path) as program:
            program.says(
                {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "send",
                    "params": {**TO_ONE, "message": 2, "payload": "0x" + "00" * 200_000},
                }
            )
            reply, _ = await program.hears()
            assert reply["error"].startswith("a head of ")
            assert "262144 are allowed" in reply["error"]
            # With ten megabytes as the second frame it is only a session that is not there.
            call = program.asks("send", bytes(10_000_000), **TO_ONE, message=2)
            assert (await program.error(call))[0] == "no_such_session"
