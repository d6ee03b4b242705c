"""What a program's message on a worker's data endpoint is about: a key of its head, a JSON object, tells.

{"register": …} and {"token": …}    responders (`responders.py`)
{"feed": …}                         feeds
{"jsonrpc": …}                      commands
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from rlpx.protocol.errors import PEER_TEXT_MAX_CHARACTERS, printable


class Use(StrEnum):
    """What a program may do with its connection to a worker, any of them at the same time."""

    RESPONDER = "responder"
    FEED = "feed"
    CALL = "call"


# The keys that a head is told by. It has those of one use.
KEYS: Final = {"register": Use.RESPONDER, "token": Use.RESPONDER, "feed": Use.FEED, "jsonrpc": Use.CALL}

# As much of a head as an error may repeat, in bytes.
_REPEATED_BYTES: Final = 4 * PEER_TEXT_MAX_CHARACTERS
_EXPECTED: Final = f"a JSON object with one of the keys {', '.join(KEYS)}"


class NotUnderstoodError(ValueError):
    """A program's message is invalid; the text has the allowed forms."""


class RefusedMessage(msgspec.Struct, frozen=True):
    """To a program: its last message is invalid, or cannot be carried out."""

    error: str


class _Head(msgspec.Struct, frozen=True, gc=False):
    """The keys, their values unread."""

    register: msgspec.Raw = msgspec.Raw()
    token: msgspec.Raw = msgspec.Raw()
    feed: msgspec.Raw = msgspec.Raw()
    jsonrpc: msgspec.Raw = msgspec.Raw()


def read_use(head: bytes) -> Use:
    """Return what a message is about, by its head. Raises `NotUnderstoodError`."""
    try:
        found = msgspec.json.decode(head, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_understood(_EXPECTED, head) from error
    uses = {use for key, use in KEYS.items() if getattr(found, key)}
    if len(uses) != 1:
        raise not_understood(_EXPECTED, head)
    return uses.pop()


def not_understood(expected: str, head: bytes) -> NotUnderstoodError:
    """Return the error that names what is allowed, and repeats the beginning of what came."""
    given = printable(head[:_REPEATED_BYTES].decode("utf-8", "replace"))
    return NotUnderstoodError(f"not understood: expected {expected}; got {given}")
