"""Whom to dial: enode URLs, and why a peer should not be dialled (EIP-778's `enode://` form of geth)."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import msgspec

from protocol.crypto import ID_BYTES, Point
from protocol.errors import HandshakeError


class EnodeError(ValueError):
    """Not an enode URL that can be dialled, and why."""


class Enode(msgspec.Struct, frozen=True):
    """A node's id (64 bytes, a point of the curve), numeric address and TCP port."""

    id: bytes
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"enode://{self.id.hex()}@{host}:{self.port}"


def parse_enode(text: str) -> Enode:
    """Read `enode://<128 hex>@HOST:PORT`; a `?discport=` is ignored. Raises `EnodeError`."""
    try:
        parts = urlsplit(text.strip())
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        node_id = bytes.fromhex(parts.username or "") if scheme == "enode" else b""
    except ValueError as error:
        raise EnodeError(f"the enode is malformed: {error}") from error
    if scheme != "enode":
        raise EnodeError("an enode URL begins with enode://")
    if len(node_id) != ID_BYTES:
        raise EnodeError(f"the enode's id has {len(node_id)} bytes where {ID_BYTES} belong")
    if not port:
        raise EnodeError("the enode has no TCP port")
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise EnodeError(f"the enode's host is not an IP address: {host!r}") from error
    try:
        Point.parse(node_id)
    except HandshakeError as error:
        raise EnodeError("the enode's id is not a point of secp256k1") from error
    return Enode(node_id, host, port)
