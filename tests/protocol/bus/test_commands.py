"""Commands are declared once: each has a name, a sentence and its errors, and nothing that nobody reads."""

from __future__ import annotations

import msgspec
import pytest

from rlpx.protocol.bus.commands import COMMANDS, Command, NoParameters
from rlpx.protocol.errors import ErrorName


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_a_command_says_what_it_does_in_a_sentence(command: Command) -> None:
    assert command.text.startswith(command.summary)
    assert command.summary[0].isupper()
    assert "\n" not in command.text
    assert len(command.summary) < 100


def test_a_command_that_takes_something_may_find_it_wrong() -> None:
    assert COMMANDS["session"].all_errors == (ErrorName.INVALID_PARAMS, ErrorName.NO_SUCH_SESSION)
    assert COMMANDS["snapshot"].all_errors == (ErrorName.WORKER_LOST, ErrorName.TIMED_OUT)
    assert COMMANDS["status"].all_errors == ()


def test_a_handler_has_the_name_of_its_command() -> None:
    assert COMMANDS["disconnect-all"].handler_name == "disconnect_all"
    assert len({command.handler_name for command in COMMANDS.values()}) == len(COMMANDS)


def test_parameters_without_a_meaning_of_their_own_are_refused() -> None:
    assert issubclass(COMMANDS["counts"].parameters, NoParameters)
    for command in COMMANDS.values():
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"nonsense": 1}, command.parameters)


def test_a_message_has_a_payload() -> None:
    assert {name for name, command in COMMANDS.items() if command.has_payload} == {"send", "request", "broadcast"}
