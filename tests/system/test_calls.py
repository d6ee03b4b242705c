"""Programs that command at the workers: with real sessions, over TCP with keys, and against everything that can go wrong."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import pytest
import rlp as oracle

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError
from rlpx.protocol.session.events import Closed, MessageReceived
from tests.pair import DEV
from tests.system.data_program import DataProgram, NoAnswerError, data_program
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.test_users import folder, free_port, keys
from tests.system.threads import in_threads

GET_HEADERS, HEADERS = 3, 4
QUESTION = bytes(oracle.encode([77, [5, 1, 0, 0]]))
MANY = 10_000


def received(peer: Peer) -> list[MessageReceived]:
    return [event for event in peer.events if isinstance(event, MessageReceived)]


@contextmanager
def answering(peer: Peer, header: bytes = b"\x01") -> Iterator[None]:
    """A peer that answers every request for headers, in a thread of its own."""
    is_over = Event()

    def run() -> None:
        done = 0
        peer.socket.settimeout(0.1)
        while not is_over.is_set() and not peer.session.is_closed:
            try:
                peer.step()
            except TimeoutError:
                continue
            requests = [event for event in received(peer) if event.kind.id == GET_HEADERS]
            for request in requests[done:]:
                peer.session.send("eth", HEADERS, bytes(oracle.encode([request.request_id, [[header]]])))
            done = len(requests)
            peer.flush()

    with in_threads(run, is_over=is_over):
        yield


def test_the_four_commands_at_the_worker_that_has_the_session() -> None:
    with RunningEngine(workers=2) as engine:
        peers = [Peer(engine.address, engine.node_id, DEV).establish() for _ in range(4)]
        log = engine.log("session.")
        sessions = engine.call("sessions", phase="active")["sessions"]
        places = {worker["worker"]: worker["data_endpoints"] for worker in engine.call("status")["workers"]}
        assert {place["tcp"] for place in places.values()} == {None}
        by_id = {peer.node_id.hex(): peer for peer in peers}
        for item in sessions:
            to = {"session": item["session"], "capability": "eth"}
            with (
                data_program(places[item["worker"]]["ipc"]) as program,
                data_program(places[1 - item["worker"]]["ipc"]) as other,
            ):
                peer = by_id[item["peer"]]
                assert program.call("send", b"\xc0", **to, message="Transactions", raw=True) == ({"sessions": 1}, None)
                with answering(peer):
                    result, payload = program.call("request", QUESTION, **to, message="GetBlockHeaders")
                    assert (result, payload) == ({"message": "BlockHeaders"}, bytes(oracle.encode([77, [[b"\x01"]]])))
                    assert payload is not None
                    # The engine gives the same answer, in hex or in a frame.
                    in_hex = engine.call("request", **to, message=GET_HEADERS, payload="0x" + QUESTION.hex())
                    assert in_hex == {"message": "BlockHeaders", "payload": "0x" + payload.hex()}
                    in_frame = engine.client.call("request", attachment=QUESTION, binary=True, **to, message=GET_HEADERS)
                    assert in_frame == {"message": "BlockHeaders", "payload": payload}
                assert other.call("send", b"\xc0", **to, message=2)[0] == "no_such_session"
        by_worker = {worker: [item for item in sessions if item["worker"] == worker] for worker in (0, 1)}
        with data_program(places[0]["ipc"]) as program:
            first, *rest = by_worker[0]
            message = {"capability": "eth", "message": "Transactions", "raw": True, "except": [first["session"]]}
            assert program.call("broadcast", b"\xc1\x80", **message) == ({"sent": len(rest), "refused": {}}, None)
            everywhere = engine.client.call("broadcast", attachment=b"\xc1\x80", **message)
            assert everywhere == {"sent": 3, "refused": {}}
            # A session that a worker ends at a program's word has the same end as one that the engine ends.
            assert program.call("disconnect", session=first["session"], reason="useless_peer")[0] == {"sessions": 1}
            log.wait("session.closed", session=first["session"])
            second = by_worker[1][0]
            engine.call("disconnect", session=second["session"], reason="useless_peer")
            log.wait("session.closed", session=second["session"])
            ends = [log.of("session.closed", session=item["session"]) for item in (first, second)]
            assert [len(found) for found in ends] == [1, 1]
            told = [{name: found[0].fields[name] for name in ("ended_by", "reason", "cause", "stage")} for found in ends]
            assert (
                told[0]
                == told[1]
                == {"ended_by": "us", "reason": "useless_peer", "cause": "disconnected by command", "stage": "active"}
            )
            engine.comes_to(0, 0, 2, 0)
            assert {entry["session"] for entry in engine.call("history")} == {first["session"], second["session"]}
        for peer in peers:
            peer.close()


@pytest.mark.alone
def test_ten_thousand_calls_in_flight_are_each_answered_once_and_hurt_nobody() -> None:
    with (
        RunningEngine(workers=1) as engine,
        Peer(engine.address, engine.node_id, DEV) as peer,
        data_program(engine.run_dir) as program,
    ):
        peer.establish()
        with Peer(engine.address, engine.node_id, DEV) as other:
            other.establish()
            asked = [
                program.ask("request", QUESTION, session=1, capability="eth", message=GET_HEADERS, timeout_s=2)
                for _ in range(MANY)
            ]
            began = monotonic()
            assert engine.call("status")["workers"][0]["ready"]
            with answering(other), data_program(engine.run_dir) as friend:
                result, _ = friend.call("request", QUESTION, session=2, capability="eth", message=GET_HEADERS)
                assert result == {"message": "BlockHeaders"}
            assert monotonic() - began < 10
        replies = [program.hear()[0] for _ in range(MANY)]
        assert sorted(reply["id"] for reply in replies) == asked
        names = [reply["error"]["data"]["name"] for reply in replies]
        # A peer may be asked 256 things at a time, and nobody answers here. Some may come after the first ones have ended.
        assert set(names) == {"timed_out", "queue_full"}
        assert names.count("timed_out") >= 256
        eventually(lambda: engine.call("status")["workers"][0]["calls"] == 0, "no call is in progress")
        with answering(peer):
            assert program.call("request", QUESTION, session=1, capability="eth", message=GET_HEADERS)[1] is not None
        with pytest.raises(NoAnswerError):
            program.hear(0.2)


def test_calls_of_a_dying_program_are_cancelled() -> None:
    with RunningEngine(workers=1) as engine, Peer(engine.address, engine.node_id, DEV) as peer:
        peer.establish()
        for _ in range(3):
            # Each would fill the session if the one before had left its requests.
            with data_program(engine.run_dir) as program:
                for _ in range(256):
                    program.ask("request", QUESTION, session=1, capability="eth", message=GET_HEADERS)
                eventually(lambda: engine.call("status")["workers"][0]["calls"] == 256, "all are in progress")
            eventually(lambda: engine.call("status")["workers"][0]["calls"] == 0, "they are cancelled")
        with answering(peer), data_program(engine.run_dir) as program:
            # The late answers of the peer are no misconduct.
            assert program.call("request", QUESTION, session=1, capability="eth", message=GET_HEADERS)[1] is not None
        engine.comes_to(0, 0, 1, 0)


def test_a_worker_that_is_killed_answers_no_more_and_the_next_one_knows_no_call() -> None:
    with (
        RunningEngine(workers=1) as engine,
        Peer(engine.address, engine.node_id, DEV) as peer,
        data_program(engine.run_dir) as program,
    ):
        peer.establish()
        program.ask("request", QUESTION, session=1, capability="eth", message=GET_HEADERS)
        through_engine: list[EngineError] = []

        def ask_engine() -> None:
            with Client.of(engine.run_dir) as client, pytest.raises(EngineError) as caught:
                client.call("request", attachment=QUESTION, session=1, capability="eth", message=GET_HEADERS)
            through_engine.append(caught.value)

        thread = Thread(target=ask_engine)
        thread.start()
        sleep(0.5)
        log = engine.log("worker.")
        engine.workers()[0].send_signal(signal.SIGKILL)
        thread.join()
        assert [error.name for error in through_engine] == ["worker_lost"]
        log.wait("worker.started")
        # ZeroMQ connects again by itself. The call is gone with its worker, and so is the session.
        assert program.call("request", QUESTION, session=1, capability="eth", message=GET_HEADERS)[0] == "no_such_session"
        program.send({"jsonrpc": "2.0", "method": "cancel", "params": {"id": 1}})
        assert program.call("disconnect", session=1)[0] == "no_such_session"
        assert program.others == []


def test_a_session_that_ends_meanwhile_ends_its_calls() -> None:
    with (
        RunningEngine(workers=1) as engine,
        Peer(engine.address, engine.node_id, DEV) as peer,
        data_program(engine.run_dir) as program,
    ):
        peer.establish()
        asked = [program.ask("request", QUESTION, session=1, capability="eth", message=GET_HEADERS) for _ in range(3)]
        assert program.call("disconnect", session=1)[0] == {"sessions": 1}
        for call in asked:
            reply, _ = program.reply(call)
            assert reply["error"]["data"]["name"] == "session_ended"
        while not peer.session.is_closed:
            peer.step()
        assert any(isinstance(event, Closed) for event in peer.events)


def test_over_tcp_each_use_needs_its_right_and_a_key_can_be_taken_back() -> None:
    base = free_port()
    with folder() as at:
        for name, rights in (("reader", "events"), ("commander", "control"), ("both", "events,control")):
            keys(at, "new", name, "--rights", rights, "--out", str(at / name))
        flags = ["--data.endpoint", f"tcp://127.0.0.1:{base}", "--curve.keys-dir", str(at / "keys")]
        with RunningEngine(*flags, workers=2) as engine, Peer(engine.address, engine.node_id, DEV) as peer:
            peer.establish()
            places = [worker["data_endpoints"]["tcp"] for worker in engine.call("status")["workers"]]
            assert places == [f"tcp://127.0.0.1:{base}", f"tcp://127.0.0.1:{base + 1}"]
            [item] = engine.call("sessions")["sessions"]
            place = places[item["worker"]]
            to = {"session": item["session"], "capability": "eth", "message": 2, "raw": True}
            feed = {"feed": 1, "topics": ["session."], "snapshot": True}
            with data_program(place, at / "reader") as reader, data_program(place, at / "commander") as commander:
                reply, _ = reader.reply(reader.ask("send", b"\xc0", **to))
                assert reply["error"]["data"]["name"] == "refused"
                assert reply["error"]["message"] == "the key of reader does not have the right control"
                reader.send({"register": ["eth.GetBlockHeaders"], "credit": 1})
                assert reader.hear()[0] == {"error": "the key of reader does not have the right control"}
                reader.send(feed)
                assert [found["session"] for found in reader.hear()[0]["sessions"]] == [item["session"]]
                assert commander.call("send", b"\xc0", **to)[0] == {"sessions": 1}
                commander.send(feed)
                refusal = commander.hear()[0]
                assert (refusal["feed"], refusal["error"]["name"]) == (1, "refused")
                # A key that is new is let in within a second, and one that is removed is out.
                keys(at, "remove", "commander")
                eventually(lambda: is_out(commander, to), "the key is out")
            with data_program(place, at / "both") as both:
                both.send(feed)
                assert "sessions" in both.hear()[0]
                assert both.call("send", b"\xc0", **to)[0] == {"sessions": 1}
                # A right that is gone takes its connections with it; with the other one the program may come again.
                (at / "keys" / "both.key").write_text((at / "keys" / "both.key").read_text().replace('"control"', ""))
                eventually(lambda: is_out(both, to), "the right is gone")
            # The port outlives the worker.
            log = engine.log("worker.")
            engine.workers()[item["worker"]].send_signal(signal.SIGKILL)
            with data_program(place, at / "reader") as reader:
                reader.send(feed)
                assert reader.hear()[0]["sessions"] == []
            log.wait("worker.started")


def is_out(program: DataProgram, to: dict[str, Any]) -> bool:
    """Whether a call is refused, or has no answer any more."""
    call = program.ask("send", b"\xc0", **to)
    try:
        reply, _ = program.reply(call, seconds=0.5)
    except NoAnswerError:
        return True
    return "error" in reply


def test_a_port_that_is_taken_is_one_line_before_anything_runs() -> None:
    base = free_port()
    with socket.create_server(("127.0.0.1", base + 1)):
        flags = ["--data.endpoint", f"tcp://127.0.0.1:{base}", "--curve.insecure", "true"]
        with pytest.raises(AssertionError) as caught, RunningEngine(*flags, workers=2):
            pass
        assert f"rlpx-engine: data.endpoint: tcp://127.0.0.1:{base + 1}: " in str(caught.value)
        assert "Traceback" not in str(caught.value)


def test_a_worker_that_replaces_another_has_the_next_port_and_status_tells_it() -> None:
    base = free_port()
    flags = ["--data.endpoint", f"tcp://127.0.0.1:{base}", "--curve.insecure", "true"]
    with RunningEngine(*flags, workers=1) as engine:
        for place in (f"tcp://127.0.0.1:{base}", f"tcp://127.0.0.1:{base + 1}"):
            [worker] = eventually(lambda: alone(engine), "there is one worker")
            assert worker["data_endpoints"]["tcp"] == place
            with data_program(place) as program:
                assert program.call("disconnect", session=9)[0] == "no_such_session"
            engine.call("restart-workers", wait=True)
        # The port of the one that left is closed, or is that of its successor by now.
        [worker] = eventually(lambda: alone(engine), "there is one worker")
        assert worker["data_endpoints"]["tcp"] == f"tcp://127.0.0.1:{base}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", base + 1))


def alone(engine: RunningEngine) -> list[dict[str, Any]] | None:
    """The workers, if there is only one."""
    workers: list[dict[str, Any]] = engine.call("status")["workers"]
    return workers if len(workers) == 1 and workers[0]["ready"] else None
