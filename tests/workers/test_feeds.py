"""Feeds of a worker: opened at one place in the order of events, fed, bounded, and ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import DisconnectSession, SessionId
from rlpx.protocol.errors import DisconnectReason
from rlpx.workers import feeds
from rlpx.workers.budget import Budget
from tests.pair import encoded
from tests.workers.hosted import DRAIN, ONE, QUITTING, TRANSACTIONS, TWO, FakeEngine, hosted
from tests.workers.program import Program, connected

PLENTY = 1 << 30


async def opened(program: Program, number: int, *topics: str, **more: Any) -> dict[str, Any]:
    """The confirmation of a feed."""
    program.says({"feed": number, "topics": topics, "credit": PLENTY, **more})
    head, _ = await program.hears()
    return head


async def events(program: Program, count: int) -> list[dict[str, Any]]:
    """The next events of the only feed."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        head, _ = await program.hears()
        assert head["first"] == 0 or found
        found += head["events"]
    return found


async def told(engine: FakeEngine, **expected: int) -> None:
    """Wait for a report of the worker with these figures. One that was made before it read everything has others."""
    while True:
        engine.reports.clear()
        feeds = (await engine.until(control.Pulse)).feeds
        if {name: getattr(feeds, name) for name in expected} == expected:
            return


async def test_a_feed_begins_with_the_sessions_and_goes_on_with_their_events(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program:
            head = await opened(program, 7, "", snapshot=True)
            assert (head["feed"], head["run"], head["worker"]) == (7, "run", 3)
            [session] = head["sessions"]
            assert (session["session"], session["phase"], session["client"]) == (ONE, "active", "tests/1")
            peer.send("eth", TRANSACTIONS, encoded([b"\x02x"]))
            head, body = await program.hears()
            [event] = head["events"]
            assert (head["first"], head["dropped"]) == (0, 0)
            assert (event["topic"], event["session"], event["size"]) == ("eth.Transactions", ONE, len(body or b""))
            assert body == encoded([b"\x02x"])
            engine.command(DisconnectSession(ONE, QUITTING, "by command"))
            head, body = await program.hears()
            assert (head["first"], [event["topic"] for event in head["events"]], body) == (1, ["session.closed"], b"")


async def test_all_stages_of_a_session_have_one_order_with_its_messages(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with connected(tmp_path) as program:
            await opened(program, 1, "session.", "tap.eth.Status", "peer.", "eth.")
            peer = await engine.established(ONE)
            peer.send("eth", TRANSACTIONS, encoded([b"\x02x"]))
            peer.send("eth", 4, encoded([99, []]))
            topics = [event["topic"] for event in await events(program, 7)]
        assert sorted(topics[:4]) == ["session.authenticated", "session.established", "session.opened", "tap.eth.Status"]
        assert topics[0] == "session.opened"
        assert topics[4:] == ["eth.Transactions", "eth.BlockHeaders", "peer.bad_message"]


async def test_messages_of_sessions_that_do_not_match_are_not_even_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path) as engine:
        one, two = await engine.established(ONE), await engine.established(TWO)
        published: list[str] = []

        def built(start: str, *_: Any) -> str:
            published.append(start)
            return '{"size":3}'

        monkeypatch.setattr("rlpx.workers.messages.message_json", built)
        with connected(tmp_path) as program:
            await opened(program, 1, "eth.", where={"session": [TWO]})
            await opened(program, 2, "eth.", where={"session": [TWO], "types": [3]})
            for peer in (one, two, one, two):
                peer.send("eth", TRANSACTIONS, encoded([b"\x02x"]))
            await events(program, 2)
            assert len(published) == 2
            # A third feed wants all of them.
            await opened(program, 3, "eth.")
            one.send("eth", TRANSACTIONS, encoded([b"\x02x"]))
            head, _ = await program.hears()
            assert head["feed"] == 3


async def test_openings_take_turns_and_a_program_that_reads_nothing_waits_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "OPENING_SECONDS", 0.0)
    # The length of a program's queue that stops more openings, so that the second one waits.
    monkeypatch.setattr(feeds, "HIGH_WATER_BYTES", -1)
    monkeypatch.setattr("rlpx.workers.worker.PULSE_SECONDS", 0.01)
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        with connected(tmp_path) as program:
            for number in (1, 2, 3):
                program.says({"feed": number, "topics": ["session."], "snapshot": True})
            program.says({"feed": 2, "close": True})
            head, _ = await program.hears()
            assert head == {"feed": 2, "closed": "closed by its program", "first": 0, "dropped": 0}
            await told(engine, open=2)
            monkeypatch.setattr(feeds, "HIGH_WATER_BYTES", 1 << 16)
            assert [(await program.hears())[0]["feed"] for _ in range(2)] == [1, 3]


async def test_a_long_snapshot_is_written_in_turns_and_is_of_one_moment_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "OPENING_SECONDS", 0.0)
    monkeypatch.setattr("rlpx.workers.shown.SHOWN_AT_ONCE", 1)
    async with hosted(tmp_path) as engine:
        for number in range(1, 7):
            await engine.established(SessionId(number))
        with connected(tmp_path) as program:
            engine.command(DisconnectSession(ONE, QUITTING, "by command"))
            for number in (1, 2):
                program.says({"feed": number, "topics": ["session."], "credit": PLENTY, "snapshot": True})
            here: dict[int, set[int]] = {}
            while len(here) < 2 or any(1 in sessions for sessions in here.values()):
                head, _ = await program.hears()
                if "sessions" in head:
                    here[head["feed"]] = {item["session"] for item in head["sessions"]}
                for event in head.get("events", []):
                    here[head["feed"]].remove(event["session"])
            assert here == {1: {2, 3, 4, 5, 6}, 2: {2, 3, 4, 5, 6}}


async def test_a_snapshot_without_room_is_an_error_and_no_feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.workers.data_endpoint.QUEUE_BYTES", 600)
    monkeypatch.setattr("rlpx.workers.worker.PULSE_SECONDS", 0.01)
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        with connected(tmp_path) as program:
            # All three are written before the program can read any.
            for number in (1, 2, 3):
                program.says({"feed": number, "topics": ["session."], "where": {"client": "tests"}, "snapshot": True})
            heads = [(await program.hears())[0] for _ in range(3)]
            refused = [head for head in heads if "error" in head]
            for head in refused:
                assert head["error"]["name"] == "queue_full"
            await told(engine, open=3 - len(refused))


async def test_credit_that_comes_lets_what_waits_leave_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpx.workers.worker.PULSE_SECONDS", 0.01)
    async with hosted(tmp_path, feeds__queue_bytes=2048) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path) as program, connected(tmp_path) as other:
            program.says({"feed": 1, "topics": ["eth."]})
            await program.hears()
            await opened(other, 1, "eth.")
            for number in range(4):
                peer.send("eth", TRANSACTIONS, encoded([b"\x02" + bytes(1000)]))
                head, _ = await other.hears()
                assert head["first"] == number
            await told(engine, missed_events=3)
            program.says({"feed": 1, "credit": PLENTY})
            head, _ = await program.hears()
            assert (head["first"], len(head["events"])) == (0, 1)
            head, _ = await program.hears()
            assert (head["first"], head["dropped"], head["events"]) == (4, 3, [])
            program.says({"feed": 1, "close": True})
            head, _ = await program.hears()
            assert (head["first"], head["dropped"]) == (4, 3)


async def test_a_lossless_feed_holds_its_peers_and_lets_them_go_when_its_program_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlpx.workers.worker.PULSE_SECONDS", 0.01)
    async with hosted(tmp_path, feeds__queue_bytes=2048) as engine:
        one, two = await engine.established(ONE), await engine.established(TWO)
        with connected(tmp_path) as program:
            program.says({"feed": 1, "topics": ["eth."], "where": {"session": [ONE]}, "lossless": True})
            await program.hears()
            for peer in (one, two):
                for _ in range(3):
                    peer.send("eth", TRANSACTIONS, encoded([b"\x02" + bytes(1000)]))
            held = await engine.until_that(
                lambda report: isinstance(report, control.Pulse) and report.feeds.held_sessions > 0
            )
            [holding] = held.feeds.holding
            assert (holding.remote, holding.user, holding.feed, holding.sessions) == ("ipc", None, 1, 1)
            assert holding.queued_bytes > 2048
            await two.ping()
            # The other one may end while it is held.
            engine.command(DisconnectSession(ONE, QUITTING, "by command"))
            await engine.until_that(lambda report: isinstance(report, control.Pulse) and not report.feeds.held_sessions)
        await engine.until_that(lambda report: isinstance(report, control.Pulse) and not report.feeds.open)


@pytest.mark.parametrize("is_half", [True, False])
async def test_over_the_budget_the_fullest_lossless_feed_ends_unless_a_session_holds_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_half: bool
) -> None:
    monkeypatch.setattr("rlpx.workers.worker.Budget", lambda _: Budget(300_000))
    async with hosted(tmp_path, feeds__queue_bytes=1 << 20) as engine:
        small, large = await engine.established(ONE), await engine.established(TWO)
        with connected(tmp_path) as program:
            for number in (1, 2):
                program.says({"feed": number, "topics": ["eth."], "where": {"session": [ONE]}, "lossless": True})
                await program.hears()
            program.says({"feed": 2, "close": True})
            await program.hears()
            small.send("eth", TRANSACTIONS, encoded([b"\x02" + os.urandom(160_000 if is_half else 120_000)]))
            # Before that, the message is in progress, and its session has it.
            await engine.until_that(
                lambda report: isinstance(report, control.Pulse) and report.feeds.queued_bytes >= 120_000
            )
            large.session.send("eth", 4, encoded([7, os.urandom(200_000)]))
            frame = large.session.data_to_send()
            # All but its end.
            large.writer.write(frame[:-20])
            if is_half:
                head, _ = await program.hears()
                assert "bytes wait for its program, the most of all feeds when a worker's 300000 were used" in head["closed"]
                assert (head["first"], head["dropped"]) == (1, 1)
                large.writer.write(frame[-20:])
                await large.ping()
            else:
                closed = await engine.until(control.SessionClosed)
                assert (closed.session, closed.reason) == (TWO, DisconnectReason.TOO_MANY_PEERS)


async def test_a_worker_that_ends_says_so_last(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with connected(tmp_path) as program:
            await opened(program, 1, "session.")
            program.says({"feed": 2, "topics": ["session."]})
            await program.hears()
            await engine.established(ONE)
            engine.command(DRAIN)
            heard: list[dict[str, Any]] = []
            while sum("closed" in head for head in heard) < 2:
                heard.append((await program.hears())[0])
            [last] = [head for head in heard if head["feed"] == 1 and "closed" in head]
            topics = [event["topic"] for head in heard for event in head.get("events", [])]
            assert (last["closed"], last["first"], last["dropped"]) == ("the worker is ending", 4, 0)
            assert topics == ["session.opened", "session.authenticated", "session.established", "session.closed"]
            # The second one had no credit for any of them.
            [last] = [head for head in heard if head["feed"] == 2 and "closed" in head]
            assert (last["first"], last["dropped"]) == (4, 4)


async def test_mistakes_are_told_with_the_number_of_the_feed(tmp_path: Path) -> None:
    async with hosted(tmp_path, max_feeds=2, max_of_connection=1):
        with connected(tmp_path) as program, connected(tmp_path) as other:
            await opened(program, 1, "session.")
            await opened(other, 1, "session.")
            for head, told in (
                ({"feed": 1, "topics": ["eth."]}, "feed: feed 1 is open already in this connection"),
                ({"feed": 2, "topics": ["eth."]}, "1 feeds are open in this connection, which is the limit"),
                ({"feed": 2, "credit": 5}, "feed: no feed 2 is open in this connection"),
                ({"feed": 2, "topics": []}, "topics: expected a list of 1 to 64 items"),
            ):
                program.says(head)
                answer, _ = await program.hears()
                assert answer["feed"] == head["feed"]
                assert told in answer["error"]["message"]
        with connected(tmp_path) as program:
            assert "error" not in await opened(program, 1, "session.")


async def test_feeds_of_one_connection_take_turns_when_it_has_room_again(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        with connected(tmp_path, receives=1) as program, connected(tmp_path) as other:
            for number in (1, 2, 3):
                await opened(program, number, "eth.")
            await opened(other, 1, "eth.")
            for _ in range(40):
                peer.send("eth", TRANSACTIONS, encoded([b"\x02" + bytes(60_000)]))
                await other.hears()
            received = {1: 0, 2: 0, 3: 0}
            while min(received.values()) < 40:
                head, _ = await program.hears()
                assert head["first"] == received[head["feed"]]
                received[head["feed"]] += len(head["events"])
                assert max(received.values()) - min(received.values()) < 20
