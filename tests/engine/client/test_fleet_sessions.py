"""The filter on lives from the stream knows of each session what its earlier events have said."""

from __future__ import annotations

from typing import Any

import msgspec

from rlpx.engine.client.fleet_items import HostEvent
from rlpx.engine.client.fleet_sessions import SessionFilter
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, DIAL_FAILED, ESTABLISHED, OPENED
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.lifecycle import Direction, Stage


def event(topic: str, session: int = 1, host: str = "a", **fields: Any) -> HostEvent:
    return HostEvent(topic, 0, {"session": session, "peer": None, **fields}, b"", "run", 0, host)


def established(session: int = 1, client: str = "Geth/1", host: str = "a", direction: str = "inbound") -> HostEvent:
    return event(ESTABLISHED, session, host, peer="ab", client=client, shared=["eth/69"], direction=direction)


def shown(session: int, client: str) -> SessionObject:
    given = {"session": session, "peer": "ab", "direction": Direction.INBOUND, "phase": "active", "stage": Stage.ACTIVE}
    given |= {"worker": 0, "remote": "", "client": client, "capabilities": (), "shared": ("eth/69",), "opened_us": 0}
    numbers = ("bytes_in", "bytes_out", "messages_in", "messages_out", "queued_bytes")
    others = {field.name: None for field in msgspec.structs.fields(SessionObject)}
    return SessionObject(**{**others, **dict.fromkeys(numbers, 0), **given})  # type: ignore[arg-type]  # by their names


def test_the_end_of_a_session_matches_what_its_establishment_has_said() -> None:
    found = SessionFilter(Where(client="Geth"))
    assert not found.passes(event(OPENED, direction="inbound"))
    assert found.passes(established())
    assert not found.passes(established(2, "Reth"))
    # The same number at another host is another session.
    assert not found.passes(event(CLOSED, host="b", direction="inbound"))
    assert found.passes(event(CLOSED, peer="ab", direction="inbound"))
    assert not found.passes(event(CLOSED, peer="ab", direction="inbound"))


def test_a_proof_has_the_direction_of_its_opening() -> None:
    found = SessionFilter(Where(direction=Direction.OUTBOUND))
    assert found.passes(event(OPENED, direction="outbound"))
    assert found.passes(event(AUTHENTICATED, peer="ab"))
    assert not found.passes(event(AUTHENTICATED, 2, peer="ab"))


def test_a_snapshot_says_who_is_there_and_a_lost_host_is_forgotten() -> None:
    found = SessionFilter(Where(client="Geth"))
    assert [one.session for one in found.begin("a", [shown(1, "Geth/1"), shown(2, "Reth")])] == [1]
    assert found.passes(event(CLOSED, 1, peer="ab", direction="inbound"))
    found.begin("a", [shown(3, "Geth/1")])
    found.forget("a")
    assert not found.passes(event(CLOSED, 3, peer="ab", direction="inbound"))


def test_what_only_engines_know_has_no_client() -> None:
    failed = event(DIAL_FAILED, peer="abcd", enode=None)
    assert SessionFilter(Where(peer="abc")).passes(failed)
    assert not SessionFilter(Where(peer="ff")).passes(failed)
    assert not SessionFilter(Where(client="Geth")).passes(failed)
    assert not SessionFilter(Where(session=(2,))).passes(event("worker.started"))


def test_filters_of_messages_alone_let_every_life_through() -> None:
    found = SessionFilter(Where(sample=2, min_size=1))
    assert found.passes(event(CLOSED, direction="inbound"))
    assert found.begin("a", [shown(1, "Geth")])[0].session == 1
