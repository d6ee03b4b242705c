"""RLPx frames: seal messages, and open whole frames from a byte stream (`rlpx.md`, "Framing").

`feed` takes a chunk in any cut, `frames` yields every complete frame; `open` is both. This file knows lengths, MACs and the
two keystreams, but not messages: a `Tally` takes those that nobody reads.

`FrameCipher` is the compiled twin in `c/frames.c` if there is one, otherwise `PythonFrameCipher`. Opening a frame of 64
bytes takes 1.5 µs compiled and 5.4 µs in Python (`python -m tests.bench.frames`). Both behave alike, down to the text of
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rlpx.protocol.errors import FrameError, OversizedFrameError, UsageError
from rlpx.protocol.native import NATIVE
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.crypto import Buffer, RunningHash, aes_ctr, aes_ecb, is_same, running_keccak256, xor
from rlpx.protocol.rlpx.handshake import Secrets
from rlpx.protocol.rlpx.tally import Tally

# The longest frame that a peer may announce before its Hello (reth 12172).
MAX_FIRST_FRAME_BYTES: Final = 2048
BLOCK_BYTES: Final = 16
# The ciphertext of a header, and its MAC.
HEADER_BYTES: Final = 2 * BLOCK_BYTES

_SIZE_BYTES: Final = 3
# The header data [capability-id, context-id], which are always zero, and zeros up to a whole block.
_HEADER_TAIL: Final = b"\xc2\x80\x80" + bytes(10)
_ZERO_COUNTER: Final = bytes(BLOCK_BYTES)
_PADDING: Final = tuple(bytes(-size % BLOCK_BYTES) for size in range(BLOCK_BYTES))


class PythonFrameCipher:
    """Both directions of one connection after the handshake. `limit_bytes` is the longest content accepted next.

    `tally` takes the messages that nobody reads; `counted` is their number.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_body_bytes",
        "_buffer",
        "_decrypt",
        "_egress",
        "_egress_digest",
        "_encrypt",
        "_ingress",
        "_ingress_digest",
        "_is_broken",
        "_is_sealing",
        "_later",
        "_mac_cipher",
        "buffered_bytes",
        "counted",
        "limit_bytes",
        "tally",
    )

    def __init__(self, secrets: Secrets) -> None:
        self._encrypt = aes_ctr(secrets.aes, _ZERO_COUNTER).update
        self._decrypt = aes_ctr(secrets.aes, _ZERO_COUNTER).update
        self._mac_cipher = aes_ecb(secrets.mac).update
        self._egress = running_keccak256(secrets.egress_seed)
        self._ingress = running_keccak256(secrets.ingress_seed)
        # The next header starts from the digest after this frame: keeping it saves one of four digests per frame.
        self._egress_digest = self._egress.digest()[:BLOCK_BYTES]
        self._ingress_digest = self._ingress.digest()[:BLOCK_BYTES]
        # Received bytes: `_buffer` from `_at` on, then `_later`, which takes small pieces without copying the rest.
        self._buffer = b""
        self._at = 0
        self._later = bytearray()
        self.buffered_bytes = 0
        # Set while a frame is opened or sealed. An error meanwhile, such as a lack of memory, leaves it set for good.
        self._is_broken = False
        self._is_sealing = False
        # The content length of the frame whose header has been opened; -1 while the next header is awaited.
        self._body_bytes = -1
        # The first block of that content if `begun` has decrypted it; the keystream continues after it.
        self._begun = b""
        self.limit_bytes = MAX_FIRST_FRAME_BYTES
        self.tally: Tally | None = None
        self.counted = 0

    def seal(self, content: bytes) -> bytes:
        """Return a frame around `content`, up to 2²⁴-1 bytes. Raises `UsageError` beyond that, and after a failure."""
        size = len(content)
        if size > MAX_FRAME_BYTES:
            raise UsageError(f"a message of {size} bytes is over the {MAX_FRAME_BYTES} of a frame")
        if self._is_sealing:
            # The stream must not continue without a message that could not be sealed.
            raise UsageError("a frame after one that was not sealed")
        self._is_sealing = True
        header = self._encrypt(size.to_bytes(_SIZE_BYTES, "big") + _HEADER_TAIL)
        mac = self._egress
        mac.update(xor(self._mac_cipher(self._egress_digest), header))
        header_mac = mac.digest()[:BLOCK_BYTES]
        body = self._encrypt(content + _PADDING[size % BLOCK_BYTES])
        body_mac = self._egress_digest = _absorb_body(mac, body, self._mac_cipher)
        frame = b"".join((header, header_mac, body, body_mac))
        self._is_sealing = False
        return frame

    def feed(self, data: bytes) -> None:
        """Take a chunk in any cut; `frames` opens it. After an error the chunk is dropped."""
        if self._is_broken:
            return
        self._is_broken = True
        if self._at == len(self._buffer) and not self._later:
            self._buffer = data
            self._at = 0
        else:
            self._later += data
        self.buffered_bytes += len(data)
        self._is_broken = False

    def open(self, data: Buffer) -> bytes | None:
        """Take a chunk, and return the first content that `frames` yields, or None: the caller may reuse the chunk's memory.

        Raises as `frames` does. Call `frames` for what follows a content.
        """
        self.feed(bytes(data))
        return next(self.frames(), None)

    def frames(self) -> Iterator[bytes]:
        """Yield the content of every whole frame fed so far, except those that `tally` takes.

        Raises `FrameError` if a MAC differs and `OversizedFrameError` above `limit_bytes`, once the frames before it are
        yielded; every later call raises at once. The caller may stop in between and continue later.
        """
        while True:
            if self._is_broken:
                raise FrameError("a frame after one that was refused")
            size = self._body_bytes
            wanted = HEADER_BYTES if size < 0 else size + -size % BLOCK_BYTES + BLOCK_BYTES
            if self.buffered_bytes < wanted:
                # A few remaining bytes must not keep the whole chunk they came in alive.
                self._buffer = self._buffer[self._at :]
                self._at = 0
                return
            self._is_broken = True
            start = self._take(wanted)
            if size < 0:
                self._body_bytes = self._open_header(start)
                self._is_broken = False
            else:
                self._body_bytes = -1
                content = self._open_body(start, start + wanted - BLOCK_BYTES)[:size]
                self._is_broken = False
                if self.tally is not None and self.tally.takes(content):
                    self.counted += 1
                    continue
                yield content

    @property
    def begun(self) -> tuple[int, bytes] | None:
        """Return the length and the first block of a partially received content, or None if there is no such block.

        The block is not authenticated yet, so it may only be used to refuse the frame. Call this after `frames` has yielded
        everything.
        """
        if self._body_bytes < BLOCK_BYTES or self.buffered_bytes < BLOCK_BYTES:
            return None
        if not self._begun:
            first = self._buffer[self._at : self._at + BLOCK_BYTES]
            self._begun = self._decrypt(first + bytes(self._later[: BLOCK_BYTES - len(first)]))
        return self._body_bytes, self._begun

    def _take(self, wanted: int) -> int:
        """Return where the next `wanted` bytes start in `_buffer`. Pieces are joined only to complete a part of a frame."""
        self.buffered_bytes -= wanted
        start = self._at
        if len(self._buffer) - start < wanted:
            self._buffer = self._buffer[start:] + self._later
            self._later.clear()
            start = 0
        self._at = start + wanted
        return start

    def _broken_by(self, error: FrameError) -> FrameError:
        """After one bad frame no later frame can be decrypted: drop everything buffered."""
        self._buffer = b""
        self._at = self.buffered_bytes = 0
        self._later.clear()
        return error

    def _open_header(self, start: int) -> int:
        """Check and decrypt a header; returns the length of the content that follows."""
        header = self._buffer[start : start + BLOCK_BYTES]
        mac = self._ingress
        mac.update(xor(self._mac_cipher(self._ingress_digest), header))
        tag = mac.digest()[:BLOCK_BYTES]
        if not is_same(tag, self._buffer[start + BLOCK_BYTES : start + HEADER_BYTES]):
            raise self._broken_by(FrameError("a frame header whose MAC differs"))
        size = int.from_bytes(self._decrypt(header)[:_SIZE_BYTES], "big")
        if size > self.limit_bytes:
            text = f"a frame of {size} bytes where {self.limit_bytes} are allowed"
            raise self._broken_by(OversizedFrameError(text))
        return size

    def _open_body(self, start: int, end: int) -> bytes:
        """Check and decrypt a body with its padding; its MAC follows at `end`."""
        body = self._buffer[start:end]
        tag = _absorb_body(self._ingress, body, self._mac_cipher)
        if not is_same(tag, self._buffer[end : end + BLOCK_BYTES]):
            raise self._broken_by(FrameError("a frame body whose MAC differs"))
        self._ingress_digest = tag
        begun, self._begun = self._begun, b""
        return begun + self._decrypt(body[len(begun) :])


def _absorb_body(mac: RunningHash, body: bytes, cipher: Callable[[bytes], bytes]) -> bytes:
    """Absorb a body's ciphertext into `mac`; returns its tag, from which the MAC of the next header starts."""
    mac.update(body)
    digest = mac.digest()[:BLOCK_BYTES]
    mac.update(xor(cipher(digest), digest))
    return mac.digest()[:BLOCK_BYTES]


# The type checker sees the Python class; at run time it is the compiled one if there is one.
if TYPE_CHECKING:
    FrameCipher = PythonFrameCipher
else:
    FrameCipher = PythonFrameCipher if NATIVE is None else NATIVE.FrameCipher
