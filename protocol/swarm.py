"""What the swarm's command and its processes say to each other: a scenario down, counts and latencies up.

Framing is that of `control`: four bytes of length and a msgpack struct. The end of the stream is the end of the other side.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, field

from protocol.control import StreamDecoder
from protocol.forkid import Chain

Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0, le=100_000)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Weight = Annotated[float, Meta(ge=0, le=1000)]

# Two neighbouring buckets of latency differ by this factor: a percentile is exact to one percent.
_BUCKET_FACTOR: Final = math.log(1.02)
# Nothing on our wires is quicker; it bounds the lowest bucket.
_LEAST_SECONDS: Final = 1e-6
_LENGTH_BYTES: Final = 4


class Client(StrEnum):
    """Whose Hello and habits a simulated peer has."""

    GETH = "geth"
    RETH = "reth"
    NETHERMIND = "nethermind"
    ERIGON = "erigon"


class Fault(StrEnum):
    """What a simulated peer does wrong, once or for as long as it lives."""

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


class Request(StrEnum):
    """What a simulated peer asks for."""

    HEADERS = "headers"
    BODIES = "bodies"
    TRANSACTIONS = "transactions"
    RECEIPTS = "receipts"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a scenario file."""


class Ramp(Table, frozen=True):
    """How the peers come."""

    # Zero: all at once.
    peers_per_s: Rate = 20.0


class Messages(Table, frozen=True):
    """What each established peer sends: messages a second on the mean, and how large they are."""

    announcements_per_s: Rate = 0.0
    hashes: Annotated[int, Meta(ge=1, le=4096)] = 8
    transactions_per_s: Rate = 0.0
    transaction_bytes: Annotated[int, Meta(ge=128, le=131_072)] = 512
    requests_per_s: Rate = 0.0
    requests: Annotated[tuple[Request, ...], Meta(min_length=1)] = (Request.HEADERS,)


class Slots(Table, frozen=True):
    """Bursts: in the first `burst_s` of every slot the rates are `factor` times those of the rest; the mean stays."""

    slot_s: Annotated[float, Meta(gt=0, le=3600)] = 12.0
    burst_s: Annotated[float, Meta(gt=0, le=3600)] = 2.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 1.0


class Churn(Table, frozen=True):
    """Peers that leave and come back. With `storm_every_s` they leave together, that often."""

    share: Share = 0.0
    stay_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    away_s: Seconds = 2.0
    storm_every_s: Seconds = 0.0


class Clients(Table, frozen=True):
    """How many pass for which client, as weights: who is not named is not there."""

    geth: Weight = 0.0
    reth: Weight = 0.0
    nethermind: Weight = 0.0
    erigon: Weight = 0.0

    def shares(self) -> dict[Client, float]:
        """Those that are there."""
        return {Client(name): weight for name, weight in msgspec.to_builtins(self).items() if weight}


class Faults(Table, frozen=True, rename="kebab"):
    """How many do what wrong, as shares of all peers."""

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
        """Those that there are."""
        return {Fault(name): share for name, share in msgspec.to_builtins(self).items() if share}


class Scenario(Table, frozen=True):
    """What a swarm does. Shares are of all peers."""

    # A file must have one.
    description: str = ""
    peers: Annotated[int, Meta(ge=1, le=100_000)] = 60
    processes: Annotated[int, Meta(ge=1, le=64)] = 2
    seconds: Annotated[float, Meta(gt=0, le=86_400)] = 20.0
    # How long a peer waits for TCP, and again for the handshake.
    patience_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    ramp: Ramp = field(default_factory=Ramp)
    clients: Clients = field(default_factory=lambda: Clients(1.0, 1.0, 1.0, 1.0))
    messages: Messages = field(default_factory=Messages)
    slots: Slots = field(default_factory=Slots)
    churn: Churn = field(default_factory=Churn)
    faults: Faults = field(default_factory=Faults)

    def part(self, process: int) -> range:
        """The numbers of the peers of one process."""
        return range(process, self.peers, self.processes)


class Address(msgspec.Struct, frozen=True):
    """A numeric host and a TCP port."""

    host: str
    port: int


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The first word down: what to simulate, and which part of it. Without `target` the peers listen, from `listen` on."""

    scenario: Scenario
    seed: int
    index: int
    chain: Chain
    target: bytes
    address: Address


class Go(msgspec.Struct, frozen=True, tag="go"):
    """All processes are ready: the swarm begins at this time of the monotonic clock, which all processes share."""

    starts_at: float


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Say goodbye to everybody, report, and end."""


Order: TypeAlias = Begin | Go | Leave
# Latencies: how many by bucket.
Latencies: TypeAlias = dict[int, int]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process has its peers ready; where they listen, by their number, if they do."""

    enodes: dict[int, str] = {}


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The process cannot begin, and why; it ends."""

    cause: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """A listening peer that had left is back, and may be dialled again."""

    peer: int


class Ends(msgspec.Struct, frozen=True):
    """How many of the peers of one fault, by what came of it."""

    expected: int = 0
    otherwise: dict[str, int] = {}


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Once a second, and at the end: what has been since the report before, and how things stand."""

    index: int
    seconds: float
    # Names are those of the summary: `established`, `requests_sent`, …
    counts: dict[str, int]
    ends: dict[str, int]
    faults: dict[Fault, Ends]
    latencies: dict[str, Latencies]
    established: int
    # Of the process itself.
    cpu_seconds: float
    waiting_seconds: float
    lag_seconds: float
    memory_bytes: int
    is_last: bool = False


Word: TypeAlias = Ready | Failed | Returned | Report

_encoder: Final = msgspec.msgpack.Encoder()


def encode(word: Order | Word) -> bytes:
    """One message on the stream, with its length in front."""
    body = _encoder.encode(word)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def order_decoder() -> StreamDecoder[Order]:
    """For a process of the swarm."""
    return StreamDecoder(Order)  # type: ignore[arg-type]  # a union is a type to msgspec


def word_decoder() -> StreamDecoder[Word]:
    """For the command."""
    return StreamDecoder(Word)  # type: ignore[arg-type]  # a union is a type to msgspec


def bucket_of(seconds: float) -> int:
    """The bucket that a latency counts in."""
    return round(math.log(max(seconds, _LEAST_SECONDS)) / _BUCKET_FACTOR)


def percentile(latencies: Latencies, share: float) -> float | None:
    """The latency in seconds that this share of all stays within; `None` where there is none."""
    wanted = share * sum(latencies.values())
    seen = 0
    for bucket in sorted(latencies):
        seen += latencies[bucket]
        if seen >= wanted:
            return math.exp(bucket * _BUCKET_FACTOR)
    return None
