"""go-ethereum's own p2p code as the peer, over loopback: sessions, messages, and how both sides see an end."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import rlp as oracle

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.interop.clients import geth
from tests.system.delayed import delayed
from tests.system.harness import EventLog, JsonProgram, RunningEngine, eventually


def encode(item: object) -> bytes:
    """RLP by the independent library."""
    return bytes(oracle.encode(item))


# Program and version: geth 1.17 speaks 69 to 72, an older release 68.
VERSIONS = [("geth68", 68), ("geth", 69), ("geth", 70), ("geth", 71), ("geth", 72)]
# The number of times that both dial each other.
CROSSINGS = 10
WAY_SECONDS = 0.04
HASHES = [bytes([value]) * 32 for value in (1, 2)]
TRANSACTION = encode(
    [b"\x09", b"\x04\xa8\x17\xc8\x08", b"R\x08", b"\x35" * 20, b"\x07", b"", b"\x25", b"\x11" * 32, b"\x22" * 32]
)


def announcement(version: int) -> bytes:
    """NewPooledTransactionHashes of two transactions in the form of the version."""
    fields: list[Any] = [b"\x02\x03", [100, 200], HASHES]
    return encode([*fields, bytes(16)] if version >= 72 else fields)


def established(engine: RunningEngine, log: EventLog, peer: JsonProgram) -> int:
    """The session of the peer's only connection, both sides having accepted the Status."""
    connected = peer.wait("status", ok=True)
    assert connected["remote"] == engine.node_id.hex()
    event = log.wait("session.established")
    return int(event.fields["session"])


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_geth_dials_us_and_its_messages_arrive_byte_for_byte(engine: RunningEngine, program: str, version: int) -> None:
    log = engine.log("session.", "eth.")
    transactions = encode([oracle.decode(TRANSACTION)] * 3)
    with geth("-eth", str(version), "-dial", engine.enode, program=program) as peer:
        session = established(engine, log, peer)
        shown = engine.call("session", session=session)
        assert shown["shared"] == [f"eth/{version}"]
        assert shown["direction"] == "inbound"
        assert shown["phase"] == "active"
        assert shown["client"].startswith("gethpeer")
        assert shown["peer"] == log.wait("session.authenticated").fields["peer"]

        for code, payload in ((2, transactions), (8, announcement(version))):
            peer.do("send", peer=0, protocol="eth", code=code, payload=payload.hex())
        arrived = log.wait("eth.Transactions")
        assert arrived.payload == transactions
        assert arrived.fields["version"] == version
        assert arrived.fields["size"] == len(transactions)
        assert log.wait("eth.NewPooledTransactionHashes").payload == announcement(version)

        engine.call("send", session=session, capability="eth", message="Transactions", payload="0x" + transactions.hex())
        seen = peer.wait("message", code=2)
        assert seen["payload"] == transactions.hex()
        assert seen["version"] == version
    closed = log.wait("session.closed")
    assert (closed.fields["ended_by"], closed.fields["reason"]) == ("peer", "client_quitting")
    assert log.gaps == []


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_we_dial_geth(engine: RunningEngine, program: str, version: int) -> None:
    log = engine.log("session.")
    with geth("-eth", str(version), "-listen", program=program) as peer:
        enode = peer.wait("listening")["enode"]
        dialled = engine.call("dial", enode=enode, wait=True)
        assert dialled["established"]["shared"] == [f"eth/{version}"]
        assert dialled["established"]["enode"] == enode
        peer.wait("status", ok=True, version=version)
        assert engine.call("disconnect", session=dialled["session"], reason="useless_peer") == {"sessions": 1}
        ended = peer.wait("disconnected")
        assert ended["reason"] == 3
        assert ended["by_remote"] is True
    closed = log.wait("session.closed").fields
    assert (closed["direction"], closed["ended_by"], closed["reason"]) == ("outbound", "us", "useless_peer")


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_geth_decodes_the_empty_answer_to_each_of_its_requests(engine: RunningEngine, program: str, version: int) -> None:
    log = engine.log("session.", "eth.Get")
    requests: dict[int, list[Any]] = {
        3: [7, [100, 5, 0, 0]],
        5: [8, HASHES],
        9: [9, HASHES],
        15: [10, 0, HASHES] if version >= 70 else [10, HASHES],
    }
    if version >= 71:
        requests[18] = [11, HASHES]
    if version >= 72:
        requests[20] = [12, HASHES, b"\x0f" * 16]
    with geth("-eth", str(version), "-dial", engine.enode, program=program) as peer:
        established(engine, log, peer)
        for code, request in requests.items():
            peer.do("send", peer=0, protocol="eth", code=code, payload=encode(request).hex())
            answer = peer.wait("message", code=code + 1)
            assert answer["decode"] == "ok"
            decoded = oracle.decode(bytes.fromhex(answer["payload"]))
            assert int.from_bytes(decoded[0], "big") == request[0]
        asked = log.wait("eth.GetBlockHeaders")
        assert asked.fields["request_id"] == 7
        assert not peer.of("disconnected")


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_geth_answers_what_we_ask(engine: RunningEngine, program: str, version: int) -> None:
    log = engine.log("session.")
    with geth("-answer-empty", "-eth", str(version), "-dial", engine.enode, program=program) as peer:
        session = established(engine, log, peer)
        for asked, name in ((3, "BlockHeaders"), (5, "BlockBodies"), (9, "PooledTransactions")):
            request = encode([0x1234, [100, 5, 0, 0] if asked == 3 else HASHES])
            answer = engine.call("request", session=session, capability="eth", message=asked, payload="0x" + request.hex())
            assert answer == {"message": name, "payload": "0x" + encode([0x1234, []]).hex()}
        # The ids on the wire are ours, and count up. The peer may print what it got after it has answered.
        peer.wait("message", count=3)
        ids = [oracle.decode(bytes.fromhex(event["payload"]))[0] for event in peer.of("message")]
        assert ids == [b"", b"\x01", b"\x02"]


def test_a_broadcast_reaches_every_peer_of_its_version_once(engine: RunningEngine) -> None:
    with (
        geth("-count", "5", "-eth", "69", "-dial", engine.enode) as newer,
        geth("-eth", "68", "-dial", engine.enode, program="geth68") as older,
    ):
        newer.wait("status", ok=True, count=5)
        older.wait("status", ok=True)
        eventually(lambda: engine.counts()[2] == 6, "all six")
        payload = announcement(69)
        told = {"capability": "eth", "message": "NewPooledTransactionHashes", "payload": "0x" + payload.hex()}
        assert engine.call("broadcast", shared="eth/69", **told) == {"sent": 5, "refused": {}}
        for index in range(5):
            assert newer.wait("message", peer=index)["payload"] == payload.hex()
        assert not older.of("message")
        assert engine.call("broadcast", **told)["sent"] == 6
        older.wait("message", code=8)
        refused = engine.call("broadcast", **(told | {"message": "BlockRangeUpdate", "raw": True}))
        assert (refused["sent"], list(refused["refused"].values())) == (5, ["not_shared"])


def test_what_geth_sends_unasked_is_told_and_the_fourth_time_ends_it(engine: RunningEngine) -> None:
    log = engine.log("session.", "peer.")
    with geth("-eth", "69", "-dial", engine.enode) as peer:
        established(engine, log, peer)
        peer.do("send", peer=0, protocol="eth", code=4, payload=encode([9, []]).hex(), repeat=4)
        assert log.wait("peer.bad_message", count=4).fields["count"] == 4
        closed = log.wait("session.closed").fields
        assert (closed["ended_by"], closed["reason"]) == ("us", "protocol_breach")
        assert peer.wait("disconnected")["reason"] == 2


def test_a_request_that_geth_does_not_answer_ends_with_its_session(engine: RunningEngine) -> None:
    log = engine.log("session.")
    with geth("-eth", "69", "-dial", engine.enode) as peer, ThreadPoolExecutor() as pool:
        session = established(engine, log, peer)
        request = "0x" + encode([1, HASHES]).hex()

        def ask() -> None:
            with Client.of(engine.run_dir) as client:
                client.call("request", session=session, capability="eth", message="GetBlockBodies", payload=request)

        asking = pool.submit(ask)
        peer.wait("message", code=5)
        peer.do("disconnect", peer=0, reason=4)
        with pytest.raises(EngineError) as error:
            asking.result(20)
        assert error.value.name == "session_ended"


@pytest.mark.parametrize("version", [1, 2])
def test_snap_beside_eth(engine: RunningEngine, version: int) -> None:
    log = engine.log("session.", "snap.")
    requests: dict[int, list[Any]] = {
        0: [5, HASHES[0], bytes(32), b"\xff" * 32, 1000],
        2: [6, HASHES[0], HASHES, b"", b"", 1000],
        4: [7, HASHES, 1000],
    }
    if version == 1:
        requests[6] = [8, HASHES[0], [[b"\x01"]], 1000]
    else:
        requests[8] = [9, HASHES, 1000]
    with geth("-eth", "69", "-snap", str(version), "-dial", engine.enode) as peer:
        session = established(engine, log, peer)
        assert engine.call("session", session=session)["shared"] == ["eth/69", f"snap/{version}"]
        peer.wait("snap", version=version)
        for code, request in requests.items():
            payload = encode(request)
            peer.do("send", peer=0, protocol="snap", code=code, payload=payload.hex())
            assert peer.wait("message", protocol="snap", code=code + 1)["decode"] == "ok"
        assert log.wait("snap.GetAccountRange").payload == encode(requests[0])


def test_the_status_we_announce_is_the_one_that_was_set(engine: RunningEngine) -> None:
    with geth("-eth", "69", "-dial", engine.enode) as peer:
        seen = peer.wait("status", ok=True)["range"]
        assert (seen["earliest"], seen["latest"], seen["hash"]) == (10, 4000, "ab" * 32)


def test_the_status_geth_announces_is_shown(engine: RunningEngine) -> None:
    log = engine.log("session.")
    with geth("-eth", "70", "-earliest", "3", "-latest", "777", "-dial", engine.enode) as peer:
        session = established(engine, log, peer)
        ours = peer.wait("chain")
        chain = engine.call("session", session=session)["chain"]
        assert (chain["earliest"], chain["latest"]) == (3, 777)
        assert chain["genesis"] == "0x" + ours["genesis"]
        assert chain["fork_hash"] == "0x" + ours["fork_hash"]
        update = encode([4, 900, b"\x77" * 32])
        peer.do("send", peer=0, protocol="eth", code=17, payload=update.hex())
        peer.do("send", peer=0, protocol="eth", code=3, payload=encode([1, [1, 1, 0, 0]]).hex())
        peer.wait("message", code=4)
        chain = engine.call("session", session=session)["chain"]
        assert (chain["earliest"], chain["latest"], chain["head"]) == (4, 900, "0x" + "77" * 32)


def test_pings_go_both_ways(engine: RunningEngine) -> None:
    log = engine.log("session.")
    with geth("-eth", "72", "-dial", engine.enode) as peer:
        session = established(engine, log, peer)
        # Ours every 0.5 s; geth's every 15 s: after 17 s it has had our pong to one, or it would soon hang up.
        sleep(17.0)
        log.read()
        assert log.of("session.closed", session=session) == []
        shown = engine.call("session", session=session)
        assert 0 < shown["rtt_ms"] < 5000
        assert shown["messages_in"] > 20


def wrong_status(chain: dict[str, Any], wrong: str) -> bytes:
    """An eth/69 Status of geth's chain with one thing wrong."""
    genesis, fork_hash = bytes.fromhex(chain["genesis"]), bytes.fromhex(chain["fork_hash"])
    network = chain["network_id"]
    if wrong == "network":
        network += 1
    elif wrong == "genesis":
        genesis = b"\x01" * 32
    else:
        fork_hash = b"\x02" * 4
    return encode([69, network, genesis, [fork_hash, 0], 0, 1, b"\x03" * 32])


@pytest.mark.parametrize(
    ("wrong", "cause"), [("network", "another network, 7332"), ("genesis", "another genesis"), ("fork", "fork id")]
)
def test_geth_sees_why_its_chain_is_refused(engine: RunningEngine, wrong: str, cause: str) -> None:
    log = engine.log("session.")
    with geth("-skip-status", "-eth", "69", "-dial", engine.enode) as peer:
        peer.wait("connected")
        status = wrong_status(peer.wait("chain"), wrong)
        peer.do("send", peer=0, protocol="eth", code=0, payload=status.hex())
        seen = peer.wait("disconnected")
        assert (seen["reason"], seen["by_remote"]) == (16, True)
        closed = log.wait("session.closed").fields
        assert (closed["ended_by"], closed["reason"], closed["stage"]) == ("us", "subprotocol_error", "status")
        assert cause in closed["cause"]


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("-network-id", "9"), "another network, 9"),
        (("-genesis-salt", "other"), "another genesis"),
        (("-fork-shift", "5000"), "fork id"),
    ],
)
def test_we_refuse_another_chain_that_we_dialled(engine: RunningEngine, flags: tuple[str, ...], cause: str) -> None:
    with geth(*flags, "-eth", "70", "-listen") as peer:
        with pytest.raises(EngineError, match=f"{cause}|the peer said goodbye") as error:
            engine.call("dial", enode=peer.wait("listening")["enode"], wait=True)
        assert error.value.name == "refused"
        assert "subprotocol_error" in str(error.value)


def test_no_shared_version_ends_as_useless(chain_file: Path) -> None:
    with (
        RunningEngine("--protocols.eth", "68", chain=str(chain_file)) as old,
        geth("-eth", "69", "-dial", old.enode) as peer,
    ):
        # geth refuses too, and either goodbye may be first.
        assert (peer.of("dial_error") or [peer.wait("dial_error")])[0]["reason"] == 3


def test_too_many_peers_is_what_geth_sees_over_the_limit(chain_file: Path) -> None:
    with RunningEngine("--limits.max-active-inbound", "1", chain=str(chain_file)) as engine:
        log = engine.log("session.")
        with geth("-dial", engine.enode) as first:
            first.wait("status", ok=True)
            with geth("-dial", engine.enode) as second:
                assert second.wait("dial_error")["reason"] == 4
            assert log.wait("session.refused").fields["cause"] == "1 inbound sessions are active"
            engine.comes_to(0, 0, 1, 0)
        log.wait("session.closed")
        with geth("-dial", engine.enode) as third:
            third.wait("status", ok=True)


def test_many_at_once_never_pass_the_limit(chain_file: Path) -> None:
    with (
        RunningEngine("--limits.max-active-inbound", "10", chain=str(chain_file)) as engine,
        geth("-count", "30", "-dial", engine.enode) as peers,
    ):
        peers.wait("status", ok=True, count=10)
        # Peers over the limit are told so, or closed if more than 15 goodbyes would be in progress.
        while len({item["peer"] for item in (*peers.of("dial_error"), *peers.of("disconnected"))}) < 20:
            assert engine.counts()[2] <= 10
        engine.comes_to(0, 0, 10, 0)
        assert any(item.get("reason") == 4 for item in (*peers.of("dial_error"), *peers.of("disconnected")))


def test_geth_sees_that_its_worker_leaves_and_comes_back_to_the_new_one(engine: RunningEngine) -> None:
    log = engine.log("session.", "worker.")
    with geth("-eth", "69", "-dial", engine.enode) as first:
        session = established(engine, log, first)
        old = engine.call("session", session=session)["worker"]
        assert engine.call("restart-workers", drain_s=0.5)["drain_s"] == 0.5
        assert log.wait("worker.leaving", worker=old).fields["sessions"] == 1
        seen = first.wait("disconnected")
        assert seen["reason"] == 8  # client_quitting
        assert log.wait("session.closed", session=session).fields["reason"] == "client_quitting"
        with geth("-eth", "69", "-dial", engine.enode) as second:
            second.wait("status", ok=True)
    eventually(lambda: not engine.call("status")["workforce"]["restarting"], "the restart has ended")
    assert engine.call("status")["workforce"]["lost"] == 0


def test_already_connected_is_what_the_second_of_one_identity_sees(engine: RunningEngine) -> None:
    log = engine.log("session.")
    key = secrets.token_bytes(32).hex()
    with geth("-key", key, "-eth", "69", "-dial", engine.enode) as first:
        session = established(engine, log, first)
        with geth("-key", key, "-eth", "69", "-dial", engine.enode) as second:
            closed = log.wait("session.closed", reason="already_connected").fields
            assert closed["ended_by"] == "us"
            assert f"session {session}" in closed["cause"]
            seen = [event for event in (*second.of("dial_error"), *second.of("disconnected")) if "reason" in event]
            assert (seen or [second.wait("disconnected")])[0]["reason"] == 5
        assert engine.call("session", session=session)["phase"] == "active"


def key_of(*, below: bool, node_id: bytes) -> str:
    """A key whose id is on one side of another id."""
    keys = (number.to_bytes(32, "big") for number in range(1, 1000))
    return next(key.hex() for key in keys if (PrivateKey(key).id < node_id) is below)


@pytest.mark.parametrize("below", [True, False])
def test_geth_and_we_dial_each_other_at_once_and_have_one_session(engine: RunningEngine, *, below: bool) -> None:
    """geth has no rule: the first one that it sees wins, whoever has the lower id."""
    key = key_of(below=below, node_id=engine.node_id)
    with geth("-key", key, "-eth", "69", "-listen") as peer, ThreadPoolExecutor() as pool, ExitStack() as stack:
        # With a delay, both dials are under way before either side sees the other's.
        ways = []
        for enode in (peer.wait("listening")["enode"], engine.enode):
            address, port = enode.rsplit(":", 1)
            far = stack.enter_context(delayed(("127.0.0.1", int(port)), WAY_SECONDS))
            ways.append(f"{address}:{far}")
        to_geth, to_us = ways

        def dial() -> None:
            with Client.of(engine.run_dir) as client, suppress(EngineError):
                client.call("dial", enode=to_geth, wait=True)

        for number in range(1, CROSSINGS + 1):
            dialled = pool.submit(dial)
            peer.do("dial", peer=0, enode=to_us)
            dialled.result()
            eventually(
                lambda: sum(engine.counts()) + engine.unauthenticated() == sum(engine.counts()[2:]) == 1,
                f"one active session in round {number}",
            )
            peer.wait("status", ok=True, count=number)
            engine.call("disconnect-all")
            eventually(lambda: sum(engine.counts()) == 0, "none is left")
            peer.wait("disconnected", count=number)
    crossed = [item for item in engine.call("history", limit=100) if item["reason"] == "already_connected"]
    assert len(crossed) >= CROSSINGS // 2


def test_a_peer_with_our_own_key_is_told_that_it_is_us(engine: RunningEngine) -> None:
    log = engine.log("session.")
    key = (engine.run_dir / "node.key").read_text().strip()
    assert PrivateKey(bytes.fromhex(key)).id == engine.node_id
    with geth("-key", key, "-eth", "69", "-dial", engine.enode) as peer:
        # geth learns it from our Hello and we from geth's. Either goodbye may be first; the reason is the same.
        log.wait("session.closed", reason="connected_to_self")
        seen = [event for event in (*peer.of("dial_error"), *peer.of("disconnected")) if "reason" in event]
        assert (seen or [peer.wait("dial_error")])[0]["reason"] == 10


def test_fifty_peers_spread_evenly_over_two_workers(engine: RunningEngine) -> None:
    log = engine.log("session.")
    with geth("-count", "50", "-dial", engine.enode) as peers:
        peers.wait("status", ok=True, count=50)
        log.wait("session.established", count=50)
        sessions = engine.call("sessions")
        assert sessions["total"] == 50
        assert len({item["peer"] for item in sessions["sessions"]}) == 50
        assert len({item["session"] for item in sessions["sessions"]}) == 50
        engine.comes_to(0, 0, 50, 0)
        per_worker = [worker["active"] for worker in engine.call("status")["workers"]]
        assert sum(per_worker) == 50
        assert max(per_worker) - min(per_worker) <= 2
    log.wait("session.closed", count=50)
    assert engine.counts() == (0, 0, 0, 0)
