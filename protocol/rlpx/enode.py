"""Nodes to dial: `enode://` URLs in geth's form and `enr:` records (EIP-778). An error says why a node cannot be dialled."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from rlpx.protocol.errors import HandshakeError
from rlpx.protocol.rlpx import enr
from rlpx.protocol.rlpx.crypto import ID_BYTES, Point
from rlpx.protocol.rlpx.host_port import format_host_port, is_address, is_host_name

_HEX: Final = re.compile(r"[0-9a-f]*", re.IGNORECASE | re.ASCII)


class EnodeError(ValueError):
    """The text does not name a node that can be dialled; the message says why."""


class Endpoint(msgspec.Struct, frozen=True):
    """A host and a TCP port. The host is a name or a numeric address, with its zone if it has one."""

    host: str
    port: int

    @property
    def is_name(self) -> bool:
        """Whether the host has to be resolved."""
        return not is_address(self.host)

    def __str__(self) -> str:
        return format_host_port(self.host, self.port)


class Enode(msgspec.Struct, frozen=True):
    """A node's id (64 bytes, a point of the curve) and at least one endpoint, the best first."""

    id: bytes
    endpoints: tuple[Endpoint, ...]

    @property
    def host(self) -> str:
        """The first endpoint's host."""
        return self.endpoints[0].host

    @property
    def port(self) -> int:
        """The first endpoint's port."""
        return self.endpoints[0].port

    def __str__(self) -> str:
        return f"enode://{self.id.hex()}@{self.endpoints[0]}"


def parse_enode(text: str) -> Enode:
    """Read `enode://<128 hex>@HOST:PORT`, ignoring a `?discport=`, or an `enr:` record. Raises `EnodeError`."""
    text = text.strip()
    return _parse_record(text) if text.startswith(enr.PREFIX) else _parse_url(text)


def _parse_url(text: str) -> Enode:
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError as error:
        raise EnodeError(f"the enode is malformed: {error}") from error
    if scheme != "enode":
        raise EnodeError("a node is named by enode://ID@HOST:PORT or by an enr: record")
    if parts.username is None:
        raise EnodeError("the enode has no @HOST:PORT behind its id")
    node_id = _node_id(parts.username)
    if not port:
        raise EnodeError("the enode has no TCP port")
    # RFC 6874: in a URL, an address is followed by %25 and the name of its zone.
    host = host.replace("%25", "%")
    if is_address(host):
        check_address(host)
    elif not is_host_name(host):
        raise EnodeError(f"the enode's host is neither an IP address nor a host name: {host!r}")
    try:
        Point.parse(node_id)
    except HandshakeError as error:
        raise EnodeError("the enode's id is not a point of secp256k1") from error
    return Enode(node_id, (Endpoint(host, port),))


def _node_id(digits: str) -> bytes:
    if len(digits) != 2 * ID_BYTES:
        raise EnodeError(f"the enode's id has {len(digits)} digits, and an id has {2 * ID_BYTES}")
    if not _HEX.fullmatch(digits):
        raise EnodeError("the enode's id is not hex")
    return bytes.fromhex(digits)


def _parse_record(text: str) -> Enode:
    try:
        record = enr.decode(text)
    except enr.RecordError as error:
        raise EnodeError(f"the record is malformed: {error}") from error
    endpoints, cause = [], "the record has no IP address with a TCP port"
    for address, port in record.endpoints:
        host = str(ipaddress.ip_address(address))
        try:
            check_address(host)
        except EnodeError as error:
            # The record's other address may be fine.
            cause = str(error)
        else:
            endpoints.append(Endpoint(host, port))
    if not endpoints:
        raise EnodeError(cause)
    return Enode(record.id, tuple(endpoints))


def check_address(host: str) -> None:
    """Refuse an unspecified or multicast address. Raises `EnodeError`."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    if address.is_unspecified:
        raise EnodeError(f"{host} is an unspecified address")
    if address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        raise EnodeError(f"{host} is a multicast or broadcast address")
