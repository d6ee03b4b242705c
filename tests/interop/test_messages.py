"""Our encodings of every message go through our engine to go-ethereum's own decoder, and its empty answers through ours."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import rlp as oracle

from rlpx.protocol.eth import messages as eth
from rlpx.protocol.eth import snap_messages as snap
from rlpx.protocol.eth.chain import Block, BlockBody, BloomReceipt, Header, Log, Receipt, Withdrawal
from rlpx.protocol.eth.messages import EthMessage
from rlpx.protocol.eth.snap_messages import SnapMessage
from rlpx.protocol.eth.status import Status
from tests.interop.clients import geth, geth_chain
from tests.system.harness import EventLog, JsonProgram, RunningEngine

# Program and version: geth 1.17 speaks 69 to 72, an older release 68.
VERSIONS = [("geth68", 68), ("geth", 69), ("geth", 70), ("geth", 71), ("geth", 72)]
# geth has no handler for the gossip of blocks, so it does not decode it.
UNHANDLED = {eth.NewBlockHashes, eth.NewBlock}

HASHES = (b"\x01" * 32, b"\x02" * 32)
ADDRESS = b"\x35" * 20
MASK = b"\x03" + bytes(15)
SIGNATURE: list[Any] = [b"\x11" * 32, b"\x22" * 32]
ACCESS: list[Any] = [[ADDRESS, [HASHES[0]]]]


def typed(kind: int, fields: list[Any]) -> bytes:
    """A typed transaction as a message has it."""
    return bytes(oracle.encode(bytes([kind]) + oracle.encode(fields)))


TRANSACTIONS = (
    bytes(oracle.encode([9, 10**9, 21000, ADDRESS, 7, b"data", 37, *SIGNATURE])),
    # This transaction creates a contract.
    bytes(oracle.encode([10, 10**9, 90000, b"", 0, b"\x60\x00", 27, *SIGNATURE])),
    typed(1, [1, 9, 10**9, 21000, ADDRESS, 7, b"data", ACCESS, 1, *SIGNATURE]),
    typed(2, [1, 9, 1, 10**9, 21000, ADDRESS, 7, b"data", ACCESS, 0, *SIGNATURE]),
    typed(3, [1, 9, 1, 10**9, 21000, ADDRESS, 7, b"", [], 10, [b"\x01" + bytes(31)], 1, *SIGNATURE]),
)
# The older geth knows transactions of type 4 (EIP-7702), but not their receipts.
SET_CODE = typed(4, [1, 9, 1, 10**9, 90000, ADDRESS, 7, b"", [], [[1, ADDRESS, 3, 1, *SIGNATURE]], 1, *SIGNATURE])

FRONTIER = Header(
    parent_hash=HASHES[0],
    ommers_hash=HASHES[1],
    coinbase=ADDRESS,
    state_root=HASHES[0],
    transactions_root=HASHES[0],
    receipts_root=HASHES[0],
    bloom=b"\x0f" * 256,
    difficulty=2**70,
    number=5,
    gas_limit=30_000_000,
    gas_used=21000,
    time=1_700_000_000,
    extra_data=b"extra",
    mix_digest=HASHES[1],
    nonce=bytes(8),
)
LONDON = msgspec.structs.replace(FRONTIER, base_fee=10**9)
SHANGHAI = msgspec.structs.replace(LONDON, withdrawals_root=HASHES[1])
CANCUN = msgspec.structs.replace(SHANGHAI, blob_gas_used=131072, excess_blob_gas=0, parent_beacon_root=HASHES[1])
PRAGUE = msgspec.structs.replace(CANCUN, requests_hash=HASHES[1])
AMSTERDAM = msgspec.structs.replace(PRAGUE, block_access_list_hash=HASHES[1], slot_number=7)
WITHDRAWALS = (Withdrawal(1, 2, ADDRESS, 2**40), Withdrawal(2, 3, ADDRESS, 0))
LOGS = (Log(ADDRESS, HASHES, b"logged"), Log(ADDRESS, (), b""))
ACCESS_LIST = bytes(
    oracle.encode([[ADDRESS, [[b"\x01", [[1, b"\x05"]]]], [b"\x07"], [[1, 10**18]], [[1, 5]], [[2, b"\x60\x00"]]]])
)


def receipts() -> tuple[tuple[Receipt, ...], ...]:
    """A block of each kind of receipts, and one without any."""
    kinds = tuple(Receipt(kind, kind % 2 == 0, 21000 * (kind + 1), LOGS) for kind in range(5))
    return ((*kinds, Receipt(0, HASHES[0], 1, ())), ())


def bloom_receipts() -> tuple[tuple[BloomReceipt, ...], ...]:
    """The same with blooms."""
    return tuple(
        tuple(BloomReceipt(item.outcome, item.cumulative_gas, b"\x0f" * 256, item.logs, item.type) for item in block)
        for block in receipts()
    )


def headers(version: int) -> tuple[Header, ...]:
    """A header of each fork that the geth of this version knows."""
    known = (FRONTIER, LONDON, SHANGHAI, CANCUN, PRAGUE)
    return known if version < 69 else (*known, AMSTERDAM)


def eth_messages(version: int) -> list[EthMessage]:
    """One of every kind, with something in each field, and of some another that differs in form."""
    transactions = (*TRANSACTIONS, SET_CODE)
    bodies = (BlockBody(transactions, (FRONTIER, LONDON), WITHDRAWALS), BlockBody(TRANSACTIONS), BlockBody((), (), ()))
    announced = (bytes(range(2)), (100, 2**32 - 1), HASHES)
    found: list[EthMessage] = [
        eth.NewBlockHashes((eth.BlockHash(HASHES[0], 5),)),
        eth.Transactions(transactions),
        eth.GetBlockHeaders(1, eth.HeadersQuery(HASHES[0], 5, 2**64 - 1, reverse=True)),
        eth.GetBlockHeaders(2**64 - 1, eth.HeadersQuery(2**64 - 1, 2**64 - 1)),
        eth.BlockHeaders(2, headers(version)),
        eth.GetBlockBodies(3, HASHES),
        eth.BlockBodies(4, bodies),
        eth.NewBlock(Block(SHANGHAI, *msgspec.structs.astuple(bodies[0])), 2**70),
        eth.GetPooledTransactions(5, HASHES),
        eth.PooledTransactions(6, transactions),
    ]
    if version < 72:
        found.append(eth.NewPooledTransactionHashes68(*announced))
    else:
        found += [eth.NewPooledTransactionHashes72(*announced, MASK), eth.NewPooledTransactionHashes72(*announced)]
    found.append(eth.GetReceipts(7, HASHES) if version < 70 else eth.GetReceipts70(7, 55, HASHES))
    if version < 69:
        return [*found, eth.Receipts(8, bloom_receipts())]
    found.append(eth.Receipts69(8, receipts()) if version == 69 else eth.Receipts70(8, True, receipts()))
    found.append(eth.BlockRangeUpdate(590, 600, HASHES[0]))
    if version >= 71:
        found += [eth.GetBlockAccessLists(9, HASHES), eth.BlockAccessLists(10, (b"", b"\xc0", ACCESS_LIST))]
    if version >= 72:
        cells = tuple(bytes([value]) * eth.CELL_BYTES for value in range(4))
        found += [eth.GetCells(11, HASHES, MASK), eth.Cells(12, HASHES, (cells, cells[:2]), MASK)]
    return found


def snap_messages(version: int) -> list[SnapMessage]:
    """One of every kind, with something in each field."""
    accounts = (
        snap.AccountData(HASHES[0], snap.SlimAccount(5, 10**20, *HASHES)),
        snap.AccountData(HASHES[1], snap.SlimAccount(0, 0)),
    )
    slots = ((snap.StorageData(HASHES[0], b"\x83any"), snap.StorageData(HASHES[1], b"\x05")), ())
    both: list[SnapMessage] = [
        snap.GetAccountRange(1, HASHES[0], bytes(32), b"\xff" * 32, 2**20),
        snap.AccountRange(2, accounts, (b"\xc1\x01", b"node")),
        snap.GetStorageRanges(3, HASHES[0], HASHES, bytes(32), b"\xff" * 32, 2**20),
        snap.GetStorageRanges(3, HASHES[0], HASHES, b"", b"", 2**20),
        snap.StorageRanges(4, slots, (b"node",)),
        snap.GetByteCodes(5, HASHES, 2**20),
        snap.ByteCodes(6, (b"\x60\x00", b"")),
    ]
    if version == 1:
        paths = ((b"\x01\x02",), (HASHES[0], b"\x03", b"\x04"))
        return [*both, snap.GetTrieNodes(7, HASHES[0], paths, 2**20), snap.TrieNodes(8, (b"node", b"other"))]
    lists = (b"", b"\xc0", ACCESS_LIST)
    return [*both, snap.GetBlockAccessLists(9, HASHES, 2**20), snap.BlockAccessLists(10, lists)]


def established(log: EventLog, peer: JsonProgram) -> int:
    """The session of the peer's only connection."""
    peer.wait("status", ok=True)
    return int(log.wait("session.established").fields["session"])


def test_the_messages_here_are_of_every_kind() -> None:
    for _, version in VERSIONS:
        kinds = {type(message) for message in eth_messages(version)}
        assert kinds == {struct for struct in eth.MESSAGES[version].values() if struct is not Status}
    for version in (1, 2):
        assert {type(message) for message in snap_messages(version)} == set(snap.MESSAGES[version].values())


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_geth_decodes_every_eth_message_of_ours(engine: RunningEngine, program: str, version: int) -> None:
    log = engine.log("session.")
    with geth("-eth", str(version), "-dial", engine.enode, program=program) as peer:
        session = established(log, peer)
        for count, message in enumerate(eth_messages(version), start=1):
            number, payload = eth.id_of(version, message), eth.encode(version, message)
            engine.call("send", session=session, capability="eth", message=number, payload="0x" + payload.hex())
            seen = peer.wait("message", count=count, protocol="eth")
            assert (seen["code"], seen["payload"]) == (number, payload.hex())
            assert seen["decode"] == ("no handler" if type(message) in UNHANDLED else "ok"), message
            assert eth.decode(version, number, bytes.fromhex(seen["payload"])) == message
        status = bytes.fromhex(peer.of("status")[0]["payload"])
        assert eth.encode(version, eth.decode(version, 0, status)) == status
        assert not peer.of("disconnected")


@pytest.mark.parametrize("version", [1, 2])
def test_geth_decodes_every_snap_message_of_ours(engine: RunningEngine, version: int) -> None:
    log = engine.log("session.")
    with geth("-eth", "69", "-snap", str(version), "-dial", engine.enode) as peer:
        session = established(log, peer)
        for count, message in enumerate(snap_messages(version), start=1):
            number, payload = snap.id_of(version, message), snap.encode(version, message)
            engine.call("send", session=session, capability="snap", message=number, payload="0x" + payload.hex())
            seen = peer.wait("message", count=count, protocol="snap")
            assert (seen["code"], seen["payload"], seen["decode"]) == (number, payload.hex(), "ok"), message
        assert not peer.of("disconnected")


@pytest.mark.parametrize(("program", "version"), VERSIONS)
def test_we_decode_the_empty_answers_that_geth_encodes(engine: RunningEngine, program: str, version: int) -> None:
    log = engine.log("session.")
    missing = (b"",) * len(HASHES)
    expected: dict[type, EthMessage] = {
        eth.GetBlockHeaders: eth.BlockHeaders(77),
        eth.GetBlockBodies: eth.BlockBodies(77),
        eth.GetPooledTransactions: eth.PooledTransactions(77),
        eth.GetReceipts: eth.Receipts(77) if version < 69 else eth.Receipts69(77),
        eth.GetReceipts70: eth.Receipts70(77),
        eth.GetBlockAccessLists: eth.BlockAccessLists(77, missing),
        eth.GetCells: eth.Cells(77, (), (), MASK),
    }
    with geth("-answer-empty", "-eth", str(version), "-dial", engine.enode, program=program) as peer:
        session = established(log, peer)
        asked = 0
        for message in eth_messages(version):
            if type(message) not in expected:
                continue
            number = eth.id_of(version, message)
            request = "0x" + eth.encode(version, msgspec.structs.replace(message, request_id=77)).hex()
            answer = engine.call("request", session=session, capability="eth", message=number, payload=request)
            payload = bytes.fromhex(answer["payload"].removeprefix("0x"))
            assert eth.decode(version, number + 1, payload) == expected[type(message)]
            asked += 1
        assert asked >= 5


def test_a_header_has_the_hash_that_geth_computes() -> None:
    # The genesis block of the Go program; fields that it does not set are zero.
    chain = geth_chain()
    genesis = msgspec.structs.replace(
        FRONTIER,
        **dict.fromkeys(("parent_hash", "ommers_hash", "state_root", "transactions_root", "receipts_root"), bytes(32)),
        coinbase=bytes(20),
        bloom=bytes(256),
        difficulty=131072,
        number=0,
        gas_used=0,
        time=chain["genesis_time"],
        mix_digest=bytes(32),
        extra_data=b"gethpeer test chain",
    )
    assert genesis.hash.hex() == chain["genesis"]
    head = chain["head"]
    later = msgspec.structs.replace(genesis, difficulty=0, number=head["number"], time=head["time"])
    assert later.hash.hex() == head["hash"]
