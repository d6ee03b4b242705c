from __future__ import annotations

import pytest

from rlpx.engine.client.joining import Snapshot
from rlpx.engine.client.presence import EndpointError
from rlpx.engine.overview.follower import (
    Changes,
    Follower,
    History,
    Listing,
    Lost,
    Metrics,
    Place,
    Said,
    Status,
    apply,
)
from rlpx.engine.overview.overview import Overview
from tests.engine.overview.objects import RUN, ended, session_object, status

COUNTS = ("messages_in", "messages_out", "bytes_in", "bytes_out")


def test_what_the_engine_said_is_added_to_the_overview() -> None:
    overview = Overview()
    apply(overview, Changes([Snapshot(RUN, [session_object(1)])]), now=0.0)
    counters = {"messages": [{"capability": "eth/69", "message": "Status", **dict.fromkeys(COUNTS, 1)}]}
    for now in (0.0, 1.0):
        worker = {"process": {"pid": 7, "cpu_seconds": now / 2}, "counters": counters if now else {"messages": []}}
        said: list[Said] = [
            Status(status()),
            Metrics({"engine": {"process": {"pid": 6, "cpu_seconds": 1.0}}, "workers": [worker], "ended": {"messages": []}}),
            History([ended(9)]),
            Listing([session_object(1, bytes_in=int(now) * 100)]),
        ]
        for item in said:
            apply(overview, item, now=now)
    row = overview.sessions.get(1)
    assert row is not None
    assert row.rate_in == 100
    assert [kind.message for kind in overview.traffic.kinds()] == ["Status"]
    assert overview.traffic.cpu_shares() == {6: 0.0, 7: 0.5}
    assert overview.ends.find(9) is not None
    apply(overview, Lost("gone"), now=2.0)
    assert overview.cause == "gone"


def test_the_places_of_a_run_directory() -> None:
    place = Place.of("/run/e")
    assert (place.control, place.events) == ("ipc:///run/e/control.ipc", "ipc:///run/e/events.ipc")
    assert place.worker(3) == "ipc:///run/e/worker-3.ipc"


@pytest.mark.parametrize(
    ("connect", "events", "found"),
    [
        ("ipc:///run/e/control.ipc", None, "ipc:///run/e/events.ipc"),
        ("tcp://10.0.0.5:5555", None, "tcp://10.0.0.5:5556"),
        ("tcp://[2001:db8::1]:5555", None, "tcp://[2001:db8::1]:5556"),
        ("tcp://10.0.0.5:5555", "tcp://10.0.0.5:7000", "tcp://10.0.0.5:7000"),
    ],
)
def test_the_events_are_beside_the_commands(connect: str, events: str | None, found: str) -> None:
    assert Place.of(None, connect, events, "k").events == found


@pytest.mark.parametrize(
    ("tcp", "found"),
    [
        (None, None),
        ("tcp://10.0.0.9:5600", "tcp://10.0.0.9:5600"),
        ("tcp://0.0.0.0:5601", "tcp://10.0.0.5:5601"),
        ("tcp://[::]:5601", "tcp://10.0.0.5:5601"),
    ],
)
def test_a_worker_is_reached_over_tcp_where_status_says(tcp: str | None, found: str | None) -> None:
    assert Place.of(None, "tcp://10.0.0.5:5555").worker(0, tcp) == found


def test_a_text_that_is_no_endpoint_is_refused() -> None:
    with pytest.raises(EndpointError, match="nonsense"):
        Place.of(None, "nonsense")


def test_without_an_engine_it_says_so_and_waits() -> None:
    said: list[Said] = []
    follower = Follower(Place("ipc:///nowhere/control.ipc", "ipc:///nowhere/events.ipc"), said.append)
    follower.start()
    while not said:
        pass
    follower.stop()
    assert isinstance(said[0], Lost)
    assert "no engine at ipc:///nowhere/control.ipc" in said[0].cause


def test_a_follower_that_was_not_started_can_be_stopped() -> None:
    Follower(Place("ipc:///nowhere/control.ipc", "ipc:///nowhere/events.ipc"), print).stop()
