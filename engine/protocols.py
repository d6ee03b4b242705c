"""What we offer in every Hello: eth, snap, and the user's own sub-protocols, which may change while running."""

from __future__ import annotations

from typing import Final

from engine.settings import ProtocolSettings
from protocol import eth, snap
from protocol.capabilities import LAST_CODE, SubProtocol
from protocol.p2p import FIRST_CAPABILITY_CODE, MAX_PAYLOAD_BYTES, Capability

# What the codes of all sub-protocols together may take: those of eth and snap are never left out for a user's.
_MAX_CODES: Final = LAST_CODE + 1 - FIRST_CAPABILITY_CODE
# A Hello has 2048 bytes, and a capability up to 14 of them.
_MAX_OFFERED: Final = 100
# Topics of events that are no messages of peers.
_TOPICS: Final = frozenset({"tap", "session", "peer", "dial", "worker", "engine"})


def parse_sub_protocol(text: str) -> SubProtocol:
    """Read `NAME/VERSION/MESSAGES[/MAX_BYTES]`. Raises `ValueError` where the name or a number cannot be."""
    name, version, messages, *limit = text.split("/")
    if name in {eth.NAME, snap.NAME}:
        raise ValueError(f"{text}: {name} is spoken already")
    if name in _TOPICS:
        raise ValueError(f"{text}: {name} is the beginning of other topics")
    limit_bytes = int(limit[0]) if limit else MAX_PAYLOAD_BYTES
    if not 0 < limit_bytes <= MAX_PAYLOAD_BYTES:
        raise ValueError(f"{text}: a message has 1 to {MAX_PAYLOAD_BYTES} bytes")
    return SubProtocol(Capability(name, int(version)), int(messages), limit_bytes)


class Protocols:
    """See the module. Sessions that exist keep what they have negotiated. Raises `ValueError` where they are too many."""

    def __init__(self, settings: ProtocolSettings) -> None:
        self._own = [eth.sub_protocol(version) for version in sorted(set(settings.eth))]
        self._own += [snap.sub_protocol(version) for version in sorted(set(settings.snap))]
        self._extra = {item.capability: item for item in map(parse_sub_protocol, settings.extra)}
        self._required = set(settings.required)
        _check(self.offered)
        # Since the start.
        self.has_changed = False

    @property
    def offered(self) -> tuple[SubProtocol, ...]:
        """All of them, as our Hello lists them."""
        return (*self._own, *self._extra.values())

    @property
    def extra(self) -> tuple[SubProtocol, ...]:
        """The user's own."""
        return tuple(self._extra.values())

    @property
    def required(self) -> tuple[str, ...]:
        """Names without which a peer is useless."""
        return tuple(sorted(self._required))

    def add(self, sub_protocol: SubProtocol, *, is_required: bool) -> None:
        """Offer one more, or change one. Raises `ValueError` where all of them would be too many."""
        extra = {**self._extra, sub_protocol.capability: sub_protocol}
        _check((*self._own, *extra.values()))
        name = sub_protocol.capability.name
        if is_required:
            self._required.add(name)
        elif sub_protocol.capability in self._extra:
            self._required.discard(name)
        self._extra, self.has_changed = extra, True

    def remove(self, capability: Capability) -> bool:
        """Offer one of the user's own no more; `False` where there is no such."""
        if self._extra.pop(capability, None) is None:
            return False
        self.has_changed = True
        if all(known.name != capability.name for known in self._extra):
            self._required.discard(capability.name)
        return True


def _check(offered: tuple[SubProtocol, ...]) -> None:
    """That a peer could share all of them. Raises `ValueError`."""
    if len(offered) > _MAX_OFFERED:
        raise ValueError(f"{len(offered)} capabilities, where a Hello has room for {_MAX_OFFERED}")
    codes: dict[str, int] = {}
    for item in offered:
        # Peers share one version of a name.
        codes[item.capability.name] = max(codes.get(item.capability.name, 0), item.messages)
    if sum(codes.values()) > _MAX_CODES:
        raise ValueError(f"all sub-protocols together take {sum(codes.values())} message codes, there are {_MAX_CODES}")
