"""The loads and faults of the nemesis run: what strangers, neighbours and chance do to an engine, each for a second or two.

A load runs beside others and may fail in any way that a peer or a program can; faults happen one at a time.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final, NamedTuple

import psutil
import zmq

from rlpx.engine.client.client import Client
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.settings.chain import load_chain
from rlpx.protocol.errors import PeerError
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.p2p import deflate
from tests.system.harness import RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.raw import DISCONNECT, RawConnection, listening

CHAIN: Final = load_chain("dev")
TRANSACTIONS: Final = 2
# The errors of a call whose other side is being killed, is stopped or full, or refuses.
EXPECTED: Final = (OSError, AssertionError, EngineError, EngineUnavailableError, PeerError)
# The settings of `conf/engine.toml`, with waits of up to an hour shortened to seconds.
SETTINGS: Final = """
[timeouts]
auth_s = 1.0
handshake_s = 2.0
pending_inbound_s = 4.0
pending_outbound_s = 4.0
connect_s = 2.0
ping_interval_s = 4.0
ping_s = 6.0
goodbye_s = 1.0
"""
DENIED_SOURCE: Final = "127.0.7.1"


class Field(NamedTuple):
    """The surroundings of a load or fault. `said` records its steps."""

    engine: RunningEngine
    conf: Path
    random: random.Random
    said: Callable[[str], None]

    def raw(self, source: str = "127.0.0.1") -> RawConnection:
        """A raw peer that has connected."""
        return RawConnection.to(self.engine.address, self.engine.node_id, CHAIN, source)

    def client(self) -> Client:
        """A user's program."""
        return Client.of(self.engine.run_dir, timeout_seconds=10.0)


# -- loads ------------------------------------------------------------------------------------------------------------------


def churn(field: Field) -> None:
    """Peers come, send something, and leave, politely or not."""
    for _ in range(field.random.randint(3, 12)):
        source = field.random.choice(("127.0.0.1", "127.0.0.2", DENIED_SOURCE))
        with suppress(*EXPECTED), Peer(field.engine.address, field.engine.node_id, CHAIN, source) as peer:
            if field.random.random() < 0.8:
                peer.establish()
                peer.send(TRANSACTIONS, b"\xc1\xc0")
            if field.random.random() < 0.5:
                peer.leave()


def crowd(field: Field) -> None:
    """Many peers come at once and stay for a moment."""
    with ExitStack() as stack:
        for _ in range(field.random.randint(10, 50)):
            with suppress(*EXPECTED):
                stack.enter_context(Peer(field.engine.address, field.engine.node_id, CHAIN)).establish()
        sleep(field.random.uniform(0.1, 1.0))


def flood(field: Field) -> None:
    """One peer sends the same message as fast as it is read."""
    code, payload = field.random.choice([(0x02, b"\xc0"), (0x03, b"\xc0"), (0x05, b"x" * 200), (0x12, b"\xc1\xc0")])
    field.said(f"flood of code 0x{code:02x}")
    with suppress(*EXPECTED), field.raw() as peer:
        peer.reaches(Stage.ACTIVE)
        ends_at = monotonic() + field.random.uniform(0.3, 1.5)
        while monotonic() < ends_at:
            peer.gives(b"".join(peer.sealed(code, payload) for _ in range(64)))


LIES: Final[list[tuple[Stage, bytes | tuple[int, bytes]]]] = [
    (Stage.AUTH, b"GET / HTTP/1.1\r\n\r\n"),
    (Stage.AUTH, b"\x04" + bytes(306)),
    (Stage.AUTH, b"\x02\x00\x04" + bytes(600)),
    (Stage.AUTH, b"\x02\x00\x04"),
    (Stage.HELLO, bytes(64)),
    (Stage.HELLO, (0x80, b"\xc0")),
    (Stage.HELLO, (DISCONNECT, b"\xc1\x04")),
    (Stage.STATUS, (0x10, b"\xc0")),
    (Stage.STATUS, (DISCONNECT, deflate(b"\xc2\x04\x11"))),
    (Stage.ACTIVE, (0x13, b"\x83abc")),
    (Stage.ACTIVE, (0x14, b"\xc2\x05\xc0")),
    (Stage.ACTIVE, (0x21, b"\xc0")),
    (Stage.ACTIVE, (0x30, b"\xc0")),
    (Stage.ACTIVE, bytes(64)),
]


def lie(field: Field) -> None:
    """Peers send messages that are not allowed, at every stage."""
    for stage, lie_ in field.random.sample(LIES, 6):
        with suppress(*EXPECTED), field.raw() as peer:
            peer.reaches(stage)
            if isinstance(lie_, bytes):
                peer.gives(lie_)
            else:
                peer.says(*lie_)
            peer.socket.settimeout(0.2)
            peer.reads()


def silence(field: Field) -> None:
    """Connections send nothing, or stop in the middle of a frame."""
    with ExitStack() as stack:
        for _ in range(field.random.randint(5, 40)):
            with suppress(*EXPECTED):
                peer = stack.enter_context(field.raw())
                if field.random.random() < 0.3:
                    peer.reaches(Stage.ACTIVE).gives(peer.sealed(0x12, os.urandom(50_000), is_snappy=False)[:20_000])
        sleep(field.random.uniform(0.1, 1.5))


def be_dialled(field: Field) -> None:
    """The engine dials listeners that break the protocol, at every stage."""
    with suppress(*EXPECTED), field.client() as client:
        for _ in range(3):
            stage = field.random.choice((None, Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.ACTIVE))
            with suppress(*EXPECTED), listening() as (server, key, enode):
                client.call("dial", enode=enode)
                if stage is None:
                    continue
                server.settimeout(2.0)
                with RawConnection.accepted(server, key, field.engine.node_id, CHAIN) as peer:
                    peer.socket.settimeout(2.0)
                    peer.reaches(stage)
                    end = field.random.choice(("leave", "noise", "goodbye", "reset", "silence"))
                    if end == "noise":
                        peer.gives(os.urandom(200))
                    elif end == "goodbye" and stage is not Stage.AUTH:
                        peer.says(DISCONNECT, b"\xc1\x04", is_snappy=stage is not Stage.HELLO)
                    elif end == "reset":
                        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    elif end == "silence":
                        sleep(0.5)


def command(field: Field) -> None:
    """A user's program uses the engine."""
    with suppress(*EXPECTED), field.client() as client:
        sessions = client.call("sessions", phase="active")["sessions"]
        client.call("broadcast", capability="eth", message="Transactions", payload="0xc0")
        for item in field.random.sample(sessions, min(3, len(sessions))):
            with suppress(EngineError):
                client.call("send", session=item["session"], capability="eth", message=TRANSACTIONS, payload="0xc0")
        if sessions and field.random.random() < 0.3:
            client.call("disconnect", session=field.random.choice(sessions)["session"])
        if field.random.random() < 0.1:
            client.call("ban", address=DENIED_SOURCE, seconds=1.0)


def subscribe_slowly(field: Field) -> None:
    """A subscriber never reads."""
    with zmq.Context() as context, context.socket(zmq.SUB) as reader:
        reader.setsockopt(zmq.LINGER, 0)
        reader.setsockopt(zmq.RCVHWM, 1)
        reader.setsockopt(zmq.SUBSCRIBE, b"")
        reader.connect(f"ipc://{field.engine.run_dir}/events.ipc")
        sleep(field.random.uniform(0.5, 2.0))


def talk_upstream(field: Field) -> None:
    """A subscriber keeps subscribing and cancelling, and sends messages that are not subscriptions."""
    with zmq.Context() as context, context.socket(zmq.XSUB) as talker:
        talker.setsockopt(zmq.LINGER, 0)
        talker.connect(f"ipc://{field.engine.run_dir}/events.ipc")
        ends_at = monotonic() + field.random.uniform(0.3, 1.0)
        while monotonic() < ends_at:
            with suppress(zmq.Again):
                talker.send(b"\x01" + os.urandom(6).hex().encode(), zmq.DONTWAIT)
                talker.send(b"x" * 100, zmq.DONTWAIT)


LOADS: Final[dict[str, Callable[[Field], None]]] = {
    load.__name__: load for load in (churn, crowd, flood, lie, silence, be_dialled, command, subscribe_slowly, talk_upstream)
}


# -- faults -----------------------------------------------------------------------------------------------------------------


def kill_worker(field: Field) -> None:
    """A worker dies."""
    worker = field.random.choice(field.engine.workers())
    field.said(f"kill worker {worker.pid}")
    worker.kill()
    eventually(lambda: _is_replaced(field.engine, worker.pid), "the worker is replaced")


def pause_worker(field: Field) -> None:
    """A worker is stopped for a while."""
    worker = field.random.choice(field.engine.workers())
    seconds = field.random.uniform(0.2, 3.0)
    field.said(f"stop worker {worker.pid} for {seconds:.1f} s")
    worker.suspend()
    sleep(seconds)
    worker.resume()


def fill_descriptors(field: Field) -> None:
    """The engine or a worker gets no more descriptors."""
    target = field.random.choice([psutil.Process(field.engine.process.pid), *field.engine.workers()])
    field.said(f"no descriptors for {target.pid}")
    limit = target.rlimit(resource.RLIMIT_NOFILE)
    target.rlimit(resource.RLIMIT_NOFILE, (target.num_fds(), limit[1]))
    try:
        sleep(field.random.uniform(0.2, 1.5))
    finally:
        with suppress(psutil.NoSuchProcess):
            target.rlimit(resource.RLIMIT_NOFILE, limit)


def reload_good(field: Field) -> None:
    """The settings are read again, with other limits and another deny list."""
    limit, denies = field.random.randint(10, 40), field.random.random() < 0.5
    access = f'[access]\ndeny_cidrs = ["{DENIED_SOURCE}/32"]\n' if denies else ""
    limits = f"[limits]\nmax_active_inbound = {limit}\nmax_pending_inbound = 30\nmax_active_outbound = 10\n"
    field.conf.write_text(f"{SETTINGS}{access}{limits}")
    before = field.engine.stderr.count("read again")
    field.said(f"SIGHUP: max_active_inbound = {limit}{', deny' if denies else ''}")
    field.engine.process.send_signal(signal.SIGHUP)
    eventually(lambda: field.engine.stderr.count("read again") > before, "the settings are read again")


def reload_bad(field: Field) -> None:
    """The settings file is made invalid; the settings in force stay."""
    spoiled = field.random.choice(("max_active_inbound = \n", "[limits]\nmax_active_inbound = -1\n", "\x00", "[nothing]\n"))
    field.conf.write_text(spoiled)
    before = field.engine.stderr.count("not read again")
    field.said(f"SIGHUP: {spoiled!r}")
    field.engine.process.send_signal(signal.SIGHUP)
    eventually(lambda: field.engine.stderr.count("not read again") > before, "the complaint")


def change_limits(field: Field) -> None:
    """A user changes a limit."""
    limit = field.random.randint(5, 40)
    field.said(f"set-limits max_active_inbound {limit}")
    with field.client() as client:
        client.call("set-limits", max_active_inbound=limit)


def disconnect_all(field: Field) -> None:
    """A user ends all sessions."""
    field.said("disconnect-all")
    with field.client() as client:
        client.call("disconnect-all")


def calm(_field: Field) -> None:
    """Nothing happens."""


FAULTS: Final[dict[str, Callable[[Field], None]]] = {
    fault.__name__: fault
    for fault in (
        kill_worker,
        pause_worker,
        fill_descriptors,
        reload_good,
        reload_bad,
        change_limits,
        disconnect_all,
        calm,
    )
}


def _is_replaced(engine: RunningEngine, pid: int) -> bool:
    workers = engine.call("status")["workers"]
    return all(worker["ready"] and worker["pid"] != pid for worker in workers)
