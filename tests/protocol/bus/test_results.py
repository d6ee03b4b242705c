"""Results of commands: what users were promised, in the promised order."""

from __future__ import annotations

import msgspec

from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.results import DialResult, SessionObject, SnapshotResult


def test_no_result_but_the_document_is_without_a_schema() -> None:
    untyped = {name for name, command in COMMANDS.items() if command.result == dict[str, object]}
    assert untyped == set()
    assert [name for name, command in COMMANDS.items() if "Any" in str(command.result)] == ["discover"]


def test_a_dial_that_does_not_wait_has_no_established_session() -> None:
    assert msgspec.json.encode(DialResult(7)) == b'{"session":7}'


def test_a_snapshot_may_carry_sessions_that_are_encoded_already() -> None:
    encoded = SnapshotResult("r", [msgspec.Raw(b'{"session":1}')], [("session.opened", None, 3)])
    assert msgspec.json.encode(encoded) == b'{"run":"r","sessions":[{"session":1}],"next":[["session.opened",null,3]]}'


def test_the_session_object_has_its_fields_in_the_promised_order() -> None:
    assert SessionObject.__struct_fields__ == (
        *("session", "peer", "enode", "direction", "phase", "stage", "worker", "remote", "local", "client", "capabilities"),
        *("shared", "opened_us", "established_us", "bytes_in", "bytes_out", "messages_in", "messages_out", "rtt_ms"),
        *("queued_bytes", "chain"),
    )
