"""The messages between a worker and a responder: their JSON heads.

A responder registers topics, and the number of requests that it takes at a time. The worker offers it requests, and the
responder answers each with its token. The RLP payload of a request or an answer is a second frame.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rlpx.protocol.bus.data_heads import RefusedMessage, not_understood

# The most requests that one responder may have at a time, as each takes memory at both ends.
MAX_CREDIT: Final = 1024
MAX_TOPICS: Final = 64
MAX_TOPIC_CHARACTERS: Final = 64

Topic = Annotated[str, msgspec.Meta(max_length=MAX_TOPIC_CHARACTERS)]

_EXPECTED: Final = f'{{"register": [up to {MAX_TOPICS} topics], "credit": 0 to {MAX_CREDIT}}} or {{"token": number}}'


class ResponderMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """From a responder: an answer if `token` is set, otherwise a registration, which replaces an earlier one."""

    register: Annotated[tuple[Topic, ...], msgspec.Meta(max_length=MAX_TOPICS)] = ()
    credit: Annotated[int, msgspec.Meta(ge=0, le=MAX_CREDIT)] = 0
    token: int | None = None
    # Sent by programs of earlier versions, whose sockets could outlive them. A connection cannot, so it is ignored.
    start: int = 0


class OfferedRequest(msgspec.Struct, frozen=True):
    """To a responder: a peer's request, to be answered within `deadline_ms`."""

    token: int
    session: int
    peer: str | None
    topic: str
    version: int
    request_id: int | None
    deadline_ms: int


def read_responder_message(head: bytes) -> ResponderMessage:
    """Decode the head of a responder's message. Raises `NotUnderstoodError`."""
    try:
        return msgspec.json.decode(head, type=ResponderMessage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_understood(_EXPECTED, head) from error


def read_worker_message(head: bytes) -> OfferedRequest | RefusedMessage:
    """Decode the head of a worker's message. As workers are ours, invalid data raises `msgspec.DecodeError`."""
    try:
        return msgspec.json.decode(head, type=OfferedRequest)
    except msgspec.ValidationError:
        return msgspec.json.decode(head, type=RefusedMessage)
