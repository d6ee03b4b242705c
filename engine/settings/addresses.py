"""Addresses that users write: hosts, networks and endpoints; the address to bind, and the one that peers can dial."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import msgspec

from rlpx.protocol.rlpx.host_port import format_host_port, host_of, parse_host_port

# All addresses of this machine.
_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
# No packet is sent: the kernel only says which source address it would use (TEST-NET-1 and the documentation prefix).
_ROUTED_PROBES: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_PROBE_PORT: Final = 9
# netdevice(7).
_SIOCGIFADDR: Final = 0x8915


class Dialable(msgspec.Struct, frozen=True):
    """The address in our enode. If `is_guess`, no setting names it, and it is derived from this machine's interfaces."""

    host: str
    is_guess: bool


def resolve(host: str) -> str:
    """Return the numeric address to bind for a host; for a name with both families, an IPv4 one. Raises `OSError`.

    An empty host means all addresses, of IPv6 and IPv4 if the machine has both.
    """
    if not host:
        return "::" if _has_dual_stack() else "0.0.0.0"  # noqa: S104 - the user asks for all addresses
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A stable sort: the resolver's order stays within each family.
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    return str(found[0][4][0]).partition("%")[0]


def _has_dual_stack() -> bool:
    """Whether a socket can be bound to `::` and also accepts IPv4."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::", 0))
        return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return False


def dialable(external_ip: str, bound: str) -> Dialable:
    """Return the address for our enode: the configured one, else the bound one, else the most likely of this machine's."""
    if external_ip:
        return Dialable(external_ip, is_guess=False)
    if bound not in _WILDCARDS:
        return Dialable(bound, is_guess=False)
    families = {socket.AF_INET} if bound == "0.0.0.0" else {socket.AF_INET, socket.AF_INET6}  # noqa: S104 - compared
    return Dialable(next(_candidates(families), "127.0.0.1"), is_guess=True)


def _candidates(families: set[socket.AddressFamily]) -> Iterator[str]:
    """Yield addresses of this machine: first the source addresses of outgoing connections, then those of interfaces."""
    for family, host in _ROUTED_PROBES:
        if family in families:
            with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host, _PROBE_PORT))
                yield probe.getsockname()[0]
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                # A `sockaddr_in` follows the 16 bytes of the name: 2 bytes of family, 2 of port, 4 of address.
                address = ipaddress.IPv4Address(answer[20:24])
                if not address.is_loopback:
                    yield str(address)


def external_address(text: str) -> str:
    """Check and return a numeric address that peers could dial. Raises `ValueError`."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError("it is not an IP address") from error
    if address.is_unspecified or address.is_multicast:
        raise ValueError("peers cannot dial this address")
    return str(address)


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Parse a network in CIDR notation. Raises `ValueError`."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError("it is not a network") from error
        raise ValueError(f"the address has bits beyond the network; the network is {meant}") from error


def tcp_endpoint(endpoint: str) -> None:
    """Check `tcp://HOST:PORT` with a numeric host, in brackets if IPv6. Raises `ValueError`."""
    scheme, _, place = endpoint.partition("://")
    if scheme != "tcp":
        raise ValueError("it does not begin with tcp://")
    host, _ = parse_host_port(place)
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError("the host is not an address") from error


def is_loopback_endpoint(endpoint: str) -> bool:
    """Whether a ZeroMQ endpoint is TCP on loopback."""
    try:
        parts = urlsplit(endpoint)
        is_numbered = parts.scheme == "tcp" and parts.port is not None
        return is_numbered and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def dialable_enode(enode: str) -> str:
    """Return the enode with an address that can be dialled in place of a wildcard; any other enode is unchanged."""
    node, _, place = enode.rpartition("@")
    bound = host_of(place)
    if bound not in _WILDCARDS:
        return enode
    _, port = parse_host_port(place)
    return f"{node}@{format_host_port(dialable('', bound).host, port)}"
