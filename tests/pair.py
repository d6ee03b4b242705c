"""What session tests talk with: two sessions on a wire that cuts and corrupts, a raw peer that says anything, a clock.

    pair = Pair(); pair.establish()                     two sessions, both active
    peer = RawPeer.at(Stage.STATUS); peer.says(0x02)    one session, and a peer that keeps no rules

Nothing here sleeps, and nothing is random: all entropy comes of seeds, so that a recorded stream can be played again.
"""

from __future__ import annotations

import gc
import itertools
import random
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import cramjam
import msgspec
import rlp

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.forkid import Chain, Forks
from rlpx.protocol.eth.kinds import MessageKind, MessageTable
from rlpx.protocol.eth.status import Head, LocalChain, LocalRange
from rlpx.protocol.lifecycle import Direction, Stage
from rlpx.protocol.rlpx import ecies
from rlpx.protocol.rlpx.bounds import MAX_FRAME_BYTES
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol
from rlpx.protocol.rlpx.crypto import Entropy, Point, PrivateKey
from rlpx.protocol.rlpx.frames import FrameCipher
from rlpx.protocol.rlpx.handshake import Initiator, Recipient
from rlpx.protocol.rlpx.p2p import P2P_VERSION, Hello
from rlpx.protocol.session.events import Authenticated, Closed, Established, Event, MessageReceived
from rlpx.protocol.session.session import Session
from rlpx.protocol.session.setup import LocalNode, Setup
from rlpx.protocol.session.tallies import Tallies
from rlpx.protocol.settings import QueueSettings, TimeoutSettings

# What a test may hand to the RLP oracle: the `rlp` library, not ours.
Rlp = bytes | int | Sequence["Rlp"]

HELLO: Final = 0x80
DISCONNECT: Final = 0x01
PING: Final = 0x02
PONG: Final = 0x03
ETH: Final = 0x10
EMPTY_LIST: Final = b"\xc0"
# The base protocol's first version that deflates (EIP-706).
SNAPPY_VERSION: Final = 5

# Behind both forks of the chain.
WALL_SECONDS: Final = 200
GENESIS: Final = bytes.fromhex("bd6a252af394d80904c5993b859574bd4669642cea00a116970ec7887db67533")
DEV: Final = Chain("dev", 3503995874084926, GENESIS.hex(), fork_times=(60, 120))
HEAD: Final = Head(number=1000, hash=b"\x11" * 32, earliest=7, total_difficulty="131072")
CHAIN: Final = LocalChain(DEV.network_id, GENESIS, Forks(DEV), HEAD)

PROTOCOLS: Final = tuple(map(eth.sub_protocol, eth.VERSIONS)) + tuple(map(snap.sub_protocol, snap.VERSIONS))
# What a raw peer offers where a test does not care.
OFFER: Final = (Capability("eth", 69), Capability("snap", 1))


class Everybody(dict[str, bool]):
    """Every message of a peer is read, and no tap."""

    def __missing__(self, topic: str) -> bool:
        return not topic.startswith("tap.")


EVERYBODY: Final[Mapping[str, bool]] = Everybody()
NOBODY: Final[Mapping[str, bool]] = defaultdict(lambda: False)

# A size field in front of a handshake packet.
_SIZE_BYTES: Final = 2
_RAW_PEER_SEED: Final = 99


def seeded(seed: int) -> Entropy:
    """Entropy that repeats itself."""
    return random.Random(seed).randbytes  # noqa: S311 - tests want the same bytes every time


def key(seed: int) -> PrivateKey:
    """A key that is the same every time."""
    return PrivateKey.generate(seeded(seed))


def encoded(item: Rlp) -> bytes:
    """The RLP of `item`, by the oracle."""
    data: bytes = rlp.encode(item)
    return data


def snappied(payload: bytes) -> bytes:
    """A Snappy block."""
    return bytes(cramjam.snappy.compress_raw(payload))


def inflated(block: bytes) -> bytes:
    """What a Snappy block holds."""
    return bytes(cramjam.snappy.decompress_raw(block))


def says_to_inflate_to(size: int, body: bytes = b"") -> bytes:
    """The start of a Snappy block that announces `size` bytes, whatever follows."""
    varint = bytearray()
    while size > 0x7F:
        varint.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*varint, size]) + body


def handshake_packet(body: bytes, recipient: Point, entropy: Entropy) -> bytes:
    """A packet of the handshake, well sealed, whatever `body` says; everybody who knows the recipient's id can make one."""
    prefix = (len(body) + ecies.OVERHEAD_BYTES).to_bytes(_SIZE_BYTES, "big")
    return prefix + ecies.seal(body, recipient, prefix, entropy)


def status_fields(version: int, chain: LocalChain = CHAIN) -> dict[str, Rlp]:
    """The fields of a right Status in their order on the wire."""
    fork = chain.forks.at(chain.head.number, WALL_SECONDS)
    fork_id: Rlp = [fork.hash, fork.next]
    if version < 69:
        difficulty = int(chain.head.total_difficulty)
        fields: dict[str, Rlp] = {"version": version, "network": chain.network_id, "difficulty": difficulty}
        return fields | {"head": chain.head.hash, "genesis": chain.genesis, "fork_id": fork_id}
    fields = {"version": version, "network": chain.network_id, "genesis": chain.genesis, "fork_id": fork_id}
    return fields | {"earliest": chain.head.earliest, "latest": chain.head.number, "head": chain.head.hash}


class Clock:
    """It stands until a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def passes(self, seconds: float) -> None:
        """Go on by `seconds`."""
        self.now += seconds


class SessionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is made of. `hello` is what it says of itself where that is not the truth."""

    seed: int = 1
    protocols: tuple[SubProtocol, ...] = PROTOCOLS
    chain: LocalChain = CHAIN
    timeouts: TimeoutSettings = TimeoutSettings()
    hello: Hello | None = None
    interest: Mapping[str, bool] = EVERYBODY
    refusal: DisconnectReason | None = None
    wall_seconds: int = WALL_SECONDS
    required: frozenset[str] = frozenset()
    range: LocalRange = msgspec.field(default_factory=LocalRange)
    queues: QueueSettings = QueueSettings()
    spent_seconds: float = 0.0
    on_passed: Callable[[Direction, Stage, float], object] = lambda *_: None
    tallies: Tallies = msgspec.field(default_factory=Tallies)

    @property
    def key(self) -> PrivateKey:
        """The key that comes of the seed."""
        return key(self.seed)

    def setup(self, peer: bytes | None = None) -> Setup:
        """The session's setup: an initiator's where `peer` names whom it dials."""
        own = self.key
        capabilities = tuple(protocol.capability for protocol in self.protocols)
        hello = self.hello or Hello(f"tests/{self.seed}", capabilities, 30303, own.id)
        node = LocalNode(
            own,
            hello.encode(),
            self.protocols,
            self.interest,
            seeded(self.seed),
            self.range,
            self.required,
            self.queues,
            on_passed=self.on_passed,
            tallies=self.tallies,
        )
        return Setup(
            direction=Direction.INBOUND if peer is None else Direction.OUTBOUND,
            node=node,
            chain=self.chain,
            wall_seconds=self.wall_seconds,
            timeouts=self.timeouts,
            peer=peer,
            refusal=self.refusal,
            spent_seconds=self.spent_seconds,
        )


DIALER: Final = SessionSpec(seed=1)
LISTENER: Final = SessionSpec(seed=2)


class Wire:
    """One direction of a connection.

    It delivers in chunks of the sizes `cuts`, over and over; it inverts the byte number `flip`, and loses all from the
    byte number `drop` on. `carried` is what was put in, whole and unharmed.
    """

    def __init__(self, cuts: Sequence[int] = (), *, flip: int | None = None, drop: int | None = None) -> None:
        self._sizes = itertools.cycle(cuts) if cuts else None
        self._flip = flip
        self._drop = drop
        self.carried = b""

    def carry(self, data: bytes) -> Iterator[bytes]:
        """Take what one side wrote; the chunks that arrive at the other."""
        at = len(self.carried)
        self.carried += data
        harmed = bytearray(data)
        if self._flip is not None and 0 <= self._flip - at < len(harmed):
            harmed[self._flip - at] ^= 0xFF
        if self._drop is not None:
            del harmed[max(0, self._drop - at) :]
        arriving = bytes(harmed)
        start = 0
        while start < len(arriving):
            size = next(self._sizes) if self._sizes else len(arriving)
            yield arriving[start : start + size]
            start += size


class End:
    """One of two sessions: `wire` takes its bytes away, `events` is all that it told."""

    def __init__(self, session: Session, wire: Wire) -> None:
        self.session = session
        self.wire = wire
        self.events: list[Event] = []

    def keep(self, events: list[Event]) -> list[Event]:
        """Gather what a method of the session gave."""
        self.events += events
        check_order(self.events)
        return events

    @property
    def closed(self) -> Closed:
        """How it ended."""
        return _closed(self.events)

    @property
    def established(self) -> Established:
        """What it told when it became active."""
        return next(event for event in self.events if isinstance(event, Established))

    @property
    def messages(self) -> list[MessageReceived]:
        """What it received."""
        return [event for event in self.events if isinstance(event, MessageReceived)]


class Pair:
    """Two sessions, the `dialer` and the `listener`, with a wire from each to the other and one clock."""

    def __init__(
        self,
        dialer: SessionSpec = DIALER,
        listener: SessionSpec = LISTENER,
        *,
        from_dialer: Wire | None = None,
        from_listener: Wire | None = None,
    ) -> None:
        self.clock = Clock()
        now = self.clock.now
        self.dialer = End(Session(dialer.setup(listener.key.id), now=now), from_dialer or Wire())
        self.listener = End(Session(listener.setup(), now=now), from_listener or Wire())

    @property
    def ends(self) -> tuple[End, End]:
        """Both of them."""
        return self.dialer, self.listener

    def exchange(self) -> None:
        """Carry bytes both ways until both sides are quiet."""
        while self._carry(self.dialer, self.listener) or self._carry(self.listener, self.dialer):
            pass

    def establish(self) -> None:
        """Go all the way: handshake, Hello, Status, and the verdict of both sides."""
        self.exchange()
        for end in self.ends:
            end.keep(end.session.approve(now=self.clock.now))
        self.exchange()

    def passes(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.clock.passes(seconds)
        for end in self.ends:
            end.keep(end.session.tick(now=self.clock.now))
        self.exchange()

    def _carry(self, source: End, target: End) -> bool:
        data = source.session.data_to_send()
        for chunk in source.wire.carry(data):
            target.keep(target.session.receive(chunk, now=self.clock.now))
        return bool(data)


class RawPeer:
    """One `session`, and the other end of its connection: a handshake and a frame cipher that keep no rules.

    Codes are the byte on the wire. What the session told is in `events`, what it sent is in `heard`, as code and payload.
    """

    def __init__(
        self, recipe: SessionSpec = DIALER, *, is_dialer: bool = True, offer: tuple[Capability, ...] = OFFER
    ) -> None:
        self.recipe = recipe
        self.clock = Clock()
        self.offer = offer
        self.key = key(_RAW_PEER_SEED)
        self.events: list[Event] = []
        self.heard: list[tuple[int, bytes]] = []
        self._entropy = seeded(_RAW_PEER_SEED)
        self._initiator = Initiator(self.key, recipe.key.id, self._entropy) if is_dialer else None
        self._cipher: FrameCipher | None = None
        self._has_snappy = True
        self.session = Session(recipe.setup(None if is_dialer else self.key.id), now=self.clock.now)

    @classmethod
    def at(
        cls, stage: Stage, recipe: SessionSpec = DIALER, *, is_dialer: bool = True, offer: tuple[Capability, ...] = OFFER
    ) -> RawPeer:
        """A peer that has behaved well until the session came to `stage`."""
        peer = cls(recipe, is_dialer=is_dialer, offer=offer)
        for step in (peer.authenticates, peer.says_hello, peer.says_status, peer.is_admitted):
            if peer.session.stage is not stage:
                step()
        assert peer.session.stage is stage
        return peer

    @property
    def cipher(self) -> FrameCipher:
        """Its side of the frames, once authenticated."""
        assert self._cipher is not None
        return self._cipher

    @property
    def has_cipher(self) -> bool:
        """The handshake is done, on its side."""
        return self._cipher is not None

    # -- what it says --------------------------------------------------------------------------------------------------

    def gives(self, data: bytes) -> list[Event]:
        """Send bytes as they are; what the session tells of them."""
        return self._keep(self.session.receive(data, now=self.clock.now))

    def opening(self) -> bytes:
        """Its packet of the handshake: the auth, or the ack to the session's auth."""
        if self._initiator is not None:
            return self._initiator.auth
        recipient = Recipient(self.session.data_to_send(), self.key, self._entropy)
        self._use(FrameCipher(recipient.secrets))
        return recipient.ack

    def authenticates(self) -> list[Event]:
        """Do the handshake."""
        events = self.gives(self.opening())
        if self._initiator is not None:
            answer = self.session.data_to_send()
            end = _SIZE_BYTES + int.from_bytes(answer[:_SIZE_BYTES], "big")
            self._use(FrameCipher(self._initiator.open_ack(answer[:end])))
            self.opens(answer[end:])
        return events

    def sealed(self, code: int, payload: bytes = EMPTY_LIST, *, is_snappy: bool = True) -> bytes:
        """One message in its frame, not sent yet."""
        return self.cipher.seal(bytes([code]) + (snappied(payload) if is_snappy else payload))

    def says(self, code: int, payload: bytes = EMPTY_LIST, *, is_snappy: bool = True) -> list[Event]:
        """Send one message."""
        return self.gives(self.sealed(code, payload, is_snappy=is_snappy))

    def announces(self, size: int) -> list[Event]:
        """Send the header of a frame of `size` bytes, and nothing of its body."""
        return self.gives(self.cipher.seal(bytes(size))[:32])

    def says_hello(self, *, version: int = 5, node_id: bytes | None = None, offer: Rlp | None = None) -> list[Event]:
        """Send a Hello, right where nothing else is asked for."""
        if offer is None:
            offer = [[item.name.encode(), item.version] for item in self.offer]
        node_id = self.key.id if node_id is None else node_id
        self._has_snappy = version >= SNAPPY_VERSION
        payload = encoded([version, b"raw/1.0", offer, 30303, node_id])
        return self.says(HELLO, payload, is_snappy=False)

    def says_status(self, **changes: Rlp) -> list[Event]:
        """Send the Status of the highest version of eth in its offer, with some of its fields changed."""
        version = max(item.version for item in self.offer if item.name == "eth")
        fields = status_fields(version) | changes
        shared = self.session.shared
        return self.says(shared.eth.offset if shared and shared.eth else ETH, encoded(list(fields.values())))

    # -- what is done to the session -----------------------------------------------------------------------------------

    def is_admitted(self) -> list[Event]:
        """The session gets its verdict: yes."""
        return self._keep(self.session.approve(now=self.clock.now))

    def waits(self, seconds: float) -> list[Event]:
        """Say nothing for a while; the session ticks once at the end of it."""
        self.clock.passes(seconds)
        return self._keep(self.session.tick(now=self.clock.now))

    def is_disconnected(self, reason: DisconnectReason) -> list[Event]:
        """The session is told to end."""
        return self._keep(self.session.disconnect(reason, "told to"))

    # -- what it hears -------------------------------------------------------------------------------------------------

    def hears(self) -> list[tuple[int, bytes]]:
        """What the session has sent since it was last asked."""
        return self.opens(self.session.data_to_send())

    @property
    def closed(self) -> Closed:
        """How the session ended."""
        return _closed(self.events)

    @property
    def goodbye(self) -> int | None:
        """The reason in the Disconnect that the session sent, compressed if and only if both sides have Snappy by then."""
        self.hears()
        at = [index for index, (code, _) in enumerate(self.heard) if code == DISCONNECT]
        if not at:
            return None
        assert at == [len(self.heard) - 1], "a goodbye is the last word"
        payload = self.heard[-1][1]
        # A peer whose Hello has an older version reads no Snappy, and is told so that it understands.
        is_plain = self.session.hello is not None and self.session.hello.version < P2P_VERSION
        if self._has_snappy and not is_plain and any(code == HELLO for code, _ in self.heard):
            payload = inflated(payload)
        [reason] = rlp.decode(payload)
        return int.from_bytes(reason, "big")

    def _use(self, cipher: FrameCipher) -> None:
        cipher.limit_bytes = MAX_FRAME_BYTES
        self._cipher = cipher

    def opens(self, data: bytes) -> list[tuple[int, bytes]]:
        """Read what the session has sent."""
        if self._cipher is None:
            assert not data
            return []
        self._cipher.feed(data)
        new = [(content[0], content[1:]) for content in self._cipher.frames()]
        self.heard += new
        return new

    def _keep(self, events: list[Event]) -> list[Event]:
        self.events += events
        check_order(self.events)
        return events


def check_order(events: list[Event]) -> None:
    """Insist on the order of a life: authenticated, established, messages, closed, and nothing after it."""
    order = {Authenticated: 0, Established: 1, Closed: 3}
    # All others belong to an active session.
    ranks = [order.get(type(event), 2) for event in events]
    assert ranks == sorted(ranks), events
    assert max(ranks.count(0), ranks.count(1), ranks.count(3)) <= 1, events
    assert 2 not in ranks or 1 in ranks, events


def held_bytes(session: Session) -> int:
    """The memory of all that hangs on a session, without what it shares with others. It looks, and asks no counter."""
    shared = (LocalNode, LocalChain, MessageTable, MessageKind)
    containers = (list, tuple, dict, set, frozenset, deque)
    seen: set[int] = set()
    waiting: list[object] = [session]
    total = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, (type, *shared)):
            continue
        seen.add(id(item))
        if isinstance(item, containers) or type(item).__module__.startswith("rlpx.protocol."):
            waiting += gc.get_referents(item)
            total += sys.getsizeof(item)
        elif isinstance(item, (bytes, bytearray, memoryview, str)):
            total += sys.getsizeof(item)
    return total


def _closed(events: list[Event]) -> Closed:
    last = events[-1]
    assert isinstance(last, Closed), events
    return last
