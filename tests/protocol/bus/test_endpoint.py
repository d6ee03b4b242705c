"""An endpoint in a world that a test plays: who is taken, who is turned away, and what is bounded in sum."""

from __future__ import annotations

import errno

import pytest

from rlpx.protocol.bus import endpoint as endpoints
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.endpoint import EXHAUSTED_PAUSE_SECONDS, REFUSALS_SECONDS
from rlpx.protocol.bus.link import FRAMES_AT_ONCE, Limits
from tests.fake_endpoint import LIMITS, EndpointHarness, FakeTask, lost


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_it_stands_back_and_looks_again(number: int) -> None:
    harness = EndpointHarness()
    harness.arrive(OSError(number, "full"))
    assert harness.loop.readers == {}
    assert harness.owner.take() == [("refused", "tcp", "full")]
    harness.loop.advance(EXHAUSTED_PAUSE_SECONDS)
    assert harness.user().link.number == 1


def test_it_stands_back_before_the_table_is_full() -> None:
    harness = EndpointHarness()
    harness.has_room = False
    harness.arrive(("10.0.0.1", 1))
    assert harness.endpoint.connections == 0
    assert harness.owner.take() == [("refused", "tcp", "the table of file descriptors is almost full")]
    harness.endpoint.stop_listening()
    harness.loop.advance(EXHAUSTED_PAUSE_SECONDS)
    assert harness.loop.readers == {}


def test_an_error_without_words_is_named_by_itself() -> None:
    harness = EndpointHarness()
    harness.arrive(OSError(errno.EMFILE, ""))
    assert harness.owner.take() == [("refused", "tcp", f"[Errno {errno.EMFILE}] ")]


def test_who_is_gone_before_the_accept_is_passed_over() -> None:
    harness = EndpointHarness()
    harness.arrive(OSError(errno.ECONNABORTED, "gone"), "")
    assert [transport.link.remote for transport in harness.loop.transports] == ["tcp"]


def test_another_error_of_accept_is_a_fault_of_ours() -> None:
    with pytest.raises(OSError, match="bad"):
        EndpointHarness().arrive(OSError(errno.EBADF, "bad"))


def test_accepts_have_a_budget_for_each_turn() -> None:
    harness = EndpointHarness(limits=Limits(100, 1, 1, 1, LIMITS.zmtp))
    harness.arrive(*[""] * 20)
    assert harness.endpoint.connections == endpoints.ACCEPT_BUDGET


def test_at_the_limit_the_oldest_that_has_not_ended_its_handshake_makes_room() -> None:
    harness = EndpointHarness()
    harness.user()
    silent = harness.connected()
    harness.connected()
    harness.connected()
    assert silent.aborted
    assert harness.owner.take() == [("refused", "tcp 10.0.0.1:4000", "others wait, and it has not ended its handshake")]
    lost(silent)
    assert harness.endpoint.connections == 3
    assert harness.endpoint.refused_connections == 1


def test_at_the_limit_of_ready_users_a_newcomer_is_turned_away() -> None:
    harness = EndpointHarness()
    for _ in range(3):
        harness.user()
    harness.arrive(("10.0.0.2", 5))
    assert harness.owner.take() == [("refused", "tcp 10.0.0.2:5", "3 connections are open, which is the limit")]
    assert harness.endpoint.refused_connections == 1
    assert harness.endpoint.connections == 3


def test_one_that_is_being_taken_makes_no_room() -> None:
    harness = EndpointHarness()
    harness.loop.is_slow = True
    harness.arrive("", "", "", "")
    assert harness.endpoint.connections == 3
    assert harness.owner.take() == [("refused", "tcp", "3 connections are open, which is the limit")]
    for coro in harness.loop.later:
        FakeTask(coro)
    assert len(harness.loop.transports) == 3


def test_a_socket_that_cannot_be_taken_is_let_go() -> None:
    harness = EndpointHarness()
    harness.loop.problem = OSError(errno.ENOTCONN, "gone")
    harness.arrive("")
    assert harness.endpoint.connections == 0
    assert harness.owner.take() == [("refused", "tcp", f"the connection could not be taken: [Errno {errno.ENOTCONN}] gone")]


def test_who_is_turned_away_is_told_at_once_and_then_only_their_number_every_10_s() -> None:
    harness = EndpointHarness()
    for _ in range(3):
        harness.user()
    cause = "3 connections are open, which is the limit"
    for expected in ([("refused", "tcp", cause)], [], []):
        harness.arrive("")
        assert harness.owner.take() == expected
    harness.seconds += REFUSALS_SECONDS
    harness.arrive("")
    assert harness.owner.take() == [("refused", "tcp", cause, 3)]
    assert harness.endpoint.refused_connections == 4


def test_at_the_end_what_waits_may_leave() -> None:
    harness = EndpointHarness()
    user, silent = harness.user(), harness.connected()
    user.is_blocked = True
    assert user.link.offer(b"last")
    harness.endpoint.close()
    assert harness.sock.is_closed
    assert (user.closing, user.aborted, silent.closing) == (True, False, True)
    assert not user.link.offer(b"too late")
    harness.endpoint.abort()
    assert user.aborted
    lost(user)
    assert harness.owner.take() == [("gone", 1, "the engine is ending")]


def test_one_that_is_taken_during_the_end_is_closed() -> None:
    harness = EndpointHarness()
    harness.loop.is_slow = True
    harness.arrive("")
    harness.endpoint.close()
    FakeTask(harness.loop.later[0])
    assert harness.loop.transports[0].aborted


def test_unfinished_messages_are_bounded_in_sum_and_the_most_goes() -> None:
    harness = EndpointHarness()
    small, large = harness.user(), harness.user()
    unfinished = bytes((zmtp.MORE | zmtp.LONG,)) + (3000).to_bytes(8, "big")
    large.link.data_received(unfinished + bytes(2900))
    small.link.data_received(unfinished + bytes(1000))
    assert harness.endpoint.received_bytes == 3918
    small.link.data_received(bytes(1500))
    assert large.closing
    assert not small.closing
    lost(large)
    ((_, _, cause),) = harness.owner.take()
    assert "its are the most" in cause
    assert harness.endpoint.received_bytes == 2509


def test_at_the_bound_of_all_queues_only_who_has_its_share_is_refused() -> None:
    harness = EndpointHarness()
    first, second, third = (harness.user() for _ in range(3))
    for user in (first, second, third):
        user.is_blocked = True
    for user in (first, second):
        assert user.link.offer(bytes(90_000))
        assert user.link.offer(bytes(10_000))
    assert third.link.offer(bytes(50_000))
    assert third.link.offer(bytes(20_000))
    assert not third.link.offer(bytes(20_000))
    first.drain()
    assert third.link.offer(bytes(20_000))


def test_a_queue_has_room_below_its_own_limit_and_the_sum_of_all_is_known() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.is_blocked = True
    user.link.append(bytes(LIMITS.queue_bytes))
    assert harness.endpoint.queued_bytes == LIMITS.queue_bytes
    assert not harness.endpoint.has_queue_room(LIMITS.queue_bytes, 1)


def test_what_arrives_while_others_wait_for_their_turn_waits_behind_them() -> None:
    harness = EndpointHarness()
    loud, quiet = harness.user(), harness.user()
    loud.link.data_received(zmtp.encode([b""]) * (FRAMES_AT_ONCE + 1))
    harness.owner.take()
    quiet.link.data_received(zmtp.encode([b"hello"]))
    assert harness.owner.take() == []
    harness.loop.turn()
    assert harness.owner.take() == [("message", 1, [b""]), ("message", 2, [b"hello"])]
