"""A chain that go-ethereum generated and executed: fetched from geth's own handlers, and by geth's own code from us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlpx.engine.client.blocking_peer import BlockingPeer
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth import snap_messages
from rlpx.protocol.eth.chain import BlockBody, Header, Receipt, transaction_hash
from rlpx.protocol.eth.messages import (
    GetBlockBodies,
    GetBlockHeaders,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    HeadersQuery,
    Receipts,
)
from rlpx.protocol.eth.snap_messages import GetAccountRange, GetByteCodes, GetStorageRanges, GetTrieNodes
from rlpx.protocol.session.events import Answered, MessageReceived
from tests.interop.clients import geth_node, write_chain_file
from tests.interop.roots import (
    account,
    check_headers,
    encode,
    keccak,
    receipts_root,
    root_of,
    transactions_root,
    withdrawals_root,
)
from tests.system import peers
from tests.system.harness import ROOT, JsonProgram, RunningEngine, eventually, working_folder

BLOCKS = 1000
AMSTERDAM_BLOCK = 750
# geth's downloader asks for this many headers; bodies and receipts are a few more than fit into one answer of ours.
HEADERS_AT_ONCE = 192
BLOCKS_AT_ONCE = 128
# Eleven receipts of 1 MiB in one block: more than the 10 MiB of any message.
LARGE_BLOCKS = 5
LARGE_LOGS = 11
MIB = 1 << 20
FIRST, LAST = bytes(32), b"\xff" * 32
# What each server of the chain offers.
OFFERS = {69: "eth/69,snap/1", 70: "eth/70,snap/2", 71: "eth/71,snap/2", 72: "eth/72,snap/2"}
LOGGER = bytes.fromhex("00000000000000000000000000000000000010c5")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The folder of the chain's files."""
    with working_folder() as made:
        yield made


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[JsonProgram]:
    """geth with the chain, one server for each version."""
    with geth_node("-blocks", str(BLOCKS), "-export", str(folder), *OFFERS.values()) as running:
        running.wait("listening", server=len(OFFERS) - 1)
        yield running


@pytest.fixture(scope="module")
def chain(node: JsonProgram) -> dict[str, Any]:
    return node.wait("chain")


@pytest.fixture(scope="module")
def chain_file(chain: dict[str, Any], folder: Path) -> Path:
    return write_chain_file(chain, folder / "gethnode.toml")


@pytest.fixture(scope="module")
def engine(chain_file: Path) -> Iterator[RunningEngine]:
    """An engine that fetches."""
    with RunningEngine("--protocols.snap", "1,2", chain=str(chain_file)) as running:
        yield running


@pytest.fixture(scope="module")
def serving_engine(chain_file: Path, folder: Path) -> Iterator[RunningEngine]:
    """An engine that serves the chain by the example's program."""
    with RunningEngine(chain=str(chain_file)) as running, full_node(running, chain_file, folder):
        yield running


@contextmanager
def full_node(engine: RunningEngine, chain_file: Path, folder: Path) -> Iterator[None]:
    """Run the example's program; within the context it serves."""
    files = [str(folder / "chain.rlp"), str(folder / "receipts.rlp")]
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.examples.full_node", str(engine.run_dir), *files], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        eventually(lambda: program.poll() is not None or is_served(engine, chain_file), "the example serves")
        yield
        assert program.poll() is None, "the example ended early"
    finally:
        program.terminate()
        _, words = program.communicate()
        sys.stderr.write(words.decode())


def is_served(engine: RunningEngine, chain_file: Path) -> bool:
    """Whether a peer that asks for the genesis gets it instead of the empty answer."""
    with peers.Peer(engine.address, engine.node_id, load_chain(str(chain_file))) as peer:
        peer.establish()
        peer.send(3, encode([0, [0, 1, 0, 0]]))
        while not (found := [e for e in peer.events if isinstance(e, MessageReceived | Answered) and e.kind.id == 4]):
            peer.step()
        return len(found[0].payload) > len(encode([0, []]))


def dial(engine: RunningEngine, enode: str, *shared: str) -> BlockingPeer:
    """A session with a listening node, and what it must share."""
    session = engine.call("dial", enode=enode, wait=True)["session"]
    peer = engine.connected.peer(session)
    assert engine.call("session", session=session)["shared"] == list(shared)
    return peer


@contextmanager
def fetching_from(engine: RunningEngine, node: JsonProgram, version: int) -> Iterator[BlockingPeer]:
    """A session with the server of a version."""
    offers = OFFERS[version]
    enode = node.wait("listening", server=list(OFFERS).index(version))["enode"]
    peer = dial(engine, enode, *offers.split(","))
    try:
        yield peer
    finally:
        engine.call("disconnect", session=peer.session)
        eventually(lambda: engine.counts() == (0, 0, 0, 0), "the session has ended")


def fetch_headers(peer: BlockingPeer, count: int) -> list[Header]:
    found: list[Header] = []
    while len(found) < count:
        query = HeadersQuery(len(found) + 1, min(HEADERS_AT_ONCE, count - len(found)))
        answered = peer.request(GetBlockHeaders(0, query)).headers
        assert answered
        found += answered
    return found


def fetch_bodies(peer: BlockingPeer, hashes: Sequence[bytes]) -> list[BlockBody]:
    found: list[BlockBody] = []
    while len(found) < len(hashes):
        answered = peer.request(GetBlockBodies(0, tuple(hashes[len(found) : len(found) + BLOCKS_AT_ONCE]))).bodies
        assert answered
        found += answered
    return found


def fetch_receipts(peer: BlockingPeer, hashes: Sequence[bytes]) -> list[tuple[Receipt, ...]]:
    """The receipts by block, without the blooms of the earlier versions."""
    found: list[tuple[Receipt, ...]] = []
    while len(found) < len(hashes):
        answer = peer.request(GetReceipts(0, tuple(hashes[len(found) : len(found) + BLOCKS_AT_ONCE])))
        assert answer.blocks
        if isinstance(answer, Receipts):
            bare = [[Receipt(r.type, r.outcome, r.cumulative_gas, r.logs) for r in block] for block in answer.blocks]
            found += [tuple(block) for block in bare]
        else:
            found += answer.blocks
    return found


def fetch_and_check(peer: BlockingPeer, head: dict[str, Any]) -> list[Header]:
    """Fetch a whole chain by typed requests, and check each hash with other libraries; returns the headers."""
    headers = fetch_headers(peer, head["number"])
    check_headers(headers, head["hash"])
    hashes = [header.hash for header in headers]
    bodies = fetch_bodies(peer, hashes)
    assert [transactions_root(body.transactions) for body in bodies] == [header.transactions_root for header in headers]
    assert [withdrawals_root(body.withdrawals) for body in bodies] == [header.withdrawals_root for header in headers]
    receipts = fetch_receipts(peer, hashes)
    assert [receipts_root(block) for block in receipts] == [header.receipts_root for header in headers]
    assert [len(body.transactions) for body in bodies] == [len(block) for block in receipts]
    return headers


# -- we fetch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", list(OFFERS))
def test_we_fetch_every_block_from_geth_and_every_hash_is_right(
    engine: RunningEngine, node: JsonProgram, chain: dict[str, Any], version: int
) -> None:
    with fetching_from(engine, node, version) as peer:
        headers = fetch_and_check(peer, chain["head"])
        # The form of header of every fork was among them.
        forms = {(h.withdrawals_root, h.blob_gas_used, h.requests_hash, h.slot_number).count(None) for h in headers}
        assert forms == {0, 1, 2, 3, 4}
        backwards = peer.request(GetBlockHeaders(0, HeadersQuery(headers[-1].hash, 5, skip=9, reverse=True))).headers
        assert [header.number for header in backwards] == [1000, 990, 980, 970, 960]


@pytest.mark.parametrize("version", [70, 71])
def test_receipts_that_geth_cuts_off_are_put_together(engine: RunningEngine, version: int) -> None:
    with geth_node("-blocks", str(LARGE_BLOCKS), "-large-logs", str(LARGE_LOGS), f"eth/{version}") as node:
        peer = dial(engine, node.wait("listening")["enode"], f"eth/{version}")
        headers = fetch_headers(peer, LARGE_BLOCKS)
        hashes = tuple(header.hash for header in headers)
        cut = peer.request(GetReceipts70(0, 0, hashes))
        assert cut.last_block_incomplete
        assert len(cut.blocks) == LARGE_BLOCKS
        receipts = fetch_receipts(peer, hashes)
        assert [receipts_root(block) for block in receipts] == [header.receipts_root for header in headers]
        assert len(cut.blocks[-1]) < len(receipts[-1])
        engine.call("disconnect", session=peer.session)
    eventually(lambda: engine.counts() == (0, 0, 0, 0), "the session has ended")


@pytest.mark.parametrize("version", [69, 70])
def test_the_state_of_the_head_over_snap_has_the_roots_and_hashes_that_geth_computed(
    engine: RunningEngine, node: JsonProgram, chain: dict[str, Any], version: int
) -> None:
    root = bytes.fromhex(chain["head"]["root"].removeprefix("0x"))
    with fetching_from(engine, node, version) as peer:
        accounts = {item.hash: item.account for item in peer.request(GetAccountRange(0, root, FIRST, LAST, MIB)).accounts}
        assert root_of({key: account(value) for key, value in accounts.items()}) == root
        hashes = tuple({value.code_hash for value in accounts.values() if value.code_hash})
        codes = peer.request(GetByteCodes(0, hashes, MIB)).codes
        assert tuple(map(keccak, codes)) == hashes
        logger = keccak(LOGGER)
        [slots] = peer.request(GetStorageRanges(0, root, (logger,), b"", b"", MIB)).slots
        assert root_of({slot.hash: slot.data for slot in slots}) == accounts[logger].root
        part = peer.request(GetStorageRanges(0, root, (logger,), slots[1].hash, slots[5].hash, MIB))
        assert part.slots == (slots[1:6],)
        assert part.proof
        if version == 69:
            # Each path is in compact form; without nibbles it is the path of the root.
            nodes = peer.request(GetTrieNodes(0, root, ((b"\x00",), (logger, b"\x00")), MIB)).nodes
            assert [keccak(item) for item in nodes] == [root, accounts[logger].root]


@pytest.mark.parametrize("version", [71, 72])
def test_block_access_lists_over_eth_and_snap_have_the_hashes_of_the_headers(
    engine: RunningEngine, node: JsonProgram, chain: dict[str, Any], version: int
) -> None:
    with fetching_from(engine, node, version) as peer:
        headers = fetch_headers(peer, BLOCKS)
        check_headers(headers, chain["head"]["hash"])
        asked = headers[AMSTERDAM_BLOCK - 20 :: 10]
        hashes = tuple(header.hash for header in asked)
        lists = peer.request(eth_messages.GetBlockAccessLists(0, hashes)).access_lists
        assert [keccak(item) if item else None for item in lists] == [header.block_access_list_hash for header in asked]
        assert lists[0] == b""
        assert all(lists[5:])
        assert peer.request(snap_messages.GetBlockAccessLists(0, hashes, 2 * MIB)).access_lists == lists


# -- we serve ---------------------------------------------------------------------------------------------------------------


@contextmanager
def newcomers(engine: RunningEngine, *versions: int) -> Iterator[JsonProgram]:
    """geth servers that have only the genesis, each connected to the engine."""
    offers = [f"eth/{version}" for version in versions]
    sessions = set()
    with geth_node(*offers) as newcomer:
        for index, offer in enumerate(offers):
            sessions.add(dial(engine, newcomer.wait("listening", server=index)["enode"], offer).session)
            newcomer.wait("connected", server=index)
        yield newcomer
    eventually(
        lambda: sessions.isdisjoint(item["session"] for item in engine.call("sessions")["sessions"]),
        "the sessions have ended",
    )


@pytest.mark.parametrize("version", list(OFFERS))
def test_geth_fetches_every_block_from_the_example_and_every_hash_is_right(
    serving_engine: RunningEngine, chain: dict[str, Any], version: int
) -> None:
    with newcomers(serving_engine, version) as newcomer:
        newcomer.do("fetch", server=0, count=BLOCKS, head=chain["head"]["hash"])
        fetched = newcomer.wait("fetched")
        assert (fetched["headers"], fetched["receipts"]) == (BLOCKS, BLOCKS)
        assert fetched["transactions"] > 2 * BLOCKS
        assert fetched["withdrawals"] > 0
        assert not newcomer.of("disconnected")


@pytest.mark.parametrize("version", [70, 72])
def test_geth_puts_together_the_receipts_that_the_example_cuts_off(chain_file: Path, version: int) -> None:
    with working_folder() as folder:
        with geth_node("-blocks", str(LARGE_BLOCKS), "-large-logs", str(LARGE_LOGS), "-export", str(folder)) as node:
            head = node.wait("chain")["head"]
        with RunningEngine(chain=str(chain_file)) as engine, full_node(engine, chain_file, folder):
            assert engine.call("status")["head"]["number"] == LARGE_BLOCKS
            with newcomers(engine, version) as newcomer:
                newcomer.do("fetch", server=0, count=LARGE_BLOCKS, head=head["hash"])
                fetched = newcomer.wait("fetched")
    assert fetched["receipts"] == LARGE_BLOCKS
    # Headers, bodies, and the receipts in answers of 2 MiB.
    assert fetched["roundtrips"] == 1 + 1 + 6


@pytest.mark.parametrize("version", [68, 72])
def test_one_engine_fetches_from_another(
    serving_engine: RunningEngine, chain: dict[str, Any], chain_file: Path, version: int
) -> None:
    with RunningEngine("--protocols.eth", str(version), chain=str(chain_file)) as other:
        peer = dial(other, serving_engine.enode, f"eth/{version}")
        fetch_and_check(peer, chain["head"])
    eventually(lambda: serving_engine.counts() == (0, 0, 0, 0), "the session has ended")


def test_transactions_of_one_geth_reach_others_by_the_example(serving_engine: RunningEngine) -> None:
    with newcomers(serving_engine, 69, 71, 72) as newcomer:
        newcomer.do("send", server=0, count=50)
        sent = newcomer.wait("sent")["hashes"]
        for server in (1, 2):
            announced = newcomer.wait("announced", server=server)
            assert announced["hashes"] == sent
            assert announced["types"] == ("000102" * 17)[:100]
            newcomer.do("get", server=server, hashes=announced["hashes"])
            assert newcomer.wait("got", server=server)["hashes"] == sent
        [session] = serving_engine.connected.sessions(shared="eth/69").sessions
        asked = tuple(bytes.fromhex(item.removeprefix("0x")) for item in sent)
        answer = serving_engine.connected.peer(session.session).request(GetPooledTransactions(0, asked))
        assert tuple(map(transaction_hash, answer.transactions)) == asked
        assert not newcomer.of("disconnected")
