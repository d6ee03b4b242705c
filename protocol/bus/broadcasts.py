"""The rules of the command `broadcast` that the engine and a worker share: the bound on its size, and its result."""

from __future__ import annotations

from collections.abc import Mapping

from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.results import BroadcastResult
from rlpx.protocol.errors import ErrorName


def check_size(payload_bytes: int, sessions: int, limit_bytes: int) -> None:
    """Refuse a broadcast with more bytes for all sessions together than allowed. Raises `CommandError`."""
    total_bytes = payload_bytes * sessions
    if total_bytes > limit_bytes:
        text = f"{total_bytes} bytes for all sessions, {limit_bytes} are allowed in one broadcast"
        raise CommandError(ErrorName.QUEUE_FULL, text)


def result_of(sent: int, refused: Mapping[int, ErrorName], complaint: str) -> BroadcastResult:
    """Return the result: the number of sessions that got the message, and the error of each other session.

    `complaint` is the text of the first error that concerns the message itself. If no session can have the message because
    of such an error, raises `CommandError` with this text.
    """
    if complaint and not sent and set(refused.values()) == {ErrorName.INVALID_PARAMS}:
        raise CommandError(ErrorName.INVALID_PARAMS, complaint)
    return BroadcastResult(sent, {str(session): name for session, name in refused.items()})
