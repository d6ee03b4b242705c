"""The users' sockets: one reply a request in every framing, numbered events, and users that cannot harm each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, cast

import msgspec
import orjson
import pytest
import structlog.testing
import zmq

from engine.client import Gap, GapTracker
from engine.config import RunDir
from engine.hub import REPLY_QUEUE, Envelope, Hub
from engine.settings import ControlSettings, EventSettings

# Nothing here takes long; a test that waits this long has failed.
PATIENCE_SECONDS = 5.0

Socket = zmq.Socket[bytes]


class Users:
    """Makes sockets of users that are connected to the hub, and closes them."""

    def __init__(self, folder: Path) -> None:
        self._run_dir = RunDir(folder)
        self._context: zmq.Context[Socket] = zmq.Context()
        self._sockets: list[Socket] = []

    def __call__(self, kind: int, name: str, *, receive_queue: int = 1000) -> Socket:
        """A socket connected to one of the run directory's, or to an endpoint."""
        sock = self._context.socket(kind)
        self._sockets.append(sock)
        sock.setsockopt(zmq.LINGER, 0)
        # A test is one thread: its own sockets must not make it wait.
        sock.setsockopt(zmq.SNDHWM, 0)
        sock.setsockopt(zmq.RCVHWM, receive_queue)
        sock.connect(name if "://" in name else self._run_dir.endpoint(name))
        return sock

    def close(self) -> None:
        """All of them are gone."""
        for sock in self._sockets:
            sock.close()
        self._context.term()


class Served:
    """A running hub, and the requests that it passed on."""

    def __init__(self, folder: Path, control: ControlSettings, events: EventSettings) -> None:
        self.run_dir = RunDir(folder)
        self.requests: list[tuple[Envelope, bytes, list[bytes]]] = []
        self.echoes = True
        self.hub = Hub(self.run_dir, (control, events), asyncio.get_running_loop(), self.on_request)

    def on_request(self, envelope: Envelope, body: bytes, attachments: list[bytes]) -> None:
        """Keep it, and echo it."""
        self.requests.append((envelope, body, attachments))
        if self.echoes:
            self.hub.reply(envelope, b"re: " + body)


@asynccontextmanager
async def served(
    folder: Path, *, control: ControlSettings | None = None, events: EventSettings | None = None
) -> AsyncIterator[Served]:
    """A hub that has started, and is closed at the end."""
    serving = Served(folder, control or ControlSettings(), events or EventSettings())
    serving.hub.start()
    try:
        yield serving
    finally:
        serving.hub.close()
        # What the hub has left on the loop happens now, or a mistake in it would go unseen.
        await asyncio.sleep(0)


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    made = Users(tmp_path)
    yield made
    made.close()


def played(scenario: Awaitable[None]) -> None:
    """Run a scenario; what goes wrong inside a callback of the loop fails it as well."""

    async def watched() -> None:
        failures: list[BaseException | str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: failures.append(context.get("exception") or context["message"])
        )
        await scenario
        assert failures == []

    asyncio.run(watched())


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.001)


async def received(sock: Socket) -> list[bytes]:
    """The next message of a user's socket."""
    await until(lambda: sock.poll(0))
    return sock.recv_multipart()


async def event_batch(sock: Socket) -> tuple[str, dict[str, Any], bytes]:
    """The next batch of a subscriber: topic, head, body."""
    topic, head, body = await received(sock)
    return topic.decode(), orjson.loads(head), body


async def subscribed(serving: Served, sock: Socket, prefix: str) -> None:
    """Subscribe, and wait until the hub knows."""
    sock.setsockopt_string(zmq.SUBSCRIBE, prefix)
    await until(lambda: serving.hub.wants(prefix))


async def subscribed_too(serving: Served, sock: Socket, prefix: str) -> None:
    """Subscribe to what others have subscribed to: the hub does not hear of it, so it is tried out and cleared."""
    sock.setsockopt_string(zmq.SUBSCRIBE, prefix)
    # A topic of its own below the prefix tells when the subscription is there, and its end when all of it is read.
    probe = f"{prefix}probe"

    def is_heard() -> int:
        serving.hub.publish(probe, {})
        serving.hub.flush()
        return sock.poll(0)

    await until(is_heard)
    serving.hub.publish(f"{prefix}last", {})
    while (await event_batch(sock))[0] == probe:
        pass


# -- commands ---------------------------------------------------------------------------------------------------------------


def test_a_req_socket_gets_one_reply(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.REQ, "control")
            for text in (b"one", b"two"):
                user.send(text)
                assert await received(user) == [b"re: " + text]
            assert len(serving.requests) == 2

    played(scenario())


def test_a_dealer_gets_its_reply_framed_as_it_asked(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path):
            user = users(zmq.DEALER, "control")
            user.send_multipart([b"", b"with"])
            assert await received(user) == [b"", b"re: with"]
            user.send_multipart([b"without"])
            assert await received(user) == [b"re: without"]
            await asyncio.sleep(0.02)
            assert not user.poll(0)

    played(scenario())


def test_attached_frames_come_beside_the_request(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.DEALER, "control")
            user.send_multipart([b"", b"text", b"payload", b"more"])
            await received(user)
            user.send_multipart([b"text", b"", b"x"])
            await received(user)
            assert [(body, rest) for _, body, rest in serving.requests] == [
                (b"text", [b"payload", b"more"]),
                (b"text", [b"", b"x"]),
            ]

    played(scenario())


def test_a_reply_may_have_an_attachment(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            serving.echoes = False
            user = users(zmq.REQ, "control")
            user.send(b"give")
            await until(lambda: serving.requests)
            serving.hub.reply(serving.requests[0][0], b"here", b"\x00\x01")
            assert await received(user) == [b"here", b"\x00\x01"]

    played(scenario())


@pytest.mark.parametrize("frames", [[b""], [b"", b""], [b"", b"", b""]])
def test_even_an_empty_request_is_answered(tmp_path: Path, users: Users, frames: list[bytes]) -> None:
    async def scenario() -> None:
        async with served(tmp_path):
            user = users(zmq.DEALER, "control")
            user.send_multipart(frames)
            assert await received(user) == [b"", b"re: "]

    played(scenario())


def test_many_requests_at_once_are_answered_each_once(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path):
            both = users(zmq.DEALER, "control"), users(zmq.DEALER, "control")
            for number in range(700):
                both[number % 2].send(b"%d" % number)
            for first, user in enumerate(both):
                replies = [(await received(user))[0] for _ in range(350)]
                assert replies == [b"re: %d" % number for number in range(first, 700, 2)]

    played(scenario())


def test_a_reply_after_all_others_is_still_right(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            serving.echoes = False
            slow, quick = users(zmq.REQ, "control"), users(zmq.REQ, "control")
            slow.send(b"slow")
            await until(lambda: len(serving.requests) == 1)
            quick.send(b"quick")
            await until(lambda: len(serving.requests) == 2)
            serving.hub.reply(serving.requests[1][0], b"first")
            serving.hub.reply(serving.requests[0][0], b"second")
            assert await received(quick) == [b"first"]
            assert await received(slow) == [b"second"]

    played(scenario())


def test_a_user_that_vanishes_before_its_reply_does_no_harm(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            serving.echoes = False
            gone = users(zmq.DEALER, "control")
            gone.send(b"hello")
            await until(lambda: serving.requests)
            gone.close()
            with structlog.testing.capture_logs() as logs:

                def is_noticed() -> bool:
                    serving.hub.reply(serving.requests[0][0], b"anybody?")
                    return bool(logs)

                await until(is_noticed)
            assert logs[0]["event"] == "a reply found no reader"
            serving.echoes = True
            user = users(zmq.REQ, "control")
            user.send(b"next")
            assert await received(user) == [b"re: next"]

    played(scenario())


def test_a_user_that_never_reads_its_replies_loses_them_and_holds_up_nobody(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            deaf = users(zmq.DEALER, "control", receive_queue=1)
            with structlog.testing.capture_logs() as logs:
                for _ in range(REPLY_QUEUE + 2000):
                    deaf.send(bytes(1000))
                await until(lambda: len(serving.requests) == REPLY_QUEUE + 2000)
                user = users(zmq.REQ, "control")
                user.send(b"hear me")
                assert await received(user) == [b"re: hear me"]
            assert {line["event"] for line in logs} == {"a reply found no reader"}

    played(scenario())


def test_a_request_that_is_too_long_closes_its_sender_alone(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path, control=ControlSettings(max_request_bytes=2048)) as serving:
            long, short = users(zmq.DEALER, "control"), users(zmq.REQ, "control")
            long.send(bytes(2049))
            short.send(bytes(2048))
            assert await received(short) == [b"re: " + bytes(2048)]
            assert len(serving.requests) == 1

    played(scenario())


def test_commands_and_events_have_a_second_endpoint_where_one_is_set(tmp_path: Path, users: Users) -> None:
    first, second = free_ports()
    control = ControlSettings(endpoint=f"tcp://127.0.0.1:{first}")
    events = EventSettings(endpoint=f"tcp://127.0.0.1:{second}")

    async def scenario() -> None:
        async with served(tmp_path, control=control, events=events) as serving:
            user = users(zmq.REQ, control.endpoint)
            user.send(b"over tcp")
            assert await received(user) == [b"re: over tcp"]
            subscriber = users(zmq.SUB, events.endpoint)
            await subscribed(serving, subscriber, "engine.")
            serving.hub.publish("engine.reloaded", {})
            assert (await event_batch(subscriber))[0] == "engine.reloaded"

    played(scenario())


def free_ports() -> tuple[int, int]:
    """Two ports that were free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@pytest.mark.parametrize("which", ["control", "events"])
def test_an_endpoint_that_is_taken_is_an_error_of_the_start(tmp_path: Path, which: str) -> None:
    async def scenario(endpoint: str) -> None:
        control, events = ControlSettings(), EventSettings()
        if which == "control":
            control = msgspec.structs.replace(control, endpoint=endpoint)
        else:
            events = msgspec.structs.replace(events, endpoint=endpoint)
        serving = Served(tmp_path, control, events)
        with pytest.raises(zmq.ZMQError, match="Address already in use"):
            serving.hub.start()
        serving.hub.close()

    with socket.create_server(("127.0.0.1", 0)) as holder:
        asyncio.run(scenario(f"tcp://127.0.0.1:{holder.getsockname()[1]}"))


# -- events -----------------------------------------------------------------------------------------------------------------


def test_an_event_reaches_its_subscriber_numbered_from_one(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.SUB, "events")
            await subscribed(serving, user, "session.opened")
            for seq in (1, 2, 3):
                serving.hub.publish("session.opened", {"session": seq, "time_us": 5})
                topic, head, body = await event_batch(user)
                assert (topic, body) == ("session.opened", b"")
                assert head == {
                    "v": 1,
                    "worker": None,
                    "since_us": head["since_us"],
                    "seq": seq,
                    "dropped": 0,
                    "events": [{"session": seq, "time_us": 5}],
                }

    played(scenario())


def test_each_topic_has_numbers_of_its_own(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.SUB, "events")
            await subscribed(serving, user, "")
            serving.hub.publish("worker.lost", {})
            serving.hub.publish("session.opened", {})
            batches = [await event_batch(user) for _ in range(2)]
            assert {(topic, head["seq"]) for topic, head, _ in batches} == {("worker.lost", 1), ("session.opened", 1)}

    played(scenario())


def test_events_of_one_turn_leave_in_one_batch_in_their_order(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.SUB, "events")
            await subscribed(serving, user, "session.")
            for number in range(3):
                serving.hub.publish("session.opened", {"session": number})
            _, head, _ = await event_batch(user)
            assert head["events"] == [{"session": 0}, {"session": 1}, {"session": 2}]

    played(scenario())


def test_a_subscription_is_a_prefix(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.SUB, "events")
            assert not serving.hub.wants("session.opened")
            await subscribed(serving, user, "session.")
            assert serving.hub.wants("session.opened")
            assert not serving.hub.wants("worker.lost")
            serving.hub.publish("worker.lost", {})
            serving.hub.publish("session.closed", {})
            assert (await event_batch(user))[0] == "session.closed"
            user.setsockopt_string(zmq.UNSUBSCRIBE, "session.")
            await until(lambda: not serving.hub.wants("session.opened"))

    played(scenario())


def test_what_two_want_is_wanted_until_both_have_gone(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            one, other = users(zmq.SUB, "events"), users(zmq.SUB, "events")
            await subscribed(serving, one, "session.")
            await subscribed_too(serving, other, "session.")
            one.close()
            await asyncio.sleep(0.02)
            assert serving.hub.wants("session.opened")
            other.close()
            await until(lambda: not serving.hub.wants("session.opened"))

    played(scenario())


def test_what_a_worker_publishes_passes_through(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            worker, user = users(zmq.XPUB, serving.hub.traffic_endpoint), users(zmq.SUB, "events")
            user.setsockopt_string(zmq.SUBSCRIBE, "eth.")
            while await received(worker) != [b"\x01eth."]:
                pass
            worker.send_multipart([b"eth.Transactions", b"{}", b"body"])
            assert await received(user) == [b"eth.Transactions", b"{}", b"body"]

    played(scenario())


def test_a_subscriber_that_does_not_read_loses_its_own_events_only_and_sees_that(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        async with served(tmp_path, events=EventSettings(queue_batches=5, batch_ms=0.1)) as serving:
            lazy, eager = users(zmq.SUB, "events", receive_queue=1), users(zmq.SUB, "events")
            await subscribed(serving, lazy, "session.")
            await subscribed_too(serving, eager, "session.")
            for seq in range(1, 501):
                serving.hub.publish("session.closed", {"cause": "x" * 8000})
                topic, head, _ = await event_batch(eager)
                assert (topic, head["seq"], head["dropped"]) == ("session.closed", seq, 0)
            tracker = GapTracker()
            seen: list[object] = []
            while lazy.poll(20):
                seen += tracker.read(*await event_batch(lazy))
            assert 0 < len(seen) < 500
            serving.hub.publish("session.closed", {})
            assert isinstance(tracker.read(*await event_batch(lazy))[0], Gap)

    played(scenario())


@pytest.mark.parametrize("message", [b"", b"\x00nobody subscribed to this", b"\x02session.", b"session."])
def test_nothing_that_one_user_says_on_the_event_socket_ends_the_subscription_of_another(
    tmp_path: Path, users: Users, message: bytes
) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user, rude = users(zmq.SUB, "events"), users(zmq.XSUB, "events")
            await subscribed(serving, user, "session.")
            everything = users(zmq.SUB, "events")
            await subscribed(serving, everything, "")
            rude.send(message)
            # What comes behind it on the same socket has passed the same way.
            rude.send(b"\x01passed.")
            await asyncio.sleep(0.05)
            everything.setsockopt_string(zmq.UNSUBSCRIBE, "")
            await until(lambda: not serving.hub.wants("other."))
            assert serving.hub.wants("passed.")
            assert serving.hub.wants("session.opened")

    played(scenario())


def late_proxy(frontend: Socket, backend: Socket) -> None:
    """`zmq.proxy`, in a thread that gets to run a little later than usual."""
    poller = zmq.Poller()
    poller.register(frontend, zmq.POLLIN)
    poller.register(backend, zmq.POLLIN)
    while True:
        for source, _ in poller.poll():
            sleep(0.01)
            (backend if source is frontend else frontend).send_multipart(cast("Socket", source).recv_multipart())


@pytest.mark.parametrize("is_late", [False, True])
def test_what_waits_leaves_at_the_end(
    tmp_path: Path, users: Users, monkeypatch: pytest.MonkeyPatch, *, is_late: bool
) -> None:
    if is_late:
        monkeypatch.setattr("zmq.proxy", late_proxy)

    async def scenario() -> None:
        async with served(tmp_path) as serving:
            user = users(zmq.SUB, "events")
            await subscribed(serving, user, "engine.")
            serving.hub.publish("engine.stopped", {})
        assert (await event_batch(user))[0] == "engine.stopped"

    played(scenario())


def test_a_subscriber_that_does_not_read_does_not_hold_up_the_end(tmp_path: Path, users: Users) -> None:
    async def scenario() -> None:
        started = monotonic()
        async with served(tmp_path) as serving:
            lazy = users(zmq.SUB, "events", receive_queue=1)
            await subscribed(serving, lazy, "session.")
            for _ in range(500):
                serving.hub.publish("session.closed", {"cause": "x" * 8000})
                serving.hub.flush()
            started = monotonic()
        assert monotonic() - started < 2.0

    played(scenario())


def test_closing_without_a_user_takes_no_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        started = monotonic()
        async with served(tmp_path):
            pass
        assert monotonic() - started < 1.0

    played(scenario())
