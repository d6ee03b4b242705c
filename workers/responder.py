"""Answers to what peers ask of us while no program of the user's does: a node that has nothing.

The empty answer of the request's version and id is valid, so that real clients stay.
"""

from __future__ import annotations

from protocol.events import MessageReceived
from protocol.session import Session


def answer_with_nothing(session: Session, request: MessageReceived) -> None:
    """Send the valid empty answer of a request. Raises `RlpError` where the request is malformed."""
    if request.request_id is not None:
        session.answer(request, request.kind.empty_answer(request.request_id, request.payload))
