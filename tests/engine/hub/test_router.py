"""The users' sockets: one reply for each request in every framing, and users cannot harm each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
import structlog.testing
import zmq

from rlpx.engine.hub.router import MAX_OPEN_REQUESTS_PER_CALLER, Envelope, Hub
from rlpx.engine.settings.run_dir import RunDir
from rlpx.engine.settings.settings import ControlSettings
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.mistakes import ConfigError

# Nothing here takes long; a test that waits this long has failed.
PATIENCE_SECONDS = 60.0

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
        """Close all sockets."""
        for sock in self._sockets:
            sock.close()
        self._context.term()


class Served:
    """A running hub, and the requests that it has passed on."""

    def __init__(self, folder: Path, control: ControlSettings) -> None:
        self.run_dir = RunDir(folder)
        self.requests: list[tuple[Envelope, bytes, list[bytes]]] = []
        self.echoes = True
        clockwork = Clockwork(asyncio.get_running_loop(), monotonic, lambda: True)
        self.hub = Hub(self.run_dir, control, clockwork, self.on_request)

    def on_request(self, envelope: Envelope, body: bytes, attachments: list[bytes]) -> None:
        """Record the request, and echo it."""
        self.requests.append((envelope, body, attachments))
        if self.echoes:
            self.hub.reply(envelope, b"re: " + body)


@asynccontextmanager
async def served(folder: Path, *, control: ControlSettings | None = None) -> AsyncIterator[Served]:
    """A hub that has started, and is closed at the end."""
    serving = Served(folder, control or ControlSettings())
    serving.hub.start()
    try:
        yield serving
    finally:
        await serving.hub.close()
        # Run the calls that the hub has left on the loop, or a mistake in them would go unseen.
        await asyncio.sleep(0)


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    made = Users(tmp_path)
    yield made
    made.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.001)


async def received(sock: Socket) -> list[bytes]:
    """The next message of a user's socket."""
    await until(lambda: sock.poll(0))
    return sock.recv_multipart()


async def test_a_req_socket_gets_one_reply(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path) as serving:
        user = users(zmq.REQ, "control")
        for text in (b"one", b"two"):
            user.send(text)
            assert await received(user) == [b"re: " + text]
        assert len(serving.requests) == 2


async def test_a_dealer_gets_its_reply_framed_as_it_asked(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path):
        user = users(zmq.DEALER, "control")
        user.send_multipart([b"", b"with"])
        assert await received(user) == [b"", b"re: with"]
        user.send_multipart([b"without"])
        assert await received(user) == [b"re: without"]
        await asyncio.sleep(0.02)
        assert not user.poll(0)


async def test_attached_frames_come_beside_the_request(tmp_path: Path, users: Users) -> None:
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


async def test_a_reply_may_have_an_attachment(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path) as serving:
        serving.echoes = False
        user = users(zmq.REQ, "control")
        user.send(b"give")
        await until(lambda: serving.requests)
        serving.hub.reply(serving.requests[0][0], b"here", b"\x00\x01")
        assert await received(user) == [b"here", b"\x00\x01"]


@pytest.mark.parametrize("frames", [[b""], [b"", b""], [b"", b"", b""]])
async def test_even_an_empty_request_is_answered(tmp_path: Path, users: Users, frames: list[bytes]) -> None:
    async with served(tmp_path):
        user = users(zmq.DEALER, "control")
        user.send_multipart(frames)
        assert await received(user) == [b"", b"re: "]


async def test_many_requests_at_once_are_answered_each_once(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path):
        both = users(zmq.DEALER, "control"), users(zmq.DEALER, "control")
        for number in range(700):
            both[number % 2].send(b"%d" % number)
        for first, user in enumerate(both):
            replies = [(await received(user))[0] for _ in range(350)]
            assert replies == [b"re: %d" % number for number in range(first, 700, 2)]


async def test_a_reply_after_all_others_is_still_right(tmp_path: Path, users: Users) -> None:
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


async def test_a_user_that_vanishes_before_its_reply_does_no_harm(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path) as serving:
        serving.echoes = False
        gone = users(zmq.DEALER, "control")
        gone.send(b"hello")
        await until(lambda: serving.requests)
        gone.close()
        await until(lambda: not serving.hub.endpoint.connections)
        with structlog.testing.capture_logs() as logs:
            serving.hub.reply(serving.requests[0][0], b"anybody?")
        assert logs[0]["event"] == "a reply found no reader"
        serving.echoes = True
        user = users(zmq.REQ, "control")
        user.send(b"next")
        assert await received(user) == [b"re: next"]


async def test_a_user_that_never_reads_its_replies_is_heard_no_further_and_loses_none(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path) as serving:
        deaf = users(zmq.DEALER, "control", receive_queue=1)
        for number in range(500):
            deaf.send(number.to_bytes(2, "big") + bytes(10_000))
        user = users(zmq.REQ, "control")

        async def is_heard() -> None:
            user.send(b"hear me")
            assert await received(user) == [b"re: hear me"]

        def heard() -> int:
            return sum(body != b"hear me" for _, body, _ in serving.requests)

        before = -1
        while before < heard():
            before = heard()
            for _ in range(20):
                await is_heard()
        # Its replies fill the sockets between, 208 KiB each way, libzmq's buffers, and our high water.
        assert heard() < 400
        for number in range(500):
            (reply,) = await received(deaf)
            assert reply[4:6] == number.to_bytes(2, "big")


async def test_a_callers_requests_under_way_are_bounded_and_others_go_on(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path) as serving:
        serving.echoes = False
        greedy = users(zmq.DEALER, "control")
        for _ in range(MAX_OPEN_REQUESTS_PER_CALLER + 10):
            greedy.send(b"slow")
        await until(lambda: len(serving.requests) == MAX_OPEN_REQUESTS_PER_CALLER)
        serving.echoes = True
        user = users(zmq.REQ, "control")
        user.send(b"quick")
        assert await received(user) == [b"re: quick"]
        assert len(serving.requests) == MAX_OPEN_REQUESTS_PER_CALLER + 1
        for envelope, _, _ in serving.requests[:MAX_OPEN_REQUESTS_PER_CALLER]:
            serving.hub.reply(envelope, b"done")
        for _ in range(MAX_OPEN_REQUESTS_PER_CALLER + 10):
            await received(greedy)


async def test_requests_under_way_are_bounded_in_sum(tmp_path: Path, users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.hub.router.MAX_OPEN_REQUESTS", 2)
    async with served(tmp_path) as serving:
        serving.echoes = False
        callers = [users(zmq.DEALER, "control") for _ in range(2)]
        for caller in callers:
            for _ in range(5):
                caller.send(b"slow")
        await until(lambda: len(serving.requests) >= 2)
        await asyncio.sleep(0.05)
        # Each connected caller may have had one taken before it was known to be too many.
        assert len(serving.requests) <= 3
        answered = 0
        while answered < 10:
            await until(lambda: len(serving.requests) > answered)  # noqa: B023 - it is awaited at once
            serving.hub.reply(serving.requests[answered][0], b"done")
            answered += 1
        for caller in callers:
            for _ in range(5):
                await received(caller)


async def test_callers_take_turns_whatever_one_of_them_sends(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path) as serving:
        flood, user = users(zmq.DEALER, "control"), users(zmq.DEALER, "control")
        user.send(b"first")
        await received(user)
        for _ in range(2000):
            flood.send(b"flood")
        await until(lambda: len(serving.requests) > 10)
        for _ in range(10):
            user.send(b"user")
            before = len(serving.requests)
            await received(user)
            # How many of the flood's pass meanwhile depends on threads of libzmq; but it is never all that waits.
            assert len(serving.requests) - before < 1000
        for _ in range(2000):
            await received(flood)


async def test_a_req_socket_that_numbers_its_requests_is_answered_with_the_number(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path):
        user = users(zmq.REQ, "control")
        user.setsockopt(zmq.REQ_CORRELATE, 1)
        user.send(b"numbered")
        assert await received(user) == [b"re: numbered"]


async def test_who_cannot_be_a_caller_is_turned_away_and_named_in_the_log(tmp_path: Path, users: Users) -> None:
    with structlog.testing.capture_logs() as logs:
        async with served(tmp_path):
            users(zmq.SUB, "control")
            await until(lambda: logs)
    assert logs[0]["event"] == "a caller was refused"
    assert "a SUB socket cannot use this endpoint" in logs[0]["cause"]


async def test_a_request_that_is_too_long_closes_its_sender_alone(tmp_path: Path, users: Users) -> None:
    async with served(tmp_path, control=ControlSettings(max_request_bytes=2048)) as serving:
        long, short = users(zmq.DEALER, "control"), users(zmq.REQ, "control")
        long.send(bytes(2049))
        short.send(bytes(2048))
        assert await received(short) == [b"re: " + bytes(2048)]
        assert len(serving.requests) == 1


async def test_commands_have_a_second_endpoint_where_one_is_set(tmp_path: Path, users: Users) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        control = ControlSettings(endpoint=f"tcp://127.0.0.1:{server.getsockname()[1]}")
    async with served(tmp_path, control=control):
        user = users(zmq.REQ, control.endpoint)
        user.send(b"over tcp")
        assert await received(user) == [b"re: over tcp"]


async def test_an_endpoint_that_is_taken_is_an_error_of_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        endpoint = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        serving = Served(tmp_path, ControlSettings(endpoint=endpoint))
        with pytest.raises(ConfigError, match=f"^control.endpoint: {endpoint}: Address already in use$"):
            serving.hub.start()
        await serving.hub.close()
