"""The membership of this host in its fleet: it drives the state machine of `rlpx.protocol.cluster` with NATS and the engine.

What the machine decides about sessions is carried out by the engine's own parts: the ledger's counter, the verdicts, the
workers. What it asks of the store goes to the bucket, and answers come back at some later time.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from time import time_ns
from typing import Any, Final
from urllib.parse import urlparse

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from rlpx.engine.client.complaints import Complaints
from rlpx.engine.client.nats_servers import RETRY_SECONDS, NatsUnavailableError, Servers, connect, failure, is_refusal
from rlpx.engine.cluster.figures import Figures
from rlpx.engine.cluster.kv import KvStore
from rlpx.engine.cluster.lifecycle import LifecycleStream, Spool
from rlpx.engine.cluster.own_engine import OwnEngine
from rlpx.engine.cluster.pages import read_page
from rlpx.engine.cluster.questions import Questions
from rlpx.engine.cluster.service import CommandService
from rlpx.engine.cluster.shared import SHARED, SharedCommands
from rlpx.engine.cluster.traffic import Traffic
from rlpx.engine.cluster.wire import Wire
from rlpx.engine.fleet.fleet import Fleet as Workers
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.hub.registry import Registry
from rlpx.engine.ledger.counter import Leased, Refusal
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import Settings
from rlpx.engine.verdicts import Verdicts
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.metrics import FleetMetrics
from rlpx.protocol.bus.nats_wire import NatsWireError
from rlpx.protocol.bus.results import FleetStatus
from rlpx.protocol.cluster.hosts import Me
from rlpx.protocol.cluster.member import Asked, Member, Setup
from rlpx.protocol.cluster.records import FLEET, Fleet
from rlpx.protocol.cluster.steps import (
    Admitted,
    Answer,
    EndSession,
    Erase,
    HostLost,
    Joined,
    NameTaken,
    Outcome,
    PlacesChanged,
    Put,
    Read,
    Refused,
    Returned,
    Scan,
    Step,
    StoreLost,
)
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.mistakes import ConfigError

TICK_SECONDS: Final = 0.25
# A host that has ended a moment ago under the same name may still count as there for its time to live.
JOIN_SECONDS: Final = 25.0
# A session that ends with the host gives its claim back within this time, or the claim is void with the host.
LEAVE_SECONDS: Final = 2.0
# The claims of sessions that end are erased together, once in this time. Another host admits their peers as much later.
ERASE_SECONDS: Final = 0.01
# A static peer that another host has is not dialled for this long.
ELSEWHERE_SECONDS: Final = 60.0
# A connection that is lost while we were stopped ourselves may be back at once; before that is known, nobody is let in.
RETURN_SECONDS: Final = 2.0

_WAYS: Final = tuple(Direction)

log = structlog.get_logger()


def host_name(given: str) -> str:
    """The name of this host in the fleet: the given one, or that of the machine in letters that a key may have."""
    return given or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64] or "host"


def now() -> float:
    """A clock that nobody sets, and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


async def _prepare(prepare: Callable[[], Awaitable[object]]) -> None:
    """Prepare something at the servers. Those that have just started need a while. Raises `ConfigError`."""
    end = now() + JOIN_SECONDS
    while True:
        try:
            await prepare()
        except (nats.errors.Error, NatsWireError, OSError) as error:
            if now() < end:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            problem = f"the servers do not offer what a fleet needs, which is JetStream of nats-server 2.11: {error}"
            if is_refusal(error):
                problem = failure("JetStream", error)
            raise ConfigError(f"cluster: {problem}", os.EX_UNAVAILABLE) from error
        return


def _warn(problem: str) -> None:
    """Say that a permission is missing, or what else is wrong with the connection."""
    log.warning("the NATS server complains", cause=problem)


class Parts(msgspec.Struct, frozen=True):
    """The parts of the engine that the fleet's decisions concern. `fail` ends the engine with a cause."""

    chain: str
    settings: Settings
    run_dir: RunDir
    events: EventsHub
    ledger: Ledger
    fleet: Workers
    verdicts: Verdicts
    fail: Callable[[str], None]


class _Begun(msgspec.Struct, frozen=True, gc=False):
    """A session that has a place, with the time at which its peer was proved, in microseconds since 1970."""

    session: SessionId
    peer: bytes
    asked: Asked
    since_us: int


class ClusterMembership:
    """See the module. It is the engine's `Membership`, and the owner of the store."""

    def __init__(self, parts: Parts, host: str, epoch: str) -> None:
        settings = parts.settings
        self.host = host
        self._parts = parts
        self._counter = parts.ledger.counter
        self._leased = self._counter.leased = {way: Leased() for way in Direction}
        limits = {
            Direction.INBOUND: settings.limits.max_active_inbound,
            Direction.OUTBOUND: settings.limits.max_active_outbound,
        }
        lets_in = settings.cluster_when_away == "open"
        self.member = Member(Setup(Me(host, epoch), limits, lets_in, node=parts.ledger.own_id.hex(), chain=parts.chain))
        self._figures = Figures(settings.cluster_name, self.member)
        self._servers = Servers.named(settings.cluster, settings.cluster_creds)
        self._loop = asyncio.get_running_loop()
        self.client: Client | None = None
        self._wire = Wire(f"rlpx {host}", self._servers.credentials, self._on_wire_lost)
        self._refusals = Complaints(_warn)
        # Somebody may go on erasing our heartbeat.
        self._losses = Complaints(log.warning)
        self._store: KvStore | None = None
        self._shared: SharedCommands | None = None
        self._service: CommandService | None = None
        self._lives: LifecycleStream | None = None
        self._own_engine: OwnEngine | None = None
        self._traffic: Traffic | None = None
        self._questions: Questions | None = None
        self._joined = asyncio.Event()
        self._name_is_taken = False
        self._is_draining = False
        self._is_closed = False
        self._is_returning = False
        self._restoring: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Peers whose claim was refused, and until when they are not dialled again.
        self._fleet: Fleet | None = None
        self._elsewhere: dict[bytes, float] = {}
        self._peers: dict[SessionId, bytes] = {}
        self._hungry_until: dict[Direction, float] = {}
        # What the machine is told soon: sessions that begin, and those that have ended, whose peers may come again.
        self._begun: list[_Begun] = []
        self._is_due = False
        self._ended: dict[SessionId, bytes] = {}
        self._leaving: set[bytes] = set()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Scan: self._on_scan,
            Refused: self._on_refused,
            EndSession: self._on_end,
            PlacesChanged: self._on_places,
            HostLost: self._on_host_lost,
            Returned: self._on_returned,
            StoreLost: self._on_store_lost,
            Joined: self._on_joined,
            NameTaken: self._on_name_taken,
        }

    # -- life ---------------------------------------------------------------------------------------------------------------

    async def start(self, registry: Registry, echoes: Registry) -> None:
        """Join the fleet. Raises `ConfigError` if no server answers or the name is taken.

        `registry` carries out users' commands; those that concern the whole fleet are shared, and `echoes` carries out
        those that other hosts share.
        """
        name, servers = self._parts.settings.cluster_name, len(self._servers.urls)
        try:
            self.client = await connect(
                self._servers, f"rlpx {self.host}", on_lost=self._on_lost, on_back=self._on_back, on_problem=_warn
            )
        except NatsUnavailableError as error:
            raise ConfigError(f"cluster: {error}", os.EX_UNAVAILABLE) from error
        self._store = store = KvStore(self.client, self._wire, name, self, now)
        self._handlers |= dict.fromkeys((Put, Erase, Read), store.send)
        self._shared = SharedCommands(self.client, name, self.host, echoes)
        spool = Spool(self._parts.run_dir.path / f"lifecycle-{name}.spool")
        self._lives = lives = LifecycleStream(self.client, self._wire, name, self.host, spool)
        await _prepare(self._connect_wire)
        await _prepare(lambda: store.restore(servers, self._watched))
        store.check()
        await self._join()
        self._check_others()
        await _prepare(lambda: lives.start(self._parts.events, servers))
        self._service = CommandService(self.client, name, self.host, registry)
        await _prepare(self._service.start)
        self._own_engine = OwnEngine(self._parts.run_dir.endpoint("control"))
        self._traffic = traffic = Traffic(self.client, (name, self.host), self._parts.events, self._own_engine)
        await _prepare(traffic.start)
        answer_seconds = self._parts.settings.responders.answer_s
        self._questions = Questions(self.client, (name, self.host), self._own_engine, answer_seconds)
        await _prepare(self._questions.start)
        self._figures.lives, self._figures.outlet = lives, traffic.outlet
        registry.on_done = self._shared.on_done
        log.info("joined the fleet", fleet=name, host=self.host)

    async def _join(self) -> None:
        """Become a host of the fleet. Raises `ConfigError`."""
        self.member.on_connected(now())
        self._carry_out()
        self._tick()
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await self._joined.wait()
        except TimeoutError as error:
            raise ConfigError("cluster: the store of the fleet does not answer (JetStream)", os.EX_UNAVAILABLE) from error
        if self._name_is_taken:
            raise ConfigError(f"cluster_host: the fleet has a host named {self.host} already; give this one another name")

    def _check_others(self) -> None:
        """See that the hosts are on one chain, and have one node key, or each its own, as the user says.

        Raises `ConfigError`.
        """
        own, chain = self.member.setup.node, self._parts.chain
        is_shared = self._parts.settings.cluster_identity == "shared"
        for host, beat in self.member.hosts.alive(now()).items():
            if beat.chain and beat.chain != chain:
                raise ConfigError(
                    f"cluster_name: host {host} is on {beat.chain}, and this one on {chain}; a fleet has one chain"
                )
            if is_shared and beat.node != own:
                raise ConfigError(
                    f"cluster_identity: shared, but host {host} has another node key; copy the file of one host"
                )
            if not is_shared and beat.node == own:
                log.warning("another host has the same node key: a peer keeps a session with one of them", host=host)

    async def close(self) -> None:
        """Leave the fleet. The sessions have ended; wait a little until their claims are given back."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._store is None or self.client is None:
            return
        if self._service is not None:
            await self._service.close()
        if self._shared is not None:
            self._shared.close()
        if self._traffic is not None:
            self._traffic.close()
        if self._questions is not None:
            self._questions.close()
        if self._own_engine is not None:
            await self._own_engine.close()
        if self._lives is not None:
            await self._lives.close(LEAVE_SECONDS)
        self._tell_ended()
        await self._await_answers()
        self.member.leave(now())
        self._carry_out()
        await self._await_answers()
        for task in self._tasks:
            task.cancel()
        await self._store.close()
        self._wire.close()
        with suppress(Exception):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.client.close()

    async def _await_answers(self) -> None:
        end = now() + LEAVE_SECONDS
        while self._store is not None and self._store.open_calls and now() < end:
            await asyncio.sleep(0.02)
            self._store.tick()

    @property
    def _kv(self) -> KvStore:
        """The store, which there is from the start on."""
        if self._store is None:
            raise RuntimeError("the membership has not started")
        return self._store

    @property
    def _watched(self) -> tuple[str, ...]:
        return "host.*", "places.>", FLEET, f"note.{self.host}.*", f"{SHARED}>"

    def _on_lost(self) -> None:
        """The connection is lost. If we were stopped ourselves, and may have been given up, see first if it comes back."""
        self._wire.close()
        if self.member.hosts.is_firm(now()):
            self._act(self.member.on_disconnected)
        elif not self._is_returning:
            self._is_returning = True
            self._loop.call_later(RETURN_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._is_returning = False
        if not self._wire.is_up:
            self._act(self.member.on_disconnected)

    def _on_wire_lost(self) -> None:
        """The second connection is lost. If the first one is not, begin again as if both were."""
        self._on_lost()
        self._on_back()

    def _on_back(self) -> None:
        if self._restoring is None or self._restoring.done():
            self._restoring = self._spawn(self._restore())

    async def _restore(self) -> None:
        """The connection is there again: watch again, and make the bucket if the servers have lost it."""
        while self.client is not None and self.client.is_connected and not self._is_closed:
            try:
                await self._connect_wire()
                await self._watch_store()
            except (nats.errors.Error, NatsWireError, OSError) as error:
                self._on_store_failure(error)
            else:
                # The second connection may have been lost meanwhile, and nobody else makes it again.
                if self._wire.is_up:
                    self._act(self.member.on_connected)
                    return
            await asyncio.sleep(TICK_SECONDS)

    async def _connect_wire(self) -> None:
        """Connect to the server that nats-py is connected to. Raises `OSError`, `NatsWireError`."""
        url = None if self.client is None else self.client.connected_url
        if url is None:
            raise ConnectionResetError("the connection to NATS is lost")
        # A server that others have named by its address has the certificate of those that the user has named.
        names = [urlparse(named).hostname for named in self._servers.urls]
        await self._wire.connect(url, str(url.hostname if url.hostname in names else names[0]))

    def _tick(self) -> None:
        if self._is_closed:
            return
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._wire.tick()
        self._kv.tick()
        if self._traffic is not None:
            self._traffic.tick()
        if self._questions is not None:
            self._questions.tick()
        at = now()
        self._figures.look(at)
        for way in Direction:
            if self._counter.turned_away.pop(way, 0):
                self._hungry_until[way] = at + ELSEWHERE_SECONDS / 10
        self._act(self.member.tick)
        self._parts.verdicts.refuse_short(now=time.monotonic())
        if not self._kv.is_watching and self._wire.is_up and not self._tasks:
            self._spawn(self._watch_again())

    async def _watch_again(self) -> None:
        """The watch has ended without a word, as it does with the server that it was on, or if the store is deleted."""
        try:
            is_other = await self._watch_store()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            self._on_store_failure(error)
        else:
            if is_other and not self._is_closed:
                self._act(self.member.on_connected)

    async def _watch_store(self) -> bool:
        """Watch the store, and return whether it is another one than before, which then gets what hosts have shared."""
        is_other = await self._kv.restore(len(self._servers.urls), self._watched)
        if is_other and self._shared is not None:
            self._shared.on_store_lost()
        return is_other

    def _on_store_failure(self, error: Exception) -> None:
        """The store cannot be watched, which is tried again."""
        if is_refusal(error):
            self._refusals.hear(failure("the store", error))
        else:
            log.debug("the fleet's store is not there yet", cause=str(error))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- the engine's questions ---------------------------------------------------------------------------------------------

    def claim(self, session: SessionId, peer: bytes, direction: Direction, *, passes_limits: bool) -> None:
        """A session has a place here, and its peer is proved. Sessions of one loop iteration are claimed together."""
        if peer in self._leaving:
            self._tell_ended()
        self._peers[session] = peer
        self._figures.on_claim(session, now())
        self._begun.append(_Begun(session, peer, Asked(direction, passes_limits), time_ns() // 1000))
        self._tell_soon()

    def release(self, session: SessionId) -> None:
        """A session has ended."""
        peer = self._peers.pop(session, None)
        if peer is None:
            return
        self._figures.on_release(session)
        if not self._ended:
            self._loop.call_later(ERASE_SECONDS, self._tell_ended)
        self._ended[session] = peer
        self._leaving.add(peer)

    def want_place(self) -> None:
        """A session waits for a place."""
        self._tell_soon()

    def may_dial(self, peer: bytes) -> bool:
        """Whether a static peer is this host's to dial."""
        at = now()
        until = self._elsewhere.get(peer)
        if until is not None and until > at:
            return False
        self._elsewhere.pop(peer, None)
        return self.member.owner_of(peer, at) == self.host

    def set_limits(self, limits: Mapping[Direction, int]) -> None:
        """Change the limits of active sessions of the whole fleet."""
        if limits:
            self._act(lambda _at: self.member.set_limits(limits))

    def status(self) -> FleetStatus:
        """The membership at a glance."""
        return self._figures.status(now())

    def metrics(self) -> FleetMetrics:
        """The counters of the membership."""
        return self._figures.metrics(now())

    def _tell_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._tell_begun)

    def _tell_begun(self) -> None:
        self._is_due = False
        begun, self._begun = self._begun, []

        def claim(at: float) -> None:
            for new in begun:
                self.member.claim(new.session, new.peer, new.asked, since_us=new.since_us, now=at)

        self._act(claim)

    def _tell_ended(self) -> None:
        """Tell of the sessions that have ended, after those that have begun before."""
        if self._begun:
            self._tell_begun()
        ended, self._ended = self._ended, {}
        self._leaving.clear()

        def release(at: float) -> None:
            for session in ended:
                self.member.release(session, at)

        self._act(release)

    # -- the store's answers ------------------------------------------------------------------------------------------------

    def on_answers(self, answers: Sequence[Answer]) -> None:
        """The store has answered calls."""
        self._figures.lost_calls += sum(answer.outcome is Outcome.LOST for answer in answers)
        self._act(lambda at: self.member.on_answers(answers, at))

    def on_seen(self, key: str, revision: int, value: bytes | None) -> None:
        """A watched key has changed."""
        if key.startswith(SHARED):
            if self._shared is not None:
                self._shared.on_seen(key.removeprefix(SHARED), value)
            return
        self._act(lambda at: self.member.on_seen(key, revision, value, at))

    # -- steps --------------------------------------------------------------------------------------------------------------

    def _act(self, act: Callable[[float], None]) -> None:
        """Tell the machine what has happened, after the numbers of sessions, and carry out what it decides."""
        at = now()
        for way in _WAYS:
            places = self.member.places[way]
            used = self._counter.limited(way)
            waiting = self._parts.verdicts.short_of(way) or int(self._hungry_until.get(way, 0.0) > at)
            if (places.used, places.waiting) != (used, waiting):
                self.member.use(way, used, waiting, at)
        act(at)
        self._carry_out()
        if self.member.fleet is not self._fleet:
            self._on_limits()

    def _on_limits(self) -> None:
        """The fleet has other limits: commands show them as ours."""
        self._fleet = self.member.fleet
        if self._fleet is not None:
            limits = {f"max_active_{way}": limit for way, limit in self._fleet.limits.items()}
            self._counter.limits = msgspec.structs.replace(self._counter.limits, **limits)

    def _carry_out(self) -> None:
        if self._is_draining:
            return  # the outer call goes on with what there is
        self._is_draining = True
        try:
            while steps := self.member.take():
                self._take(steps)
        finally:
            self._is_draining = False
        self._wire.flush()

    def _take(self, steps: list[Step]) -> None:
        """Carry steps out in their order. Sessions that are admitted one after the other get their verdicts together."""
        admitted: list[SessionId] = []
        for step in steps:
            if type(step) is Admitted:
                admitted.append(SessionId(step.session))
                continue
            if admitted:
                self._on_admitted(admitted)
                admitted = []
            self._handlers[type(step)](step)
        if admitted:
            self._on_admitted(admitted)

    def _on_scan(self, scan: Scan) -> None:
        self._spawn(self._read_page(scan))

    async def _read_page(self, scan: Scan) -> None:
        if self.client is not None:
            answer = await read_page(self.client, self._parts.settings.cluster_name, scan)
            self._act(lambda at: self.member.on_answers((answer,), at))

    def _on_admitted(self, sessions: list[SessionId]) -> None:
        self._figures.on_verdicts(sessions, now())
        self._parts.verdicts.on_admitted(sessions)

    def _on_refused(self, step: Refused) -> None:
        session = SessionId(step.session)
        self._figures.on_verdicts([session], now())
        self._figures.refused_claims += 1
        self._note_elsewhere(session)
        self._parts.verdicts.on_refused(session, Refusal(step.reason, step.cause))

    def _on_end(self, step: EndSession) -> None:
        view = self._parts.ledger.views.get(SessionId(step.session))
        if view is not None:
            self._figures.ended_sessions += 1
            self._parts.fleet.tell(view.worker, control.DisconnectSession(view.session, step.reason, step.cause))

    def _on_places(self, step: PlacesChanged) -> None:
        self._leased[step.direction] = Leased(step.leased, step.elsewhere)
        self._parts.verdicts.on_places()

    def _on_host_lost(self, step: HostLost) -> None:
        if self._lives is not None:
            self._lives.host_lost(step.host, step.epoch, step.revision)

    def _on_returned(self, step: Returned) -> None:
        if self._lives is not None:
            self._lives.host_back(self.member.setup.me.epoch, step.revision)

    def _on_store_lost(self, _step: StoreLost) -> None:
        self._losses.hear("the fleet's store has lost what it had; this host writes again what it holds")
        if self._shared is not None:
            self._shared.on_store_lost()

    def _on_joined(self, _step: Joined) -> None:
        self._joined.set()

    def _on_name_taken(self, _step: NameTaken) -> None:
        if self._joined.is_set():
            self._parts.fail(f"another engine has joined the fleet under the name {self.host}")
        self._name_is_taken = True
        self._joined.set()

    def _note_elsewhere(self, session: SessionId) -> None:
        """Another host has the peer of a refused session. Only static peers are dialled again, so others need no note."""
        peer = self._peers.get(session)
        if peer is not None and self._parts.ledger.peers.is_static(peer):
            self._elsewhere[peer] = now() + ELSEWHERE_SECONDS
