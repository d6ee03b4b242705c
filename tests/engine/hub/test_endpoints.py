"""Bound sockets and real ZeroMQ programs on them, over both transports and on both loops."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq

from rlpx.engine.hub.endpoints import bind_ipc, bind_tcp
from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.curve import CurveServer, ServerKeys
from rlpx.protocol.bus.endpoint import Endpoint
from rlpx.protocol.bus.link import Limits, Link
from rlpx.protocol.bus.zmtp import Kind

PATIENCE_SECONDS = 60.0
LIMITS = Limits(50, 1 << 20, 1 << 22, 1 << 24, zmtp.Limits(message_bytes=1 << 20))

Socket = zmq.Socket[bytes]
Run = Callable[[Coroutine[Any, Any, None]], None]


class Echo:
    """An owner that echoes each message, and records the subscriptions."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.gone: list[str | None] = []
        self.rooms = 0

    def on_ready(self, link: Link) -> None:
        """Do nothing: the endpoint's links show it."""

    def on_subscribed(self, link: Link, prefix: bytes) -> None:
        """Do nothing: the endpoint's links show it."""

    def on_cancelled(self, link: Link, prefix: bytes) -> None:
        """Do nothing: the endpoint's links show it."""

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        assert link.offer(zmtp.encode(frames))

    def on_room(self, link: Link) -> None:
        assert link.queued_bytes == 0
        self.rooms += 1

    def on_gone(self, link: Link) -> None:
        self.gone.append(link.cause)

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        assert times
        self.refused.append(f"{remote}: {cause}")


class Served:
    """A router and a publisher, each on ipc and on tcp."""

    def __init__(self, folder: Path) -> None:
        clockwork = Clockwork(asyncio.get_running_loop(), monotonic, lambda: True)
        self.owner = Echo()
        self.router = Endpoint(Kind.ROUTER, self.owner, LIMITS, clockwork)
        self.publisher = Endpoint(Kind.XPUB, self.owner, LIMITS, clockwork)
        self.places: dict[tuple[str, str], str] = {}
        for name, endpoint in (("router", self.router), ("publisher", self.publisher)):
            endpoint.listen(bind_ipc(folder / f"{name}.ipc"), "ipc")
            self.places[name, "ipc"] = f"ipc://{folder}/{name}.ipc"
            sock = bind_tcp("127.0.0.1", 0)
            endpoint.listen(sock, "tcp")
            self.places[name, "tcp"] = f"tcp://127.0.0.1:{sock.getsockname()[1]}"


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.002)


async def received(sock: Socket) -> list[bytes]:
    """The next message."""
    await until(lambda: sock.poll(0))
    return sock.recv_multipart()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """The endpoints, closed at the end."""
    serving = Served(folder)
    try:
        yield serving
    finally:
        serving.router.abort()
        serving.publisher.abort()
        await until(lambda: not serving.router.connections and not serving.publisher.connections)


class Users:
    """Makes sockets, and closes them."""

    def __init__(self) -> None:
        self._context: zmq.Context[Socket] = zmq.Context()
        self._sockets: list[Socket] = []

    def made(self, kind: int) -> Socket:
        """A socket that is not connected yet."""
        sock = self._context.socket(kind)
        self._sockets.append(sock)
        sock.setsockopt(zmq.LINGER, 0)
        return sock

    def __call__(self, kind: int, place: str) -> Socket:
        """A socket that is connected to this endpoint."""
        sock = self.made(kind)
        sock.connect(place)
        return sock

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()
        self._context.term()


@pytest.fixture
def users() -> Any:
    made = Users()
    yield made
    made.close()


on_both = pytest.mark.parametrize(
    "way",
    [pytest.param("ipc", marks=pytest.mark.loop("asyncio"), id="asyncio"), pytest.param("ipc", id="uvloop"), "tcp"],
)


@on_both
async def test_req_dealer_and_router_sockets_talk_to_a_router(tmp_path: Path, users: Users, way: str) -> None:
    async with served(tmp_path) as serving:
        place = serving.places["router", way]
        req, dealer, router = users(zmq.REQ, place), users(zmq.DEALER, place), users(zmq.DEALER, place)
        req.send(b"question")
        assert await received(req) == [b"question"]
        dealer.send_multipart([b"one", b"", b"l" * 100_000])
        assert await received(dealer) == [b"one", b"", b"l" * 100_000]
        router.send(b"x")
        assert await received(router) == [b"x"]
        assert {link.socket_type for link in serving.router.links.values()} == {"REQ", "DEALER"}


@on_both
async def test_sub_and_xsub_sockets_subscribe_and_receive(tmp_path: Path, users: Users, way: str) -> None:
    async with served(tmp_path) as serving:
        place = serving.places["publisher", way]
        sub, xsub = users(zmq.SUB, place), users(zmq.XSUB, place)
        sub.subscribe(b"eth.")
        sub.subscribe(b"snap.")
        sub.unsubscribe(b"snap.")
        xsub.send(b"\x01session.")
        await until(lambda: len(serving.publisher.links) == 2)
        links = {link.socket_type: link for link in serving.publisher.links.values()}
        await until(lambda: links["SUB"].prefixes == {b"eth."} and links["XSUB"].prefixes == {b"session."})
        for link, topic in ((links["SUB"], b"eth.Status"), (links["XSUB"], b"session.opened")):
            assert link.offer(zmtp.encode([topic, b"head", bytes(70_000)]))
        assert await received(sub) == [b"eth.Status", b"head", bytes(70_000)]
        assert await received(xsub) == [b"session.opened", b"head", bytes(70_000)]


@on_both
async def test_a_socket_of_the_wrong_type_is_refused(tmp_path: Path, users: Users, way: str) -> None:
    async with served(tmp_path) as serving:
        users(zmq.SUB, serving.places["router", way])
        await until(lambda: serving.owner.refused)
        assert "a SUB socket cannot use this endpoint; it takes DEALER, REQ, ROUTER" in serving.owner.refused[0]


@on_both
async def test_heartbeats_of_libzmq_keep_a_connection(tmp_path: Path, users: Users, way: str) -> None:
    async with served(tmp_path) as serving:
        user = users.made(zmq.DEALER)
        user.setsockopt(zmq.HEARTBEAT_IVL, 20)
        user.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2000)
        user.connect(serving.places["router", way])
        await until(lambda: serving.router.links)
        await asyncio.sleep(0.3)
        assert len(serving.router.links) == 1
        assert not serving.owner.gone


def curve_of(sock: Socket, keys: ServerKeys, server: bytes) -> None:
    """Let a socket that is not connected yet use these keys."""
    sock.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    sock.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    sock.setsockopt(zmq.CURVE_SERVERKEY, server)


SERVER, ALICE, MALLORY = (ServerKeys.from_secret(bytes((number,)) * 32) for number in (1, 2, 3))


@asynccontextmanager
async def served_by_curve(folder: Path) -> AsyncIterator[tuple[Served, str, str]]:
    """Endpoints that ALICE may use, and their addresses."""
    async with served(folder) as serving:
        places = []
        for endpoint in (serving.router, serving.publisher):
            sock = bind_tcp("127.0.0.1", 0)
            places.append(f"tcp://127.0.0.1:{sock.getsockname()[1]}")

            def security() -> CurveServer:
                return CurveServer(SERVER, lambda key: "alice" if key == ALICE.public else None, os.urandom)

            endpoint.listen(sock, "curve", security)
        yield serving, places[0], places[1]


async def test_sockets_of_libzmq_talk_curve(tmp_path: Path, users: Users) -> None:
    async with served_by_curve(tmp_path) as (serving, router, publisher):
        sockets = [users.made(kind) for kind in (zmq.DEALER, zmq.REQ, zmq.SUB, zmq.XSUB)]
        for sock, place in zip(sockets, (router, router, publisher, publisher), strict=True):
            curve_of(sock, ALICE, SERVER.public)
            sock.setsockopt(zmq.HEARTBEAT_IVL, 20)
            sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
            sock.connect(place)
        dealer, req, sub, xsub = sockets
        dealer.send_multipart([b"a", b"l" * 100_000])
        sub.subscribe(b"eth.")
        xsub.send(b"\x01eth.")
        await until(lambda: len(serving.publisher.links) == 2)
        await until(lambda: all(link.prefixes == {b"eth."} for link in serving.publisher.links.values()))
        for link in serving.publisher.links.values():
            assert link.user == "alice"
            assert link.offer(zmtp.encode([b"eth.Status", b"head", bytes(100_000)]))
        for sock in (sub, xsub):
            assert await received(sock) == [b"eth.Status", b"head", bytes(100_000)]
        sub.unsubscribe(b"eth.")
        await until(lambda: any(not link.prefixes for link in serving.publisher.links.values()))
        # A send that waited for the connection would stop the loop that serves it.
        await until(lambda: req.poll(0, zmq.POLLOUT))
        req.send(b"question", zmq.NOBLOCK)
        assert await received(req) == [b"question"]


@pytest.mark.parametrize(
    ("pair", "cause", "event"),
    [
        ((MALLORY, SERVER), "is not authorised", zmq.EVENT_HANDSHAKE_FAILED_AUTH),
        ((ALICE, MALLORY), "is not ours", zmq.EVENT_HANDSHAKE_FAILED_AUTH),
        # It may leave by our greeting before its own is here.
        (None, "", zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL),
    ],
    ids=["unknown key", "wrong server", "no key"],
)
async def test_who_has_no_right_is_turned_away_in_words_that_libzmq_understands(
    tmp_path: Path, users: Users, pair: tuple[ServerKeys, ServerKeys] | None, cause: str, event: int
) -> None:
    async with served_by_curve(tmp_path) as (serving, router, _):
        user = users.made(zmq.DEALER)
        if pair is not None:
            curve_of(user, pair[0], pair[1].public)
        monitor = user.get_monitor_socket(event)
        user.connect(router)
        try:
            await until(lambda: monitor.poll(0))
            await until(lambda: serving.owner.refused or not cause)
            assert all(cause in refused for refused in serving.owner.refused)
        finally:
            user.disable_monitor()
            monitor.close()


async def test_a_reader_that_does_not_read_is_refused_what_is_over_its_bound(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        with socket.socket(socket.AF_UNIX) as user:
            user.connect(str(tmp_path / "publisher.ipc"))
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
            user.sendall(greeting + zmtp.command(b"READY", zmtp.metadata({"Socket-Type": b"SUB"})))
            await until(lambda: serving.publisher.links)
            (link,) = serving.publisher.links.values()
            wire = zmtp.encode([b"topic", bytes(100_000)])
            sent = 0
            while link.offer(wire):
                sent += 1
                await asyncio.sleep(0)
            assert LIMITS.queue_bytes - len(wire) < link.queued_bytes <= LIMITS.queue_bytes
            user.setblocking(False)
            read = 0

            def is_all_read() -> bool:
                nonlocal read
                with suppress(BlockingIOError):
                    read += len(user.recv(1 << 20))
                return read >= sent * len(wire)

            await until(is_all_read)
            await until(lambda: serving.owner.rooms)
        await until(lambda: serving.owner.gone == [None])


def test_a_stale_socket_is_replaced_and_the_new_one_is_the_owners_alone(tmp_path: Path) -> None:
    place = tmp_path / "a.ipc"
    with bind_ipc(place), bind_ipc(place):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_path_that_cannot_be_bound_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        bind_ipc(tmp_path / "missing" / "a.ipc")


def test_a_port_that_is_taken_is_an_error() -> None:
    with bind_tcp("127.0.0.1", 0) as holder, pytest.raises(OSError, match="in use"):
        bind_tcp("127.0.0.1", holder.getsockname()[1])


def test_ipv6_is_bound_as_well() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bind_tcp("::1", 0) as sock:
        assert sock.family is socket.AF_INET6
