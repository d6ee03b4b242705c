"""An application over an engine that a test plays, served on a loopback port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from rlpx.engine.client.connection import Engine
from rlpx.engine.watch.app import make_app
from rlpx.engine.watch.link import EngineLink
from rlpx.engine.watch.page import Page

T = TypeVar("T")


class FakeEngine:
    """Each command's answer comes from a function, which may raise as the client does."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self._answer = answer
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(**_parameters: object) -> Any:
            self.calls.append(name)
            answer = self._answer(name)
            return await answer if isinstance(answer, Awaitable) else answer

        return call


class FakeLink:
    """A link to an engine that a test plays."""

    endpoint = "ipc:///run/control.ipc"

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer
        self.engine = FakeEngine(answer)
        self.is_closed = False

    async def ask(self, call: Callable[[Engine], Awaitable[T]]) -> T:
        return await call(cast("Engine", self.engine))

    async def call(self, method: str, **parameters: Any) -> Any:
        return self._answer(method, **parameters)

    async def close(self) -> None:
        self.is_closed = True


@asynccontextmanager
async def served(link: FakeLink, page: Page | None = None) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(make_app(cast("EngineLink", link), page=page))) as client:
        yield client
