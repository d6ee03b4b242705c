"""Which address may connect: CIDR lists, and what one IP or subnet may take of us."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Final

from engine.settings import AccessSettings, ThrottleSettings
from protocol.control import SessionId

# Of an address, the bytes that name its subnet: a /24 of IPv4, a /64 of IPv6.
_SUBNET_BYTES: Final = {4: 3, 16: 8}
# An IPv4 address in an IPv6 one (RFC 4291).
_MAPPED: Final = bytes(10) + b"\xff\xff"


class Address(bytes):
    """An IP address as its 4 or 16 bytes: every accept asks for one, and `ipaddress` takes ten times as long."""

    __slots__ = ()

    def __str__(self) -> str:
        return str(ipaddress.ip_address(bytes(self)))


def parse_address(host: str) -> Address:
    """An IP address; an IPv4 one that came over an IPv6 socket counts as IPv4. Raises `ValueError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        packed = socket.inet_pton(family, host.partition("%")[0])
    except OSError as error:
        raise ValueError(f"{host!r} is no IP address") from error
    return Address(packed.removeprefix(_MAPPED))


class CidrList:
    """A set of networks."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        # By the length of an address and the bits that count: what these are.
        self._networks: dict[int, dict[int, set[int]]] = {size: {} for size in _SUBNET_BYTES}
        for network in map(ipaddress.ip_network, cidrs):
            by_mask = self._networks[len(network.network_address.packed)]
            by_mask.setdefault(int(network.netmask), set()).add(int(network.network_address))

    def __contains__(self, address: Address) -> bool:
        number = int.from_bytes(address, "big")
        return any(number & mask in networks for mask, networks in self._networks[len(address)].items())

    def __bool__(self) -> bool:
        return any(self._networks.values())


class Admission:
    """Asked for every accept. A ledger by session: releasing twice is harmless."""

    def __init__(self, throttle: ThrottleSettings, access: AccessSettings) -> None:
        self.configure(throttle, access)
        self._addresses: dict[SessionId, tuple[Address, bytes]] = {}
        # Sessions of an address, and of a subnet by its bytes.
        self._live: Counter[bytes] = Counter()
        # When each address was last accepted, the oldest first; forgotten after the interval.
        self._accepted_at: dict[Address, float] = {}

    def configure(self, throttle: ThrottleSettings, access: AccessSettings) -> None:
        """Use other settings from now on."""
        self._throttle = throttle
        self._exempt = CidrList(throttle.exempt_cidrs)
        self._allow = CidrList(access.allow_cidrs)
        self._deny = CidrList(access.deny_cidrs)

    def refuse_address(self, address: Address) -> str | None:
        """Why this address may neither connect nor be dialled, or nothing."""
        if address in self._deny:
            return "the address is on the deny list"
        if self._allow and address not in self._allow:
            return "the address is not on the allow list"
        return None

    def admit(self, session: SessionId, address: Address, *, now: float) -> str | None:
        """Enter an accepted connection, or say why it is refused. Only an accepted one begins an interval, as in geth."""
        refusal = self.refuse_address(address)
        if refusal is not None or address in self._exempt:
            return refusal
        subnet = address[: _SUBNET_BYTES[len(address)]]
        settings = self._throttle
        self._forget(now)
        if address in self._accepted_at:
            return f"the address connected within the last {settings.per_ip_interval_s:g} s"
        if self._live[address] >= settings.per_ip_live:
            return f"the address has {settings.per_ip_live} sessions"
        if self._live[subnet] >= settings.per_subnet_live:
            return f"the subnet {_network(subnet)} has {settings.per_subnet_live} sessions"
        if settings.per_ip_interval_s:
            self._accepted_at[address] = now
        self._addresses[session] = address, subnet
        self._live[address] += 1
        self._live[subnet] += 1
        return None

    def release(self, session: SessionId) -> None:
        """The session has ended."""
        for key in self._addresses.pop(session, ()):
            self._live[key] -= 1
            if not self._live[key]:
                del self._live[key]

    def _forget(self, now: float) -> None:
        interval = self._throttle.per_ip_interval_s
        while self._accepted_at:
            oldest = next(iter(self._accepted_at))
            if self._accepted_at[oldest] + interval > now:
                return
            del self._accepted_at[oldest]


def _network(subnet: bytes) -> str:
    """A subnet as it is written."""
    size = next(size for size, subnet_bytes in _SUBNET_BYTES.items() if subnet_bytes == len(subnet))
    return f"{Address(subnet.ljust(size, bytes(1)))}/{8 * len(subnet)}"
