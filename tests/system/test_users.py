"""Programs of this machine and of others: what they send cannot stop, slow or fill the engine, and TCP takes a key."""

from __future__ import annotations

import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
import zmq

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError, EngineForbiddenError
from rlpx.engine.client.subscriber import Subscriber
from rlpx.protocol.bus import zmtp
from tests.pair import DEV
from tests.system.harness import IMPORT_PATH, ROOT, RunningEngine, eventually
from tests.system.peers import Peer

# The memory that an attack may add to a process: its bounds, with Python's overhead.
MOST_GROWTH_BYTES = 100 * 1024 * 1024
ATTACK_SECONDS = 3.0
# Generous, as other tests use the cores as well. Without bounds it was tens of seconds, or no answer at all.
MOST_ANSWER_SECONDS = 2.0


# The kernel itself gives out none of these (`net.ipv4.ip_local_port_range`): no connection of another test takes one.
FIXED_PORTS = range(15_000, 32_000)


def free_port() -> int:
    """A free port that the kernel gives to nobody by chance."""
    while True:
        port = random.choice(FIXED_PORTS)  # noqa: S311 - no secret
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rlpx-") as made:
        yield Path(made)


def raw_user(place: Path, socket_type: bytes) -> socket.socket:
    """A connected user that speaks ZMTP by itself, its handshake done."""
    user = socket.socket(socket.AF_UNIX)
    user.settimeout(30)
    user.connect(str(place))
    signature = b"\xff" + bytes(8) + b"\x7f\x03\x01"
    user.sendall((signature + b"NULL".ljust(20, b"\0")).ljust(64, b"\0"))
    user.sendall(zmtp.command(b"READY", zmtp.metadata({"Socket-Type": socket_type})))
    return user


def send_until_closed(place: Path, socket_type: bytes, data: bytes, ends_at: float) -> int:
    """Send the same bytes repeatedly, and connect again whenever the engine closes; returns how many bytes it took."""
    sent = 0
    while monotonic() < ends_at:
        try:
            with raw_user(place, socket_type) as user:
                user.settimeout(0.5)
                while monotonic() < ends_at:
                    sent += user.send(data)
        except (OSError, TimeoutError):
            sleep(0.01)
    return sent


class Watch:
    """The processes of an engine under attack: their memory, the time that `status` takes, and a peer's session."""

    def __init__(self, engine: RunningEngine) -> None:
        self._engine = engine
        self._processes = [psutil.Process(engine.process.pid), *engine.workers()]
        self._before = [process.memory_info().rss for process in self._processes]
        self.peer = Peer(engine.address, engine.node_id, DEV).establish()

    def slowest_answer(self, ends_at: float) -> float:
        """Ask for the status until this time; returns the longest time that an answer took, in seconds."""
        slowest = 0.0
        while monotonic() < ends_at:
            began = monotonic()
            self._engine.call("status")
            slowest = max(slowest, monotonic() - began)
            sleep(0.02)
        return slowest

    def check(self) -> None:
        """Check that nothing was lost and that memory is bounded."""
        growth = [process.memory_info().rss - before for process, before in zip(self._processes, self._before, strict=True)]
        assert max(growth) < MOST_GROWTH_BYTES, growth
        assert self._engine.process.poll() is None
        assert self._engine.call("counts")["active"]["inbound"] == 1
        assert "worker.lost" not in self._engine.stderr
        assert "Traceback" not in self._engine.stderr


LONG_FRAME = bytes((zmtp.MORE | zmtp.LONG,)) + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("name", "socket_type", "data"),
    [
        ("events", b"SUB", zmtp.encode([b"x"]) * 20_000),
        ("events", b"SUB", LONG_FRAME),
        ("events", b"SUB", zmtp.command(b"PING", b"\0\0") * 10_000),
        ("control", b"DEALER", LONG_FRAME),
        ("control", b"DEALER", bytes((zmtp.MORE, 0)) * 100_000),
        ("control", b"DEALER", zmtp.encode([b'{"jsonrpc":"2.0","id":1,"method":"status"}']) * 1000),
        ("worker-0", b"DEALER", LONG_FRAME),
        ("worker-0", b"DEALER", zmtp.encode([b"x"]) * 20_000),
        ("worker-0", b"DEALER", zmtp.encode([b'{"register":["eth.GetBlockHeaders"],"credit":1}']) * 5000),
    ],
    ids=[
        "a talkative subscriber",
        "a subscriber's endless message",
        "pings without end",
        "an endless request",
        "a request of endless frames",
        "a flooding caller that reads nothing",
        "an endless answer",
        "a flooding responder",
        "endless registrations",
    ],
)
def test_what_a_user_sends_without_end_harms_nobody(name: str, socket_type: bytes, data: bytes) -> None:
    with RunningEngine(workers=1, is_read=False) as engine:
        watch = Watch(engine)
        with watch.peer:
            ends_at = monotonic() + ATTACK_SECONDS
            attacks = [
                Thread(target=send_until_closed, args=(engine.run_dir / f"{name}.ipc", socket_type, data, ends_at))
                for _ in range(2)
            ]
            for attack in attacks:
                attack.start()
            try:
                assert watch.slowest_answer(ends_at) < MOST_ANSWER_SECONDS
            finally:
                for attack in attacks:
                    attack.join()
            watch.check()


def test_unique_subscriptions_are_bounded_and_end_their_connection() -> None:
    with RunningEngine(workers=1, is_read=False) as engine:
        watch = Watch(engine)
        with watch.peer, raw_user(engine.run_dir / "events.ipc", b"SUB") as user:
            subscriptions = b"".join(zmtp.encode([b"\x01%d" % number]) for number in range(100_000))
            with pytest.raises(OSError, match=r"Broken pipe|reset"):
                user.sendall(subscriptions * 20)
            watch.check()


@pytest.mark.alone
def test_a_flood_of_requests_leaves_another_caller_its_answers() -> None:
    with RunningEngine(workers=1, is_read=False) as engine, ExitStack() as stack:
        is_over = Event()

        def flood() -> None:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            with context, context.socket(zmq.DEALER) as caller:
                caller.setsockopt(zmq.LINGER, 0)
                caller.connect(f"ipc://{engine.run_dir}/control.ipc")
                while not is_over.is_set():
                    # The engine does not read a user that does not read its answers.
                    while caller.poll(0, zmq.POLLOUT):
                        caller.send(b'{"jsonrpc":"2.0","id":1,"method":"status"}', zmq.DONTWAIT)
                    while caller.poll(1):
                        caller.recv_multipart()

        thread = Thread(target=flood)
        thread.start()
        stack.callback(thread.join)
        stack.callback(is_over.set)
        sleep(0.5)
        times = []
        for _ in range(50):
            began = monotonic()
            engine.call("counts")
            times.append(monotonic() - began)
        # An idle machine answers in a few milliseconds; other tests use the cores as well.
        assert sorted(times)[len(times) // 2] < 0.1, times


# -- keys -------------------------------------------------------------------------------------------------------------------


def keys(at: Path, *arguments: str) -> None:
    """Run `rlpx-ctl keys`."""
    subprocess.run(
        [sys.executable, "-P", "-m", "rlpx.engine.cli.ctl", "keys", *arguments, "--keys-dir", str(at / "keys")],
        check=True,
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
    )


def test_over_tcp_a_key_is_needed_its_rights_hold_and_it_can_be_taken_back() -> None:
    control, events = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    with folder() as at:
        keys(at, "new", "alice", "--rights", "events,control", "--out", str(at / "alice"))
        keys(at, "new", "bob", "--out", str(at / "bob"))
        flags = ["--control.endpoint", control, "--events.endpoint", events, "--curve.keys-dir", str(at / "keys")]
        with RunningEngine(*flags, workers=1, is_read=False) as engine:
            with Client(control, key=at / "alice", timeout_seconds=20) as client:
                assert client.call("counts")["active"]["inbound"] == 0
            for key, words in ((at / "bob", "does not accept this key"), (None, "takes only users with a key")):
                with (
                    Client(control, key=key, timeout_seconds=20) as client,
                    pytest.raises(EngineForbiddenError, match=words),
                ):
                    client.call("counts")
            with Subscriber(events, ["session."], key=at / "bob") as subscriber:
                subscriber.confirm(20)
                with Peer(engine.address, engine.node_id, DEV) as peer:
                    peer.establish()
                    eventually(lambda: subscriber.poll(0.1), "an event over CURVE")
                keys(at, "remove", "bob")
                with pytest.raises(EngineForbiddenError, match="does not accept this key"):
                    poll_until_turned_away(subscriber.poll)
            assert "Traceback" not in engine.stderr


def test_an_endpoint_without_keys_says_that_it_takes_none() -> None:
    control = f"tcp://127.0.0.1:{free_port()}"
    with folder() as at:
        keys(at, "new", "alice", "--rights", "control", "--out", str(at / "alice"))
        with (
            RunningEngine("--control.endpoint", control, "--curve.insecure", "true", workers=1, is_read=False) as engine,
            Client(control, key=at / "alice", timeout_seconds=20) as client,
        ):
            with pytest.raises(EngineForbiddenError, match="takes no keys"):
                client.call("counts")
            engine.says("curve.insecure: every user of this machine")


# A prepared process looks up whether other processes may read it (prctl(2)), and its limit of core files.
ASKED = "import ctypes, resource; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])"


@pytest.mark.parametrize("module", ["rlpx.engine.__main__", "rlpx.workers.__main__"])
def test_a_process_that_holds_the_key_cannot_be_read_nor_dumped(module: str) -> None:
    prepare = "_prepare_process" if module == "rlpx.engine.__main__" else "keep_key_inside"
    found = subprocess.run(
        [sys.executable, "-P", "-c", f"from {module} import {prepare}; {prepare}(); {ASKED}"],
        env={**os.environ, "PYTHONPATH": IMPORT_PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["0", "0"]


def poll_until_turned_away(poll: Callable[[float], object]) -> None:
    """Keep reading for a while."""
    ends_at = monotonic() + 20
    while monotonic() < ends_at:
        poll(0.5)


# -- descriptors ------------------------------------------------------------------------------------------------------------


def test_limits_that_cannot_fit_are_refused_with_the_numbers() -> None:
    with folder() as at:
        command = [
            sys.executable,
            "-P",
            "-m",
            "rlpx.engine",
            "--chain",
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--run-dir",
            str(at),
        ]
        command += ["--node-key", str(at / "node.key"), "--conf", str(ROOT / "conf" / "engine.toml")]
        found = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": IMPORT_PATH},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
        )
        assert found.returncode == 78
        assert "file descriptors, and 256 are allowed" in found.stderr


SMALL = (
    *("--limits.max-active-inbound", "60", "--limits.max-active-outbound", "10", "--limits.max-pending-inbound", "20"),
    *("--limits.max-pending-outbound", "10", "--limits.max-unauthenticated", "20", "--limits.max-polite-refusals", "5"),
    *("--queues.goodbyes", "10", "--responders.max-connections", "5", "--control.max-connections", "60"),
    *("--events.max-subscribers", "60"),
)


def test_a_table_that_users_and_peers_fill_aborts_nothing() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack, RunningEngine(*SMALL, workers=1, is_read=False) as engine:
        log = engine.log("session.", "worker.")
        honest = stack.enter_context(Peer(engine.address, engine.node_id, DEV)).establish()
        worker = engine.workers()[0]
        # The limit is lowered while the engine runs, below what its settings need, so the start could not refuse that.
        for process in (worker, psutil.Process(engine.process.pid)):
            process.rlimit(psutil.RLIMIT_NOFILE, (80, hard))
        for name in ("control", "events", "worker-0"):
            for _ in range(80):
                user = stack.enter_context(socket.socket(socket.AF_UNIX))
                user.setblocking(False)
                try:
                    user.connect(str(engine.run_dir / f"{name}.ipc"))
                except BlockingIOError:
                    break
        peers = [stack.enter_context(socket.create_connection(engine.address)) for _ in range(80)]
        sleep(2)
        assert engine.process.poll() is None
        assert worker.is_running()
        stack.pop_all().close()
        for process in (worker, psutil.Process(engine.process.pid)):
            process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        assert len(peers) == 80
        eventually(lambda: _counts(engine)["pending"]["inbound"] == 0, "all of them ended")
        with Peer(engine.address, engine.node_id, DEV) as again:
            again.establish()
        assert not log.of("worker.lost")
        assert "Traceback" not in engine.stderr
        assert honest.session.stage == "active"


def _counts(engine: RunningEngine) -> dict[str, Any]:
    try:
        found: dict[str, Any] = engine.call("counts")
    except EngineError:
        return {"pending": {"inbound": -1}}
    return found
