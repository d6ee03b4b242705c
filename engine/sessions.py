"""What users are told of a session: one object, kept by the engine from the worker's reports."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.counter import Direction
from protocol.control import RemoteChain, SessionEstablished, SessionId, Traffic, WorkerId
from protocol.events import Stage


class SessionView(msgspec.Struct):
    """One session as users see it. Times are microseconds since 1970; `peer` is 64 bytes."""

    session: SessionId
    worker: WorkerId
    direction: Direction
    remote: str
    opened_us: int
    peer: bytes | None = None
    enode: str | None = None
    local: str | None = None
    stage: Stage = Stage.AUTH
    client: str | None = None
    capabilities: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    established_us: int | None = None
    chain: RemoteChain | None = None
    is_connected: bool = True

    def establish(self, report: SessionEstablished, time_us: int) -> None:
        """Take what Hello and Status told."""
        self.stage = Stage.ACTIVE
        self.client, self.capabilities, self.shared = report.client, report.capabilities, report.shared
        self.local, self.chain, self.established_us = report.local, report.chain, time_us
        if self.enode is None and self.peer is not None and report.listen_port:
            host = self.remote.rpartition(":")[0]
            self.enode = f"enode://{self.peer.hex()}@{host}:{report.listen_port}"

    @property
    def peer_hex(self) -> str | None:
        """The peer's id as users see it."""
        return self.peer.hex() if self.peer is not None else None

    def shown(
        self, traffic: Traffic, stage: Stage | None = None, span: tuple[int, int, str] | None = None
    ) -> dict[str, Any]:
        """The session object. `span` is the block range by later updates than the Status."""
        chain = None
        if self.chain is not None:
            chain = msgspec.structs.asdict(self.chain)
            if span is not None:
                chain["earliest"], chain["latest"], chain["head"] = span
        stage = stage or self.stage
        return {
            "session": self.session,
            "peer": self.peer_hex,
            "enode": self.enode,
            "direction": self.direction,
            "phase": "active" if stage is Stage.ACTIVE else "pending",
            "stage": stage,
            "worker": self.worker,
            "remote": self.remote,
            "local": self.local,
            "client": self.client,
            "capabilities": self.capabilities,
            "shared": self.shared,
            "opened_us": self.opened_us,
            "established_us": self.established_us,
            **msgspec.structs.asdict(traffic),
            "chain": chain,
        }
