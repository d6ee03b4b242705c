"""The meaning of the parameters of messages and goodbyes, which their types cannot express.

The engine and its workers use these functions. Rules that only the engine knows are in `engine/hub/arguments.py`.
"""

from __future__ import annotations

from typing import Protocol

from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.errors import DisconnectReason, ErrorName, printable
from rlpx.protocol.eth.kinds import message_id, message_names
from rlpx.protocol.rlpx.capabilities import LAST_CODE
from rlpx.protocol.wording import Expected, nearest, wrong


class NamesMessage(Protocol):
    """Parameters that name a message of a capability."""

    @property
    def capability(self) -> str:
        """The capability's name."""

    @property
    def message(self) -> str | int:
        """The message's name or its id."""


def message_of(parameters: NamesMessage) -> int:
    """The id of the message that the user names. Raises `CommandError`."""
    named = parameters.message
    found = named if isinstance(named, int) else message_id(parameters.capability, named)
    if found is None or not 0 <= found <= LAST_CODE:
        known = message_names(parameters.capability)
        allowed = f"one of {', '.join(known)}, or its number" if known else f"a number from 0 to {LAST_CODE}"
        problem = wrong(named, Expected(f"a message of {printable(parameters.capability)}: {allowed}", "0"))
        raise CommandError(ErrorName.INVALID_PARAMS, f"message: {problem}{nearest(str(named), known)}")
    return found


def payload_of(text: str) -> bytes:
    """The bytes of the parameter `payload`. Raises `CommandError`."""
    why = ""
    if not text.startswith("0x"):
        why = "it does not begin with 0x"
    elif len(text) % 2:
        why = "its number of digits is odd"
    try:
        # `fromhex` would accept spaces.
        payload = bytes.fromhex(text[2:]) if not why and " " not in text else None
    except ValueError:
        payload = None
    if payload is None:
        raise CommandError(ErrorName.INVALID_PARAMS, f"payload: {wrong(text, Expected('0x and hex digits', '0xc0'), why)}")
    return payload


def reason_of(name: str) -> DisconnectReason:
    """The reason with this name, which the schema has checked."""
    return DisconnectReason[name.upper()]
