"""`rlpx-ctl`: its requests to the engine, the form of its answers, and its exit codes."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import orjson
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.cli import ctl
from rlpx.engine.cli.ctl import main, parser
from rlpx.engine.client.client import CALL_TIMEOUT_SECONDS
from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.process.version import VERSION
from rlpx.engine.settings.run_dir import RunDir
from rlpx.protocol.bus.commands import COMMANDS
from tests.generated import examples
from tests.pair import key

PEER = key(3).id.hex()
ENODE = f"enode://{PEER}@203.0.113.7:30303"
HASH = "0x" + "ab" * 32
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


class ScriptedEngine:
    """A ROUTER in a thread: it records each request and answers with `answer`, a result or an error."""

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
    """Run a command that succeeds; returns its output."""

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
        (f"dial {ENODE}", "dial", {"enode": ENODE}),
        (f"dial --wait {ENODE}", "dial", {"enode": ENODE, "wait": True}),
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
        (f"set-status 5 {HASH}", "set-status", {"number": 5, "hash": HASH}),
        (
            f"set-status 5 {HASH} --time 1 --earliest 2 --total-difficulty 3",
            "set-status",
            {"number": 5, "hash": HASH, "time": 1, "earliest": 2, "total_difficulty": "3"},
        ),
        ("history --limit 3", "history", {"limit": 3}),
        ("ban 203.0.113.7", "ban", {"address": "203.0.113.7"}),
        ("ban --seconds 5 2001:db8::1", "ban", {"address": "2001:db8::1", "seconds": 5}),
        (f"ban {PEER}", "ban", {"peer": PEER}),
        (f"ban 0x{PEER.upper()} --seconds 0", "ban", {"peer": PEER, "seconds": 0}),
        (f"ban {ENODE}", "ban", {"peer": PEER}),
        (f"ban --peer {ENODE} --address 203.0.113.7", "ban", {"peer": PEER, "address": "203.0.113.7"}),
        (f"peers-remove {PEER}", "peers-remove", {"peer": PEER}),
        (f"peers-remove {ENODE}", "peers-remove", {"peer": PEER}),
        (f"peers-add --trusted {ENODE} --no-static", "peers-add", {"enode": ENODE, "trusted": True, "static": False}),
        ("subprotocols-add wit/0/4 --required", "subprotocols-add", {"protocol": "wit/0/4", "required": True}),
        ("set-limits --max-active-inbound 0", "set-limits", {"max_active_inbound": 0}),
        ("send 7 wit 3 0x", "send", {"session": 7, "capability": "wit", "message": "3", "payload": "0x"}),
        ("log-level debug", "log-level", {"level": "debug"}),
        ("discover", "discover", {}),
        ("shutdown", "shutdown", {}),
    ],
)
def test_each_command_becomes_one_request(
    engine: ScriptedEngine, run: Run, arguments: str, method: str, parameters: dict[str, Any]
) -> None:
    results: dict[str, Any] = {
        "sessions": {"sessions": [], "total": 0},
        "history": [],
        "broadcast": {"sent": 1, "refused": {}},
        "peers-add": {"peers": [], "bans": []},
        "peers-remove": {"peers": [], "bans": []},
    }
    run(*arguments.split(), result=results.get(method))
    assert [(request["method"], request["params"]) for request in engine.requests] == [(method, parameters)]


@pytest.mark.parametrize(
    "arguments",
    [
        "--json --run-dir {} session 3",
        "session --json --run-dir {} 3",
        "session 3 --run-dir={} --json",
        "--json session --run-dir {} 3",
    ],
)
def test_options_may_stand_anywhere(engine: ScriptedEngine, arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    engine.answer = {"result": SESSION}
    main(arguments.format(engine.run_dir).split())
    assert orjson.loads(capsys.readouterr().out) == SESSION
    assert engine.requests[0]["params"] == {"session": 3}


def test_an_answer_is_shown_for_a_person(run: Run) -> None:
    assert run("disconnect", "7", result={"sessions": 1}) == "sessions  1\n"
    assert run("set-status", "5", HASH, result={"confirmed": [0, 1], "missing": []}) == "confirmed  0,1\nmissing    -\n"


@pytest.mark.parametrize("command", [["counts"], ["sessions"], ["session", "7"], ["history"], ["discover"]])
def test_json_is_the_result_as_it_came(run: Run, command: list[str]) -> None:
    assert orjson.loads(run("--json", *command, result=SESSION)) == SESSION


def test_discover_is_json_in_any_case(run: Run) -> None:
    assert orjson.loads(run("discover", result={"openrpc": "1.3.2"})) == {"openrpc": "1.3.2"}


# -- ends -------------------------------------------------------------------------------------------------------------------


def ended(*arguments: str) -> int:
    """Run a command that fails; returns its exit code."""
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


class NobodysClient:
    """A client of a missing engine."""

    def __init__(self, endpoint: str = "", *, timeout_seconds: float) -> None:
        raise EngineUnavailableError(f"no engine at {endpoint[:20]!a} for {timeout_seconds}")

    @classmethod
    def of(cls, run_dir: str | None, *, timeout_seconds: float) -> Self:
        return cls(run_dir or "", timeout_seconds=timeout_seconds)


class RefusedClient:
    """A client whose endpoint ZeroMQ does not understand, without the socket that would stay open."""

    def __init__(self, endpoint: str, *, timeout_seconds: float, key: str | None = None) -> None:
        assert key is None
        raise EngineUnavailableError(f"{endpoint}: {timeout_seconds}")


def test_a_run_directory_of_nobody_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--run-dir", "~nobody-of-this-name/run", "status"])
    assert caught.value.code in {64, 69, 78}
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_endpoint_that_is_none_is_one_line_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    code: object = None
    with warnings.catch_warnings():
        # A socket that it leaves open must not cause a warning in another test.
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


# Values that JSON cannot carry: a number of more than 64 bits, and an argument that is not UTF-8.
@pytest.mark.parametrize("arguments", [["session", "9" * 30], ["sessions", "--client", "\udcff"]])
def test_what_no_request_can_carry_is_wrong_usage(
    engine: ScriptedEngine, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended("--run-dir", str(engine.run_dir), *arguments) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1


MISTAKES = [
    ("statu", "COMMAND: there is no 'statu'; did you mean status?"),
    ("--run /x status", "unrecognized arguments: --run; did you mean --run-dir?"),
    ("status --jsn", "unrecognized arguments: --jsn; did you mean --json?"),
    ("session --limit 3 4", "unrecognized arguments: --limit"),
    ("session 1 2", "unrecognized arguments: 2"),
    ("session", "the following arguments are required: ID"),
    ("session x", "ID: expected a whole number, 0 or more, for example 1; got 'x'"),
    ("session -1", "ID: expected a whole number, 0 or more, for example 1; got '-1'"),
    ("session 1 --run-dir /x --connect tcp://a:1", "--connect: not allowed with --run-dir"),
    ("--run-dir /x session 1 --connect tcp://a:1", "--connect: not allowed with --run-dir"),
    ("status --cluster-name a", "--cluster-name: only with --cluster"),
    ("--cluster nats://a keys list", "--cluster: not allowed with keys"),
    ("--cluster nats://a top", "--cluster: not allowed with top"),
    ("hosts --cluster nats://a --host a", "--host: not allowed with hosts"),
    ("--connect foo status", "--connect: expected tcp://HOST:PORT or ipc://PATH"),
    ("--connect tcp://host status", "--connect: expected tcp://HOST:PORT or ipc://PATH"),
    ("sessions --direction in", "--direction: expected one of inbound, outbound, for example inbound; got 'in'"),
    ("sessions --phase all", "--phase: expected one of active, pending, for example active; got 'all'"),
    ("sessions --peer 0xAB", "--peer: expected the beginning of a peer id in hex digits, for example d860a01f; got '0xAB'"),
    ("sessions --limit 0", "--limit: expected a whole number from 1 to 100000, for example 1; got '0'"),
    ("history --limit many", "--limit: expected a whole number from 1 to 100000, for example 1; got 'many'"),
    ("dial x", "ENODE: expected an enode URL, enode://ID@ADDRESS:PORT"),
    ("peers-add x", "ENODE: expected an enode URL, enode://ID@ADDRESS:PORT"),
    ("peers-remove abc", "PEER: expected a peer id of 128 hex digits or an enode URL"),
    ("peers-remove " + "x" * 128, "PEER: expected a peer id of 128 hex digits or an enode URL"),
    ("ban", "peer or address: one of them is needed"),
    (
        "ban foo",
        "WHO: expected a peer id of 128 hex digits, an enode URL or an IP address, for example 203.0.113.7; got 'foo'",
    ),
    ("ban enode://ab@1.2.3.4:5", "WHO: expected a peer id of 128 hex digits, an enode URL or an IP address"),
    ("ban 1.2.3.4 --address 1.2.3.5", "--address: not allowed with WHO"),
    ("ban --address 1.2.3", "--address: expected an IP address, for example 203.0.113.7; got '1.2.3'"),
    ("ban 1.2.3.4 --seconds -1", "--seconds: expected a number from 0 to 315360000, for example 1; got '-1'"),
    ("ban 1.2.3.4 --seconds nan", "--seconds: expected a number from 0 to 315360000, for example 1; got 'nan'"),
    ("disconnect 1 --reason foo", "--reason: expected one of already_connected, client_quitting"),
    ("disconnect-all --reason 4", "--reason: expected one of already_connected, client_quitting"),
    ("send 7 eth Transaction 0xc0", "MESSAGE: expected a message of eth: one of Status, NewBlockHashes"),
    ("send 7 wit Three 0xc0", "MESSAGE: expected a message of wit: a number from 0 to 127"),
    ("send 7 eth 128 0xc0", "MESSAGE: expected a message of eth"),
    (
        "send 7 eth Transactions c0",
        "PAYLOAD: expected 0x and hex digits, for example 0xc0; got 'c0' (it does not begin with 0x)",
    ),
    (
        "send 7 eth Transactions 0xc",
        "PAYLOAD: expected 0x and hex digits, for example 0xc0; got '0xc' (its number of digits is",
    ),
    ("broadcast eth Transactions 0xzz", "PAYLOAD: expected 0x and hex digits, for example 0xc0; got '0xzz'"),
    (
        "request 7 eth GetReceipts 0xc0 --timeout 26",
        "--timeout: expected a number above 0 and up to 25, for example 1; got '26'",
    ),
    ("set-status 5 0xab", "HASH: expected a hash, 0x and 64 hex digits, for example 0xd4e5...8fa3; got '0xab'"),
    (f"set-status 5 0x{'00' * 32}", "HASH: peers refuse a hash of zeros"),
    (f"set-status 5 {HASH} --earliest 6", "--earliest: 6 is above number 5"),
    (f"set-status 5 {HASH} --total-difficulty x", "--total-difficulty: expected a decimal number of up to 48 digits"),
    ("set-limits --max-active-inbound -1", "--max-active-inbound: expected a whole number from 0 to 1000000"),
    ("subprotocols-add WIT/1", "PROTOCOL: expected NAME/VERSION/MESSAGES[/MAX_BYTES]"),
    ("subprotocols-add eth/70/18", "PROTOCOL: expected NAME/VERSION/MESSAGES[/MAX_BYTES]"),
    ("subprotocols-remove wit", "PROTOCOL: expected NAME/VERSION of a sub-protocol, for example wit/0; got 'wit'"),
    ("log-level loud", "LEVEL: expected one of debug, error, info, warning, for example debug; got 'loud'"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_that_no_engine_has_to_see_is_one_line_and_exit_code_64(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(*arguments.split()) == 64
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert captured.out == ""
    assert words in line
    assert line.startswith("rlpx-ctl")
    assert not any(word in line for word in ("regex", "Expected", "`", "invalid "))


def test_an_empty_run_directory_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--run-dir", "", "status") == 64
    assert "--run-dir: expected a directory" in capsys.readouterr().err


def test_the_version_is_that_of_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("rlpx.engine.cli.ctl", "rlpx.engine.cli.tail", "rlpx.engine.swarm.command", "rlpx.engine.__main__"):
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(command).main(["--version"])
        assert caught.value.code == 0
        program, version = capsys.readouterr().out.split()
        assert (program.startswith("rlpx-"), version) == (True, VERSION)


def test_every_command_of_the_engine_can_be_typed() -> None:
    # `command` raises if there is none.
    assert {parser().command(name).prog for name in COMMANDS} == {f"rlpx-ctl {name}" for name in COMMANDS}


def test_every_command_has_a_line_of_help() -> None:
    text = parser().format_help()
    for command in ("status", "counts", "sessions", "session", "dial", "disconnect", "disconnect-all", "send"):
        assert f"\n    {command} " in text


def test_a_dial_that_waits_has_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    patience: list[float] = []

    class Impatient(RefusedClient):
        def __init__(self, endpoint: str, *, timeout_seconds: float, key: str | None = None) -> None:
            assert key is None
            patience.append(timeout_seconds)
            super().__init__(endpoint, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(ctl, "Client", Impatient)
    assert ended("--connect", "x", "dial", ENODE, "--wait") == 69
    assert ended("--connect", "x", "dial", ENODE) == 69
    assert patience == [ctl.WAIT_SECONDS["dial"], CALL_TIMEOUT_SECONDS]


WORDS = [
    "--json",
    "--run-dir",
    "--connect",
    "--limit",
    "--wait",
    "--seconds",
    "-1",
    "0",
    "0x",
    "--",
    "-h",
    "--help",
    "eth",
    HASH,
    ENODE,
]


@examples(300)
@given(
    st.lists(st.sampled_from(["status", "session", "send", "ban", "dial", "set-limits", "history"]), max_size=1),
    st.lists(st.sampled_from(WORDS) | st.text(max_size=12), max_size=6),
)
def test_no_arguments_do_worse_than_one_line(command: list[str], more: list[str]) -> None:
    errors, out = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
        patched.setattr(ctl, "Client", NobodysClient)
        with pytest.raises(SystemExit) as ended_by:
            main([*command, *more])
    assert ended_by.value.code in {0, 64, 69, 78}
    if ended_by.value.code:
        assert len(errors.getvalue().splitlines()) == 1
        assert errors.getvalue().rstrip("\n").isprintable()
