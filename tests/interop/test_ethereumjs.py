"""`@ethereumjs/devp2p`'s own code as the peer, on eth/68: the other independent implementation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rlp as oracle

from rlpx.engine.client.presence import EngineError
from tests.interop.clients import ethereumjs, write_chain_file
from tests.system.harness import JsonProgram, RunningEngine, working_folder

GENESIS = "5e" * 32
NETWORK_ID = 4242
# ethereumjs computes its own fork hashes from these (EIP-2124), so that it checks ours.
FORK_BLOCKS = [10, 20]
FORK_TIMES = [1_700_000_000]
CHAIN = {
    "network_id": NETWORK_ID,
    "genesis": GENESIS,
    "genesis_time": 1_600_000_000,
    "fork_blocks": FORK_BLOCKS,
    "fork_times": FORK_TIMES,
}
TRANSACTIONS = bytes(oracle.encode([[b"\x01", b"\x02" * 40, b""]] * 2))
ANNOUNCEMENT = bytes(oracle.encode([b"\x02", [100], [b"\x0a" * 32]]))


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with working_folder() as folder:
        file = write_chain_file(CHAIN, folder / "interop.toml")
        with RunningEngine(chain=str(file)) as running:
            yield running


def peer(*flags: str, genesis: str = GENESIS, network_id: int = NETWORK_ID, times: str = "1700000000") -> JsonProgram:
    chain = ["--network-id", str(network_id), "--genesis", genesis, "--fork-blocks", "10,20", "--fork-times", times]
    return ethereumjs(*chain, *flags)


def test_it_dials_us_and_its_messages_arrive_byte_for_byte(engine: RunningEngine) -> None:
    log = engine.log("session.", "eth.")
    with peer("--dial", engine.enode) as other:
        assert other.wait("status", ok=True)["version"] == 68
        session = log.wait("session.established").fields["session"]
        shown = engine.call("session", session=session)
        assert shown["shared"] == ["eth/68"]
        assert shown["client"].startswith("ethereumjs-devp2p")
        other.do("send", code=2, payload=TRANSACTIONS.hex())
        other.do("send", code=8, payload=ANNOUNCEMENT.hex())
        assert log.wait("eth.Transactions").payload == TRANSACTIONS
        assert log.wait("eth.NewPooledTransactionHashes").payload == ANNOUNCEMENT
        engine.call("send", session=session, capability="eth", message=8, payload="0x" + ANNOUNCEMENT.hex())
        assert other.wait("message", code=8)["payload"] == ANNOUNCEMENT.hex()
        other.do("send", code=3, payload=bytes(oracle.encode([5, [1, 1, 0, 0]])).hex())
        assert other.wait("message", code=4)["payload"] == "c205c0"
        other.do("disconnect", reason=4)
        closed = log.wait("session.closed").fields
        # It writes the reason bare and never compressed.
        assert (closed["ended_by"], closed["reason"]) == ("peer", "too_many_peers")


def test_we_dial_it_and_it_reads_our_goodbye(engine: RunningEngine) -> None:
    with peer("--listen") as other:
        dialled = engine.call("dial", enode=other.wait("listening")["enode"], wait=True)
        other.wait("status", ok=True)
        engine.call("disconnect", session=dialled["session"], reason="useless_peer")
        assert other.wait("disconnected")["reason"] == 3


def test_it_stays_through_its_pings(engine: RunningEngine) -> None:
    log = engine.log("session.")
    with peer("--dial", engine.enode) as other:
        other.wait("status", ok=True)
        # It pings every 15 s and leaves if no pong comes.
        log.wait("session.established")
        log.read(17.0)
        assert not log.of("session.closed")


@pytest.mark.parametrize(
    ("genesis", "network_id", "times", "cause"),
    [
        ("aa" * 32, NETWORK_ID, "1700000000", "another genesis"),
        (GENESIS, 7, "1700000000", "another network, 7"),
        (GENESIS, NETWORK_ID, "1700000001", "fork id"),
    ],
)
def test_another_chain_is_refused(engine: RunningEngine, genesis: str, network_id: int, times: str, cause: str) -> None:
    with peer("--listen", genesis=genesis, network_id=network_id, times=times) as other:
        with pytest.raises(EngineError, match=f"{cause}|the peer said goodbye") as error:
            engine.call("dial", enode=other.wait("listening")["enode"], wait=True)
        assert "subprotocol_error" in str(error.value)


def test_shutting_down_tells_it_that_we_quit() -> None:
    with working_folder() as folder:
        file = write_chain_file(CHAIN, folder / "interop.toml")
        with RunningEngine(chain=str(file)) as engine, peer("--dial", engine.enode) as other:
            other.wait("status", ok=True)
            assert engine.stop() == 0
            assert other.wait("disconnected")["reason"] == 8
