"""Types of the values that users write, both in settings and in commands: bounds, descriptions, titles, examples.

`title` and `examples` are for the message about a wrong value, `description` is for the schema and for `--help`, and
`extra["metavar"]` is the name of the value in `--help`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

_INT64_MAX = (1 << 63) - 1

Level = Literal["debug", "info", "warning", "error"]
# The name of a capability has up to 8 ASCII letters and digits (rlpx.md). Its version, its number of message codes and the
# largest size of an uncompressed message follow.
SubProtocolText = Annotated[
    str,
    Meta(
        pattern="^[a-z][a-z0-9]{0,7}/[0-9]{1,3}/[0-9]{1,2}(/[0-9]{1,8})?$",
        title="NAME/VERSION/MESSAGES[/MAX_BYTES], where NAME is up to 8 lower-case letters and digits",
        examples=["wit/0/4/65536"],
    ),
]
# The URL itself is parsed by `rlpx.protocol.rlpx.enode`.
EnodeUrl = Annotated[
    str,
    Meta(
        max_length=512,
        title="an enode URL, enode://ID@ADDRESS:PORT with an ID of 128 hex digits, or an enr: record",
        examples=["enode://d860a01f...98ee@203.0.113.7:30303"],
    ),
]
Hash = Annotated[
    str,
    Meta(
        pattern="^0x[0-9a-fA-F]{64}$",
        description="32 bytes, 0x and hex.",
        title="a hash, 0x and 64 hex digits",
        examples=["0xd4e5...8fa3"],
    ),
]
PeerId = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{128}$",
        description="The peer's id.",
        title="a peer id of 128 hex digits",
        examples=["d860a01f...98ee"],
    ),
]
# It has no pattern, as a regular expression takes seconds for the megabytes that a message may have.
Hex = Annotated[str, Meta(description="0x and hex.")]
Block = Annotated[int, Meta(ge=0, le=_INT64_MAX)]
Limit = Annotated[int, Meta(ge=0, le=1_000_000, extra={"metavar": "N"})]
SessionNumber = Annotated[int, Meta(ge=0, le=_INT64_MAX, description="The session's number.", extra={"metavar": "ID"})]
ReasonName = Literal[
    "disconnect_requested",
    "tcp_error",
    "protocol_breach",
    "useless_peer",
    "too_many_peers",
    "already_connected",
    "incompatible_version",
    "invalid_identity",
    "client_quitting",
    "unexpected_identity",
    "connected_to_self",
    "ping_timeout",
    "subprotocol_error",
]
