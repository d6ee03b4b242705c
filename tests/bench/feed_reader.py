"""The program with a feed, `python -m tests.bench.feed_reader RUN_DIR TOPIC`; on stdin, the order `await` of `reader.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Any, Final

from tests.bench.reader import POLL_SECONDS, SILENCE_SECONDS, serve
from tests.system.feed_reader import FeedReader

FEED: Final = 1


class Counter:
    """Counts the events of one feed."""

    def __init__(self, reader: FeedReader, topics: list[str]) -> None:
        self._reader = reader
        # It loses nothing while the machine has no time for it: then the worker stops reading from peers.
        self._feed = reader.open(FEED, topics, lossless=True)
        self._before = (0, 0)

    def read(self) -> None:
        """Take what comes next, if it comes soon."""
        self._reader.read(POLL_SECONDS)

    def carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        """Await a number of events."""
        feed, (received, missed) = self._feed, self._before
        heard_at, messages = monotonic(), feed.messages
        while feed.received - received < order["count"] and monotonic() - heard_at < SILENCE_SECONDS:
            self.read()
            if feed.messages != messages:
                heard_at, messages = monotonic(), feed.messages
        self._before = feed.received, feed.missed
        return {"count": feed.received - received, "missed": feed.missed - missed}


def main() -> None:
    """Carry out orders until stdin ends."""
    with FeedReader(Path(sys.argv[1]), keeps=False) as reader:
        serve(Counter(reader, sys.argv[2:]))


if __name__ == "__main__":
    main()
