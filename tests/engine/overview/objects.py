"""Session objects, events and answers of an engine, as its public interface has them."""

from __future__ import annotations

from typing import Any

from rlpx.engine.client.batch_reader import Event

RUN = "run-1"


def session_object(session: int, **fields: Any) -> dict[str, Any]:
    return {
        "session": session,
        "peer": f"{session:0128x}",
        "enode": None,
        "direction": "inbound",
        "phase": "active",
        "stage": "active",
        "worker": 0,
        "remote": f"203.0.113.{session % 250}:30303",
        "local": "127.0.0.1:30303",
        "client": "Geth/v1.16.2-stable/linux-amd64/go1.24",
        "capabilities": ["eth/68", "eth/69"],
        "shared": ["eth/69"],
        "opened_us": 1_000_000,
        "established_us": 1_050_000,
        "bytes_in": 0,
        "bytes_out": 0,
        "messages_in": 0,
        "messages_out": 0,
        "rtt_ms": None,
        "queued_bytes": 0,
        "chain": None,
        **fields,
    }


def event(topic: str, run: str = RUN, **fields: Any) -> Event:
    return Event(topic, 0, {"time_us": 2_000_000, "session": None, "peer": None, **fields}, b"", run)


def opened(session: int, **fields: Any) -> Event:
    known = {"direction": "inbound", "remote": "203.0.113.7:30303", "worker": 0}
    return event("session.opened", **{"session": session, **known, **fields})


def established(session: int, **fields: Any) -> Event:
    return event("session.established", **session_object(session, **fields))


def closed(session: int, **fields: Any) -> Event:
    known = {
        "direction": "inbound",
        "remote": "203.0.113.7:30303",
        "worker": 0,
        "stage": "active",
        "ended_by": "peer",
        "reason": "too_many_peers",
        "cause": "the peer said so",
        "duration_ms": 1000,
        "bytes_in": 10,
        "bytes_out": 20,
        "messages_in": 1,
        "messages_out": 2,
    }
    return event("session.closed", **{"session": session, **known, **fields})


def ended(session: int, **fields: Any) -> dict[str, Any]:
    """An entry of `history`."""
    return {"client": "reth/v1.6.0/linux", **closed(session).fields, **fields}


def status(workers: int = 1, **fields: Any) -> dict[str, Any]:
    row = {
        "pid": 100,
        "ready": True,
        "unauthenticated": 0,
        "pending": 0,
        "active": 0,
        "goodbyes": 0,
        "loop_lag_ms": 1.5,
        "memory_bytes": 50_000_000,
        "dropped_events": 0,
        "queued_event_bytes": 0,
        "unanswered": 0,
        "responders": 0,
        "responder_queued_bytes": 0,
        "has_descriptors": True,
        "progress_bytes": 1000,
        "deferred": 0,
        "deferred_ms": 0.0,
    }
    ways = {"inbound": 0, "outbound": 0}
    limits = {"unauthenticated": 200, "pending_inbound": 200, "pending_outbound": 100}
    limits |= {"active_inbound": 2000, "active_outbound": 500}
    return {
        "version": "0.1.0",
        "compiled": True,
        "pid": 99,
        "node_id": "ab" * 64,
        "enode": f"enode://{'ab' * 64}@127.0.0.1:30303",
        "enode_is_guess": False,
        "uptime_ms": 60_000,
        "chain": {"name": "dev", "network_id": 1337, "genesis": "0x" + "00" * 32, "fork_hash": "0x00", "fork_next": 0},
        "head": {"number": 0, "hash": "0x" + "00" * 32, "earliest": 0, "time": None},
        "workers": [{"worker": index, **row} for index in range(workers)],
        "subscribers": [],
        "counts": {
            "unauthenticated": {"inbound": 0},
            "pending": ways,
            "active": ways,
            "limits": {f"max_{name}": limit for name, limit in limits.items()},
        },
        "budgets": {
            "peer_write_bytes": 1 << 20,
            "worker_command_bytes": 1 << 24,
            "worker_progress_bytes": 1 << 28,
            "subscriber_queue_bytes": 1 << 26,
            "total_queue_bytes": 1 << 28,
        },
        "endpoints": {},
        "has_descriptors": True,
        "run_dir": "/run/rlpx-engine",
        "memory_bytes": 60_000_000,
        "log_lines_lost": 0,
        **fields,
    }
