"""The event of an end reports what the peer sent or did; raw peers over TCP try this at every stage."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import rlp as oracle

from rlpx.engine.client.presence import EngineError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.p2p import deflate
from tests.system.harness import RunningEngine, eventually, working_folder
from tests.system.peers import Peer
from tests.system.raw import DISCONNECT, RawConnection, listening

CHAIN = load_chain("dev")
HASH = b"\x0a" * 32


def raw(engine: RunningEngine, source: str = "127.0.0.1") -> RawConnection:
    """A raw peer that has connected."""
    return RawConnection.to(engine.address, engine.node_id, CHAIN, source)


GOODBYES = [
    # The stage, the bytes after the code, the reason in the event, and its cause.
    (Stage.HELLO, b"\xc1\x04", "too_many_peers", "the peer said goodbye"),
    (Stage.HELLO, deflate(b"\xc1\x04"), "too_many_peers", "the peer said goodbye"),
    (Stage.HELLO, b"\x04", "too_many_peers", "the peer said goodbye"),
    (Stage.STATUS, deflate(b"\xc2\xc1\x04"), "too_many_peers", "the peer said goodbye"),
    (Stage.ACTIVE, deflate(b"\xc1\x04\x00"), "too_many_peers", "the peer said goodbye"),
    (Stage.ACTIVE, deflate(oracle.encode([4, b"come back later"])), "too_many_peers", "goodbye: come back later"),
    (Stage.ACTIVE, b"\xc1\x03", "useless_peer", "the peer said goodbye"),
    (Stage.ACTIVE, deflate(b"\xc1\x11"), "unknown_0x11", "the peer left with reason 0x11, which is unknown"),
    (Stage.ACTIVE, deflate(b"\x82\x00\x04"), "too_many_peers", "the peer said goodbye"),
    (Stage.ACTIVE, deflate(b"\xc0"), None, "the peer left without a reason"),
    (Stage.ACTIVE, deflate(b"\xc1"), None, "the peer left with a Disconnect that cannot be read: 0xc1"),
]


def test_the_goodbye_of_a_peer_is_told_as_it_was_said() -> None:
    with RunningEngine(workers=1) as engine:
        log = engine.log("session.")
        for number, (stage, body, reason, cause) in enumerate(GOODBYES):
            with raw(engine) as peer:
                peer.reaches(stage).says(DISCONNECT, body, is_snappy=False)
                closed = log.wait("session.closed", count=number + 1).fields
                assert (closed["ended_by"], closed["reason"]) == ("peer", reason), (stage, body)
                assert closed["cause"].endswith(cause)
        assert {entry["reason"] for entry in engine.call("history")} == {reason for _, _, reason, _ in GOODBYES}


CAUSES: list[tuple[Stage, bytes | tuple[int, bytes], str]] = [
    (Stage.AUTH, b"GET / HTTP/1.1\r\n\r\n", "HTTP in place of a handshake packet"),
    (Stage.AUTH, b"\x16\x03\x01\x02\x00\x01", "TLS in place of a handshake packet"),
    (Stage.AUTH, b"\x04" + bytes([7]) * 306, "a handshake packet in the form before EIP-8"),
    (Stage.ACTIVE, (0x13, b"\x83abc"), "GetBlockHeaders: a string where a list belongs"),
    # Nobody serves this request, and it has the form of another version.
    (Stage.ACTIVE, (0x1F, oracle.encode([1, 0, [HASH]])), "GetReceipts.hashes: a string where a list belongs"),
    (
        Stage.ACTIVE,
        (0x13, oracle.encode([1, [HASH, [], 0, 0]])),
        "GetBlockHeaders.query.limit: a list where a string belongs",
    ),
]


def test_the_cause_of_an_end_names_what_was_wrong() -> None:
    with RunningEngine(workers=1) as engine:
        log = engine.log("session.closed")
        for number, (stage, said, cause) in enumerate(CAUSES):
            with raw(engine) as peer:
                peer.reaches(stage)
                if isinstance(said, bytes):
                    peer.gives(said)
                else:
                    peer.says(*said)
                assert log.wait("session.closed", count=number + 1).fields["cause"].startswith(cause)
                assert peer.goodbye() == (2 if stage is Stage.ACTIVE else None)


def test_a_listener_with_another_id_is_told_of_as_such() -> None:
    with RunningEngine(workers=1) as engine, listening() as (server, _, enode):
        log = engine.log("session.closed")
        engine.call("dial", enode=enode)
        server.accept()[0].close()
        cause = log.wait("session.closed").fields["cause"]
        assert "before it sent a byte: it may have another id than the one dialled" in cause


def test_a_burst_of_pings_is_answered_and_any_payload_and_reserved_code_is_borne() -> None:
    with RunningEngine(workers=1) as engine, raw(engine) as peer:
        peer.reaches(Stage.ACTIVE)
        for payload in (b"", b"\xc0", b"\x80", b"hello"):
            peer.says(0x02, payload)
        for code in range(0x04, 0x10):
            peer.says(code, b"\x01\x02\x03", is_snappy=False)
        for _ in range(14):
            peer.says(0x02)
        # 16 pings are answered at once, and the two others a second apart.
        peer.hears(0x03, count=18)
        engine.comes_to(0, 0, 1, 0)


def test_what_peers_punish_is_not_sent_unless_it_is_raw() -> None:
    with RunningEngine(chain="sepolia", workers=1) as one, RunningEngine(chain="sepolia", workers=1) as other:
        session = one.call("dial", enode=other.enode, wait=True)["session"]
        for message, payload, words in (
            ("Status", "0xc0", "a second one ends the session"),
            ("NewBlockHashes", "0xc0", "proof of stake"),
            ("Transactions", "0xc105", r"Transactions.transactions\[0\]: "),
            ("GetReceipts", "0x" + oracle.encode([1, [HASH]]).hex(), "GetReceipts.first_index: "),
        ):
            for command in ("send", "broadcast"):
                target = {"session": session} if command == "send" else {}
                with pytest.raises(EngineError, match=words) as caught:
                    one.call(command, capability="eth", message=message, payload=payload, **target)
                assert caught.value.name == "invalid_params"
        log = other.log("session.closed")
        one.call("send", session=session, capability="eth", message="Transactions", payload="0xc105", raw=True)
        one.call("send", session=session, capability="eth", message="NewBlockHashes", payload="0xc0", raw=True)
        assert "proof of stake" in log.wait("session.closed").fields["cause"]


def written(folder: Path, deny: str) -> None:
    """The settings of an engine whose deny list is this one."""
    (folder / "engine.toml").write_text(f'[access]\ndeny_cidrs = ["{deny}"]\n')


def test_a_deny_list_that_is_read_again_ends_what_it_names() -> None:
    with working_folder() as folder, ExitStack() as stack:
        written(folder, "192.0.2.0/24")
        engine = stack.enter_context(RunningEngine("--conf", str(folder / "engine.toml"), workers=2))
        log = engine.log("session.closed")
        stays = stack.enter_context(Peer(engine.address, engine.node_id, CHAIN, "127.0.0.2")).establish()
        goes = stack.enter_context(raw(engine, "127.0.0.7"))
        pending = stack.enter_context(raw(engine, "127.0.0.8"))
        goes.reaches(Stage.ACTIVE)
        pending.reaches(Stage.STATUS)
        # A dial in progress as well, to a listener that never answers.
        server, _, enode = stack.enter_context(listening())
        dialled = engine.call("dial", enode=enode)["session"]
        stack.enter_context(server.accept()[0])
        eventually(lambda: engine.counts()[1] == 1 and engine.counts()[2] == 2, "all are there")
        written(folder, "::ffff:127.0.0.1/128")
        engine.process.send_signal(signal.SIGHUP)
        assert log.wait("session.closed", session=dialled).fields["cause"] == "the address is on the deny list"
        written(folder, "127.0.0.6/31")
        engine.process.send_signal(signal.SIGHUP)
        ended = log.wait("session.closed", peer=goes.node_id.hex()).fields
        assert (ended["reason"], ended["cause"]) == ("disconnect_requested", "the address is on the deny list")
        assert goes.goodbye() == 0
        written(folder, "127.0.0.8/32")
        engine.process.send_signal(signal.SIGHUP)
        assert log.wait("session.closed", peer=pending.node_id.hex()).fields["ended_by"] == "us"
        eventually(lambda: engine.counts() == (0, 0, 1, 0), "one is left")
        assert not stays.session.is_closed
