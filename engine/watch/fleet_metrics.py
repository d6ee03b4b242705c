"""The metrics of the engine as a member of a fleet of hosts. An engine alone has none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rlpx.engine.watch.metric import Read, Sample, cut, metric, of_engine
from rlpx.protocol.bus.metrics import Durations, EngineMetrics, FleetMetrics, PlacesCount


def of_member(read: Callable[[FleetMetrics], float | Durations]) -> Read:
    """A reader of one figure of a host of a fleet."""

    def wrapped(engine: EngineMetrics) -> Iterable[Sample]:
        return [] if engine.fleet is None else [((), read(engine.fleet))]

    return of_engine(wrapped)


def of_places(read: Callable[[PlacesCount], int]) -> Read:
    """A reader of the places in each direction."""

    def wrapped(engine: EngineMetrics) -> Iterable[Sample]:
        places = {} if engine.fleet is None else engine.fleet.places
        return [((str(direction),), float(read(count))) for direction, count in places.items()]

    return of_engine(wrapped)


# -- the membership ---------------------------------------------------------------------------------------------------------


@metric("rlpx_fleet", "info", "fleet host", "The fleet that this host is in, and its name there.")
@of_engine
def _fleet(engine: EngineMetrics) -> Iterable[Sample]:
    return [] if engine.fleet is None else [((cut(engine.fleet.fleet), cut(engine.fleet.host)), 1.0)]


@metric("rlpx_fleet_member", "gauge", "", "Whether the heartbeats of this host are confirmed, so that none gives it up.")
@of_member
def _member(fleet: FleetMetrics) -> float:
    return float(fleet.is_member)


@metric("rlpx_fleet_away_seconds", "gauge", "", "Since when NATS does not answer; 0 while it does.")
@of_member
def _away(fleet: FleetMetrics) -> float:
    return fleet.away_s


@metric("rlpx_fleet_hosts", "gauge", "", "The living hosts of the fleet as this one sees them, itself included.")
@of_member
def _hosts(fleet: FleetMetrics) -> float:
    return float(fleet.hosts)


@metric("rlpx_fleet_lost_calls", "counter", "", "Reads and writes that the fleet's store did not answer in time.")
@of_member
def _lost_calls(fleet: FleetMetrics) -> float:
    return float(fleet.lost_calls)


# -- places and claims ------------------------------------------------------------------------------------------------------


@metric("rlpx_fleet_places_leased", "gauge", "direction", "The fleet's places that are leased to this host.")
@of_places
def _leased(places: PlacesCount) -> int:
    return places.leased


@metric("rlpx_fleet_places_used", "gauge", "direction", "The sessions of this host that need a place.")
@of_places
def _used(places: PlacesCount) -> int:
    return places.used


@metric("rlpx_fleet_places_elsewhere", "gauge", "direction", "The fleet's places that no host has leased.")
@of_places
def _elsewhere(places: PlacesCount) -> int:
    return places.elsewhere


@metric(
    "rlpx_fleet_claims",
    "gauge",
    "state",
    "Claims of peers: held in the fleet's store, unsettled (the session was let in while NATS was away), or in progress.",
)
@of_engine
def _claims(engine: EngineMetrics) -> Iterable[Sample]:
    if engine.fleet is None:
        return []
    claims = engine.fleet.claims
    counts = {"held": claims.held, "unsettled": claims.unsettled, "in_progress": claims.in_progress}
    return [((state,), float(count)) for state, count in counts.items()]


@metric("rlpx_fleet_claim_seconds", "histogram", "", "From the claim of a peer to the verdict on its session.")
@of_member
def _claim_seconds(fleet: FleetMetrics) -> Durations:
    return fleet.claim_seconds


@metric("rlpx_fleet_claims_refused", "counter", "", "Sessions that were refused because another host has the peer.")
@of_member
def _refused(fleet: FleetMetrics) -> float:
    return float(fleet.claims_refused)


@metric("rlpx_fleet_claims_erased", "counter", "", "Claims of dead hosts that this host has erased from the fleet's store.")
@of_member
def _erased(fleet: FleetMetrics) -> float:
    return float(fleet.claims_erased)


@metric(
    "rlpx_fleet_sessions_ended", "counter", "", "Active sessions that ended because their place or peer is another host's."
)
@of_member
def _ended(fleet: FleetMetrics) -> float:
    return float(fleet.sessions_ended)


# -- events and traffic -----------------------------------------------------------------------------------------------------


@metric("rlpx_fleet_events_published", "counter", "", "Events of sessions' lives that are in the fleet's stream.")
@of_member
def _published(fleet: FleetMetrics) -> float:
    return float(fleet.events_published)


@metric(
    "rlpx_fleet_events_waiting",
    "gauge",
    "",
    "Events of sessions' lives in memory that are not in the stream yet. Others wait in a file, the queue fleet_events.",
)
@of_member
def _waiting(fleet: FleetMetrics) -> float:
    return float(fleet.events_waiting)


@metric("rlpx_fleet_events_dropped", "counter", "", "Events of sessions' lives that did not fit while NATS was away.")
@of_member
def _events_dropped(fleet: FleetMetrics) -> float:
    return float(fleet.events_dropped)


@metric(
    "rlpx_fleet_traffic_batches", "counter", "", "Batches of peers' messages that were published to listeners over NATS."
)
@of_member
def _batches(fleet: FleetMetrics) -> float:
    return float(fleet.traffic_batches)


@metric("rlpx_fleet_traffic_bytes", "counter", "", "The bytes of these batches.")
@of_member
def _traffic_bytes(fleet: FleetMetrics) -> float:
    return float(fleet.traffic_bytes)


@metric("rlpx_fleet_traffic_dropped", "counter", "", "Batches that NATS did not take, or too slowly. Listeners see the gap.")
@of_member
def _traffic_dropped(fleet: FleetMetrics) -> float:
    return float(fleet.traffic_dropped)
