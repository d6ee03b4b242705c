"""Issues calls to the key-value store, and hands each answer to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from rlpx.protocol.cluster.records import encode
from rlpx.protocol.cluster.steps import Answer, Erase, Put, Read, Scan, Step

# Called with the answer and the time.
Then = Callable[[Answer, float], None]


class Store:
    """See the module. Calls are appended to `steps`."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._last_call = 0
        self._waiting: dict[int, Then] = {}

    def put(self, key: str, record: msgspec.Struct, expected: int, then: Then, *, ttl_s: float | None = None) -> None:
        """Write a record over the revision `expected`, 0 if the key is to be missing."""
        self._steps.append(Put(self._wait(then), key, encode(record), expected, ttl_s))

    def erase(self, key: str, expected: int, then: Then) -> None:
        """Erase a key of this revision."""
        self._steps.append(Erase(self._wait(then), key, expected))

    def read(self, key: str, then: Then) -> None:
        """Read a key."""
        self._steps.append(Read(self._wait(then), key))

    def scan(self, prefix: str, first_revision: int, limit: int, then: Then) -> None:
        """Read a page of the keys that begin with a prefix."""
        self._steps.append(Scan(self._wait(then), prefix, first_revision, limit))

    def on_answers(self, answers: Iterable[Answer], now: float) -> None:
        """Calls are answered, in this order. Answers to no call are ignored."""
        for answer in answers:
            then = self._waiting.pop(answer.call, None)
            if then is not None:
                then(answer, now)

    def _wait(self, then: Then) -> int:
        self._last_call += 1
        self._waiting[self._last_call] = then
        return self._last_call
