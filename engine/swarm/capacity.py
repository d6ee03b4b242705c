"""What a number of peers needs of this machine, worked out from what a few cost. It measures nothing itself."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from rlpx.engine.swarm.trial import Costs
from rlpx.protocol.bus.descriptors import RESERVE

# How long a session lasts on average: peers come and go, and each new one costs a handshake.
SESSION_SECONDS: Final = 1800.0
# A process that is busy for more than this share of the time makes its peers wait.
BUSY_SHARE: Final = 0.6
# Ethernet, IP and TCP headers of a packet with a small message in it, its acknowledgement included.
PACKET_BYTES: Final = 120
# RLPx adds a header and two tags to each message, and pads it to 16 bytes; snappy saves about as much again.
# The counters have the bytes on the wire already, so that only packets are added.
_DESCRIPTORS_BESIDE: Final = 64 + 64 + 256 + RESERVE
_WORKER_BYTES_LEAST: Final = 1024 * 1024


class Prices(msgspec.Struct, frozen=True):
    """What things cost here: CPU in seconds, memory in bytes. `engine` is the engine process, `worker` all workers."""

    session_engine_cpu: float
    session_worker_cpu: float
    idle_engine_cpu: float
    idle_worker_cpu: float
    message_engine_cpu: float
    message_worker_cpu: float
    engine_base_bytes: float
    worker_base_bytes: float
    session_bytes: float
    bytes_per_message_in: float
    bytes_per_message_out: float
    messages_in_per_s: float
    messages_out_per_s: float


class Plan(msgspec.Struct, frozen=True):
    """What this many peers need. CPU is in cores, bandwidth in bits per second."""

    peers: int
    workers: int
    memory_bytes: int
    engine_cores: float
    worker_cores: float
    bits_in_per_s: float
    bits_out_per_s: float
    messages_in_per_s: float
    messages_out_per_s: float
    handshakes_per_s: float
    descriptors_per_worker: int


def prices(quiet: Costs, lively: Costs, base: tuple[int, int], *, factor: float = 1.0) -> Prices:
    """The prices by two trials, of sessions at rest and with messages; `base` are an engine's and a worker's bytes.

    Each peer of the second trial sent `factor` times as much as it will: a busy process handles more messages at each
    wake-up, so a message is priced at the rate of as many peers as the plan is for.
    """
    sessions = max(1, quiet.established)
    idle_engine = quiet.hold_engine_cpu / quiet.hold_seconds / sessions
    idle_worker = quiet.hold_worker_cpu / quiet.hold_seconds / sessions
    # What the lively sessions cost beyond being there is the price of their messages.
    busy = max(1, lively.established)
    messages = max(1, lively.messages_in + lively.messages_out)
    at_rest = busy * lively.hold_seconds
    return Prices(
        session_engine_cpu=max(0.0, quiet.establish_engine_cpu) / sessions,
        session_worker_cpu=max(0.0, quiet.establish_worker_cpu) / sessions,
        idle_engine_cpu=idle_engine,
        idle_worker_cpu=idle_worker,
        message_engine_cpu=max(0.0, lively.hold_engine_cpu - idle_engine * at_rest) / messages,
        message_worker_cpu=max(0.0, lively.hold_worker_cpu - idle_worker * at_rest) / messages,
        engine_base_bytes=base[0],
        worker_base_bytes=base[1],
        session_bytes=max(quiet.session_bytes, lively.session_bytes),
        bytes_per_message_in=lively.bytes_in / max(1, lively.messages_in),
        bytes_per_message_out=lively.bytes_out / max(1, lively.messages_out),
        messages_in_per_s=_rate(quiet.messages_in / sessions, lively.messages_in / busy, quiet, lively, factor),
        messages_out_per_s=_rate(quiet.messages_out / sessions, lively.messages_out / busy, quiet, lively, factor),
    )


def _rate(quiet_messages: float, lively_messages: float, quiet: Costs, lively: Costs, factor: float) -> float:
    """A peer's messages a second: its pings, and what the profile adds to them."""
    at_rest = quiet_messages / quiet.hold_seconds
    return at_rest + max(0.0, lively_messages / lively.hold_seconds - at_rest) / factor


def plan(price: Prices, peers: int, descriptor_limit: int, session_seconds: float = SESSION_SECONDS) -> Plan:
    """What this many peers need, at these prices and with this limit of descriptors per process."""
    handshakes = peers / session_seconds
    messages_in, messages_out = peers * price.messages_in_per_s, peers * price.messages_out_per_s
    messages = messages_in + messages_out
    engine = handshakes * price.session_engine_cpu + peers * price.idle_engine_cpu + messages * price.message_engine_cpu
    worker = handshakes * price.session_worker_cpu + peers * price.idle_worker_cpu + messages * price.message_worker_cpu
    by_descriptors = math.ceil(peers / max(1, descriptor_limit - _DESCRIPTORS_BESIDE))
    workers = max(1, by_descriptors, math.ceil(worker / BUSY_SHARE))
    memory = price.engine_base_bytes + workers * price.worker_base_bytes + peers * price.session_bytes
    return Plan(
        peers=peers,
        workers=workers,
        memory_bytes=int(memory),
        engine_cores=engine,
        worker_cores=worker,
        bits_in_per_s=8 * messages_in * (price.bytes_per_message_in + PACKET_BYTES),
        bits_out_per_s=8 * messages_out * (price.bytes_per_message_out + PACKET_BYTES),
        messages_in_per_s=messages_in,
        messages_out_per_s=messages_out,
        handshakes_per_s=handshakes,
        descriptors_per_worker=math.ceil(peers / workers) + _DESCRIPTORS_BESIDE,
    )


def errors(planned: Plan, real: Costs) -> dict[str, float]:
    """How far a plan is from a real run of as many peers: planned divided by real, less one.

    A real run of seconds has no new handshakes, so compare with a plan for sessions that never end.
    """
    sessions = max(1, real.established)
    found = {
        "memory": (planned.memory_bytes, real.base_bytes + real.session_bytes * sessions),
        "worker_cpu": (planned.worker_cores, real.hold_worker_cpu / real.hold_seconds),
        "engine_cpu": (planned.engine_cores, real.hold_engine_cpu / real.hold_seconds),
        "messages_in": (planned.messages_in_per_s, real.messages_in / real.hold_seconds),
        "bytes_in": (
            planned.bits_in_per_s / 8 - planned.messages_in_per_s * PACKET_BYTES,
            real.bytes_in / real.hold_seconds,
        ),
    }
    return {name: figure / actual - 1 for name, (figure, actual) in found.items() if actual > 0}


def assumptions(price: Prices, profile: str, session_seconds: float) -> list[str]:
    """What the plan takes for granted, in sentences."""
    rates = f"{price.messages_in_per_s:.2f} messages a second in, {price.messages_out_per_s:.2f} out"
    return [
        f"each peer behaves as the scenario {profile} says: {rates}, pings included",
        f"a session lasts {session_seconds / 60:.0f} minutes, so that each peer costs a handshake that often",
        "one program reads all messages of all peers; another one costs about as much again in the engine process",
        f"a process should be busy for at most {BUSY_SHARE:.0%} of the time, since blocks come in bursts",
        f"a message is a packet of its own, with {PACKET_BYTES} bytes of headers and acknowledgement",
        "budgets are not used up: `rlpx-engine doctor` shows the memory of the worst case",
        "cost grows in proportion to the number of peers",
        "the prices are those of this machine now; the swarm that measured them ran on the same cores",
    ]


def as_json(found: Plan, price: Prices, words: list[str], more: dict[str, Any]) -> dict[str, Any]:
    """Everything as one JSON object."""
    return {"plan": msgspec.to_builtins(found), "prices": msgspec.to_builtins(price), "assumptions": words, **more}
