"""The values that users write: names and bounds are those of the protocol."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from rlpx.protocol.bus.values import Hash, PeerId, ReasonName, SubProtocolText
from rlpx.protocol.errors import DisconnectReason


def test_every_reason_of_the_specification_can_be_named() -> None:
    assert get_args(ReasonName) == tuple(reason.label for reason in DisconnectReason)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("0x" + "aB" * 32, Hash), ("ab" * 64, PeerId), ("wit/0/4", SubProtocolText), ("wit/0/4/65536", SubProtocolText)],
)
def test_a_value_of_the_right_form_is_taken(text: str, kind: type[str]) -> None:
    assert msgspec.convert(text, kind) == text


@pytest.mark.parametrize(
    ("text", "kind"),
    [("ab" * 32, Hash), ("AB" * 64, PeerId), ("wit/0", SubProtocolText), ("WIT/0/4", SubProtocolText)],
)
def test_a_value_of_another_form_is_refused(text: str, kind: type[str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, kind)
