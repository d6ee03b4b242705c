"""Each small example runs as it stands, against a real engine and real peers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import rlp as oracle

from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.chain import transaction_hash
from rlpx.protocol.eth.messages import GetBlockHeaders, HeadersQuery, NewPooledTransactionHashes72, Transactions
from rlpx.protocol.session.events import Answered, MessageReceived
from tests.interop.clients import geth_node, write_chain_file
from tests.system import peers
from tests.system.harness import ROOT, JsonProgram, RunningEngine, eventually, working_folder
from tests.system.printing import Printing

EXAMPLES = ROOT / "tests" / "examples"
SMALL = ("collect_hashes", "dial_file", "first_seen", "new_peers", "relay", "serve_headers")
MAX_LINES = 15
VERSIONS = (69, 71, 72)
BLOCKS = 20
TRANSACTIONS, NEW_HASHES, GET_HEADERS, HEADERS = 2, 8, 3, 4


@pytest.mark.parametrize("name", SMALL)
def test_an_example_is_short(name: str) -> None:
    lines = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= MAX_LINES


def test_every_example_is_here() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} - {"chain_file", "full_node", "test_full_node"} == set(SMALL)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with working_folder() as made:
        yield made


@pytest.fixture(scope="module")
def geth(folder: Path) -> Iterator[JsonProgram]:
    """geth servers with a chain, one for each version."""
    with geth_node("-blocks", str(BLOCKS), "-export", str(folder), *(f"eth/{version}" for version in VERSIONS)) as running:
        running.wait("listening", server=len(VERSIONS) - 1)
        yield running


@pytest.fixture(scope="module")
def engine(geth: JsonProgram, folder: Path) -> Iterator[RunningEngine]:
    run_dir = folder / "rlpx-engine"
    run_dir.mkdir(mode=0o700)
    with RunningEngine(chain=str(write_chain_file(geth.wait("chain"), folder / "chain.toml")), run_dir=run_dir) as running:
        yield running


def open_feeds(engine: RunningEngine) -> list[int]:
    return [worker.feeds.open for worker in engine.connected.status().workers if worker.feeds is not None]


def received(peer: peers.Peer, message: int) -> bytes:
    """The payload of the first message of this kind."""
    while True:
        for event in peer.events:
            if isinstance(event, MessageReceived | Answered) and event.kind.id == message:
                return event.payload
        peer.step()


def test_the_examples_do_what_they_say(engine: RunningEngine, geth: JsonProgram, folder: Path) -> None:
    enodes = [geth.wait("listening", server=server)["enode"] for server in range(len(VERSIONS))]
    (folder / "enodes").write_text("\n".join(enodes))
    with ExitStack() as stack:

        def run(name: str, *arguments: str) -> Printing:
            command = [sys.executable, "-W", "error", "-m", f"tests.examples.{name}", *arguments]
            return stack.enter_context(Printing(command, {"XDG_RUNTIME_DIR": str(folder)}))

        new_peers, hashes, first, _ = (run(name) for name in ("new_peers", "collect_hashes", "first_seen", "relay"))
        run("serve_headers", str(folder / "chain.rlp"), str(folder / "receipts.rlp"))
        eventually(lambda: open_feeds(engine) == [4, 4], "four feeds at each worker")
        dialled = run("dial_file", str(folder / "enodes"))
        for enode, version in zip(enodes, VERSIONS, strict=True):
            assert dialled.line(rf"{enode[:24]} connected")
            assert new_peers.line(rf"{enode[8:24]} \S+.* eth/{version}")
        chain = load_chain(str(folder / "chain.toml"))
        with peers.Peer(engine.address, engine.node_id, chain) as peer:
            peer.establish()
            announced = tuple(bytes([number]) * 32 for number in range(10))
            payload = eth_messages.encode(72, NewPooledTransactionHashes72(bytes(10), (100,) * 10, announced))
            peer.send(NEW_HASHES, payload)
            assert hashes.line("10 hashes, 0 announcements missed")
            assert first.line(rf"{announced[3].hex()} \d+ {peer.node_id.hex()}")
            peer.send(GET_HEADERS, eth_messages.encode(72, GetBlockHeaders(7, HeadersQuery(1, 5))))
            answer = oracle.decode(received(peer, HEADERS))
            assert (answer[0], [int.from_bytes(header[8], "big") for header in answer[1]]) == (b"\x07", [1, 2, 3, 4, 5])
            # What a geth sends reaches the other peers.
            geth.do("send", server=0, count=50)
            sent = eth_messages.decode(72, TRANSACTIONS, received(peer, TRANSACTIONS))
            assert isinstance(sent, Transactions)
            hashes_sent = [transaction_hash(transaction).hex() for transaction in sent.transactions]
            assert geth.wait("sent")["hashes"] == ["0x" + name for name in hashes_sent]
