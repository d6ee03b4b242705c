"""Our requests of one peer: booked under ids of ours, answered, failed, or given up."""

from __future__ import annotations

import pytest

from rlpx.protocol.errors import ErrorName, UsageError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.lifecycle import Conduct
from rlpx.protocol.rlpx.capabilities import share
from rlpx.protocol.session.events import Answered, Event, Misconduct, RequestFailed
from rlpx.protocol.session.own_requests import OwnRequests
from rlpx.protocol.session.requests import MAX_IN_FLIGHT, RequestId
from tests.pair import encoded

PROTOCOL = eth.sub_protocol(69)
TABLE = message_table(share((PROTOCOL,), (PROTOCOL.capability,)))
GET_HEADERS, HEADERS, BODIES = (TABLE.find("eth", number) for number in (0x03, 0x04, 0x06))


def test_an_answer_comes_back_under_the_id_that_its_caller_used() -> None:
    requests, events = OwnRequests(), list[Event]()
    request_id, payload = requests.begin(GET_HEADERS, encoded([7, [1]]), now=0.0)
    assert payload == encoded([request_id, [1]])
    requests.on_response(HEADERS, (request_id, encoded([request_id, []])), events, now=1.0)
    assert events == [Answered(request_id, HEADERS, encoded([7, []]))]


def test_an_answer_of_another_kind_is_a_failure_and_misconduct() -> None:
    requests, events = OwnRequests(), list[Event]()
    request_id, _ = requests.begin(GET_HEADERS, encoded([7, [1]]), now=0.0)
    requests.on_response(BODIES, (request_id, encoded([request_id, []])), events, now=1.0)
    text = "eth.BlockBodies as the answer to eth.GetBlockHeaders"
    assert events == [RequestFailed(request_id, ErrorName.BAD_RESPONSE, text), Misconduct(Conduct.BAD_MESSAGE, text)]


def test_a_raw_request_excuses_one_response_that_nobody_asked_for() -> None:
    requests, events = OwnRequests(), list[Event]()
    requests.count_raw()
    requests.on_response(HEADERS, (7, encoded([7, []])), events, now=1.0)
    assert events == []
    requests.on_response(HEADERS, (7, encoded([7, []])), events, now=1.0)
    assert events == [Misconduct(Conduct.BAD_MESSAGE, "eth.BlockHeaders that nobody asked for")]


def test_what_was_never_asked_can_be_given_up_in_every_way() -> None:
    requests, events = OwnRequests(), list[Event]()
    requests.forget(RequestId(3))
    requests.cancel(RequestId(3))
    requests.expire(events, now=1000.0)
    requests.abandon("over", events)
    assert events == []


def test_what_is_no_request_or_has_no_id_is_not_booked() -> None:
    requests = OwnRequests()
    with pytest.raises(UsageError, match=r"eth\.BlockHeaders is no request"):
        requests.begin(HEADERS, encoded([7, []]), now=0.0)
    with pytest.raises(UsageError, match="payload: "):
        requests.begin(GET_HEADERS, b"\x07", now=0.0)
    assert not requests.book


def test_the_late_answer_to_a_request_that_others_have_evicted_is_no_misconduct_once() -> None:
    requests, events = OwnRequests(), list[Event]()
    given_up = [requests.begin(GET_HEADERS, encoded([7, [1]]), now=0.0)[0] for _ in range(MAX_IN_FLIGHT)]
    for request_id in given_up:
        requests.cancel(request_id)
    # Two others take the places of the first two.
    last = [requests.begin(GET_HEADERS, encoded([8, [1]]), now=1.0)[0] for _ in range(2)][-1]
    for request_id in given_up:
        requests.on_response(HEADERS, (request_id, encoded([request_id, []])), events, now=2.0)
    assert events == []
    for request_id in (given_up[0], RequestId(last + 1)):
        requests.on_response(HEADERS, (request_id, encoded([request_id, []])), events, now=2.0)
    assert [type(event) for event in events] == [Misconduct, Misconduct]
    requests.on_response(HEADERS, (last, encoded([last, []])), events, now=2.0)
    assert events[-1] == Answered(last, HEADERS, encoded([8, []]))
