"""A process of the swarm on the stream of its command, in a loop of this test's own."""

from __future__ import annotations

import asyncio
import socket
import sys
from time import monotonic

import pytest

from protocol import swarm
from protocol.control import StreamDecoder
from protocol.forkid import Chain
from protocol.swarm import Address, Begin, Go, Leave, Ready, Report, Scenario, Word
from workers.swarm import main, run

CHAIN = Chain("dev", 1, "01" * 32)


async def words(orders: socket.socket, decoder: StreamDecoder[Word]) -> list[Word]:
    """What the process says next; nothing at its end."""
    return decoder.feed(await asyncio.get_running_loop().sock_recv(orders, 65536))


async def listened(*, is_told_to_leave: bool) -> list[Word]:
    """All that a process of three listening peers says, until it is told to leave or its command is gone."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    running = loop.create_task(run(theirs))
    decoder = swarm.word_decoder()
    begin = Begin(Scenario("test", peers=3, processes=1), 1, 0, CHAIN, b"", Address("127.0.0.1", 0))
    await loop.sock_sendall(ours, swarm.encode(begin))
    heard = await words(ours, decoder)
    await loop.sock_sendall(ours, swarm.encode(Go(monotonic())))
    if is_told_to_leave:
        await loop.sock_sendall(ours, swarm.encode(Leave()))
        while more := await words(ours, decoder):
            heard += more
    ours.close()
    await running
    return heard


def test_it_says_where_its_peers_listen_and_reports_until_its_last_word() -> None:
    ready, *reports = asyncio.run(listened(is_told_to_leave=True))
    assert isinstance(ready, Ready)
    assert sorted(ready.enodes) == [0, 1, 2]
    assert all(enode.startswith("enode://") for enode in ready.enodes.values())
    assert [report.is_last for report in reports if isinstance(report, Report)] == [False, True]


def test_it_ends_with_its_command() -> None:
    assert len(asyncio.run(listened(is_told_to_leave=False))) == 1


def test_nobody_else_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["workers.swarm"])
    with pytest.raises(SystemExit, match="nobody else needs to"):
        main()
