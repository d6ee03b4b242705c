"""The messages between the swarm's command and its processes: a scenario down, counts and latencies up.

They are framed as in `framing.py`. The end of the stream means that the other side has ended.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, field

from rlpx.protocol.bus import framing
from rlpx.protocol.bus.framing import StreamDecoder
from rlpx.protocol.eth.forkid import Chain

Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0, le=100_000)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Weight = Annotated[float, Meta(ge=0, le=1000)]

# The factor between two neighbouring buckets of latency, so that a percentile is exact to one percent.
_BUCKET_FACTOR: Final = math.log(1.02)
# The lowest bucket; no latency on our connections is smaller.
_LEAST_SECONDS: Final = 1e-6


class Client(StrEnum):
    """The client whose Hello and habits a simulated peer imitates."""

    GETH = "geth"
    RETH = "reth"
    NETHERMIND = "nethermind"
    ERIGON = "erigon"


class Fault(StrEnum):
    """A mistake that a simulated peer makes, once or repeatedly."""

    STALL_CONNECT = "stall-connect"
    STALL_AUTH = "stall-auth"
    STALL_ACK = "stall-ack"
    STALL_HELLO = "stall-hello"
    NO_STATUS = "no-status"
    GARBAGE = "garbage"
    OFF_CURVE = "off-curve"
    BAD_MAC = "bad-mac"
    OVERSIZED_SNAPPY = "oversized-snappy"
    HALF_OPEN = "half-open"
    HALF_CLOSE = "half-close"
    RESET = "reset"
    SLOW_READER = "slow-reader"
    DISCONNECT_STORM = "disconnect-storm"


class Query(StrEnum):
    """A kind of request that a simulated peer sends."""

    HEADERS = "headers"
    BODIES = "bodies"
    TRANSACTIONS = "transactions"
    RECEIPTS = "receipts"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a scenario file."""


class Ramp(Table, frozen=True):
    """How fast the peers connect."""

    # Zero means all at once.
    peers_per_s: Rate = 20.0
    # Most handshakes in progress, over all processes: further peers wait, so that nobody's deadline passes. Zero: no limit.
    handshakes_at_once: Annotated[int, Meta(ge=0, le=100_000)] = 0


class Messages(Table, frozen=True):
    """What each established peer sends: the mean number of messages per second, and their sizes."""

    announcements_per_s: Rate = 0.0
    hashes: Annotated[int, Meta(ge=1, le=4096)] = 8
    transactions_per_s: Rate = 0.0
    transaction_bytes: Annotated[int, Meta(ge=128, le=131_072)] = 512
    requests_per_s: Rate = 0.0
    requests: Annotated[tuple[Query, ...], Meta(min_length=1)] = (Query.HEADERS,)


class Slots(Table, frozen=True):
    """Bursts: in the first `burst_s` of every slot, rates are `factor` times those in the rest. The mean does not change."""

    slot_s: Annotated[float, Meta(gt=0, le=3600)] = 12.0
    burst_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 1.0


class Churn(Table, frozen=True):
    """Peers that leave and come back. With `storm_every_s`, all of them leave together, at this interval."""

    share: Share = 0.0
    stay_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    away_s: Seconds = 2.0
    storm_every_s: Seconds = 0.0


class Clients(Table, frozen=True):
    """The mix of imitated clients, as weights. A client without a weight does not occur."""

    geth: Weight = 0.0
    reth: Weight = 0.0
    nethermind: Weight = 0.0
    erigon: Weight = 0.0

    def shares(self) -> dict[Client, float]:
        """Return the clients that occur, with their weights."""
        return {Client(name): weight for name, weight in msgspec.to_builtins(self).items() if weight}


class Faults(Table, frozen=True, rename="kebab"):
    """How many peers make each mistake, as shares of all peers."""

    stall_connect: Share = 0.0
    stall_auth: Share = 0.0
    stall_ack: Share = 0.0
    stall_hello: Share = 0.0
    no_status: Share = 0.0
    garbage: Share = 0.0
    off_curve: Share = 0.0
    bad_mac: Share = 0.0
    oversized_snappy: Share = 0.0
    half_open: Share = 0.0
    half_close: Share = 0.0
    reset: Share = 0.0
    slow_reader: Share = 0.0
    disconnect_storm: Share = 0.0

    def shares(self) -> dict[Fault, float]:
        """Return the mistakes that occur, with their shares."""
        return {Fault(name): share for name, share in msgspec.to_builtins(self).items() if share}


class Scenario(Table, frozen=True):
    """The behaviour of a swarm. Shares are of all peers."""

    # Every scenario file has one.
    description: str = ""
    peers: Annotated[int, Meta(ge=1, le=100_000)] = 60
    processes: Annotated[int, Meta(ge=1, le=64)] = 2
    seconds: Annotated[float, Meta(gt=0, le=86_400)] = 20.0
    # The time limit of a peer for the TCP connect, and again for the handshake.
    patience_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    ramp: Ramp = field(default_factory=Ramp)
    clients: Clients = field(default_factory=lambda: Clients(1.0, 1.0, 1.0, 1.0))
    messages: Messages = field(default_factory=Messages)
    slots: Slots = field(default_factory=Slots)
    churn: Churn = field(default_factory=Churn)
    faults: Faults = field(default_factory=Faults)

    def part(self, process: int) -> range:
        """Return the numbers of one process's peers."""
        return range(process, self.peers, self.processes)


class Address(msgspec.Struct, frozen=True):
    """A numeric host and a TCP port."""

    host: str
    port: int


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The first order: the scenario, and the process's part in it. Without `target` the peers listen, from `listen` on."""

    scenario: Scenario
    seed: int
    index: int
    chain: Chain
    target: bytes
    address: Address


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Begin at this time of the monotonic clock, which all processes share. It is sent once all are ready."""

    starts_at: float


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Disconnect every connection politely, report, and end."""


Order: TypeAlias = Begin | Go | Leave
# The number of latencies in each bucket.
Latencies: TypeAlias = dict[int, int]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process has its peers ready. If they listen, this has their addresses by their numbers."""

    enodes: dict[int, str] = {}


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The process cannot begin, and ends, for this reason."""

    cause: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """A listening peer has come back and may be dialled again."""

    peer: int


class Ends(msgspec.Struct, frozen=True):
    """The peers with one kind of mistake, counted by outcome."""

    expected: int = 0
    otherwise: dict[str, int] = {}


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Sent once a second and at the end: what happened since the last report, and the current state."""

    index: int
    seconds: float
    # The names are those of the summary: `established`, `requests_sent`, …
    counts: dict[str, int]
    ends: dict[str, int]
    faults: dict[Fault, Ends]
    latencies: dict[str, Latencies]
    established: int
    # The process's own.
    cpu_seconds: float
    waiting_seconds: float
    lag_seconds: float
    memory_bytes: int
    is_last: bool = False


SwarmReport: TypeAlias = Ready | Failed | Returned | Report


def encode(message: Order | SwarmReport) -> bytes:
    """Return one message for the stream, with its length in front."""
    return framing.encode(message)


def order_decoder() -> StreamDecoder[Order]:
    """Return the decoder for a process of the swarm."""
    return StreamDecoder(Order)  # type: ignore[arg-type]  # a union is a type to msgspec


def report_decoder() -> StreamDecoder[SwarmReport]:
    """Return the decoder for the swarm's command."""
    return StreamDecoder(SwarmReport)  # type: ignore[arg-type]  # a union is a type to msgspec


def bucket_of(seconds: float) -> int:
    """Return the bucket of a latency."""
    return round(math.log(max(seconds, _LEAST_SECONDS)) / _BUCKET_FACTOR)


def percentile(latencies: Latencies, share: float) -> float | None:
    """Return the latency in seconds that this share of all latencies does not exceed, or None without latencies."""
    wanted = share * sum(latencies.values())
    seen = 0
    for bucket in sorted(latencies):
        seen += latencies[bucket]
        if seen >= wanted:
            return math.exp(bucket * _BUCKET_FACTOR)
    return None
