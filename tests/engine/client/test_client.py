"""A client's calls against an engine of a few lines."""

from __future__ import annotations

import gc
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import zmq

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.client.subscriber import Subscriber
from tests.engine.answering import answering, result


def test_a_call_gives_its_result(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, request["params"])]), Client.of(tmp_path) as client:
        assert client.call("dial", enode="enode://", wait=True) == {"enode": "enode://", "wait": True}
        assert client.call("counts") == {}


def test_a_call_is_json_rpc_with_an_id_of_its_own(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, request)]), Client.of(tmp_path) as client:
        assert client.call("counts") == {"jsonrpc": "2.0", "id": 1, "method": "counts", "params": {}}
        assert client.call("status")["id"] == 2


def test_the_payload_of_an_answer_may_be_a_frame(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], _: list[bytes]) -> list[tuple[bytes, ...]]:
        assert request["params"] == {"binary": True}
        return [(result(request, {"message": "BlockHeaders"}), b"\x00\xff")]

    with answering(tmp_path, answer), Client.of(tmp_path) as client:
        assert client.call("request", binary=True) == {"message": "BlockHeaders", "payload": b"\x00\xff"}


def test_an_attachment_travels_as_it_is(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], attachments: list[bytes]) -> list[bytes]:
        return [result(request, [attachment.hex() for attachment in attachments])]

    with answering(tmp_path, answer), Client.of(tmp_path) as client:
        assert client.call("send", attachment=b"\x00\xff") == ["00ff"]


def test_an_error_is_raised_with_its_name(tmp_path: Path) -> None:
    error = {"code": -32001, "message": "there is no session 9", "data": {"name": "no_such_session"}}

    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        return [orjson.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error})]

    with answering(tmp_path, answer), Client.of(tmp_path) as client:
        with pytest.raises(EngineError, match="there is no session 9") as caught:
            client.call("session", session=9)
        assert (caught.value.name, caught.value.code) == ("no_such_session", -32001)


def test_an_error_without_an_id_is_this_calls(tmp_path: Path) -> None:
    error = {"code": -32603, "message": "a fault of the engine", "data": {"name": "internal"}}

    with (
        answering(tmp_path, lambda *_: [orjson.dumps({"jsonrpc": "2.0", "id": None, "error": error})]),
        Client.of(tmp_path) as client,
        pytest.raises(EngineError, match="a fault of the engine"),
    ):
        client.call("counts")


def test_the_late_answer_to_an_earlier_call_is_passed_over(tmp_path: Path) -> None:
    held: list[dict[str, Any]] = []

    def answer(request: dict[str, Any], _: list[bytes]) -> list[bytes]:
        if request["method"] == "dial":
            held.append(request)
            return []
        return [result(held[0], "late"), result(request, "right")]

    with answering(tmp_path, answer), Client.of(tmp_path, timeout_seconds=0.05) as client:
        with pytest.raises(EngineUnavailableError, match=r"no answer from ipc://.* within 0\.05 s"):
            client.call("dial")
        assert client.call("counts") == "right"


def test_where_there_is_no_socket_there_is_no_engine(tmp_path: Path) -> None:
    with Client.of(tmp_path) as client, pytest.raises(EngineUnavailableError, match="no engine at ipc://"):
        client.call("status")


def test_where_a_killed_engine_left_its_socket_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "control.ipc").touch()
    with (
        Client.of(tmp_path, timeout_seconds=0.05) as client,
        pytest.raises(EngineUnavailableError, match="no engine at"),
    ):
        client.call("status")


def test_where_nobody_listens_on_a_port_there_is_no_engine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with Client(endpoint) as client, pytest.raises(EngineUnavailableError, match=endpoint):
        client.call("status")


def test_an_engine_over_tcp_is_found(tmp_path: Path) -> None:
    with answering(tmp_path, lambda request, _: [result(request, "here")], "tcp://127.0.0.1:*") as endpoint:
        with Client(endpoint) as client:
            assert client.call("status") == "here"
        with Subscriber(endpoint, []) as subscriber:
            assert not subscriber.is_missing


def raised_by(make: Callable[[], object]) -> str:
    """The class and text of the error that it raises; no socket stays open to cause a warning in another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            make()
        except (EngineUnavailableError, zmq.ZMQError) as error:
            raised = f"{type(error).__name__}: {error}"
        else:
            raised = "nothing"
        gc.collect()
    return raised


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://", "tcp://127.0.0.1", "foo://x"])
def test_an_endpoint_that_is_none_is_an_engine_that_is_not_there(endpoint: str) -> None:
    for make in (lambda: Client(endpoint), lambda: Subscriber(endpoint, [""])):
        raised = raised_by(make)
        assert raised.startswith("EndpointError: ")
        assert endpoint in raised


def test_by_default_it_is_the_engine_of_the_usual_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with Client.of() as client, Subscriber.of(None, []) as subscriber:
        assert client.endpoint == f"ipc://{tmp_path}/rlpx-engine/control.ipc"
        assert subscriber.endpoint == f"ipc://{tmp_path}/rlpx-engine/events.ipc"
        assert subscriber.is_missing
