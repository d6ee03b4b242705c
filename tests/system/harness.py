"""Real processes for tests: an engine on loopback, its events, and the line-by-line JSON programs of other clients."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self

import psutil

from rlpx.engine.client import BlockingEngine, connect
from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.client import Client
from rlpx.engine.client.subscriber import Subscriber
from tests.declared import check_event, check_result
from tests.system.life_reader import LifeReader

ROOT: Final = Path(__file__).resolve().parent.parent.parent
# The import path for the packages, under their one name, and for the tests.
IMPORT_PATH: Final = os.pathsep.join((str(ROOT / ".venv" / "house"), str(ROOT)))
# Generous, because the machine may be so busy that an engine needs half a minute to start. A wait ends as soon as its
# condition holds.
PATIENCE_SECONDS: Final = 120.0


def eventually(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Poll until the condition returns something true, and return that."""
    ends_at = monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert monotonic() < ends_at, f"not within {seconds} s: {what}"
        sleep(0.02)


class EventLog:
    """All events of some topics since it was made."""

    def __init__(self, run_dir: Path, topics: list[str]) -> None:
        self._subscriber = Subscriber.of(run_dir, topics)
        self.events: list[Event] = []
        self.gaps: list[Gap] = []
        # Earlier events belong to another test.
        self._subscriber.confirm(PATIENCE_SECONDS)

    def read(self, seconds: float = 0.0) -> list[Event]:
        """Read the events that have come, waiting up to this long for the first."""
        while batch := self._subscriber.poll(seconds):
            seconds = 0.0
            for item in batch:
                assert not isinstance(item, Malformed), item
                if isinstance(item, Event):
                    check_event(item)
                    self.events.append(item)
                else:
                    self.gaps.append(item)
        return self.events

    def of(self, topic: str, **fields: Any) -> list[Event]:
        """The events so far of a topic with these fields."""
        return [
            event
            for event in self.events
            if event.topic == topic and all(event.fields.get(name) == value for name, value in fields.items())
        ]

    def wait(self, topic: str, seconds: float = PATIENCE_SECONDS, count: int = 1, **fields: Any) -> Event:
        """The `count`-th event of a topic with these fields, when it comes."""
        ends_at = monotonic() + seconds
        while len(found := self.of(topic, **fields)) < count:
            assert monotonic() < ends_at, (
                f"no {topic} {fields}; there were {[(e.topic, e.fields) for e in self.events[-20:]]}"
            )
            self.read(0.1)
        return found[count - 1]

    def close(self) -> None:
        self._subscriber.close()


class RunningEngine:
    """An engine with a fresh run directory and key, its ready line read. `program` names another installation than ours.

    A reader of its own checks the lives of all sessions, unless `is_read` is false: it would disturb measured times.
    """

    def __init__(
        self,
        *flags: str,
        chain: str = "dev",
        workers: int = 2,
        run_dir: Path | None = None,
        program: Sequence[str] = (sys.executable, "-P", "-m", "rlpx.engine"),
        is_read: bool = True,
    ) -> None:
        self._made = run_dir is None
        # Short, for the 107 bytes of a Unix socket's path.
        self.run_dir = run_dir or Path(tempfile.mkdtemp(prefix="rlpx-"))
        self.stderr_path = self.run_dir / "stderr"
        command = [*program, "--chain", chain, "--workers", str(workers)]
        command += ["--run-dir", str(self.run_dir), "--node-key", str(self.run_dir / "node.key")]
        command += ["--conf", str(ROOT / "conf" / "engine.toml")]
        if not any(flag.startswith("--listen") for flag in flags):
            command += ["--listen", "127.0.0.1:0"]
        self._stderr = self.stderr_path.open("ab")
        self.process = subprocess.Popen(
            [*command, *flags],
            env={**os.environ, "PYTHONPATH": IMPORT_PATH},
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().strip()
        ready = re.fullmatch(r"ready (enode://\S+) workers=(\d+) run-dir=(\S+)", self.ready_line)
        if ready is None:
            self.process.kill()
            self.process.communicate()
            self._stderr.close()
            raise AssertionError(f"no ready line but {self.ready_line!r}; {self.stderr}")
        self.enode = ready[1]
        self.address = ("127.0.0.1", int(self.enode.rpartition(":")[2]))
        self.client = Client.of(self.run_dir)
        self._programs = ExitStack()
        self._logs: list[EventLog] = []
        # A static peer may be dialled before anybody can read its events.
        is_watched_from_birth = run_dir is None and not any("static" in flag or flag == "--conf" for flag in flags)
        self._reader = LifeReader(self.run_dir, is_complete=is_watched_from_birth) if is_read else None

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text()

    def says(self, text: str) -> None:
        """Wait for a text in the log, whose lines follow what they tell."""
        eventually(lambda: text in self.stderr, f"the engine says {text!r}")

    @property
    def node_id(self) -> bytes:
        return bytes.fromhex(self.enode.removeprefix("enode://").partition("@")[0])

    def call(self, method: str, **parameters: Any) -> Any:
        """Carry out a command, and check that its answer has the declared form."""
        result = self.client.call(method, **parameters)
        check_result(method, result)
        return result

    @cached_property
    def connected(self) -> BlockingEngine:
        """The typed commands, feeds, peers and responders of a program."""
        return self._programs.enter_context(connect(self.run_dir))

    def log(self, *topics: str) -> EventLog:
        """Begin to read some topics; without any, all."""
        log = EventLog(self.run_dir, list(topics) or [""])
        self._logs.append(log)
        return log

    def workers(self) -> list[psutil.Process]:
        """The worker processes, by index."""
        return [psutil.Process(worker["pid"]) for worker in self.call("status")["workers"]]

    def counts(self) -> tuple[int, int, int, int]:
        """Pending inbound and outbound, active inbound and outbound."""
        counts = self.call("counts")
        pending, active = counts["pending"], counts["active"]
        return pending["inbound"], pending["outbound"], active["inbound"], active["outbound"]

    def comes_to(self, *expected: int) -> None:
        """Wait until these are the counts. A peer knows that its session is active before the engine does."""
        counts: tuple[int, ...] = ()

        def has_come() -> bool:
            nonlocal counts
            counts = self.counts()
            return counts == expected

        try:
            eventually(has_come, f"counts of {expected}")
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {counts}") from None

    def unauthenticated(self) -> int:
        """The number of accepted connections whose auth has not come."""
        return int(self.call("counts")["unauthenticated"]["inbound"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the engine and wait for its end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for log in self._logs:
            log.close()
        self.client.close()
        self._programs.close()
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self._stderr.close()
            text = self.stderr
            if self._reader is not None:
                self._reader.close(is_clean=error is None)
            if self._made:
                shutil.rmtree(self.run_dir)
        if error is not None:
            sys.stderr.write(text)
        assert "Traceback" not in text, text


class JsonProgram:
    """A program that prints one JSON object a line and takes commands the same way."""

    def __init__(self, command: list[str], folder: Path | None = None) -> None:
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.events: list[dict[str, Any]] = []
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))

    def do(self, what: str, **arguments: Any) -> None:
        """Give it a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()

    def take(self) -> list[dict[str, Any]]:
        """All events so far."""
        while True:
            try:
                self.events.append(self._queue.get_nowait())
            except queue.Empty:
                return self.events

    def of(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The events so far with this name and these fields."""
        return [
            item
            for item in self.take()
            if item["event"] == event and all(item.get(name) == value for name, value in fields.items())
        ]

    def wait(self, event: str, seconds: float = PATIENCE_SECONDS, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The `count`-th event with this name and these fields, when it comes."""
        ends_at = monotonic() + seconds
        while len(found := self.of(event, **fields)) < count:
            assert monotonic() < ends_at, f"no {event} {fields}; there were {self.events[-20:]}"
            sleep(0.02)
        return found[count - 1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        if error is not None:
            sys.stderr.write("\n".join(map(str, self.take()[-50:])) + "\n")


@contextmanager
def working_folder() -> Iterator[Path]:
    """A short-named temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="rlpx-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
