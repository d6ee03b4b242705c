"""Host names, resolved in threads beside the loop, because the system's resolver blocks."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import zip_longest
from typing import Any, Final

# Lookups at a time. Each takes a thread, which a name server that does not answer holds for half a minute.
MAX_LOOKUPS: Final = 16
# As long as a resolver's first attempt (resolv.conf(5)); a dial has 20 s in all.
LOOKUP_SECONDS: Final = 5.0


class Resolver:
    """Returns the addresses of host names, the most promising first. Lookups are bounded in number and in time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._places = asyncio.Semaphore(MAX_LOOKUPS)

    async def addresses(self, name: str) -> list[str]:
        """All addresses of a name, in the order of RFC 8305: RFC 6724's, with the families taking turns.

        Raises `OSError` if there is none, `TimeoutError` if no answer comes.
        """
        async with asyncio.timeout(LOOKUP_SECONDS):
            await self._places.acquire()
            answer: asyncio.Future[list[str]] = self._loop.create_future()
            # A daemon, because a lookup that hangs must not keep the process from ending.
            threading.Thread(target=self._look_up, args=(name, answer), daemon=True).start()
            return await answer

    def _look_up(self, name: str, answer: asyncio.Future[list[str]]) -> None:
        """Look up a name, in a thread of its own. Its place is free afterwards, whether or not anybody awaits the answer."""
        found: list[str] | OSError
        try:
            found = by_turns(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
        except OSError as error:
            found = error
        except UnicodeError as error:
            found = OSError(str(error))
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._on_looked_up, answer, found)

    def _on_looked_up(self, answer: asyncio.Future[list[str]], found: list[str] | OSError) -> None:
        self._places.release()
        if answer.done():
            return
        if isinstance(found, OSError):
            answer.set_exception(found)
        else:
            answer.set_result(found)


def by_turns(infos: Iterable[tuple[Any, ...]]) -> list[str]:
    """The addresses of `getaddrinfo`, which come in RFC 6724's order, with families taking turns (RFC 8305, section 4)."""
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append(str(address[0]))
    turns = zip_longest(*families.values())
    return list(dict.fromkeys(host for turn in turns for host in turn if host is not None))
