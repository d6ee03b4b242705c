"""Programs in Go and JavaScript at a worker: a feed, a responder and a command, with go-ethereum peers at the other end."""

from __future__ import annotations

import json
import queue
import subprocess
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

import pytest
import rlp as oracle

from tests.interop.clients import geth, user_program
from tests.interop.test_geth import TRANSACTION, encode, established
from tests.system.harness import PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.test_users import free_port, keys

LANGUAGES = ["go", "js"]
TRANSACTIONS = encode([oracle.decode(TRANSACTION)] * 2)
# A header of the first fork: 13 fields, mix digest and nonce.
HEADER = [
    *(bytes(size) for size in (32, 32, 20, 32, 32, 32, 256)),
    *(b"", b"\x01", b"\x02", b"", b"\x03", b""),
    *(bytes(size) for size in (32, 8)),
]


class Lines:
    """A program whose lines are read as they come."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> list[str]:
        """The words of its next line."""
        return self._lines.get(timeout=PATIENCE_SECONDS).split(" ")

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        said = self._process.stderr.read()
        self._process.stdout.close()
        self._process.stderr.close()
        assert error is not None or said == "", said


@pytest.fixture(scope="module")
def one_worker(chain_file: Path) -> Any:
    """An engine whose only worker has every session."""
    with RunningEngine(chain=str(chain_file), workers=1) as running:
        running.call("set-status", number=4000, hash="0x" + "ab" * 32, earliest=10)
        yield running


def place(engine: RunningEngine) -> str:
    """Where `status` says that the worker is."""
    [worker] = engine.call("status")["workers"]
    return str(worker["data_endpoints"]["ipc"])


def responders(engine: RunningEngine) -> Any:
    """The number of connected responders as of the last second, if the worker has reported it."""
    return engine.call("status")["workers"][0]["responders"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_feed_has_the_sessions_and_then_every_event(one_worker: RunningEngine, language: str) -> None:
    log = one_worker.log("session.established")
    with geth("-eth", "69", "-dial", one_worker.enode) as peer:
        session = established(one_worker, log, peer)
        with Lines([*user_program(language, "feed"), place(one_worker)]) as feed:
            kind, shown = " ".join(feed.line()).split(" ", 1)
            assert (kind, json.loads(shown)["session"]) == ("session", session)
            # More than the credit that it grants at first, so that it has to grant more.
            repeat = 8000
            peer.do("send", peer=0, protocol="eth", code=2, payload=TRANSACTIONS.hex(), repeat=repeat)
            for _ in range(repeat):
                assert feed.line() == ["event", "eth.Transactions", str(session), TRANSACTIONS.hex()]
            one_worker.call("disconnect", session=session)
            assert feed.line() == ["event", "session.closed", str(session), ""]


def test_a_feed_in_javascript_over_tcp_with_a_key(chain_file: Path, tmp_path: Path) -> None:
    base = free_port()
    keys(tmp_path, "new", "monitor", "--rights", "events", "--out", str(tmp_path / "monitor.secret"))
    flags = ["--data.endpoint", f"tcp://127.0.0.1:{base}", "--curve.keys-dir", str(tmp_path / "keys")]
    with RunningEngine(*flags, chain=str(chain_file), workers=1) as engine, ExitStack() as stack:
        log = engine.log("session.established")
        peer = stack.enter_context(geth("-eth", "69", "-dial", engine.enode))
        session = established(engine, log, peer)
        with Lines([*user_program("js", "feed"), f"tcp://127.0.0.1:{base}", str(tmp_path / "monitor.secret")]) as feed:
            assert feed.line()[0] == "session"
            peer.do("send", peer=0, protocol="eth", code=2, payload=TRANSACTIONS.hex())
            assert feed.line() == ["event", "eth.Transactions", str(session), TRANSACTIONS.hex()]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_responder_answers_go_ethereum(one_worker: RunningEngine, tmp_path: Path, language: str) -> None:
    (tmp_path / "headers.rlp").write_bytes(encode([1, [HEADER]]))
    log = one_worker.log("session.established")
    eventually(lambda: responders(one_worker) == 0, "that of the other language has left")
    with (
        geth("-eth", "69", "-dial", one_worker.enode) as peer,
        Lines([*user_program(language, "responder"), place(one_worker), str(tmp_path / "headers.rlp")]) as responder,
    ):
        session = established(one_worker, log, peer)
        eventually(lambda: responders(one_worker) == 1, "the program is connected")
        question = encode([77, [1, 1, 0, 0]]).hex()
        peer.do("send", peer=0, protocol="eth", code=3, payload=question)
        answer = peer.wait("message", code=4)
        assert (answer["decode"], answer["payload"]) == ("ok", encode([77, [HEADER]]).hex())
        assert responder.line() == ["answered", str(session), question]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_command_brings_the_answer_of_go_ethereum(one_worker: RunningEngine, language: str) -> None:
    log = one_worker.log("session.established")
    with geth("-answer-empty", "-eth", "69", "-dial", one_worker.enode) as peer:
        session = established(one_worker, log, peer)
        with Lines([*user_program(language, "command"), place(one_worker), str(session)]) as command:
            assert command.line() == ["answer", "BlockHeaders", encode([7, []]).hex()]
            assert command.ended() == 0
        with Lines([*user_program(language, "command"), place(one_worker), "99999"]) as command:
            kind, reply = " ".join(command.line()).split(" ", 1)
            assert (kind, json.loads(reply)["error"]["data"]["name"]) == ("error", "no_such_session")
            assert command.ended() == 1
