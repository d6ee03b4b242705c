"""The life of a session in terms that all processes share: its stages, its direction, who ended it, and misconduct.

The session, the inter-process messages and the engine's ledger import these, so that they need not import each other.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """How far a session has come. All but `active` and `closed` are pending."""

    CONNECT = "connect"
    AUTH = "auth"
    ACK = "ack"
    HELLO = "hello"
    STATUS = "status"
    VERDICT = "verdict"
    ACTIVE = "active"
    CLOSED = "closed"


class Direction(StrEnum):
    """Who opened the connection: the peer (inbound) or we (outbound, the initiator of the handshake)."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class EndedBy(StrEnum):
    """Who ended a session."""

    US = "us"
    PEER = "peer"
    NETWORK = "network"
    WORKER_LOST = "worker_lost"
    ENGINE = "engine"


class Conduct(StrEnum):
    """A peer's misconduct, which is reported even if the session continues."""

    BAD_MESSAGE = "bad_message"
    BREACH = "breach"
