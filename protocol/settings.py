"""The settings of workers and their sessions, declared once: type, bounds, default, unit and reason.

The engine sends each section to its workers unchanged, so that a setting has one name from `conf/engine.toml` to the
session. Settings of the engine alone are in `engine/settings/settings.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Milliseconds = Annotated[float, Meta(gt=0, le=60_000)]
Bytes = Annotated[int, Meta(ge=1024, le=1 << 32)]
Connections = Annotated[int, Meta(ge=1, le=100_000)]
TcpEndpoint = Annotated[
    str, Meta(title="tcp://HOST:PORT with a numeric host, or an empty text", examples=["tcp://127.0.0.1:5555"])
]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the configuration file. If `is_live` is set, SIGHUP reads it again while the engine runs."""

    is_live: ClassVar[bool] = False


class TimeoutSettings(Section, frozen=True):
    """Time limits for a peer. When one expires, the session ends with a reason."""

    auth_s: Annotated[
        Seconds, Meta(description="Seconds from accept until auth is complete: one round trip, with two lost packets.")
    ] = 3.0
    handshake_s: Annotated[
        Seconds, Meta(description="Seconds from the auth of a dial until its ack is complete, as in geth.")
    ] = 5.0
    pending_inbound_s: Annotated[Seconds, Meta(description="Seconds from accept until the session is active.")] = 10.0
    pending_outbound_s: Annotated[
        Seconds, Meta(description="Seconds from dial until the session is active, including the TCP connect, as in reth.")
    ] = 20.0
    connect_s: Annotated[Seconds, Meta(description="Seconds for the TCP connect of a dial, as in geth.")] = 15.0
    ping_interval_s: Annotated[
        Seconds, Meta(description="Seconds from a pong to the next ping. geth disconnects after 30 s without a message.")
    ] = 15.0
    ping_s: Annotated[Seconds, Meta(description="Seconds to wait for a pong, as in reth.")] = 15.0
    write_s: Annotated[
        Seconds, Meta(description="Seconds that a peer may go without reading what we have written, as in geth.")
    ] = 20.0
    goodbye_s: Annotated[
        Seconds, Meta(description="Seconds that a peer has to read our Disconnect before we close (rlpx.md).")
    ] = 2.0
    worker_drain_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds over which a worker that is replaced ends its sessions. 0: it waits until they end.",
        ),
    ] = 30.0


class ConductSettings(Section, frozen=True):
    """When a peer's misconduct ends the session, with 'breach of protocol'."""

    max_bad_messages: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="Bad responses in a row that end a session (4 in reth). One is forgiven every 4.5 hours.",
        ),
    ] = 4
    ends_on_breach: Annotated[
        bool,
        Meta(description="Whether a peer that leaves a request unanswered for 120 s is disconnected, or only reported."),
    ] = True


# Two messages of the largest size. With less, not even a single peer could be served.
LEAST_PROGRESS_BYTES: Final = 32 * 1024 * 1024


class QueueSettings(Section, frozen=True):
    """Queue limits, in bytes unless they count items."""

    peer_write_bytes: Annotated[
        Bytes,
        Meta(description="Unsent bytes per peer; one message may exceed it. Beyond it, sending fails with queue_full."),
    ] = 1024 * 1024
    goodbyes: Annotated[
        Count,
        Meta(description="Ended sessions per worker whose socket stays open until the peer closes or goodbye_s has passed."),
    ] = 256
    broadcast_bytes: Annotated[
        Bytes, Meta(description="Bytes of one broadcast: payload times sessions. A larger one fails with queue_full.")
    ] = 256 * 1024 * 1024
    worker_command_bytes: Annotated[
        Bytes, Meta(description="Bytes of commands that wait for one worker. Beyond it, sending fails with queue_full.")
    ] = 32 * 1024 * 1024
    worker_progress_bytes: Annotated[
        int,
        Meta(
            ge=LEAST_PROGRESS_BYTES,
            description="Bytes in progress per worker: incomplete frames, waiting requests, unsent messages. Beyond it, the "
            "session that holds the most is ended.",
        ),
    ] = 256 * 1024 * 1024


class EventSettings(Section, frozen=True):
    """How events are sent to subscribers."""

    batch_ms: Annotated[Milliseconds, Meta(description="Longest time an event waits to be batched, in milliseconds.")] = 2.0
    lifecycle_batch_ms: Annotated[
        Milliseconds, Meta(description="The same for lifecycle events (session.*, peer.*, worker.*), in milliseconds.")
    ] = 10.0
    batch_bytes: Annotated[Bytes, Meta(description="Bytes of events and payloads at which a batch is sent at once.")] = (
        128 * 1024
    )
    queue_bytes: Annotated[
        Bytes,
        Meta(description="Bytes queued for one subscriber. Beyond it, the subscriber loses batches and learns which."),
    ] = 64 * 1024 * 1024
    total_queue_bytes: Annotated[
        Bytes,
        Meta(description="Bytes queued for all subscribers together. Those with the longest queues lose batches first."),
    ] = 256 * 1024 * 1024
    worker_queue_bytes: Annotated[
        Bytes, Meta(description="Bytes queued in a worker for the engine. Beyond it, all subscribers lose batches.")
    ] = 64 * 1024 * 1024
    max_subscribers: Annotated[
        int, Meta(ge=1, le=10_000, description="Most subscribers at the same time; more are not accepted.")
    ] = 256
    endpoint: Annotated[
        TcpEndpoint,
        Meta(description="Additional endpoint for subscribers, tcp://HOST:PORT, with the keys of [curve]. Empty: none."),
    ] = ""


class ResponderSettings(Section, frozen=True):
    """Programs that answer peers' requests. They connect to `worker-<i>.ipc` in the run directory."""

    answer_s: Annotated[
        Seconds, Meta(description="Seconds to wait for a program's answer, after which the peer gets an empty response.")
    ] = 5.0
    max_connections: Annotated[Connections, Meta(description="Most programs per worker at the same time.")] = 256
    max_open: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Requests of one peer that may wait for an answer, 4 in reth. Further ones are read later.",
        ),
    ] = 4


class FeedSettings(Section, frozen=True):
    """Feeds: a program's own events from each worker, over `worker-<i>.ipc`."""

    max_feeds: Annotated[Connections, Meta(description="Most feeds per worker at the same time.")] = 1024
    max_of_connection: Annotated[Connections, Meta(description="Most feeds of one connection.")] = 256
    queue_bytes: Annotated[
        Bytes,
        Meta(
            description="Bytes that wait for one feed. Beyond it, the feed loses events; if lossless, it holds peers.",
        ),
    ] = 8 * 1024 * 1024
    total_queue_bytes: Annotated[
        Bytes,
        Meta(
            description="Bytes that wait for all feeds of a worker but the lossless ones, which use worker_progress_bytes."
        ),
    ] = 128 * 1024 * 1024


class WorkerSettings(msgspec.Struct, frozen=True):
    """The sections for a worker and its sessions, which the engine sends unchanged."""

    timeouts: TimeoutSettings = TimeoutSettings()
    conduct: ConductSettings = ConductSettings()
    queues: QueueSettings = QueueSettings()
    events: EventSettings = EventSettings()
    responders: ResponderSettings = ResponderSettings()
    feeds: FeedSettings = FeedSettings()
