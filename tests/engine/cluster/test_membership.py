"""The membership between a store, an engine and a clock that the test has in hand; no server and no process is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import msgspec
import pytest
import structlog.testing

from rlpx.engine.cluster import membership as module
from rlpx.engine.cluster.kv import CALL_SECONDS
from rlpx.engine.cluster.membership import ERASE_SECONDS, TICK_SECONDS, ClusterMembership, Parts
from rlpx.engine.ledger.counter import Refusal, SessionCounter
from rlpx.engine.settings.settings import LimitSettings, Settings
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.cluster.records import FLEET, Claim, Fleet, Heartbeat, encode, host_key, peer_key
from rlpx.protocol.cluster.steps import Answer, Call, Erase, Outcome, Put, Read, Scan
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.mistakes import ConfigError

IN = Direction.INBOUND
ONE, TWO, THREE = (SessionId(number) for number in (1, 2, 3))
PEER, OTHER = b"\x01" * 64, b"\x02" * 64
OWN_ID = bytes(64)
LIMIT = 10


class FakeStore:
    """The bucket in a dictionary. Calls are answered in the next loop iteration, or wait in `calls` while it `holds`."""

    def __init__(self, world: World, owner: ClusterMembership) -> None:
        self._world = world
        self.owner = owner
        self._loop = asyncio.get_running_loop()
        self.calls: list[Call] = []
        self.holds = False
        self.is_watching = True
        # What each look for the bucket raises, and whether it finds another one than before.
        self.failures: list[Exception] = []
        self.is_other = False
        self.restored = 0
        # What happens while the store is looked for.
        self.on_restore: list[Callable[[], None]] = []
        self.is_closed = False

    async def restore(self, _servers: int, _keys: tuple[str, ...]) -> bool:
        self.restored += 1
        if self.on_restore:
            self.on_restore.pop()()
        if self.failures:
            raise self.failures.pop(0)
        self.is_watching = True
        is_other, self.is_other = self.is_other, False
        return is_other

    def check(self) -> None:
        """It serves."""

    async def close(self) -> None:
        self.is_closed = True

    def tick(self) -> None:
        """Calls are lost only if the test says so."""

    @property
    def open_calls(self) -> int:
        return len(self.calls)

    def send(self, call: Call) -> None:
        self.calls.append(call)
        if not self.holds:
            self._loop.call_soon(self.answer, call)

    def answer(self, *calls: Call) -> None:
        """Answer these calls, in this order and at once."""
        for call in calls:
            self.calls.remove(call)
        self.owner.on_answers([self._world.carry_out(call) for call in calls])

    def lose(self, *calls: Call) -> None:
        for call in calls:
            self.calls.remove(call)
        self.owner.on_answers([Answer(call.call, Outcome.LOST) for call in calls])

    def held(self, kind: type, key: str) -> Call:
        """The call of this kind that waits for its answer."""
        (call,) = [call for call in self.calls if isinstance(call, kind) and call.key == key]
        return call


class World:
    """What is around a membership: the store's keys, the engine's parts, and what they are told."""

    def __init__(self, run_dir: Path) -> None:
        self.keys: dict[str, tuple[int, bytes]] = {}
        self.revision = 0
        self.admitted: list[SessionId] = []
        self.refused: dict[SessionId, Refusal] = {}
        self.failures: list[str] = []
        self.counter = SessionCounter(LimitSettings(max_active_inbound=LIMIT), OWN_ID)
        self.settings = Settings(cluster="nats://a,b", cluster_name="test", cluster_host="a")
        self.run_dir = run_dir
        self.client = SimpleNamespace(is_connected=True, connected_url=urlparse("nats://a:4222"), close=_nothing)
        self.on_lost: Callable[[], None] = lambda: None
        self.on_back: Callable[[], None] = lambda: None
        self.statics: set[bytes] = set()

    # -- the store ----------------------------------------------------------------------------------------------------------

    def put(self, key: str, record: msgspec.Struct) -> None:
        self.revision += 1
        self.keys[key] = self.revision, encode(record)

    def carry_out(self, call: Call) -> Answer:
        revision, value = self.keys.get(call.key, (0, None))
        if isinstance(call, Read):
            return Answer(call.call, Outcome.DONE, revision, value)
        if revision != call.expected:
            return Answer(call.call, Outcome.CONFLICT, revision, value)
        self.revision += 1
        if isinstance(call, Put):
            self.keys[call.key] = self.revision, call.value
        else:
            del self.keys[call.key]
        return Answer(call.call, Outcome.DONE, self.revision)

    def claimed(self) -> set[bytes]:
        """The peers of which the store has a claim."""
        return {bytes.fromhex(key.removeprefix("peer.")) for key in self.keys if key.startswith("peer.")}

    # -- the engine ---------------------------------------------------------------------------------------------------------

    def parts(self) -> Parts:
        peers = SimpleNamespace(is_static=self.statics.__contains__)
        fakes: dict[str, Any] = {
            "run_dir": SimpleNamespace(path=self.run_dir, endpoint=lambda name: f"ipc://{name}"),
            "events": SimpleNamespace(),
            "ledger": SimpleNamespace(counter=self.counter, own_id=OWN_ID, views={}, peers=peers),
            "fleet": SimpleNamespace(),
            "verdicts": SimpleNamespace(
                short_of=lambda _way: 0,
                refuse_short=lambda now: None,  # noqa: ARG005 - its name is that of the argument
                on_places=lambda: None,
                on_admitted=self.admitted.extend,
                on_refused=self.refused.__setitem__,
            ),
        }
        return Parts(chain="chain", settings=self.settings, fail=self.failures.append, **fakes)

    # -- the connections ----------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """The connection to NATS is lost."""
        self.client.is_connected = False
        self.on_lost()

    def come_back(self) -> None:
        """NATS can be reached again."""
        self.client.is_connected = True
        self.on_back()

    async def connect(self, *_: object, **given: Any) -> SimpleNamespace:
        self.on_lost, self.on_back = given["on_lost"], given["on_back"]
        return self.client


async def _no_page(_client: object, _bucket: str, call: Scan) -> Answer:
    """What dead hosts have left is not swept here."""
    return Answer(call.call, Outcome.LOST)


async def _nothing(*_: object) -> None:
    """A part that has nothing to do here."""


class FakeWire:
    """The second connection, which is up after `connect`."""

    def __init__(self, *_: object) -> None:
        self.is_up = False

    async def connect(self, *_: object) -> None:
        self.is_up = True

    def close(self) -> None:
        self.is_up = False

    def tick(self) -> None:
        """The server is there."""

    def flush(self) -> None:
        """What was sent is with the store already."""


class FakePart:
    """A part that serves programs and users, which are not there."""

    def __init__(self, *_: object) -> None:
        self.outlet = None
        self.start = _nothing
        # What the figures ask of the lives.
        self.waiting_events = self.lost_events = self.published_events = 0
        self.spool = SimpleNamespace(size_bytes=0, max_bytes=1)

    def close(self, *_: object) -> Any:
        """Some parts are waited for."""
        return _nothing()

    def tick(self) -> None:
        """Nothing is due."""

    def on_done(self, *_: object) -> None:
        """No command is shared."""

    def on_store_lost(self) -> None:
        """Nothing was shared."""

    def host_lost(self, *_: object) -> None:
        """The other host is never heard again."""

    def host_back(self, *_: object) -> None:
        """This host was away for long."""


class QuickPart(FakePart):
    """One whose end is not waited for."""

    def close(self, *_: object) -> None:
        """It has nothing open."""


@asynccontextmanager
async def joined(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ClusterMembership, FakeStore]]:
    """A host of the fleet."""
    stores: list[FakeStore] = []

    def make_store(_client: object, _wire: object, _name: str, owner: ClusterMembership, _now: object) -> FakeStore:
        stores.append(FakeStore(world, owner))
        return stores[0]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(module, "now", loop.time)
    monkeypatch.setattr(module, "connect", world.connect)
    monkeypatch.setattr(module, "KvStore", make_store)
    monkeypatch.setattr(module, "Wire", FakeWire)
    monkeypatch.setattr(module, "read_page", _no_page)
    for name in ("LifecycleStream", "CommandService", "OwnEngine"):
        monkeypatch.setattr(module, name, FakePart)
    for name in ("SharedCommands", "Traffic", "Questions"):
        monkeypatch.setattr(module, name, QuickPart)
    membership = ClusterMembership(world.parts(), "a", "a1")
    registry: Any = SimpleNamespace(on_done=None)
    try:
        await membership.start(registry, registry)
        yield membership, stores[0]
    finally:
        if stores:
            stores[0].holds = False
        await membership.close()


def begin(membership: ClusterMembership, session: SessionId, peer: bytes) -> None:
    """A session has a place, and its peer is proved."""
    membership.claim(session, peer, IN, passes_limits=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


pytestmark = pytest.mark.loop("virtual")


async def test_answers_in_another_order_are_those_of_their_own_sessions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(world, monkeypatch) as (membership, store):
        world.put(peer_key(OTHER), Claim("b", "b1", 7, 1))
        world.put(host_key("b"), Heartbeat("b1"))
        membership.on_seen(host_key("b"), *world.keys[host_key("b")])
        store.holds = True
        begin(membership, ONE, PEER)
        begin(membership, TWO, OTHER)
        await asyncio.sleep(0)
        first, second = store.held(Put, peer_key(PEER)), store.held(Put, peer_key(OTHER))
        store.answer(second)
        assert (world.admitted, list(world.refused)) == ([], [TWO])
        store.answer(first)
        assert world.admitted == [ONE]
        assert world.refused[TWO].reason is DisconnectReason.ALREADY_CONNECTED
        assert membership.metrics().claims_refused == 1


async def test_a_static_peer_of_another_host_is_left_alone_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.statics.add(PEER)
    async with joined(world, monkeypatch) as (membership, _):
        world.put(host_key("b"), Heartbeat("b1"))
        membership.on_seen(host_key("b"), *world.keys[host_key("b")])
        world.put(peer_key(PEER), Claim("b", "b1", 7, 1))
        assert membership.may_dial(PEER)
        begin(membership, ONE, PEER)
        await asyncio.sleep(TICK_SECONDS)
        assert list(world.refused) == [ONE]
        membership.release(ONE)
        assert not membership.may_dial(PEER)
        await asyncio.sleep(module.ELSEWHERE_SECONDS)
        assert membership.may_dial(PEER)


async def test_a_peer_that_comes_again_at_once_is_claimed_again_after_its_claim_is_erased(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(world, monkeypatch) as (membership, store):
        begin(membership, ONE, PEER)
        await asyncio.sleep(TICK_SECONDS)
        store.holds = True
        membership.release(ONE)
        membership.release(ONE)
        # Its erasure does not wait for those of others.
        begin(membership, TWO, PEER)
        erasure = store.held(Erase, peer_key(PEER))
        await asyncio.sleep(2 * ERASE_SECONDS)
        assert world.admitted == [ONE]
        store.holds = False
        store.answer(erasure)
        await asyncio.sleep(TICK_SECONDS)
        assert (world.admitted, world.claimed()) == ([ONE, TWO], {PEER})


async def test_while_nats_is_away_sessions_begin_without_a_claim_and_are_claimed_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(world, monkeypatch) as (membership, store):
        begin(membership, ONE, PEER)
        await asyncio.sleep(TICK_SECONDS)
        world.lose()
        assert membership.status().state == "away"
        begin(membership, TWO, OTHER)
        await asyncio.sleep(TICK_SECONDS)
        assert (world.admitted, world.claimed()) == ([ONE, TWO], {PEER})
        # The servers lost the claims; the store is not there yet when the connection is.
        world.keys.clear()
        store.failures = [OSError("not yet"), OSError("not yet")]
        world.come_back()
        world.come_back()  # once is enough
        await asyncio.sleep(10.0)
        assert store.restored == 4
        assert membership.status().state == "member"
        assert world.claimed() == {PEER, OTHER}


async def test_a_lost_second_connection_is_made_again_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with joined(world, monkeypatch) as (membership, store):
        membership._on_wire_lost()  # noqa: SLF001 - what `Wire` was given
        assert membership.status().state == "away"
        await asyncio.sleep(TICK_SECONDS)
        assert (membership.status().state, store.restored) == ("member", 2)


async def test_a_second_connection_that_is_lost_while_the_watch_is_made_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(world, monkeypatch) as (membership, store):
        store.on_restore = [lambda: _lose_wire(membership)]
        _lose_wire(membership)
        await asyncio.sleep(3 * TICK_SECONDS)
        assert (membership.status().state, store.restored) == ("member", 3)


def _lose_wire(membership: ClusterMembership) -> None:
    """As `Wire` does: it is down, and then tells so."""
    membership._wire.close()  # noqa: SLF001 - the test's own
    membership._on_wire_lost()  # noqa: SLF001 - what `Wire` was given


async def test_a_store_that_was_deleted_while_the_host_was_away_gets_the_shared_commands_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[FakePart] = []

    def note(part: FakePart) -> None:
        told.append(part)

    monkeypatch.setattr(FakePart, "on_store_lost", note)
    async with joined(world, monkeypatch) as (_, store):
        world.lose()
        # Its own heartbeat has expired by then, and its absence would say nothing.
        await asyncio.sleep(20.0)
        world.keys.clear()
        store.is_other = True
        world.come_back()
        await asyncio.sleep(10.0)
        assert len(told) == 1


async def test_a_watch_that_falls_silent_is_begun_again_and_another_store_gets_all_that_the_host_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(world, monkeypatch) as (membership, store):
        begin(membership, ONE, PEER)
        await asyncio.sleep(TICK_SECONDS)
        store.failures = [TimeoutError()]
        store.is_watching = False
        await asyncio.sleep(4 * TICK_SECONDS)
        assert store.restored == 3
        world.keys.clear()
        store.is_watching, store.is_other = False, True
        with structlog.testing.capture_logs() as logged:
            await asyncio.sleep(10.0)
        assert store.restored == 4
        assert world.claimed() == {PEER}
        assert {FLEET, host_key("a")} <= world.keys.keys()
        assert "the fleet's store has lost what it had; this host writes again what it holds" in [
            line["event"] for line in logged
        ]


async def test_a_store_that_is_purged_all_the_time_is_said_to_be_once_a_minute(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(world, monkeypatch) as (_, store):
        await asyncio.sleep(TICK_SECONDS)
        with structlog.testing.capture_logs() as logged:
            for _ in range(5):
                world.keys.clear()
                await asyncio.sleep(6.0)
                assert host_key("a") in world.keys
        assert store.restored == 1
        assert [line["event"] for line in logged] == [
            "the fleet's store has lost what it had; this host writes again what it holds"
        ]


async def test_at_the_end_the_claims_are_given_back_before_the_host_leaves_and_lost_calls_are_not_awaited_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with joined(world, monkeypatch) as (membership, store):
        for session, peer in ((ONE, PEER), (TWO, OTHER)):
            begin(membership, session, peer)
        await asyncio.sleep(TICK_SECONDS)
        store.holds = True
        membership.release(ONE)
        membership.release(TWO)
        closing = asyncio.ensure_future(membership.close())
        await asyncio.sleep(0.1)
        one, two = store.held(Erase, peer_key(PEER)), store.held(Erase, peer_key(OTHER))
        assert b'"has_left":true' not in world.keys[host_key("a")][1]
        store.answer(one)
        store.lose(two)
        began_at = loop.time()
        # The heartbeat that says goodbye is never answered.
        await closing
        assert loop.time() - began_at < 2 * CALL_SECONDS + 1.0
        assert (store.is_closed, world.claimed()) == (True, {OTHER})
        begin(membership, THREE, PEER)
        await asyncio.sleep(1.0)
        assert not world.failures


async def test_limits_of_the_fleet_are_shown_as_the_hosts_and_may_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put(FLEET, Fleet(dict.fromkeys(Direction, 4), 1))
    async with joined(world, monkeypatch) as (membership, _):
        await asyncio.sleep(TICK_SECONDS)
        assert world.counter.limits.max_active_inbound == 4
        membership.set_limits({})
        membership.set_limits({IN: 7})
        await asyncio.sleep(TICK_SECONDS)
        assert world.counter.limits.max_active_inbound == 7
        assert b'"inbound":7' in world.keys[FLEET][1]


async def test_a_name_that_another_engine_has_is_a_mistake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    beats = iter(range(1000))

    def carry_out(call: Call) -> Answer:
        if call.key == host_key("a"):
            return Answer(call.call, Outcome.CONFLICT, 5 + next(beats), encode(Heartbeat("a0")))
        return World.carry_out(world, call)

    monkeypatch.setattr(world, "carry_out", carry_out)
    with pytest.raises(ConfigError, match="cluster_host: the fleet has a host named a already"):
        async with joined(world, monkeypatch):
            pass


@pytest.mark.parametrize(
    ("identity", "beat", "words"),
    [
        ("own", Heartbeat("b1", chain="other"), "cluster_name: host b is on other, and this one on chain"),
        ("shared", Heartbeat("b1", node="ff", chain="chain"), "cluster_identity: shared, but host b has another node key"),
    ],
)
async def test_a_host_of_another_chain_or_key_does_not_stay(
    world: World, monkeypatch: pytest.MonkeyPatch, identity: Any, beat: Heartbeat, words: str
) -> None:
    world.settings = msgspec.structs.replace(world.settings, cluster_identity=identity)

    class Seeing(FakeStore):
        """The watch tells of the other host before this one has joined."""

        async def restore(self, servers: int, keys: tuple[str, ...]) -> bool:
            self.owner.on_seen(host_key("b"), 1, encode(beat))
            return await super().restore(servers, keys)

    monkeypatch.setitem(globals(), "FakeStore", Seeing)
    with pytest.raises(ConfigError, match=words):
        async with joined(world, monkeypatch):
            pass
