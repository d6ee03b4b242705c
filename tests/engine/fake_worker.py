"""The other side of a worker's sockets, which a test controls; the engine takes it for a process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.records import (
    HANDOFFS_AT_ONCE,
    RECORD_MAX_BYTES,
    Configure,
    Handoff,
    Handoffs,
    NodeConfig,
    decode_record,
)
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.eth.status import Head
from rlpx.protocol.settings import WorkerSettings


def configuration(index: WorkerId) -> Configure:
    """Some configuration."""
    return Configure(
        worker=index,
        run="run",
        node=NodeConfig(b"\x11" * 32, "tests", 30303),
        protocols=(eth.sub_protocol(69),),
        required=(),
        chain=Chain("dev", 1, "ab" * 32),
        head=Head(0, b"\xab" * 32),
        is_head_known=False,
        settings=WorkerSettings(),
        data_path="/nowhere/worker-0.ipc",
    )


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - sockets and threads set no event
            await asyncio.sleep(0.001)


class FakeWorker:
    """The other side of a worker's sockets, and the process that the engine takes it for."""

    def __init__(self, descriptor: int) -> None:
        self.handoffs = socket.socket(fileno=os.dup(descriptor))
        self.pid = 4000 + descriptor
        # What `wait` returns; with `None` the process runs until it is killed.
        self.code: int | None = 0
        self.kills = 0
        self.stdout = None
        self.stream: socket.socket | None = None
        self.configure: Configure | None = None
        self.decoder = control.command_decoder()
        # Sockets that were handed over and that the test has not taken yet.
        self._coming: list[tuple[Handoff, socket.socket]] = []

    def begin(self) -> None:
        """Read the first record, as a worker does."""
        data, [descriptor], _, _ = socket.recv_fds(self.handoffs, RECORD_MAX_BYTES, 1)
        record = decode_record(data)
        assert isinstance(record, Configure)
        self.configure = record
        self.stream = socket.socket(fileno=descriptor)

    @property
    def its_stream(self) -> socket.socket:
        """The stream of a worker that has begun."""
        assert self.stream is not None
        return self.stream

    def report(self, *reports: control.Report) -> None:
        """Report something."""
        self.its_stream.sendall(b"".join(map(control.encode, reports)))

    def hear(self) -> list[control.Command]:
        """The commands that have arrived; at least one must be on its way."""
        self.its_stream.settimeout(10)
        return self.decoder.feed(self.its_stream.recv(1 << 16))

    def taken(self) -> tuple[Handoff, socket.socket]:
        """The next handoff."""
        if not self._coming:
            data, descriptors, _, _ = socket.recv_fds(self.handoffs, RECORD_MAX_BYTES, HANDOFFS_AT_ONCE)
            record = decode_record(data)
            assert isinstance(record, Handoffs)
            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            self._coming += zip(record.sockets, sockets, strict=True)
        return self._coming.pop(0)

    def die(self, code: int = 0) -> None:
        """End as a process does: the kernel closes its sockets."""
        self.code = code
        self.close()

    def close(self) -> None:
        """Close both sockets."""
        self.handoffs.close()
        for _, sock in self._coming:
            sock.close()
        if self.stream is not None:
            self.stream.close()

    # -- what the engine does to the process --------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> int:
        """The exit code."""
        if self.code is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return self.code

    def kill(self) -> None:
        """SIGKILL."""
        self.kills += 1
        self.die(-9 if self.code is None else self.code)
