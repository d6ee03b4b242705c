"""What users can call: the promised names, bounds that are checked before the engine is asked, one document of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast, get_args

import msgspec
import orjson
import pytest

from engine.commands import (
    AnswerResult,
    BroadcastResult,
    Commands,
    ConfirmedResult,
    DialParameters,
    DialResult,
    DoneResult,
    LogLevelResult,
    NamedSubProtocol,
    PeersResult,
    ReasonName,
    SendParameters,
    SessionsResult,
    StatusResult,
    StoppingResult,
    SubProtocolsResult,
    WorkerStatus,
    message_of,
    payload_of,
    reason_of,
    registry,
)
from engine.operations import Operations
from engine.rpc import ERROR_CODES, CommandError, Parameters, Registry
from protocol.errors import DisconnectReason

HASH = "0x" + "ab" * 32
# Of the contract with users; more of it may follow, nothing else.
PROMISED = {
    "status",
    "counts",
    "sessions",
    "session",
    "dial",
    "disconnect",
    "disconnect-all",
    "send",
    "broadcast",
    "request",
    "set-status",
    "set-limits",
    "ban",
    "peers",
    "peers-add",
    "peers-remove",
    "subprotocols",
    "subprotocols-add",
    "subprotocols-remove",
    "log-level",
    "history",
    "shutdown",
    "discover",
}
WORKER = WorkerStatus(
    0, 1, ready=True, pending=0, active=0, goodbyes=0, loop_lag_ms=0.1, memory_bytes=1, dropped_events=0, unanswered=0
)
STATUS = StatusResult(
    version="1",
    compiled=True,
    pid=7,
    enode="enode://",
    uptime_ms=1,
    chain={},
    head={},
    workers=[WORKER],
    counts={},
    budgets={},
    run_dir="/run",
    memory_bytes=1,
)


RESULTS: dict[str, object] = {
    "status": STATUS,
    "counts": {"pending": {}},
    "sessions": SessionsResult([{"session": 1}], 1),
    "session": {"session": 1},
    "disconnect": DoneResult(1),
    "disconnect_all": DoneResult(2),
    "send": DoneResult(1),
    "broadcast": BroadcastResult(1, {"2": "queue_full"}),
    "peers": PeersResult([], []),
    "peers_add": PeersResult([], []),
    "peers_remove": PeersResult([], []),
    "ban": DoneResult(0),
    "set_limits": {"limits": {}},
    "request": AnswerResult("BlockHeaders", "0xc0"),
    "set_status": ConfirmedResult([0], [1]),
    "subprotocols": SubProtocolsResult([NamedSubProtocol("wit/0", 4, 65_536)], ["wit"]),
    "subprotocols_add": ConfirmedResult([0], []),
    "subprotocols_remove": ConfirmedResult([0], []),
    "log_level": LogLevelResult("debug", "info"),
    "history": [{"session": 1}],
    "shutdown": StoppingResult(stopping=True),
}


class ScriptedEngine:
    """Answers each command with something of its result's type, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Parameters] = []

    def __getattr__(self, name: str) -> Callable[[Parameters], Awaitable[object]]:
        async def carry_out(parameters: Parameters) -> object:
            self.asked.append(parameters)
            if isinstance(parameters, DialParameters):
                return DialResult(1, {"session": 1} if parameters.wait else None)
            return RESULTS[name]

        return carry_out


def scripted() -> tuple[Registry, list[Parameters]]:
    """All methods in front of a scripted engine, and what that is asked."""
    engine = ScriptedEngine()
    return registry(cast("Commands", engine), "9"), engine.asked


def called(method: str, *attachments: bytes, **parameters: Any) -> tuple[dict[str, Any], list[Parameters]]:
    """The reply to one call, and what the engine was asked."""
    methods, asked = scripted()
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
    return orjson.loads(asyncio.run(methods.call(body, list(attachments)))), asked


def document() -> dict[str, Any]:
    """What `discover` gives."""
    found: dict[str, Any] = called("discover")[0]["result"]
    return found


def test_every_method_has_a_promised_name() -> None:
    names = {method["name"] for method in document()["methods"]}
    assert names == PROMISED


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("status", {}),
        ("counts", {}),
        ("sessions", {}),
        ("session", {"session": 1}),
        ("dial", {"enode": "enode://"}),
        ("disconnect", {"session": 1}),
        ("disconnect-all", {}),
        ("send", {"session": 1, "capability": "eth", "message": "Transactions", "payload": "0xc0"}),
        ("request", {"session": 1, "capability": "eth", "message": "GetBlockHeaders", "payload": "0xc0"}),
        ("broadcast", {"capability": "eth", "message": "Transactions", "payload": "0xc0", "shared": "eth/68"}),
        ("set-status", {"number": 1, "hash": HASH}),
        ("history", {}),
        ("peers", {}),
        ("peers-add", {"enode": "enode://", "trusted": True}),
        ("peers-remove", {"peer": "ab" * 64}),
        ("ban", {"address": "1.2.3.4", "seconds": 5}),
        ("set-limits", {"max_active_inbound": 5}),
        ("subprotocols", {}),
        ("subprotocols-add", {"protocol": "wit/0/4/65536", "required": True}),
        ("subprotocols-remove", {"protocol": "wit/0"}),
        ("log-level", {"level": "debug"}),
        ("shutdown", {}),
        ("discover", {}),
    ],
)
def test_each_method_asks_the_engine_once_and_answers(method: str, parameters: dict[str, Any]) -> None:
    reply, asked = called(method, **parameters)
    assert "result" in reply
    assert len(asked) == (method != "discover")


def test_the_document_is_json_and_says_what_every_method_takes_gives_and_may_answer() -> None:
    found = document()
    assert found["openrpc"] == "1.3.2"
    for method in found["methods"]:
        assert method["result"]["schema"]
        for error in method["errors"]:
            assert error["code"] == ERROR_CODES[error["data"]["name"]]
    by_name = {method["name"]: method for method in found["methods"]}
    assert [item["name"] for item in by_name["dial"]["params"]] == ["enode", "wait"]
    assert [item["name"] for item in by_name["dial"]["params"] if item["required"]] == ["enode"]


def test_the_engine_has_words_for_every_method() -> None:
    # The document needs the methods only, not an engine that runs.
    found = registry(object.__new__(Operations), "1").document()
    assert [method["name"] for method in found["methods"] if not method["summary"]] == []


def test_every_reference_of_the_document_leads_somewhere() -> None:
    found = document()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            inner = [item for child in value.values() for item in references(child)]
            return [value["$ref"], *inner] if "$ref" in value else inner
        return [item for child in value for item in references(child)] if isinstance(value, list) else []

    for reference in references(found):
        assert reference.removeprefix("#/components/schemas/") in found["components"]["schemas"]


def test_a_method_that_takes_something_says_that_it_may_be_wrong() -> None:
    silent = [
        method["name"]
        for method in document()["methods"]
        if method["params"] and "invalid_params" not in {error["data"]["name"] for error in method["errors"]}
    ]
    assert silent == []


def test_a_dial_that_does_not_wait_says_nothing_of_an_outcome() -> None:
    assert called("dial", enode="enode://")[0]["result"] == {"session": 1}
    assert called("dial", enode="enode://", wait=True)[0]["result"] == {"session": 1, "established": {"session": 1}}


def test_an_attached_frame_is_the_payload_of_a_send() -> None:
    _, asked = called("send", b"\xc1\x80", session=1, capability="eth", message=2)
    assert asked == [SendParameters(session=1, capability="eth", message=2, payload="0xc180")]


@pytest.mark.parametrize(
    ("method", "key", "parameters"),
    [
        ("session", "session", {"session": -1}),
        ("session", "session", {"session": "1"}),
        ("sessions", "direction", {"direction": "sideways"}),
        ("sessions", "phase", {"phase": "closed"}),
        ("sessions", "peer", {"peer": "0xab"}),
        ("sessions", "peer", {"peer": "AB"}),
        ("sessions", "limit", {"limit": 0}),
        ("dial", "enode", {"enode": "x" * 513}),
        ("disconnect", "reason", {"session": 1, "reason": "bored"}),
        ("disconnect-all", "reason", {"reason": "TOO_MANY_PEERS"}),
        ("send", "payload", {"session": 1, "capability": "eth", "message": 1}),
        ("send", "message", {"session": 1, "capability": "eth", "message": 128, "payload": "0x"}),
        ("send", "message", {"session": 1, "capability": "eth", "message": "", "payload": "0x"}),
        ("send", "capability", {"session": 1, "capability": "", "message": 1, "payload": "0x"}),
        ("set-status", "hash", {"number": 1, "hash": "0x00"}),
        ("set-status", "number", {"number": 1 << 63, "hash": HASH}),
        ("set-status", "total_difficulty", {"number": 1, "hash": HASH, "total_difficulty": "0x1"}),
        ("set-status", "total_difficulty", {"number": 1, "hash": HASH, "total_difficulty": "1" * 49}),
        ("history", "limit", {"limit": 0}),
        ("peers-remove", "peer", {"peer": "AB" * 64}),
        ("ban", "seconds", {"address": "1.2.3.4", "seconds": -1}),
        ("set-limits", "max_active_inbound", {"max_active_inbound": -1}),
        ("status", "verbose", {"verbose": True}),
    ],
)
def test_a_wrong_parameter_is_named_and_never_reaches_the_engine(method: str, key: str, parameters: dict[str, Any]) -> None:
    reply, asked = called(method, **parameters)
    assert reply["error"]["data"] == {"name": "invalid_params"}
    assert key in reply["error"]["message"]
    assert asked == []


def test_every_reason_of_the_specification_can_be_named() -> None:
    assert set(get_args(ReasonName)) == {reason.label for reason in DisconnectReason}
    for reason in DisconnectReason:
        assert reason_of(reason.label) is reason


def sent(message: str | int, capability: str = "eth") -> SendParameters:
    """What a user wants sent."""
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
    with pytest.raises(CommandError, match="message: mine has no message 'Three'"):
        message_of(sent("Three", "mine"))


# A number in quotes is bounded as one without them: it goes on to the worker as a small integer.
@pytest.mark.parametrize("message", ["Trnsactions", "0x", "1.5", "-1", "128", "9" * 30])
def test_a_message_that_is_none_is_an_invalid_parameter(message: str) -> None:
    with pytest.raises(CommandError, match="message: ") as caught:
        message_of(sent(message))
    assert caught.value.name == "invalid_params"


def test_the_document_says_whose_it_is() -> None:
    assert scripted()[0].document()["info"] == {"title": "rlpx-engine", "version": "9"}


def test_a_payload_is_hex_behind_0x() -> None:
    for text, payload in (("0x", b""), ("0xC180", b"\xc1\x80")):
        assert payload_of(SendParameters(session=1, capability="eth", message=1, payload=text)) == payload


@pytest.mark.parametrize("payload", ["c0", "0xc", "0xzz", "", "0"])
def test_a_payload_that_is_no_hex_is_an_invalid_parameter(payload: str) -> None:
    with pytest.raises(CommandError, match="payload") as error:
        payload_of(SendParameters(session=1, capability="eth", message=1, payload=payload))
    assert error.value.name == "invalid_params"
