"""`rlpx-ctl`: what it asks of the engine, how it shows the answer, and how it ends."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zmq

from engine import client, ctl
from engine.client import CALL_TIMEOUT_SECONDS
from engine.config import RunDir
from engine.ctl import main, parser

SESSION = {
    "session": 7,
    "peer": "ab" * 64,
    "enode": None,
    "direction": "inbound",
    "phase": "active",
    "stage": "active",
    "worker": 1,
    "remote": "1.2.3.4:5",
    "local": "9.9.9.9:30303",
    "client": "geth/1",
    "capabilities": ["eth/69", "snap/1"],
    "shared": ["eth/69"],
    "opened_us": 1,
    "established_us": 2,
    "bytes_in": 10,
    "bytes_out": 20,
    "messages_in": 1,
    "messages_out": 2,
    "rtt_ms": None,
    "queued_bytes": 0,
    "chain": {"network_id": 1, "latest": 9},
}
COUNTS = {
    "pending": {"inbound": 1, "outbound": 2},
    "active": {"inbound": 3, "outbound": 4},
    "limits": {
        "max_pending_inbound": 200,
        "max_pending_outbound": 100,
        "max_active_inbound": 2000,
        "max_active_outbound": 500,
    },
}
STATUS = {
    "version": "0.1.0",
    "enode": "enode://ab",
    "uptime_ms": 5,
    "chain": {"name": "dev", "network_id": 7},
    "workers": [
        {"worker": 0, "pid": 11, "ready": True, "loop_lag_ms": None},
        {"worker": 1, "pid": 12, "ready": False, "loop_lag_ms": 0.5},
    ],
}
ENDED = {
    "time_us": 1,
    "session": 7,
    "peer": None,
    "direction": "outbound",
    "stage": "connect",
    "ended_by": "network",
    "reason": None,
    "cause": "no TCP connection",
    "client": None,
}


class ScriptedEngine:
    """A ROUTER in a thread: it keeps each request and answers with `answer`, a result or an error."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder
        self.requests: list[dict[str, Any]] = []
        self.answer: dict[str, Any] | None = {"result": {}}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.bind(RunDir(folder).endpoint("control"))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                identity, body = self._router.recv_multipart()
            except zmq.ContextTerminated:
                self._router.close()
                return
            request = orjson.loads(body)
            self.requests.append(request)
            if self.answer is not None:
                reply = {"jsonrpc": "2.0", "id": request["id"], **self.answer}
                self._router.send_multipart([identity, orjson.dumps(reply)])

    def close(self) -> None:
        """End the thread."""
        self._context.term()
        self._thread.join()


Run = Callable[..., str]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    scripted = ScriptedEngine(tmp_path)
    yield scripted
    scripted.close()


@pytest.fixture
def run(engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that goes well; what it prints."""

    def run_it(*arguments: str, result: object = None) -> str:
        engine.answer = {"result": {} if result is None else result}
        main(["--run-dir", str(engine.run_dir), *arguments])
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run_it


@pytest.mark.parametrize(
    ("arguments", "method", "parameters"),
    [
        ("sessions", "sessions", {}),
        (
            "sessions --direction inbound --phase active --worker 1 --peer ab --client geth --shared eth/69 --limit 5",
            "sessions",
            {
                "direction": "inbound",
                "phase": "active",
                "worker": 1,
                "peer": "ab",
                "client": "geth",
                "shared": "eth/69",
                "limit": 5,
            },
        ),
        ("session 7", "session", {"session": 7}),
        ("dial enode://x", "dial", {"enode": "enode://x", "wait": False}),
        ("dial enode://x --wait", "dial", {"enode": "enode://x", "wait": True}),
        ("disconnect 7", "disconnect", {"session": 7}),
        ("disconnect 7 --reason useless_peer", "disconnect", {"session": 7, "reason": "useless_peer"}),
        ("disconnect-all --reason useless_peer", "disconnect-all", {"reason": "useless_peer"}),
        (
            "send 7 eth Transactions 0xc0",
            "send",
            {"session": 7, "capability": "eth", "message": "Transactions", "payload": "0xc0"},
        ),
        (
            "request 7 eth GetBlockHeaders 0xc0",
            "request",
            {"session": 7, "capability": "eth", "message": "GetBlockHeaders", "payload": "0xc0"},
        ),
        (
            "broadcast eth Transactions 0xc0 --shared eth/68",
            "broadcast",
            {"capability": "eth", "message": "Transactions", "payload": "0xc0", "shared": "eth/68"},
        ),
        ("set-status 5 0xab", "set-status", {"number": 5, "hash": "0xab"}),
        (
            "set-status 5 0xab --time 1 --earliest 2 --total-difficulty 3",
            "set-status",
            {"number": 5, "hash": "0xab", "time": 1, "earliest": 2, "total_difficulty": "3"},
        ),
        ("history --limit 3", "history", {"limit": 3}),
        ("discover", "discover", {}),
        ("shutdown", "shutdown", {}),
    ],
)
def test_each_command_becomes_one_request(
    engine: ScriptedEngine, run: Run, arguments: str, method: str, parameters: dict[str, Any]
) -> None:
    results: dict[str, Any] = {"sessions": {"sessions": [], "total": 0}, "history": []}
    run(*arguments.split(), result=results.get(method))
    assert [(request["method"], request["params"]) for request in engine.requests] == [(method, parameters)]


def test_counts_is_a_table(run: Run) -> None:
    assert run("counts", result=COUNTS) == (
        "         inbound    outbound\n"
        "pending  1 of 200   2 of 100\n"
        "active   3 of 2000  4 of 500\n"
    )  # fmt: skip


def test_status_is_its_fields_and_a_table_of_workers(run: Run) -> None:
    assert run("status", result=STATUS) == (
        "version    0.1.0\n"
        "enode      enode://ab\n"
        "uptime_ms  5\n"
        "chain      name=dev network_id=7\n"
        "\n"
        "worker  pid  ready  loop_lag_ms\n"
        "0       11   True   -\n"
        "1       12   False  0.5\n"
    )


def test_sessions_are_a_table_with_the_beginning_of_each_id(run: Run) -> None:
    lines = run("sessions", result={"sessions": [SESSION, SESSION | {"peer": None}], "total": 9}).splitlines()
    assert lines[0].split() == [
        *("session", "peer", "direction", "stage", "worker", "remote", "client", "shared", "in", "out", "rtt_ms")
    ]
    assert lines[1].split() == ["7", "ab" * 8, "inbound", "active", "1", "1.2.3.4:5", "geth/1", "eth/69", "10", "20", "-"]
    assert lines[2].split()[1] == "-"
    assert lines[3] == "2 of 9"


def test_no_sessions_are_a_heading_and_a_zero(run: Run) -> None:
    assert run("sessions", result={"sessions": [], "total": 0}).splitlines()[1:] == ["0 of 0"]


def test_one_session_is_a_line_for_each_field(run: Run) -> None:
    lines = run("session", "7", result=SESSION).splitlines()
    assert len(lines) == len(SESSION)
    assert "chain           network_id=1 latest=9" in lines
    assert "capabilities    eth/69,snap/1" in lines


def test_the_history_is_a_table(run: Run) -> None:
    lines = run("history", result=[ENDED]).splitlines()
    assert lines[0].split() == ["session", "peer", "direction", "stage", "ended_by", "reason", "cause", "client"]
    assert lines[1].split() == ["7", "-", "outbound", "connect", "network", "-", "no", "TCP", "connection", "-"]


def test_a_short_answer_is_one_line(run: Run) -> None:
    assert run("disconnect", "7", result={"sessions": 1}) == "sessions  1\n"
    assert run("set-status", "5", "0xab", result={"confirmed": [0, 1], "missing": []}) == ("confirmed  0,1\nmissing    -\n")


def test_a_peers_name_for_its_client_cannot_forge_a_line(run: Run) -> None:
    forged = SESSION | {"client": "geth\n9  evil\x1b[2J"}
    assert len(run("sessions", result={"sessions": [forged], "total": 1}).splitlines()) == 3
    assert len(run("session", "7", result=forged).splitlines()) == len(SESSION)
    assert len(run("history", result=[ENDED | {"client": "a\nb", "cause": "c\nd"}]).splitlines()) == 2


@pytest.mark.parametrize("command", [["counts"], ["sessions"], ["session", "7"], ["history"], ["discover"]])
def test_json_is_the_result_as_it_came(run: Run, command: list[str]) -> None:
    assert orjson.loads(run("--json", *command, result=SESSION)) == SESSION


def test_discover_is_json_in_any_case(run: Run) -> None:
    assert orjson.loads(run("discover", result={"openrpc": "1.3.2"})) == {"openrpc": "1.3.2"}


# -- ends -------------------------------------------------------------------------------------------------------------------


def ended(*arguments: str) -> int:
    """Run a command that fails; its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_an_error_of_the_engine_is_one_line_and_exit_code_1(
    engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answer = {"error": {"code": -32001, "message": "there is no session 9", "data": {"name": "no_such_session"}}}
    assert ended("--run-dir", str(engine.run_dir), "session", "9") == 1
    assert capsys.readouterr() == ("", "rlpx-ctl: no_such_session: there is no session 9\n")


def test_an_error_of_the_engine_is_json_where_json_is_asked_for(
    engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answer = {"error": {"code": -32001, "message": "there is no session 9", "data": {"name": "no_such_session"}}}
    assert ended("--json", "--run-dir", str(engine.run_dir), "session", "9") == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert orjson.loads(captured.out) == {
        "error": {"name": "no_such_session", "message": "there is no session 9", "code": -32001}
    }


def test_no_engine_is_exit_code_69(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--run-dir", str(tmp_path), "status") == 69
    assert capsys.readouterr() == ("", f"rlpx-ctl: no engine at ipc://{tmp_path}/control.ipc\n")


def test_an_engine_that_does_not_answer_is_exit_code_69(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.answer = None
    monkeypatch.setattr(ctl, "CALL_TIMEOUT_SECONDS", 0.05)
    assert ended("--run-dir", str(engine.run_dir), "status") == 69
    assert "no answer from" in capsys.readouterr().err


def test_an_endpoint_can_stand_for_the_run_directory(engine: ScriptedEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answer = {"result": {"sessions": 1}}
    main(["--connect", RunDir(engine.run_dir).endpoint("control"), "disconnect-all"])
    assert capsys.readouterr().out == "sessions  1\n"


class RefusedClient:
    """A client whose endpoint ZeroMQ does not understand, without the socket that would stay open."""

    def __init__(self, endpoint: str, *, timeout_seconds: float) -> None:
        raise client.EngineUnavailableError(f"{endpoint}: {timeout_seconds}")


def test_a_run_directory_of_nobody_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--run-dir", "~nobody-of-this-name/run", "status"])
    assert caught.value.code in {64, 69, 78}
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_endpoint_that_is_none_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    code: object = None
    with warnings.catch_warnings():
        # A socket that it leaves open must not be found in another test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            main(["--connect", "nonsense", "status"])
        except SystemExit as end:
            code = end.code
        except zmq.ZMQError as error:
            code = repr(error)
        gc.collect()
    assert code in {64, 69}
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["session"],
        ["session", "seven"],
        ["status", "more"],
        ["sessions", "--direction", "sideways"],
        ["--run-dir", "x", "--connect", "y", "status"],
        ["send", "7", "eth", "Transactions"],
    ],
)
def test_wrong_usage_is_exit_code_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(*arguments) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rlpx-ctl")
    assert len(captured.err.splitlines()) == 1


# JSON has no place for these: a number of more than 64 bits, and an argument that is not UTF-8.
@pytest.mark.parametrize("arguments", [["session", "9" * 30], ["sessions", "--client", "\udcff"]])
def test_what_no_request_can_carry_is_wrong_usage(
    engine: ScriptedEngine, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended("--run-dir", str(engine.run_dir), *arguments) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_every_command_has_a_line_of_help() -> None:
    text = parser().format_help()
    for command in ("status", "counts", "sessions", "session", "dial", "disconnect", "disconnect-all", "send"):
        assert f"\n    {command} " in text


def test_a_dial_that_waits_has_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    patience: list[float] = []

    class Impatient(RefusedClient):
        def __init__(self, endpoint: str, *, timeout_seconds: float) -> None:
            patience.append(timeout_seconds)
            super().__init__(endpoint, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(ctl, "Client", Impatient)
    assert ended("--connect", "x", "dial", "enode://", "--wait") == 69
    assert ended("--connect", "x", "dial", "enode://") == 69
    assert patience == [ctl.DIAL_WAIT_SECONDS, CALL_TIMEOUT_SECONDS]
