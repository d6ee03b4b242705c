"""A method for every command, made from the declarations by `rlpx.engine.cli.typed_methods`: do not edit.

Each takes `timeout`, the seconds after which the program gives up and the engine is told to. They raise `EngineError` and
its subclasses (`errors.py`), and `EngineUnavailableError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, TypeVar

from rlpx.engine.client.by_host import ByHost
from rlpx.engine.client.calls import PeerAnswer
from rlpx.protocol.bus import metrics, results
from rlpx.protocol.bus.values import Level, ReasonName

T = TypeVar("T")
# ruff: noqa: ASYNC109 - the engine must know of a timeout, and the blocking methods have the same parameters
# ruff: noqa: PLR0913 - a command may have many parameters, and each has a name here
# ruff: noqa: A002 - the parameters' names are those of the commands


class Commands(ABC):
    """The commands of an engine, for programs on asyncio."""

    @abstractmethod
    async def _command(
        self, name: str, parameters: Mapping[str, object], result: type[T], payload: bytes | None, timeout: float | None
    ) -> T:
        """Carry out one command."""

    async def status(self, *, timeout: float | None = None) -> results.StatusResult:
        """Show the engine at a glance. The result has version, compiled or not, pid, enode, uptime, chain and head; for each
        worker its pid, sessions, loop lag, memory and dropped events; subscribers, counts, budgets and lost log lines.
        """
        return await self._command("status", {}, results.StatusResult, None, timeout)

    async def counts(self, *, timeout: float | None = None) -> results.CountsResult:
        """Count the sessions, and show the limits. Accepted connections without an auth are counted apart, pending and
        active sessions by direction.
        """
        return await self._command("counts", {}, results.CountsResult, None, timeout)

    async def metrics(self, *, timeout: float | None = None) -> metrics.MetricsResult:
        """Show all counters of the engine and its workers, as raw numbers since the start of each process. `rlpx-watch`
        makes Prometheus metrics of them.
        """
        return await self._command("metrics", {}, metrics.MetricsResult, None, timeout)

    async def sessions(
        self,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> results.SessionsResult:
        """List the sessions that match every given filter, the oldest first."""
        return await self._command(
            "sessions",
            {
                "direction": direction,
                "phase": phase,
                "worker": worker,
                "peer": peer,
                "client": client,
                "shared": shared,
                "limit": limit,
            },
            results.SessionsResult,
            None,
            timeout,
        )

    async def snapshot(self, *, timeout: float | None = None) -> results.SnapshotResult[results.SessionObject]:
        """Show all sessions, and the ordinal of the next event of each topic and worker. `rlpx.engine.client` begins with
        it.
        """
        return await self._command("snapshot", {}, results.SnapshotResult[results.SessionObject], None, timeout)

    async def session(self, session: int, *, timeout: float | None = None) -> results.SessionObject:
        """Show one session."""
        return await self._command("session", {"session": session}, results.SessionObject, None, timeout)

    async def dial(self, enode: str, *, wait: bool = False, timeout: float | None = None) -> results.DialResult:
        """Connect to a peer. The result is the session's number, at once. With `wait`, it is the session once established,
        or an error with the reason why it was not.
        """
        return await self._command("dial", {"enode": enode, "wait": wait}, results.DialResult, None, timeout)

    async def disconnect(
        self, session: int, *, reason: ReasonName = "disconnect_requested", timeout: float | None = None
    ) -> results.DoneResult:
        """End one session politely."""
        return await self._command("disconnect", {"session": session, "reason": reason}, results.DoneResult, None, timeout)

    async def disconnect_all(
        self, *, reason: ReasonName = "disconnect_requested", timeout: float | None = None
    ) -> results.DoneResult:
        """End all sessions politely, including dials in progress."""
        return await self._command("disconnect-all", {"reason": reason}, results.DoneResult, None, timeout)

    async def history(self, *, limit: int = 100, timeout: float | None = None) -> list[results.EndedSession]:
        """List the sessions and attempts that ended last, the latest first."""
        return await self._command("history", {"limit": limit}, list[results.EndedSession], None, timeout)

    async def send(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        timeout: float | None = None,
    ) -> results.DoneResult:
        """Send one message to one peer. Without `raw`, a message that peers punish is refused: a payload that does not parse
        in the negotiated version, a second Status, gossip of blocks under proof of stake, an announcement that is empty or
        names a transaction twice. This also applies to `request` and `broadcast`.
        """
        return await self._command(
            "send",
            {"session": session, "capability": capability, "message": message, "raw": raw},
            results.DoneResult,
            payload,
            timeout,
        )

    async def request(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        timeout_s: float | None = None,
        timeout: float | None = None,
    ) -> PeerAnswer:
        """Send one request to one peer and return its answer. The engine chooses the request id on the wire; the answer has
        the payload's own. Without `timeout_s` the session's timeout applies, 2 to 20 s. With `binary`, the payload of the
        answer is the second frame of the reply.
        """
        return await self._command(
            "request",
            {
                "session": session,
                "capability": capability,
                "message": message,
                "raw": raw,
                "timeout_s": timeout_s,
                "binary": True,
            },
            PeerAnswer,
            payload,
            timeout,
        )

    async def broadcast(
        self,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        raw: bool = False,
        exceptions: tuple[int, ...] = (),
        timeout: float | None = None,
    ) -> results.BroadcastResult:
        """Send one message to every active session that matches. The filters are those of `sessions`. The message has the
        form of one version; `shared` selects the sessions with that version. `except` leaves sessions out. The result lists
        the sessions that could not get it, and why.
        """
        return await self._command(
            "broadcast",
            {
                "direction": direction,
                "phase": phase,
                "worker": worker,
                "peer": peer,
                "client": client,
                "shared": shared,
                "capability": capability,
                "message": message,
                "raw": raw,
                "except": exceptions,
            },
            results.BroadcastResult,
            payload,
            timeout,
        )

    async def set_status(
        self,
        number: int,
        hash: str,
        *,
        time: int | None = None,
        earliest: int = 0,
        total_difficulty: str = "0",
        timeout: float | None = None,
    ) -> results.ConfirmedResult:
        """Announce another head and range. New handshakes announce it at once; running eth/69+ sessions do every 384 s if it
        has moved by 32. Without `time` fork rules follow the wall clock. The result lists the workers that confirmed.
        """
        return await self._command(
            "set-status",
            {"number": number, "hash": hash, "time": time, "earliest": earliest, "total_difficulty": total_difficulty},
            results.ConfirmedResult,
            None,
            timeout,
        )

    async def peers(self, *, timeout: float | None = None) -> results.PeersResult:
        """List static and trusted peers, and bans. Static peers are kept connected, trusted ones are exempt from the active
        limits. Each is listed with the time of its next dial, or the reason why it is not dialled.
        """
        return await self._command("peers", {}, results.PeersResult, None, timeout)

    async def peers_add(
        self, enode: str, *, static: bool = True, trusted: bool = False, timeout: float | None = None
    ) -> results.PeersResult:
        """Keep a peer connected (`static`), or exempt it from the active limits (`trusted`)."""
        return await self._command(
            "peers-add", {"enode": enode, "static": static, "trusted": trusted}, results.PeersResult, None, timeout
        )

    async def peers_remove(self, peer: str, *, timeout: float | None = None) -> results.PeersResult:
        """Stop treating a peer as static or trusted. Its session continues."""
        return await self._command("peers-remove", {"peer": peer}, results.PeersResult, None, timeout)

    async def ban(
        self, *, peer: str | None = None, address: str | None = None, seconds: float = 43200.0, timeout: float | None = None
    ) -> results.DoneResult:
        """Refuse a peer or an address for some time, and end its sessions. Zero seconds lifts a ban."""
        return await self._command(
            "ban", {"peer": peer, "address": address, "seconds": seconds}, results.DoneResult, None, timeout
        )

    async def set_limits(
        self,
        *,
        max_unauthenticated: int | None = None,
        max_pending_inbound: int | None = None,
        max_pending_outbound: int | None = None,
        max_active_inbound: int | None = None,
        max_active_outbound: int | None = None,
        timeout: float | None = None,
    ) -> results.CountsResult:
        """Change limits of the running engine. Sessions above a lowered limit stay."""
        return await self._command(
            "set-limits",
            {
                "max_unauthenticated": max_unauthenticated,
                "max_pending_inbound": max_pending_inbound,
                "max_pending_outbound": max_pending_outbound,
                "max_active_inbound": max_active_inbound,
                "max_active_outbound": max_active_outbound,
            },
            results.CountsResult,
            None,
            timeout,
        )

    async def restart_workers(
        self, *, drain_s: float | None = None, wait: bool = False, timeout: float | None = None
    ) -> results.RestartResult:
        """Replace all workers, one by one. A new worker is ready before the old one leaves. The old one takes no new
        sessions and ends its own politely, evenly over `drain_s` (by default `timeouts.worker_drain_s`); the next one
        follows when it is gone. With 0, its sessions stay until they end, and the next one follows at once. If a new worker
        does not become ready, the old one stays, and the restart is over. The result lists who is to leave, at once; with
        `wait`, also who has replaced whom, in the end.
        """
        return await self._command(
            "restart-workers", {"drain_s": drain_s, "wait": wait}, results.RestartResult, None, timeout
        )

    async def set_workers(
        self, workers: int, *, drain_s: float | None = None, timeout: float | None = None
    ) -> results.WorkersResult:
        """Change the number of workers. New ones are ready when the result comes; if one does not become ready, none is
        added. Those with the highest numbers leave, as in `restart-workers`. A given drain time also applies to workers that
        are leaving already.
        """
        return await self._command(
            "set-workers", {"workers": workers, "drain_s": drain_s}, results.WorkersResult, None, timeout
        )

    async def subprotocols(self, *, timeout: float | None = None) -> results.SubProtocolsResult:
        """List the sub-protocols that every new Hello offers."""
        return await self._command("subprotocols", {}, results.SubProtocolsResult, None, timeout)

    async def subprotocols_add(
        self, protocol: str, *, required: bool = False, timeout: float | None = None
    ) -> results.ConfirmedResult:
        """Offer a sub-protocol of your own in new handshakes."""
        return await self._command(
            "subprotocols-add", {"protocol": protocol, "required": required}, results.ConfirmedResult, None, timeout
        )

    async def subprotocols_remove(self, protocol: str, *, timeout: float | None = None) -> results.ConfirmedResult:
        """Stop offering a sub-protocol."""
        return await self._command("subprotocols-remove", {"protocol": protocol}, results.ConfirmedResult, None, timeout)

    async def log_level(self, level: Level, *, timeout: float | None = None) -> results.LogLevelResult:
        """Set the level: from now on, log lines of this level and above are written."""
        return await self._command("log-level", {"level": level}, results.LogLevelResult, None, timeout)

    async def discover(self, *, events: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """Show the OpenRPC document of all commands, or with `events` the JSON Schema of all events."""
        return await self._command("discover", {"events": events}, dict[str, Any], None, timeout)

    async def shutdown(self, *, timeout: float | None = None) -> results.StoppingResult:
        """Disconnect every peer politely, then end, as on SIGTERM."""
        return await self._command("shutdown", {}, results.StoppingResult, None, timeout)


class BlockingCommands(ABC):
    """The commands of an engine, for programs that wait for each."""

    _commands: Commands

    @abstractmethod
    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        """Wait until a call is done."""

    def status(self, *, timeout: float | None = None) -> results.StatusResult:
        """See `Commands.status`."""
        return self._wait(self._commands.status(timeout=timeout))

    def counts(self, *, timeout: float | None = None) -> results.CountsResult:
        """See `Commands.counts`."""
        return self._wait(self._commands.counts(timeout=timeout))

    def metrics(self, *, timeout: float | None = None) -> metrics.MetricsResult:
        """See `Commands.metrics`."""
        return self._wait(self._commands.metrics(timeout=timeout))

    def sessions(
        self,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> results.SessionsResult:
        """See `Commands.sessions`."""
        return self._wait(
            self._commands.sessions(
                direction=direction,
                phase=phase,
                worker=worker,
                peer=peer,
                client=client,
                shared=shared,
                limit=limit,
                timeout=timeout,
            )
        )

    def snapshot(self, *, timeout: float | None = None) -> results.SnapshotResult[results.SessionObject]:
        """See `Commands.snapshot`."""
        return self._wait(self._commands.snapshot(timeout=timeout))

    def session(self, session: int, *, timeout: float | None = None) -> results.SessionObject:
        """See `Commands.session`."""
        return self._wait(self._commands.session(session, timeout=timeout))

    def dial(self, enode: str, *, wait: bool = False, timeout: float | None = None) -> results.DialResult:
        """See `Commands.dial`."""
        return self._wait(self._commands.dial(enode, wait=wait, timeout=timeout))

    def disconnect(
        self, session: int, *, reason: ReasonName = "disconnect_requested", timeout: float | None = None
    ) -> results.DoneResult:
        """See `Commands.disconnect`."""
        return self._wait(self._commands.disconnect(session, reason=reason, timeout=timeout))

    def disconnect_all(
        self, *, reason: ReasonName = "disconnect_requested", timeout: float | None = None
    ) -> results.DoneResult:
        """See `Commands.disconnect_all`."""
        return self._wait(self._commands.disconnect_all(reason=reason, timeout=timeout))

    def history(self, *, limit: int = 100, timeout: float | None = None) -> list[results.EndedSession]:
        """See `Commands.history`."""
        return self._wait(self._commands.history(limit=limit, timeout=timeout))

    def send(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        timeout: float | None = None,
    ) -> results.DoneResult:
        """See `Commands.send`."""
        return self._wait(self._commands.send(session, capability, message, payload, raw=raw, timeout=timeout))

    def request(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        timeout_s: float | None = None,
        timeout: float | None = None,
    ) -> PeerAnswer:
        """See `Commands.request`."""
        return self._wait(
            self._commands.request(session, capability, message, payload, raw=raw, timeout_s=timeout_s, timeout=timeout)
        )

    def broadcast(
        self,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        raw: bool = False,
        exceptions: tuple[int, ...] = (),
        timeout: float | None = None,
    ) -> results.BroadcastResult:
        """See `Commands.broadcast`."""
        return self._wait(
            self._commands.broadcast(
                capability,
                message,
                payload,
                direction=direction,
                phase=phase,
                worker=worker,
                peer=peer,
                client=client,
                shared=shared,
                raw=raw,
                exceptions=exceptions,
                timeout=timeout,
            )
        )

    def set_status(
        self,
        number: int,
        hash: str,
        *,
        time: int | None = None,
        earliest: int = 0,
        total_difficulty: str = "0",
        timeout: float | None = None,
    ) -> results.ConfirmedResult:
        """See `Commands.set_status`."""
        return self._wait(
            self._commands.set_status(
                number, hash, time=time, earliest=earliest, total_difficulty=total_difficulty, timeout=timeout
            )
        )

    def peers(self, *, timeout: float | None = None) -> results.PeersResult:
        """See `Commands.peers`."""
        return self._wait(self._commands.peers(timeout=timeout))

    def peers_add(
        self, enode: str, *, static: bool = True, trusted: bool = False, timeout: float | None = None
    ) -> results.PeersResult:
        """See `Commands.peers_add`."""
        return self._wait(self._commands.peers_add(enode, static=static, trusted=trusted, timeout=timeout))

    def peers_remove(self, peer: str, *, timeout: float | None = None) -> results.PeersResult:
        """See `Commands.peers_remove`."""
        return self._wait(self._commands.peers_remove(peer, timeout=timeout))

    def ban(
        self, *, peer: str | None = None, address: str | None = None, seconds: float = 43200.0, timeout: float | None = None
    ) -> results.DoneResult:
        """See `Commands.ban`."""
        return self._wait(self._commands.ban(peer=peer, address=address, seconds=seconds, timeout=timeout))

    def set_limits(
        self,
        *,
        max_unauthenticated: int | None = None,
        max_pending_inbound: int | None = None,
        max_pending_outbound: int | None = None,
        max_active_inbound: int | None = None,
        max_active_outbound: int | None = None,
        timeout: float | None = None,
    ) -> results.CountsResult:
        """See `Commands.set_limits`."""
        return self._wait(
            self._commands.set_limits(
                max_unauthenticated=max_unauthenticated,
                max_pending_inbound=max_pending_inbound,
                max_pending_outbound=max_pending_outbound,
                max_active_inbound=max_active_inbound,
                max_active_outbound=max_active_outbound,
                timeout=timeout,
            )
        )

    def restart_workers(
        self, *, drain_s: float | None = None, wait: bool = False, timeout: float | None = None
    ) -> results.RestartResult:
        """See `Commands.restart_workers`."""
        return self._wait(self._commands.restart_workers(drain_s=drain_s, wait=wait, timeout=timeout))

    def set_workers(
        self, workers: int, *, drain_s: float | None = None, timeout: float | None = None
    ) -> results.WorkersResult:
        """See `Commands.set_workers`."""
        return self._wait(self._commands.set_workers(workers, drain_s=drain_s, timeout=timeout))

    def subprotocols(self, *, timeout: float | None = None) -> results.SubProtocolsResult:
        """See `Commands.subprotocols`."""
        return self._wait(self._commands.subprotocols(timeout=timeout))

    def subprotocols_add(
        self, protocol: str, *, required: bool = False, timeout: float | None = None
    ) -> results.ConfirmedResult:
        """See `Commands.subprotocols_add`."""
        return self._wait(self._commands.subprotocols_add(protocol, required=required, timeout=timeout))

    def subprotocols_remove(self, protocol: str, *, timeout: float | None = None) -> results.ConfirmedResult:
        """See `Commands.subprotocols_remove`."""
        return self._wait(self._commands.subprotocols_remove(protocol, timeout=timeout))

    def log_level(self, level: Level, *, timeout: float | None = None) -> results.LogLevelResult:
        """See `Commands.log_level`."""
        return self._wait(self._commands.log_level(level, timeout=timeout))

    def discover(self, *, events: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """See `Commands.discover`."""
        return self._wait(self._commands.discover(events=events, timeout=timeout))

    def shutdown(self, *, timeout: float | None = None) -> results.StoppingResult:
        """See `Commands.shutdown`."""
        return self._wait(self._commands.shutdown(timeout=timeout))


class FleetCommands(ABC):
    """The commands of a fleet: one host's where one has it, else those of all hosts. `host` names one of several."""

    @abstractmethod
    async def of_all(self, call: Callable[[Commands], Awaitable[T]]) -> ByHost[T]:
        """Call this at every host."""

    @abstractmethod
    async def of_session(self, session: int, host: str | None, call: Callable[[Commands], Awaitable[T]]) -> T:
        """Call this at the host that has the session."""

    @abstractmethod
    async def of_dialler(self, enode: str, host: str | None, call: Callable[[Commands], Awaitable[T]]) -> T:
        """Call this at the host that the peer belongs to."""

    async def status(self, *, timeout: float | None = None) -> ByHost[results.StatusResult]:
        """See `Commands.status`."""
        return await self.of_all(lambda at: at.status(timeout=timeout))

    async def counts(self, *, timeout: float | None = None) -> ByHost[results.CountsResult]:
        """See `Commands.counts`."""
        return await self.of_all(lambda at: at.counts(timeout=timeout))

    async def metrics(self, *, timeout: float | None = None) -> ByHost[metrics.MetricsResult]:
        """See `Commands.metrics`."""
        return await self.of_all(lambda at: at.metrics(timeout=timeout))

    async def sessions(
        self,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> ByHost[results.SessionsResult]:
        """See `Commands.sessions`."""
        return await self.of_all(
            lambda at: at.sessions(
                direction=direction,
                phase=phase,
                worker=worker,
                peer=peer,
                client=client,
                shared=shared,
                limit=limit,
                timeout=timeout,
            )
        )

    async def session(self, session: int, *, host: str | None = None, timeout: float | None = None) -> results.SessionObject:
        """See `Commands.session`."""
        return await self.of_session(session, host, lambda at: at.session(session, timeout=timeout))

    async def dial(
        self, enode: str, *, wait: bool = False, host: str | None = None, timeout: float | None = None
    ) -> results.DialResult:
        """See `Commands.dial`."""
        return await self.of_dialler(enode, host, lambda at: at.dial(enode, wait=wait, timeout=timeout))

    async def disconnect(
        self,
        session: int,
        *,
        reason: ReasonName = "disconnect_requested",
        host: str | None = None,
        timeout: float | None = None,
    ) -> results.DoneResult:
        """See `Commands.disconnect`."""
        return await self.of_session(session, host, lambda at: at.disconnect(session, reason=reason, timeout=timeout))

    async def disconnect_all(
        self, *, reason: ReasonName = "disconnect_requested", timeout: float | None = None
    ) -> ByHost[results.DoneResult]:
        """See `Commands.disconnect_all`."""
        return await self.of_all(lambda at: at.disconnect_all(reason=reason, timeout=timeout))

    async def history(self, *, limit: int = 100, timeout: float | None = None) -> ByHost[list[results.EndedSession]]:
        """See `Commands.history`."""
        return await self.of_all(lambda at: at.history(limit=limit, timeout=timeout))

    async def send(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        host: str | None = None,
        timeout: float | None = None,
    ) -> results.DoneResult:
        """See `Commands.send`."""
        return await self.of_session(
            session, host, lambda at: at.send(session, capability, message, payload, raw=raw, timeout=timeout)
        )

    async def request(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        timeout_s: float | None = None,
        host: str | None = None,
        timeout: float | None = None,
    ) -> PeerAnswer:
        """See `Commands.request`."""
        return await self.of_session(
            session,
            host,
            lambda at: at.request(session, capability, message, payload, raw=raw, timeout_s=timeout_s, timeout=timeout),
        )

    async def broadcast(
        self,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        raw: bool = False,
        exceptions: tuple[int, ...] = (),
        timeout: float | None = None,
    ) -> ByHost[results.BroadcastResult]:
        """See `Commands.broadcast`."""
        return await self.of_all(
            lambda at: at.broadcast(
                capability,
                message,
                payload,
                direction=direction,
                phase=phase,
                worker=worker,
                peer=peer,
                client=client,
                shared=shared,
                raw=raw,
                exceptions=exceptions,
                timeout=timeout,
            )
        )

    async def set_status(
        self,
        number: int,
        hash: str,
        *,
        time: int | None = None,
        earliest: int = 0,
        total_difficulty: str = "0",
        timeout: float | None = None,
    ) -> ByHost[results.ConfirmedResult]:
        """See `Commands.set_status`."""
        return await self.of_all(
            lambda at: at.set_status(
                number, hash, time=time, earliest=earliest, total_difficulty=total_difficulty, timeout=timeout
            )
        )

    async def peers(self, *, timeout: float | None = None) -> ByHost[results.PeersResult]:
        """See `Commands.peers`."""
        return await self.of_all(lambda at: at.peers(timeout=timeout))

    async def peers_add(
        self, enode: str, *, static: bool = True, trusted: bool = False, timeout: float | None = None
    ) -> ByHost[results.PeersResult]:
        """See `Commands.peers_add`."""
        return await self.of_all(lambda at: at.peers_add(enode, static=static, trusted=trusted, timeout=timeout))

    async def peers_remove(self, peer: str, *, timeout: float | None = None) -> ByHost[results.PeersResult]:
        """See `Commands.peers_remove`."""
        return await self.of_all(lambda at: at.peers_remove(peer, timeout=timeout))

    async def ban(
        self, *, peer: str | None = None, address: str | None = None, seconds: float = 43200.0, timeout: float | None = None
    ) -> ByHost[results.DoneResult]:
        """See `Commands.ban`."""
        return await self.of_all(lambda at: at.ban(peer=peer, address=address, seconds=seconds, timeout=timeout))

    async def set_limits(
        self,
        *,
        max_unauthenticated: int | None = None,
        max_pending_inbound: int | None = None,
        max_pending_outbound: int | None = None,
        max_active_inbound: int | None = None,
        max_active_outbound: int | None = None,
        timeout: float | None = None,
    ) -> ByHost[results.CountsResult]:
        """See `Commands.set_limits`."""
        return await self.of_all(
            lambda at: at.set_limits(
                max_unauthenticated=max_unauthenticated,
                max_pending_inbound=max_pending_inbound,
                max_pending_outbound=max_pending_outbound,
                max_active_inbound=max_active_inbound,
                max_active_outbound=max_active_outbound,
                timeout=timeout,
            )
        )

    async def restart_workers(
        self, *, drain_s: float | None = None, wait: bool = False, timeout: float | None = None
    ) -> ByHost[results.RestartResult]:
        """See `Commands.restart_workers`."""
        return await self.of_all(lambda at: at.restart_workers(drain_s=drain_s, wait=wait, timeout=timeout))

    async def set_workers(
        self, workers: int, *, drain_s: float | None = None, timeout: float | None = None
    ) -> ByHost[results.WorkersResult]:
        """See `Commands.set_workers`."""
        return await self.of_all(lambda at: at.set_workers(workers, drain_s=drain_s, timeout=timeout))

    async def subprotocols(self, *, timeout: float | None = None) -> ByHost[results.SubProtocolsResult]:
        """See `Commands.subprotocols`."""
        return await self.of_all(lambda at: at.subprotocols(timeout=timeout))

    async def subprotocols_add(
        self, protocol: str, *, required: bool = False, timeout: float | None = None
    ) -> ByHost[results.ConfirmedResult]:
        """See `Commands.subprotocols_add`."""
        return await self.of_all(lambda at: at.subprotocols_add(protocol, required=required, timeout=timeout))

    async def subprotocols_remove(self, protocol: str, *, timeout: float | None = None) -> ByHost[results.ConfirmedResult]:
        """See `Commands.subprotocols_remove`."""
        return await self.of_all(lambda at: at.subprotocols_remove(protocol, timeout=timeout))

    async def log_level(self, level: Level, *, timeout: float | None = None) -> ByHost[results.LogLevelResult]:
        """See `Commands.log_level`."""
        return await self.of_all(lambda at: at.log_level(level, timeout=timeout))

    async def discover(self, *, events: bool = False, timeout: float | None = None) -> ByHost[dict[str, Any]]:
        """See `Commands.discover`."""
        return await self.of_all(lambda at: at.discover(events=events, timeout=timeout))


class BlockingFleetCommands(ABC):
    """The commands of a fleet, for programs that wait for each."""

    _fleet: FleetCommands

    @abstractmethod
    def _wait(self, called: Coroutine[Any, Any, T]) -> T:
        """Wait until a call is done."""

    def status(self, *, timeout: float | None = None) -> ByHost[results.StatusResult]:
        """See `FleetCommands.status`."""
        return self._wait(self._fleet.status(timeout=timeout))

    def counts(self, *, timeout: float | None = None) -> ByHost[results.CountsResult]:
        """See `FleetCommands.counts`."""
        return self._wait(self._fleet.counts(timeout=timeout))

    def metrics(self, *, timeout: float | None = None) -> ByHost[metrics.MetricsResult]:
        """See `FleetCommands.metrics`."""
        return self._wait(self._fleet.metrics(timeout=timeout))

    def sessions(
        self,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        limit: int = 1000,
        timeout: float | None = None,
    ) -> ByHost[results.SessionsResult]:
        """See `FleetCommands.sessions`."""
        return self._wait(
            self._fleet.sessions(
                direction=direction,
                phase=phase,
                worker=worker,
                peer=peer,
                client=client,
                shared=shared,
                limit=limit,
                timeout=timeout,
            )
        )

    def session(self, session: int, *, host: str | None = None, timeout: float | None = None) -> results.SessionObject:
        """See `FleetCommands.session`."""
        return self._wait(self._fleet.session(session, host=host, timeout=timeout))

    def dial(
        self, enode: str, *, wait: bool = False, host: str | None = None, timeout: float | None = None
    ) -> results.DialResult:
        """See `FleetCommands.dial`."""
        return self._wait(self._fleet.dial(enode, wait=wait, host=host, timeout=timeout))

    def disconnect(
        self,
        session: int,
        *,
        reason: ReasonName = "disconnect_requested",
        host: str | None = None,
        timeout: float | None = None,
    ) -> results.DoneResult:
        """See `FleetCommands.disconnect`."""
        return self._wait(self._fleet.disconnect(session, reason=reason, host=host, timeout=timeout))

    def disconnect_all(
        self, *, reason: ReasonName = "disconnect_requested", timeout: float | None = None
    ) -> ByHost[results.DoneResult]:
        """See `FleetCommands.disconnect_all`."""
        return self._wait(self._fleet.disconnect_all(reason=reason, timeout=timeout))

    def history(self, *, limit: int = 100, timeout: float | None = None) -> ByHost[list[results.EndedSession]]:
        """See `FleetCommands.history`."""
        return self._wait(self._fleet.history(limit=limit, timeout=timeout))

    def send(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        host: str | None = None,
        timeout: float | None = None,
    ) -> results.DoneResult:
        """See `FleetCommands.send`."""
        return self._wait(self._fleet.send(session, capability, message, payload, raw=raw, host=host, timeout=timeout))

    def request(
        self,
        session: int,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        raw: bool = False,
        timeout_s: float | None = None,
        host: str | None = None,
        timeout: float | None = None,
    ) -> PeerAnswer:
        """See `FleetCommands.request`."""
        return self._wait(
            self._fleet.request(
                session, capability, message, payload, raw=raw, timeout_s=timeout_s, host=host, timeout=timeout
            )
        )

    def broadcast(
        self,
        capability: str,
        message: str | int,
        payload: bytes,
        *,
        direction: Literal["inbound", "outbound"] | None = None,
        phase: Literal["pending", "active"] | None = None,
        worker: int | None = None,
        peer: str | None = None,
        client: str | None = None,
        shared: str | None = None,
        raw: bool = False,
        exceptions: tuple[int, ...] = (),
        timeout: float | None = None,
    ) -> ByHost[results.BroadcastResult]:
        """See `FleetCommands.broadcast`."""
        return self._wait(
            self._fleet.broadcast(
                capability,
                message,
                payload,
                direction=direction,
                phase=phase,
                worker=worker,
                peer=peer,
                client=client,
                shared=shared,
                raw=raw,
                exceptions=exceptions,
                timeout=timeout,
            )
        )

    def set_status(
        self,
        number: int,
        hash: str,
        *,
        time: int | None = None,
        earliest: int = 0,
        total_difficulty: str = "0",
        timeout: float | None = None,
    ) -> ByHost[results.ConfirmedResult]:
        """See `FleetCommands.set_status`."""
        return self._wait(
            self._fleet.set_status(
                number, hash, time=time, earliest=earliest, total_difficulty=total_difficulty, timeout=timeout
            )
        )

    def peers(self, *, timeout: float | None = None) -> ByHost[results.PeersResult]:
        """See `FleetCommands.peers`."""
        return self._wait(self._fleet.peers(timeout=timeout))

    def peers_add(
        self, enode: str, *, static: bool = True, trusted: bool = False, timeout: float | None = None
    ) -> ByHost[results.PeersResult]:
        """See `FleetCommands.peers_add`."""
        return self._wait(self._fleet.peers_add(enode, static=static, trusted=trusted, timeout=timeout))

    def peers_remove(self, peer: str, *, timeout: float | None = None) -> ByHost[results.PeersResult]:
        """See `FleetCommands.peers_remove`."""
        return self._wait(self._fleet.peers_remove(peer, timeout=timeout))

    def ban(
        self, *, peer: str | None = None, address: str | None = None, seconds: float = 43200.0, timeout: float | None = None
    ) -> ByHost[results.DoneResult]:
        """See `FleetCommands.ban`."""
        return self._wait(self._fleet.ban(peer=peer, address=address, seconds=seconds, timeout=timeout))

    def set_limits(
        self,
        *,
        max_unauthenticated: int | None = None,
        max_pending_inbound: int | None = None,
        max_pending_outbound: int | None = None,
        max_active_inbound: int | None = None,
        max_active_outbound: int | None = None,
        timeout: float | None = None,
    ) -> ByHost[results.CountsResult]:
        """See `FleetCommands.set_limits`."""
        return self._wait(
            self._fleet.set_limits(
                max_unauthenticated=max_unauthenticated,
                max_pending_inbound=max_pending_inbound,
                max_pending_outbound=max_pending_outbound,
                max_active_inbound=max_active_inbound,
                max_active_outbound=max_active_outbound,
                timeout=timeout,
            )
        )

    def restart_workers(
        self, *, drain_s: float | None = None, wait: bool = False, timeout: float | None = None
    ) -> ByHost[results.RestartResult]:
        """See `FleetCommands.restart_workers`."""
        return self._wait(self._fleet.restart_workers(drain_s=drain_s, wait=wait, timeout=timeout))

    def set_workers(
        self, workers: int, *, drain_s: float | None = None, timeout: float | None = None
    ) -> ByHost[results.WorkersResult]:
        """See `FleetCommands.set_workers`."""
        return self._wait(self._fleet.set_workers(workers, drain_s=drain_s, timeout=timeout))

    def subprotocols(self, *, timeout: float | None = None) -> ByHost[results.SubProtocolsResult]:
        """See `FleetCommands.subprotocols`."""
        return self._wait(self._fleet.subprotocols(timeout=timeout))

    def subprotocols_add(
        self, protocol: str, *, required: bool = False, timeout: float | None = None
    ) -> ByHost[results.ConfirmedResult]:
        """See `FleetCommands.subprotocols_add`."""
        return self._wait(self._fleet.subprotocols_add(protocol, required=required, timeout=timeout))

    def subprotocols_remove(self, protocol: str, *, timeout: float | None = None) -> ByHost[results.ConfirmedResult]:
        """See `FleetCommands.subprotocols_remove`."""
        return self._wait(self._fleet.subprotocols_remove(protocol, timeout=timeout))

    def log_level(self, level: Level, *, timeout: float | None = None) -> ByHost[results.LogLevelResult]:
        """See `FleetCommands.log_level`."""
        return self._wait(self._fleet.log_level(level, timeout=timeout))

    def discover(self, *, events: bool = False, timeout: float | None = None) -> ByHost[dict[str, Any]]:
        """See `FleetCommands.discover`."""
        return self._wait(self._fleet.discover(events=events, timeout=timeout))
