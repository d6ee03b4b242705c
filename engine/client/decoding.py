"""Decodes the payload of a topic into the typed message of eth or snap, for events and for requests of peers."""

from __future__ import annotations

from rlpx.protocol.eth.dialects import DIALECTS
from rlpx.protocol.eth.kinds import TAP, message_id
from rlpx.protocol.eth.messages import EthMessage
from rlpx.protocol.eth.snap_messages import SnapMessage


def decode(topic: str, version: int | None, payload: bytes) -> EthMessage | SnapMessage:
    """The typed message of a topic, including our own messages seen through a tap, in the form of the version.

    Raises `PeerError` if the payload is malformed, `ValueError` if the topic is not a message of eth or snap.
    """
    capability, _, name = topic.removeprefix(TAP).partition(".")
    message = message_id(capability, name)
    if message is None or capability not in DIALECTS or version is None:
        raise ValueError(f"{topic} is no message of eth or snap")
    decoded: EthMessage | SnapMessage = DIALECTS[capability].decode(version, message, payload)
    return decoded
