"""The listener accepts all that wait, accepts none while paused, and pauses when descriptors have run out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import structlog.testing

from rlpx.engine.intake.listener import (
    ACCEPT_BUDGET,
    EXHAUSTED_LOG_SECONDS,
    EXHAUSTED_PAUSE_SECONDS,
    Listener,
    ListeningSocket,
)
from rlpx.protocol.bus.control import KERNEL_BYTES

DESCRIPTOR = 99
PEER = ("1.2.3.4", 5555)


class ScriptedLoop:
    """A loop that turns when the test asks, with a clock that stands still until then."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.readers: dict[int, Callable[[], None]] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        """Now."""
        return self.now

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Watch a descriptor."""
        assert descriptor not in self.readers
        self.readers[descriptor] = callback

    def remove_reader(self, descriptor: int) -> bool:
        """Stop watching a descriptor."""
        return self.readers.pop(descriptor, None) is not None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Later."""
        self.timers.append((self.now + seconds, callback))

    def turn(self) -> None:
        """One turn in which every descriptor is readable."""
        for callback in list(self.readers.values()):
            callback()

    def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due = [callback for at, callback in self.timers if at <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for callback in due:
            callback()

    @property
    def is_listening(self) -> bool:
        """Whether the listener would be woken."""
        return DESCRIPTOR in self.readers


class ScriptedSocket:
    """A listening socket whose `accept` returns the results that a test has set, then nothing."""

    def __init__(self) -> None:
        self.coming: deque[OSError | int] = deque()
        self.accepts = 0
        self.is_closed = False

    def fileno(self) -> int:
        """Some number."""
        return DESCRIPTOR

    def accept_descriptor(self) -> tuple[int, tuple[str, int]]:
        """Return the next result of the script."""
        self.accepts += 1
        if not self.coming:
            raise BlockingIOError
        coming = self.coming.popleft()
        if isinstance(coming, OSError):
            raise coming
        return coming, PEER

    def close(self) -> None:
        """Closed."""
        self.is_closed = True


class Harness:
    """A listener between a scripted socket and a scripted loop, and what it accepted."""

    def __init__(self) -> None:
        self.loop = ScriptedLoop()
        self.socket = ScriptedSocket()
        self.accepted: list[tuple[int, str, int]] = []
        # How many were accepted in each turn so far.
        self.turns: list[int] = []
        self.listener = Listener(cast("ListeningSocket", self.socket), cast("asyncio.AbstractEventLoop", self.loop), self)

    def on_accept(self, descriptor: int, host: str, port: int) -> None:
        """Record it."""
        self.accepted.append((descriptor, host, port))

    def on_accepted(self) -> None:
        """Record it."""
        self.turns.append(len(self.accepted) - sum(self.turns))

    def come(self, *coming: OSError | int) -> None:
        """Put more into the kernel's queue."""
        self.socket.coming.extend(coming)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def failed(number: int) -> OSError:
    """An error of accept(2)."""
    return OSError(number, os.strerror(number))


def test_it_accepts_all_that_is_there(harness: Harness) -> None:
    harness.come(11, 12)
    harness.listener.resume()
    harness.loop.turn()
    assert harness.accepted == [(11, *PEER), (12, *PEER)]
    assert harness.turns == [2]


def test_it_accepts_nothing_before_it_is_told_to(harness: Harness) -> None:
    assert not harness.loop.is_listening


def test_one_turn_accepts_so_many_and_no_more(harness: Harness) -> None:
    harness.come(*range(ACCEPT_BUDGET + 1))
    harness.listener.resume()
    harness.loop.turn()
    assert len(harness.accepted) == ACCEPT_BUDGET
    harness.loop.turn()
    assert len(harness.accepted) == ACCEPT_BUDGET + 1


def test_while_paused_what_comes_stays_in_the_kernel(harness: Harness) -> None:
    harness.listener.resume()
    harness.listener.pause()
    assert not harness.loop.is_listening
    harness.listener.resume()
    assert harness.loop.is_listening


def test_resuming_and_pausing_twice_is_harmless(harness: Harness) -> None:
    harness.listener.resume()
    harness.listener.resume()
    harness.listener.pause()
    harness.listener.pause()
    assert not harness.loop.is_listening


def test_a_pause_from_within_an_accept_holds_for_the_next_one() -> None:
    class OneAtATime(Harness):
        def on_accept(self, descriptor: int, host: str, port: int) -> None:
            super().on_accept(descriptor, host, port)
            self.listener.pause()

    harness = OneAtATime()
    harness.come(11, 12)
    harness.listener.resume()
    harness.loop.turn()
    assert harness.turns == [1]
    assert harness.socket.accepts == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_descriptors_it_stands_back_says_so_once_and_goes_on(harness: Harness, number: int) -> None:
    harness.come(failed(number))
    harness.listener.resume()
    with structlog.testing.capture_logs() as logs:
        harness.loop.turn()
        listening = [harness.loop.is_listening]
        for part in (0.9, 0.2):
            harness.loop.passes(EXHAUSTED_PAUSE_SECONDS * part)
            listening.append(harness.loop.is_listening)
    assert listening == [False, False, True]
    assert [(line["log_level"], line["error"]) for line in logs] == [("warning", os.strerror(number))]
    harness.come(11)
    harness.loop.turn()
    assert len(harness.accepted) == 1


def test_close_to_the_end_of_the_table_it_stands_back_and_closes_what_it_took(harness: Harness) -> None:
    with socket.socket() as last:
        # What `come` names is the descriptor that the accept gives; it is closed.
        descriptor = os.dup(last.fileno())
        harness.listener.ceiling = descriptor
        harness.come(descriptor)
        harness.listener.resume()
        with structlog.testing.capture_logs() as logs:
            harness.loop.turn()
        assert harness.accepted == []
        assert not harness.loop.is_listening
        assert logs[0]["error"] == "the table of file descriptors is almost full"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        harness.loop.passes(EXHAUSTED_PAUSE_SECONDS)
        assert harness.loop.is_listening


def test_while_it_lasts_the_log_says_so_every_ten_seconds_only(harness: Harness) -> None:
    harness.listener.resume()
    with structlog.testing.capture_logs() as logs:
        for _ in range(int(EXHAUSTED_LOG_SECONDS / EXHAUSTED_PAUSE_SECONDS) + 5):
            harness.come(failed(errno.EMFILE))
            harness.loop.turn()
            harness.loop.passes(EXHAUSTED_PAUSE_SECONDS)
    assert len(logs) == 2


def test_exhausted_it_tries_once_a_pause(harness: Harness) -> None:
    harness.come(failed(errno.EMFILE), failed(errno.EMFILE), 11)
    harness.listener.resume()
    harness.loop.turn()
    harness.loop.turn()
    assert harness.socket.accepts == 1


def test_being_told_to_resume_does_not_cut_the_standing_back_short(harness: Harness) -> None:
    """The engine resumes after every report of a worker; with a full table, that must not become a busy loop."""
    harness.come(failed(errno.EMFILE))
    harness.listener.resume()
    harness.loop.turn()
    harness.listener.resume()
    assert not harness.loop.is_listening
    harness.loop.passes(EXHAUSTED_PAUSE_SECONDS)
    assert harness.loop.is_listening


def test_a_pause_while_standing_back_holds_after_it(harness: Harness) -> None:
    harness.come(failed(errno.EMFILE))
    harness.listener.resume()
    harness.loop.turn()
    harness.listener.pause()
    harness.loop.passes(EXHAUSTED_PAUSE_SECONDS)
    assert not harness.loop.is_listening


def test_closing_while_standing_back_is_the_end(harness: Harness) -> None:
    harness.come(failed(errno.EMFILE))
    harness.listener.resume()
    harness.loop.turn()
    harness.listener.close()
    harness.loop.passes(EXHAUSTED_PAUSE_SECONDS)
    assert harness.socket.is_closed
    assert not harness.loop.is_listening


# accept(2), "Error handling": what is already wrong with the new socket counts as EAGAIN does. EPERM is a firewall's.
@pytest.mark.parametrize(
    "number",
    [
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    ],
    ids=errno.errorcode.get,
)
def test_a_peer_that_was_gone_before_is_skipped(harness: Harness, number: int) -> None:
    harness.come(failed(number), 11)
    harness.listener.resume()
    with structlog.testing.capture_logs() as logs:
        harness.loop.turn()
    assert len(harness.accepted) == 1
    assert logs == []


# -- with real sockets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with Listener.bind("127.0.0.1", 0) as sock:
        yield sock


def test_a_bound_socket_does_not_block(listening: socket.socket) -> None:
    assert not listening.getblocking()
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_a_port_that_is_taken_is_an_error_and_leaves_no_socket(listening: socket.socket) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        Listener.bind("127.0.0.1", listening.getsockname()[1])


def test_it_listens_on_ipv6_as_well() -> None:
    with Listener.bind("::1", 0) as sock:
        assert sock.family is socket.AF_INET6


class Arrivals:
    """Takes what is accepted."""

    def __init__(self) -> None:
        self.connections: list[tuple[socket.socket, str, int]] = []
        self.is_complete = asyncio.Event()

    def on_accept(self, descriptor: int, host: str, port: int) -> None:
        """Record it."""
        self.connections.append((socket.socket(fileno=descriptor), host, port))

    def on_accepted(self) -> None:
        """That is all."""
        self.is_complete.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_real_connections_arrive_with_their_address(host: str) -> None:
    with Listener.bind(host, 0) as listening:
        arrivals = Arrivals()
        listener = Listener(listening, asyncio.get_running_loop(), arrivals)
        listener.resume()
        _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        await asyncio.wait_for(arrivals.is_complete.wait(), 5)
        [(sock, *address)] = arrivals.connections
        with sock:
            assert address == list(writer.get_extra_info("sockname")[:2])
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        listener.close()


def test_what_is_accepted_does_not_wait_for_company(listening: socket.socket) -> None:
    with socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_kernel_holds_little_of_what_a_peer_does_not_read(listening: socket.socket) -> None:
    with socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        accepted.setblocking(False)
        sent = 0
        with accepted, contextlib.suppress(BlockingIOError):
            while sent < 2**23:
                sent += accepted.send(bytes(2**16))
        # What may be unsent, what the peer's kernel takes, and the last piece.
        assert KERNEL_BYTES <= sent < 2**20


async def test_what_was_accepted_before_a_fault_is_handed_over() -> None:
    class Faulty(Arrivals):
        def on_accept(self, descriptor: int, host: str, port: int) -> None:
            super().on_accept(descriptor, host, port)
            if len(self.connections) == 2:
                raise ZeroDivisionError

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    with Listener.bind("127.0.0.1", 0) as listening:
        arrivals = Faulty()
        listener = Listener(listening, asyncio.get_running_loop(), arrivals)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(2)]
        listener.resume()
        await asyncio.wait_for(arrivals.is_complete.wait(), 5)
        assert [type(fault) for fault in faults] == [ZeroDivisionError]
        listener.close()
        for sock in (*clients, *(item[0] for item in arrivals.connections)):
            sock.close()


def test_an_ipv4_peer_on_a_socket_of_both_kinds_has_its_ipv4_address() -> None:
    try:
        listening = Listener.bind("::", 0)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    try:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as peer:
            listening.setblocking(True)
            descriptor, address = listening.accept_descriptor()
            os.close(descriptor)
            assert address == peer.getsockname()
        with socket.create_connection(("::1", port)):
            descriptor, (host, _) = listening.accept_descriptor()
            os.close(descriptor)
            assert host == "::1"
    finally:
        listening.close()
