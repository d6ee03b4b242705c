"""The life of the engine as a user sees it: it starts, answers commands, stops, and refuses to start wrongly."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import rlp as oracle
import zmq

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.eth.messages import GetBlockHeaders, HeadersQuery
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, RunningEngine, eventually, working_folder
from tests.system.peers import Peer

CHAIN = load_chain("dev")
SOMEBODY = PrivateKey(b"\x07" * 32).id


def run(*arguments: str, module: str = "rlpx.engine") -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The only line that it wrote to stderr."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_sigterm_says_goodbye_to_every_peer_and_closes_each_session_once() -> None:
    with RunningEngine() as engine:
        log = engine.log("session.")
        peers = [Peer(engine.address, engine.node_id, CHAIN).establish() for _ in range(10)]
        log.wait("session.established", count=10)
        engine.process.send_signal(signal.SIGTERM)
        for peer in peers:
            while not peer.session.is_closed:
                peer.step()
            assert "client_quitting" in str(peer.events[-1]).lower()
            peer.close()
        assert engine.process.wait(PATIENCE_SECONDS) == 0
        log.read(1.0)
        closed = log.of("session.closed", ended_by="engine", reason="client_quitting")
        assert sorted(event.fields["session"] for event in closed) == list(range(1, 11))
        assert not list(engine.run_dir.glob("*.ipc"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_zero_without_any_peer(number: signal.Signals) -> None:
    with RunningEngine(workers=1) as engine:
        assert engine.stop(number) == 0


def test_a_second_signal_is_quick() -> None:
    with RunningEngine("--timeouts.goodbye-s", "60") as engine, Peer(engine.address, engine.node_id, CHAIN) as peer:
        peer.establish()
        engine.process.send_signal(signal.SIGTERM)
        eventually(lambda: "goodbyes first" in engine.stderr, "the first signal was heard")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(50) == 0


def test_shutdown_by_command_is_like_sigterm() -> None:
    with RunningEngine(workers=1) as engine:
        assert engine.call("shutdown") == {"stopping": True}
        assert engine.process.wait(PATIENCE_SECONDS) == 0
        assert "ending: goodbyes first" in engine.stderr


def test_the_ready_line_comes_when_peers_can_connect() -> None:
    with RunningEngine(workers=1) as engine, Peer(engine.address, engine.node_id, CHAIN) as peer:
        assert f"run-dir={engine.run_dir}" in engine.ready_line
        peer.establish()


def test_run_directory_and_key_are_the_owners_alone() -> None:
    with RunningEngine("--log.level", "debug", workers=1) as engine, Peer(engine.address, engine.node_id, CHAIN) as peer:
        peer.establish()
        assert stat.S_IMODE(engine.run_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((engine.run_dir / "node.key").stat().st_mode) == 0o600
        key = (engine.run_dir / "node.key").read_text().strip()
        for process in [engine.process.pid, *(worker.pid for worker in engine.workers())]:
            folder = Path("/proc") / str(process)
            for form in (key.encode(), bytes.fromhex(key)):
                assert form not in (folder / "cmdline").read_bytes()
                assert form not in (folder / "environ").read_bytes()
        assert engine.stop() == 0
        assert key not in engine.stderr


def test_a_second_engine_on_a_run_directory_says_who_holds_it() -> None:
    with RunningEngine(workers=1) as engine:
        done = run("--run-dir", str(engine.run_dir), "--listen", "127.0.0.1:0", "--chain", "dev")
        assert done.returncode == 69
        assert f"process {engine.process.pid}" in one_line(done)
        assert engine.call("counts")


def test_a_taken_port_is_said_with_exit_code_69() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, working_folder() as folder:
        port = taken.getsockname()[1]
        done = run(
            "--listen", f"127.0.0.1:{port}", "--run-dir", str(folder), "--node-key", str(folder / "k"), "--chain", "dev"
        )
        assert done.returncode == 69
        assert str(port) in one_line(done)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[limits]\nmax_activ = 3\n", "limits.max_activ: no such setting"),
        ("[limits]\nmax_active_inbound = 'many'\n", "limits.max_active_inbound: expected"),
        ("workers = 0\n", "workers: expected"),
        ("workers = \n", "not TOML"),
        ("listen = 'localhost'\n", "listen: expected HOST:PORT"),
        ("[access]\ndeny_cidrs = ['1.2.3.4/33']\n", "access.deny_cidrs: "),
        ("[curve]\ninsecure = true\n[control]\nendpoint = 'tcp://0.0.0.0:5555'\n", "control.endpoint: "),
    ],
)
def test_a_wrong_configuration_is_one_line_with_file_and_key(text: str, expected: str) -> None:
    with working_folder() as folder:
        file = folder / "engine.toml"
        file.write_text(text)
        done = run("--conf", str(file), "--run-dir", str(folder / "run"))
        assert done.returncode == 78
        line = one_line(done)
        assert str(file) in line
        assert expected in line


def test_a_missing_chain_file_is_named() -> None:
    with working_folder() as folder:
        done = run("--chain", str(folder / "nowhere.toml"), "--run-dir", str(folder))
        assert done.returncode == 78
        assert "nowhere.toml: no such file" in one_line(done)


def test_a_key_file_that_others_can_read_is_refused() -> None:
    with working_folder() as folder:
        key = folder / "key"
        key.write_text("11" * 32)
        key.chmod(0o644)
        done = run("--node-key", str(key), "--run-dir", str(folder), "--chain", "dev", "--listen", "127.0.0.1:0")
        assert done.returncode == 77
        assert f"{key}: others can read the node key" in one_line(done)


def test_a_run_directory_too_long_for_a_socket_is_refused() -> None:
    with working_folder() as folder:
        done = run("--run-dir", str(folder / ("x" * 100)), "--chain", "dev", "--node-key", str(folder / "k"))
        assert done.returncode == 78
        assert "too long for a Unix socket" in one_line(done)


def test_wrong_usage_is_64() -> None:
    assert run("--no-such-flag").returncode == 64
    assert run("dial", module="rlpx.engine.cli.ctl").returncode == 64
    assert run("--count", "many", module="rlpx.engine.cli.tail").returncode == 64


def test_the_tools_say_plainly_that_no_engine_answers() -> None:
    with working_folder() as folder:
        for module, arguments in (("rlpx.engine.cli.ctl", ["status"]), ("rlpx.engine.cli.tail", ["session."])):
            done = run("--run-dir", str(folder), *arguments, module=module)
            assert done.returncode == 69
            assert "no engine at" in one_line(done)
        with Client.of(folder) as client, pytest.raises(EngineUnavailableError):
            client.call("status")


def test_check_prints_every_setting_with_its_origin_and_starts_nothing() -> None:
    with working_folder() as folder:
        done = run("--check", "--workers", "3", "--run-dir", str(folder / "never"))
        assert done.returncode == 0
        assert "workers = 3    # --workers" in done.stdout
        assert "limits.max_pending_inbound = 200" in done.stdout
        assert not (folder / "never").exists()


def test_the_tools_print_what_the_engine_says() -> None:
    with RunningEngine(workers=1) as engine, Peer(engine.address, engine.node_id, CHAIN) as peer:
        peer.establish()
        place = ["--run-dir", str(engine.run_dir)]
        eventually(lambda: engine.counts()[2] == 1, "the session is active")
        status = run(*place, "--json", "status", module="rlpx.engine.cli.ctl")
        assert json.loads(status.stdout)["enode"] == engine.enode
        sessions = run(*place, "sessions", module="rlpx.engine.cli.ctl")
        assert "test-peer" in sessions.stdout
        assert "1 of 1" in sessions.stdout
        wrong = run(*place, "disconnect", "99", module="rlpx.engine.cli.ctl")
        assert wrong.returncode == 1
        assert "no_such_session" in one_line(wrong)
        assert run(*place, "disconnect", "1", "--reason", "useless_peer", module="rlpx.engine.cli.ctl").returncode == 0
        eventually(lambda: engine.counts() == (0, 0, 0, 0), "the session has ended")
        history = run(*place, "history", module="rlpx.engine.cli.ctl")
        assert "useless_peer" in history.stdout


def tailing(engine: RunningEngine, *arguments: str) -> subprocess.Popen[str]:
    """A running `rlpx-tail` of the engine."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "rlpx.engine.cli.tail", "--run-dir", str(engine.run_dir), *arguments],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_tail_prints_events_as_json_with_their_payload() -> None:
    with RunningEngine(workers=1) as engine:
        tail = tailing(engine, "--json", "--count", "1", "eth.")
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            while tail.poll() is None:
                peer.send(2, b"\xc3\x01\x02\x03")
        assert tail.stdout is not None
        line = json.loads(tail.stdout.readline())
        tail.stdout.close()
        assert (line["topic"], line["payload"], line["size"], line["worker"]) == ("eth.Transactions", "0xc3010203", 4, 0)
        assert len(line["peer"]) == 128


def test_commands_from_any_zeromq_socket_get_one_reply() -> None:
    with RunningEngine(workers=1) as engine, zmq.Context() as context:
        request = b'{"jsonrpc": "2.0", "id": "a", "method": "counts"}'
        for kind in (zmq.REQ, zmq.DEALER):
            with context.socket(kind) as sock:
                sock.connect(f"ipc://{engine.run_dir}/control.ipc")
                for body, expected in ((request, "pending"), (b"no json", "parse_error"), (b"{}", "invalid_request")):
                    sock.send(body)
                    assert sock.poll(5000)
                    assert expected in sock.recv().decode()
                    assert not sock.poll(50)


def test_tcp_on_loopback_carries_commands_and_events_where_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
    flags = ["--control.endpoint", f"tcp://127.0.0.1:{ports[0]}", "--events.endpoint", f"tcp://127.0.0.1:{ports[1]}"]
    flags += ["--curve.insecure", "true"]
    with RunningEngine(*flags, workers=1), Client(f"tcp://127.0.0.1:{ports[0]}") as client:
        assert client.call("counts")["active"]["inbound"] == 0


def test_sighup_uses_new_limits_and_says_what_needs_a_restart() -> None:
    with working_folder() as folder:
        file = folder / "engine.toml"
        file.write_text("[limits]\nmax_active_inbound = 5\n")
        with RunningEngine("--conf", str(file), workers=1) as engine:
            assert engine.call("counts")["limits"]["max_active_inbound"] == 5
            file.write_text("[limits]\nmax_active_inbound = 7\n[timeouts]\nping_s = 30\n")
            engine.process.send_signal(signal.SIGHUP)
            eventually(lambda: engine.call("counts")["limits"]["max_active_inbound"] == 7, "the new limit")
            eventually(lambda: '"needs_restart": ["timeouts"]' in engine.stderr, "the log says what needs a restart")
            file.write_text("[limits]\nmax_active_inbound = []\n")
            engine.process.send_signal(signal.SIGHUP)
            eventually(lambda: "was not read again" in engine.stderr, "the complaint")
            assert engine.call("counts")["limits"]["max_active_inbound"] == 7


def test_dialling_nobody_fails_with_the_cause_as_reply_and_as_event() -> None:
    with RunningEngine(workers=1) as engine, socket.create_server(("127.0.0.1", 0)) as silent:
        log = engine.log("dial.", "session.")
        port = silent.getsockname()[1]
        silent.close()
        enode = f"enode://{'00' * 64}@127.0.0.1:{port}"
        with pytest.raises(EngineError, match="not a point") as error:
            engine.call("dial", enode=enode)
        assert error.value.name == "invalid_params"
        someone = f"enode://{SOMEBODY.hex()}@127.0.0.1:{port}"
        with pytest.raises(EngineError, match="Connection refused") as refused:
            engine.call("dial", enode=someone, wait=True)
        assert refused.value.name == "refused"
        failed = log.wait("dial.failed").fields
        assert failed["enode"] == someone
        assert "no TCP connection" in failed["cause"]
        assert not log.of("session.opened")
        assert engine.counts() == (0, 0, 0, 0)
        with pytest.raises(EngineError, match="this very node"):
            engine.call("dial", enode=engine.enode)


def test_two_engines_dial_one_another() -> None:
    with RunningEngine(workers=1) as first, RunningEngine(workers=1) as second:
        dialled = first.call("dial", enode=second.enode, wait=True)
        assert dialled["established"]["shared"] == ["eth/72"]
        with pytest.raises(EngineError, match="has session"):
            first.call("dial", enode=second.enode)
        eventually(lambda: second.counts() == (0, 0, 1, 0), "the other side has it too")
        assert first.call("disconnect-all") == {"sessions": 1}
        eventually(lambda: first.counts() == second.counts() == (0, 0, 0, 0), "both have ended")


def test_a_tap_shows_what_we_send() -> None:
    with RunningEngine(workers=1) as one, RunningEngine(workers=1) as other:
        asking, answering = one.log("tap."), other.log("tap.eth.BlockHeaders")
        session = one.call("dial", enode=other.enode, wait=True)["session"]
        headers = "0x" + oracle.encode([77, [1, 1, 0, 0]]).hex()
        one.call("send", session=session, capability="eth", message="Transactions", payload="0xc0")
        one.call("broadcast", capability="eth", message="Transactions", payload="0xc105", raw=True)
        one.call("request", session=session, capability="eth", message="GetBlockHeaders", payload=headers)
        sent = [asking.wait("tap.eth.Transactions", count=number + 1) for number in range(2)]
        assert [event.payload for event in sent] == [b"\xc0", b"\xc1\x05"]
        assert sent[0].fields["session"] == session
        asked = asking.wait("tap.eth.GetBlockHeaders")
        # The request as it is on the wire: with an id of ours.
        assert (asked.fields["request_id"], asked.payload) == (0, oracle.encode([0, [1, 1, 0, 0]]))
        assert asked.decode() == GetBlockHeaders(0, HeadersQuery(1, 1, 0, False))
        answer = answering.wait("tap.eth.BlockHeaders")
        assert answer.payload == oracle.encode([0, []])


def test_tail_decodes_messages_where_asked() -> None:
    announced = oracle.encode([b"\x02", [100], [b"\x0a" * 32], bytes(16)])
    with RunningEngine(workers=1) as engine:
        tail = tailing(engine, "--json", "--decode", "eth.")
        lines = tail.stdout
        assert lines is not None
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()

            def is_read() -> bool:
                peer.send(8, bytes(announced))
                return bool(select.select([lines], [], [], 0.2)[0])

            eventually(is_read, "the reader has subscribed")
            first = json.loads(lines.readline())
            peer.send(8, b"\xc1\x05")
            malformed = next(event for line in lines if "message" not in (event := json.loads(line)))
        tail.terminate()
        tail.communicate(timeout=200)
        assert first["message"]["hashes"] == ["0x" + "0a" * 32]
        assert first["payload"] == "0x" + bytes(announced).hex()
        assert "malformed" in malformed


def test_no_answer_and_no_event_shows_the_key() -> None:
    with RunningEngine("--log.level", "debug", workers=1) as engine:
        key = (engine.run_dir / "node.key").read_text().strip()
        log = engine.log()
        with Peer(engine.address, engine.node_id, CHAIN) as peer:
            peer.establish()
            session = log.wait("session.established").fields["session"]
            answers = [engine.call(name) for name in ("status", "counts", "sessions", "peers", "history", "discover")]
            answers.append(engine.call("session", session=session))
            peer.leave()
        log.wait("session.closed")
        shown = json.dumps(answers) + "".join(json.dumps(event.fields) + event.payload.hex() for event in log.events)
        # The search works: it finds our own id, which belongs to the key.
        assert engine.node_id.hex() in shown
        assert key not in shown.lower()
