"""Messages on a stream between our processes: a length of four bytes, big-endian, then a msgpack struct."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

LENGTH_BYTES: Final = 4

T = TypeVar("T")
_encoder: Final = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """Return one message with its length in front."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class StreamDecoder(Generic[T]):
    """Reads the messages of one direction from a stream of bytes, in any cut. Both ends are ours, so bad data is a bug."""

    def __init__(self, union: type[T]) -> None:
        self._decode = msgspec.msgpack.Decoder(union).decode
        # The beginning of a message whose end has not arrived.
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Take a chunk; returns the messages that it completes."""
        rest = self._rest
        if rest:
            rest += data
            with memoryview(rest) as view:
                messages, end = self._read(view)
            del rest[:end]
        else:
            messages, end = self._read(memoryview(data))
            rest += data[end:]
        return messages

    def _read(self, view: memoryview) -> tuple[list[T], int]:
        """Return the complete messages at the front, and where they end."""
        messages: list[T] = []
        start, size = 0, len(view)
        while size - start >= LENGTH_BYTES:
            body = start + LENGTH_BYTES
            end = body + int.from_bytes(view[start:body], "big")
            if end > size:
                break
            messages.append(self._decode(view[body:end]))
            start = end
        return messages, start
