"""Peers that keep the rules of the handshake and no others: they send anything, as fast as it is read, for a bounded time.

    python -m tests.system.flood HOST PORT NODE-ID KIND PEERS SECONDS

prints `ready` when all are established, floods until the time is over or nobody is left, and prints a JSON object: the
numbers of frames and bytes that the engine read, and of peers that are left.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from time import monotonic
from types import TracebackType
from typing import Final, Self

import rlp

from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.capabilities import Capability
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.rlpx.frames import FrameCipher
from rlpx.protocol.rlpx.handshake import Initiator
from rlpx.protocol.rlpx.p2p import Hello

ETH: Final = 0x10
VERSION: Final = 72
PATIENCE_SECONDS: Final = 120.0
# Frames that a flood seals at a time: the kernel may take this many of each peer at the end, even if nobody reads them.
BATCH_FRAMES: Final = 64
HASH: Final = b"\x11" * 32


class RawPeer:
    """An established peer on a blocking socket. It sends what the test asks for; `heard` is the last frame that it read."""

    def __init__(
        self, address: tuple[str, int], node_id: bytes, source: str = "127.0.0.1", key: PrivateKey | None = None
    ) -> None:
        self.key = key or PrivateKey.generate(os.urandom)
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS, source_address=(source, 0))
        initiator = Initiator(self.key, node_id, os.urandom)
        self.auth = initiator.auth
        self.socket.sendall(initiator.auth)
        prefix = self._exactly(2)
        self.cipher = FrameCipher(initiator.open_ack(prefix + self._exactly(int.from_bytes(prefix, "big"))))
        self.cipher.limit_bytes = MAX_FRAME_BYTES
        self._frames: list[bytes] = []
        hello = Hello("flood", (Capability("eth", VERSION),), 0, self.key.id)
        self.say(p2p.HELLO_BYTE, hello.encode(), is_snappy=False)

    def establish(self) -> Self:
        """Wait for the engine's Status and send the same one back."""
        while (content := self.hear())[0] != ETH:
            assert content[0] != p2p.DISCONNECT_CODE, content
        self.socket.sendall(self.cipher.seal(content))
        return self

    def say(self, code: int, payload: bytes = p2p.EMPTY_LIST, *, is_snappy: bool = True) -> None:
        """Send one message."""
        self.socket.sendall(self.sealed(code, payload, is_snappy=is_snappy))

    def sealed(self, code: int, payload: bytes, *, is_snappy: bool = True) -> bytes:
        """One message in its frame."""
        return self.cipher.seal(bytes([code]) + (p2p.deflate(payload) if is_snappy else payload))

    def hear(self) -> bytes:
        """The content of the next frame. Raises `ConnectionError` at the end of the stream."""
        while not self._frames:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the engine closed the connection")
            self.cipher.feed(data)
            self._frames += self.cipher.frames()
        return self._frames.pop(0)

    def ping(self) -> float:
        """The seconds until the pong; the engine's own pings are answered meanwhile."""
        start = monotonic()
        self.say(p2p.PING_CODE)
        while (code := self.hear()[0]) != p2p.PONG_CODE:
            if code == p2p.PING_CODE:
                self.say(p2p.PONG_CODE)
        return monotonic() - start

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionResetError("the engine closed the connection")
            data += piece
        return data


def content_of(kind: str) -> bytes:
    """The content of a frame: message code, and the payload compressed."""
    announced = [os.urandom(32) for _ in range(10)]
    messages: dict[str, tuple[int, object]] = {
        "ping": (p2p.PING_CODE, []),
        "pong": (p2p.PONG_CODE, []),
        "Transactions-64": (ETH + 2, [os.urandom(60)]),
        "Transactions-16384": (ETH + 2, [os.urandom(16 * 1024)]),
        "Transactions-131072": (ETH + 2, [os.urandom(128 * 1024)]),
        "NewPooledTransactionHashes": (ETH + 8, [b"\x02" * 10, [100] * 10, announced, bytes(16)]),
        "GetBlockHeaders": (ETH + 3, [7, [5, 1, 0, 0]]),
        "GetBlockBodies": (ETH + 5, [7, [HASH]]),
        "GetPooledTransactions": (ETH + 9, [7, announced]),
        "GetReceipts": (ETH + 0xF, [7, 0, [HASH]]),
        "GetBlockAccessLists": (ETH + 0x12, [7, [HASH] * 1024]),
        "GetCells": (ETH + 0x14, [7, [HASH], bytes(16)]),
        "BlockRangeUpdate": (ETH + 0x11, [1, 2, HASH]),
    }
    code, payload = messages[kind]
    return bytes([code]) + p2p.deflate(rlp.encode(payload))


class Flooder:
    """One peer that writes whenever it can; `bytes` and `frames` count what the engine has read from it."""

    def __init__(self, peer: RawPeer, content: bytes) -> None:
        self._peer = peer
        self._content = content
        self._waiting = memoryview(b"")
        self.frames = self.bytes = 0
        peer.socket.setblocking(False)

    def fileno(self) -> int:
        """For selectors."""
        return self._peer.socket.fileno()

    def act(self, ready: int) -> bool:
        """Write what the socket takes, discard what arrives; returns whether the connection still lives."""
        try:
            if ready & selectors.EVENT_READ and not self._peer.socket.recv(1 << 16):
                return False
            if ready & selectors.EVENT_WRITE:
                if not self._waiting:
                    self._waiting = memoryview(
                        b"".join([self._peer.cipher.seal(self._content) for _ in range(BATCH_FRAMES)])
                    )
                    self.frames += BATCH_FRAMES
                sent = self._peer.socket.send(self._waiting)
                self._waiting = self._waiting[sent:]
                self.bytes += sent
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def flood(flooders: list[Flooder], seconds: float) -> int:
    """Write for this long, or until nobody is left; returns how many are left."""
    ready = selectors.DefaultSelector()
    for flooder in flooders:
        ready.register(flooder, selectors.EVENT_READ | selectors.EVENT_WRITE, flooder)
    ends_at = monotonic() + seconds
    while ready.get_map() and monotonic() < ends_at:
        for entry, events in ready.select(0.1):
            if not entry.data.act(events):
                ready.unregister(entry.data)
    return len(ready.get_map())


def main() -> None:
    """See the module."""
    host, port, node_id, kind, peers, seconds = sys.argv[1:]
    address = (host, int(port))
    raw = [RawPeer(address, bytes.fromhex(node_id)).establish() for _ in range(int(peers))]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    flooders = [Flooder(peer, content_of(kind)) for peer in raw]
    left = flood(flooders, float(seconds))
    totals = {"frames": sum(item.frames for item in flooders), "bytes": sum(item.bytes for item in flooders), "left": left}
    sys.stdout.write(json.dumps(totals) + "\n")


if __name__ == "__main__":
    main()
