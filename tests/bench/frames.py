"""`python -m tests.bench.frames`: what sealing and opening a frame costs, in Python and compiled, without a socket."""

from __future__ import annotations

import sys
from time import process_time
from typing import Final

from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.frames import FrameCipher, PythonFrameCipher
from rlpx.protocol.rlpx.handshake import Secrets

# Content bytes, and frames in a round.
SIZES: Final = {64: 20_000, 1024: 10_000, 16 * 1024: 1_500, 128 * 1024: 200}
# The best of this many rounds counts, because others use the machine too.
ROUNDS: Final = 5
# The most that one read returns (uvloop's buffer).
CHUNK_BYTES: Final = 256 * 1024
SECRETS: Final = Secrets(bytes(32), bytes(range(32)), b"out", b"in")


def microseconds(made_by: type[PythonFrameCipher], size: int, count: int) -> tuple[float, float]:
    """CPU time of sealing and of opening one frame."""
    ours, theirs = made_by(SECRETS), made_by(SECRETS._replace(egress_seed=b"in", ingress_seed=b"out"))
    theirs.limit_bytes = MAX_FRAME_BYTES
    content = bytes(size)
    start = process_time()
    frames = [ours.seal(content) for _ in range(count)]
    sealed = process_time() - start
    stream = b"".join(frames)
    chunks = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    opened = 0
    start = process_time()
    for chunk in chunks:
        theirs.feed(chunk)
        for _ in theirs.frames():
            opened += 1
    spent = process_time() - start
    if opened != count:
        raise SystemExit(f"{opened} frames of {count} were opened")
    return sealed / count * 1e6, spent / count * 1e6


def main() -> None:
    """Print both."""
    for size, count in SIZES.items():
        for name, made_by in (("Python", PythonFrameCipher), ("compiled", FrameCipher)):
            rounds = [microseconds(made_by, size, count) for _ in range(ROUNDS)]
            sealed, opened = (min(values) for values in zip(*rounds, strict=True))
            sys.stdout.write(f"{size:>7,} B  {name:<8}  seal {sealed:8.2f} µs  open {opened:8.2f} µs\n")


if __name__ == "__main__":
    main()
