"""What a session has to do, said a second time and from the specification alone: a model that shares no code with it.

Its peer speaks eth/69 and snap/1. Facts are events without their words: what the session told, as tuples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from rlpx.protocol.errors import DisconnectReason, Severity
from rlpx.protocol.lifecycle import Conduct, EndedBy, Stage
from tests.pair import DISCONNECT, ETH, HELLO, PING, PONG, Rlp, encoded, snappied, status_fields

SNAP: Final = ETH + 18
STATUS: Final = ETH
BLOCK_RANGE_UPDATE: Final = ETH + 0x11

Fact = tuple[object, ...]
Fault = tuple[DisconnectReason | None, Severity]

BREACH: Final[Fault] = (DisconnectReason.PROTOCOL_BREACH, Severity.MEDIUM)
NOT_AUTHENTIC: Final[Fault] = (None, Severity.MEDIUM)
NO_HANDSHAKE: Final[Fault] = (None, Severity.LOW)

# Requests and their topics; the response's code is the next one.
REQUESTS: Final = {
    ETH + 0x03: "eth.GetBlockHeaders",
    ETH + 0x05: "eth.GetBlockBodies",
    ETH + 0x0F: "eth.GetReceipts",
    SNAP + 0x00: "snap.GetAccountRange",
    SNAP + 0x04: "snap.GetByteCodes",
}
RESPONSES: Final = {code + 1: topic.replace(".Get", ".") for code, topic in REQUESTS.items()}
ANNOUNCEMENTS: Final = {
    ETH + 0x01: "eth.NewBlockHashes",
    ETH + 0x02: "eth.Transactions",
    BLOCK_RANGE_UPDATE: "eth.BlockRangeUpdate",
}

# Seconds: of an accept for its auth, of a dial for its ack, and of each until it is active.
AUTH: Final = 3.0
HANDSHAKE: Final = 5.0
PENDING_INBOUND: Final = 10.0
PENDING_OUTBOUND: Final = 20.0
PING_AFTER: Final = 15.0
PONG_WITHIN: Final = 15.0
LONGEST_TIMEOUT: Final = 20.0
SHORTEST_TIMEOUT: Final = 2.0
NO_ANSWER_AT_ALL: Final = 120.0
RANGE_EVERY: Final = 384.0
RANGE_BLOCKS: Final = 32
PINGS_AT_ONCE: Final = 16
PINGS_WAITING: Final = 256

_OVERHEAD: Final = 100

CONTROL, RESPONSE, REQUEST, BROADCAST = range(4)


class Word(NamedTuple):
    """What a peer says: a message, or bytes that are none. `fault` is what is wrong with it wherever it is allowed."""

    code: int | None
    payload: bytes = b"\xc0"
    request_id: int | None = None
    fault: Fault | None = None
    # Of a goodbye.
    reason: DisconnectReason | None = None
    severity: Severity = Severity.LOW
    # Of a block range.
    range: tuple[int, int, bytes] | None = None


NOISE: Final = Word(None, bytes(range(64)))


class Asked(msgspec.Struct):
    """A request of ours that waits for its answer, or for a late one."""

    code: int
    original_id: int
    sent_at: float
    deadline: float
    is_over: bool = False


class Model:
    """See the module. `told` is what the session must tell next; `waiting` what it must write, by rank."""

    def __init__(self, peer: bytes, *, is_dialed: bool, now: float, queue_bytes: int, head: int) -> None:
        self.now = now
        self.stage = Stage.ACK if is_dialed else Stage.AUTH
        self.is_read = True
        self.head: tuple[int, int, bytes] | None = None
        self.told: list[Fact] = []
        # By rank: code, payload, and what it takes.
        self.waiting: dict[int, list[tuple[int, bytes, int]]] = {rank: [] for rank in range(4)}
        self.remote_range: tuple[int, int, bytes] | None = None
        self.rtt: float | None = None
        self.messages_in = 0
        self.asked: dict[int, Asked] = {}
        self.timeout = LONGEST_TIMEOUT
        self.next_id = 0
        self._peer = peer
        self._queue_bytes = queue_bytes
        self._due = now + (HANDSHAKE if is_dialed else AUTH)
        self._pending_due = now + (PENDING_OUTBOUND if is_dialed else PENDING_INBOUND)
        self._range_due = math.inf
        self._range_told = head
        self._is_admitted = False
        self._held: list[Word] = []
        self._pinged_at: float | None = None
        self._pings_left, self._pings_since = PINGS_AT_ONCE, now
        self._pongs_owed = 0
        self._raw_requests = 0

    @property
    def deadline(self) -> float:
        if self.stage is Stage.CLOSED:
            return math.inf
        pong_due = self._pings_since + 1 if self._pongs_owed else math.inf
        return min(self._due, self._range_due, pong_due, *(asked.deadline for asked in self.asked.values()), math.inf)

    @property
    def bytes_waiting(self) -> int:
        """What waits to be sealed, with a hundred bytes for each message. What is left at the end is sealed then."""
        if self.stage is Stage.CLOSED:
            return 0
        return sum(cost for messages in self.waiting.values() for _, _, cost in messages)

    def written(self) -> Iterator[tuple[int, bytes]]:
        """What leaves, in its order, while somebody asks for more."""
        while any(self.waiting.values()):
            code, payload, _ = next(messages for messages in self.waiting.values() if messages).pop(0)
            yield code, payload

    # -- what the peer does ------------------------------------------------------------------------------------------------

    def handshake(self, refusal: DisconnectReason | None) -> None:
        """Auth and ack are exchanged, and we say Hello, or goodbye in its place."""
        self.stage = Stage.HELLO
        self._due = self._pending_due
        if refusal is not None:
            self._ends(EndedBy.US, (refusal, Severity.LOW))
        else:
            self._writes(CONTROL, HELLO, b"")

    def hears(self, words: Iterable[Word]) -> None:
        for word in words:
            if self.stage is Stage.VERDICT:
                self._held.append(word)
            elif self.stage is not Stage.CLOSED:
                self._hears_one(word)

    def _hears_one(self, word: Word) -> None:
        if word.code is None:
            self._ends(EndedBy.US, NO_HANDSHAKE if self.stage in {Stage.AUTH, Stage.ACK} else NOT_AUTHENTIC)
            return
        self.messages_in += 1
        if self.stage is Stage.HELLO:
            self.told.append(("authenticated", self._peer))
        allowed = {
            Stage.HELLO: {HELLO, DISCONNECT},
            Stage.STATUS: {DISCONNECT, PING, PONG, STATUS},
            Stage.ACTIVE: {DISCONNECT, PING, PONG, *REQUESTS, *RESPONSES, *ANNOUNCEMENTS},
        }
        if word.code not in allowed[self.stage]:
            self._ends(EndedBy.US, BREACH)
        elif word.fault is not None:
            self._ends(EndedBy.US, word.fault)
        elif word.code == HELLO:
            self.stage = Stage.STATUS
            self._says_status()
        elif word.code == STATUS:
            self.remote_range = word.range
            self.stage = Stage.VERDICT
            self._is_established()
        elif word.code == DISCONNECT:
            self._ends(EndedBy.PEER, (word.reason, word.severity))
        elif word.code == PING:
            self._is_pinged()
        elif word.code == PONG:
            self._is_ponged()
        else:
            self._hears_message(word.code, word)

    def pings_left(self) -> int:
        while self._pings_left < PINGS_AT_ONCE and self.now - self._pings_since >= 1:
            self._pings_left += 1
            self._pings_since += 1
        if self._pings_left == PINGS_AT_ONCE:
            self._pings_since = self.now
        return self._pings_left

    def _is_pinged(self) -> None:
        if self.pings_left() and not self._pongs_owed:
            self._pings_left -= 1
            self._writes(CONTROL, PONG, b"\xc0")
        elif self._pongs_owed == PINGS_WAITING:
            self._ends(EndedBy.US, BREACH)
        else:
            self._pongs_owed += 1

    def _is_ponged(self) -> None:
        if self._pinged_at is not None:
            self.rtt = self.now - self._pinged_at
            self._pinged_at = None
            self._due = self.now + PING_AFTER

    def _hears_message(self, code: int, word: Word) -> None:
        if word.range is not None:
            self.remote_range = word.range
        topic = (REQUESTS | RESPONSES | ANNOUNCEMENTS)[code]
        if self.is_read or code in REQUESTS:
            self.told.append(("message", topic, word.payload, word.request_id))
        if code in RESPONSES:
            assert word.request_id is not None
            self._hears_response(code, word.request_id, word.payload)

    def _hears_response(self, code: int, request_id: int, payload: bytes) -> None:
        asked = self.asked.pop(request_id, None)
        if asked is None:
            if self._raw_requests:
                self._raw_requests -= 1
            else:
                self.told.append(("misconduct", Conduct.BAD_MESSAGE))
            return
        if not asked.is_over and code != asked.code + 1:
            self.told += [("failed", request_id, "bad_response"), ("misconduct", Conduct.BAD_MESSAGE)]
            return
        average = 0.9 * self.timeout + 0.3 * (self.now - asked.sent_at)
        self.timeout = max(SHORTEST_TIMEOUT, min(LONGEST_TIMEOUT, average))
        if not asked.is_over:
            # The peers of this model answer [id, [number]], of 1 to 127: its last byte.
            answer: list[Rlp] = [asked.original_id, [payload[-1]]]
            self.told.append(("answered", request_id, RESPONSES[code], encoded(answer)))

    # -- what is done to the session --------------------------------------------------------------------------------------

    def is_admitted(self) -> None:
        if self._is_admitted or self.stage is Stage.CLOSED:
            return
        self._is_admitted = True
        if self.stage in {Stage.STATUS, Stage.VERDICT}:
            self._says_status()
        if self.stage is Stage.VERDICT:
            self._is_established()

    def ticks(self) -> None:
        if self.stage is Stage.CLOSED:
            return
        is_breach = False
        for request_id, asked in self.asked.items():
            if self.now < asked.deadline:
                continue
            if asked.is_over:
                is_breach, asked.deadline = True, math.inf
            else:
                self.told.append(("failed", request_id, "timed_out"))
                asked.is_over, asked.deadline = True, asked.sent_at + NO_ANSWER_AT_ALL
        if is_breach:
            self.told.append(("misconduct", Conduct.BREACH))
        if self.now >= self._range_due:
            self._range_due = self.now + RANGE_EVERY
            if self.head is not None and self.head[1] - self._range_told >= RANGE_BLOCKS:
                self._range_told = self.head[1]
                self._writes(CONTROL, BLOCK_RANGE_UPDATE, encoded(list(self.head)))
        while self._pongs_owed and self.pings_left():
            self._pings_left -= 1
            self._pongs_owed -= 1
            self._writes(CONTROL, PONG, b"\xc0")
        if self.now >= self._due:
            self._is_due()

    def _is_due(self) -> None:
        if self.stage is Stage.ACTIVE and self._pinged_at is None:
            self._pinged_at = self.now
            self._due = self.now + PONG_WITHIN
            self._writes(CONTROL, PING, b"\xc0")
        elif self.stage is Stage.ACTIVE and self.waiting[CONTROL]:
            # The ping may not have left.
            self._due = self.now + PONG_WITHIN
        elif self.stage is Stage.ACTIVE:
            self._ends(EndedBy.US, (DisconnectReason.PING_TIMEOUT, Severity.LOW))
        elif self.stage is Stage.VERDICT:
            self._ends(EndedBy.ENGINE, (DisconnectReason.TOO_MANY_PEERS, Severity.LOW))
        else:
            has_cipher = self.stage not in {Stage.AUTH, Stage.ACK}
            self._ends(EndedBy.US, (DisconnectReason.PING_TIMEOUT if has_cipher else None, Severity.MEDIUM))

    def ends(self, by: EndedBy, reason: DisconnectReason | None) -> None:
        """Somebody ends it: who, and with which goodbye where one can be said."""
        if self.stage is not Stage.CLOSED:
            can_be_said = self.stage not in {Stage.AUTH, Stage.ACK}
            self._ends(by, (reason if can_be_said else None, Severity.LOW))

    def answers(self, code: int, payload: bytes) -> None:
        """What the peer asked for waits, whatever else does."""
        self._writes(RESPONSE, code, payload)

    def sends(self, code: int, payload: bytes) -> bool:
        """Whether a message of ours may wait, as it does then."""
        rank = REQUEST if code in REQUESTS else RESPONSE if code in RESPONSES else BROADCAST
        is_sent = self._has_room(payload)
        if is_sent:
            self._writes(rank, code, payload)
            self._raw_requests += rank == REQUEST
        return is_sent

    def asks(self, code: int, original_id: int, number: int) -> int | None:
        """The id of a request of ours, or None where it does not fit."""
        request_id, self.next_id = self.next_id, self.next_id + 1
        payload = encoded([request_id, [number]])
        if not self._has_room(payload):
            return None
        self._writes(REQUEST, code, payload)
        self.asked[request_id] = Asked(code, original_id, self.now, self.now + self.timeout)
        return request_id

    def cancels(self, request_id: int) -> None:
        asked = self.asked.get(request_id)
        if asked is not None and not asked.is_over:
            asked.is_over, asked.deadline = True, asked.sent_at + NO_ANSWER_AT_ALL

    # -- what both lead to ------------------------------------------------------------------------------------------------

    def _says_status(self) -> None:
        if self._is_admitted:
            self._writes(CONTROL, STATUS, encoded(list(status_fields(69).values())))

    def _is_established(self) -> None:
        if not self._is_admitted:
            return
        self.stage = Stage.ACTIVE
        self._due = self.now + PING_AFTER
        self._range_due = self.now + RANGE_EVERY
        self.told.append(("established", self._peer, "eth/69", "snap/1"))
        held, self._held = self._held, []
        self.hears(held)

    def _ends(self, by: EndedBy, fault: Fault) -> None:
        reason, severity = fault
        self.told += [("failed", number, "session_ended") for number, asked in self.asked.items() if not asked.is_over]
        self.told.append(("closed", by, reason, self.stage, severity))
        for rank in (RESPONSE, REQUEST, BROADCAST):
            self.waiting[rank].clear()
        if by is not EndedBy.PEER and reason is not None:
            is_plain = reason is DisconnectReason.INCOMPATIBLE_VERSION
            self._writes(CONTROL, DISCONNECT, encoded([int(reason)]), is_snappy=not is_plain)
        self.asked.clear()
        self.stage = Stage.CLOSED

    def _has_room(self, payload: bytes) -> bool:
        waiting = self.bytes_waiting
        return not waiting or waiting + _cost(payload) <= self._queue_bytes

    def _writes(self, rank: int, code: int, payload: bytes, *, is_snappy: bool = True) -> None:
        self.waiting[rank].append((code, payload, _cost(payload) if is_snappy else _OVERHEAD + len(payload)))


def _cost(payload: bytes) -> int:
    return _OVERHEAD + len(snappied(payload))
