"""What the engine counts: every name is one of a bounded set, whatever peers send."""

from __future__ import annotations

import msgspec
import pytest

from rlpx.engine.hub.tally import OTHER_CLIENT, Tally, family
from rlpx.protocol.bus.control import SessionClosed, SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.metrics import CapabilityCount, ClientCount, EndCounts, WorkerCounters
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("Geth/v1.16.2-stable-1b51c5f2/linux-amd64/go1.24.5", "geth"),
        ("geth", "geth"),
        ("Nethermind/v1.31.9+80652ec5/linux-x64/dotnet9.0.4", "nethermind"),
        ("besu/v25.4.1/linux-x86_64/openjdk-java-21", "besu"),
        ("erigon/v3.0.4", "erigon"),
        ("reth/v1.4.3-fe3653a/x86_64-unknown-linux-gnu", "reth"),
        ("EthereumJS/10.0.0/linux", "ethereumjs"),
        ("ethereumjs-devp2p/v1", "ethereumjs"),
        ("nimbus-eth1/v0.1", "nimbus"),
        ("rlpx-engine/1.0", "rlpx-engine"),
        ("", OTHER_CLIENT),
        ("\x00\n}", OTHER_CLIENT),
        ("x" * 1000, OTHER_CLIENT),
        ("not geth", OTHER_CLIENT),
    ],
)
def test_a_client_is_of_a_family(client: str, expected: str) -> None:
    assert family(client) == expected


def view_of(client: str, direction: Direction = Direction.INBOUND) -> SessionView:
    view = SessionView(SessionId(1), WorkerId(0), direction, "1.2.3.4:5", 1000, 0.0)
    view.client, view.shared, view.established_us = client, ("eth/69", "snap/1"), 2000
    return view


def ends(tally: Tally, view: SessionView, reason: DisconnectReason | None) -> None:
    closed = SessionClosed(view.session, EndedBy.PEER, reason, "words", Stage.ACTIVE, SessionStats())
    tally.ended(view, view.closed(closed, 3000))


def test_an_active_session_counts_until_its_end() -> None:
    tally, view = Tally(), view_of("Geth/v1")
    tally.established(view)
    assert tally.clients() == [ClientCount("geth", Direction.INBOUND, 1)]
    assert tally.capabilities() == [CapabilityCount("eth/69", 1), CapabilityCount("snap/1", 1)]
    ends(tally, view, DisconnectReason.TOO_MANY_PEERS)
    assert tally.clients() == [ClientCount("geth", Direction.INBOUND, 0)]
    assert tally.capabilities() == []
    assert tally.ends() == [EndCounts("peer", "too_many_peers", Direction.INBOUND, 1)]


def test_a_session_that_ends_before_it_was_active_takes_nothing_away() -> None:
    tally, view = Tally(), view_of("Geth/v1")
    ends(tally, msgspec.structs.replace(view, established_us=None), None)
    assert (tally.clients(), tally.capabilities()) == ([], [])
    assert tally.ends() == [EndCounts("peer", "none", Direction.INBOUND, 1)]


def test_reasons_that_the_specification_lacks_are_one() -> None:
    tally = Tally()
    for number in range(0x11, 0x60):
        ends(tally, view_of("x"), DisconnectReason(number))
    assert tally.ends() == [EndCounts("peer", "unknown", Direction.INBOUND, 0x60 - 0x11)]


def test_a_thousand_client_names_are_a_few_counts() -> None:
    tally = Tally()
    for number in range(1000):
        tally.established(view_of(f"client-{number}/v{number}", Direction.OUTBOUND))
    assert tally.clients() == [ClientCount(OTHER_CLIENT, Direction.OUTBOUND, 1000)]
    assert tally.dials_established == 1000


def test_workers_that_have_ended_are_added_up() -> None:
    tally = Tally()
    tally.worker_ended("lost", WorkerCounters(bytes_in=3))
    tally.worker_ended("told", WorkerCounters(bytes_in=4))
    tally.worker_ended("lost", None)
    assert tally.ended_workers.bytes_in == 7
    assert tally.worker_ends == {"lost": 2, "told": 1}
