"""IP addresses as peers' connections show them, and lists of networks."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final, NewType, TypeAlias

from rlpx.protocol.rlpx.host_port import host_of

# An IP address as its 4 or 16 bytes. Every accept parses one, and `ipaddress` takes ten times as long.
Address = NewType("Address", bytes)

# An IPv4 address in an IPv6 one (RFC 4291).
_MAPPED: Final = bytes(10) + b"\xff\xff"
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(host: str) -> Address:
    """Parse an IP address; an IPv4 address from an IPv6 socket counts as IPv4. Raises `ValueError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host.partition("%")[0])
    except OSError as error:
        raise ValueError(f"{host!r} is no IP address") from error
    return Address(packed.removeprefix(_MAPPED))


def format_address(address: bytes) -> str:
    """An IP address in its usual notation."""
    return str(ipaddress.ip_address(address))


def address_of(remote: str) -> Address | None:
    """The IP address in `host:port`, or none if there is no connection yet or the host is a name."""
    try:
        return parse_address(host_of(remote))
    except ValueError:
        return None


class CidrList:
    """A set of networks. A network inside `::ffff:0:0/96` counts as IPv4, as the addresses of its peers do."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        # Network numbers, by the length of an address in bytes and then by the network's mask.
        self._networks: dict[int, dict[int, set[int]]] = {4: {}, 16: {}}
        for network in map(_plain, map(ipaddress.ip_network, cidrs)):
            by_mask = self._networks[len(network.network_address.packed)]
            by_mask.setdefault(int(network.netmask), set()).add(int(network.network_address))

    def __contains__(self, address: Address) -> bool:
        number = int.from_bytes(address, "big")
        return any(number & mask in networks for mask, networks in self._networks[len(address)].items())

    def __bool__(self) -> bool:
        return any(self._networks.values())


def _plain(network: _Network) -> _Network:
    """The IPv4 network that an IPv4-mapped IPv6 network stands for (RFC 4291); any other network as it is."""
    packed = network.network_address.packed
    bits = network.prefixlen - 8 * len(_MAPPED)
    if bits < 0 or not packed.startswith(_MAPPED):
        return network
    return ipaddress.IPv4Network((packed.removeprefix(_MAPPED), bits))
