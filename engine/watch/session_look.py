"""What the page of one session shows: the session as it is now, and its messages, while somebody looks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import msgspec

from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.overview.follower import Place
from rlpx.engine.overview.overview import Overview
from rlpx.engine.overview.session_feed import follow_session
from rlpx.engine.overview.tap import Tap
from rlpx.engine.watch import overview_json
from rlpx.engine.watch.link import EngineLink

NO_SESSION: Final = "no_such_session"


class SessionLook:
    """One page that looks at one session. `Tap` and its feed exist from `collect` to `stop`."""

    def __init__(self, session: int, overview: Overview, link: EngineLink, place: Place) -> None:
        self._session = session
        self._overview = overview
        self._link = link
        self._place = place
        self._tap = Tap()
        self._feed: asyncio.Task[None] | None = None
        # The run of the engine in which the feed was opened.
        self._run: str | None = None

    async def collect(self) -> list[tuple[str, bytes]]:
        """What is new, as named events for the browser: the session, and its messages."""
        news = [("session", await self.session_json())]
        self._open_feed()
        tapped = self._tap.collect()
        if tapped is not None:
            news.append(("messages", msgspec.json.encode(tapped)))
        return news

    async def session_json(self) -> bytes:
        """The session, or its end, or the error with which the engine answers."""
        end = self._overview.ends.find(self._session)
        shown, error = None, None
        try:
            if end is None:
                shown = await self._link.call("session", session=self._session)
        except (EngineError, EngineUnavailableError) as problem:
            error = str(problem)
        return msgspec.json.encode(
            {"session": shown, "end": overview_json.end_json(end) if end is not None else None, "error": error}
        )

    def _open_feed(self) -> None:
        """Open the feed as soon as the session's worker is known; once in each run of the engine."""
        row = self._overview.sessions.get(self._session)
        if row is None or self._run == self._overview.run:
            return
        self._run = self._overview.run
        endpoint = self._place.worker(row.worker, self._overview.workers.data_endpoint(row.worker))
        if endpoint is None:
            self._tap.end("the engine has no data endpoint over TCP (data.endpoint)")
            return
        if self._feed is not None:
            self._feed.cancel()
        self._feed = asyncio.create_task(follow_session(endpoint, self._session, self._tap, key=self._place.key))

    async def stop(self) -> None:
        """Close the feed."""
        if self._feed is not None:
            self._feed.cancel()
            with suppress(asyncio.CancelledError):
                await self._feed
