"""The capabilities of every Hello: eth, snap, and the user's own sub-protocols, which can change while the engine runs."""

from __future__ import annotations

from typing import Final

from rlpx.engine.settings.settings import ProtocolSettings
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.rlpx.bounds import MAX_PAYLOAD_BYTES
from rlpx.protocol.rlpx.capabilities import FIRST_CAPABILITY_CODE, LAST_CODE, Capability, SubProtocol

# Message codes of all sub-protocols together. They must fit, so that a user's cannot displace those of eth and snap.
_MAX_CODES: Final = LAST_CODE + 1 - FIRST_CAPABILITY_CODE
# A Hello has up to 2048 bytes, and a capability takes up to 14 of them.
_MAX_OFFERED: Final = 100
# The first parts of topics whose events are not messages of peers.
_TOPICS: Final = frozenset({"tap", "session", "peer", "dial", "worker", "engine"})


def parse_sub_protocol(text: str) -> SubProtocol:
    """Parse `NAME/VERSION/MESSAGES[/MAX_BYTES]`. Raises `ValueError` if the name or a number is not allowed."""
    name, version, messages, *limit = text.split("/")
    if name in {eth.NAME, snap.NAME}:
        raise ValueError(f"{name} is built in")
    if name in _TOPICS:
        raise ValueError(f"other topics begin with {name}")
    limit_bytes = int(limit[0]) if limit else MAX_PAYLOAD_BYTES
    if not 0 < limit_bytes <= MAX_PAYLOAD_BYTES:
        raise ValueError(f"MAX_BYTES is from 1 to {MAX_PAYLOAD_BYTES}")
    return SubProtocol(Capability(name, int(version)), int(messages), limit_bytes)


class Protocols:
    """See the module. Existing sessions keep the capabilities that they have negotiated.

    Raises `ValueError` if there are too many sub-protocols, or one is named twice.
    """

    def __init__(self, settings: ProtocolSettings) -> None:
        self._own = [eth.sub_protocol(version) for version in sorted(set(settings.eth))]
        self._own += [snap.sub_protocol(version) for version in sorted(set(settings.snap))]
        self._extra: dict[Capability, SubProtocol] = {}
        for item in map(parse_sub_protocol, settings.extra):
            if item.capability in self._extra:
                raise ValueError(f"{item.capability} is named twice")
            self._extra[item.capability] = item
        self._required = set(settings.required)
        _check(self.offered)
        # Whether the sub-protocols differ from those at the start.
        self.has_changed = False

    @property
    def offered(self) -> tuple[SubProtocol, ...]:
        """All sub-protocols, in the order of our Hello."""
        return (*self._own, *self._extra.values())

    @property
    def extra(self) -> tuple[SubProtocol, ...]:
        """The user's own sub-protocols."""
        return tuple(self._extra.values())

    @property
    def required(self) -> tuple[str, ...]:
        """Names that a peer must share."""
        return tuple(sorted(self._required))

    def add(self, sub_protocol: SubProtocol, *, is_required: bool) -> None:
        """Offer a further sub-protocol, or change one. Raises `ValueError` if there would be too many."""
        extra = {**self._extra, sub_protocol.capability: sub_protocol}
        _check((*self._own, *extra.values()))
        name = sub_protocol.capability.name
        if is_required:
            self._required.add(name)
        elif sub_protocol.capability in self._extra:
            self._required.discard(name)
        self._extra, self.has_changed = extra, True

    def remove(self, capability: Capability) -> bool:
        """Stop offering one of the user's own sub-protocols. Returns `False` if it is not offered."""
        if self._extra.pop(capability, None) is None:
            return False
        self.has_changed = True
        if all(known.name != capability.name for known in self._extra):
            self._required.discard(capability.name)
        return True


def _check(offered: tuple[SubProtocol, ...]) -> None:
    """Check that a peer could share all sub-protocols. Raises `ValueError`."""
    if len(offered) > _MAX_OFFERED:
        raise ValueError(f"{len(offered)} capabilities are too many; a Hello has room for {_MAX_OFFERED}")
    codes: dict[str, int] = {}
    for item in offered:
        # A session uses one version of each name.
        codes[item.capability.name] = max(codes.get(item.capability.name, 0), item.messages)
    if sum(codes.values()) > _MAX_CODES:
        raise ValueError(f"all sub-protocols together take {sum(codes.values())} message codes; there are {_MAX_CODES}")
