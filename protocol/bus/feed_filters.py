"""What the filter of a feed means: two tests, of a session and of a message, made once for each filter.

A message is tested before an event is made of it. Types and sizes of transactions are read from the RLP as it came: no
further than needed, and no error if it is malformed, which is for the readers of the event to judge.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeAlias

from rlpx.protocol import rlp
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.errors import RlpError
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.lifecycle import Direction

# The most transactions of one message that are looked at. An announcement should have no more than 4096 (`eth.md`).
MAX_READ_TRANSACTIONS: Final = 8192
# EIP-2718: a legacy transaction is a list; it counts as type 0.
LEGACY_TYPE: Final = 0

# A size that takes more bytes than 64 bits have is large, however large it is.
_SIZE_READ_BYTES: Final = 9

_ANNOUNCED: Final = "NewPooledTransactionHashes"
_SENT: Final = "Transactions"
_POOLED: Final = "PooledTransactions"


class MessageFacts:
    """What filters ask of one message. Its RLP is read once, when the first filter asks."""

    __slots__ = ("_kind", "_payload", "_sizes", "_types")

    def __init__(self, kind: MessageKind, payload: bytes) -> None:
        self._kind = kind
        self._payload = payload
        self._types: frozenset[int] | None = None
        # The sizes that it announces, in order: those of each type, and of all under None.
        self._sizes: dict[int | None, list[int]] | None = None

    @property
    def size(self) -> int:
        """The size of the payload in bytes."""
        return len(self._payload)

    @property
    def is_announcement(self) -> bool:
        """Whether it announces transactions."""
        return self._is(_ANNOUNCED)

    @property
    def has_transactions(self) -> bool:
        """Whether it has or announces transactions."""
        return self._is(_ANNOUNCED) or self._is(_SENT) or self._is(_POOLED)

    @property
    def types(self) -> frozenset[int]:
        """The types of its transactions; empty if it does not say them, as an announcement below eth/68."""
        if self._types is None:
            if self.is_announcement:
                self._types = frozenset(_announced_types(self._payload)) if self._is_typed else frozenset()
            else:
                self._types = frozenset(_types(self._payload, is_answer=self._is(_POOLED)))
        return self._types

    def announces(self, least: int, most: int | None, types: frozenset[int] | None) -> bool:
        """Whether it names a transaction of `least` to `most` bytes, and of one of `types` unless that is None.

        It does not if it does not say sizes, as an announcement below eth/68. The sizes are put in order once: many filters
        cost little more than one, also for an announcement of thousands.
        """
        if self._sizes is None:
            self._sizes = _sizes_by_type(_announced(self._payload) if self._is_typed else [])
        found = self._sizes
        for kind in (None,) if types is None else types & found.keys():
            sizes = found[kind]
            index = bisect_left(sizes, least)
            if index < len(sizes) and (most is None or sizes[index] <= most):
                return True
        return False

    @property
    def _is_typed(self) -> bool:
        return self._kind.capability.version >= eth.TYPED_ANNOUNCEMENT_VERSION

    def _is(self, name: str) -> bool:
        kind = self._kind
        return kind.name == name and kind.capability.name == eth.NAME


class KnownSession(Protocol):
    """What filters ask of a session; what is not known yet is none or empty."""

    @property
    def session(self) -> int:
        """Its number."""

    @property
    def direction(self) -> Direction | None:
        """Who has begun it."""

    @property
    def peer_hex(self) -> str | None:
        """The peer's id in hex."""

    @property
    def client(self) -> str | None:
        """The name of the peer's client."""

    @property
    def shared(self) -> Sequence[str]:
        """The capabilities that both sides have."""


SessionTest: TypeAlias = Callable[[KnownSession], bool]
MessageTest: TypeAlias = Callable[[MessageFacts], bool]


def session_test(where: Where) -> SessionTest | None:
    """Return the test of a session, by what is known of it at the moment; None if every session passes."""
    tests: list[SessionTest] = []
    if where.session is not None:
        tests.append(_one_of(frozenset(where.session)))
    if where.direction is not None:
        tests.append(_with_direction(where.direction))
    if where.peer is not None:
        tests.append(_with_peer(where.peer))
    if where.client is not None:
        tests.append(_with_client(where.client))
    if where.shared is not None:
        tests.append(_with_shared(where.shared))
    return None if not tests else _all(tests)


def message_test(where: Where) -> MessageTest | None:
    """Return the test of a message; None if every message passes."""
    types = None if where.types is None else frozenset(where.types)
    least, most = where.min_size or 0, where.max_size
    has_sizes = where.min_size is not None or most is not None
    if types is None and not has_sizes:
        return None

    def passes(message: MessageFacts) -> bool:
        if message.is_announcement:
            if has_sizes:
                return message.announces(least, most, types)
            return types is None or not types.isdisjoint(message.types)
        if message.size < least or (most is not None and message.size > most):
            return False
        return types is None or not message.has_transactions or not types.isdisjoint(message.types)

    return passes


# -- tests of sessions ------------------------------------------------------------------------------------------------------


def _all(tests: list[SessionTest]) -> SessionTest:
    return tests[0] if len(tests) == 1 else lambda view: all(test(view) for test in tests)


def _one_of(numbers: frozenset[int]) -> SessionTest:
    return lambda view: view.session in numbers


def _with_direction(direction: Direction) -> SessionTest:
    return lambda view: view.direction is direction


def _with_peer(prefix: str) -> SessionTest:
    return lambda view: (view.peer_hex or "").startswith(prefix)


def _with_client(part: str) -> SessionTest:
    return lambda view: part in (view.client or "")


def _with_shared(capability: str) -> SessionTest:
    if "/" in capability:
        return lambda view: capability in view.shared
    name = capability + "/"
    return lambda view: any(shared.startswith(name) for shared in view.shared)


# -- transactions in RLP ----------------------------------------------------------------------------------------------------


def _types(payload: bytes, *, is_answer: bool) -> Iterable[int]:
    """The types of the transactions in a message, up to the first mistake in its RLP. An answer has its id in front."""
    try:
        is_list, start, end = rlp.spans(payload, 2)[1] if is_answer else rlp.bounds(payload, 0, len(payload))
        for _ in range(MAX_READ_TRANSACTIONS if is_list else 0):
            if start >= end:
                return
            is_legacy, inside, start = rlp.bounds(payload, start, end)
            if is_legacy:
                yield LEGACY_TYPE
            elif inside < start:
                yield payload[inside]
    except RlpError:
        return


def _announced_types(payload: bytes) -> bytes:
    """The types in an eth/68+ announcement: one octet for each transaction."""
    try:
        [(is_list, start, end)] = rlp.spans(payload, 1)
    except RlpError:
        return b""
    return b"" if is_list else payload[start:end]


def _sizes_by_type(announced: list[tuple[int, int]]) -> dict[int | None, list[int]]:
    """The sizes in order, of each type and of all (None)."""
    found: dict[int | None, list[int]] = {None: [size for _, size in announced]}
    for kind, size in announced:
        found.setdefault(kind, []).append(size)
    for sizes in found.values():
        sizes.sort()
    return found


def _announced(payload: bytes) -> list[tuple[int, int]]:
    """Type and size of each transaction of an eth/68+ announcement, up to the first mistake in its RLP."""
    found: list[tuple[int, int]] = []
    try:
        _, (is_list, start, end) = rlp.spans(payload, 2)
        for kind in _announced_types(payload)[: MAX_READ_TRANSACTIONS if is_list else 0]:
            _, inside, start = rlp.bounds(payload, start, end)
            found.append((kind, int.from_bytes(payload[inside : min(start, inside + _SIZE_READ_BYTES)], "big")))
    except RlpError:
        pass
    return found
