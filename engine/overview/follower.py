"""Follows an engine from a thread of its own, and hands over what it says. It waits for an engine that is not there.

The thread reads events (blocking), and asks for `status` once a second. `take` gets what it read, in order, and is called
in the thread: it may block, and then the engine keeps events back and counts those that it must drop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeAlias

import msgspec

from rlpx.engine.client.client import Client
from rlpx.engine.client.door import run_dir_endpoint
from rlpx.engine.client.joining import SESSIONS, Change, Joined
from rlpx.engine.client.presence import EndpointError, EngineError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.engine.overview.overview import TOPICS, Overview
from rlpx.engine.overview.traffic import counters_of
from rlpx.protocol.bus.json_rpc import METHOD_NOT_FOUND
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.rlpx.host_port import format_host_port, parse_host_port

STATUS_SECONDS: Final = 1.0
# An engine that does not answer `status` within this time is shown as silent.
CALL_SECONDS: Final = 2.0
# A snapshot of 100,000 sessions, or a listing of them, takes longer.
PATIENT_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 0.5
# The longest wait for events before the thread looks whether it should end, or ask.
POLL_SECONDS: Final = 0.1
# A listing of all sessions costs the engine time: it is asked for that often at most, and takes at most this share.
LISTING_SECONDS: Final = 2.0
LISTING_SHARE: Final = 0.01
# The engine's largest listing.
LISTING_LIMIT: Final = 100_000
HISTORY_LIMIT: Final = 200
EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what an engine that listens on all addresses shows


class Place(msgspec.Struct, frozen=True):
    """Where an engine is: the endpoints of its commands and events, and the key for them if they are TCP."""

    control: str
    events: str
    key: str | None = None

    @classmethod
    def of(cls, run_dir: str | None, connect: str | None = None, events: str | None = None, key: str | None = None) -> Place:
        """The engine of a run directory, by default the usual one, or of the endpoint `connect`. Raises `ConfigError`.

        If the endpoint of events is not given, it is the socket beside `connect`, or over TCP the port that follows.
        """
        if connect is None:
            return cls(run_dir_endpoint(run_dir, "control"), run_dir_endpoint(run_dir, "events"))
        return cls(connect, events or _events_beside(connect), key)

    def worker(self, worker: int, tcp: str | None = None) -> str | None:
        """The data endpoint of a worker; `None` if it has none where we are. `tcp` is the one that `status` shows.

        A host of 0.0.0.0 or [::] stands for the engine's machine, whose address we know.
        """
        scheme, _, place = self.control.partition("://")
        if scheme == "ipc":
            return f"ipc://{place.rpartition('/')[0]}/worker-{worker}.ipc"
        if tcp is None:
            return None
        host, port = parse_host_port(tcp.partition("://")[2])
        if host in EVERY_ADDRESS:
            host, _ = parse_host_port(place)
        return f"tcp://{format_host_port(host, port)}"


def _events_beside(control: str) -> str:
    scheme, _, place = control.partition("://")
    if scheme == "ipc":
        return f"ipc://{place.rpartition('/')[0]}/events.ipc"
    try:
        host, port = parse_host_port(place)
    except ValueError as error:
        raise EndpointError(control, str(error)) from error
    return f"{scheme}://{format_host_port(host, port + 1)}"


class Changes(msgspec.Struct, frozen=True):
    """Changes of the stream."""

    changes: list[Change]


class Status(msgspec.Struct, frozen=True):
    """An answer to `status`."""

    status: dict[str, Any]


class History(msgspec.Struct, frozen=True):
    """The ends from before we looked, as `history` lists them."""

    ends: list[dict[str, Any]]


class Listing(msgspec.Struct, frozen=True):
    """All sessions with their traffic."""

    sessions: list[dict[str, Any]]


class Lost(msgspec.Struct, frozen=True):
    """There is no connection, for this cause."""

    cause: str


class Metrics(msgspec.Struct, frozen=True):
    """An answer to `metrics`."""

    metrics: dict[str, Any]


Said: TypeAlias = Changes | Status | Metrics | History | Listing | Lost


def apply(overview: Overview, said: Said, *, now: float) -> None:
    """Add to an overview what the engine said."""
    match said:
        case Changes():
            overview.apply(said.changes, now=now)
        case Status():
            overview.take_status(said.status, now=now)
        case Metrics():
            overview.take_counters(counters_of(said.metrics), now=now)
        case History():
            overview.ends.fill(said.ends)
        case Listing():
            overview.sessions.list_traffic(said.sessions, now=now)
        case Lost():
            overview.lose(said.cause)


class Follower:
    """See the module. `start` and `stop` are called once; while `is_listing`, the sessions' traffic is read as well."""

    def __init__(self, place: Place, take: Callable[[Said], None]) -> None:
        self._place = place
        self._take = take
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.is_listing = False

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End. An engine that hangs may keep the thread for `PATIENT_SECONDS`; it is not waited for longer than a call."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(CALL_SECONDS + 1.0)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow()
            except (EngineError, EngineUnavailableError, ConfigError) as error:
                self._take(Lost(str(error)))
            except (LookupError, TypeError, ValueError) as error:
                # An engine of another version may answer in another form.
                self._take(Lost(f"the engine's answer has another form than expected: {error!r}"))
            self._stopped.wait(RETRY_SECONDS)

    def _follow(self) -> None:
        """Follow one connection until it is lost."""
        place = self._place
        with Client(place.control, timeout_seconds=CALL_SECONDS, key=place.key) as client:
            # It fails at once if there is no engine.
            self._take(Status(client.call("status")))
            # Lists of many sessions take their time.
            patient = Client(place.control, timeout_seconds=PATIENT_SECONDS, key=place.key)
            try:
                subscriber = Subscriber(place.events, [SESSIONS, *TOPICS], key=place.key)
            except BaseException:
                patient.close()
                raise
            with Joined(patient, subscriber) as joined:
                self._take(Changes(joined.poll(0.0)))
                self._take(History(patient.call("history", limit=HISTORY_LIMIT)))
                self._read(client, patient, joined)

    def _read(self, client: Client, patient: Client, joined: Joined) -> None:
        asks_at = lists_at = 0.0
        while not self._stopped.is_set():
            changes = joined.poll(POLL_SECONDS)
            if changes:
                self._take(Changes(changes))
            now = monotonic()
            if now >= asks_at:
                self._take(Status(client.call("status")))
                self._take_metrics(client)
                # At a steady pace, but not after a pause for all the times missed.
                asks_at = max(asks_at + STATUS_SECONDS, now)
            if self.is_listing and now >= lists_at:
                began = monotonic()
                self._take(Listing(patient.call("sessions", limit=LISTING_LIMIT)["sessions"]))
                took = monotonic() - began
                lists_at = monotonic() + max(LISTING_SECONDS, took / LISTING_SHARE)

    def _take_metrics(self, client: Client) -> None:
        try:
            self._take(Metrics(client.call("metrics")))
        except EngineError as error:
            # An engine of an earlier version has no such command: its rates stay unknown.
            if error.code != METHOD_NOT_FOUND:
                raise
