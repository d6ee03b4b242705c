"""Relay transactions: what a peer sends goes to every other peer, in the form of its version. Nothing is verified."""

from contextlib import suppress

from rlpx.engine.client import EngineError, Event, connect
from rlpx.protocol.errors import PeerError

with connect() as engine, engine.feed("eth.Transactions") as feed:
    for item in feed:
        if isinstance(item, Event):
            with suppress(PeerError, EngineError):  # a malformed message, or queues that are full
                engine.publish(item.decode(), but=item.fields["session"])
