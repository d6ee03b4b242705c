"""The load of the bench, in a process of its own: `python -m tests.bench.load ENODE CHAIN`, orders on stdin.

`done` is printed after each.
sessions N        open N more sessions, one after the other
messages N SIZE   send N Transactions of SIZE random bytes on the first session
leave             say goodbye on all of them
"""

from __future__ import annotations

import os
import sys

from engine.config import load_chain
from protocol import rlp
from tests.system.peers import Peer

# What is written at once: a real peer's socket carries many frames in one segment.
WRITE_BYTES = 64 * 1024
TRANSACTIONS = 2


def main() -> None:
    """Carry out orders until stdin ends."""
    node, _, address = sys.argv[1].removeprefix("enode://").partition("@")
    host, _, port = address.rpartition(":")
    chain = load_chain(sys.argv[2])
    peers: list[Peer] = []
    for line in sys.stdin:
        order, *numbers = line.split()
        values = [int(number) for number in numbers]
        if order == "sessions":
            peers += [Peer((host, int(port)), bytes.fromhex(node), chain).establish() for _ in range(values[0])]
        elif order == "messages":
            send(peers[0], *values)
        elif order == "leave":
            for peer in peers:
                peer.leave()
            peers.clear()
        sys.stdout.write("done\n")
        sys.stdout.flush()


def send(peer: Peer, count: int, size: int) -> None:
    """Random bytes, so that Snappy has nothing to gain, as with real transactions."""
    payload = rlp.encode([os.urandom(size - 4)])
    waiting = 0
    for _ in range(count):
        peer.session.send("eth", TRANSACTIONS, payload)
        waiting += size
        if waiting >= WRITE_BYTES:
            peer.flush()
            waiting = 0
    peer.flush()


if __name__ == "__main__":
    main()
