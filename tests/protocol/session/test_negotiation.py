"""What a Hello settles, and of which peers there is no use."""

from __future__ import annotations

import msgspec
import pytest

from rlpx.protocol.errors import UselessPeerError
from rlpx.protocol.rlpx.capabilities import Capability
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.negotiation import greet
from tests.pair import CHAIN, ETH, WALL_SECONDS, SessionSpec

NODE = SessionSpec().setup().node


def hello(*capabilities: Capability) -> Hello:
    return Hello("test", capabilities, 0, bytes(64))


def test_a_hello_settles_version_table_and_the_code_of_status() -> None:
    greeted = greet(hello(Capability("eth", 68), Capability("eth", 69), Capability("other", 1)), NODE)
    assert greeted.eth == Capability("eth", 69)
    assert greeted.status_code == ETH
    assert list(greeted.table.capabilities) == ["eth"]


def test_what_offers_no_version_of_eth_is_useless_and_told_what_it_offered() -> None:
    for capabilities, offered in (((), "nothing"), ((Capability("eth", 1), Capability("les", 4)), "eth/1, les/4")):
        with pytest.raises(UselessPeerError, match=f"no shared version of eth; the peer offers {offered}"):
            greet(hello(*capabilities), NODE)


def test_what_lacks_a_required_capability_is_useless() -> None:
    node = msgspec.structs.replace(NODE, required=frozenset({"snap", "blobs"}))
    with pytest.raises(UselessPeerError, match="no shared version of blobs, snap"):
        greet(hello(Capability("eth", 69)), node)


def test_our_own_status_is_one_that_we_accept() -> None:
    greeted = greet(hello(Capability("eth", 69)), NODE)
    message = greeted.own_status(CHAIN, WALL_SECONDS)
    status = greeted.read_status(message.content[1:], CHAIN, WALL_SECONDS)
    assert (status.version, status.head) == (69, CHAIN.head.hash)
