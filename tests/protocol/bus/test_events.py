"""Events: what is written by hand is what its struct is, and the schema of all knows every topic."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.bus import events
from rlpx.protocol.bus.control import SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.events import LIFECYCLE, Event, MessageEvent, TapEvent, event_type
from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from tests.generated import examples

VIEW = SessionView(SessionId(7), WorkerId(1), Direction.INBOUND, "1.2.3.4:5", 1000, 0.0, peer=b"\xab" * 64)
numbers = st.integers(0, (1 << 63) - 1)


@examples(50)
@given(numbers, numbers, numbers, st.none() | st.integers(0, (1 << 64) - 1))
def test_the_json_of_a_message_is_that_of_its_struct(time_us: int, session: int, size: int, request_id: int | None) -> None:
    start = events.message_start(time_us, session, "ab" * 64)
    message = MessageEvent(time_us, session, "ab" * 64, size, 9, 69, request_id)
    assert events.message_json(start, size, 9, 69, request_id).encode() == msgspec.json.encode(message)
    tapped = TapEvent(time_us, session, "ab" * 64, size, 69, request_id)
    assert events.tap_json(start, size, 69, request_id).encode() == msgspec.json.encode(tapped)


def test_an_established_session_is_its_object_behind_the_time() -> None:
    shown = VIEW.shown(SessionStats())
    event = msgspec.to_builtins(events.established(5, shown))
    assert list(event) == ["time_us", *SessionObject.__struct_fields__]
    assert event == {"time_us": 5, **msgspec.to_builtins(shown)}


def test_an_opening_is_known_from_its_end() -> None:
    closed = events.SessionClosed(
        time_us=5,
        session=7,
        peer=None,
        direction=Direction.INBOUND,
        remote="1.2.3.4:5",
        worker=1,
        stage=Stage.AUTH,
        ended_by=EndedBy.US,
        reason=None,
        cause="words",
        duration_ms=1,
        bytes_in=0,
        bytes_out=0,
        messages_in=0,
        messages_out=0,
    )
    opened = events.opened_of(closed)
    ended = msgspec.to_builtins(closed)
    assert msgspec.to_builtins(opened) == {name: ended[name] for name in type(opened).__struct_fields__}


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("session.opened", events.SessionOpened),
        ("eth.Transactions", MessageEvent),
        ("wit.3", MessageEvent),
        ("tap.eth.Transactions", TapEvent),
    ],
)
def test_a_topic_has_a_struct(topic: str, kind: type[Event]) -> None:
    assert event_type(topic) is kind


def test_the_schema_has_every_topic_and_every_reference_leads_somewhere() -> None:
    schema = events.schema()
    assert set(schema["properties"]) == set(LIFECYCLE)
    text = msgspec.json.encode(schema).decode()
    named = {part.partition('"')[0] for part in text.split("#/$defs/")[1:]}
    assert named <= set(schema["$defs"])
    assert schema["$defs"]["SessionClosed"]["properties"]["ended_by"] == {"$ref": "#/$defs/EndedBy"}


def test_every_event_begins_with_its_time() -> None:
    kinds: list[type[msgspec.Struct]] = [*LIFECYCLE.values(), MessageEvent, TapEvent]
    assert {kind.__struct_fields__[0] for kind in kinds} == {"time_us"}
