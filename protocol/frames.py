"""RLPx frames: seal messages into them, open whole ones out of a byte stream (`rlpx.md`, "Framing").

One call takes a chunk as it came from the socket and yields every whole frame in it. It knows lengths, MACs and the
two keystreams; it does not know what a message is.

`FrameCipher` is the compiled twin in `c/frames.c` where there is one, else `PythonFrameCipher`: a frame of 64 bytes is
opened in 1.5 µs or in 5.4 (`PYTHONPATH=. python -m tests.bench.frames`). Both do the same, to the words of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from protocol.crypto import RunningHash, aes_ctr, aes_ecb, is_same, running_keccak256, xor
from protocol.errors import FrameError, OversizedFrameError, UsageError
from protocol.handshake import Secrets
from protocol.native import NATIVE

# The size field has 24 bits.
MAX_FRAME_BYTES: Final = 0xFFFFFF
# Before the Hello is known nobody may make us wait for more (reth 12172).
MAX_FIRST_FRAME_BYTES: Final = 2048
BLOCK_BYTES: Final = 16
# Header ciphertext and its MAC.
HEADER_BYTES: Final = 2 * BLOCK_BYTES

_SIZE_BYTES: Final = 3
# Header data [capability-id, context-id], both always zero, and zeros up to a whole block.
_HEADER_TAIL: Final = b"\xc2\x80\x80" + bytes(10)
_ZERO_COUNTER: Final = bytes(BLOCK_BYTES)
_PADDING: Final = tuple(bytes(-size % BLOCK_BYTES) for size in range(BLOCK_BYTES))


class PythonFrameCipher:
    """Both directions of one connection after the handshake. `limit_bytes` is the longest content accepted next."""

    __slots__ = (
        "_at",
        "_body_bytes",
        "_buffer",
        "_decrypt",
        "_egress",
        "_egress_digest",
        "_encrypt",
        "_ingress",
        "_ingress_digest",
        "_is_broken",
        "_later",
        "_mac_cipher",
        "buffered_bytes",
        "limit_bytes",
    )

    def __init__(self, secrets: Secrets) -> None:
        self._encrypt = aes_ctr(secrets.aes, _ZERO_COUNTER).update
        self._decrypt = aes_ctr(secrets.aes, _ZERO_COUNTER).update
        self._mac_cipher = aes_ecb(secrets.mac).update
        self._egress = running_keccak256(secrets.egress_seed)
        self._ingress = running_keccak256(secrets.ingress_seed)
        # The digest after one frame is the one the next header starts from: kept, it saves one of four per frame.
        self._egress_digest = self._egress.digest()[:BLOCK_BYTES]
        self._ingress_digest = self._ingress.digest()[:BLOCK_BYTES]
        # What has arrived: `_buffer` from `_at` on, then `_later`, which grows with it however small the pieces are.
        self._buffer = b""
        self._at = 0
        self._later = bytearray()
        self.buffered_bytes = 0
        self._is_broken = False
        # Content length of the frame whose header is already open; -1 while a header is awaited.
        self._body_bytes = -1
        self.limit_bytes = MAX_FIRST_FRAME_BYTES

    def seal(self, content: bytes) -> bytes:
        """One frame around `content`, up to 2²⁴-1 bytes. Raises `UsageError` beyond."""
        size = len(content)
        if size > MAX_FRAME_BYTES:
            raise UsageError(f"a message of {size} bytes is over the {MAX_FRAME_BYTES} of a frame")
        header = self._encrypt(size.to_bytes(_SIZE_BYTES, "big") + _HEADER_TAIL)
        mac = self._egress
        mac.update(xor(self._mac_cipher(self._egress_digest), header))
        header_mac = mac.digest()[:BLOCK_BYTES]
        body = self._encrypt(content + _PADDING[size % BLOCK_BYTES])
        body_mac = self._egress_digest = _absorb_body(mac, body, self._mac_cipher)
        return b"".join((header, header_mac, body, body_mac))

    def feed(self, data: bytes) -> None:
        """Take a chunk as it arrived; `frames` opens it. After an error nothing is kept any more."""
        if self._is_broken:
            return
        self.buffered_bytes += len(data)
        if self._at == len(self._buffer) and not self._later:
            self._buffer = data
            self._at = 0
        else:
            self._later += data

    def frames(self) -> Iterator[bytes]:
        """Yield the content of every whole frame fed so far.

        Raises `FrameError` where a MAC differs and `OversizedFrameError` over `limit_bytes`, after the frames before it
        were yielded, and from then on at once. The caller may stop in between and go on later.
        """
        while True:
            if self._is_broken:
                raise FrameError("a frame after one that was refused")
            size = self._body_bytes
            wanted = HEADER_BYTES if size < 0 else size + -size % BLOCK_BYTES + BLOCK_BYTES
            if self.buffered_bytes < wanted:
                # A few bytes left over must not hold the whole chunk they came in.
                self._buffer = self._buffer[self._at :]
                self._at = 0
                return
            start = self._take(wanted)
            if size < 0:
                self._body_bytes = self._open_header(start)
            else:
                self._body_bytes = -1
                yield self._open_body(start, start + wanted - BLOCK_BYTES)[:size]

    def _take(self, wanted: int) -> int:
        """Where in `_buffer` the next `wanted` bytes stand. Pieces are joined only once they make a whole one."""
        self.buffered_bytes -= wanted
        start = self._at
        if len(self._buffer) - start < wanted:
            self._buffer = self._buffer[start:] + self._later
            self._later.clear()
            start = 0
        self._at = start + wanted
        return start

    def _broken_by(self, error: FrameError) -> FrameError:
        """Where one frame cannot be opened none behind it can: nothing is kept of them."""
        self._is_broken = True
        self._buffer = b""
        self._at = self.buffered_bytes = 0
        self._later.clear()
        return error

    def _open_header(self, start: int) -> int:
        """Check and decrypt a header; the length of the content that follows it."""
        header = self._buffer[start : start + BLOCK_BYTES]
        mac = self._ingress
        mac.update(xor(self._mac_cipher(self._ingress_digest), header))
        tag = mac.digest()[:BLOCK_BYTES]
        if not is_same(tag, self._buffer[start + BLOCK_BYTES : start + HEADER_BYTES]):
            raise self._broken_by(FrameError("a frame header whose MAC differs"))
        size = int.from_bytes(self._decrypt(header)[:_SIZE_BYTES], "big")
        if size > self.limit_bytes:
            words = f"a frame of {size} bytes where {self.limit_bytes} are allowed"
            raise self._broken_by(OversizedFrameError(words))
        return size

    def _open_body(self, start: int, end: int) -> bytes:
        """Check and decrypt a body with its padding; its MAC stands behind it."""
        body = self._buffer[start:end]
        tag = _absorb_body(self._ingress, body, self._mac_cipher)
        if not is_same(tag, self._buffer[end : end + BLOCK_BYTES]):
            raise self._broken_by(FrameError("a frame body whose MAC differs"))
        self._ingress_digest = tag
        return self._decrypt(body)


def _absorb_body(mac: RunningHash, body: bytes, cipher: Callable[[bytes], bytes]) -> bytes:
    """Let `mac` absorb a body's ciphertext; its tag, which is the digest that the next header starts from."""
    mac.update(body)
    digest = mac.digest()[:BLOCK_BYTES]
    mac.update(xor(cipher(digest), digest))
    return mac.digest()[:BLOCK_BYTES]


# To the type checker a class; when it runs, the better of the two.
if TYPE_CHECKING:
    FrameCipher = PythonFrameCipher
else:
    FrameCipher = PythonFrameCipher if NATIVE is None else NATIVE.FrameCipher
