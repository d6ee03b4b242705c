"""All handlers of commands."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from rlpx.engine.operations.metrics import MetricsCommands
from rlpx.engine.operations.node import NodeCommands
from rlpx.engine.operations.peers import PeerCommands
from rlpx.engine.operations.running import RunningCommands
from rlpx.engine.operations.sending import SendingCommands
from rlpx.engine.operations.sessions import SessionCommands
from rlpx.engine.operations.status import StatusCommands
from rlpx.engine.operations.workers import WorkerCommands


class Handlers(msgspec.Struct, frozen=True):
    """One object per subject, with a method for every command on it."""

    status: StatusCommands
    metrics: MetricsCommands
    running: RunningCommands
    node: NodeCommands
    sessions: SessionCommands
    sending: SendingCommands
    peers: PeerCommands
    workers: WorkerCommands

    def __iter__(self) -> Iterator[object]:
        return (getattr(self, name) for name in self.__struct_fields__)
