"""A simulated peer and a real session as its target, in memory and on a clock of their own; and a fake transport."""

from __future__ import annotations

from rlpx.protocol.bus.swarm import Scenario
from rlpx.protocol.eth.forkid import Forks
from rlpx.protocol.eth.status import Head, LocalChain
from rlpx.protocol.session.events import Authenticated, Closed, Established, Event, MessageReceived
from rlpx.protocol.session.session import Session
from rlpx.workers.swarm.bodies import Bodies
from rlpx.workers.swarm.fault import peer_class
from rlpx.workers.swarm.peer import Hangup, Peer
from rlpx.workers.swarm.plan import PeerPlan
from rlpx.workers.swarm.world import Tally, World
from tests.pair import DEV, LISTENER, Clock

CHAIN = LocalChain(DEV.network_id, DEV.genesis, Forks(DEV), Head(1, b"\x01" * 32))


class Meeting:
    """`peer` dials `target`, which approves every peer; both tick together."""

    def __init__(self, plan: PeerPlan, scenario: Scenario, seed: int = 1) -> None:
        self.clock = Clock()
        now = self.clock.now
        self.tally = Tally()
        bodies = Bodies(scenario, seed)
        world = World(scenario, seed, CHAIN, LISTENER.key.id, 200, now, self.tally, bodies)
        self.peer: Peer = peer_class(plan.fault)(plan, world, now=now)
        self.target = Session(LISTENER.setup(), now=now)
        self.events: list[Event] = []

    def exchange(self) -> None:
        """Carry bytes both ways until both sides are quiet, and the end of either side as TCP does."""
        while True:
            now = self.clock.now
            said, heard = self.peer.data_to_send(), b""
            if said:
                self.take(self.target.receive(said, now=now))
            if self.peer.hangup is not None:
                cause = "reset" if self.peer.hangup is Hangup.RESET else "the peer closed the connection"
                self.peer.hangup = None
                self.take(self.target.connection_lost(cause))
            heard = self.target.data_to_send()
            if heard:
                self.peer.receive(heard, now=now)
            if not said and not heard:
                break
        if self.target.is_closed and self.peer.end is None:
            self.peer.lost(is_reset=False, now=self.clock.now)

    def passes(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass."""
        ends_at = self.clock.now + seconds
        while self.clock.now < ends_at:
            self.clock.passes(step)
            self.take(self.target.tick(now=self.clock.now))
            self.peer.tick(now=self.clock.now)
            self.exchange()

    def take(self, events: list[Event]) -> None:
        """Keep the target's events: it approves authenticated peers, and answers requests with nothing."""
        for event in events:
            self.events.append(event)
            if isinstance(event, Authenticated):
                self.take(self.target.approve(now=self.clock.now))
            elif isinstance(event, MessageReceived) and event.kind.answer is not None:
                self.target.answer(event, event.kind.empty_answer(event.request_id or 0, event.payload))

    @property
    def closed(self) -> Closed:
        """How the target's session ended."""
        return next(event for event in self.events if isinstance(event, Closed))

    @property
    def has_established(self) -> bool:
        """Whether the target established a session with the peer."""
        return any(isinstance(event, Established) for event in self.events)

    def received(self, name: str) -> list[MessageReceived]:
        """The messages of this name that the target received."""
        return [event for event in self.events if isinstance(event, MessageReceived) and event.kind.name == name]


class FakeSocket:
    """Keeps the options that are set."""

    def __init__(self) -> None:
        self.options: dict[tuple[int, int], bytes] = {}

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.options[level, option] = value


class FakeTransport:
    """Keeps what is written, and what is done to it."""

    def __init__(self) -> None:
        self.written = b""
        self.socket = FakeSocket()
        self.is_reading = True
        self.has_eof = False
        self.is_aborted = False

    def get_extra_info(self, name: str) -> FakeSocket:
        assert name == "socket"
        return self.socket

    def write(self, data: bytes) -> None:
        assert data
        assert not self.has_eof, "nothing may be written behind the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.has_eof
        self.has_eof = True

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True
