"""Which address may connect: CIDR lists, and what one IP or subnet may take of us."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import Final

from engine.settings import AccessSettings, ThrottleSettings
from protocol.control import SessionId

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV4_SUBNET_BITS: Final = 24
IPV6_SUBNET_BITS: Final = 64


class CidrList:
    """A set of networks."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(cidr) for cidr in cidrs]

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


def parse_address(host: str) -> Address:
    """An IP address; an IPv4 one that came over an IPv6 socket counts as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


class Admission:
    """Asked for every accept. A ledger by session: releasing twice is harmless."""

    def __init__(self, throttle: ThrottleSettings, access: AccessSettings) -> None:
        self.configure(throttle, access)
        self._addresses: dict[SessionId, tuple[Address, Network]] = {}
        self._live: Counter[Address | Network] = Counter()
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
        subnet = _subnet(address)
        settings = self._throttle
        self._forget(now)
        if address in self._accepted_at:
            return f"the address connected within the last {settings.per_ip_interval_s:g} s"
        if self._live[address] >= settings.per_ip_live:
            return f"the address has {settings.per_ip_live} sessions"
        if self._live[subnet] >= settings.per_subnet_live:
            return f"the subnet {subnet} has {settings.per_subnet_live} sessions"
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


def _subnet(address: Address) -> Network:
    bits = IPV4_SUBNET_BITS if address.version == 4 else IPV6_SUBNET_BITS  # noqa: PLR2004 - IP versions
    return ipaddress.ip_network((address, bits), strict=False)
