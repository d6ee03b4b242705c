"""The worker's process: what it sets up before there is a session."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from rlpx.protocol.bus.agreement import DISAGREES_EXIT, fingerprint
from tests.system.harness import IMPORT_PATH

# Prints its signal state after it has left the signals to its engine.
SIGNALS = """
import signal
from rlpx.workers.__main__ import LEFT_TO_THE_ENGINE, leave_signals_to_the_engine
signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_ENGINE)
signal.raise_signal(signal.SIGTERM)
leave_signals_to_the_engine()
for number in LEFT_TO_THE_ENGINE:
    signal.raise_signal(number)
assert not signal.pthread_sigmask(signal.SIG_BLOCK, set()) & LEFT_TO_THE_ENGINE
print("here")
"""


def started(inherited: socket.socket, expected: str) -> subprocess.Popen[bytes]:
    """A worker whose engine has this fingerprint."""
    command = [sys.executable, "-P", "-m", "rlpx.workers", str(inherited.fileno()), expected]
    return subprocess.Popen(command, pass_fds=[inherited.fileno()], env={**os.environ, "PYTHONPATH": IMPORT_PATH})


def test_what_ends_the_engine_ends_no_worker_also_where_it_came_before_the_worker_listened() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, check=True)
    assert done.stdout == "here\n"


def test_a_worker_whose_engine_is_gone_ends_without_a_signal() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = started(theirs, fingerprint())
        theirs.close()
        ours.close()
        assert process.wait(30) == 0


def test_a_worker_whose_code_has_other_messages_than_the_engines_reads_none() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(b"nothing that this worker knows")
        assert started(theirs, "another").wait(30) == DISAGREES_EXIT
        assert theirs.recv(100) == b"nothing that this worker knows"
