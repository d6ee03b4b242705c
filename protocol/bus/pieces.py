"""Cuts a batch that is too long for one message of another carrier into several batches, by the numbers of its events."""

from __future__ import annotations

from typing import Final

import msgspec

# What a head may grow by when its first number is another one: the digits of a 64-bit number.
_DIGITS: Final = 20


class _Size(msgspec.Struct, frozen=True):
    """The bytes of an event's payload; an event without a payload does not say any."""

    size: int = 0


_read_head: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_events: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_number: Final = msgspec.json.Decoder(int).decode
_read_size: Final = msgspec.json.Decoder(_Size).decode


def pieces(head: bytes, body: bytes, max_bytes: int) -> tuple[list[tuple[bytes, bytes]], int]:
    """Return heads and bodies of at most `max_bytes`, head and body together, and how many events are in none of them.

    The events keep their order. One that does not fit into a piece of its own is left out: its number is missing, as that of
    any lost event. `head` is that of a batch or of a feed's message, with `first` and `events`. Raises `ValueError` if it is
    malformed.
    """
    fields = _read_head(head)
    try:
        events, first = _read_events(fields["events"]), _read_number(fields["first"])
    except KeyError as error:
        raise ValueError(f"a batch without the field {error}") from None
    empty_bytes = len(_head(fields, first, [])) + _DIGITS
    found: list[tuple[bytes, bytes]] = []
    left_out = 0
    begun, start, end, used = first, 0, 0, empty_bytes
    group: list[msgspec.Raw] = []
    for ordinal, event in enumerate(events, first):
        size = _read_size(event).size if body else 0
        cost = len(bytes(event)) + 1 + size
        is_too_long = empty_bytes + cost > max_bytes
        if group and (is_too_long or used + cost > max_bytes):
            found.append((_head(fields, begun, group), body[start:end]))
            group = []
        if is_too_long:
            left_out += 1
        else:
            if not group:
                begun, start, used = ordinal, end, empty_bytes
            group.append(event)
            used += cost
        end += size
    if group:
        found.append((_head(fields, begun, group), body[start:end]))
    return found, left_out


def _head(fields: dict[str, msgspec.Raw], first: int, events: list[msgspec.Raw]) -> bytes:
    return msgspec.json.encode({**fields, "first": first, "events": events})
