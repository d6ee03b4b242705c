from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from nats.aio.client import Client

from rlpx.engine.cluster.lifecycle import MEMORY_EVENTS, RETRY_SECONDS, Life, LifecycleStream, Spool
from rlpx.engine.cluster.wire import OnAnswers, Way, Wire
from rlpx.protocol.bus import zmtp
from tests.engine.fake_worker import until


def life(number: int) -> Life:
    return Life(f"run-0-session.closed-{number}", "session.closed", msgspec.Raw(b'{"session":%d}' % number))


def test_what_waits_in_the_file_comes_back_in_order_after_a_restart_too(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    assert not spool
    assert all(spool.append(life(number)) for number in range(5))
    assert [item.id for item in spool.take(2)] == [life(0).id, life(1).id]
    assert spool
    again = Spool(tmp_path / "spool")
    assert [item.id for item in again.take(9)] == [life(number).id for number in range(5)]
    assert not again
    again.clear()
    assert not (tmp_path / "spool").exists()
    assert again.append(life(7))
    assert [item.id for item in again.take(9)] == [life(7).id]


def test_a_file_that_is_full_or_cannot_be_written_takes_no_more(tmp_path: Path) -> None:
    assert not Spool(tmp_path / "spool", max_bytes=10).append(life(1))
    assert not Spool(tmp_path / "nowhere" / "spool").append(life(1))


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = Spool(path)
    spool.append(life(1))
    path.write_bytes(path.read_bytes() + b'["run-0-sess')
    assert [item.id for item in Spool(path).take(9)] == [life(1).id]


def test_a_file_that_has_gone_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = Spool(path)
    spool.append(life(1))
    path.unlink()
    assert spool.take(9) == []
    assert not spool


async def test_what_fits_neither_into_memory_nor_into_the_file_is_counted(tmp_path: Path) -> None:
    listeners: dict[bytes, Callable[[str, bytes], None]] = {}
    away = Wire("rlpx a", None, lambda: None)
    stream = LifecycleStream(Client(), away, "test", "a", Spool(tmp_path / "spool", max_bytes=200))
    stream._js = SimpleNamespace(stream_info=_found)  # type: ignore[assignment]  # noqa: SLF001 - no server answers here
    await stream.start(SimpleNamespace(listen=listeners.__setitem__), 1)  # type: ignore[arg-type]  # all that it asks of the hub
    events = ",".join(f'{{"session":{number}}}' for number in range(MEMORY_EVENTS + 10))
    head = f'{{"run":"run","worker":0,"first":1,"events":[{events}]}}'
    listeners[b"session.closed"]("session.closed", zmtp.encode([b"session.closed", head.encode(), b""]))
    await until(lambda: stream.waiting_events)
    assert stream.waiting_events == MEMORY_EVENTS
    assert 0 < stream.spool.size_bytes <= 200
    assert 0 < stream.lost_events < 10
    await stream.close(0.0)


async def _found(_name: str) -> SimpleNamespace:
    """There is such a stream."""
    return SimpleNamespace(
        config=SimpleNamespace(subjects=[f"rlpx.test.*.{kind}.*" for kind in ("session", "dial", "worker", "engine")])
    )


def test_an_event_after_a_line_that_was_cut_off_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b'["run-0-sess')
    assert Spool(path).append(life(2))
    assert [item.id for item in Spool(path).take(9)] == [life(2).id]


def test_events_are_kept_all_or_none(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=150)
    assert spool.append(life(1), life(2))
    assert not spool.append(life(3), life(4))
    assert [item.id for item in spool.take(9)] == [life(1).id, life(2).id]


class AwayWire(Wire):
    """A connection to servers that are away, and the stream when they are back."""

    def __init__(self) -> None:
        super().__init__("rlpx a", None, lambda: None)
        self.is_back = False
        self.ids: list[str] = []

    def take_answers(self, inbox: str, on_answers: OnAnswers) -> Way:
        self._on_answers = on_answers
        return super().take_answers(inbox, on_answers)

    def publish(self, _subject: bytes, reply: bytes, headers: bytes, _body: bytes) -> bool:
        if self.is_back:
            self.ids.append(headers.partition(b"Nats-Msg-Id: ")[2].decode().strip())
            confirmation = (int(reply.rpartition(b".")[2]), b'{"stream":"rlpx_test"}')
            asyncio.get_running_loop().call_soon(self._on_answers, [confirmation])
        return self.is_back


class FakeEvents:
    """The hub of an engine that publishes what the test wants."""

    def __init__(self) -> None:
        self.listeners: dict[bytes, Callable[[str, zmtp.Wire], None]] = {}

    def listen(self, topic: bytes, act: Callable[[str, zmtp.Wire], None]) -> None:
        self.listeners[topic] = act

    def close_session(self, number: int) -> None:
        head = {"run": "run", "worker": 0, "first": number, "events": [{"session": number}]}
        topic = "session.closed"
        self.listeners[topic.encode()](topic, zmtp.encode([topic.encode(), msgspec.json.encode(head)]))


@pytest.mark.loop("virtual")
async def test_what_waits_while_the_servers_are_away_is_in_the_file_even_if_the_engine_is_killed(tmp_path: Path) -> None:
    wire, events, path = AwayWire(), FakeEvents(), tmp_path / "spool"
    stream = LifecycleStream(Client(), wire, "test", "a", Spool(path))
    stream._js = SimpleNamespace(stream_info=_found)  # type: ignore[assignment]  # noqa: SLF001 - no server answers here
    await stream.start(events, servers=1)  # type: ignore[arg-type]  # all that it asks of the hub
    for number in range(3):
        events.close_session(number)
    await asyncio.sleep(RETRY_SECONDS)
    events.close_session(3)
    ids = [life(number).id for number in range(4)]
    # Whoever starts after a kill finds this.
    assert [item.id for item in Spool(path).take(9)] == ids
    wire.is_back = True
    await stream.close(10 * RETRY_SECONDS)
    assert wire.ids == ids
    assert not path.exists()
