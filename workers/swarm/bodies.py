"""The payloads that simulated peers send: different enough for a mempool, and deflated once."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from rlpx.protocol import rlp
from rlpx.protocol.bus.swarm import Scenario
from rlpx.protocol.eth import eth
from rlpx.protocol.rlpx.p2p import deflate

# The number of different messages of each kind: peers repeat one another's messages, as in gossip.
DIFFERENT_BODIES: Final = 64


class Bodies:
    """Announcements and transactions, by version and number. All processes of a swarm make the same ones from its seed."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._messages = scenario.messages
        self._seed = seed
        self._kept: dict[tuple[str, int, int], bytes] = {}

    def announcement(self, version: int, number: int) -> bytes:
        """A deflated NewPooledTransactionHashes in the form of a version of eth."""
        # Three forms: hashes alone, with types and sizes, with the mask of cells.
        form = min(max(version, eth.TYPED_ANNOUNCEMENT_VERSION - 1), eth.CELLS_VERSION)
        return self._body("announcement", form, number % DIFFERENT_BODIES, self._announcement)

    def transactions(self, number: int) -> bytes:
        """A deflated Transactions with one transaction."""
        return self._body("transactions", 0, number % DIFFERENT_BODIES, self._transactions)

    def _body(self, kind: str, form: int, number: int, make: Callable[[int, Random], bytes]) -> bytes:
        body = self._kept.get((kind, form, number))
        if body is None:
            random = Random(f"{self._seed}/{kind}/{number}")  # noqa: S311 - it must be the same every time
            body = self._kept[kind, form, number] = deflate(make(form, random))
        return body

    def _announcement(self, version: int, random: Random) -> bytes:
        count = self._messages.hashes
        hashes = [random.randbytes(32) for _ in range(count)]
        if version < eth.TYPED_ANNOUNCEMENT_VERSION:
            return rlp.encode(hashes)
        fields: list[rlp.Encodable] = [b"\x02" * count, [self._messages.transaction_bytes] * count, hashes]
        return rlp.encode([*fields, bytes(eth.CELL_MASK_BYTES)] if version >= eth.CELLS_VERSION else fields)

    def _transactions(self, _form: int, random: Random) -> bytes:
        # A typed transaction as its envelope: type 2, a list, and data that Snappy cannot compress.
        data = random.randbytes(self._messages.transaction_bytes)
        return rlp.encode([b"\x02" + rlp.encode([1, 0, 1, 1, 21000, bytes(20), 0, data, [], 0, bytes(32), bytes(32)])])
