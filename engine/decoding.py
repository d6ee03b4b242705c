"""From a topic and a payload to the typed message of eth or snap, for events and for requests of peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol import eth, eth_messages, snap, snap_messages
from protocol.eth_messages import EthMessage
from protocol.messages import TAP, message_id
from protocol.snap_messages import SnapMessage

_DECODERS: Final[dict[str, Callable[[int, int, bytes], EthMessage | SnapMessage]]] = {
    eth.NAME: eth_messages.decode,
    snap.NAME: snap_messages.decode,
}


def decode(topic: str, version: int | None, payload: bytes) -> EthMessage | SnapMessage:
    """The typed message of a topic, one of ours in a tap as well, in the form of the version.

    Raises `PeerError` where the payload is malformed, `ValueError` where the topic is no message of eth or snap.
    """
    capability, _, name = topic.removeprefix(TAP).partition(".")
    message = message_id(capability, name)
    if message is None or capability not in _DECODERS or version is None:
        raise ValueError(f"{topic} is no message of eth or snap")
    return _DECODERS[capability](version, message, payload)
