"""A real engine's answers and events are those that its documents declare."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest
import rlp as oracle

from rlpx.engine.client.presence import EngineError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.events import ESTABLISHED, LIFECYCLE, schema
from tests.pair import key
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

CHAIN = load_chain("dev")
TRANSACTIONS, BLOCK_HEADERS = 2, 4
NOBODY, NOBODY_ELSE = (f"enode://{key(number).id.hex()}@127.0.0.1:1" for number in (9, 10))
HASH = "0x" + "ab" * 32
# No answer for 120 s, and the very last event: other tests cover these.
UNSEEN = {"peer.breach", "engine.started", "engine.stopped"}


def results_of(engine: RunningEngine, session: int) -> set[str]:
    """Carry out every command but `shutdown` and check each answer; returns the commands that were answered."""
    calls: list[tuple[str, dict[str, Any]]] = [
        *(
            (name, {})
            for name in (
                "status",
                "metrics",
                "counts",
                "sessions",
                "snapshot",
                "peers",
                "subprotocols",
                "history",
                "discover",
            )
        ),
        ("discover", {}),
        ("session", {"session": session}),
        ("send", {"session": session, "capability": "eth", "message": "Transactions", "payload": "0xc0", "raw": True}),
        ("broadcast", {"capability": "eth", "message": "Transactions", "payload": "0xc0", "raw": True, "shared": "eth/69"}),
        ("set-status", {"number": 1, "hash": HASH}),
        ("peers-add", {"enode": NOBODY}),
        ("peers-remove", {"peer": key(9).id.hex()}),
        ("subprotocols-add", {"protocol": "wit/0/4"}),
        ("subprotocols-remove", {"protocol": "wit/0"}),
        ("set-limits", {"max_active_inbound": 5}),
        ("log-level", {"level": "info"}),
        ("dial", {"enode": NOBODY_ELSE}),
        ("ban", {"address": "203.0.113.7", "seconds": 1.0}),
        ("set-workers", {"workers": 1}),
    ]
    for name, parameters in calls:
        engine.call(name, **parameters)
    assert engine.call("discover", events=True) == schema()
    return {name for name, _ in calls}


def test_every_answer_and_every_event_is_as_it_is_declared() -> None:
    with RunningEngine(workers=1) as engine:
        log = engine.log("", "tap.")
        with Peer(engine.address, engine.node_id, CHAIN).establish() as peer:
            session = log.wait(ESTABLISHED).fields["session"]
            answered = results_of(engine, session)
            log.wait("dial.failed")
            peer.send(TRANSACTIONS, oracle.encode([[b""] * 9]))
            log.wait("eth.Transactions")
            log.wait("tap.eth.Transactions")
            peer.send(BLOCK_HEADERS, oracle.encode([7, []]))
            log.wait("peer.bad_message")
            with pytest.raises(EngineError, match="no answer"):
                engine.call(
                    "request",
                    session=session,
                    capability="eth",
                    message="GetBlockHeaders",
                    payload="0x" + oracle.encode([1, [1, 1, 0, 0]]).hex(),
                    timeout_s=0.5,
                )
            answered |= {"disconnect", "disconnect-all"}
            engine.call("disconnect", session=session)
            log.wait("session.closed", session=session)
        engine.call("disconnect-all")
        engine.call("ban", address="127.0.0.1", seconds=60.0)
        socket.create_connection(engine.address).close()
        log.wait("session.refused")
        engine.process.send_signal(signal.SIGHUP)
        log.wait("engine.reloaded")
        engine.workers()[0].kill()
        log.wait("worker.lost")
        log.wait("worker.started")
        eventually(lambda: engine.call("status")["workers"][0]["ready"], "the worker is replaced")
        engine.call("restart-workers", wait=True)
        answered.add("restart-workers")
        log.wait("worker.stopped")
        assert LIFECYCLE.keys() - {event.topic for event in log.events} == UNSEEN
        assert COMMANDS.keys() - answered == {"request", "shutdown"}
        engine.call("shutdown")
