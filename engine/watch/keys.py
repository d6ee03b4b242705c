"""What the handlers of the application share, by typed keys: `request.app[LINK]`."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from rlpx.engine.watch.link import EngineLink
from rlpx.engine.watch.scrapes import Scrapes

# The way to the engine.
LINK: Final = web.AppKey("link", EngineLink)
# The metrics of the engine, asked for once however many ask.
SCRAPES: Final = web.AppKey("scrapes", Scrapes)
