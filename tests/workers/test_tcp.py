"""A connection to one of several addresses: tried in their order, each before the one in front has failed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from rlpx.workers import tcp
from rlpx.workers.tcp import ConnectError, connect


@contextmanager
def listening() -> Iterator[tuple[str, int]]:
    """An address where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def nobody(host: str = "127.0.0.1") -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.create_server((host, 0)) as server:
        address: tuple[str, int] = server.getsockname()
        return address


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """An address that does not answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        try:
            yield server.getsockname()
        finally:
            for sock in waiting:
                sock.close()


async def reached(*addresses: tuple[str, int], seconds: float = 5.0) -> tuple[str, int]:
    """The address to which a connection was made."""
    async with asyncio.timeout(seconds):
        sock = await connect(asyncio.get_running_loop(), addresses)
    with sock:
        peer: tuple[str, int] = sock.getpeername()
    # Attempts that were cancelled close their sockets within the next iterations of the loop.
    await asyncio.sleep(0.01)
    return peer


async def test_the_first_address_that_answers_is_taken() -> None:
    with listening() as one, listening() as two:
        assert await reached(one) == one
        assert await reached(one, two) == one
        assert await reached(nobody(), two, one) == two


async def test_an_address_that_does_not_answer_holds_up_the_next_one_for_a_moment_only() -> None:
    with silent() as one, listening() as two:
        began_at = monotonic()
        assert await reached(one, two) == two
        assert monotonic() - began_at >= tcp.STAGGER_SECONDS


async def test_where_nobody_listens_that_is_said_of_each() -> None:
    with pytest.raises(ConnectError, match=r"^Connection refused$") as one:
        await reached(nobody())
    assert one.value.is_refused
    with pytest.raises(ConnectError, match=r"127.0.0.1 port \d+: Connection refused; 127.0.0.2 port \d+: Conn") as two:
        await reached(nobody(), nobody("127.0.0.2"))
    assert two.value.is_refused


async def test_a_zone_that_this_machine_does_not_have_is_named() -> None:
    with pytest.raises(ConnectError, match="there is no interface nosuch0") as caught:
        await reached(("fe80::1%nosuch0", 1))
    assert not caught.value.is_refused


async def test_a_zone_may_be_a_name_or_a_number() -> None:
    number = socket.if_nametoindex("lo")
    for zone in ("lo", str(number)):
        with pytest.raises(ConnectError) as caught:
            await reached((f"fe80::1%{zone}", 1), seconds=2.0)
        assert "interface" not in str(caught.value)


async def test_a_connect_that_is_called_off_leaves_no_socket_behind() -> None:
    # Warnings are errors: a socket that is never closed would be one.
    with silent() as one, silent() as two, pytest.raises(TimeoutError):
        await reached(one, two, seconds=tcp.STAGGER_SECONDS + 0.2)
