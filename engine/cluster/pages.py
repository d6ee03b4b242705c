"""Reads the keys of the fleet's bucket in pages, from any replica, without a consumer that the servers would have to keep.

One request gets up to `limit` messages and then a status. It needs direct gets, which the bucket allows (`kv.py`).
Source: NATS architecture note ADR-31, "JetStream Direct Get", with the batches of nats-server 2.11.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from rlpx.engine.cluster.kv import CALL_SECONDS
from rlpx.protocol.cluster.steps import Answer, Entry, Outcome, Scan

# A page ends early at this size, whatever somebody else has written into the bucket.
PAGE_BYTES: Final = 1024 * 1024
# The last message of an answer has one of these: the end of the page, or no such key at all.
_END: Final = "204"
_NONE: Final = "404"


async def read_page(client: Client, bucket: str, call: Scan) -> Answer:
    """Read a page of keys."""
    page = _Page(f"$KV.{bucket}.")
    wanted = {
        "seq": max(1, call.first_revision),
        "next_by_subj": f"{page.prefix}{call.key}>",
        "batch": call.limit,
        "max_bytes": PAGE_BYTES,
    }
    try:
        messages = await client.subscribe(client.new_inbox(), cb=page.take)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.KV_{bucket}", msgspec.json.encode(wanted), messages.subject)
            async with asyncio.timeout(CALL_SECONDS):
                headers = await page.end
        finally:
            await messages.unsubscribe()
    except (nats.errors.Error, OSError, TimeoutError):
        return Answer(call.call, Outcome.LOST)
    if headers["Status"] not in (_END, _NONE):
        return Answer(call.call, Outcome.LOST)
    is_last = headers["Status"] == _NONE or headers["Nats-Num-Pending"] == "0"
    after = 0 if is_last else int(headers["Nats-Last-Sequence"]) + 1
    return Answer(call.call, Outcome.DONE, after, entries=tuple(page.entries))


class _Page:
    """Takes the messages of a page. To wait for each of them by itself would cost nats-py a task each."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.entries: list[Entry] = []
        # The headers of the last message.
        self.end: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def take(self, message: Msg) -> None:
        """Add the key of a message to the entries, unless it was erased or has expired."""
        headers = message.headers or {}
        if "Status" in headers:
            if not self.end.done():
                self.end.set_result(headers)
        elif "KV-Operation" not in headers and "Nats-Marker-Reason" not in headers:
            key, revision = headers["Nats-Subject"].removeprefix(self.prefix), int(headers["Nats-Sequence"])
            self.entries.append(Entry(key, revision, message.data))
