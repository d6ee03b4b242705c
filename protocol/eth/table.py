"""The rows of a capability's table of messages, each with its id, role, versions and bound."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

# No message may inflate to more than 10 MiB, in geth and in reth.
MAX_MESSAGE_BYTES: Final = 10 * 1024 * 1024


class MessageRole(StrEnum):
    """The role of a message, which tells its receiver whether an answer is due."""

    ANNOUNCEMENT = "announcement"
    REQUEST = "request"
    RESPONSE = "response"


class MessageType(msgspec.Struct, frozen=True):
    """A row of the table of messages: its id within the capability, and the first and last version that have it.

    If `until` is None, every later version has it. `max_bytes` bounds the inflated payload, besides the limit of the whole
    capability.
    """

    id: int
    name: str
    role: MessageRole = MessageRole.ANNOUNCEMENT
    since: int = 0
    until: int | None = None
    max_bytes: int = MAX_MESSAGE_BYTES

    def is_in(self, version: int) -> bool:
        """Whether a version of the capability has this message."""
        return self.since <= version and (self.until is None or version <= self.until)
