"""The output of one session: bytes that are already sealed, and the queue of messages that are sealed as they leave."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from rlpx.protocol.eth.kinds import MessageTable
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.bounds import MAX_PAYLOAD_BYTES
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE
from rlpx.protocol.rlpx.frames import FrameCipher
from rlpx.protocol.session.events import MessageSent
from rlpx.protocol.session.send_queue import QueuedMessage, Rank, SendQueue

_FIRST_CODE: Final = FIRST_CAPABILITY_CODE


class Sender:
    """See the module. `queue` holds the messages that wait to be sealed, `sealed` the bytes that wait to be written.

    `sent` has the messages that have left and whose taps have readers. `bytes_out` and `messages_out` count what has left.
    """

    __slots__ = ("_cipher", "_has_snappy", "_interest", "_table", "bytes_out", "messages_out", "queue", "sealed", "sent")

    def __init__(self, interest: Mapping[str, object], queue_bytes: int) -> None:
        self._interest = interest
        self._cipher: FrameCipher | None = None
        self._has_snappy = False
        # Until the Hello is accepted no capability is shared.
        self._table: MessageTable | None = None
        self.sealed: list[bytes] = []
        self.sent: list[MessageSent] = []
        self.queue = SendQueue(queue_bytes)
        self.bytes_out = self.messages_out = 0

    def read_for(self, interest: Mapping[str, object]) -> None:
        """Set whose taps are read from now on."""
        self._interest = interest

    def write(self, data: bytes) -> None:
        """Send a packet of the handshake."""
        self.sealed.append(data)

    def open(self, cipher: FrameCipher) -> None:
        """Set the cipher; from now on messages can be sealed."""
        self._cipher = cipher

    def send_hello(self, cipher: FrameCipher, hello: bytes) -> None:
        """Send our Hello. Snappy is on for everything after it (`rlpx.md`)."""
        self.sealed.append(cipher.seal(bytes([p2p.HELLO_BYTE]) + hello))
        self._has_snappy = True
        self.messages_out += 1

    def on_hello(self, version: int) -> None:
        """Take the peer's version of the base protocol. Below 5 it cannot read Snappy, not even in a Disconnect."""
        self._has_snappy = version >= p2p.P2P_VERSION

    def share(self, table: MessageTable) -> None:
        """Set the capabilities that both sides share."""
        self._table = table

    def send_base(self, code: int, payload: bytes) -> None:
        """Send a message of the base protocol."""
        body = p2p.deflate(payload) if self._has_snappy else payload
        self.queue.put_unbounded(Rank.CONTROL, QueuedMessage.of(code, body))

    def data_to_send(self, room_bytes: int = sys.maxsize) -> bytes:
        """Return the next bytes to write, about `room_bytes` of them."""
        sealed, queue, cipher = self.sealed, self.queue, self._cipher
        if queue.bytes and cipher is not None:
            room_bytes -= sum(map(len, sealed))
            while queue.bytes and room_bytes > 0:
                frame = self._seal_next(cipher)
                room_bytes -= len(frame)
                sealed.append(frame)
        if not sealed:
            return b""
        data = sealed[0] if len(sealed) == 1 else b"".join(sealed)
        sealed.clear()
        self.bytes_out += len(data)
        return data

    def take_sent(self) -> list[MessageSent]:
        """Return the messages that have left since the last call and whose taps have readers."""
        sent, self.sent = self.sent, []
        return sent

    def close(self) -> None:
        """Keep only control messages, sealed, to be written. Other sessions need the memory."""
        self.queue.clear()
        cipher, self._cipher = self._cipher, None
        if cipher is not None:
            while self.queue.bytes:
                self.sealed.append(self._seal_next(cipher))

    def _seal_next(self, cipher: FrameCipher) -> bytes:
        """Return the next frame. Every outgoing message, merged or not, passes here and is noted for its tap."""
        content = self.queue.take().content
        self.messages_out += 1
        table = self._table
        if table is not None:
            code = content[0]
            table.count_out(code, 1, len(content))
            if code >= _FIRST_CODE:
                kind = table.by_code[code]
                if kind is not None and self._interest[kind.tap]:
                    self.sent.append(MessageSent(kind, p2p.inflate(content, MAX_PAYLOAD_BYTES, 1)))
        return cipher.seal(content)
