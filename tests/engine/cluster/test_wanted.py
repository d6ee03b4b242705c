"""What listeners have asked for ends with their last wish, and begins anew under another number."""

from __future__ import annotations

from rlpx.engine.cluster.wanted import Wanted


def test_what_is_asked_for_again_stays_and_what_is_not_ends() -> None:
    ended: list[str] = []
    wanted = Wanted(2, ended.append)
    assert wanted.want("a", 10.0)
    assert wanted.want("b", 10.0)
    assert not wanted.want("a", 20.0)
    assert not wanted.want("a", 15.0)
    wanted.expire(12.0)
    assert (wanted.names, ended) == (("a",), ["b"])
    wanted.expire(20.0)
    assert (wanted.names, ended) == ((), ["b", "a"])


def test_each_beginning_has_a_number_of_its_own() -> None:
    wanted = Wanted(2, lambda _: None)
    wanted.want("a", 10.0)
    first = wanted.begun("a")
    wanted.want("a", 20.0)
    assert wanted.begun("a") == first
    wanted.drop("a")
    wanted.drop("a")
    assert wanted.begun("a") is None
    wanted.want("a", 30.0)
    assert wanted.begun("a") not in (first, None)


def test_only_so_many_can_be_wanted_at_a_time() -> None:
    wanted = Wanted(2, lambda _: None)
    wanted.want("a", 10.0)
    assert wanted.has_room(("a", "b"))
    assert not wanted.has_room(("b", "c"))


def test_while_no_wish_can_come_everything_stays_wanted() -> None:
    wanted = Wanted(2, lambda _: None)
    wanted.want("a", 10.0)
    wanted.keep(30.0)
    wanted.keep(20.0)
    wanted.expire(29.0)
    assert wanted.names == ("a",)
