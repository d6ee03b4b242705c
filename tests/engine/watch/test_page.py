from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web

from rlpx.engine.client.joining import Snapshot
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.overview.follower import Changes, Follower, Lost, Place, Status, apply
from rlpx.engine.watch import page as page_module
from rlpx.engine.watch.control import Control
from rlpx.engine.watch.page import POLICY, STATIC, Page
from tests.engine.overview.objects import RUN, closed, established, session_object, status
from tests.engine.watch.fake_link import FakeLink, served

HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """A page that the test feeds and ticks by itself."""
    monkeypatch.setattr(Follower, "start", lambda _self: None)
    monkeypatch.setattr(page_module, "TICK_SECONDS", 3600.0)
    made = Page(Place("ipc:///nowhere/control.ipc", "ipc:///nowhere/events.ipc"), Control())
    sessions = [session_object(1, client=HOSTILE), session_object(2), session_object(3, direction="outbound")]
    apply(made.overview, Changes([Snapshot(RUN, sessions)]), now=0.0)
    apply(made.overview, Status(status()), now=0.0)
    return made


def answer(method: str, **parameters: Any) -> Any:
    assert method == "session"
    if parameters["session"] == 1:
        return session_object(1, client=HOSTILE)
    raise EngineError("no_such_session", "no such session", -32001)


async def event(response: ClientResponse) -> tuple[str, dict[str, Any]]:
    """The next event of a stream."""
    async with asyncio.timeout(60):
        name = (await response.content.readline()).decode().removeprefix("event: ").strip()
        data = (await response.content.readuntil(b"\n\n")).decode().removeprefix("data: ")
    return name, json.loads(data)


async def test_the_page_and_its_files_have_a_policy_that_forbids_everything_else(page: Page) -> None:
    async with served(FakeLink(answer), page) as client:
        for path in ("/", *(f"/static/{file.name}" for file in STATIC.iterdir())):
            got = await client.get(path)
            assert got.status == 200
            assert got.headers["Content-Security-Policy"] == POLICY
            assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert (await client.get("/static/app.js")).headers["Content-Type"].startswith("text/javascript")
        for path in ("/static/none.js", "/static/..%2fpage.py", "/static/../page.py", "/static/"):
            assert (await client.get(path)).status == 404


def test_the_files_need_nothing_from_elsewhere() -> None:
    """No other host, no inline script or style, and no way for a text to become HTML."""
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8")
        outside = set(re.findall(r"https?://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
        assert outside == set(), file
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
        assert not re.search(forbidden, text), file
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", html)


def test_every_import_of_a_script_is_a_file() -> None:
    for file in STATIC.glob("*.js"):
        for name in re.findall(r"from \"\./([^\"]+)\"", file.read_text(encoding="utf-8")):
            assert (STATIC / name).exists(), (file.name, name)


async def test_a_stream_begins_with_everything_and_then_says_what_changed(page: Page) -> None:
    async with served(FakeLink(answer), page) as client:
        page.tick(second=99, now=0.5)
        stream = await client.get("/api/stream")
        name, state = await event(stream)
        assert name == "state"
        assert state["engine"]["active_inbound"] == 2
        assert state["seconds"]["values"]["active_inbound"] == [2]
        assert state["clients"]["rows"][0] == ["Geth", "v1.16.2", 2]
        page.tick(second=100, now=1.0)
        assert (await event(stream))[0] == "tick"
        apply(page.overview, Changes([established(4, direction="outbound"), closed(2)]), now=1.5)
        page.tick(second=101, now=2.0)
        name, tick = await event(stream)
        assert (name, tick["second"]) == ("tick", 101)
        assert [end["session"] for end in tick["ends"]] == [2]
        assert tick["now"]["active_outbound"] == 2
        assert "shared" not in tick
        stream.close()


async def test_a_part_that_is_as_before_is_not_sent_again(page: Page) -> None:
    async with served(FakeLink(answer), page) as client:
        stream = await client.get("/api/stream")
        await event(stream)
        page.tick(second=100, now=1.0)
        await event(stream)
        page.tick(second=101, now=1.0)
        name, tick = await event(stream)
        assert name == "tick"
        assert "clients" not in tick
        assert tick["second"] == 101
        stream.close()


async def test_a_browser_that_missed_a_tick_gets_everything(page: Page) -> None:
    async with served(FakeLink(answer), page) as client:
        stream = await client.get("/api/stream")
        await event(stream)
        # Two ticks in one turn of the loop: the stream sees the second only.
        page.tick(second=100, now=1.0)
        page.tick(second=101, now=2.0)
        name, state = await event(stream)
        assert name == "state"
        assert state["seconds"]["ends_s"] == 101
        stream.close()


async def test_the_cause_of_a_lost_engine_is_shown(page: Page) -> None:
    async with served(FakeLink(answer), page) as client:
        apply(page.overview, Lost("no engine at ipc:///nowhere/control.ipc"), now=9.0)
        page.tick(second=100, now=9.0)
        name, state = await event(await client.get("/api/stream"))
        assert name == "state"
        assert state["engine"]["cause"] == "no engine at ipc:///nowhere/control.ipc"
        assert state["engine"]["stale"] is True


async def test_streams_are_bounded(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MAX_STREAMS", 2)
    async with served(FakeLink(answer), page) as client:
        first, second = await client.get("/api/stream"), await client.get("/api/stream")
        await event(first)
        await event(second)
        refused = await client.get("/api/stream")
        assert (refused.status, await refused.text()) == (503, "2 pages are open already\n")


async def test_a_browser_that_does_not_read_costs_what_is_on_its_way(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it does not read, and then it gets the latest state at once."""
    begun = 0
    send = page_module.send_event

    async def counted(response: web.StreamResponse, name: str, data: bytes) -> None:
        nonlocal begun
        begun += len(data)
        await send(response, name, data)

    monkeypatch.setattr(page_module, "send_event", counted)
    many = [session_object(number, client=f"client-{number}/v1.{number}") for number in range(100)]
    apply(page.overview, Changes([Snapshot(RUN, many)]), now=0.0)
    async with served(FakeLink(answer), page) as client:
        stream = await client.get("/api/stream")
        await event(stream)
        produced = 0
        for second in range(1500):
            apply(page.overview, Changes([closed(second % 100, cause="x" * 200)]), now=float(second))
            page.tick(second=1000 + second, now=float(second))
            produced += len(page.news)
            await asyncio.sleep(0)
        assert produced > 20_000_000
        # What the kernel and the two programs hold of one connection.
        assert begun < 12_000_000
        while (last := (await event(stream))[1]).get("second", last.get("seconds", {}).get("ends_s")) != 2499:
            pass
        stream.close()


async def test_a_browser_that_reads_nothing_for_long_is_gone(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "WRITE_SECONDS", 0.05)
    monkeypatch.setattr(page_module, "MAX_STREAMS", 1)
    async with served(FakeLink(answer), page) as client:
        await client.get("/api/stream")
        for second in range(3000):
            apply(page.overview, Changes([closed(second, cause="x" * 200)]), now=float(second))
            page.tick(second=second, now=float(second))
            await asyncio.sleep(0)
        # Its place is free again.
        for _ in range(400):
            again = await client.get("/api/stream")
            if again.status == 200:
                break
            await asyncio.sleep(0.05)
        assert again.status == 200
        again.close()


@pytest.mark.parametrize(
    ("query", "total", "first"),
    [
        ("", 3, 3),
        ("?descending=false", 3, 1),
        ("?text=geth&sort=client", 2, 2),
        ("?direction=outbound", 1, 3),
        ("?phase=pending", 0, None),
        ("?offset=2", 3, 1),
        ("?offset=99", 3, None),
        ("?limit=1&sort=nothing", 3, 3),
    ],
)
async def test_the_table_is_searched_and_paged_by_the_server(page: Page, query: str, total: int, first: int | None) -> None:
    async with served(FakeLink(answer), page) as client:
        found = await (await client.get(f"/api/sessions{query}")).json()
        assert found["total"] == total
        assert (found["rows"][0]["session"] if found["rows"] else None) == first


@pytest.mark.parametrize("query", ["limit=0", "limit=9999", "offset=-1", "limit=x", "unknown=1", "text=" + "x" * 300])
async def test_a_wrong_question_is_one_line(page: Page, query: str) -> None:
    async with served(FakeLink(answer), page) as client:
        got = await client.get(f"/api/sessions?{query}")
        assert got.status == 400
        assert (await got.text()).count("\n") == 1
        assert query.partition("=")[0] in await got.text()


async def test_a_session_is_shown_as_it_is_or_with_its_end(page: Page) -> None:
    apply(page.overview, Changes([closed(2)]), now=1.0)
    async with served(FakeLink(answer), page) as client:
        one = await (await client.get("/api/sessions/1")).json()
        assert one["session"]["client"] == HOSTILE
        two = await (await client.get("/api/sessions/2")).json()
        assert (two["session"], two["end"]["cause"], two["end"]["version"]) == (None, "the peer said so", "v1.16.2")
        nine = await (await client.get("/api/sessions/9")).json()
        assert nine == {"session": None, "end": None, "error": "no such session"}
        for wrong in ("x", "-1", "9" * 30, "1.5", "%EF%BC%91"):
            assert (await client.get(f"/api/sessions/{wrong}")).status == 400


async def test_a_page_of_a_session_gets_it_with_every_tick(page: Page) -> None:
    async with served(FakeLink(answer), page) as client:
        stream = await client.get("/api/stream?session=1")
        assert [(await event(stream))[0] for _ in range(2)] == ["state", "session"]
        page.tick(second=100, now=1.0)
        events = dict([await event(stream) for _ in range(2)])
        assert set(events) == {"tick", "session"}
        assert events["session"]["session"]["session"] == 1
        stream.close()
        assert (await client.get("/api/stream?session=x")).status == 400


async def test_a_silent_engine_is_an_error_of_the_session_only(page: Page) -> None:
    def silent(_method: str, **_parameters: Any) -> Any:
        raise EngineUnavailableError("no answer within 1.5 s")

    async with served(FakeLink(silent), page) as client:
        shown = await (await client.get("/api/sessions/1")).json()
        assert shown == {"session": None, "end": None, "error": "no answer within 1.5 s"}


async def test_the_traffic_of_sessions_is_read_only_while_the_table_is_looked_at(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(page_module, "monotonic", lambda: clock)
    async with served(FakeLink(answer), page) as client:
        listing = []
        for second, now, is_looked_at in ((1, clock, False), (2, clock, True), (13, clock + 11, False)):
            if is_looked_at:
                await client.get("/api/sessions")
            page.tick(second=second, now=now)
            listing.append(page.is_listing)
    assert listing == [False, True, False]


def test_the_static_files_are_part_of_the_package() -> None:
    assert Path(page_module.__file__).parent / "static" == STATIC
    assert {"index.html", "app.js", "style.css"} <= {file.name for file in STATIC.iterdir()}
