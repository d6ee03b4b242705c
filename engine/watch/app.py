"""The application: every route, and what applies to all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import web

from rlpx.engine.watch import exposition, health
from rlpx.engine.watch.guard import Guard, add_headers
from rlpx.engine.watch.keys import LINK, SCRAPES
from rlpx.engine.watch.link import EngineLink
from rlpx.engine.watch.page import Page
from rlpx.engine.watch.scrapes import Scrapes

# No request of ours has a large body.
MAX_BODY_BYTES: Final = 64 * 1024


def make_app(link: EngineLink, host_names: Iterable[str] = (), page: Page | None = None) -> web.Application:
    """The application on a connection to an engine, which it closes at its end; with a page, or without."""
    app = web.Application(middlewares=[Guard(host_names).middleware()], client_max_size=MAX_BODY_BYTES)
    app[LINK], app[SCRAPES] = link, Scrapes(link)
    app.on_response_prepare.append(add_headers)
    app.on_cleanup.append(_close)
    # A part with pages of its own has `routes`, a `web.RouteTableDef`, and a line here.
    app.add_routes(health.routes)
    app.add_routes(exposition.routes)
    if page is not None:
        page.add_to(app)
    return app


async def _close(app: web.Application) -> None:
    await app[SCRAPES].close()
    await app[LINK].close()
