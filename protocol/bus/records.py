"""The records that a worker receives beside its stream, through a SEQPACKET socket that it inherits.

The first record is a `Configure` with the descriptor of the stream; each later one is a `Handoffs` with accepted sockets.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.eth.status import Head
from rlpx.protocol.rlpx.capabilities import SubProtocol
from rlpx.protocol.settings import WorkerSettings

# The configuration and any handoffs take far less than the 200 KiB that one SEQPACKET record may have.
RECORD_MAX_BYTES: Final = 64 * 1024
# Sockets in one record: as many as a worker adopts in one loop iteration. The kernel allows 253 (SCM_MAX_FD).
HANDOFFS_AT_ONCE: Final = 32


class NodeConfig(msgspec.Struct, frozen=True):
    """The identity that a worker announces in Hello. `key` is the node's secret; it is never logged."""

    key: bytes
    client: str
    listen_port: int

    def __repr__(self) -> str:
        return f"NodeConfig(client={self.client!r}, key=secret)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields for a rich traceback; msgspec's own method would show the key."""
        return [("client", self.client)]


class DataKeys(msgspec.Struct, frozen=True):
    """The engine's long-term secret key for CURVE, or none if users need no keys. It is never logged."""

    secret: bytes | None = None

    def __repr__(self) -> str:
        return "DataKeys(secret)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields for a rich traceback: none."""
        return []


class Configure(msgspec.Struct, frozen=True, array_like=True, tag="configure"):
    """The first record for a worker, with the descriptors of its stream and, if it has one, its TCP socket for programs.

    `data_path` is the place of its endpoint for programs in the run directory.
    """

    worker: WorkerId
    run: str
    node: NodeConfig
    protocols: tuple[SubProtocol, ...]
    required: tuple[str, ...]
    chain: Chain
    head: Head
    is_head_known: bool
    settings: WorkerSettings
    data_path: str
    data_keys: DataKeys = DataKeys()


class Handoff(msgspec.Struct, frozen=True, array_like=True):
    """An accepted socket: its peer's address, and when it was accepted (microseconds since 1970).

    If `refusal` is set, the worker only tells the peer why.
    """

    session: SessionId
    refusal: DisconnectReason | None = None
    remote: str = ""
    opened_us: int = 0


class Handoffs(msgspec.Struct, frozen=True, array_like=True, tag="handoffs"):
    """Accepted sockets. Their descriptors are in the same record, in the same order."""

    sockets: tuple[Handoff, ...]


Record = Configure | Handoffs

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Encode one SEQPACKET record."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> Record:
    """Decode a record made by `encode_record`."""
    return _decoder.decode(data)
