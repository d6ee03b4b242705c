"""The commands of users: the promised names, bounds that are checked before the engine is asked, and one document of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import orjson
import pytest

from rlpx.engine.hub.registry import Registry
from rlpx.protocol.bus.commands import COMMANDS, DialParameters, Parameters, SendParameters
from rlpx.protocol.bus.control import SessionClosed, SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.error_codes import ERROR_CODES
from rlpx.protocol.bus.results import (
    AnswerResult,
    BroadcastResult,
    Budgets,
    ChainStatus,
    ConfirmedResult,
    CountsResult,
    DialResult,
    DirectionCounts,
    DoneResult,
    EndpointStatus,
    HeadStatus,
    InboundCount,
    LimitCounts,
    LogLevelResult,
    NamedSubProtocol,
    PeersResult,
    Replacement,
    RestartResult,
    SessionsResult,
    SnapshotResult,
    StatusResult,
    StoppingResult,
    SubProtocolsResult,
    SubscriberStatus,
    WorkersResult,
    WorkerStatus,
)
from rlpx.protocol.bus.sessions import SessionView, ended_session
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from tests.metrics_sample import METRICS

HASH = "0x" + "ab" * 32
# These belong to the contract with users, to which more may be added.
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
    "snapshot",
    "ban",
    "peers",
    "peers-add",
    "peers-remove",
    "subprotocols",
    "subprotocols-add",
    "subprotocols-remove",
    "restart-workers",
    "set-workers",
    "log-level",
    "history",
    "shutdown",
    "discover",
}
WORKER = WorkerStatus(
    0,
    1,
    ready=True,
    unauthenticated=0,
    pending=0,
    active=0,
    goodbyes=0,
    loop_lag_ms=0.1,
    memory_bytes=1,
    dropped_events=0,
    queued_event_bytes=0,
    unanswered=0,
    responders=0,
    responder_queued_bytes=0,
    has_descriptors=True,
)
COUNTS = CountsResult(InboundCount(1), DirectionCounts(2, 3), DirectionCounts(4, 5), LimitCounts(1, 2, 3, 4, 5))
VIEW = SessionView(SessionId(1), WorkerId(0), Direction.INBOUND, "1.2.3.4:5", 1000, 0.0)
SESSION = VIEW.shown(SessionStats())
ENDED = ended_session(
    "geth/1", VIEW.closed(SessionClosed(SessionId(1), EndedBy.US, None, "words", Stage.AUTH, SessionStats()), 2000)
)
STATUS = StatusResult(
    version="1",
    compiled=True,
    pid=7,
    node_id="ab",
    enode="enode://",
    enode_is_guess=False,
    uptime_ms=1,
    chain=ChainStatus("dev", 1, "0x", "0x", 0),
    head=HeadStatus(0, "0x", 0, None),
    workers=[WORKER],
    subscribers=[SubscriberStatus("ipc", ["eth."], 5, 6, 7)],
    counts=COUNTS,
    budgets=Budgets(1, 2, 3, 4, 5),
    endpoints={"control": EndpointStatus(1, 0, 0)},
    has_descriptors=True,
    run_dir="/run",
    memory_bytes=1,
    log_lines_lost=0,
)


RESULTS: dict[str, object] = {
    "status": STATUS,
    "metrics": METRICS,
    "counts": COUNTS,
    "sessions": SessionsResult([SESSION], 1),
    "session": SESSION,
    "snapshot": SnapshotResult("r", [msgspec.Raw(msgspec.json.encode(SESSION))], [("session.opened", None, 3)]),
    "disconnect": DoneResult(1),
    "disconnect_all": DoneResult(2),
    "send": DoneResult(1),
    "broadcast": BroadcastResult(1, {"2": ErrorName.QUEUE_FULL}),
    "peers": PeersResult([], []),
    "peers_add": PeersResult([], []),
    "peers_remove": PeersResult([], []),
    "ban": DoneResult(0),
    "set_limits": COUNTS,
    "request": AnswerResult("BlockHeaders", "0xc0"),
    "set_status": ConfirmedResult([0], [1]),
    "subprotocols": SubProtocolsResult([NamedSubProtocol("wit/0", 4, 65_536)], ["wit"]),
    "subprotocols_add": ConfirmedResult([0], []),
    "subprotocols_remove": ConfirmedResult([0], []),
    "restart_workers": RestartResult([0], 30.0, [Replacement(0, 1)]),
    "set_workers": WorkersResult(2, [1], [], 30.0),
    "log_level": LogLevelResult("debug", "info"),
    "history": [ENDED],
    "shutdown": StoppingResult(stopping=True),
}


TO_ONE = {"session": 1, "capability": "eth"}


class ScriptedEngine:
    """Answers each command with a value of its result's type, and records the parameters."""

    def __init__(self) -> None:
        self.asked: list[Parameters] = []
        self.payloads: list[bytes | None] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        if name not in {"dial", *RESULTS}:
            raise AttributeError(name)

        async def carry_out(parameters: Parameters, payload: bytes | None = None) -> object:
            assert (payload is not None) is hasattr(parameters, "payload")
            self.asked.append(parameters)
            self.payloads.append(payload)
            if isinstance(parameters, DialParameters):
                return DialResult(1, SESSION if parameters.wait else None)
            return RESULTS[name]

        return carry_out


def scripted() -> tuple[Registry, list[Parameters]]:
    """All methods in front of a scripted engine, and the record of its calls."""
    engine = ScriptedEngine()
    return Registry("9", [engine]), engine.asked


def called(method: str, *attachments: bytes, **parameters: Any) -> tuple[dict[str, Any], list[Parameters]]:
    """The reply to one call, and the parameters that the engine got."""
    methods, asked = scripted()
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
    return orjson.loads(asyncio.run(methods.call(body, list(attachments))).body), asked


def document() -> dict[str, Any]:
    """The document that `discover` returns."""
    found: dict[str, Any] = called("discover")[0]["result"]
    return found


def test_every_method_has_a_promised_name() -> None:
    names = {method["name"] for method in document()["methods"]}
    assert names >= PROMISED


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
    # The texts that a user reads are those of the document.
    msgspec.convert(reply["result"], COMMANDS[method].result)
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
    waited = called("dial", enode="enode://", wait=True)[0]["result"]
    assert (waited["session"], waited["established"]["session"]) == (1, 1)


def test_an_attached_frame_is_the_payload_of_a_send() -> None:
    engine = ScriptedEngine()
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "send", "params": {**TO_ONE, "message": 2}})
    assert orjson.loads(asyncio.run(Registry("9", [engine]).call(body, [b"\xc1\x80"])).body)["result"] == {"sessions": 1}
    assert engine.payloads == [b"\xc1\x80"]
    assert engine.asked == [SendParameters(session=1, capability="eth", message=2, payload="0x")]


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


def test_the_document_says_whose_it_is() -> None:
    assert scripted()[0].document()["info"] == {"title": "rlpx-engine", "version": "9"}
