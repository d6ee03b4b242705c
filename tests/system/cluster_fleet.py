"""A fleet on loopback: NATS servers, engines that join them, and a crowd of peers that hold their sessions."""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import nats as nats_client

from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.rlpx.crypto import PrivateKey
from tests.system.harness import ROOT, RunningEngine, eventually
from tests.system.peers import Peer

SERVER: Final = Path(sys.executable).parent / "nats-server"
CHAIN: Final = load_chain("dev")
# Below the ports that Linux gives to outgoing connections; different ones in each process of tests.
_PORTS: Final = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment. No outgoing connection takes one of them while its server is away."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            sock = stack.enter_context(socket.socket())
            with suppress(OSError):
                sock.bind(("127.0.0.1", _PORTS.randrange(10_000, 32_768)))
                ports.append(sock.getsockname()[1])
    return ports


class Nats:
    """NATS servers with JetStream, one or a cluster of them, with more `settings` if given."""

    def __init__(self, servers: int = 1, settings: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rlpx-nats-"))
        (self.folder / "more.conf").write_text(settings)
        # What stands before each address, as in `user:password@`.
        self.user = ""
        self.ports, self._routes = free_ports(servers), free_ports(servers)
        self.processes: list[subprocess.Popen[bytes]] = []
        for index in range(servers):
            self.processes.append(self._start(index))
        for port in self.ports:
            eventually(partial(_answers, port), "a NATS server listens")

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"{self.user}127.0.0.1:{port}" for port in self.ports)

    def start(self, index: int) -> None:
        """Start a server that was killed."""
        self.processes[index] = self._start(index)

    def kill(self, index: int) -> None:
        """kill -9 of a server."""
        self.processes[index].kill()
        self.processes[index].wait()

    def kill_all(self) -> None:
        """kill -9 of every server."""
        for index in range(len(self.ports)):
            self.kill(index)

    def start_all(self) -> None:
        """Start every server again."""
        for index in range(len(self.ports)):
            self.start(index)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        command = [
            str(SERVER),
            "-c",
            str(self.folder / "more.conf"),
            "-a",
            "127.0.0.1",
            "-p",
            str(self.ports[index]),
            "-js",
            "-sd",
            str(self.folder / f"js{index}"),
        ]
        if len(self.ports) > 1:
            routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
            command += ["-n", f"n{index}", "--cluster_name", "test", "--cluster", f"nats://127.0.0.1:{self._routes[index]}"]
            command += ["--routes", routes]
        with (self.folder / f"log{index}").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


class Crowd:
    """Peers that stay connected: a thread answers what their engines send. Some are refused."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self.peers: list[Peer] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def connect(self, engine: RunningEngine, key: PrivateKey | None = None) -> Peer:
        """One more peer connects."""
        peer = Peer(engine.address, engine.node_id, CHAIN, key=key)
        peer.flush()
        with self._lock:
            self.peers.append(peer)
            self._selector.register(peer.socket, selectors.EVENT_READ, peer)
        return peer

    def send(self, peer: Peer, message: int, *payloads: bytes) -> None:
        """A peer sends messages, in one go. Its session may be active for the engine before it is for the peer."""
        eventually(lambda: peer.session.stage == "active", "the peer knows that its session is active")
        with self._lock:
            for payload in payloads:
                peer.send(message, payload)

    def leave(self, peer: Peer) -> None:
        """A peer says goodbye."""
        with self._lock:
            self._selector.unregister(peer.socket)
            peer.leave()

    @property
    def active(self) -> int:
        """The peers whose session is active as they see it."""
        with self._lock:
            return sum(peer.session.stage == "active" for peer in self.peers)

    def _run(self) -> None:
        while not self._is_over:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    self._step(key.data)
            now = time.monotonic()
            with self._lock:
                for peer in self.peers:
                    if not peer.session.is_closed and peer.session.deadline <= now:
                        peer.events += peer.session.tick(now=now)
                        with suppress(OSError):
                            peer.flush()

    def _step(self, peer: Peer) -> None:
        try:
            peer.step()
            peer.flush()
        except OSError:
            peer.session.connection_lost("reset")
        if peer.session.is_closed:
            with suppress(KeyError, ValueError):
                self._selector.unregister(peer.socket)
            peer.close()

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        for peer in self.peers:
            peer.close()
        self._selector.close()


@contextmanager
def fleet(nats: Nats, *names: str, flags: tuple[str, ...] = (), workers: int = 1) -> Iterator[list[RunningEngine]]:
    """Engines of one fleet."""
    with ExitStack() as stack:
        yield [stack.enter_context(member(nats, name, *flags, workers=workers)) for name in names]


def member(nats: Nats, name: str, *flags: str, workers: int = 1) -> RunningEngine:
    """One engine of the fleet."""
    return RunningEngine(
        "--cluster", nats.url, "--cluster-name", "test", "--cluster-host", name, *flags, workers=workers, is_read=False
    )


class SteppedClock:
    """The wall clock of an engine and its workers: it is as many seconds off as the last step says."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.step(0)
        # The folder from which an engine imports its packages is the one from which its workers do.
        house = folder / "house"
        house.mkdir()
        (house / "rlpx").symlink_to(ROOT / ".venv" / "house" / "rlpx")
        (house / "sitecustomize.py").symlink_to(Path(__file__).parent / "stepped_clock" / "sitecustomize.py")
        variables = (f"PYTHONPATH={house}", f"STEPPED_CLOCK={self._file}")
        self.program = ("env", *variables, sys.executable, "-P", "-m", "rlpx.engine")

    def step(self, off_s: int) -> None:
        """Set the clock."""
        new = self._file.with_suffix(".new")
        new.write_text(str(off_s))
        new.rename(self._file)


@contextmanager
def crowd() -> Iterator[Crowd]:
    """A crowd, which leaves at the end."""
    made = Crowd()
    try:
        yield made
    finally:
        made.close()


class Lives:
    """The stream of a fleet, as a program reads it that knows only NATS."""

    def __init__(self, nats: Nats, fleet: str = "test") -> None:
        self.events: list[dict[str, Any]] = eventually(lambda: _try_stream(nats.url.split(","), fleet), "the stream answers")

    def of(self, topic: str) -> list[dict[str, Any]]:
        """The events of `session.<topic>`, in the order of the stream."""
        return [event for event in self.events if event["topic"] == f"session.{topic}"]

    def names(self, topic: str) -> list[tuple[str, int]]:
        """The hosts and numbers of the sessions of these events."""
        return [(event["host"], event["session"]) for event in self.of(topic)]

    def alive(self) -> set[tuple[str, int]]:
        """The hosts and numbers of the sessions that are active, as the README says how to tell it from the stream."""
        runs: dict[str, str] = {}
        active: dict[str, set[tuple[str, int]]] = {}
        lost, back = Counter[str](), Counter[str]()
        for event in self.events:
            topic, host, run = event["topic"], event["host"], (event["id"] or "").partition("-")[0]
            if topic == "engine.started":
                runs[host] = run
            elif topic == "session.established":
                active.setdefault(run, set()).add((host, event["session"]))
            elif topic == "session.closed":
                active.setdefault(run, set()).discard((host, event["session"]))
            elif topic == "engine.stopped":
                active.pop(run, None)
                if runs.get(host) == run:
                    del runs[host]
            elif topic in ("engine.lost", "engine.back"):
                heard = lost if topic == "engine.lost" else back
                heard[run] = max(heard[run], event["heartbeat"])
        living = [run for run in runs.values() if lost[run] <= back[run]]
        return {session for run in living for session in active.get(run, ())}

    def most_active(self, direction: str) -> int:
        """The most sessions that were active at once over all hosts, whose clocks are one here."""
        changes = [(event["time_us"], 1) for event in self.of("established") if event["direction"] == direction]
        established = set(self.names("established"))
        changes += [
            (event["time_us"], -1)
            for event in self.of("closed")
            if event["direction"] == direction and (event["host"], event["session"]) in established
        ]
        most = active = 0
        for _, change in sorted(changes):
            active += change
            most = max(most, active)
        return most


def _try_stream(urls: list[str], fleet: str) -> list[dict[str, Any]] | None:
    """The events of the stream, or nothing if its servers are not ready."""
    with suppress(nats_client.errors.Error, TimeoutError):
        return asyncio.run(_read_stream(urls, fleet))
    return None


async def _read_stream(urls: list[str], fleet: str) -> list[dict[str, Any]]:
    client = await nats_client.connect([url if "://" in url else f"nats://{url}" for url in urls])
    try:
        stream = client.jetstream()
        wanted = (await stream.stream_info(f"rlpx_{fleet}")).state.messages
        read = await stream.subscribe(f"rlpx.{fleet}.>", ordered_consumer=True)
        events: list[dict[str, Any]] = []
        while len(events) < wanted:
            message = await read.next_msg(10.0)
            _, _, host, topic = message.subject.split(".", 3)
            event = {
                "host": host,
                "topic": topic,
                "id": (message.headers or {}).get("Nats-Msg-Id"),
                **json.loads(message.data),
            }
            events.append(event)
        # A test asks many times, and a server keeps a thousand consumers.
        await stream.delete_consumer(f"rlpx_{fleet}", (await read.consumer_info()).name)
        return events
    finally:
        await client.close()


class Proxy:
    """A way to a NATS server that can be cut: while it is, bytes go nowhere, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.is_cut = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """From now on nothing passes."""
        self.is_cut = True

    def heal(self) -> None:
        """New connections pass; those that were cut are closed."""
        self.is_cut = False
        for pair in self._pairs:
            for sock in pair:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()  # the server behind was killed
                    continue
                self._pairs.append((client, server))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                while self.is_cut:
                    time.sleep(0.05)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.heal()
        self._server.close()
        for pair in self._pairs:
            for sock in pair:
                sock.close()
