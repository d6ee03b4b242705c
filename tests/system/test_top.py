"""`rlpx-ctl top` over a real engine: at a terminal, over a restart, and with a session's messages."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from textual.pilot import Pilot

from rlpx.engine.cli.top import TopApp
from rlpx.engine.cli.top_views import SessionList
from rlpx.engine.overview.follower import Place
from tests.engine.cli.test_top import text_of
from tests.pair import DEV
from tests.system.harness import IMPORT_PATH, PATIENCE_SECONDS, RunningEngine, eventually
from tests.system.peers import Peer
from tests.system.test_users import free_port, keys

GET_HEADERS: Final = bytes.fromhex("c707c50181c08080")


class HostilePeer(Peer):
    client = "[bold red]evil[/]\x1b]0;owned\x07\x1b[2J"


async def until(pilot: Pilot[None], condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await pilot.pause(0.1)
    assert condition(), what


@pytest.mark.loop("asyncio")
async def test_it_follows_a_real_engine_over_its_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    run_dir.chmod(0o700)
    app = TopApp(Place.of(str(run_dir)))
    async with app.run_test(size=(140, 40), notifications=True) as pilot:
        table = app.query_one(SessionList)
        with RunningEngine(run_dir=run_dir, is_read=False) as engine:
            with await asyncio.to_thread(Peer(engine.address, engine.node_id, DEV).establish) as peer:
                await until(pilot, lambda: "test-peer" in text_of(app), "the session is shown")
                await pilot.press("enter")
                await until(pilot, lambda: peer.node_id.hex()[:40] in text_of(app), "its page is shown")
                await until(pilot, lambda: _feeds(engine) == 1, "its messages are read")
                peer.send(3, GET_HEADERS)
                await until(pilot, lambda: "query start=1 limit=192" in text_of(app), "its message is shown")
                await pilot.press("escape")
                await until(pilot, lambda: _feeds(engine) == 0, "nobody reads its messages any more")
                await pilot.press("d", "y")
                await until(pilot, lambda: engine.counts()[2] == 0, "the session is disconnected")
                await until(pilot, lambda: "disconnect requested" in text_of(app), "its end is shown")
            await asyncio.to_thread(engine.stop, signal.SIGKILL)
            await until(pilot, lambda: "NO ANSWER" in text_of(app), "the loss is shown")
        with RunningEngine(run_dir=run_dir, is_read=False) as engine:
            await until(pilot, lambda: "live" in text_of(app), "the engine is found again")
            with await asyncio.to_thread(Peer(engine.address, engine.node_id, DEV).establish):
                await until(pilot, lambda: len(table.rows) == 1, "its session is shown")


@pytest.mark.loop("asyncio")
async def test_over_tcp_a_key_shows_sessions_and_messages_and_without_one_the_reason_stands(tmp_path: Path) -> None:
    control, events, data = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
    keys(tmp_path, "new", "alice", "--rights", "events,control", "--out", str(tmp_path / "alice"))
    flags = ["--control.endpoint", control, "--events.endpoint", events, "--data.endpoint", data]
    flags += ["--curve.keys-dir", str(tmp_path / "keys")]
    with RunningEngine(*flags, workers=1, is_read=False) as engine:
        stranger = TopApp(Place.of(None, control, events))
        async with stranger.run_test(size=(140, 40)) as pilot:
            await until(pilot, lambda: "takes only users with a key" in text_of(stranger), "the refusal is shown")
        app = TopApp(Place.of(None, control, events, str(tmp_path / "alice")))
        with await asyncio.to_thread(Peer(engine.address, engine.node_id, DEV).establish) as peer:
            async with app.run_test(size=(140, 40)) as pilot:
                await until(pilot, lambda: "test-peer" in text_of(app), "the session is shown")
                await pilot.press("enter")
                await until(pilot, lambda: _feeds(engine) == 1, "its messages are read over TCP")
                peer.send(3, GET_HEADERS)
                await until(pilot, lambda: "query start=1 limit=192" in text_of(app), "its message is shown")


def _feeds(engine: RunningEngine) -> int:
    return sum(worker["feeds"]["open"] for worker in engine.call("status")["workers"] if worker["feeds"])


def test_at_a_terminal_it_shows_a_hostile_name_as_text_and_q_ends_it(tmp_path: Path) -> None:
    with RunningEngine() as engine, HostilePeer(engine.address, engine.node_id, DEV).establish():
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        program = subprocess.Popen(
            [sys.executable, "-P", "-m", "rlpx.engine.cli.ctl", "top", "--run-dir", str(engine.run_dir)],
            env={**os.environ, "PYTHONPATH": IMPORT_PATH, "TERM": "xterm-256color"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=tmp_path,
        )
        os.close(slave)
        os.set_blocking(master, False)
        written = bytearray()

        def has(text: bytes) -> bool:
            # Nothing to read yet, or nobody who writes any more.
            with suppress(OSError):
                written.extend(os.read(master, 1 << 16))
            return text in written

        eventually(lambda: has(rb"evil[/]\x1b]0;ow"), "the name is shown, escaped")
        assert b"\x1b]0;ow" not in written
        os.write(master, b"q")
        eventually(lambda: has(b"never") or program.poll() is not None, "it ends")
        assert program.returncode == 0
        os.close(master)
        assert b"Traceback" not in written
