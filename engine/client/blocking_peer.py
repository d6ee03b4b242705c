"""`BlockingPeer`: the names of `Peer` for programs that wait for each answer."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar, overload

from rlpx.engine.client.forms import Sendable
from rlpx.engine.client.typed_requests import Peer, Question
from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.bus.values import ReasonName
from rlpx.protocol.eth import snap_messages
from rlpx.protocol.eth.messages import (
    BlockAccessLists,
    BlockBodies,
    BlockHeaders,
    Cells,
    EthMessage,
    GetBlockAccessLists,
    GetBlockBodies,
    GetBlockHeaders,
    GetCells,
    GetNodeData,
    GetPooledTransactions,
    GetReceipts,
    GetReceipts70,
    NodeData,
    PooledTransactions,
    Receipts,
    Receipts69,
    Receipts70,
)
from rlpx.protocol.eth.snap_messages import (
    AccountRange,
    ByteCodes,
    GetAccountRange,
    GetByteCodes,
    GetStorageRanges,
    GetTrieNodes,
    SnapMessage,
    StorageRanges,
    TrieNodes,
)

T = TypeVar("T")


class Wait(Protocol):
    """Waits until a call is done."""

    def __call__(self, called: Coroutine[Any, Any, T]) -> T:
        """See the class."""


class BlockingPeer:
    """See `Peer`, whose requests take turns with these."""

    def __init__(self, peer: Peer, wait: Wait) -> None:
        self.session = peer.session
        self._peer = peer
        self._wait = wait

    def show(self, *, timeout: float | None = None) -> SessionObject:
        """The session as it is now. Raises `NoSuchSessionError`."""
        return self._wait(self._peer.show(timeout=timeout))

    def send(self, message: Sendable, *, raw: bool = False, timeout: float | None = None) -> None:
        """See `Peer.send`."""
        self._wait(self._peer.send(message, raw=raw, timeout=timeout))

    def disconnect(self, reason: ReasonName = "disconnect_requested", *, timeout: float | None = None) -> None:
        """See `Peer.disconnect`."""
        self._wait(self._peer.disconnect(reason, timeout=timeout))

    @overload
    def request(self, message: GetBlockHeaders, *, timeout: float | None = None) -> BlockHeaders: ...
    @overload
    def request(self, message: GetBlockBodies, *, timeout: float | None = None) -> BlockBodies: ...
    @overload
    def request(self, message: GetPooledTransactions, *, timeout: float | None = None) -> PooledTransactions: ...
    @overload
    def request(self, message: GetReceipts, *, timeout: float | None = None) -> Receipts | Receipts69 | Receipts70: ...
    @overload
    def request(self, message: GetReceipts70, *, timeout: float | None = None) -> Receipts70: ...
    @overload
    def request(self, message: GetNodeData, *, timeout: float | None = None) -> NodeData: ...
    @overload
    def request(self, message: GetBlockAccessLists, *, timeout: float | None = None) -> BlockAccessLists: ...
    @overload
    def request(self, message: GetCells, *, timeout: float | None = None) -> Cells: ...
    @overload
    def request(self, message: GetAccountRange, *, timeout: float | None = None) -> AccountRange: ...
    @overload
    def request(self, message: GetStorageRanges, *, timeout: float | None = None) -> StorageRanges: ...
    @overload
    def request(self, message: GetByteCodes, *, timeout: float | None = None) -> ByteCodes: ...
    @overload
    def request(self, message: GetTrieNodes, *, timeout: float | None = None) -> TrieNodes: ...
    @overload
    def request(
        self, message: snap_messages.GetBlockAccessLists, *, timeout: float | None = None
    ) -> snap_messages.BlockAccessLists: ...
    def request(self, message: Question, *, timeout: float | None = None) -> EthMessage | SnapMessage:
        """See `Peer.request`."""
        return self._wait(self._peer.request(message, timeout=timeout))
