"""Bans: peers and addresses that are kept out for a while."""

from __future__ import annotations

from rlpx.engine.ledger.addresses import Address, format_address


class Bans:
    """See the module. A peer is its 64-byte id; times are seconds on a monotonic clock."""

    def __init__(self) -> None:
        # When each ban ends.
        self._peers: dict[bytes, float] = {}
        self._addresses: dict[Address, float] = {}

    def ban_peer(self, peer: bytes, until: float) -> None:
        """Keep a peer out until this time."""
        self._peers[peer] = until

    def ban_address(self, address: Address, until: float) -> None:
        """Keep an address out until this time."""
        self._addresses[address] = until

    def lift(self, peer: bytes | None, address: Address | None) -> None:
        """Let a peer and an address in again."""
        if peer is not None:
            self._peers.pop(peer, None)
        if address is not None:
            self._addresses.pop(address, None)

    def has_peer(self, peer: bytes, *, now: float) -> bool:
        """Whether a peer is kept out; a ban that has ended is forgotten."""
        until = self._peers.get(peer)
        if until is not None and until <= now:
            del self._peers[peer]
        return until is not None and until > now

    def has_address(self, address: Address, *, now: float) -> bool:
        """Whether an address is kept out; a ban that has ended is forgotten."""
        until = self._addresses.get(address)
        if until is not None and until <= now:
            del self._addresses[address]
        return until is not None and until > now

    def listed(self, *, now: float) -> list[tuple[str, float]]:
        """Each banned peer and address in its usual notation, and the seconds that remain."""
        peers = [(peer.hex(), until - now) for peer, until in self._peers.items() if until > now]
        addresses = [(format_address(address), until - now) for address, until in self._addresses.items() if until > now]
        return peers + addresses
