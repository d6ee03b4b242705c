"""The Python that README.md shows, and how users run it: as a file in a folder whose modules may have any names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import rlp as oracle

from rlpx.engine.client.forms import Announcement
from rlpx.protocol.eth import messages as eth_messages
from rlpx.protocol.eth.chain import Header
from rlpx.protocol.eth.dialects import DIALECTS
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, GetReceipts70, Receipts70
from rlpx.protocol.session.events import MessageReceived
from tests.system.harness import IMPORT_PATH, ROOT, eventually
from tests.system.peers import Peer

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON: Final = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# A text by which each piece of Python in README.md is found.
READER_OF_EVENTS: Final = 'feed("eth.Transactions")'
TABLE_OF_SESSIONS: Final = "case Snapshot"
ASKER: Final = "peer.request"
RESPONDER: Final = "engine.respond"
LIVES_OF_A_FLEET: Final = 'fleet.feed("session.")'
FILTER_OF_A_FLEET: Final = "types=[3]"
ASKER_OF_A_FLEET: Final = "fleet.peer(host"
# The fleet that the programs name.
FLEET: Final = '"nats://10.0.0.1,10.0.0.2", cluster="monitors"'
TRANSACTIONS, GET_HEADERS = 2, 3
# Modules that a user may well have beside a program. Python looks there first, and importing one of these fails.
USERS_MODULES: Final = ("engine.py", "workers.py", "protocol/__init__.py", "rlp.py", "client.py")
USERS_MODULE: Final = "raise ImportError(f'{__name__} is the user\\'s own')\n"
# A request that comes before the responder has registered gets the empty answer, so ask again.
ASK_AGAIN_SECONDS: Final = 0.5

Line = Callable[[str], str]


def snippet(mark: str) -> str:
    """The piece of Python that contains this text."""
    [code] = [code for code in PYTHON if mark in code]
    return str(code)


def make_users_folder(folder: Path) -> Path:
    """A folder with modules of the names that our packages have."""
    for name in USERS_MODULES:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(USERS_MODULE)
    return folder


@dataclass(frozen=True)
class Installation:
    """The place where a user's program finds the packages: the Python that runs it, and its import path."""

    users_folder: Path
    runtime: Path
    python: str | Path = sys.executable
    import_path: str = field(default_factory=lambda: IMPORT_PATH.partition(os.pathsep)[0])

    @property
    def environment(self) -> dict[str, str]:
        """The usual run directory is one in `runtime`."""
        more = {"PYTHONPATH": self.import_path, "PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": str(self.runtime)}
        return {**os.environ, **more}

    @contextmanager
    def program(self, mark: str, fleet: str = FLEET) -> Iterator[Line]:
        """Run this piece of README.md, with another fleet; yields a function that awaits a line of its output."""
        file = self.users_folder / f"program_{PYTHON.index(snippet(mark))}.py"
        file.write_text(snippet(mark).replace(FLEET, fleet))
        started = subprocess.Popen(
            [self.python, "-W", "error", file.name],
            cwd=self.users_folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        printed: list[str] = []
        assert started.stdout is not None
        reader = threading.Thread(target=lambda out=started.stdout: printed.extend(line for line in out))
        reader.start()

        def line(pattern: str) -> str:
            def found() -> str | None:
                match = re.search(pattern, "".join(printed))
                return match[0] if match else None

            text = eventually(found, f"{pattern} in {printed}")
            assert isinstance(text, str)
            return text

        try:
            yield line
        finally:
            started.kill()
            started.wait()
            reader.join()
            started.stdout.close()


def send_transactions(peer: Peer, line: Line) -> None:
    """Send transactions, and check that the reader of events prints their sender and size."""
    payload = oracle.encode([[b""] * 9])
    peer.send(TRANSACTIONS, payload)
    assert line(rf"{peer.node_id.hex()[:16]} {len(payload)}")


def announce_a_blob(peer: Peer) -> None:
    """Announce a transaction without blobs, and one with some."""
    version = max(DIALECTS["eth"].messages)
    for kind in (2, 3):
        announcement = Announcement((bytes(31) + bytes([kind]),), bytes([kind]), (200_000,), (200,)).in_version(version)
        peer.send(eth_messages.id_of(version, announcement), eth_messages.encode(version, announcement))


@contextmanager
def visiting(visit: Callable[[], None]) -> Iterator[None]:
    """Do this again and again, as nobody knows when a program begins to read."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(ASK_AGAIN_SECONDS):
            visit()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def ask_the_responder(peer: Peer, line: Line) -> None:
    """Ask until the responder prints the request."""
    with visiting(lambda: peer.send(GET_HEADERS, oracle.encode([7, [5, 1, 0, 0]]))):
        assert line(r"asked for HeadersQuery\(start=5, limit=1")


@contextmanager
def answering(peer: Peer) -> Iterator[None]:
    """Let the peer answer the asker until its session ends; the caller must end it."""
    thread = threading.Thread(target=_answer_for_ever, args=(peer,))
    thread.start()
    yield
    thread.join()


def _answer_for_ever(peer: Peer) -> None:
    seen = 0
    with suppress(OSError):
        while not peer.session.is_closed:
            peer.step()
            for event in peer.events[seen:]:
                if isinstance(event, MessageReceived):
                    _answer(peer, event)
            seen = len(peer.events)


def _answer(peer: Peer, event: MessageReceived) -> None:
    """Send one header for each request of headers, and the receipts of one block without any."""
    version = event.kind.capability.version
    asked = eth_messages.decode(version, event.kind.id, event.payload)
    reply: eth_messages.EthMessage
    if isinstance(asked, GetBlockHeaders):
        reply = BlockHeaders(asked.request_id, (_header(),))
    elif isinstance(asked, GetReceipts70):
        reply = Receipts70(asked.request_id, blocks=((),))
    else:
        return
    peer.send(eth_messages.id_of(version, reply), eth_messages.encode(version, reply))


def _header() -> Header:
    """Some header."""
    word = bytes(32)
    return Header(word, word, bytes(20), word, word, word, bytes(256), 0, 1, 0, 0, 0, b"", word, bytes(8))
