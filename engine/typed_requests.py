"""Typed requests: `Peer` asks the peer of one session, with messages of `eth_messages` and `snap_messages`, by `request`.

with Client.of(run_dir) as engine:
    peer = Peer(engine, session=42)
    headers = peer.request(GetBlockHeaders(0, HeadersQuery(start=1, limit=192))).headers

The form of a message is that of the version which was negotiated. Whether an answer is true (hashes, order, how much of
what was asked) is the caller's to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, overload

from engine.client import Client, EngineError
from engine.rpc import ERROR_CODES
from protocol import eth, eth_messages, snap, snap_messages
from protocol.errors import PeerError, UsageError
from protocol.eth_messages import (
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
from protocol.eth_messages_chain import MAX_BLOCK_TRANSACTIONS, Receipt
from protocol.snap_messages import (
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

# Answers in which one block's receipts may come. A block of 300 million gas logs 37 MiB; geth answers up to 10 MiB at
# once, others 2 MiB.
MAX_ROUNDS: Final = 32

_EthRequest = (
    GetBlockHeaders
    | GetBlockBodies
    | GetPooledTransactions
    | GetReceipts
    | GetReceipts70
    | GetNodeData
    | GetBlockAccessLists
    | GetCells
)
_SnapRequest = GetAccountRange | GetStorageRanges | GetByteCodes | GetTrieNodes | snap_messages.GetBlockAccessLists


class _Language(NamedTuple):
    """A capability: which Struct a message id is by version, and how one is written and read."""

    name: str
    messages: Mapping[int, Mapping[int, type]]
    encode: Callable[[int, Any], bytes]
    decode: Callable[[int, int, bytes], EthMessage | SnapMessage]


_ETH: Final = _Language(eth.NAME, eth_messages.MESSAGES, eth_messages.encode, eth_messages.decode)
_SNAP: Final = _Language(snap.NAME, snap_messages.MESSAGES, snap_messages.encode, snap_messages.decode)


class Peer:
    """The peer of one active session. Raises `EngineError`, `not_shared` before anything is sent.

    An answer that is malformed is `bad_response`, a field that does not fit its place `invalid_params`.
    """

    def __init__(self, client: Client, session: int) -> None:
        self.session = session
        self._client = client
        shared: list[str] = client.call("session", session=session)["shared"]
        # What was negotiated holds as long as the session.
        self.versions = {name: int(version) for name, _, version in (item.rpartition("/") for item in shared)}

    @overload
    def request(self, message: GetBlockHeaders) -> BlockHeaders: ...
    @overload
    def request(self, message: GetBlockBodies) -> BlockBodies: ...
    @overload
    def request(self, message: GetPooledTransactions) -> PooledTransactions: ...
    @overload
    def request(self, message: GetReceipts) -> Receipts | Receipts69 | Receipts70: ...
    @overload
    def request(self, message: GetReceipts70) -> Receipts70: ...
    @overload
    def request(self, message: GetNodeData) -> NodeData: ...
    @overload
    def request(self, message: GetBlockAccessLists) -> BlockAccessLists: ...
    @overload
    def request(self, message: GetCells) -> Cells: ...
    @overload
    def request(self, message: GetAccountRange) -> AccountRange: ...
    @overload
    def request(self, message: GetStorageRanges) -> StorageRanges: ...
    @overload
    def request(self, message: GetByteCodes) -> ByteCodes: ...
    @overload
    def request(self, message: GetTrieNodes) -> TrieNodes: ...
    @overload
    def request(self, message: snap_messages.GetBlockAccessLists) -> snap_messages.BlockAccessLists: ...
    def request(self, message: _EthRequest | _SnapRequest) -> EthMessage | SnapMessage:
        """Ask, and await the answer; it has the request id of the question.

        `GetReceipts` is asked in the form of the version. Where the answer cuts off the last block's receipts (eth/70), the
        rest is asked for: the caller gets whole blocks, though perhaps, as below eth/70, not all of them. `GetReceipts70` is
        one question, and its answer may be cut off.
        """
        if isinstance(message, GetReceipts) and self._version(eth.NAME) >= eth.PARTIAL_RECEIPTS_VERSION:
            return self._receipts(message.request_id, message.hashes)
        return self._ask(_ETH if isinstance(message, _EthRequest) else _SNAP, message)

    def _receipts(self, request_id: int, hashes: tuple[bytes, ...]) -> Receipts70:
        answer = self.request(GetReceipts70(request_id, 0, hashes))
        if len(answer.blocks) > len(hashes):
            raise _bad_response(f"the receipts of {len(answer.blocks)} blocks where {len(hashes)} were asked for")
        if not answer.last_block_incomplete:
            return answer
        if answer.blocks in ((), ((),)):
            raise _bad_response("an answer that is incomplete, without a receipt")
        *whole, cut = answer.blocks
        rest = self._rest_of_receipts(request_id, hashes[len(whole)], cut)
        return Receipts70(request_id, last_block_incomplete=False, blocks=(*whole, rest))

    def _rest_of_receipts(self, request_id: int, block: bytes, first: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
        """All receipts of a block whose first ones have come; each answer must bring more of them, or the end."""
        receipts = list(first)
        for _ in range(MAX_ROUNDS - 1):
            answer = self.request(GetReceipts70(request_id, len(receipts), (block,)))
            if len(answer.blocks) != 1:
                raise _bad_response(f"{len(answer.blocks)} blocks where the rest of one block's receipts was asked for")
            receipts += answer.blocks[0]
            if len(receipts) > MAX_BLOCK_TRANSACTIONS:
                raise _bad_response(f"over {MAX_BLOCK_TRANSACTIONS} receipts of one block")
            if not answer.last_block_incomplete:
                return tuple(receipts)
            if not answer.blocks[0]:
                raise _bad_response(f"an incomplete block, and no receipt of it from index {len(receipts)} on")
        raise _bad_response(f"the receipts of a block in more than {MAX_ROUNDS} answers")

    def _ask(self, language: _Language, message: _EthRequest | _SnapRequest) -> EthMessage | SnapMessage:
        version = self._version(language.name)
        numbers = {struct: number for number, struct in language.messages[version].items()}
        if type(message) not in numbers:
            raise _error("not_shared", f"{language.name}/{version} has no {type(message).__name__}")
        number = numbers[type(message)]
        try:
            payload = language.encode(version, message)
        except UsageError as error:
            raise _error(error.name, str(error)) from error
        answer = self._client.call(
            "request", session=self.session, capability=language.name, message=number, attachment=payload
        )
        try:
            return language.decode(version, number + 1, bytes.fromhex(answer["payload"].removeprefix("0x")))
        except PeerError as error:
            raise _bad_response(str(error)) from error

    def _version(self, capability: str) -> int:
        if capability not in self.versions:
            raise _error("not_shared", f"{capability} is not shared with the peer of session {self.session}")
        return self.versions[capability]


def _error(name: str, words: str) -> EngineError:
    return EngineError(name, words, ERROR_CODES[name])


def _bad_response(words: str) -> EngineError:
    return _error("bad_response", words)
