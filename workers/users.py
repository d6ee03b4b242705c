"""The users that may connect over TCP, as the engine says: their keys and their rights."""

from __future__ import annotations

from collections.abc import Iterable

from rlpx.protocol.bus.control import KeyUser


class Users:
    """See the module. A link without a user is on this machine's own socket, or keys are not needed: it may do all."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._rights: dict[str, frozenset[str]] = {}

    def set(self, users: Iterable[KeyUser]) -> set[str]:
        """Replace all users; returns the names of those that have lost a right or are gone."""
        before = self._rights
        self._names, self._rights = {}, {}
        for user in users:
            self._names[user.public] = user.name
            self._rights[user.name] = frozenset(user.rights)
        return {name for name, rights in before.items() if not rights <= self._rights.get(name, frozenset())}

    def who(self, public: bytes) -> str | None:
        """The name of the user with this key, if it has any right."""
        name = self._names.get(public)
        return name if name is not None and self._rights[name] else None

    def may(self, user: str | None, right: str) -> bool:
        """Whether a user has a right."""
        return user is None or right in self._rights.get(user, ())
