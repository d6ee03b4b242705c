from __future__ import annotations

from rlpx.engine.overview.clients import NO_CLIENT, client_name
from rlpx.engine.overview.ends import ENDS_KEPT, MAX_REASONS, Ends
from tests.engine.overview.objects import closed, ended


def test_the_last_end_is_the_first_of_the_list() -> None:
    ends = Ends()
    ends.add(closed(1).fields, client_name("Geth/v1.0"), now=1.0)
    ends.add(closed(2, ended_by="us", reason=None, cause="no answer").fields, NO_CLIENT, now=2.0)
    assert [end.session for end in ends.recent] == [2, 1]
    assert ends.reasons(now=3.0) == {("peer", "too_many_peers"): 1, ("us", "-"): 1}
    found = ends.find(1)
    assert found is not None
    assert found.client.family == "Geth"
    assert ends.find(3) is None


def test_the_history_from_before_is_shown_and_not_counted() -> None:
    ends = Ends()
    ends.add(closed(2, time_us=5).fields, NO_CLIENT, now=1.0)
    ends.fill([ended(2, time_us=5), ended(1, time_us=4)])
    assert [(end.session, end.time_us) for end in ends.recent] == [(2, 5), (1, 4)]
    assert ends.total == 1


def test_peers_cannot_make_it_grow() -> None:
    ends = Ends()
    for number in range(5000):
        hostile = closed(number, reason=f"unknown_0x{number:x}", cause="<img onerror=x>" * 500)
        ends.add(hostile.fields, NO_CLIENT, now=number / 1000)
    assert len(list(ends.recent)) == ENDS_KEPT
    assert all(len(end.cause) <= 200 for end in ends.recent)
    reasons = ends.reasons(now=5.0)
    assert len(reasons) <= MAX_REASONS + 1
    assert reasons.total() == 5000


def test_a_new_run_forgets_the_list() -> None:
    ends = Ends()
    ends.add(closed(1).fields, NO_CLIENT, now=1.0)
    ends.forget_recent()
    assert list(ends.recent) == []
    assert ends.total == 1
