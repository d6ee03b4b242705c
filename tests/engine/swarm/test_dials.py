"""Peers that are due are dialled once and in order, refused ones are tried again, and a slow engine holds nothing up."""

from __future__ import annotations

import pytest

from rlpx.engine.swarm import dials as swarm_dials
from rlpx.engine.swarm.dials import REDIAL_SECONDS, Dials


class Engine:
    """An engine that dials on command, except for peers in `refuses`; each dial takes `seconds`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.dialled: list[str] = []
        self.refuses: dict[str, str] = {}
        self.now = 100.0
        self._seconds = seconds
        monkeypatch.setattr(swarm_dials, "monotonic", lambda: self.now)

    def dial(self, enode: str) -> str | None:
        self.now += self._seconds
        self.dialled.append(enode)
        return self.refuses.get(enode)


def test_each_is_dialled_at_its_time_whatever_the_order_they_are_told_in(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    dials = Dials(engine.dial)
    for at, peer in ((2.0, 1), (0.0, 2), (1.0, 3), (1.0, 0)):
        dials.add(at, peer, f"enode {peer}")
    dials.carry_out(0.0, 1.0)
    assert engine.dialled == ["enode 2"]
    dials.carry_out(1.5, 1.0)
    assert engine.dialled == ["enode 2", "enode 0", "enode 3"]
    dials.carry_out(10.0, 1.0)
    dials.carry_out(10.0, 1.0)
    assert engine.dialled == ["enode 2", "enode 0", "enode 3", "enode 1"]
    assert dials.made == 4


def test_who_is_refused_is_tried_again_after_a_while_and_counted_by_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    engine.refuses = {"enode 0": "refused"}
    dials = Dials(engine.dial)
    dials.add(0.0, 0, "enode 0")
    dials.add(0.0, 1, "enode 1")
    dials.carry_out(0.0, 1.0)
    dials.carry_out(REDIAL_SECONDS - 0.1, 1.0)
    assert engine.dialled == ["enode 0", "enode 1"]
    dials.carry_out(REDIAL_SECONDS, 1.0)
    assert dials.refused == {"refused": 2}
    engine.refuses = {}
    dials.carry_out(2 * REDIAL_SECONDS, 1.0)
    assert engine.dialled == ["enode 0", "enode 1", "enode 0", "enode 0"]
    assert (dials.made, dials.refused) == (2, {"refused": 2})


def test_a_slow_engine_is_given_so_much_time_and_the_rest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, seconds=0.04)
    dials = Dials(engine.dial)
    for peer in range(10):
        dials.add(0.0, peer, f"enode {peer}")
    dials.carry_out(0.0, 0.1)
    assert len(engine.dialled) == 3
    for _ in range(3):
        dials.carry_out(0.0, 0.1)
    assert engine.dialled == [f"enode {peer}" for peer in range(10)]


def test_at_the_end_nobody_is_dialled_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch)
    dials = Dials(engine.dial)
    dials.add(0.0, 0, "enode 0")
    dials.stop()
    dials.add(0.0, 1, "enode 1")
    dials.carry_out(9.0, 1.0)
    assert not engine.dialled
