"""The meaning of a message, a payload and a reason that users name."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from rlpx.protocol.bus.arguments import message_of, payload_of, reason_of
from rlpx.protocol.bus.commands import SendParameters
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.values import ReasonName
from rlpx.protocol.errors import DisconnectReason, ErrorName


def test_every_reason_of_the_specification_can_be_named() -> None:
    assert set(get_args(ReasonName)) == {reason.label for reason in DisconnectReason}
    for reason in DisconnectReason:
        assert reason_of(reason.label) is reason


def sent(message: str | int, capability: str = "eth") -> SendParameters:
    """The message that a user wants to send."""
    values = {"session": 1, "capability": capability, "message": message, "payload": "0x"}
    return msgspec.convert(values, SendParameters)


@pytest.mark.parametrize(
    ("message", "number"),
    [("Transactions", 2), ("transactions", 2), (2, 2), ("2", 2), ("0x02", 2), ("Status", 0), (127, 127)],
)
def test_a_message_has_a_name_or_a_number(message: str | int, number: int) -> None:
    assert message_of(sent(message)) == number


def test_a_message_of_a_capability_of_the_users_own_has_a_number_only() -> None:
    assert message_of(sent("3", "mine")) == 3
    with pytest.raises(CommandError, match="message: expected a message of mine: a number from 0 to 127"):
        message_of(sent("Three", "mine"))


# A number in quotes is bounded as one without them: it goes on to the worker as a small integer.
@pytest.mark.parametrize("message", ["Trnsactions", "0x", "1.5", "-1", "128", "9" * 30])
def test_a_message_that_is_none_is_an_invalid_parameter(message: str) -> None:
    with pytest.raises(CommandError, match="message: ") as caught:
        message_of(sent(message))
    assert caught.value.name == ErrorName.INVALID_PARAMS


def test_a_payload_is_hex_behind_0x() -> None:
    for text, payload in (("0x", b""), ("0xC180", b"\xc1\x80")):
        assert payload_of(text) == payload


@pytest.mark.parametrize("payload", ["c0", "0xc", "0xzz", "", "0", "0xc0 c0", "0x c0"])
def test_a_payload_that_is_no_hex_is_an_invalid_parameter(payload: str) -> None:
    with pytest.raises(CommandError, match="payload") as error:
        payload_of(payload)
    assert error.value.name == ErrorName.INVALID_PARAMS
