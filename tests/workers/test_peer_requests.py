"""The requests of one peer: those that responders have, those that are parked, and when there are too many."""

from __future__ import annotations

from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.session.events import MessageReceived
from rlpx.workers.peer_requests import MAX_PARKED_BYTES, MAX_PARKED_REQUESTS, PeerRequests


def request(size: int = 0) -> MessageReceived:
    """A request of the peer."""
    kind = message_table((Shared(Capability("eth", 69), 16, 18),)).find("eth", 3)
    return MessageReceived(kind, bytes(size), size, 0)


def test_the_request_that_was_parked_first_is_the_first_to_go() -> None:
    requests = PeerRequests()
    sizes = [3, 1, 2]
    for size in sizes:
        requests.park(request(size))
    assert [len(requests.unpark().payload) for _ in sizes] == sizes
    assert not requests.has_parked


def test_both_kinds_of_requests_hold_their_bytes() -> None:
    requests = PeerRequests()
    with_responder = request(300)
    requests.park(request(1000))
    requests.take(with_responder)
    assert (requests.open, requests.held_bytes) == (1, 1300)
    requests.release(with_responder)
    assert (requests.open, requests.held_bytes) == (0, 1000)
    requests.unpark()
    assert requests.held_bytes == 0


def test_too_many_are_too_many() -> None:
    requests = PeerRequests()
    for _ in range(MAX_PARKED_REQUESTS):
        requests.park(request())
    assert not requests.has_too_many_parked
    requests.park(request())
    assert requests.has_too_many_parked


def test_too_large_is_too_many() -> None:
    requests = PeerRequests()
    requests.park(request(MAX_PARKED_BYTES))
    assert not requests.has_too_many_parked
    requests.park(request(1))
    assert requests.has_too_many_parked


def test_what_is_dropped_holds_nothing_but_what_responders_have() -> None:
    requests = PeerRequests()
    requests.take(request(300))
    requests.park(request(1000))
    requests.drop_parked()
    assert (requests.has_parked, requests.held_bytes) == (False, 300)
