"""Messages of sessions as events: those of peers, and our own for whoever subscribed to `tap.`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import time_ns

from rlpx.protocol import rlp
from rlpx.protocol.bus.events import message_json, message_start, tap_json
from rlpx.protocol.bus.feeds import with_topic
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.session.events import Event, MessageReceived, MessageSent
from rlpx.workers.connection import Connection
from rlpx.workers.feed import FeedEvent
from rlpx.workers.feed_group import Group
from rlpx.workers.feeds import Feeds
from rlpx.workers.publisher import Outbox


class Messages:
    """Publishes messages. Nothing is written for a message that nobody reads or that passes no filter."""

    def __init__(self, outbox: Outbox, feeds: Feeds) -> None:
        self._outbox = outbox
        self._feeds = feeds

    def publish_announcements(self, connection: Connection, events: Sequence[Event]) -> None:
        """Publish announcements of a peer that came at one moment. There may be no other events among them."""
        start = ""
        for event in events:
            if type(event) is MessageReceived:
                start = self.publish(connection, event, start)

    def publish(self, connection: Connection, message: MessageReceived, start: str) -> str:
        """Publish a message of a peer, if its topic has readers.

        `start` is the result of the last call for a message that came at the same moment, or empty.
        """
        kind, payload = message.kind, message.payload
        readers = connection.audience[kind.topic]
        if readers is None:
            return start
        groups: Sequence[Group] = readers.groups
        if readers.is_selective:
            groups = self._feeds.wanting(connection, readers, kind, payload)
            if not groups and not readers.is_subscribed:
                return start
        start = start or event_start(connection)
        event = message_json(start, len(payload), message.wire_bytes, kind.capability.version, message.request_id)
        if readers.is_subscribed:
            self._outbox.add(kind.topic, event, payload)
        if groups:
            self._feeds.add(connection, groups, FeedEvent(with_topic(kind.topic, event), payload, is_life=False))
        return start

    def publish_sent(self, connection: Connection, sent: list[MessageSent]) -> None:
        """Publish messages that have left, if their taps have readers."""
        for message in sent:
            kind, payload = message.kind, message.payload
            readers = connection.audience[kind.tap]
            groups: Sequence[Group] = ()
            if readers is not None and readers.groups:
                groups = self._feeds.wanting(connection, readers, kind, payload)
            if readers is None or not (groups or readers.is_subscribed):
                continue
            request_id = None
            if kind.role is not MessageRole.ANNOUNCEMENT:
                with suppress(RlpError):  # a user may send anything as a request
                    request_id = rlp.first_uint(payload)
            event = tap_json(event_start(connection), len(payload), kind.capability.version, request_id)
            if readers.is_subscribed:
                self._outbox.add(kind.tap, event, payload)
            if groups:
                self._feeds.add(connection, groups, FeedEvent(with_topic(kind.tap, event), payload, is_life=False))


def event_start(connection: Connection) -> str:
    """The beginning of the event of a message that comes or leaves now; an active session always has a peer id."""
    return message_start(time_ns() // 1000, connection.id, connection.peer_hex or "")
