"""What an engine and its workers must agree on: the form of every message between them, as one short text.

A worker runs the code that is on disk when it starts, and that may be newer than the engine's: so a restart of the workers
upgrades them. If messages have another form there, the worker ends before it reads one.
"""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from types import UnionType
from typing import Final

import msgspec

from rlpx.protocol.bus.control import Command, Report
from rlpx.protocol.bus.records import Record

# The exit code of a worker that does not agree with its engine (sysexits: the other end speaks another protocol).
DISAGREES_EXIT: Final = os.EX_PROTOCOL

# Parts of a JSON Schema that change nothing in a message.
_TEXTS: Final = frozenset({"title", "description", "default"})


@cache
def fingerprint() -> str:
    """The digest of all commands, reports and records: their tags, fields and types, but not their descriptions."""
    return digest(Command, Report, Record)


def digest(*types: type | UnionType) -> str:
    """The digest of the forms of these types and of all types in them, in hex."""
    forms, components = msgspec.json.schema_components(types)
    return sha256(msgspec.json.encode(_bare([list(forms), components]), order="deterministic")).hexdigest()


def _bare(schema: object) -> object:
    """A schema without what it says to people."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in _TEXTS}
    return [_bare(item) for item in schema] if isinstance(schema, list) else schema
