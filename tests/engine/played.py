"""The other side of a worker's sockets, played by a test: what the engine believes to be a process."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable

from protocol import control, eth
from protocol.control import Configure, Handoff, Handoffs, WorkerId
from protocol.forkid import Chain


def configuration(index: WorkerId) -> Configure:
    """Some configuration."""
    session = control.SessionConfig(
        handshake_seconds=5,
        pending_inbound_seconds=10,
        pending_outbound_seconds=20,
        connect_seconds=15,
        ping_interval_seconds=15,
        ping_seconds=15,
        goodbye_seconds=2,
        max_goodbyes=256,
        max_bad_messages=4,
        ends_on_breach=True,
        queue_bytes=1 << 20,
        write_seconds=20,
    )
    return Configure(
        worker=index,
        node=control.NodeConfig(b"\x11" * 32, "tests", 30303),
        protocols=(eth.sub_protocol(69),),
        required=(),
        chain=Chain("dev", 1, "ab" * 32),
        head=eth.Head(0, b"\xab" * 32),
        is_head_known=False,
        session=session,
        outbox=control.OutboxConfig("inproc://traffic", 0.002, 1 << 17, 1000),
        responder=control.ResponderConfig("inproc://responders", 5, 4),
    )


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of sockets and threads, which set no event
            await asyncio.sleep(0.001)


class PlayedWorker:
    """The other side of a worker's sockets, and the process that the engine believes to have started."""

    def __init__(self, descriptor: int) -> None:
        self.handoffs = socket.socket(fileno=os.dup(descriptor))
        self.pid = 4000 + descriptor
        # What `wait` gives; `None`: it goes on until it is killed.
        self.code: int | None = 0
        self.kills = 0
        self.stream: socket.socket | None = None
        self.configure: Configure | None = None
        self.decoder = control.command_decoder()
        # Handed over and not taken yet.
        self._coming: list[tuple[Handoff, socket.socket]] = []

    def begin(self) -> None:
        """Read the first record, as a worker does."""
        data, [descriptor], _, _ = socket.recv_fds(self.handoffs, control.RECORD_MAX_BYTES, 1)
        record = control.decode_record(data)
        assert isinstance(record, Configure)
        self.configure = record
        self.stream = socket.socket(fileno=descriptor)

    @property
    def its_stream(self) -> socket.socket:
        """The stream of a worker that has begun."""
        assert self.stream is not None
        return self.stream

    def report(self, *reports: control.Report) -> None:
        """Say something."""
        self.its_stream.sendall(b"".join(map(control.encode, reports)))

    def hear(self) -> list[control.Command]:
        """The commands that have come; at least one is on its way."""
        self.its_stream.settimeout(10)
        return self.decoder.feed(self.its_stream.recv(1 << 16))

    def taken(self) -> tuple[Handoff, socket.socket]:
        """The next handoff."""
        if not self._coming:
            data, descriptors, _, _ = socket.recv_fds(self.handoffs, control.RECORD_MAX_BYTES, control.HANDOFFS_AT_ONCE)
            record = control.decode_record(data)
            assert isinstance(record, Handoffs)
            sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
            self._coming += zip(record.sockets, sockets, strict=True)
        return self._coming.pop(0)

    def die(self, code: int = 0) -> None:
        """End, as a process does: the kernel closes its sockets."""
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
        if self.code is None:
            self.die(-9)
