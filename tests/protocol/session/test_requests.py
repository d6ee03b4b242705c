"""Requests of ours: ids, the adaptive timeout, late and wrong answers, and a session that asks."""

from __future__ import annotations

import math
from os import urandom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import DisconnectReason, NotSharedError, QueueFullError, UsageError
from rlpx.protocol.eth.kinds import MessageKind, message_table
from rlpx.protocol.lifecycle import Conduct, Stage
from rlpx.protocol.rlpx.capabilities import Capability, Shared, SubProtocol
from rlpx.protocol.rlpx.p2p import inflate
from rlpx.protocol.session.events import Answered, Closed, MessageReceived, Misconduct, RequestFailed
from rlpx.protocol.session.requests import (
    BREACH_SECONDS,
    INITIAL_TIMEOUT_SECONDS,
    MAX_IN_FLIGHT,
    MAX_TIMEOUT_SECONDS,
    MIN_TIMEOUT_SECONDS,
    RequestId,
    Requests,
)
from rlpx.protocol.settings import TimeoutSettings
from tests.pair import ETH, NOBODY, OFFER, PONG, PROTOCOLS, RawPeer, Rlp, SessionSpec, encoded

TABLE = message_table((Shared(Capability("eth", 69), 16, 18), Shared(Capability("snap", 1), 34, 8)))


def kind(name: str, message: int) -> MessageKind:
    return TABLE.find(name, message)


GET_HEADERS, HEADERS, BODIES = kind("eth", 3), kind("eth", 4), kind("eth", 6)
GET_ACCOUNTS, ACCOUNTS = kind("snap", 0), kind("snap", 1)


def test_ids_count_up_over_all_capabilities() -> None:
    requests = Requests()
    assert [requests.begin(GET_HEADERS, 7, now=0), requests.begin(GET_ACCOUNTS, 7, now=0)] == [0, 1]
    assert len(requests) == 2


def test_an_answer_gives_its_request_once() -> None:
    requests = Requests()
    request = requests.begin(GET_HEADERS, 7, now=0)
    answered = requests.answered(request, HEADERS, now=1)
    assert answered is not None
    assert (answered.original_id, answered.kind) == (7, GET_HEADERS)
    assert requests.answered(request, HEADERS, now=1) is None


@pytest.mark.parametrize(("rtt", "expected"), [(5.0, 15.0), (0.0, MIN_TIMEOUT_SECONDS), (100.0, MAX_TIMEOUT_SECONDS)])
def test_the_timeout_settles_at_three_round_trips_within_its_bounds(rtt: float, expected: float) -> None:
    requests = Requests()
    for index in range(200):
        request = requests.begin(GET_HEADERS, 0, now=index * 1000)
        requests.answered(request, HEADERS, now=index * 1000 + rtt)
    assert requests.timeout_seconds == pytest.approx(expected, rel=1e-6)


def test_one_answer_moves_the_timeout_exactly() -> None:
    requests = Requests()
    requests.answered(requests.begin(GET_HEADERS, 0, now=0), HEADERS, now=0.05)
    assert requests.timeout_seconds == pytest.approx(0.9 * 20 + 0.3 * 0.05)


def test_from_twenty_seconds_a_quick_peer_takes_23_answers_to_two() -> None:
    requests = Requests()
    count = 0
    while requests.timeout_seconds > MIN_TIMEOUT_SECONDS:
        requests.answered(requests.begin(GET_HEADERS, 0, now=0), HEADERS, now=0.05)
        count += 1
    assert count == 23


def test_a_wrong_kind_takes_the_request_and_says_nothing_of_the_round_trip() -> None:
    requests = Requests()
    answered = requests.answered(requests.begin(GET_HEADERS, 0, now=0), BODIES, now=0.1)
    assert answered is not None
    assert requests.timeout_seconds == INITIAL_TIMEOUT_SECONDS


def test_a_request_times_out_once_then_breaches_once() -> None:
    requests = Requests()
    request = requests.begin(GET_HEADERS, 0, now=10)
    assert requests.deadline == 30
    assert requests.expire(now=29.9) == ([], False)
    expired, is_breach = requests.expire(now=30)
    assert ([pending.id for pending in expired], is_breach) == ([request], False)
    assert requests.deadline == 10 + BREACH_SECONDS
    assert requests.expire(now=10 + BREACH_SECONDS - 1) == ([], False)
    assert requests.expire(now=10 + BREACH_SECONDS) == ([], True)
    assert requests.deadline == math.inf
    assert requests.expire(now=1000) == ([], False)


def test_a_late_answer_of_any_kind_is_no_fault_and_still_tells_the_round_trip() -> None:
    requests = Requests()
    request = requests.begin(GET_HEADERS, 0, now=0)
    requests.expire(now=20)
    late = requests.answered(request, BODIES, now=25)
    assert late is not None
    assert late.has_timed_out
    assert requests.timeout_seconds == MAX_TIMEOUT_SECONDS


def test_what_waits_at_the_end_is_told_and_what_timed_out_is_not_told_again() -> None:
    requests = Requests()
    requests.begin(GET_HEADERS, 0, now=0)
    requests.expire(now=20)
    waiting = requests.begin(GET_HEADERS, 0, now=20)
    assert [pending.id for pending in requests.abandon()] == [waiting]
    assert len(requests) == 0


@given(rtts=st.lists(st.floats(0, 1000), max_size=100))
def test_the_timeout_never_leaves_its_bounds(rtts: list[float]) -> None:
    requests = Requests()
    for rtt in rtts:
        requests.answered(requests.begin(GET_HEADERS, 0, now=0), HEADERS, now=rtt)
        assert MIN_TIMEOUT_SECONDS <= requests.timeout_seconds <= MAX_TIMEOUT_SECONDS


# -- a session that asks ----------------------------------------------------------------------------------------------------

GET = encoded([77, [100, 1, 0, 0]])


def asking() -> RawPeer:
    """A peer that has one request of ours, with id 0, and nobody reading its messages."""
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    assert peer.session.request("eth", 3, GET, now=peer.clock.now) == 0
    return peer


def test_the_wire_has_our_id_and_the_asker_gets_its_own_back() -> None:
    peer = asking()
    code, asked = peer.hears()[-1]
    assert (code, inflate(asked, 100)) == (ETH + 3, encoded([0, [100, 1, 0, 0]]))
    [event] = peer.says(ETH + 4, encoded([0, [[b"\x01"]]]))
    assert isinstance(event, Answered)
    assert (event.request, event.kind.name, event.payload) == (0, "BlockHeaders", encoded([77, [[b"\x01"]]]))


def test_whoever_reads_the_topic_sees_the_answer_as_well() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.session.request("eth", 3, GET, now=peer.clock.now)
    assert [type(event) for event in peer.says(ETH + 4, encoded([0, []]))] == [MessageReceived, Answered]


def test_an_answer_of_another_kind_fails_the_request_and_is_told() -> None:
    peer = asking()
    failed, told = peer.says(ETH + 6, encoded([0, []]))
    assert isinstance(failed, RequestFailed)
    assert (failed.request, failed.name) == (0, "bad_response")
    assert isinstance(told, Misconduct)
    assert told.conduct is Conduct.BAD_MESSAGE
    assert peer.session.stage is Stage.ACTIVE


SNAP = ETH + 18


@pytest.mark.parametrize(
    ("request_of", "answer"),
    [
        pytest.param(("snap", 0), SNAP + 3, id="storage for accounts"),
        pytest.param(("eth", 5), SNAP + 1, id="snap for eth"),
        pytest.param(("snap", 0), ETH + 6, id="eth for snap"),
    ],
)
def test_a_wrong_answer_is_told_of_snap_as_of_eth(request_of: tuple[str, int], answer: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    request = peer.session.request(*request_of, encoded([77, []]), now=peer.clock.now)
    failed, told = peer.says(answer, encoded([request, [], []]))
    assert isinstance(failed, RequestFailed)
    assert (failed.request, failed.name) == (request, "bad_response")
    assert isinstance(told, Misconduct)
    # It is over: the right one comes too late to be anybody's.
    assert [type(event) for event in peer.says(answer, encoded([request, [], []]))] == [Misconduct]
    assert peer.session.stage is Stage.ACTIVE


def test_a_snap_request_counts_on_from_eths_and_its_asker_gets_its_own_id_back() -> None:
    peer = asking()
    request = peer.session.request("snap", 0, encoded([2**64 - 1, b"\x11" * 32]), now=peer.clock.now)
    code, asked = peer.hears()[-1]
    assert (request, code, inflate(asked, 100)) == (1, SNAP, encoded([1, b"\x11" * 32]))
    [event] = peer.says(SNAP + 1, encoded([1, [], []]))
    assert isinstance(event, Answered)
    assert (event.request, event.kind.topic, event.payload) == (1, "snap.AccountRange", encoded([2**64 - 1, [], []]))
    assert [type(event) for event in peer.says(SNAP + 1, encoded([1, [], []]))] == [Misconduct]


def test_snap_may_be_late_and_may_be_in_breach() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    late, never = (peer.session.request("snap", 0, encoded([77, []]), now=peer.clock.now) for _ in range(2))
    failed = [event for event in peer.waits(INITIAL_TIMEOUT_SECONDS) if isinstance(event, RequestFailed)]
    assert [(event.request, event.name) for event in failed] == [(late, "timed_out"), (never, "timed_out")]
    assert peer.says(SNAP + 1, encoded([late, [], []])) == []
    peer.says(PONG)
    told = peer.waits(BREACH_SECONDS - INITIAL_TIMEOUT_SECONDS)
    assert [event.conduct for event in told if isinstance(event, Misconduct)] == [Conduct.BREACH]


@pytest.mark.parametrize("name", ["aaa", "less", "wit"])
def test_snap_is_asked_wherever_a_capability_of_the_users_has_its_codes(name: str) -> None:
    own = Capability(name, 1)
    peer = RawPeer.at(
        Stage.ACTIVE, SessionSpec(protocols=(*PROTOCOLS, SubProtocol(own, 5)), interest=NOBODY), offer=(*OFFER, own)
    )
    request = peer.session.request("snap", 0, encoded([77, []]), now=peer.clock.now)
    code, _ = peer.hears()[-1]
    assert code == {"aaa": SNAP + 5, "less": SNAP + 5, "wit": SNAP}[name]
    [event] = peer.says(code + 1, encoded([request, [], []]))
    assert isinstance(event, Answered)
    assert event.payload == encoded([77, [], []])


@pytest.mark.parametrize(
    ("offer", "capability", "message"),
    [
        pytest.param(Capability("eth", 69), "snap", 0, id="snap without snap"),
        pytest.param(Capability("eth", 67), "eth", 0x0D, id="node data of eth/67"),
        pytest.param(Capability("eth", 70), "eth", 0x12, id="access lists of eth/70"),
        pytest.param(Capability("eth", 71), "eth", 0x14, id="cells of eth/71"),
    ],
)
def test_what_the_negotiated_version_lacks_is_never_asked(offer: Capability, capability: str, message: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY), offer=(offer,))
    peer.hears()
    with pytest.raises(NotSharedError):
        peer.session.request(capability, message, encoded([77, []]), now=peer.clock.now)
    assert peer.hears() == []
    # Nor is there anything that could time out, or take an id.
    assert not [event for event in peer.waits(INITIAL_TIMEOUT_SECONDS) if isinstance(event, RequestFailed)]
    assert peer.session.request("eth", 3, GET, now=peer.clock.now) == 0


@pytest.mark.parametrize(("version", "message"), [(66, 0x0D), (71, 0x12), (72, 0x14)])
def test_what_the_negotiated_version_has_is_asked(version: int, message: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY), offer=(Capability("eth", version),))
    request = peer.session.request("eth", message, encoded([77, []]), now=peer.clock.now)
    assert peer.hears()[-1][0] == ETH + message
    assert [type(event) for event in peer.says(ETH + message + 1, encoded([request, []]))] == [Answered]


@pytest.mark.parametrize("answer", [ETH + 4, SNAP + 1])
def test_an_answer_to_nothing_is_told(answer: int) -> None:
    peer = asking()
    [told] = peer.says(answer, encoded([5, []]))
    assert isinstance(told, Misconduct)
    assert "nobody asked for" in told.text


def test_a_request_that_times_out_fails_and_its_late_answer_is_nothing() -> None:
    peer = asking()
    peer.clock.now += INITIAL_TIMEOUT_SECONDS
    failed = [event for event in peer.session.tick(now=peer.clock.now) if isinstance(event, RequestFailed)]
    assert [(event.request, event.name) for event in failed] == [(0, "timed_out")]
    assert peer.says(ETH + 4, encoded([0, []])) == []


def test_no_answer_for_two_minutes_is_a_breach() -> None:
    peer = asking()
    told: list[object] = []
    while peer.session.deadline < math.inf and not told:
        peer.clock.now = peer.session.deadline
        told = [event for event in peer.session.tick(now=peer.clock.now) if isinstance(event, Misconduct)]
        peer.says(3, b"\xc0")
    assert told == [Misconduct(Conduct.BREACH, "no answer to a request for 120 s")]


def test_the_end_fails_what_waits_before_it_is_told() -> None:
    peer = asking()
    failed, closed = peer.session.disconnect(DisconnectReason.DISCONNECT_REQUESTED, "test")
    assert isinstance(failed, RequestFailed)
    assert (failed.name, failed.text) == ("session_ended", "test")
    assert isinstance(closed, Closed)


# What is asked, and an answer that is none to it.
MISTAKEN = [(("eth", 5), ("eth", 4)), (("eth", 3), ("snap", 1)), (("snap", 0), ("eth", 4)), (("snap", 0), ("snap", 3))]


@pytest.mark.parametrize(("asked", "answered"), MISTAKEN)
def test_an_answer_of_another_kind_takes_the_request_whatever_its_capability(
    asked: tuple[str, int], answered: tuple[str, int]
) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    request = peer.session.request(*asked, GET, now=peer.clock.now)
    failed, told = peer.says(kind(*answered).code, encoded([request, []]))
    assert isinstance(failed, RequestFailed)
    assert (failed.request, failed.name) == (request, "bad_response")
    assert isinstance(told, Misconduct)
    # The right one comes too late: the asker has been told.
    name, message = asked
    [again] = peer.says(kind(name, message + 1).code, encoded([request, []]))
    assert isinstance(again, Misconduct)
    assert peer.session.stage is Stage.ACTIVE


def test_requests_of_all_capabilities_share_their_ids_and_may_be_answered_in_any_order() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    headers = peer.session.request("eth", 3, encoded([77, []]), now=peer.clock.now)
    accounts = peer.session.request("snap", 0, encoded([77, []]), now=peer.clock.now)
    bodies = peer.session.request("eth", 5, encoded([78, []]), now=peer.clock.now)
    assert (headers, accounts, bodies) == (0, 1, 2)
    for code, request, original_id in (
        (BODIES.code, bodies, 78),
        (ACCOUNTS.code, accounts, 77),
        (HEADERS.code, headers, 77),
    ):
        [event] = peer.says(code, encoded([request, []]))
        assert isinstance(event, Answered)
        assert (event.request, event.kind.code, event.payload) == (request, code, encoded([original_id, []]))


def test_a_late_answer_of_another_kind_is_nobodys_fault() -> None:
    peer = asking()
    peer.waits(INITIAL_TIMEOUT_SECONDS)
    assert peer.says(BODIES.code, encoded([0, []])) == []


@pytest.mark.parametrize("response", [HEADERS, ACCOUNTS])
def test_a_second_answer_is_one_that_nobody_asked_for(response: MessageKind) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    request = peer.session.request(response.capability.name, response.id - 1, GET, now=peer.clock.now)
    assert [type(event) for event in peer.says(response.code, encoded([request, []]))] == [Answered]
    assert [type(event) for event in peer.says(response.code, encoded([request, []]))] == [Misconduct]


def test_each_request_that_was_sent_raw_may_have_its_answer() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    for _ in range(3):
        peer.session.send("eth", 3, GET)
    told = [event for _ in range(4) for event in peer.says(HEADERS.code, encoded([77, []]))]
    assert [type(event) for event in told] == [Misconduct]


def test_a_request_times_out_when_its_time_is_up_and_not_at_some_later_look() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(timeouts=TimeoutSettings(ping_interval_s=1000)))
    peer.session.request("eth", 3, GET, now=peer.clock.now)
    assert peer.session.deadline == peer.clock.now + INITIAL_TIMEOUT_SECONDS
    assert peer.waits(INITIAL_TIMEOUT_SECONDS - 0.001) == []
    assert [type(event) for event in peer.waits(0.001)] == [RequestFailed]


@pytest.mark.parametrize("version", [66, 67, 68, 69, 70, 71, 72])
def test_receipts_in_the_form_of_the_negotiated_version_are_the_right_answer(version: int) -> None:
    """reth keeps the asker's form beside the one on the wire, and may punish the correct answer for the difference."""
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY), offer=(Capability("eth", version),))
    receipts: list[Rlp] = [0, b"", []] if version >= 70 else [0, []]
    peer.session.request("eth", 0x0F, encoded([7, []]), now=peer.clock.now)
    assert [type(event) for event in peer.says(ETH + 0x10, encoded(receipts))] == [Answered]


@pytest.mark.parametrize(
    ("message", "versions"), [(0x0D, (66, 67)), (0x12, (71, 70)), (0x14, (72, 71))], ids=["node data", "lists", "cells"]
)
def test_what_only_some_versions_have_can_be_asked_in_those_alone(message: int, versions: tuple[int, int]) -> None:
    having, lacking = (RawPeer.at(Stage.ACTIVE, offer=(Capability("eth", version),)) for version in versions)
    having.hears()
    assert having.session.request("eth", message, GET, now=having.clock.now) == 0
    assert [code for code, _ in having.hears()] == [ETH + message]
    with pytest.raises(NotSharedError):
        lacking.session.request("eth", message, GET, now=lacking.clock.now)
    # Nothing was booked for it.
    assert lacking.session.request("eth", 3, GET, now=lacking.clock.now) == 0


def test_without_snap_nothing_of_it_can_be_asked() -> None:
    peer = RawPeer.at(Stage.ACTIVE, offer=(Capability("eth", 69),))
    with pytest.raises(NotSharedError):
        peer.session.request("snap", 0, GET, now=peer.clock.now)


def test_what_cannot_be_asked_is_refused() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    session = peer.session
    with pytest.raises(UsageError, match="is no request"):
        session.request("eth", 2, b"\xc0", now=0)
    with pytest.raises(UsageError, match="payload"):
        session.request("eth", 3, b"\xc0", now=0)
    with pytest.raises(NotSharedError):
        session.request("les", 3, GET, now=0)
    # Over a frame: refused, and its place is free again.
    with pytest.raises(UsageError, match="over the 16777215 of a frame"):
        session.request("eth", 3, encoded([1, urandom(17 * 1024 * 1024)]), now=0)
    for _ in range(MAX_IN_FLIGHT):
        session.request("eth", 3, GET, now=peer.clock.now)
    with pytest.raises(QueueFullError, match="256 requests"):
        session.request("eth", 3, GET, now=peer.clock.now)
    with pytest.raises(NotSharedError):
        RawPeer.at(Stage.STATUS).session.request("eth", 3, GET, now=0)


def test_requests_that_timed_out_do_not_stop_others_for_ever() -> None:
    requests = Requests()
    for round_ in range(3):
        for _ in range(MAX_IN_FLIGHT):
            assert not requests.is_full
            requests.begin(GET_HEADERS, 0, now=round_ * 1000)
        assert requests.is_full
        requests.expire(now=round_ * 1000 + 500)
    assert len(requests) == MAX_IN_FLIGHT


def test_the_answer_to_a_request_that_was_sent_raw_is_nobodys_fault() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    peer.session.send("eth", 3, GET)
    peer.session.send_deflated("eth", 3, b"", b"\x00")
    assert peer.says(ETH + 4, encoded([77, []])) == []
    assert peer.says(ETH + 4, encoded([77, []])) == []
    assert [type(event) for event in peer.says(ETH + 4, encoded([77, []]))] == [Misconduct]


def test_what_nobody_waits_for_any_more_ends_without_a_word() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    request = peer.session.request("eth", 3, GET, now=peer.clock.now)
    peer.session.cancel(request)
    peer.session.cancel(request)
    assert peer.waits(25.0) == []
    # Its answer is nobody's fault.
    assert peer.says(ETH + 4, encoded([request, []])) == []


def test_a_cancelled_request_frees_its_place_and_may_still_be_a_breach() -> None:
    requests = Requests()
    ids = [requests.begin(GET_HEADERS, 0, now=0.0) for _ in range(MAX_IN_FLIGHT)]
    requests.cancel(ids[0])
    assert not requests.is_full
    assert [pending.id for pending in requests.abandon()] == ids[1:]


def test_without_requests_there_is_nothing_to_cancel() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.session.cancel(RequestId(7))
    assert not peer.session.is_closed
