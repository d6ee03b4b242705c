"""The stream from a worker to the engine: reports, with batches of events between them, in one order.

The length of a batch has its highest bit set. The length of the batch's head follows, then the head in msgpack, then the
message as subscribers receive it. A large message is read into memory of its own, so that the engine passes it on without
another copy.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from rlpx.protocol.bus.batches import Numbers
from rlpx.protocol.bus.control import Report, SessionId
from rlpx.protocol.bus.framing import LENGTH_BYTES
from rlpx.protocol.bus.zmtp import Wire

# If this bit of a message's length is set, the message is a batch.
_BATCH_BIT: Final = 1 << 31
# The number of bytes that the kernel holds for a stream by default (`net.core.wmem_default`).
SCRATCH_BYTES: Final = 256 * 1024
# A message of at least this length is completed in memory of its own. For a shorter one it costs less to move the received
# part to the start of the scratch.
LARGE_BYTES: Final = 16 * 1024
# Large messages come one after another. Behind one, this much is read: enough to see how long the next one is, and little to
# copy into its own memory.
PEEK_BYTES: Final = 4 * 1024

# More than any batch has, or a snapshot of a hundred thousand sessions.
MESSAGE_MAX_BYTES: Final = 256 * 1024 * 1024

_Head: TypeAlias = tuple[str, int, Numbers, tuple[SessionId, ...]]

_encoder: Final = msgspec.msgpack.Encoder()
_head_decoder: Final = msgspec.msgpack.Decoder(_Head)


class Published(msgspec.Struct, frozen=True):
    """A batch. `wire` is the message as subscribers receive it; it is empty if the topic has no subscriber.

    `numbers` are the publisher's after the batch, `first` is the ordinal of its first event, and `sessions` are those whose
    opening or end it reports.
    """

    topic: str
    first: int
    numbers: Numbers
    sessions: tuple[SessionId, ...]
    wire: Wire

    @property
    def count(self) -> int:
        """The number of its events."""
        return self.numbers.next - self.first


def encode_published(published: Published) -> tuple[bytes, Wire]:
    """Encode a batch for the stream, in two parts, so that the message is not copied."""
    head = _encoder.encode((published.topic, published.first, published.numbers, published.sessions))
    size = _BATCH_BIT | (LENGTH_BYTES + len(head) + len(published.wire))
    return size.to_bytes(LENGTH_BYTES, "big") + len(head).to_bytes(LENGTH_BYTES, "big") + head, published.wire


class ReportReader:
    """The engine's end of the stream: read into `buffer()`, then call `received`. Malformed data is a bug of ours."""

    def __init__(self) -> None:
        self._decode = msgspec.msgpack.Decoder[Report](Report).decode
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._filled = 0
        self._room = SCRATCH_BYTES
        # A large message that is received in part.
        self._large: memoryview | None = None
        self._large_filled = 0

    def buffer(self) -> memoryview:
        """Return the memory for the next read; it is never empty."""
        if self._large is not None:
            return self._large[self._large_filled :]
        return self._scratch[self._filled : max(self._room, self._filled + PEEK_BYTES)]

    def received(self, count: int) -> list[Report | Published]:
        """Take the `count` bytes that were read into `buffer()`; returns the messages that they complete."""
        if self._large is None:
            self._filled += count
            return self._read()
        self._large_filled += count
        if self._large_filled < len(self._large):
            return []
        large, self._large = self._large.toreadonly(), None
        length = int.from_bytes(large[:LENGTH_BYTES], "big")
        if length & _BATCH_BIT:
            return [_published(large[LENGTH_BYTES:], is_kept=True)]
        return [self._decode(large[LENGTH_BYTES:])]

    def feed(self, data: bytes) -> list[Report | Published]:
        """Take bytes that were read elsewhere; returns the messages that they complete."""
        messages: list[Report | Published] = []
        left = memoryview(data)
        while left:
            target = self.buffer()
            count = min(len(target), len(left))
            target[:count] = left[:count]
            messages += self.received(count)
            left = left[count:]
        return messages

    def _read(self) -> list[Report | Published]:
        """Take the complete messages out of the scratch, and move an incomplete one to the place where it is completed."""
        messages: list[Report | Published] = []
        view, start, filled = self._scratch, 0, self._filled
        self._room = SCRATCH_BYTES
        while filled - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            length = int.from_bytes(view[start:body], "big")
            end = body + (length & ~_BATCH_BIT)
            if end > filled:
                if end - start >= LARGE_BYTES:
                    self._room = PEEK_BYTES
                    self._begin_large(end - start, start)
                    return messages
                break
            if length & _BATCH_BIT:
                messages.append(_published(view[body:end], is_kept=False))
            else:
                messages.append(self._decode(view[body:end]))
            if end - start >= LARGE_BYTES:
                self._room = PEEK_BYTES
            start = end
        self._filled = filled - start
        if start:
            view[: self._filled] = view[start:filled]
        return messages

    def _begin_large(self, size: int, start: int) -> None:
        if size > MESSAGE_MAX_BYTES:
            raise msgspec.DecodeError(f"a message of {size} bytes")
        self._large = memoryview(bytearray(size))
        self._large_filled = self._filled - start
        self._large[: self._large_filled] = self._scratch[start : self._filled]
        self._filled = 0


def _published(view: memoryview, *, is_kept: bool) -> Published:
    """Decode a batch. `is_kept`: the memory belongs to this message alone, so it need not be copied."""
    wire = LENGTH_BYTES + int.from_bytes(view[:LENGTH_BYTES], "big")
    topic, first, numbers, sessions = _head_decoder.decode(view[LENGTH_BYTES:wire])
    return Published(topic, first, numbers, sessions, view[wire:] if is_kept else bytes(view[wire:]))
