"""Reads a client's name of Hello: its family and its version.

Clients name themselves `Geth/v1.16.2-stable-abcdef01/linux-amd64/go1.24`; the convention is theirs, no specification has it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rlpx.protocol.errors import printable

# A longer name, family or version is cut: peers choose them, and a table has columns.
NAME_CHARACTERS: Final = 128
FAMILY_CHARACTERS: Final = 24
VERSION_CHARACTERS: Final = 24
# Sessions whose peer has not sent its Hello, or an empty name.
NO_FAMILY: Final = "-"


class ClientName(msgspec.Struct, frozen=True):
    """A client's whole name, its family (`Geth`) and its version (`v1.16.2`), all printable; the last may be empty."""

    text: str
    family: str
    version: str


NO_CLIENT: Final = ClientName("", NO_FAMILY, "")


def client_name(text: str | None) -> ClientName:
    """Read a name. Never raises; a name that does not follow the convention is a family without a version."""
    if not text:
        return NO_CLIENT
    shown = printable(text, max_characters=NAME_CHARACTERS)
    family, *parts = shown.split("/")
    # Some operators put a name of their own between the two: `Geth/my-node/v1.16.2`.
    version = next((part for part in parts if _is_version(part)), "")
    # The build of a version says little, and makes one version look like many: `v1.16.2-stable-abcdef01`.
    version = version.partition("-")[0].partition("+")[0]
    return ClientName(shown, family.strip()[:FAMILY_CHARACTERS] or NO_FAMILY, version[:VERSION_CHARACTERS])


def _is_version(part: str) -> bool:
    digits = part.removeprefix("v")
    return "." in digits and digits[:1].isdigit()
