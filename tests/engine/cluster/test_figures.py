from __future__ import annotations

import pytest

from rlpx.engine.cluster.figures import Figures
from rlpx.protocol.bus.metrics import ClaimsCount, PlacesCount
from rlpx.protocol.lifecycle import Direction
from tests.protocol.cluster.table import PEER, Table


def figures(table: Table) -> Figures:
    """The figures of the member; its parts are not there yet."""
    made = Figures("monitors", table.member)
    made.look(table.now)
    return made


def test_a_member_shows_its_hosts_places_and_claims() -> None:
    table = Table(limit=100).joined()
    table.beat()
    table.use(1)
    table.claim(1)
    table.settle()
    status, metrics = figures(table).status(table.now), figures(table).metrics(table.now)
    assert (status.name, status.host, status.state, status.away_ms) == ("monitors", "a", "member", None)
    assert (status.hosts, metrics.hosts, metrics.is_member, metrics.away_s) == (["a", "b"], 2, True, 0.0)
    assert status.claims == metrics.claims == ClaimsCount(held=1, unsettled=0, in_progress=0)
    assert status.places[Direction.INBOUND] == metrics.places[Direction.INBOUND] == PlacesCount(4, 1, 96)
    assert (metrics.queues, status.waiting_events, metrics.traffic_batches) == ([], 0, 0)


def test_the_time_without_nats_is_from_the_first_look_until_it_answers() -> None:
    table = Table().joined()
    shown = figures(table)
    table.disconnect()
    shown.look(table.now)
    table.pass_time(20, answers=False)
    status = shown.status(table.now)
    assert (status.state, status.away_ms, status.hosts) == ("away", 20_000, [])
    assert shown.metrics(table.now).away_s == 20.0
    table.connect()
    status = shown.status(table.now)
    # Others may have given it up: it is a member again with the first confirmed heartbeat.
    assert (status.state, status.away_ms, shown.metrics(table.now).is_member) == ("doubtful", None, False)
    table.settle()
    assert shown.status(table.now).state == "member"


@pytest.mark.parametrize("lets_in", [True, False])
def test_a_host_lets_peers_in_while_it_is_a_member_and_without_nats_if_the_user_wants_that(lets_in: bool) -> None:  # noqa: FBT001 - a case of the test
    table = Table(lets_in=lets_in).joined()
    assert figures(table).status(table.now).lets_in
    table.disconnect()
    assert figures(table).status(table.now).lets_in == lets_in
    table.pass_time(20, answers=False)
    table.connect()
    assert not figures(table).status(table.now).lets_in


def test_a_claim_lasts_until_the_verdict_and_counts_only_then() -> None:
    shown = figures(Table().joined())
    shown.on_claim(1, 100.0)
    shown.on_claim(2, 100.0)
    shown.on_verdicts([1], 100.02)
    shown.on_release(1)
    shown.on_release(2)
    shown.on_verdicts([2], 200.0)
    counted = shown.metrics(200.0).claim_seconds
    assert (sum(counted.counts), round(counted.sum_seconds, 3)) == (1, 0.02)


def test_a_session_that_was_let_in_without_a_claim_is_unsettled() -> None:
    table = Table().joined()
    table.disconnect()
    table.claim(1, PEER)
    assert figures(table).status(table.now).claims == ClaimsCount(held=0, unsettled=1, in_progress=0)
