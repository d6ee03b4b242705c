"""The engine: its parts and how they are joined, its start, its end, and the changes in between.

Everything in this process runs on one loop and never blocks. Each part knows one thing and is handed the parts it uses;
none knows the engine.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from rlpx.engine.departures import Departures
from rlpx.engine.ends import Ends
from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import start_process
from rlpx.engine.fleet.worker_config import node_config, worker_settings
from rlpx.engine.hub.access import Access
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.hub.command_server import CommandServer
from rlpx.engine.hub.data_endpoints import DataEndpoints
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.hub.registry import Registry
from rlpx.engine.hub.tally import Tally
from rlpx.engine.intake.accepts import Accepts
from rlpx.engine.intake.dials import Dials
from rlpx.engine.intake.listener import Listener, ListeningSocket
from rlpx.engine.intake.room import Room
from rlpx.engine.ledger.addresses import address_of
from rlpx.engine.ledger.counter import Phase
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.minutes import Minutes
from rlpx.engine.node import Node
from rlpx.engine.operations.handlers import Handlers
from rlpx.engine.operations.metrics import MetricsCommands
from rlpx.engine.operations.node import NodeCommands
from rlpx.engine.operations.peers import PeerCommands
from rlpx.engine.operations.running import RunningCommands
from rlpx.engine.operations.sending import SendingCommands
from rlpx.engine.operations.sessions import SessionCommands
from rlpx.engine.operations.status import Parts, StatusCommands
from rlpx.engine.operations.targets import Targets
from rlpx.engine.operations.workers import WorkerCommands
from rlpx.engine.process import logs
from rlpx.engine.process.companion import Companion
from rlpx.engine.process.extras import require
from rlpx.engine.process.journal import Journal
from rlpx.engine.process.own import OwnProcess
from rlpx.engine.process.spawn import StartProcess
from rlpx.engine.session_reports import SessionReports
from rlpx.engine.settings.addresses import resolve
from rlpx.engine.settings.fields import live_sections
from rlpx.engine.settings.identity import Identity
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import Settings
from rlpx.engine.succession import Succession
from rlpx.engine.vacancies import Vacancies
from rlpx.engine.verdicts import Verdicts
from rlpx.engine.worker_reports import WorkerReports
from rlpx.engine.worker_states import WorkerStates
from rlpx.protocol.bus import control
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.events import ENGINE_RELOADED, ENGINE_STARTED, EngineReloaded, EngineRun
from rlpx.protocol.bus.records import Configure
from rlpx.protocol.bus.values import Level
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction, EndedBy
from rlpx.protocol.mistakes import ConfigError, bind_error
from rlpx.protocol.rlpx.host_port import parse_host_port

if TYPE_CHECKING:
    # Loaded only by a host of a fleet.
    from rlpx.engine.cluster.membership import ClusterMembership

# The bytes of a random number that no two starts share.
RUN_BYTES: Final = 8
# Workers have this long beyond the goodbyes' own deadline to report and end.
STOP_GRACE_SECONDS: Final = 3.0

log = structlog.get_logger()


class Engine:
    """See the module. `start`, then `wait`; `stop` from a signal or a command ends it, and `close` cleans up."""

    def __init__(self, settings: Settings, identity: Identity, run_dir: RunDir, start: StartProcess = start_process) -> None:
        self._loop = asyncio.get_running_loop()
        self._second_timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self.has_failed = False
        self.settings = settings
        self.run_dir = run_dir
        # Names this start, so that session numbers of two starts are never mixed.
        self.run = os.urandom(RUN_BYTES).hex()
        self.process = OwnProcess()
        self.journal = Journal()
        self.node = Node(settings, identity)
        self.ledger = Ledger(settings, identity.key.id)
        self._data = DataEndpoints(settings.data.endpoint)
        self.fleet = Fleet(self._configure, self.ledger.counter.load, start, self._data.listening)

        self.clockwork = Clockwork(self._loop, monotonic, self.process.descriptors.has_room)
        self._access = Access(None)
        self.commands = CommandServer(run_dir, settings.control, self.clockwork)
        self.events = EventsHub(self.run, settings.events, self.clockwork, self.fleet.tell_all)
        self._tally = Tally()
        self._announcer = Announcer(self.events, self.journal, self._tally, logs_sessions=settings.log.level == "debug")

        room = Room(self.ledger, self.fleet)
        self._verdicts = Verdicts(self.ledger, self.fleet, room, self._announcer)
        self.accepts = Accepts(self.ledger, self.fleet, room, self._announcer)
        self.dials = Dials(self.ledger, self.fleet, self._announcer)
        self._vacancies = Vacancies(self._verdicts, self.accepts, self.dials)
        self._ends = Ends(self.ledger, self._verdicts, self.dials, self._vacancies, self._announcer)
        self.dials.owner = self._ends
        sessions = SessionReports(self.ledger, self._verdicts, self.dials, self._ends, self._vacancies)
        states = WorkerStates(self.fleet, self._data, self.node, self.accepts, self._announcer)
        self.fleet.on_forgotten = self._forget_worker
        self.fleet.owner = WorkerReports(sessions, states, self.fleet, self.events, self._announcer)

        timeouts = settings.timeouts
        departures = Departures(self.fleet, self.ledger, self.dials, self._announcer, timeouts.goodbye_s)
        self.succession = Succession(self.fleet, departures, self.accepts.update_listener, timeouts.worker_drain_s)

        self._minutes = Minutes(self.ledger, self.fleet, self._tally, self.journal, now=monotonic())
        self._minutes.is_on = settings.log.summary
        self.watch = watch_companion(settings, run_dir)
        targets = Targets(self.ledger, self.fleet, self.dials)
        parts = Parts(
            settings=settings,
            run_dir=run_dir,
            process=self.process,
            node=self.node,
            ledger=self.ledger,
            fleet=self.fleet,
            control=self.commands.endpoint,
            events=self.events,
            data=self._data,
            departures=departures,
            succession=self.succession,
            watch=self.watch,
        )
        self.handlers = Handlers(
            StatusCommands(parts),
            MetricsCommands(parts, self._tally),
            RunningCommands(self.ledger, self._vacancies, self.set_log_level, self.stop),
            NodeCommands(self.node, self.fleet),
            SessionCommands(targets, self.ledger, self.fleet, self.dials, self.events),
            SendingCommands(targets, self.fleet, settings.queues),
            PeerCommands(targets, self.ledger, self.dials),
            WorkerCommands(self.succession, self._settings_in_force),
        )
        self._cluster = self._member_of_fleet() if settings.cluster else None

    def _member_of_fleet(self) -> ClusterMembership:
        """Make this host a member of its fleet, which decides with it about places, peers and dials."""
        from rlpx.engine.cluster import membership  # noqa: PLC0415 - a host alone loads nothing of NATS

        chain = self.node.identity.chain
        parts = membership.Parts(
            chain=f"network {chain.network_id} with genesis 0x{chain.genesis.hex()}",
            settings=self.settings,
            run_dir=self.run_dir,
            events=self.events,
            ledger=self.ledger,
            fleet=self.fleet,
            verdicts=self._verdicts,
            fail=self._fail,
        )
        member = membership.ClusterMembership(parts, membership.host_name(self.settings.cluster_host), self.run)
        self.ledger.membership = member
        return member

    def _fail(self, cause: str) -> None:
        """End the engine, because it cannot go on."""
        self.has_failed = True
        self.stop()
        log.error("the engine cannot go on", cause=cause)

    # -- life -------------------------------------------------------------------------------------------------------------

    async def start(self, listening: ListeningSocket | None) -> None:
        """Bind the endpoints, start the workers, then accept. Raises `ConfigError`, `OSError` and `RuntimeError`."""
        if listening is not None:
            self.node.listens_at(*listening.getsockname()[:2])
            listener = Listener(listening, self._loop, self.accepts)
            listener.ceiling = self.process.descriptors.ceiling
            self.accepts.listen(listener)
        if self.watch is not None:
            listen_companion(self.watch, self.settings.watch)
        self._access = Access.of(self.settings)
        registry = Registry(self.node.identity.version, self.handlers)
        self._tally.commands = registry.calls
        self.commands.start(registry, self._access.security("control"))
        self.events.start(self.run_dir, self._access.security("events"))
        self._data.start(self.settings.workers, self._access)
        if self._cluster is not None:
            await self._cluster.start(registry, Registry(self.node.identity.version, self.handlers))
        await self.fleet.start(self.settings.workers)
        self.accepts.update_listener()
        self._on_second(self._loop.time())
        if self.watch is not None:
            self.watch.start()
        self._announcer.publish(ENGINE_STARTED, EngineRun(time_ns() // 1000, None, None, self.run))

    async def wait(self) -> None:
        """Return when the engine is stopped."""
        await self._stopping.wait()

    def stop(self) -> None:
        """Begin the end: stop accepting and dialling. A second call is harmless."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.accepts.stop()
        self.dials.stop()
        self.succession.stop()
        log.info("ending: goodbyes first")

    async def close(self) -> None:
        """Say goodbye to every peer, end the workers, then close the sockets."""
        self.stop()
        if self._second_timer is not None:
            self._second_timer.cancel()
        drain = control.Drain(DisconnectReason.CLIENT_QUITTING, "the engine is shutting down")
        await self.fleet.retire(drain, self.settings.timeouts.goodbye_s + STOP_GRACE_SECONDS)
        self._ends.end_all(EndedBy.ENGINE, "the engine has ended")
        # The fleet's stream has it as well.
        self.events.say_stopped()
        if self._cluster is not None:
            await self._cluster.close()
        if self.watch is not None:
            await self.watch.close()
        await self.commands.close()
        await self.events.close()
        self._data.close()
        self.process.close()

    def kill(self) -> None:
        """End the workers without their goodbyes."""
        self.fleet.kill()

    def on_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log the fault of ours that made a callback fail, and end the engine: the ledger may be wrong now."""
        self.has_failed = True
        self.stop()
        log.error(context["message"], exc_info=context.get("exception"))

    def _on_second(self, due: float) -> None:
        """Once a second: replace stuck workers, end connections that have lost their right, and dial peers that are due."""
        self._tally.loop_lag.observe(max(0.0, self._loop.time() - due))
        self.fleet.end_stuck(due)
        self._vacancies.offer()
        self._access.end_revoked(self.commands.endpoint, "control")
        self._access.end_revoked(self.events.endpoint, "events")
        if self._data.have_users_changed():
            self.fleet.tell_all(self._data.users)
        self.events.remind()
        self.dials.dial_due_soon()
        if not self._stopping.is_set():
            next_due = self._loop.time() + 1.0
            self._second_timer = self._loop.call_at(next_due, self._on_second, next_due)
        self.journal.on_second()
        self._minutes.on_second(monotonic())

    # -- its state ---------------------------------------------------------------------------------------------------------

    @property
    def is_healthy(self) -> bool:
        """Whether every worker is up and has reported lately."""
        return self.fleet.is_healthy

    @property
    def summary(self) -> str:
        """One line about sessions and workers."""
        counter = self.ledger.counter
        active, pending = (sum(counter.count(phase, way) for way in Direction) for phase in (Phase.ACTIVE, Phase.PENDING))
        serving = self.fleet.serving
        ready = sum(worker.is_ready for worker in serving)
        return f"{active} active and {pending} pending sessions, {ready} of {len(serving)} workers"

    # -- what may change while it runs --------------------------------------------------------------------------------------

    def reload(self, settings: Settings) -> list[str]:
        """Use the sections that can change while the engine runs. Returns the keys that need a restart."""
        live = live_sections()
        kept = {name: getattr(self.settings, name) for name in Settings.__struct_fields__ if name not in live}
        changed = [name for name, value in kept.items() if getattr(settings, name) != value]
        self.settings = msgspec.structs.replace(settings, **kept)
        self._announcer.logs_sessions = self.settings.log.level == "debug"
        self._minutes.is_on = self.settings.log.summary
        self.ledger.configure(self.settings)
        self._end_denied()
        self._vacancies.on_rules_changed()
        self._announcer.publish(ENGINE_RELOADED, EngineReloaded(time_ns() // 1000, changed))
        return changed

    def _end_denied(self) -> None:
        """Politely end the sessions, handshakes and dials in progress that the lists of addresses no longer admit."""
        for view in list(self.ledger.views.values()):
            # A dial by host name has no address before it is connected; it is checked then.
            address = address_of(view.remote)
            cause = None if address is None else self.ledger.admission.refuse_address(address)
            if cause is not None:
                reason = DisconnectReason.DISCONNECT_REQUESTED
                self.fleet.tell(view.worker, control.DisconnectSession(view.session, reason, cause))

    def restart_workers(self) -> None:
        """Replace all workers one by one, as on SIGUSR2. Logs the reason if that cannot be done now."""
        try:
            self.succession.restart()
        except CommandError as error:
            log.warning("the workers are not replaced", cause=str(error))

    def _settings_in_force(self) -> Settings:
        return msgspec.structs.replace(self.settings, limits=self.ledger.counter.limits)

    def _forget_worker(self, worker: WorkerId) -> None:
        """No worker has this number any more, so nobody is to connect to its sockets."""
        self._data.release(worker)
        with suppress(OSError):
            self.run_dir.socket(f"worker-{worker}").unlink(missing_ok=True)

    def set_log_level(self, level: Level) -> Level:
        """Write log lines of this level and above; returns the level before."""
        before = self.settings.log.level
        self.settings = msgspec.structs.replace(self.settings, log=msgspec.structs.replace(self.settings.log, level=level))
        self._announcer.logs_sessions = level == "debug"
        logs.configure(self.settings.log)
        return before

    def _configure(self, worker: WorkerId) -> Configure:
        return Configure(
            worker=worker,
            run=self.run,
            node=node_config(self.settings, self.node.identity, self.node.listen_port),
            protocols=self.node.protocols.offered,
            required=self.node.protocols.required,
            chain=self.node.identity.chain,
            head=self.node.head,
            is_head_known=self.node.is_head_known,
            settings=worker_settings(self.settings),
            data_path=str(self.run_dir.socket(f"worker-{worker}")),
            data_keys=self._data.keys,
        )


def listen(address: str) -> ListeningSocket | None:
    """The listening socket of the `listen` setting, or none if that is empty. Raises `OSError`."""
    if not address:
        return None
    host, port = parse_host_port(address)
    return Listener.bind(resolve(host), port)


def watch_companion(settings: Settings, run_dir: RunDir) -> Companion | None:
    """`rlpx-watch` beside the engine, or none if the setting `watch` is empty."""
    if not settings.watch:
        return None
    arguments = ["--run-dir", str(run_dir.path.absolute())]
    arguments += ["--control"] if settings.watch_control else []
    for name in settings.watch_host_names:
        arguments += ["--host-name", name]
    return Companion("rlpx-watch", "rlpx.engine.watch.beside", arguments)


def listen_companion(companion: Companion, address: str) -> None:
    """Bind the socket of `rlpx-watch`, whose libraries must be there. Raises `ConfigError`."""
    try:
        require("watch")
    except ConfigError as error:
        raise ConfigError(f"watch: {error}", error.exit_code) from error
    try:
        host, port = parse_host_port(address)
        companion.listen(resolve(host), port)
    except OSError as error:
        raise bind_error(f"watch: {address}", error) from error
