from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.overview.follower import Place
from rlpx.engine.watch.control import Control, load_token
from rlpx.engine.watch.page import Page
from rlpx.protocol.mistakes import ConfigError
from tests.engine.watch.fake_link import FakeLink, served

TOKEN = "a-token-of-the-test-0123456789"  # noqa: S105 - of this test alone
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


def page(token: str | None) -> Page:
    return Page(Place("ipc:///nowhere/control.ipc", "ipc:///nowhere/events.ipc"), Control(token))


class Engine:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, method: str, **parameters: Any) -> Any:
        self.calls.append((method, parameters))
        if parameters.get("session") == 404:
            raise EngineError("no_such_session", "session 404 has ended", -32001)
        if parameters.get("session") == 503:
            raise EngineUnavailableError("no answer within 1.5 s")
        return {"sessions": 1}


async def test_without_a_token_nothing_can_be_changed() -> None:
    engine = Engine()
    async with served(FakeLink(engine), page(None)) as client:
        answer = await client.post("/api/control/disconnect", json={"session": 1}, headers=RIGHT)
        assert answer.status == 403
        assert "read-only" in (await answer.json())["error"]["message"]
        assert await (await client.get("/api/control", headers=RIGHT)).json() == {"enabled": False, "allowed": False}
    assert engine.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": f"token={TOKEN}"},
        {"X-Token": TOKEN},
    ],
)
async def test_a_wrong_token_changes_nothing(headers: dict[str, str]) -> None:
    engine = Engine()
    async with served(FakeLink(engine), page(TOKEN)) as client:
        answer = await client.post("/api/control/disconnect", json={"session": 1}, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert await (await client.get("/api/control", headers=headers)).json() == {"enabled": True, "allowed": False}
    assert engine.calls == []


async def test_a_token_in_the_address_is_no_token() -> None:
    engine = Engine()
    async with served(FakeLink(engine), page(TOKEN)) as client:
        answer = await client.post(f"/api/control/disconnect?token={TOKEN}", json={"session": 1})
        assert answer.status == 401
    assert engine.calls == []


async def test_a_page_of_another_site_changes_nothing_even_with_the_token() -> None:
    engine = Engine()
    async with served(FakeLink(engine), page(TOKEN)) as client:
        headers = {**RIGHT, "Origin": "http://evil.example"}
        assert (await client.post("/api/control/disconnect", json={"session": 1}, headers=headers)).status == 403
    assert engine.calls == []


async def test_the_right_token_carries_out_what_a_page_may() -> None:
    engine = Engine()
    told = [
        ("disconnect", {"session": 7, "reason": "too_many_peers"}),
        ("ban", {"peer": "ab" * 64, "seconds": 60}),
        ("set-limits", {"max_active_inbound": 5}),
    ]
    async with served(FakeLink(engine), page(TOKEN)) as client:
        assert await (await client.get("/api/control", headers=RIGHT)).json() == {"enabled": True, "allowed": True}
        for command, parameters in told:
            answer = await client.post(f"/api/control/{command}", json=parameters, headers=RIGHT)
            assert (answer.status, await answer.json()) == (200, {"result": {"sessions": 1}})
    assert engine.calls == told


@pytest.mark.parametrize(
    ("command", "body"),
    [
        ("shutdown", b"{}"),
        ("disconnect-all", b"{}"),
        ("disconnect", b"{}"),
        ("disconnect", b'{"reason": "too_many_peers"}'),
        ("disconnect", b"[1]"),
        ("disconnect", b"{"),
        ("disconnect", b""),
        ("disconnect", b"\xff"),
        ("disconnect", b'{"session": 1, "method": "shutdown"}'),
        ("disconnect", b'{"session": 1, "seconds": 60}'),
        ("ban", b'{"peer": "ab", "limit": 5}'),
    ],
)
async def test_nothing_else_can_be_called(command: str, body: bytes) -> None:
    engine = Engine()
    async with served(FakeLink(engine), page(TOKEN)) as client:
        answer = await client.post(f"/api/control/{command}", data=body, headers=RIGHT)
        assert answer.status == 400
        assert (await answer.json())["error"]["name"] == "invalid_params"
        assert (await client.get("/api/control/disconnect", headers=RIGHT)).status == 405
    assert engine.calls == []


@pytest.mark.parametrize(("session", "status", "name"), [(404, 409, "no_such_session"), (503, 503, "unavailable")])
async def test_the_engines_error_is_passed_on(session: int, status: int, name: str) -> None:
    async with served(FakeLink(Engine()), page(TOKEN)) as client:
        answer = await client.post("/api/control/disconnect", json={"session": session}, headers=RIGHT)
        assert answer.status == status
        assert (await answer.json())["error"]["name"] == name


async def test_a_large_body_is_refused() -> None:
    async with served(FakeLink(Engine()), page(TOKEN)) as client:
        answer = await client.post("/api/control/disconnect", data=b" " * 200_000, headers=RIGHT)
        assert answer.status == 413


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "watch.token"
    token = load_token(file)
    assert len(token) >= 40
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_token(file) == token
    assert load_token(tmp_path / "other") != token
    assert sorted(item.name for item in tmp_path.iterdir()) == ["other", "watch.token"]


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "watch.token"
    file.write_text("x" * 40)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640.*chmod 600") as refused:
        load_token(file)
    assert refused.value.exit_code == os.EX_NOPERM


@pytest.mark.parametrize("text", ["", "short", "x" * 257, "two words of a token here", "\x00" * 20])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "watch.token"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="not a token"):
        load_token(file)


def test_a_place_for_the_token_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no/such"):
        load_token(tmp_path / "no" / "such")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_token(tmp_path)
