"""The metrics of sessions, handshakes, traffic, requests and dials."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from rlpx.engine.watch.metric import Sample, by_name, cut, metric, of_engine
from rlpx.engine.watch.scrapes import Figures
from rlpx.protocol.bus.metrics import EngineMetrics, MessageCounts, RequestCounts

# Messages of users' sub-protocols are shown by number up to this many kinds; further ones are summed as `other`.
OWN_MESSAGES_SHOWN: Final = 128
_KNOWN_CAPABILITIES: Final = frozenset({"eth", "snap", "p2p"})
_OTHER: Final = "other"


# -- sessions ---------------------------------------------------------------------------------------------------------------


@metric(
    "rlpx_sessions",
    "gauge",
    "phase direction",
    "Sessions by phase (unauthenticated, pending, active) and by who opened the connection.",
)
@of_engine
def _sessions(engine: EngineMetrics) -> Iterable[Sample]:
    return [((item.phase, item.direction.value), float(item.sessions)) for item in engine.sessions]


@metric("rlpx_sessions_limit", "gauge", "phase direction", "The limit on sessions of each phase and direction.")
@of_engine
def _sessions_limit(engine: EngineMetrics) -> Iterable[Sample]:
    return [((item.phase, item.direction.value), float(item.limit)) for item in engine.sessions]


@metric("rlpx_sessions_by_client", "gauge", "client direction", "Active sessions by the family of the peer's client.")
@of_engine
def _clients(engine: EngineMetrics) -> Iterable[Sample]:
    return [((item.client, item.direction.value), float(item.sessions)) for item in engine.clients]


@metric("rlpx_sessions_by_capability", "gauge", "capability version", "Active sessions by shared capability and version.")
@of_engine
def _capabilities(engine: EngineMetrics) -> Iterable[Sample]:
    return [(_capability(item.capability), float(item.sessions)) for item in engine.capabilities]


@metric("rlpx_accepted_connections", "counter", "", "Connections that the listener accepted.")
@of_engine
def _accepted(engine: EngineMetrics) -> Iterable[Sample]:
    return [((), float(engine.accepted))]


@metric(
    "rlpx_refused_connections",
    "counter",
    "reason",
    "Connections that were refused because of their address, the limits or the peer's id.",
)
@of_engine
def _refused(engine: EngineMetrics) -> Iterable[Sample]:
    return by_name(engine.refused)


@metric(
    "rlpx_session_ends",
    "counter",
    "ended_by reason direction",
    "Ended sessions and dials, by who ended them and the reason of the Disconnect that was sent or received.",
)
@of_engine
def _ends(engine: EngineMetrics) -> Iterable[Sample]:
    return [((item.ended_by, item.reason, item.direction.value), float(item.sessions)) for item in engine.ends]


# -- handshakes -------------------------------------------------------------------------------------------------------------


@metric(
    "rlpx_handshake_seconds",
    "histogram",
    "direction",
    "Time from the accept, or the start of the dial, until the session was active.",
)
def _handshakes(figures: Figures) -> Iterable[Sample]:
    return [((item.direction.value,), item.established) for item in figures.total.handshakes]


@metric(
    "rlpx_handshake_stage_seconds",
    "histogram",
    "direction stage",
    "Time of each passed stage: connect, auth (accepts) or ack (dials), hello, status, verdict.",
)
def _stages(figures: Figures) -> Iterable[Sample]:
    return [((item.direction.value, item.stage.value), item.passed) for item in figures.total.stages]


@metric(
    "rlpx_handshake_failures",
    "counter",
    "direction stage ended_by",
    "Handshakes that ended before the session was active, by the stage that they had reached and who ended them.",
)
def _failures(figures: Figures) -> Iterable[Sample]:
    return [
        ((item.direction.value, item.stage.value, by), float(count))
        for item in figures.total.stages
        for by, count in item.ended_by.items()
    ]


# -- traffic ----------------------------------------------------------------------------------------------------------------


@metric(
    "rlpx_peer_bytes",
    "counter",
    "direction",
    "Bytes that came from peers' sockets (in) and were written to them (out), handshakes included.",
)
def _peer_bytes(figures: Figures) -> Iterable[Sample]:
    if figures.result is None:
        return []
    return [(("in",), float(figures.total.bytes_in)), (("out",), float(figures.total.bytes_out))]


@metric(
    "rlpx_messages",
    "counter",
    "capability version message direction",
    "Messages of peers (in) and ours (out). Those of your own sub-protocols have numbers.",
)
def _messages(figures: Figures) -> Iterable[Sample]:
    return _traffic(figures, lambda item: (item.messages_in, item.messages_out))


@metric(
    "rlpx_message_bytes",
    "counter",
    "capability version message direction",
    "Bytes of these messages as they are on the wire: compressed, without the overhead of frames.",
)
def _message_bytes(figures: Figures) -> Iterable[Sample]:
    return _traffic(figures, lambda item: (item.bytes_in, item.bytes_out))


@metric(
    "rlpx_misconduct", "counter", "conduct", "Bad messages and breaches of peers, whether or not they ended the session."
)
def _misconduct(figures: Figures) -> Iterable[Sample]:
    return by_name(figures.total.misconduct)


# -- requests ---------------------------------------------------------------------------------------------------------------


@metric(
    "rlpx_requests_sent",
    "counter",
    "capability message outcome",
    "Requests to peers by outcome: answered, timed_out, bad_response, session_ended, cancelled.",
)
def _requests_sent(figures: Figures) -> Iterable[Sample]:
    return _outcomes(figures.total.requests_out)


@metric("rlpx_request_seconds", "histogram", "capability message", "Time from a request to a peer until its answer.")
def _request_seconds(figures: Figures) -> Iterable[Sample]:
    return _answers(figures.total.requests_out)


@metric(
    "rlpx_requests_received",
    "counter",
    "capability message outcome",
    "Requests of peers by outcome: answered by a responder, empty (none took it), unanswered (it was too late), malformed.",
)
def _requests_received(figures: Figures) -> Iterable[Sample]:
    return _outcomes(figures.total.requests_in)


@metric(
    "rlpx_response_seconds",
    "histogram",
    "capability message",
    "Time from a request of a peer until a responder answered it.",
)
def _response_seconds(figures: Figures) -> Iterable[Sample]:
    return _answers(figures.total.requests_in)


# -- dials ------------------------------------------------------------------------------------------------------------------


@metric("rlpx_dials_started", "counter", "", "Dials that began.")
@of_engine
def _dials(engine: EngineMetrics) -> Iterable[Sample]:
    return [((), float(engine.dials.begun))]


@metric("rlpx_dials", "counter", "outcome", "Dials that ended in an active session (established), or without one (failed).")
@of_engine
def _dial_outcomes(engine: EngineMetrics) -> Iterable[Sample]:
    dials = engine.dials
    return [(("established",), float(dials.established)), (("failed",), float(dials.failed))]


@metric(
    "rlpx_dials_refused",
    "counter",
    "reason",
    "Dials that we refused to begin, by why. A static peer counts once for each cause.",
)
@of_engine
def _dials_refused(engine: EngineMetrics) -> Iterable[Sample]:
    return by_name(engine.dials.why_not)


@metric(
    "rlpx_static_peers",
    "gauge",
    "state",
    "Static peers: busy (connected or being dialled), waiting, due, or due and refused.",
)
@of_engine
def _static(engine: EngineMetrics) -> Iterable[Sample]:
    return by_name(engine.dials.static)


@metric(
    "rlpx_next_static_dial_seconds",
    "gauge",
    "",
    "Time until the next waiting static peer is dialled; absent if none is waiting.",
)
@of_engine
def _next_dial(engine: EngineMetrics) -> Iterable[Sample]:
    return [] if engine.dials.next_s is None else [((), engine.dials.next_s)]


# -- inside ---------------------------------------------------------------------------------------------------------------


def _capability(name: str) -> tuple[str, str]:
    name, _, version = name.partition("/")
    return cut(name), cut(version)


def _traffic(figures: Figures, counts: Callable[[MessageCounts], tuple[int, int]]) -> Iterator[Sample]:
    """The messages of eth, snap and the base protocol, and a bounded number of those of users' sub-protocols."""
    others = [0, 0]
    own = 0
    # In one order whatever worker counted them first: else kinds would come out of the sum, and it would go back.
    for item in sorted(figures.total.messages, key=lambda item: (item.capability, item.message)):
        capability = _capability(item.capability)
        came, left = counts(item)
        if capability[0] not in _KNOWN_CAPABILITIES:
            if own == OWN_MESSAGES_SHOWN or capability[0] == _OTHER:
                others = [others[0] + came, others[1] + left]
                continue
            own += 1
        yield (*capability, cut(item.message), "in"), float(came)
        yield (*capability, cut(item.message), "out"), float(left)
    if any(others):
        yield (_OTHER, "", _OTHER, "in"), float(others[0])
        yield (_OTHER, "", _OTHER, "out"), float(others[1])


def _outcomes(requests: list[RequestCounts]) -> Iterable[Sample]:
    return [
        ((item.capability, item.message, outcome), float(count))
        for item in requests
        for outcome, count in item.outcomes.items()
    ]


def _answers(requests: list[RequestCounts]) -> Iterable[Sample]:
    return [((item.capability, item.message), item.answered) for item in requests]
