"""The engine's own process: when it started, the memory it uses, and whether it has file descriptors to spare."""

from __future__ import annotations

import os
import resource
from time import monotonic, process_time, time_ns

from rlpx.engine.process.proc import OwnMemory, open_descriptors
from rlpx.protocol.bus.descriptors import Descriptors
from rlpx.protocol.bus.metrics import ProcessUse


class OwnProcess:
    """See the module."""

    def __init__(self) -> None:
        self.started_at = monotonic()
        self._started_us = time_ns() // 1000
        self._memory = OwnMemory()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.descriptors = Descriptors(limit, self._memory.descriptor, os.dup, os.close)

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        return self._memory.resident_bytes()

    @property
    def uptime_ms(self) -> int:
        """Milliseconds since the start."""
        return int((monotonic() - self.started_at) * 1000)

    def use(self) -> ProcessUse:
        """What this process uses."""
        return ProcessUse(
            pid=os.getpid(),
            started_us=self._started_us,
            cpu_seconds=process_time(),
            memory_bytes=self.memory_bytes,
            descriptors=open_descriptors(),
            descriptor_limit=self.descriptors.limit,
        )

    def close(self) -> None:
        """Close the file that memory figures are read from."""
        self._memory.close()
