"""Which address may connect: lists of networks, and how many sessions one address or network may have."""

from __future__ import annotations

from collections import Counter
from typing import Final

from rlpx.engine.ledger.addresses import Address, CidrList, format_address
from rlpx.engine.ledger.laggards import Laggards
from rlpx.engine.settings.settings import AccessSettings, ThrottleSettings
from rlpx.protocol.bus.control import SessionId

# How many leading bytes of an address name the networks it shares with others: a /24 and a /16 of IPv4; of IPv6 a /64,
# which one machine has, a /56, which a household gets, and a /48, which a site gets (RFC 6177).
_NETWORK_BYTES: Final = {4: (3, 2), 16: (8, 7, 6)}


class Admission:
    """See the module. It keeps a ledger by session, so that a second release is harmless. Times are on a monotonic clock."""

    def __init__(self, throttle: ThrottleSettings, access: AccessSettings) -> None:
        self.configure(throttle, access)
        # By session: the leading bytes that name its address and each network that contains the address.
        self._shares: dict[SessionId, tuple[bytes, ...]] = {}
        # The number of sessions of an address or a network.
        self._live: Counter[bytes] = Counter()
        # By address or network: its sessions that may have to make room.
        self._laggards: dict[bytes, Laggards] = {}
        # When each address was last accepted, and for which session, the oldest first; entries last for the interval.
        self._accepted_at: dict[Address, tuple[float, SessionId]] = {}

    def configure(self, throttle: ThrottleSettings, access: AccessSettings) -> None:
        """Use other settings from now on."""
        self._throttle = throttle
        # How many sessions an address or a network may have, by the number of its leading bytes.
        self._max_live = {
            4: throttle.per_ip_live,
            3: throttle.per_subnet_live,
            2: throttle.per_ipv4_16_live,
            16: throttle.per_ip_live,
            8: throttle.per_subnet_live,
            7: throttle.per_ipv6_56_live,
            6: throttle.per_ipv6_48_live,
        }
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

    def book(self, session: SessionId, address: Address, *, now: float) -> str | None:
        """Enter an accepted connection, or return why it is refused. A refusal books nothing and begins no interval."""
        refusal = self.refuse_address(address)
        if refusal is not None or address in self._exempt:
            return refusal
        self._forget(now)
        if address in self._accepted_at:
            return f"the address connected within the last {self._throttle.per_ip_interval_s:g} s"
        shares = _shares(address)
        for share in shares:
            if self._is_full(share):
                name = "the address" if share == address else f"the subnet {_network(address, share)}"
                return f"{name} has {self._max_live[len(share)]} sessions"
        if self._throttle.per_ip_interval_s:
            self._accepted_at[address] = now, session
        self._shares[session] = shares
        for share in shares:
            self._live[share] += 1
        return None

    def laggard(self, address: Address, *, now: float) -> SessionId | None:
        """The session that makes room for a connection from this address, if its address or one of its networks is full.

        Each full network may have one: ask again when this session has been released.
        """
        self._forget(now)
        if address in self._exempt or address in self._accepted_at:
            return None
        # If one network is full of sessions that make progress, a session of another would make room in vain.
        laggards = [self._laggards.get(share) for share in _shares(address) if self._is_full(share)]
        firsts = [None if share is None else share.first(now) for share in laggards]
        return None if None in firsts else next(iter(firsts), None)

    def stall(self, session: SessionId, *, has_spoken: bool, now: float) -> None:
        """The session is slow to send its auth: from now on it may have to make room."""
        for share in self._shares.get(session, ()):
            self._laggards.setdefault(share, Laggards()).enter(session, has_spoken=has_spoken, since=now)

    def go_on(self, session: SessionId) -> None:
        """The session's auth has arrived: it need not make room any more."""
        for share in self._shares.get(session, ()):
            laggards = self._laggards.get(share)
            if laggards is not None:
                laggards.leave(session)
                if not laggards:
                    del self._laggards[share]

    def release(self, session: SessionId) -> None:
        """The session has ended, or has been told to."""
        self.go_on(session)
        for share in self._shares.pop(session, ()):
            self._live[share] -= 1
            if not self._live[share]:
                del self._live[share]

    def cancel(self, session: SessionId) -> None:
        """Release a session that we could not serve, and end the interval that its address would have to wait."""
        shares = self._shares.get(session)
        # The first share is the address itself.
        address = None if shares is None else Address(shares[0])
        if address is not None and self._accepted_at.get(address, (0.0, None))[1] == session:
            del self._accepted_at[address]
        self.release(session)

    def _is_full(self, share: bytes) -> bool:
        return self._live[share] >= self._max_live[len(share)]

    def _forget(self, now: float) -> None:
        interval = self._throttle.per_ip_interval_s
        while self._accepted_at:
            oldest = next(iter(self._accepted_at))
            if self._accepted_at[oldest][0] + interval > now:
                return
            del self._accepted_at[oldest]


def _shares(address: Address) -> tuple[bytes, ...]:
    """The leading bytes that name an address and the networks it is in."""
    return (address, *(address[:size] for size in _NETWORK_BYTES[len(address)]))


def _network(address: Address, share: bytes) -> str:
    """A network of an address in CIDR notation."""
    return f"{format_address(share.ljust(len(address), bytes(1)))}/{8 * len(share)}"
