from __future__ import annotations

from collections.abc import Callable

import msgspec

from rlpx.protocol.cluster.hosts import Hosts, Me, Timing
from rlpx.protocol.cluster.records import Heartbeat, encode
from rlpx.protocol.cluster.steps import Answer, Joined, NameTaken, Outcome, Put, Read, Returned, Step, StoreLost
from rlpx.protocol.cluster.store import Store


class Watch:
    """The hosts as one of them, `a`, sees them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.store = Store(self.steps)
        self.hosts = Hosts(Me("a", "a1"), Timing(), self.store, self.steps)
        self.returns: list[float] = []
        self.hosts.on_return = self.returns.append

    def take(self) -> list[Step]:
        steps = list(self.steps)
        self.steps.clear()
        return steps

    def put(self) -> Put:
        (step,) = [step for step in self.take() if not isinstance(step, Returned)]
        assert isinstance(step, Put)
        return step

    def answer(self, call: int, now: float, outcome: Outcome = Outcome.DONE, found: tuple[int, object] = (1, None)) -> None:
        revision, record = found
        value = encode(record) if isinstance(record, msgspec.Struct) else record
        assert value is None or isinstance(value, bytes)
        self.store.on_answers([Answer(call, outcome, revision, value)], now)

    def joined(self) -> Watch:
        self.hosts.on_connected(0.0)
        self.answer(self.put().call, 0.1)
        assert self.take() == [Joined()]
        assert self.returns == [0.1]
        self.returns.clear()
        return self

    def beat(self, at: float, revision: int = 1) -> None:
        """Our heartbeat is sent and confirmed at once."""
        self.hosts.tick(at)
        self.answer(self.put().call, at, found=(revision, None))

    def sees(self, host: str, revision: int, at: float, epoch: str = "b1", *, has_left: bool = False) -> None:
        self.hosts.on_seen(host, revision, encode(Heartbeat(epoch, has_left=has_left)), at)

    def confirmed(self, found: tuple[int, object], at: float, outcome: Outcome = Outcome.DONE, epoch: str = "b1") -> bool:
        """Whether `b` is confirmed to be dead, if the store has this of it."""
        heard: list[bool] = []
        note: Callable[[bool, float], None] = lambda is_dead, _now: heard.append(is_dead)  # noqa: E731 - a callback
        self.hosts.confirm_dead("b", epoch, note)
        (step,) = self.take()
        assert isinstance(step, Read)
        self.answer(step.call, at, outcome, found)
        return heard[0]


def test_a_host_joins_with_its_first_heartbeat_and_sends_one_every_five_seconds() -> None:
    watch = Watch()
    watch.hosts.on_connected(0.0)
    first = watch.put()
    assert (first.key, first.expected, first.ttl_s) == ("host.a", 0, 15.0)
    assert msgspec.json.decode(first.value, type=Heartbeat) == Heartbeat("a1")
    watch.answer(first.call, 0.1, found=(3, None))
    assert watch.take() == [Joined()]
    watch.hosts.tick(4.9)
    assert watch.take() == []
    watch.hosts.tick(5.1)
    assert watch.put().expected == 3
    watch.hosts.tick(6.0)
    assert watch.take() == []


def test_a_host_doubts_itself_before_others_give_it_up() -> None:
    watch = Watch().joined()
    watch.sees("b", 1, 0.1)
    assert watch.hosts.is_firm(13.9)
    assert not watch.hosts.is_firm(14.0)
    for at in range(1, 15):
        watch.hosts.tick(float(at))
    assert not watch.hosts.is_dead("b", "b1", 15.0)
    assert watch.hosts.is_dead("b", "b1", 15.2)


def is_away(watch: Watch) -> bool:
    return watch.hosts.is_away


def test_a_silent_store_is_away_until_a_heartbeat_is_confirmed() -> None:
    watch = Watch().joined()
    assert not is_away(watch)
    watch.hosts.tick(5.2)
    watch.answer(watch.put().call, 7.0, Outcome.LOST)
    assert is_away(watch)
    watch.hosts.tick(8.0)
    watch.answer(watch.put().call, 8.1)
    assert not is_away(watch)
    assert watch.returns == [8.1]
    watch.hosts.on_disconnected()
    assert is_away(watch)


def test_a_host_that_was_stopped_does_not_take_its_own_silence_for_that_of_the_store() -> None:
    watch = Watch().joined()
    watch.hosts.tick(5.2)
    watch.answer(watch.put().call, 35.0, Outcome.LOST)
    assert not watch.hosts.is_away
    assert not watch.hosts.is_firm(35.0)
    watch.beat(35.1)
    assert watch.hosts.is_firm(35.2)
    assert watch.returns == [35.1]


def test_a_host_that_was_stopped_gives_the_others_their_time_anew() -> None:
    watch = Watch().joined()
    watch.sees("b", 1, 1.0)
    watch.hosts.tick(31.0)
    assert not watch.hosts.is_dead("b", "b1", 31.0)
    assert not watch.hosts.is_dead("c", "c1", 31.0)
    assert watch.hosts.is_dead("b", "b1", 46.0)


def test_our_key_has_expired() -> None:
    watch = Watch().joined()
    watch.hosts.tick(15.2)
    watch.answer(watch.put().call, 15.3, Outcome.CONFLICT, (0, None))
    again = watch.put()
    assert again.expected == 0


def test_a_store_that_has_forgotten_our_key_before_its_time_has_lost_what_it_had() -> None:
    watch = Watch().joined()
    losses: list[float] = []
    watch.hosts.on_loss = losses.append
    watch.hosts.tick(5.2)
    watch.answer(watch.put().call, 5.3, Outcome.CONFLICT, (0, None))
    again, lost = watch.take()
    assert isinstance(again, Put)
    assert (again.expected, lost, losses) == (0, StoreLost(), [5.3])


def test_a_lost_heartbeat_was_written_after_all() -> None:
    watch = Watch().joined()
    watch.hosts.tick(5.2)
    watch.answer(watch.put().call, 5.3, Outcome.CONFLICT, (9, Heartbeat("a1")))
    assert watch.put().expected == 9


def test_a_name_is_free_at_once_if_its_host_has_left() -> None:
    watch = Watch()
    watch.hosts.on_connected(0.0)
    watch.answer(watch.put().call, 0.1, Outcome.CONFLICT, (4, Heartbeat("a0", has_left=True)))
    assert watch.put().expected == 4


def test_a_name_is_free_if_its_host_is_silent_for_its_time_to_live() -> None:
    watch = Watch()
    watch.hosts.on_connected(0.0)
    for at in range(15):
        watch.hosts.tick(float(at))
        watch.answer(watch.put().call, float(at), Outcome.CONFLICT, (4, Heartbeat("a0")))
        assert watch.take() == []
    watch.hosts.tick(15.0)
    watch.answer(watch.put().call, 15.0, Outcome.CONFLICT, (4, Heartbeat("a0")))
    assert watch.put().expected == 4


def test_a_name_is_taken_if_its_host_goes_on_sending_heartbeats() -> None:
    watch = Watch()
    watch.hosts.on_connected(0.0)
    for at in range(3):
        watch.hosts.tick(float(at))
        watch.answer(watch.put().call, at + 0.1, Outcome.CONFLICT, (4 + at, Heartbeat("a0")))
    assert watch.take() == [NameTaken("a")]


def test_another_engine_has_taken_our_name_while_we_were_away() -> None:
    watch = Watch().joined()
    for at in (6, 8, 10):
        assert watch.take() == []
        watch.hosts.tick(float(at))
        watch.answer(watch.put().call, at + 0.1, Outcome.CONFLICT, (at, Heartbeat("a2")))
    assert watch.take() == [NameTaken("a")]


def test_what_is_urgent_is_said_soon_but_not_more_than_four_times_a_second() -> None:
    watch = Watch().joined()
    watch.hosts.hurry(0.1)
    watch.hosts.tick(0.2)
    assert watch.take() == []
    watch.beat(0.25, 2)
    watch.hosts.hurry(3.0)
    watch.beat(3.0, 3)
    other = Watch()
    other.hosts.hurry(0.0)
    other.hosts.tick(2.0)
    assert other.take() == []


def test_in_a_large_fleet_what_is_urgent_waits_longer_because_all_hosts_hear_it() -> None:
    watch = Watch().joined()
    for number in range(300):
        watch.sees(f"h{number}", number + 1, 0.5)
    watch.hosts.hurry(1.5)
    watch.hosts.tick(2.9)
    assert watch.take() == []
    watch.beat(3.0, 2)


def test_a_host_that_leaves_says_so_and_is_sure_of_nothing() -> None:
    watch = Watch().joined()
    watch.hosts.leave(2.0)
    assert watch.put().key == "host.a"
    assert not watch.hosts.is_firm(2.0)


def test_other_hosts_are_there_until_they_leave_or_fall_silent() -> None:
    watch = Watch().joined()
    watch.sees("a", 1, 0.1, "a1")
    watch.sees("b", 2, 0.1)
    watch.sees("c", 3, 0.1, "c1")
    assert set(watch.hosts.alive(1.0)) == {"b", "c"}
    watch.sees("b", 1, 5.0, "b0")
    watch.hosts.on_seen("c", 5, b"nonsense", 5.0)
    watch.sees("c", 4, 5.0, "c1", has_left=True)
    assert set(watch.hosts.alive(6.0)) == {"b"}
    assert watch.hosts.is_dead("c", "c1", 6.0)
    assert set(watch.hosts.alive(15.2)) == set()


def test_a_host_that_has_started_anew_holds_nothing_of_before() -> None:
    watch = Watch().joined()
    watch.sees("b", 2, 0.1, "b2")
    assert watch.hosts.is_dead("b", "b1", 0.2)
    assert not watch.hosts.is_dead("b", "b2", 0.2)
    assert watch.hosts.is_dead("a", "a0", 0.2)
    assert not watch.hosts.is_dead("a", "a1", 0.2)


def test_a_host_that_was_never_seen_is_dead_once_it_would_have_been_seen() -> None:
    watch = Watch().joined()
    assert not watch.hosts.is_dead("z", "z1", 14.9)
    assert watch.hosts.is_dead("z", "z1", 15.0)


def test_a_host_lives_on_in_a_store_that_counts_its_revisions_anew() -> None:
    watch = Watch().joined()
    watch.sees("b", 900, 0.1)
    watch.hosts.on_disconnected()
    watch.hosts.on_connected(10.0)
    watch.sees("b", 3, 12.0)
    watch.sees("b", 2, 13.0)
    assert not watch.hosts.is_dead("b", "b1", 26.9)
    assert watch.hosts.is_dead("b", "b1", 27.0)


def test_our_own_heartbeats_that_come_back_make_no_other_host() -> None:
    watch = Watch().joined()
    watch.sees(watch.hosts.me.host, 2, 0.1)
    watch.sees("b", 3, 0.1)
    assert set(watch.hosts.others) == {"b"}


def test_hosts_long_gone_are_forgotten() -> None:
    watch = Watch().joined()
    watch.sees("b", 2, 0.1)
    for at in range(1, 31):
        watch.hosts.tick(float(at))
    assert set(watch.hosts.others) == {"b"}
    watch.hosts.tick(31.0)
    assert set(watch.hosts.others) == set()
    assert watch.hosts.is_dead("b", "b1", 31.0)


def test_a_death_is_confirmed_by_the_store() -> None:
    watch = Watch().joined()
    watch.sees("b", 2, 0.1)
    for at in range(1, 17):
        watch.hosts.tick(float(at))
    watch.take()
    assert not watch.confirmed((2, Heartbeat("b1")), 16.0, Outcome.LOST)
    assert watch.confirmed((2, Heartbeat("b1")), 16.0)
    assert watch.confirmed((0, None), 16.0)
    assert not watch.confirmed((3, Heartbeat("b1")), 16.0)


def test_the_death_of_an_earlier_epoch_of_our_own_needs_only_a_store_that_answers() -> None:
    watch = Watch().joined()
    heard: list[bool] = []
    for outcome in (Outcome.DONE, Outcome.LOST):
        watch.hosts.confirm_dead("a", "a0", lambda is_dead, _now: heard.append(is_dead))
        (step,) = watch.take()
        assert isinstance(step, Read)
        watch.answer(step.call, 1.0, outcome, (1, Heartbeat("a1")))
    assert heard == [True, False]


def test_an_epoch_is_over_much_later_than_its_host_is_dead_unless_another_has_followed() -> None:
    watch = Watch().joined()
    watch.sees("b", 2, 10.0)
    for at in range(1, 620):
        watch.hosts.tick(float(at))
        assert watch.hosts.is_over("b", "b1", float(at)) == (at >= 610)
        assert watch.hosts.is_over("z", "z1", float(at)) == (at >= 600)
    assert watch.hosts.is_over("a", "a0", 1.0)
    assert not watch.hosts.is_over("a", "a1", 1000.0)
    watch.sees("b", 3, 620.0, "b2")
    assert watch.hosts.is_over("b", "b1", 620.0)
    assert not watch.hosts.is_over("b", "b2", 620.0)
    watch.sees("b", 4, 621.0, "b2", has_left=True)
    assert watch.hosts.is_over("b", "b2", 621.0)
    # Whoever was stopped itself has to wait anew.
    watch.hosts.tick(5000.0)
    assert not watch.hosts.is_over("z", "z1", 5000.0)


def test_that_an_epoch_is_over_is_confirmed_by_the_store() -> None:
    watch = Watch().joined()
    for at in range(1, 602):
        watch.hosts.tick(float(at))
    watch.take()
    heard: list[bool] = []
    for found in ((0, None), (7, Heartbeat("b1"))):
        watch.hosts.confirm_over("b", "b1", lambda is_over, _now: heard.append(is_over))
        (step,) = watch.take()
        assert isinstance(step, Read)
        watch.answer(step.call, 602.0, found=found)
    assert heard == [True, False]


def test_a_host_knows_that_it_was_silent_for_so_long_that_others_may_erase_what_it_held() -> None:
    watch = Watch().joined()
    was_silent = []
    for at in (100.0, 400.0, 405.0):
        watch.beat(at)
        was_silent.append(watch.hosts.was_silent)
    assert was_silent == [False, True, False]
