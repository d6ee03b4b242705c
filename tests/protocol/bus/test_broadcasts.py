"""The bound on the size of a broadcast, and its result."""

from __future__ import annotations

import pytest

from rlpx.protocol.bus.broadcasts import check_size, result_of
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.results import BroadcastResult
from rlpx.protocol.errors import ErrorName


def test_a_broadcast_has_as_many_bytes_as_allowed() -> None:
    check_size(10, 5, 50)
    with pytest.raises(CommandError, match=r"^60 bytes for all sessions, 50 are allowed in one broadcast$") as caught:
        check_size(10, 6, 50)
    assert caught.value.name == "queue_full"


def test_the_result_names_each_session_that_did_not_get_it() -> None:
    assert result_of(0, {}, "") == BroadcastResult(0, {})
    assert result_of(2, {7: ErrorName.NOT_SHARED}, "") == BroadcastResult(2, {"7": ErrorName.NOT_SHARED})


def test_a_message_that_no_session_can_have_is_an_error_only_if_that_is_its_own_fault() -> None:
    wrong, full = ErrorName.INVALID_PARAMS, ErrorName.QUEUE_FULL
    assert result_of(1, {7: wrong}, "bad").sent == 1
    assert result_of(0, {7: wrong, 8: full}, "bad").sent == 0
    with pytest.raises(CommandError, match=r"^bad$") as caught:
        result_of(0, {7: wrong, 8: wrong}, "bad")
    assert caught.value.name == wrong
