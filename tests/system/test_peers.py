"""Static and trusted peers, bans and limits, as a user changes them while the engine runs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from rlpx.engine.client.presence import EngineError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer

CHAIN = load_chain("dev")
LISTENER = PrivateKey(b"\x22" * 32).id


def test_a_static_peer_of_the_configuration_is_dialled_and_one_by_command_too() -> None:
    with (
        RunningEngine(workers=1) as first,
        RunningEngine(workers=1) as second,
        RunningEngine("--peers.static", first.enode, workers=1) as engine,
    ):
        eventually(lambda: engine.counts() == (0, 0, 0, 1), "the configured one is connected")
        listed = engine.call("peers-add", enode=second.enode)["peers"]
        assert [(item["peer"], item["static"]) for item in listed] == [(first.enode, True), (second.enode, True)]
        eventually(lambda: engine.counts() == (0, 0, 0, 2), "the added one as well")
        engine.call("peers-remove", peer=second.node_id.hex())
        with pytest.raises(EngineError) as error:
            engine.call("peers-remove", peer=second.node_id.hex())
        assert error.value.name == "no_such_peer"


def test_of_a_static_peer_that_is_not_connected_it_is_said_why_and_when_it_is_tried_again() -> None:
    with (
        RunningEngine(chain="sepolia", workers=1) as other,
        RunningEngine("--peers.static", f"{other.enode},enode://{LISTENER.hex()}@127.0.0.1:9", workers=1) as engine,
    ):

        def ends() -> list[dict[str, Any]]:
            peers: list[dict[str, Any]] = engine.call("peers")["peers"]
            return peers if all(peer["last_end"] for peer in peers) else []

        stranger, nobody = eventually(ends, "both have been tried")
        assert 0 < stranger["next_try_s"] <= 36
        assert "no TCP connection: Connection refused" in nobody["last_end"]
        assert 0 < nobody["next_try_s"] <= 36
        # Naming the peer again asks for a dial now.
        log = engine.log("dial.failed")
        engine.call("peers-add", enode=nobody["peer"])
        assert log.wait("dial.failed").fields["enode"] == nobody["peer"]


def test_a_trusted_peer_passes_the_limit_that_stops_others() -> None:
    with RunningEngine(workers=1) as friend, RunningEngine("--limits.max-active-inbound", "0", workers=1) as engine:
        with pytest.raises(EngineError, match="too_many_peers"):
            friend.call("dial", enode=engine.enode, wait=True)
        engine.call("peers-add", enode=friend.enode, static=False, trusted=True)
        assert friend.call("dial", enode=engine.enode, wait=True)["established"]
        with RunningEngine(workers=1) as other, pytest.raises(EngineError, match="too_many_peers"):
            other.call("dial", enode=engine.enode, wait=True)
        engine.comes_to(0, 0, 1, 0)


def test_a_ban_ends_what_the_peer_has_and_keeps_it_out() -> None:
    with RunningEngine(workers=1) as peer, RunningEngine(workers=1) as engine:
        peer.call("dial", enode=engine.enode, wait=True)
        eventually(lambda: engine.counts() == (0, 0, 1, 0), "connected")
        assert engine.call("ban", peer=peer.node_id.hex(), seconds=60) == {"sessions": 1}
        eventually(lambda: engine.counts() == peer.counts() == (0, 0, 0, 0), "both know that it has ended")
        with pytest.raises(EngineError, match="disconnect_requested"):
            peer.call("dial", enode=engine.enode, wait=True)
        with pytest.raises(EngineError, match="banned"):
            engine.call("dial", enode=peer.enode)
        engine.call("ban", peer=peer.node_id.hex(), seconds=0)
        assert peer.call("dial", enode=engine.enode, wait=True)["established"]


def test_a_banned_address_is_refused_at_the_door() -> None:
    with RunningEngine(workers=1) as engine, ExitStack() as stack:
        log = engine.log("session.")
        stack.enter_context(Peer(engine.address, engine.node_id, CHAIN, "127.0.0.7")).establish()
        assert engine.call("ban", address="127.0.0.7")["sessions"] == 1
        stack.enter_context(Peer(engine.address, engine.node_id, CHAIN, "127.0.0.7"))
        assert log.wait("session.refused").fields["cause"] == "the address is banned"
        stack.enter_context(Peer(engine.address, engine.node_id, CHAIN, "127.0.0.8")).establish()
        assert [item["who"] for item in engine.call("peers")["bans"]] == ["127.0.0.7"]
        for wrong in ({}, {"address": "nowhere"}):
            with pytest.raises(EngineError, match="address"):
                engine.call("ban", **wrong)


def test_limits_change_while_running_and_stop_the_next_one() -> None:
    with RunningEngine(workers=1) as engine, ExitStack() as stack:
        stack.enter_context(Peer(engine.address, engine.node_id, CHAIN)).establish()
        eventually(lambda: engine.counts() == (0, 0, 1, 0), "connected")
        assert engine.call("set-limits", max_active_inbound=1)["limits"]["max_active_inbound"] == 1
        log = engine.log("session.")
        stack.enter_context(Peer(engine.address, engine.node_id, CHAIN))
        log.wait("session.refused", cause="1 inbound sessions are active")
        assert engine.counts()[2] == 1


def test_a_sub_protocol_of_the_users_carries_messages_both_ways() -> None:
    flags = ["--protocols.extra", "wit/0/4,aaa/2/3", "--protocols.required", "wit"]
    with RunningEngine(*flags, workers=1) as first, RunningEngine(*flags, workers=1) as second:
        log = second.log("wit.", "aaa.", "eth.")
        dialled = first.call("dial", enode=second.enode, wait=True)
        assert dialled["established"]["shared"] == ["aaa/2", "eth/72", "wit/0"]
        for capability, message, payload in (("wit", 3, "0xc105"), ("aaa", "0", "0xc0"), ("eth", "Transactions", "0xc0")):
            first.call("send", session=dialled["session"], capability=capability, message=message, payload=payload)
        event = log.wait("wit.3")
        assert (event.payload, event.fields["version"]) == (b"\xc1\x05", 0)
        log.wait("aaa.0")
        log.wait("eth.Transactions")
        with RunningEngine(workers=1) as other, pytest.raises(EngineError, match="useless_peer"):
            other.call("dial", enode=second.enode, wait=True)


def test_sub_protocols_come_and_go_while_it_runs_and_a_replaced_worker_knows_them() -> None:
    with RunningEngine(workers=1) as first, RunningEngine(workers=1) as second:
        for engine in (first, second):
            assert engine.call("subprotocols-add", protocol="wit/0/4/1024", required=True) == {
                "confirmed": [0],
                "missing": [],
            }
        second.workers()[0].kill()
        eventually(lambda: second.call("status")["workers"][0]["ready"] or None, "a replacement")
        log = second.log("wit.", "session.closed")
        dialled = first.call("dial", enode=second.enode, wait=True)
        assert dialled["established"]["shared"] == ["eth/72", "wit/0"]
        session = dialled["session"]
        first.call("send", session=session, capability="wit", message=3, payload="0x83" + "00" * 3)
        assert log.wait("wit.3").payload == b"\x83\0\0\0"
        # More bytes than the sub-protocol's messages may have.
        first.call("send", session=session, capability="wit", message=0, payload="0xb90800" + "00" * 2048)
        assert log.wait("session.closed").fields["reason"] == "protocol_breach"
        with RunningEngine(workers=1) as other, pytest.raises(EngineError, match="useless_peer"):
            other.call("dial", enode=second.enode, wait=True)
        assert second.call("subprotocols-remove", protocol="wit/0")["confirmed"] == [0]
        with RunningEngine(workers=1) as other:
            assert other.call("dial", enode=second.enode, wait=True)["established"]["shared"] == ["eth/72"]
        with pytest.raises(EngineError, match="not one of your own"):
            second.call("subprotocols-remove", protocol="wit/0")


def test_the_log_level_changes_while_it_runs() -> None:
    with RunningEngine("--access.deny-cidrs", "127.0.0.9/32", workers=1) as engine:
        denied = f"enode://{LISTENER.hex()}@127.0.0.9:30303"
        assert engine.call("log-level", level="debug") == {"level": "debug", "before": "info"}
        engine.call("peers-add", enode=denied)
        eventually(lambda: "a static peer was not dialled" in engine.stderr, "a line of the new level")
        with pytest.raises(EngineError, match="level"):
            engine.call("log-level", level="loud")
