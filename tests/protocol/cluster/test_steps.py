from __future__ import annotations

from rlpx.protocol.cluster.steps import Answer, Call, Erase, Outcome, Put, Read


def test_what_is_asked_of_the_store_is_a_call() -> None:
    assert isinstance(Put(1, "k", b"", 0), Call)
    assert isinstance(Erase(1, "k", 1), Call)
    assert isinstance(Read(1, "k"), Call)
    assert not isinstance(Answer(1, Outcome.LOST), Call)
