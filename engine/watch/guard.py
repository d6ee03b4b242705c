"""Which requests are answered: a page of another site must not reach a server on loopback through its reader's browser.

A browser names in `Host` what the page's address names. If that is a name which we do not know, somebody may have pointed it
at our address (DNS rebinding). `Origin` names the page whose script asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from rlpx.protocol.errors import printable
from rlpx.protocol.rlpx.host_port import is_address

# Names that stand for this machine everywhere (RFC 6761, 6.3).
LOCAL_NAMES: Final = frozenset({"localhost"})
# Everything that we serve is ours alone: no other site embeds it, nothing guesses its type, nothing stores it.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


# Not the versions of our libraries.
SERVER: Final = "rlpx-watch"


class Guard:
    """Refuses requests by unknown names and from other sites. `names` are further names of this server."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = LOCAL_NAMES | {name.lower().rstrip(".") for name in names}

    def refusal(self, host: str | None, origin: str | None) -> str | None:
        """The reason to refuse a request with these headers, or none."""
        if host is None:
            # Only programs of HTTP/1.0 leave it out, such as a load balancer's check; every browser names it.
            return None if origin is None else "a request with an Origin header needs a Host header"
        name = _host_name(host)
        if not (name in self._names or is_address(name)):
            return f"this server is not {printable(name)}; --host-name allows a name"
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return "requests from the pages of other sites are refused"
        return None

    def middleware(self) -> Middleware:
        """The check as the middleware of an application."""

        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            reason = self.refusal(request.headers.get("Host"), request.headers.get("Origin"))
            if reason is not None:
                raise web.HTTPForbidden(text=reason + "\n")
            return await handler(request)

        return check


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Add `HEADERS` where the response has none of its own, and our name (a signal `on_response_prepare`)."""
    response.headers["Server"] = SERVER
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _host_name(host: str) -> str:
    """The host of a Host header, without port and brackets, in small letters."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
