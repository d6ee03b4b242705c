from __future__ import annotations

import pytest

from rlpx.protocol.cluster.records import Claim, Lease, Shard, decode, host_key, peer_key, shard_key
from rlpx.protocol.cluster.steps import Read, Scan
from rlpx.protocol.cluster.sweep import PAGE_CLAIMS
from tests.protocol.cluster.table import IN, OTHER, PEER, Table

# Until the first page, between passes, and until a silent host's epoch is over.
FIRST_SECONDS = 15.0
PASS_SECONDS = 300.0
OVER_SECONDS = 600.0


def claims(table: Table) -> set[tuple[str, str]]:
    """The hosts and epochs that have claims in the store."""
    found = [decode(Claim, value) for key, (_, value) in table.keys.items() if key.startswith("peer.")]
    return {(claim.host, claim.epoch) for claim in found if claim is not None}


def before_the_first_page() -> Table:
    """A host that is about to sweep."""
    table = Table().joined()
    table.pass_time(FIRST_SECONDS - 2)
    return table


def test_claims_of_an_epoch_that_another_has_followed_are_erased() -> None:
    table = before_the_first_page()
    table.beat("b", "b2")
    table.claimed_by("b", "b1")
    table.claimed_by("b", "b2", peer=OTHER)
    table.pass_time(3)
    assert claims(table) == {("b", "b2")}
    assert table.member.sweep.erased == 1


def test_claims_of_a_host_that_has_left_and_of_our_own_earlier_epoch_are_erased() -> None:
    table = before_the_first_page()
    table.beat("b", has_left=True)
    table.claimed_by("b")
    table.claimed_by("a", "a0", peer=OTHER)
    table.pass_time(3)
    assert claims(table) == set()


def test_claims_of_a_silent_host_are_erased_ten_minutes_after_it_was_heard() -> None:
    table = before_the_first_page()
    table.claimed_by("b")
    table.beat("b")
    # Its heartbeat expires.
    del table.keys[host_key("b")]
    table.pass_time(OVER_SECONDS - 5)
    assert claims(table) == {("b", "b1")}
    table.pass_time(PASS_SECONDS + 10)
    assert claims(table) == set()


def test_claims_of_a_host_that_we_have_never_heard_are_erased() -> None:
    table = Table().joined()
    table.claimed_by("z", "z1")
    table.pass_time(OVER_SECONDS - 5)
    assert claims(table) == {("z", "z1")}
    table.pass_time(PASS_SECONDS + 10)
    assert claims(table) == set()


def scanned(table: Table) -> None:
    """A page is read, and its answer has come."""
    table.pass_time(1)
    while not any(isinstance(call, Scan) for call in table.calls):
        table.pass_time(1, answers=False)
    table.answer(table.next(Scan))


def test_a_host_that_is_heard_at_the_last_moment_keeps_its_claims() -> None:
    table = before_the_first_page()
    table.beat("b", "b2")
    table.claimed_by("b", "b3")
    scanned(table)
    table.put(host_key("b"), b'{"epoch":"b3"}')
    table.answer(table.next(Read, host_key("b")))
    table.settle()
    assert claims(table) == {("b", "b3")}


def test_one_host_sweeps_the_first_by_name() -> None:
    table = before_the_first_page()
    table.beat("0")
    table.beat("b", "b2")
    table.claimed_by("b", "b1")
    table.pass_time(3)
    assert claims(table) == {("b", "b1")}


def test_a_host_that_is_not_sure_of_itself_does_not_sweep() -> None:
    table = before_the_first_page()
    table.disconnect()
    table.pass_time(60, answers=False)
    assert not [call for call in table.calls if isinstance(call, Scan)]


def test_nonsense_is_left_where_it_is() -> None:
    table = before_the_first_page()
    table.put(peer_key(PEER), b"nonsense")
    table.pass_time(3)
    assert peer_key(PEER) in table.keys


def test_a_page_that_is_lost_is_read_again_and_all_pages_are_read() -> None:
    table = before_the_first_page()
    table.beat("b", "b2")
    for number in range(PAGE_CLAIMS + 5):
        table.claimed_by("b", "b1", peer=number.to_bytes(64, "big"))
    while not any(isinstance(call, Scan) for call in table.calls):
        table.pass_time(1, answers=False)
    # Meanwhile no other page is asked for.
    table.pass_time(2, answers=False)
    (call,) = [call for call in table.calls if isinstance(call, Scan)]
    table.lose(call)
    table.settle()
    table.pass_time(1)
    assert claims(table) == {("b", "b1")}
    assert table.member.sweep.erased == PAGE_CLAIMS
    table.pass_time(2)
    assert claims(table) == set()


def test_a_pass_ends_although_younger_claims_are_made_all_the_time() -> None:
    table = before_the_first_page()
    table.beat("b", "b2")
    # Our last heartbeat is older than they are.
    for number in range(PAGE_CLAIMS + 5):
        table.claimed_by("b", "b1", peer=number.to_bytes(64, "big"))
    table.pass_time(10)
    assert table.member.sweep.erased == PAGE_CLAIMS
    table.pass_time(PASS_SECONDS - 20)
    assert claims(table) == {("b", "b1")}
    table.beat("b", "b2")
    table.pass_time(20)
    assert claims(table) == set()


@pytest.mark.parametrize("epoch", ["b1", "b2"])
def test_leases_of_an_epoch_that_is_over_are_taken_out_of_the_shards(epoch: str) -> None:
    table = before_the_first_page()
    table.beat("b", "b2")
    key = shard_key(IN, 0)
    table.see(key, Shard({"b": Lease(epoch, 4)}))
    table.pass_time(3)
    assert (b'"b"' in table.keys[key][1]) == (epoch == "b2")


def test_a_host_that_was_silent_for_long_writes_its_claims_anew() -> None:
    table = Table().joined()
    table.claim(1)
    table.settle()
    before = table.keys[peer_key(PEER)]
    # Stopped for an hour: what is erased late finds another revision.
    table.now += 3600.0
    table.pass_time(5)
    after = table.keys[peer_key(PEER)]
    assert (after[1], after[0] > before[0]) == (before[1], True)


def test_a_host_that_was_silent_for_a_minute_only_reads_them() -> None:
    table = Table().joined()
    table.claim(1)
    table.settle()
    before = table.keys[peer_key(PEER)]
    table.now += 60.0
    table.pass_time(5)
    assert table.keys[peer_key(PEER)] == before
