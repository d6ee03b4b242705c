"""The largest sizes of frames and payloads. They are apart so that programs that only name messages load no cryptography."""

from __future__ import annotations

from typing import Final

# The size field of a frame's header has 24 bits.
MAX_FRAME_BYTES: Final = 0xFFFFFF
# The inflated size that no message may exceed (`rlpx.md`, "Snappy": 16 MiB).
MAX_PAYLOAD_BYTES: Final = 0xFFFFFF


def max_deflated_bytes(size: int) -> int:
    """The largest number of bytes to which Snappy deflates a payload of `size` bytes (Snappy's own bound)."""
    return 32 + size + size // 6
