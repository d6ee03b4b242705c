"""The messages of capabilities that the peer of an active session sends: checking, decoding and reporting them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Final

from rlpx.protocol import rlp
from rlpx.protocol.errors import MessageError, PeerError
from rlpx.protocol.eth.kinds import BYTES_IN, MessageKind, MessageTable
from rlpx.protocol.eth.status import decode_block_range
from rlpx.protocol.eth.table import MessageRole
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE
from rlpx.protocol.session.events import Event, MessageReceived
from rlpx.protocol.session.own_requests import OwnRequests
from rlpx.protocol.session.setup import LocalNode
from rlpx.protocol.session.tallies import Tallies

# A frame that has arrived in part is looked at only while more than this of it waits; below that it costs no memory to speak
# of, whatever it is. It is also the longest message of the base protocol.
SMALL_FRAME_BYTES: Final = 2048
# As plain names these are found faster: every message asks for them.
_ANNOUNCEMENT: Final = MessageRole.ANNOUNCEMENT
_FIRST_CODE: Final = FIRST_CAPABILITY_CODE
# The message code, then the length that a Snappy block starts with.
_LENGTH_END: Final = 1 + p2p.LENGTH_MAX_BYTES

# Earliest and latest block, and the latest one's hash.
BlockRange = tuple[int, int, bytes]


class Inbound:
    """See the module. `table` has the messages that may come, `messages` counts those that came here.

    Those that `tally` takes in their cipher come to no receiver. `is_settled` becomes false with a message that may concern
    the session itself.
    `remote_range` is what the peer has, unknown below eth/69.
    """

    __slots__ = ("_interest", "_refuses_blocks", "_requests", "is_settled", "messages", "remote_range", "table", "tally")

    def __init__(self, table: MessageTable, node: LocalNode, requests: OwnRequests, *, refuses_blocks: bool) -> None:
        self.table = table
        self.messages = 0
        self.is_settled = False
        self.remote_range: BlockRange | None = None
        self._requests = requests
        self._refuses_blocks = refuses_blocks
        self.read_for(node.interest, node.tallies)

    def read_for(self, interest: Mapping[str, object], tallies: Tallies | None) -> None:
        """Set which topics are read from now on; without `tallies` every message comes here."""
        self._interest = interest
        self.tally = None if tallies is None else tallies.of(self.table)

    def take(self, frames: Iterator[bytes], events: list[Event], now: float) -> bytes | None:
        """Take the frames that are capabilities' messages, in order: the hot path. Raises `PeerError`.

        Returns the first frame that is none, a message of the base protocol or an empty one; None if all were taken.
        """
        table, interest, handlers = self.table, self._interest, self._ON_OWN_MESSAGE
        by_code, counters = table.by_code, table.counters
        # Peers send many messages of one kind in a row: what holds for all of them is found once, and they are counted once.
        code = count = count_bytes = 0
        try:
            for content in frames:
                if not content or content[0] < _FIRST_CODE:
                    return content
                size = len(content)
                if content[0] == code:
                    count += 1
                    count_bytes += size
                else:
                    if count:
                        self.messages += count
                        counters[code] += count
                        counters[BYTES_IN + code] += count_bytes
                    code, count, count_bytes = content[0], 1, size
                    found = by_code[code]
                    if found is None:
                        raise _no_such_code(code)
                    kind = found
                    topic = kind.topic
                    is_read = interest[topic]
                    is_plain = kind.role is _ANNOUNCEMENT and topic not in handlers
                try:
                    if size > kind.frame_limit_bytes:
                        _check_size(kind, size)
                    if not is_plain:
                        self._on_special(kind, content, events, now)
                    elif is_read:
                        events.append(MessageReceived(kind, p2p.inflate(content, kind.limit_bytes, 1), size - 1))
                    else:
                        self._on_unread(kind, content)
                except PeerError as error:
                    error.inside(kind.name)
                    raise
            return None
        finally:
            self.messages += count
            counters[code] += count
            counters[BYTES_IN + code] += count_bytes

    def _on_unread(self, kind: MessageKind, content: bytes) -> None:
        """Check the announced length all the same, but inflate nothing. The next ones do not come here at all."""
        p2p.inflated_bytes(content[1:_LENGTH_END], kind.limit_bytes)
        if self.tally is not None:
            self.tally.skip(kind.code, kind.frame_limit_bytes, kind.limit_bytes)

    def _on_special(self, kind: MessageKind, content: bytes, events: list[Event], now: float) -> None:
        """A message that concerns the session itself, or is a request or a response."""
        self.is_settled = False
        handler = self._ON_OWN_MESSAGE.get(kind.topic)
        if handler is not None:
            handler(self, kind, content[1:])
        if kind.role is not _ANNOUNCEMENT:
            self._on_request_or_response(kind, content, events, now)
        elif self._interest[kind.topic]:
            events.append(MessageReceived(kind, p2p.inflate(content, kind.limit_bytes, 1), len(content) - 1))
        else:
            p2p.inflated_bytes(content[1:_LENGTH_END], kind.limit_bytes)

    def _on_request_or_response(self, kind: MessageKind, content: bytes, events: list[Event], now: float) -> None:
        is_read = self._interest[kind.topic]
        if not is_read and kind.answer is None and not self._requests.book:
            p2p.inflated_bytes(content[1:_LENGTH_END], kind.limit_bytes)
            self._requests.on_unasked(kind, events)
            return
        payload = p2p.inflate(content, kind.limit_bytes, 1)
        # eth/66 and snap: requests and responses are lists that start with their id (EIP-2481).
        request_id = rlp.first_uint(payload)
        if is_read or kind.answer is not None:
            events.append(MessageReceived(kind, payload, len(content) - 1, request_id))
        if kind.answer is None:
            self._requests.on_response(kind, (request_id, payload), events, now=now)

    def check_begun(self, size: int, start: bytes) -> None:
        """Refuse a message of `size` bytes as soon as its first block shows what it is. Raises `PeerError`.

        The block is decrypted and not authenticated yet: whether the peer wrote it or somebody changed it on the way, the
        session is over.
        """
        if start[0] < _FIRST_CODE:
            check_base_size(start[0], size)
            return
        kind = self.table.by_code[start[0]]
        if kind is None:
            raise _no_such_code(start[0])
        try:
            _check_size(kind, size)
            handler = self._REFUSED_ON_SIGHT.get(kind.topic)
            if handler is not None:
                handler(self, kind, b"")
            p2p.inflated_bytes(start[1:_LENGTH_END], kind.limit_bytes)
        except PeerError as error:
            error.inside(kind.name)
            raise

    def _on_status_again(self, _kind: MessageKind, _payload: bytes) -> None:
        raise MessageError("a second one in one session")

    def _on_block_gossip(self, _kind: MessageKind, _payload: bytes) -> None:
        if self._refuses_blocks:
            raise MessageError("gossip of blocks on a chain of proof of stake")

    def _on_block_range(self, kind: MessageKind, payload: bytes) -> None:
        self.remote_range = decode_block_range(p2p.inflate(payload, kind.limit_bytes))

    # Messages that may be refused whatever they contain, and those that concern the session itself, besides their readers.
    _REFUSED_ON_SIGHT: ClassVar[dict[str, Callable[[Inbound, MessageKind, bytes], None]]] = {
        "eth.Status": _on_status_again,
        "eth.NewBlockHashes": _on_block_gossip,
        "eth.NewBlock": _on_block_gossip,
    }
    _ON_OWN_MESSAGE: ClassVar[dict[str, Callable[[Inbound, MessageKind, bytes], None]]] = {
        **_REFUSED_ON_SIGHT,
        "eth.BlockRangeUpdate": _on_block_range,
    }


def check_base_size(code: int, size: int) -> None:
    """No message of the base protocol is long, nor one that it does not have yet. Raises `MessageError`."""
    if size > SMALL_FRAME_BYTES:
        raise MessageError(f"message code 0x{code:02x} with {size} bytes, where {SMALL_FRAME_BYTES} are allowed")


def _check_size(kind: MessageKind, size: int) -> None:
    """The content of a frame is no longer than its message may be. Raises `MessageError`."""
    if size > kind.frame_limit_bytes:
        raise MessageError(f"a frame of {size} bytes where {kind.frame_limit_bytes} are allowed")


def _no_such_code(code: int) -> MessageError:
    return MessageError(f"message code 0x{code:02x}, which no shared capability has")
