"""The package that users' programs import: commands, events, answers to peers, and requests to them.

`connect` is the way to an engine, for programs on asyncio and for those that wait for each call.

`Client` and `Subscriber` do without asyncio, for command lines: they call one command at a time, and read `events.ipc`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rlpx.engine.client.batch_reader import Event, Gap, Item, Malformed
from rlpx.engine.client.client import Client
from rlpx.engine.client.errors import (
    BadResponseError,
    BusyError,
    CallCancelledError,
    EngineSilentError,
    InvalidParamsError,
    NatsMissingError,
    NoSuchPeerError,
    NoSuchSessionError,
    NotSharedError,
    QueueFullError,
    RefusedError,
    SessionEndedError,
    TimedOutError,
    WorkerLostError,
)
from rlpx.engine.client.presence import EndpointError, EngineError, EngineForbiddenError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.client.topics import UnknownTopicWarning

if TYPE_CHECKING:
    from rlpx.engine.client.blocking import BlockingEngine, BlockingFeed, BlockingResponder
    from rlpx.engine.client.blocking_fleet import BlockingFleet, BlockingFleetFeed, BlockingHost
    from rlpx.engine.client.blocking_peer import BlockingPeer
    from rlpx.engine.client.by_host import ByHost
    from rlpx.engine.client.connecting import connect
    from rlpx.engine.client.connection import Engine
    from rlpx.engine.client.feed import Feed
    from rlpx.engine.client.feed_items import FeedItem, Lost, Snapshot
    from rlpx.engine.client.fleet import Fleet, Host
    from rlpx.engine.client.fleet_feed import FleetFeed
    from rlpx.engine.client.fleet_items import FleetItem, HostEvent, HostGap, HostLost, HostSnapshot
    from rlpx.engine.client.fleet_responding import FleetResponder
    from rlpx.engine.client.forms import AnnouncedHashes, Announcement, PooledTransaction, encode_for
    from rlpx.engine.client.responding import Request, Responder
    from rlpx.engine.client.typed_requests import Peer

__all__ = [
    "AnnouncedHashes",
    "Announcement",
    "BadResponseError",
    "BlockingEngine",
    "BlockingFeed",
    "BlockingFleet",
    "BlockingFleetFeed",
    "BlockingHost",
    "BlockingPeer",
    "BlockingResponder",
    "BusyError",
    "ByHost",
    "CallCancelledError",
    "Client",
    "EndpointError",
    "Engine",
    "EngineError",
    "EngineForbiddenError",
    "EngineSilentError",
    "EngineUnavailableError",
    "Event",
    "Feed",
    "FeedItem",
    "Fleet",
    "FleetFeed",
    "FleetItem",
    "FleetResponder",
    "Gap",
    "Host",
    "HostEvent",
    "HostGap",
    "HostLost",
    "HostSnapshot",
    "InvalidParamsError",
    "Item",
    "Lost",
    "Malformed",
    "NatsMissingError",
    "NoSuchPeerError",
    "NoSuchSessionError",
    "NotSharedError",
    "Peer",
    "PooledTransaction",
    "QueueFullError",
    "RefusedError",
    "Request",
    "Responder",
    "SessionEndedError",
    "Snapshot",
    "Subscriber",
    "TimedOutError",
    "UnknownTopicWarning",
    "WorkerLostError",
    "connect",
    "encode_for",
]

if not TYPE_CHECKING:
    # Loaded when a program names them: asyncio, or every message of eth and snap with cryptography.
    _ON_DEMAND = {
        "blocking": ("BlockingEngine", "BlockingFeed", "BlockingResponder"),
        "blocking_fleet": ("BlockingFleet", "BlockingFleetFeed", "BlockingHost"),
        "blocking_peer": ("BlockingPeer",),
        "by_host": ("ByHost",),
        "connecting": ("connect",),
        "connection": ("Engine",),
        "feed": ("Feed",),
        "feed_items": ("FeedItem", "Lost", "Snapshot"),
        "fleet": ("Fleet", "Host"),
        "fleet_feed": ("FleetFeed",),
        "fleet_items": ("FleetItem", "HostEvent", "HostGap", "HostLost", "HostSnapshot"),
        "fleet_responding": ("FleetResponder",),
        "forms": ("AnnouncedHashes", "Announcement", "PooledTransaction", "encode_for"),
        "responding": ("Request", "Responder"),
        "typed_requests": ("Peer",),
    }

    def __getattr__(name: str) -> object:
        for module, names in _ON_DEMAND.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
