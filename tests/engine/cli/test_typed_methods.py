"""The client's methods are those of the declared commands."""

from __future__ import annotations

import inspect
from pathlib import Path

import msgspec
import pytest

from rlpx.engine.cli import reference
from rlpx.engine.cli.typed_methods import module_text
from rlpx.engine.client import commands as methods
from rlpx.protocol.bus.commands import COMMANDS

FILE = Path(__file__).parents[3] / "engine" / "client" / "commands.py"


def test_the_client_has_the_methods_of_the_declarations(tmp_path: Path) -> None:
    # If this fails: PYTHONPATH=.venv/house .venv/bin/python -m rlpx.engine.cli.reference README.md engine/client/commands.py
    made = tmp_path / "commands.py"
    reference.main(str(made))
    assert made.read_text() == module_text() == FILE.read_text()


@pytest.mark.parametrize("kind", [methods.Commands, methods.BlockingCommands])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_method_with_its_parameters(name: str, kind: type) -> None:
    command = COMMANDS[name]
    given = inspect.signature(getattr(kind, command.handler_name)).parameters
    fields = {field.name: field for field in msgspec.structs.fields(command.parameters) if field.name != "binary"}
    assert {*given} == {"self", "timeout", *fields}
    for field in fields.values():
        parameter = given[field.name]
        if field.required:
            assert parameter.default is inspect.Parameter.empty
        else:
            assert (parameter.default, parameter.kind) == (field.default, inspect.Parameter.KEYWORD_ONLY)
