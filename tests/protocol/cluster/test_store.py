from __future__ import annotations

from rlpx.protocol.cluster.records import Note
from rlpx.protocol.cluster.steps import Answer, Erase, Outcome, Put, Read, Scan, Step
from rlpx.protocol.cluster.store import Store


def test_each_answer_goes_to_its_own_call_and_once() -> None:
    steps: list[Step] = []
    heard: list[tuple[str, int, float]] = []
    store = Store(steps)
    store.put("a", Note("x"), 0, lambda answer, now: heard.append(("put", answer.call, now)), ttl_s=5.0)
    store.erase("b", 7, lambda answer, now: heard.append(("erase", answer.call, now)))
    store.read("c", lambda answer, now: heard.append(("read", answer.call, now)))
    store.scan("d.", 9, 10, lambda answer, now: heard.append(("scan", answer.call, now)))
    assert steps == [Put(1, "a", b'{"sender":"x"}', 0, 5.0), Erase(2, "b", 7), Read(3, "c"), Scan(4, "d.", 9, 10)]
    for call in (3, 1, 3, 99):
        store.on_answers([Answer(call, Outcome.DONE)], 1.5)
    assert heard == [("read", 3, 1.5), ("put", 1, 1.5)]
