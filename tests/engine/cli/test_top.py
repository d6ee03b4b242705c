"""`rlpx-ctl top` under Textual's pilot: what it shows, and what each key does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from rlpx.engine.cli.top import TopApp
from rlpx.engine.cli.top_screens import HelpScreen, QuestionScreen, SessionScreen
from rlpx.engine.cli.top_text import fitting
from rlpx.engine.cli.top_views import SessionList
from rlpx.engine.client.joining import Snapshot
from rlpx.engine.client.presence import EngineError
from rlpx.engine.overview.follower import Changes, Follower, Lost, Place, Status
from tests.engine.overview.objects import RUN, closed, event, opened, session_object, status

# Textual runs on asyncio's own loop.
pytestmark = pytest.mark.loop("asyncio")

HOSTILE = "[bold red]evil[/] [link=file:///etc/passwd]\x1b[31m\u202e"
NOWHERE = Place("ipc:///nowhere/control.ipc", "ipc:///nowhere/events.ipc")


class Engine:
    """Answers commands, and notes them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, **parameters: Any) -> Any:
        if method == "session":
            return session_object(parameters["session"], client=HOSTILE)
        self.calls.append((method, parameters))
        if parameters.get("session") == 1:
            raise EngineError("no_such_session", "session 1 [has] ended", -32001)
        return {"sessions": 1}


@asynccontextmanager
async def shown(
    engine: Engine, sessions: list[dict[str, Any]], size: tuple[int, int] = (140, 40)
) -> AsyncIterator[tuple[TopApp, Pilot[None]]]:
    """The program, with these sessions."""
    app = TopApp(NOWHERE, call=engine)
    async with app.run_test(size=size, notifications=True) as pilot:
        await app.take(Changes([Snapshot(RUN, sessions)]))
        await app.take(Status(status(2)))
        app.tick()
        await pilot.pause()
        yield app, pilot


@pytest.fixture(autouse=True)
def _no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests say what the engine says."""
    monkeypatch.setattr(Follower, "start", lambda _self: None)


@pytest.fixture
def engine() -> Engine:
    return Engine()


def text_of(app: TopApp) -> str:
    """The screen as text."""
    lines = app.screen._compositor.render_strips()  # noqa: SLF001 - Textual has no other way to its lines
    return "\n".join("".join(segment.text for segment in strip) for strip in lines)


async def eventually(pilot: Pilot[None], app: TopApp, text: str) -> None:
    """Wait until the screen has this text."""
    for _ in range(200):
        await pilot.pause(0.05)
        if text in text_of(app):
            return
    raise AssertionError(f"no {text!r} in\n{text_of(app)}")


async def test_it_shows_sessions_rates_workers_and_ends(engine: Engine) -> None:
    async with shown(engine, [session_object(1), session_object(2, direction="outbound")]) as (app, pilot):
        await app.take(Changes([closed(1), opened(3, remote="198.51.100.4:9")]))
        app.tick()
        await pilot.pause()
        text = text_of(app)
        for part in (
            "rlpx-engine 0.1.0",
            "live",
            "inbound 0 of 2000",
            "outbound 1 of 500",
            "in handshake 1 in 0 out",
            "Geth v1.16.2",
            "198.51.100.4:9",
            "(auth)",
            "1.5 ms",
            "peer too many peers at active: the peer said so",
            "1 to 2 of 2",
        ):
            assert part in text, (part, text)


async def test_a_hostile_name_is_text_on_every_screen(engine: Engine) -> None:
    async with shown(engine, [session_object(2, client=HOSTILE)]) as (app, pilot):
        await app.take(Changes([closed(9, cause=HOSTILE)]))
        app.tick()
        await pilot.pause()
        assert text_of(app).count("[bold red]evil[/]") == 2
        await pilot.press("d")
        await eventually(pilot, app, "Disconnect session 2")
        assert "[bold red]evil[/]" in text_of(app)
        await pilot.press("n", "enter")
        await eventually(pilot, app, "[link=file:///etc/passwd]")
        assert "\x1b[31m" not in text_of(app)
        assert "\u202e" not in text_of(app)


async def test_a_search_and_its_end(engine: Engine) -> None:
    async with shown(engine, [session_object(1), session_object(2, client="reth/v1.6.0/linux")]) as (app, pilot):
        await pilot.press("slash", *"reth")
        await eventually(pilot, app, "1 to 1 of 1 that match 'reth'")
        await pilot.press("enter")
        assert isinstance(app.focused, SessionList)
        assert "that match" in text_of(app)
        await pilot.press("slash", "escape")
        await eventually(pilot, app, "1 to 2 of 2")
        assert app.query_one(Input).value == ""


async def test_every_column_sorts_both_ways(engine: Engine) -> None:
    async with shown(engine, [session_object(1), session_object(2)]) as (app, pilot):
        columns = fitting(app.query_one(SessionList).size.width)
        for column in (*columns[1:], columns[0]):
            await pilot.press("s")
            await pilot.pause()
            assert f"{column.name}↓" in text_of(app)
        await pilot.press("r")
        await eventually(pilot, app, "session↑")
        table = app.query_one(SessionList)
        assert table.chosen is not None
        assert table.chosen.session == 1


async def test_the_cursor_moves_and_stays_on_the_screen(engine: Engine) -> None:
    async with shown(engine, [session_object(number) for number in range(1, 2001)]) as (app, pilot):
        table = app.query_one(SessionList)
        for key, session in [("down", 1999), ("j", 1998), ("up", 1999), ("end", 1), ("k", 2), ("home", 2000)]:
            await pilot.press(key)
            await pilot.pause()
            assert table.chosen is not None, key
            assert table.chosen.session == session
        await pilot.press("pagedown", "pagedown")
        await pilot.pause()
        assert table.chosen is not None
        assert 1900 < table.chosen.session < 2000
        assert "of 2000" in text_of(app)
        await app.take(Changes([Snapshot("run-2", [])]))
        app.tick()
        await pilot.pause()
        assert "0 of 0" in text_of(app)
        await pilot.press("d", "enter", "up", "down", "end")
        assert engine.calls == []


async def test_disconnect_and_ban_ask_first(engine: Engine) -> None:
    async with shown(engine, [session_object(2)]) as (app, pilot):
        for key in ("d", "b"):
            await pilot.press(key)
            await pilot.pause()
            assert isinstance(app.screen, QuestionScreen)
            await pilot.press("n")
            await pilot.pause()
        assert engine.calls == []
        await pilot.press("d", "y")
        await eventually(pilot, app, "session 2 was told to leave")
        await pilot.press("b", "y")
        await eventually(pilot, app, "is banned for 12 hours")
        assert engine.calls == [("disconnect", {"session": 2}), ("ban", {"peer": f"{2:0128x}"})]


async def test_what_cannot_be_done_is_said(engine: Engine) -> None:
    async with shown(engine, [session_object(1)]) as (app, pilot):
        await pilot.press("d", "y")
        await eventually(pilot, app, "session 1 [has] ended")
        await app.take(Changes([opened(5)]))
        app.tick()
        await pilot.pause()
        await pilot.press("home", "b")
        await eventually(pilot, app, "has not proved its id yet")


async def test_a_session_is_looked_at_live_and_acted_on(engine: Engine) -> None:
    async with shown(engine, [session_object(2)]) as (app, pilot):
        await pilot.press("t")
        await eventually(pilot, app, "203.0.113.2:30303")
        screen = app.screen
        assert isinstance(screen, SessionScreen)
        payload = bytes.fromhex("c707c50181c08080")
        head = {"time_us": 1, "session": 2, "peer": "ab", "size": len(payload), "version": 69, "request_id": 7}
        screen.tap.take("eth.GetBlockHeaders", head, payload)
        screen.tap.take("tap.eth.BlockHeaders", {**head, "time_us": 2501, "size": 3}, bytes.fromhex("c207c0"))
        await eventually(pilot, app, "← in  eth.GetBlockHeaders 8 B query start=1 limit=192")
        await eventually(pilot, app, "the peer's eth.GetBlockHeaders was answered after 2.5 ms")
        screen.tap.lose(3)
        await eventually(pilot, app, "… 3 missed")
        await pilot.press("d", "y")
        await eventually(pilot, app, "session 2 was told to leave")
        await app.take(Changes([closed(2)]))
        await eventually(pilot, app, "session 2 ended: peer too_many_peers")
        await pilot.press("d")
        await eventually(pilot, app, "there is no session here")
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, SessionScreen)


async def test_the_help_names_every_key(engine: Engine) -> None:
    async with shown(engine, []) as (app, pilot):
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        for word in ("disconnect", "ban", "search", "sort", "hold", "quit"):
            assert word in text_of(app)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, HelpScreen)


async def test_a_held_picture_stays(engine: Engine) -> None:
    async with shown(engine, [session_object(1)]) as (app, pilot):
        await pilot.press("space")
        await app.take(Changes([opened(2)]))
        app.tick()
        await pilot.pause()
        assert "1 to 1 of 1" in text_of(app)
        await pilot.press("space")
        await eventually(pilot, app, "1 to 2 of 2")


async def test_an_engine_that_is_gone_and_back(engine: Engine) -> None:
    async with shown(engine, [session_object(1)]) as (app, pilot):
        await app.take(Lost("no engine at ipc:///run/[x]/control.ipc"))
        app.tick()
        await eventually(pilot, app, "NO ANSWER for ")
        assert " s: no engine at ipc:///run/[x]/control.ipc" in text_of(app)
        await app.take(Changes([event("engine.started", run="run-2"), Snapshot("run-2", [session_object(7)])]))
        await app.take(Status(status()))
        app.tick()
        await eventually(pilot, app, "live")
        assert "1 to 1 of 1" in text_of(app)


@pytest.mark.parametrize("size", [(60, 24), (80, 24), (100, 30), (220, 60)])
async def test_no_line_is_wider_than_the_terminal(engine: Engine, size: tuple[int, int]) -> None:
    hostile = session_object(2, client="漢字" * 60 + "/v1.0", remote="[2001:db8:1:2:3:4:5:6]:65535")
    async with shown(engine, [hostile, session_object(3)], size) as (app, pilot):
        await pilot.pause()
        lines = text_of(app).splitlines()
        assert len(lines) == size[1]
        assert sum("2001:db8" in line or "漢字" in line for line in lines) == 1
        assert "Quit" in lines[-1] or size[0] < 100


async def test_two_thousand_sessions_cost_as_much_as_a_screenful(engine: Engine) -> None:
    """Only the rows that are drawn become text."""
    async with shown(engine, [session_object(number) for number in range(1, 2001)]) as (app, pilot):
        table = app.query_one(SessionList)
        await pilot.press("end")
        await asyncio.sleep(0)
        assert len(table.rows) <= 40
        assert "of 2000" in text_of(app)
