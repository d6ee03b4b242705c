"""Collect the hashes that peers announce, and print how many there are, and how many announcements were missed."""

from contextlib import suppress

from rlpx.engine.client import AnnouncedHashes, Event, connect
from rlpx.protocol.errors import PeerError

hashes: set[bytes] = set()
with connect() as engine, engine.feed("eth.NewPooledTransactionHashes") as feed:
    for item in feed:
        with suppress(PeerError):  # a malformed announcement
            if isinstance(item, Event) and isinstance(message := item.decode(), AnnouncedHashes):
                hashes.update(message.hashes)
                print(len(hashes), "hashes,", feed.missed, "announcements missed", flush=True)
