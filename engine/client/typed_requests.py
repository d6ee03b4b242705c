"""`Peer` sends the messages of `rlpx.protocol.eth` to the peer of one session, and awaits its answers.

async with connect() as engine:
    peer = engine.peer(42)
    answer = await peer.request(GetBlockHeaders(0, HeadersQuery(start=1, limit=192)), timeout=5)

Messages have the form of the negotiated version. Each answer is compared with its question (`answer_checks.py`); whether it
is true of the chain is for the caller to verify.
"""

# ruff: noqa: ASYNC109 - the peer's worker must know of a timeout

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeAlias, TypeVar, overload

from rlpx.engine.client.answer_checks import check_answer, check_gas_rises
from rlpx.engine.client.calls import PeerAnswer, within
from rlpx.engine.client.errors import own_error
from rlpx.engine.client.forms import Sendable, capability_of, in_version
from rlpx.engine.client.parts import in_parts
from rlpx.engine.client.presence import EngineError
from rlpx.engine.client.routes import Route, Routes
from rlpx.protocol.bus.results import DoneResult, SessionObject
from rlpx.protocol.bus.values import ReasonName
from rlpx.protocol.errors import ErrorName, PeerError, UsageError
from rlpx.protocol.eth import eth, snap_messages
from rlpx.protocol.eth.chain import MAX_BLOCK_TRANSACTIONS, Receipt
from rlpx.protocol.eth.dialects import DIALECTS
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

# reth answers four requests of a peer at a time; more of them wait there and then seem late.
MAX_OPEN_REQUESTS: Final = 4
# Answers that one block's receipts may take. A block of 300 million gas can log 37 MiB; geth answers with up to 10 MiB at
# once, others with 2 MiB.
MAX_ROUNDS: Final = 32
# The longest time that a request may be given (`RequestParameters.timeout_s`).
MAX_TIMEOUT_SECONDS: Final = 25.0

T = TypeVar("T")

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


Question: TypeAlias = _EthRequest | _SnapRequest


class Peer:
    """The peer of one active session. Methods raise `EngineError` and its subclasses.

    Nothing is sent if the version lacks the message (`NotSharedError`) or a field does not fit (`InvalidParamsError`). An
    answer that is malformed, or does not fit its question, is `BadResponseError`. Up to four requests are open at a peer at
    a time; others wait for a turn.
    """

    def __init__(self, session: int, routes: Routes, room: asyncio.Semaphore) -> None:
        self.session = session
        self._routes = routes
        self._room = room
        # Known from the first use on, once the session is active: shared capabilities and the worker then stay.
        self._found: tuple[SessionObject, Route] | None = None

    async def show(self, *, timeout: float | None = None) -> SessionObject:
        """The session as it is now. Raises `NoSuchSessionError`."""
        async with within(timeout):
            return await self._routes.session(self.session)

    async def send(self, message: Sendable, *, raw: bool = False, timeout: float | None = None) -> None:
        """Send a message in the form of the negotiated version, or in several messages if it is long (`Engine.publish`).

        If one of these cannot be sent, those before it are. `raw` sends what peers punish, and in one piece.
        """
        async with within(timeout):
            capability = capability_of(message)
            version = await self._version(capability)
            parts = [self._encoded(version, part) for part in ([message] if raw else in_parts(message))]
            for number, payload in parts:
                parameters = {"session": self.session, "capability": capability, "message": number, "raw": raw}
                await self._carry_out("send", parameters, payload, DoneResult)

    async def disconnect(self, reason: ReasonName = "disconnect_requested", *, timeout: float | None = None) -> None:
        """End the session politely."""
        async with within(timeout):
            await self._carry_out("disconnect", {"session": self.session, "reason": reason}, None, DoneResult)

    @overload
    async def request(self, message: GetBlockHeaders, *, timeout: float | None = None) -> BlockHeaders: ...
    @overload
    async def request(self, message: GetBlockBodies, *, timeout: float | None = None) -> BlockBodies: ...
    @overload
    async def request(self, message: GetPooledTransactions, *, timeout: float | None = None) -> PooledTransactions: ...
    @overload
    async def request(self, message: GetReceipts, *, timeout: float | None = None) -> Receipts | Receipts69 | Receipts70: ...
    @overload
    async def request(self, message: GetReceipts70, *, timeout: float | None = None) -> Receipts70: ...
    @overload
    async def request(self, message: GetNodeData, *, timeout: float | None = None) -> NodeData: ...
    @overload
    async def request(self, message: GetBlockAccessLists, *, timeout: float | None = None) -> BlockAccessLists: ...
    @overload
    async def request(self, message: GetCells, *, timeout: float | None = None) -> Cells: ...
    @overload
    async def request(self, message: GetAccountRange, *, timeout: float | None = None) -> AccountRange: ...
    @overload
    async def request(self, message: GetStorageRanges, *, timeout: float | None = None) -> StorageRanges: ...
    @overload
    async def request(self, message: GetByteCodes, *, timeout: float | None = None) -> ByteCodes: ...
    @overload
    async def request(self, message: GetTrieNodes, *, timeout: float | None = None) -> TrieNodes: ...
    @overload
    async def request(
        self, message: snap_messages.GetBlockAccessLists, *, timeout: float | None = None
    ) -> snap_messages.BlockAccessLists: ...
    async def request(self, message: Question, *, timeout: float | None = None) -> EthMessage | SnapMessage:
        """Ask, and wait for the answer, which has the request id of the question. Raises `TimeoutError` after `timeout`
        seconds, or `TimedOutError`, which is one too, after the session's own time; the request is then forgotten.

        `GetReceipts` takes the form of the version. If the answer cuts off the last block's receipts (eth/70), the rest is
        requested as well: the caller gets whole blocks, though perhaps not all of them, as in versions before eth/70.
        `GetReceipts70` is one question, and its answer may be cut off.
        """
        async with within(timeout):
            if isinstance(message, GetReceipts) and await self._version(eth.NAME) >= eth.PARTIAL_RECEIPTS_VERSION:
                return await self._receipts(message.request_id, message.hashes)
            return await self._ask(message, timeout)

    async def _receipts(self, request_id: int, hashes: tuple[bytes, ...]) -> Receipts70:
        answer = await self.request(GetReceipts70(request_id, 0, hashes))
        if not answer.last_block_incomplete:
            return answer
        if answer.blocks in ((), ((),)):
            raise _bad_response("an answer that is incomplete, without a receipt")
        *whole, cut = answer.blocks
        rest = await self._rest_of_receipts(request_id, hashes[len(whole)], cut)
        return Receipts70(request_id, last_block_incomplete=False, blocks=(*whole, rest))

    async def _rest_of_receipts(self, request_id: int, block: bytes, first: tuple[Receipt, ...]) -> tuple[Receipt, ...]:
        """All receipts of a block whose first ones are known. Each answer must add more, which follow on those."""
        receipts = list(first)
        for _ in range(MAX_ROUNDS - 1):
            answer = await self.request(GetReceipts70(request_id, len(receipts), (block,)))
            if len(answer.blocks) != 1:
                raise _bad_response(f"{len(answer.blocks)} blocks where the rest of one block's receipts was asked for")
            [more] = answer.blocks
            if not more:
                # The block was cut off, so it has more receipts; accepting the answer would take a part for the whole.
                raise _bad_response(f"an incomplete block, and no receipt of it from index {len(receipts)} on")
            receipts += more
            if len(receipts) > MAX_BLOCK_TRANSACTIONS:
                raise _bad_response(f"over {MAX_BLOCK_TRANSACTIONS} receipts of one block")
            try:
                check_gas_rises(receipts)
            except PeerError as error:
                raise _bad_response(f"a rest that does not follow on what came before: {error}") from error
            if not answer.last_block_incomplete:
                return tuple(receipts)
        raise _bad_response(f"the receipts of a block in more than {MAX_ROUNDS} answers")

    async def _ask(self, message: Question, timeout: float | None) -> EthMessage | SnapMessage:
        capability = capability_of(message)
        version = await self._version(capability)
        number, payload = self._encoded(version, message)
        parameters = {"session": self.session, "capability": capability, "message": number, "binary": True}
        if timeout is not None:
            parameters["timeout_s"] = min(timeout, MAX_TIMEOUT_SECONDS)
        async with self._room:
            answer = await self._carry_out("request", parameters, payload, PeerAnswer)
        try:
            response: EthMessage | SnapMessage = DIALECTS[capability].decode(version, number + 1, answer.payload)
            check_answer(message, response)
        except PeerError as error:
            raise _bad_response(str(error)) from error
        return response

    def _encoded(self, version: int, message: Sendable) -> tuple[int, bytes]:
        """The id and payload of a message in a version."""
        dialect = DIALECTS[capability_of(message)]
        try:
            sent = message if isinstance(message, Question) else in_version(version, message)
            number = dialect.id_of(version, sent)
        except UsageError as error:
            raise own_error(ErrorName.NOT_SHARED, str(error)) from error
        try:
            return number, dialect.encode(version, sent)
        except UsageError as error:
            raise own_error(error.name, str(error)) from error

    async def _version(self, capability: str) -> int:
        shown, _ = await self._find()
        for name, _, version in (item.rpartition("/") for item in shown.shared):
            if name == capability:
                return int(version)
        raise own_error(ErrorName.NOT_SHARED, f"{capability} is not shared with the peer of session {self.session}")

    async def _carry_out(self, method: str, parameters: Mapping[str, object], payload: bytes | None, kind: type[T]) -> T:
        _, route = await self._find()
        return await route.carry_out(method, parameters, payload, kind)

    async def _find(self) -> tuple[SessionObject, Route]:
        if self._found is not None:
            return self._found
        shown = await self.show()
        found = shown, await self._routes.to(shown)
        if shown.phase == "active":
            self._found = found
        return found


def _bad_response(message: str) -> EngineError:
    return own_error(ErrorName.BAD_RESPONSE, message)
