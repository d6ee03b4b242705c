"""A process of the swarm on the stream of its command, in a loop of this test's own."""

from __future__ import annotations

import asyncio
import socket
import sys
from time import monotonic

import pytest

from rlpx.protocol.bus import swarm
from rlpx.protocol.bus.framing import StreamDecoder
from rlpx.protocol.bus.swarm import Address, Begin, Go, Leave, Ready, Report, Scenario, SwarmReport
from rlpx.protocol.eth.forkid import Chain
from rlpx.workers.swarm.__main__ import main, run

CHAIN = Chain("dev", 1, "01" * 32)


async def words(orders: socket.socket, decoder: StreamDecoder[SwarmReport]) -> list[SwarmReport]:
    """The next messages of the process; none at its end."""
    return decoder.feed(await asyncio.get_running_loop().sock_recv(orders, 65536))


async def listened(*, is_told_to_leave: bool) -> list[SwarmReport]:
    """All messages of a process of three listening peers, until it is told to leave or its command is gone."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    running = loop.create_task(run(theirs))
    decoder = swarm.report_decoder()
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


@pytest.mark.loop("asyncio")
async def test_it_says_where_its_peers_listen_and_reports_until_its_last_word() -> None:
    ready, *reports = await listened(is_told_to_leave=True)
    assert isinstance(ready, Ready)
    assert sorted(ready.enodes) == [0, 1, 2]
    assert all(enode.startswith("enode://") for enode in ready.enodes.values())
    assert [report.is_last for report in reports if isinstance(report, Report)] == [False, True]


@pytest.mark.loop("asyncio")
async def test_it_ends_with_its_command() -> None:
    assert len(await listened(is_told_to_leave=False)) == 1


def test_nobody_else_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rlpx.workers.swarm"])
    with pytest.raises(SystemExit, match="nobody else needs to"):
        main()
