"""Each client's Hello is its own, and any session understands it."""

from __future__ import annotations

import pytest
import rlp as oracle

from rlpx.protocol.bus.swarm import Client
from rlpx.protocol.rlpx.capabilities import Capability
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.workers.swarm.personality import PERSONALITIES
from tests.pair import key

ID = key(3).id


@pytest.mark.parametrize(
    ("client", "name", "capabilities"),
    [
        (Client.GETH, "Geth/v", "eth/69 eth/70 eth/71 eth/72 snap/1"),
        (Client.RETH, "reth/v", "eth/69 eth/68 eth/67 eth/66"),
        (Client.NETHERMIND, "Nethermind/v", "eth/66 eth/67 eth/68 nodedata/1 snap/1 eth/69"),
        (Client.ERIGON, "erigon/v", "eth/68 eth/69"),
    ],
)
def test_a_hello_names_the_client_and_its_capabilities_in_its_order(client: Client, name: str, capabilities: str) -> None:
    hello = Hello.decode(PERSONALITIES[client].hello(ID).encode())
    assert hello.client.startswith(name)
    assert " ".join(map(str, hello.capabilities)) == capabilities
    assert (hello.node_id, hello.listen_port, hello.version) == (ID, 30303, 5)


def test_what_comes_after_the_five_elements_is_sent_and_ignored() -> None:
    fields = oracle.decode(PERSONALITIES[Client.ERIGON].hello(ID).encode())
    assert fields[5:] == [b"spare"]
    assert len(oracle.decode(PERSONALITIES[Client.GETH].hello(ID).encode())) == 5


def test_offered_is_what_is_spoken() -> None:
    for personality in PERSONALITIES.values():
        assert Capability("eth", 69) in {item.capability for item in personality.protocols}


def test_reth_pings_a_quarter_as_often_as_geth() -> None:
    assert PERSONALITIES[Client.RETH].ping_interval_seconds == 4 * PERSONALITIES[Client.GETH].ping_interval_seconds
