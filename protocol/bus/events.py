"""The events that users read, as one struct for each topic: field names, order and meaning.

Publishers make events from these structs, and the JSON Schema of all events is made from the same structs. Messages are too
many for that: `message_json` and `tap_json` write the JSON of their events, and a test compares it with `MessageEvent` and
`TapEvent`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.eth.kinds import TAP
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage

OPENED: Final = "session.opened"
AUTHENTICATED: Final = "session.authenticated"
ESTABLISHED: Final = "session.established"
CLOSED: Final = "session.closed"
REFUSED: Final = "session.refused"
DIAL_FAILED: Final = "dial.failed"
BAD_MESSAGE: Final = "peer.bad_message"
BREACH: Final = "peer.breach"
WORKER_STARTED: Final = "worker.started"
WORKER_LEAVING: Final = "worker.leaving"
WORKER_STOPPED: Final = "worker.stopped"
WORKER_LOST: Final = "worker.lost"
ENGINE_STARTED: Final = "engine.started"
ENGINE_RELOADED: Final = "engine.reloaded"
ENGINE_STOPPED: Final = "engine.stopped"


class Event(msgspec.Struct, frozen=True):
    """Any event. `time_us` is its time, in microseconds since 1970."""

    time_us: int


class SessionOpened(Event, frozen=True):
    """A connection is up, or was accepted; `session.closed` follows, exactly once."""

    session: int
    peer: str | None
    direction: Direction
    remote: str
    worker: int


class SessionAuthenticated(Event, frozen=True):
    """The peer has proved its id."""

    session: int
    peer: str


# A struct has one base, so the fields of the session object are added after those of the event.
SessionEstablished: Final[type[msgspec.Struct]] = msgspec.defstruct(
    "SessionEstablished",
    [(field.name, field.type) for field in msgspec.structs.fields(SessionObject)],
    bases=(Event,),
    namespace={"__doc__": "The session is active. The fields are those of the session object."},
    module=__name__,
    frozen=True,
)


def established(time_us: int, shown: SessionObject) -> Event:
    """Return the event of a session that has become active."""
    make: Any = SessionEstablished
    event: Event = make(time_us, *msgspec.structs.astuple(shown))
    return event


class SessionClosed(SessionOpened, frozen=True):
    """A session has ended: at which stage, by whom, with which Disconnect reason (null if there was none), and why.

    `reason` is `unknown_0x11` for a number that the specification does not have.
    """

    stage: Stage
    ended_by: EndedBy
    reason: str | None
    cause: str
    duration_ms: int
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int


def opened_of(closed: SessionClosed) -> SessionOpened:
    """Return the event of a session's opening, given that of its end."""
    return SessionOpened(closed.time_us, closed.session, closed.peer, closed.direction, closed.remote, closed.worker)


class SessionRefused(Event, frozen=True):
    """An accepted connection was refused and did not become a session."""

    session: int
    peer: None
    remote: str
    cause: str


class DialFailed(Event, frozen=True):
    """A dial ended before its session was established; `session` is null if no session was begun.

    `why_not` is the cause if we refused the dial ourselves; `next_try_us` is when a static peer is dialled again.
    """

    session: int | None
    peer: str | None
    enode: str | None
    reason: str | None
    cause: str
    why_not: str | None
    next_try_us: int | None


class PeerMisconduct(Event, frozen=True):
    """A peer has made a mistake after which the session may continue; `count` is how many it has made in a row.

    A bad message is a response that was not requested or is of the wrong kind. A breach is no answer for 120 s.
    """

    session: int
    peer: str | None
    cause: str
    count: int


class WorkerStarted(Event, frozen=True):
    """A worker process takes sessions."""

    worker: int
    pid: int


class WorkerLeaving(Event, frozen=True):
    """A worker takes no new sessions, and ends when it has none. It had this many at that moment.

    `heir` is the worker that takes its place, if one does. Within `drain_s` we end its sessions; if it is 0, they stay.
    """

    worker: int
    pid: int
    heir: int | None
    sessions: int
    drain_s: float


class WorkerEnded(Event, frozen=True):
    """A worker process has ended, on request (`worker.stopped`) or not (`worker.lost`), with this many sessions."""

    worker: int
    pid: int
    cause: str
    sessions: int


class EngineRun(Event, frozen=True):
    """The engine has started, or is about to end; `run` names this start."""

    session: None
    peer: None
    run: str


class EngineReloaded(Event, frozen=True):
    """The settings were read again. `needs_restart` lists the sections whose changes only take effect at a restart."""

    needs_restart: list[str]


class MessageEvent(Event, frozen=True, omit_defaults=True):
    """A message from a peer. The body has its RLP payload, inflated, as the peer sent it. Sizes are in bytes.

    `request_id` is left out if the message has none.
    """

    session: int
    peer: str
    size: int
    wire_size: int
    version: int
    request_id: int | None = None


class TapEvent(Event, frozen=True, omit_defaults=True):
    """A message that we have sent, whatever its source; merged messages count as one. The body has its RLP payload.

    It is published only if a subscription names it (`tap.`). The request id is the one on the wire. A Status may come before
    `session.established`.
    """

    session: int
    peer: str
    size: int
    version: int
    request_id: int | None = None


# By topic: the events of sessions, peers, workers and the engine.
LIFECYCLE: Final[dict[str, type[msgspec.Struct]]] = {
    OPENED: SessionOpened,
    AUTHENTICATED: SessionAuthenticated,
    ESTABLISHED: SessionEstablished,
    CLOSED: SessionClosed,
    REFUSED: SessionRefused,
    DIAL_FAILED: DialFailed,
    BAD_MESSAGE: PeerMisconduct,
    BREACH: PeerMisconduct,
    WORKER_STARTED: WorkerStarted,
    WORKER_LEAVING: WorkerLeaving,
    WORKER_STOPPED: WorkerEnded,
    WORKER_LOST: WorkerEnded,
    ENGINE_STARTED: EngineRun,
    ENGINE_RELOADED: EngineReloaded,
    ENGINE_STOPPED: EngineRun,
}


def event_type(topic: str) -> type[msgspec.Struct]:
    """Return the struct of a topic's events."""
    found = LIFECYCLE.get(topic)
    if found is not None:
        return found
    return TapEvent if topic.startswith(TAP) else MessageEvent


def message_start(time_us: int, session: int, peer: str) -> str:
    """Return the beginning of the JSON of a `MessageEvent` or `TapEvent`, up to the value of `size`. Messages of one moment
    share it.
    """
    return f'{{"time_us":{time_us},"session":{session},"peer":"{peer}","size":'


def message_json(start: str, size: int, wire_size: int, version: int, request_id: int | None) -> str:
    """Return the JSON of a `MessageEvent`; `start` is the result of `message_start`."""
    end = "}" if request_id is None else f',"request_id":{request_id}}}'
    return f'{start}{size},"wire_size":{wire_size},"version":{version}{end}'


def tap_json(start: str, size: int, version: int, request_id: int | None) -> str:
    """Return the JSON of a `TapEvent`; `start` is the result of `message_start`."""
    end = "}" if request_id is None else f',"request_id":{request_id}}}'
    return f'{start}{size},"version":{version}{end}'


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the events of all topics; those of `eth.*`, `snap.*` and sub-protocols have one form."""
    types = [*LIFECYCLE.values(), MessageEvent, TapEvent]
    _, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    topics = {topic: {"$ref": f"#/$defs/{kind.__name__}"} for topic, kind in LIFECYCLE.items()}
    patterns = {
        "^tap\\.[a-z][a-z0-9]*\\.": {"$ref": "#/$defs/TapEvent"},
        "^(?!session|dial|peer|worker|engine|tap)[a-z][a-z0-9]*\\.": {"$ref": "#/$defs/MessageEvent"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events of rlpx-engine by topic",
        "type": "object",
        "properties": topics,
        "patternProperties": patterns,
        "$defs": components,
    }
