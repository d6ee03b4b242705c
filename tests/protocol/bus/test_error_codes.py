"""Error codes are JSON-RPC's: one a name, in the range that is left to implementations."""

from __future__ import annotations

from rlpx.protocol.bus.error_codes import ERROR_CODES, INVALID_PARAMS, CommandError
from rlpx.protocol.errors import ErrorName


def test_each_name_has_a_code_of_its_own() -> None:
    assert len(set(ERROR_CODES.values())) == len(ERROR_CODES)


def test_codes_are_in_the_range_of_implementations_or_the_specifications_own() -> None:
    assert all(-32099 <= code <= -32000 or code == INVALID_PARAMS for code in ERROR_CODES.values())


def test_every_name_has_a_code() -> None:
    assert set(ERROR_CODES) == set(ErrorName)


def test_an_error_says_its_name_to_programs_and_a_sentence_to_people() -> None:
    error = CommandError(ErrorName.QUEUE_FULL, "9 bytes wait")
    assert (error.name, str(error)) == ("queue_full", "9 bytes wait")
