"""Every error that a command may give has its class."""

from __future__ import annotations

import pytest

from rlpx.engine import client
from rlpx.engine.client.errors import BY_NAME, answered_error, own_error
from rlpx.engine.client.presence import EngineError
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.errors import ErrorName


@pytest.mark.parametrize("name", ErrorName)
def test_every_name_has_its_class_which_programs_can_import(name: ErrorName) -> None:
    kind = BY_NAME[name]
    assert kind.__name__.endswith("".join(part.capitalize() for part in name.split("_")) + "Error")
    assert getattr(client, kind.__name__) is kind
    error = own_error(name, "why")
    assert type(error) is type(answered_error(name, "why", error.code)) is kind
    assert (error.name, error.code, str(error)) == (name, ERROR_CODES[name], "why")


def test_a_name_of_a_later_engine_is_an_error_all_the_same() -> None:
    error = answered_error("too_new", "why", -32099)
    assert (type(error), error.name, error.code) == (EngineError, "too_new", -32099)
