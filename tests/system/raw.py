"""A raw peer over TCP: it keeps no rules, and sends exactly what a test asks for at any stage, as dialler or as listener.

    with RawConnection.to(engine) as peer:              dial the engine; nothing is sent yet
        peer.reaches(Stage.STATUS).says(0x01, b"\\xc1\\x04")
    with listening() as (server, key, enode): …         be dialled: `RawConnection.accepted(server, key, …)`

Payloads are RLP; after Hello they are deflated unless `is_snappy=False`. `heard` has the engine's messages, as code
and body.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rlpx.protocol import rlp
from rlpx.protocol.errors import FrameError
from rlpx.protocol.eth.forkid import Chain, Forks
from rlpx.protocol.eth.status import Head, LocalChain, local_status
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE, Capability
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.rlpx.frames import FrameCipher
from rlpx.protocol.rlpx.handshake import Initiator, Recipient, packet_end
from rlpx.protocol.rlpx.p2p import HELLO_BYTE, Hello, deflate, inflate

PATIENCE_SECONDS: Final = 120.0
RECEIVE_BYTES: Final = 65536
DISCONNECT: Final = 0x01
STATUS: Final = FIRST_CAPABILITY_CODE
ORDER: Final = (Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.ACTIVE)


class RawConnection:
    """See the module. `node_id` is its own id."""

    def __init__(self, sock: socket.socket, engine_id: bytes, chain: Chain, *, is_dialler: bool) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE_SECONDS)
        self.heard: list[tuple[int, bytes]] = []
        self.stage = Stage.AUTH
        self.key = PrivateKey.generate(os.urandom)
        self.version = 69
        self._engine_id = engine_id
        self._chain = chain
        self._is_dialler = is_dialler
        self._cipher: FrameCipher | None = None

    @classmethod
    def to(cls, address: tuple[str, int], engine_id: bytes, chain: Chain, source: str = "127.0.0.1") -> RawConnection:
        """Connect to an engine."""
        sock = socket.create_connection(address, PATIENCE_SECONDS, (source, 0))
        return cls(sock, engine_id, chain, is_dialler=True)

    @classmethod
    def accepted(cls, server: socket.socket, key: PrivateKey, engine_id: bytes, chain: Chain) -> RawConnection:
        """Take the connection of an engine that dials."""
        server.settimeout(PATIENCE_SECONDS)
        peer = cls(server.accept()[0], engine_id, chain, is_dialler=False)
        peer.key = key
        return peer

    @property
    def node_id(self) -> bytes:
        return self.key.id

    def reaches(self, stage: Stage) -> Self:
        """Behave well until `stage` comes next on this side."""
        steps = {Stage.AUTH: self.shakes_hands, Stage.HELLO: self.says_hello, Stage.STATUS: self.says_status}
        while self.stage is not stage:
            step = steps[self.stage]
            step()
            self.stage = ORDER[ORDER.index(self.stage) + 1]
        return self

    # -- what it says --------------------------------------------------------------------------------------------------

    def gives(self, data: bytes) -> Self:
        """Send bytes as they are."""
        self.socket.sendall(data)
        return self

    def shakes_hands(self) -> None:
        """Exchange auth and ack."""
        if self._is_dialler:
            initiator = Initiator(self.key, self._engine_id, os.urandom)
            self.gives(initiator.auth)
            packet, rest = self._packet()
            self._cipher = FrameCipher(initiator.open_ack(packet))
        else:
            packet, rest = self._packet()
            recipient = Recipient(packet, self.key, os.urandom)
            self.gives(recipient.ack)
            self._cipher = FrameCipher(recipient.secrets)
        self._cipher.limit_bytes = MAX_FRAME_BYTES
        self._cipher.feed(rest)

    def says(self, code: int, payload: bytes = b"\xc0", *, is_snappy: bool = True) -> Self:
        """Send one message."""
        return self.gives(self.sealed(code, payload, is_snappy=is_snappy))

    def sealed(self, code: int, payload: bytes = b"\xc0", *, is_snappy: bool = True) -> bytes:
        """One message in its frame, to be sent next."""
        assert self._cipher is not None
        return self._cipher.seal(bytes([code]) + (deflate(payload) if is_snappy else payload))

    def says_hello(self) -> None:
        """Send a valid Hello with one version of eth."""
        hello = Hello("raw/1.0", (Capability("eth", self.version),), 0, self.node_id)
        self.says(HELLO_BYTE, hello.encode(), is_snappy=False)
        self.hears(HELLO_BYTE)

    def says_status(self) -> None:
        """Send a valid Status once the engine's has come."""
        self.hears(STATUS)
        chain = LocalChain(self._chain.network_id, self._chain.genesis, Forks(self._chain), Head(1, b"\x01" * 32))
        self.says(STATUS, local_status(self.version, chain, 1 << 31).encode())

    # -- what it hears -------------------------------------------------------------------------------------------------

    def hears(self, code: int, count: int = 1) -> bytes:
        """The body of the `count`-th message with this code, when it comes."""
        ends_at = monotonic() + PATIENCE_SECONDS
        while len(found := [body for heard, body in self.heard if heard == code]) < count:
            assert monotonic() < ends_at, f"no message 0x{code:02x}; there were {self.heard[-10:]}"
            assert self.reads(), f"the end came before 0x{code:02x}; there were {self.heard[-10:]}"
        return found[count - 1]

    def reads(self) -> bool:
        """Read what has come; returns whether the connection is still there."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except ConnectionError:
            return False
        if data and self._cipher is not None:
            self._cipher.feed(data)
            self._take(self._cipher)
        return bool(data)

    def goodbye(self) -> int | None:
        """The reason of the engine's Disconnect, read up to the end of the connection; `None` if there was none."""
        while self.reads():
            pass
        said = [body for code, body in self.heard if code == DISCONNECT]
        if not said:
            return None
        is_deflated = any(code == HELLO_BYTE for code, _ in self.heard)
        return rlp.as_uint(rlp.decode_list(inflate(said[-1], 64) if is_deflated else said[-1])[0])

    def _packet(self) -> tuple[bytes, bytes]:
        data = b""
        while len(data) < len(b"\0\0") or len(data) < packet_end(data):
            more = self.socket.recv(RECEIVE_BYTES)
            assert more, "the end came before the handshake"
            data += more
        end = packet_end(data)
        return data[:end], data[end:]

    def _take(self, cipher: FrameCipher) -> None:
        try:
            self.heard += [(content[0], content[1:]) for content in cipher.frames()]
        except FrameError as error:
            raise AssertionError("the engine sent a frame that is none") from error

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        if self._cipher is not None:
            self._take(self._cipher)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def listening() -> Iterator[tuple[socket.socket, PrivateKey, str]]:
    """A listener that an engine may dial: its socket, its key, and its enode."""
    key = PrivateKey.generate(os.urandom)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server, key, f"enode://{key.id.hex()}@127.0.0.1:{server.getsockname()[1]}"
