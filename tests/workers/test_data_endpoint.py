"""A program's messages go to the part of the worker that their heads name, over one connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
import pytest

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.data_heads import NotUnderstoodError, Use
from rlpx.protocol.bus.link import LINGER_SECONDS, Link
from rlpx.protocol.settings import ResponderSettings
from rlpx.workers.data_endpoint import DataEndpoint, Place
from tests.fake_endpoint import FakeLoop, FakeSocket, FakeTransport, greeting, lost, ready


class RecordingPart:
    """A part that keeps what it is told, and cannot read the head `bad`."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_message(self, link: Link, frames: list[bytes]) -> str | None:
        self.told.append((link.number, *frames))
        if b"bad" in frames[0]:
            raise NotUnderstoodError("not understood: bad")
        return "cannot be done" if b"refused" in frames[0] else None

    def refuse(self, link: Link, frames: list[bytes], text: str) -> str | None:
        self.told.append((link.number, "refused", *frames))
        return text

    def on_room(self, link: Link) -> None:
        self.told.append((link.number, "room"))

    def on_gone(self, link: Link) -> None:
        self.told.append((link.number, "gone"))


class Harness:
    """An endpoint with two parts, in a world that a test plays."""

    def __init__(self, most: int = 8) -> None:
        self.loop = FakeLoop()
        self.listening = FakeSocket()
        self.responders, self.feeds = RecordingPart(), RecordingPart()
        self.refused: list[str] = []
        parts = {Use.RESPONDER: self.responders, Use.FEED: self.feeds}
        clockwork = Clockwork(self.loop, lambda: 0.0, lambda: True)
        self.data = DataEndpoint(ResponderSettings(max_connections=most), clockwork, parts, self.on_refused)
        self.data.endpoint.listen(self.listening, "ipc")

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        self.refused.append(f"{times} from {remote}: {cause}")

    def arrives(self) -> None:
        self.listening.accepts.append("")
        self.loop.readers[self.listening.fileno()]()

    def program(self) -> FakeTransport:
        self.arrives()
        transport = self.loop.transports[-1]
        transport.link.data_received(greeting() + ready(b"DEALER"))
        transport.written.clear()
        return transport


@pytest.fixture
def harness() -> Harness:
    return Harness()


def says(transport: FakeTransport, *frames: bytes) -> None:
    transport.link.data_received(zmtp.encode(frames))


def errors(transport: FakeTransport) -> list[str]:
    """The errors that a program has been told."""
    found = [orjson.loads(zmtp.decode(wire)[0])["error"] for wire in transport.written]
    transport.written.clear()
    return found


def test_a_message_goes_to_the_part_that_its_head_names(harness: Harness) -> None:
    program = harness.program()
    says(program, b'{"register": []}')
    says(program, b'{"feed": 1}', b"payload")
    says(program, b'{"token": 7}', b"answer", b"more")
    assert harness.responders.told == [(1, b'{"register": []}'), (1, b'{"token": 7}', b"answer", b"more")]
    assert harness.feeds.told == [(1, b'{"feed": 1}', b"payload")]
    assert errors(program) == []


def test_what_no_part_does_or_understands_is_told(harness: Harness) -> None:
    program = harness.program()
    says(program, b'{"jsonrpc": "2.0"}')
    says(program, b'{"feed": "refused"}')
    says(program, b'{"feed": "bad"}')
    says(program, b"nonsense")
    assert errors(program) == [
        "this worker does not do that",
        "cannot be done",
        "not understood: bad",
        "not understood: expected a JSON object with one of the keys register, token, feed, jsonrpc; got nonsense",
    ]


def test_every_part_hears_of_room_and_of_ends(harness: Harness) -> None:
    program = harness.program()
    program.is_blocked = True
    program.link.offer(bytes(100_000))
    program.drain()
    lost(program)
    assert harness.responders.told == harness.feeds.told == [(1, "room"), (1, "gone")]


def test_programs_are_bounded_in_number() -> None:
    harness = Harness(most=2)
    harness.program()
    harness.program()
    harness.arrives()
    assert harness.refused == ["1 from ipc: 2 connections are open, which is the limit"]


def test_what_nobody_uses_of_an_endpoint_changes_nothing(harness: Harness) -> None:
    program = harness.program()
    harness.data.on_subscribed(program.link, b"")
    harness.data.on_cancelled(program.link, b"")
    assert (harness.responders.told, harness.feeds.told) == ([], [])
    harness.data.close()
    assert (program.closing, program.aborted) == (True, False)


def test_at_its_end_programs_may_read_what_waits_for_them_and_only_then_are_gone(harness: Harness) -> None:
    program, deaf = harness.program(), harness.program()
    harness.data.close()
    assert program.closing
    lost(program)
    assert not harness.data.programs_gone.is_set()
    harness.loop.advance(LINGER_SECONDS)
    assert deaf.aborted
    lost(deaf)
    assert harness.data.programs_gone.is_set()


def test_without_programs_the_end_is_at_once(harness: Harness) -> None:
    harness.data.close()
    assert harness.data.programs_gone.is_set()


async def test_a_replacement_takes_over_the_socket(tmp_path: Path) -> None:
    clockwork = Clockwork(asyncio.get_running_loop(), monotonic, lambda: True)
    path, settings = str(tmp_path / "worker-0.ipc"), ResponderSettings()
    for _ in range(2):
        data = DataEndpoint(settings, clockwork, {}, Harness().on_refused)
        data.start(Place(path))
        data.close()
    with pytest.raises(OSError, match="No such file"):
        DataEndpoint(settings, clockwork, {}, Harness().on_refused).start(Place("/nowhere/at/all"))
