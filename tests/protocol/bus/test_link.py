"""One user's connection: its handshake, what the owner hears of it, and its queue."""

from __future__ import annotations

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.link import ANSWERS_BYTES, FRAMES_AT_ONCE, HANDSHAKE_SECONDS, HIGH_WATER_BYTES, LINGER_SECONDS
from rlpx.protocol.bus.zmtp import Kind
from tests.fake_endpoint import LIMITS, EndpointHarness, greeting, lost, ready


def test_a_user_comes_talks_and_goes() -> None:
    harness = EndpointHarness()
    transport = harness.connected()
    assert b"".join(transport.written) == greeting()
    link = transport.link
    assert (link.remote, link.is_ready, harness.endpoint.links, harness.endpoint.connections) == (
        "tcp 10.0.0.1:4000",
        False,
        {},
        1,
    )
    link.data_received(greeting() + ready(b"DEALER") + zmtp.encode([b"a", b"b"]))
    assert harness.owner.take() == [("ready", 1, "DEALER"), ("message", 1, [b"a", b"b"])]
    assert harness.endpoint.links == {1: link}
    assert link.user is None
    link.eof_received()
    lost(transport)
    assert harness.owner.take() == [("gone", 1, None)]
    assert (harness.endpoint.links, harness.endpoint.connections) == ({}, 0)
    assert link.is_closing
    assert link.queued_bytes == 0
    assert not link.offer(b"late")
    link.close("late")
    link.abort()
    link.hold()
    link.read_on()


def test_subscriptions_reach_the_owner() -> None:
    harness = EndpointHarness(Kind.XPUB)
    link = harness.user(b"SUB").link
    link.data_received(zmtp.encode([b"\x01eth."]) + zmtp.encode([b"\x00eth."]))
    assert harness.owner.take() == [("subscribed", 1, b"eth."), ("cancelled", 1, b"eth.")]
    assert link.prefixes == set()


def test_who_does_not_end_its_handshake_is_closed() -> None:
    harness = EndpointHarness()
    transport = harness.connected()
    harness.loop.advance(HANDSHAKE_SECONDS)
    assert transport.aborted
    lost(transport)
    assert harness.owner.take() == [("refused", "tcp 10.0.0.1:4000", "no handshake within 10 s")]


def test_the_deadline_is_of_the_handshake_alone() -> None:
    harness = EndpointHarness()
    transport = harness.user()
    harness.loop.advance(HANDSHAKE_SECONDS)
    assert not transport.closing


def test_who_breaks_the_protocol_is_closed_once_its_error_has_left() -> None:
    harness = EndpointHarness()
    transport = harness.connected()
    transport.link.data_received(greeting() + ready(b"SUB"))
    assert b"\x05ERROR" in b"".join(transport.written)
    assert (transport.closing, transport.aborted) == (True, False)
    harness.loop.advance(LINGER_SECONDS)
    assert transport.aborted
    (told,) = harness.owner.take()
    assert told[:2] == ("refused", "tcp 10.0.0.1:4000")


def test_a_ready_user_that_breaks_the_protocol_is_gone_with_the_cause() -> None:
    harness = EndpointHarness()
    transport = harness.user()
    transport.link.data_received(b"\xff\xff")
    lost(transport)
    ((name, number, cause),) = harness.owner.take()
    assert (name, number) == ("gone", 1)
    assert "reserved bits" in cause


def test_one_that_is_held_is_not_heard_until_it_is_released() -> None:
    harness = EndpointHarness()
    user = harness.user()
    harness.owner.on_each = lambda link: link.hold()
    user.link.data_received(zmtp.encode([b"1"]) + zmtp.encode([b"2"]))
    assert harness.owner.take() == [("message", 1, [b"1"])]
    assert not user.is_reading()
    user.link.data_received(zmtp.encode([b"3"]))
    harness.loop.turn()
    assert harness.owner.take() == []
    harness.owner.on_each = lambda _: None
    user.link.release()
    user.link.release()
    harness.loop.turn()
    assert harness.owner.take() == [("message", 1, [b"2"]), ("message", 1, [b"3"])]
    assert user.is_reading()


def test_one_that_is_held_again_in_its_turn_stays_unread() -> None:
    harness = EndpointHarness()
    user = harness.user()
    harness.owner.on_each = lambda link: link.hold()
    user.link.data_received(zmtp.encode([b"1"]) * 2)
    user.link.release()
    harness.loop.turn()
    assert len(harness.owner.take()) == 2
    assert not user.is_reading()


def test_what_its_owner_closes_is_heard_no_more() -> None:
    harness = EndpointHarness()
    user = harness.user()
    harness.owner.on_each = lambda link: link.close("enough")
    user.link.data_received(zmtp.encode([b"1"]) * 2)
    assert harness.owner.take() == [("message", 1, [b"1"])]
    lost(user)
    assert harness.owner.take() == [("gone", 1, "enough")]


def test_of_one_that_is_closed_while_it_waits_nothing_is_heard() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.link.data_received(zmtp.encode([b"1"]) * (FRAMES_AT_ONCE + 1))
    user.link.close("enough")
    harness.owner.take()
    harness.loop.turn()
    assert harness.owner.take() == []


def test_pings_of_one_that_does_not_read_end_it() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.is_blocked = True
    assert user.link.offer(bytes(LIMITS.queue_bytes + 1))
    user.link.pause_writing()
    written = len(user.written)
    ping, pong = zmtp.command(b"PING", bytes(2 + 16)), zmtp.command(b"PONG", bytes(16))
    for _ in range(ANSWERS_BYTES // len(pong)):
        user.link.data_received(ping)
    # They wait together: written one by one they would cost several times their size.
    assert (len(user.written), user.link.is_closing) == (written, False)
    user.link.data_received(ping)
    lost(user)
    assert harness.owner.take() == [("gone", 1, "it does not read what it is answered")]


def test_answers_that_wait_for_a_full_queue_leave_with_the_next_message_or_when_it_is_empty() -> None:
    harness = EndpointHarness()
    user = harness.user()
    ping, pong = zmtp.command(b"PING", bytes(2)), zmtp.command(b"PONG", b"")
    user.link.pause_writing()
    user.link.data_received(ping * 3)
    assert user.written == []
    assert user.link.offer(b"message")
    assert user.written == [pong * 3, b"message"]
    user.link.data_received(ping)
    assert user.link.offer_parts([b"in ", b"parts"])
    assert user.written[2:] == [pong, b"in parts"]
    user.link.data_received(ping)
    user.link.resume_writing()
    assert user.written[4:] == [pong]
    user.link.pause_writing()
    user.link.data_received(ping)
    user.link.close("enough")
    assert user.written[5:] == [pong]
    user.link.resume_writing()
    assert user.written[6:] == []


def test_an_empty_queue_takes_any_one_message_and_a_queue_its_limit() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.is_blocked = True
    assert user.link.offer(bytes(60_000))
    assert not user.link.offer(bytes(40_001))
    assert user.link.offer(bytes(40_000))
    assert (user.link.sent_messages, user.link.refused_messages) == (2, 1)
    assert user.link.queued_bytes == harness.endpoint.queued_bytes == 100_000
    user.drain()
    assert harness.owner.take() == [("room", 1)]
    assert user.link.offer(bytes(1_000_000))


def test_the_last_words_are_added_whatever_waits_and_to_nobody_who_is_gone() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.is_blocked = True
    assert user.link.offer(bytes(100_000))
    assert not user.link.offer(b"word")
    user.link.append(b"word")
    assert user.link.queued_bytes == harness.endpoint.queued_bytes == 100_004
    user.link.close("the end")
    user.link.append(b"too late")
    lost(user)
    user.link.append(b"too late")
    assert user.link.sent_messages == 2


def test_below_the_high_water_nobody_is_told_of_room() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.is_blocked = True
    assert user.link.offer(bytes(HIGH_WATER_BYTES))
    user.drain()
    assert harness.owner.take() == []


def test_room_during_the_handshake_is_nobodys() -> None:
    harness = EndpointHarness()
    transport = harness.connected()
    transport.link.pause_writing()
    transport.link.resume_writing()
    assert harness.owner.take() == []


def test_a_message_in_parts_is_queued_or_refused_like_any_other() -> None:
    harness = EndpointHarness()
    user = harness.user()
    user.is_blocked = True
    assert user.link.offer_parts([bytes(30_000), b"", bytes(30_000)])
    assert not user.link.offer_parts([bytes(40_000), b"x"])
    assert user.link.offer_parts([bytes(40_000)])
    assert (user.link.sent_messages, user.link.refused_messages) == (2, 1)
    assert harness.endpoint.links[1].counted_queue_bytes == 100_000
    lost(user)
    assert not user.link.offer_parts([b"late"])


def test_an_empty_queue_takes_any_one_message_in_parts() -> None:
    user = EndpointHarness().user()
    assert user.link.offer_parts([b"head", bytes(1_000_000)])
    assert user.written == [b"head" + bytes(1_000_000)]
