"""One run of a swarm: it turns the reports of the processes into progress lines, a summary and a plot."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final

from rlpx.engine.cli.terminal import as_json
from rlpx.engine.swarm.dials import Dials
from rlpx.engine.swarm.fleet import Lost, News, SwarmFleet
from rlpx.engine.swarm.moments import Moments
from rlpx.engine.swarm.plot import plot
from rlpx.engine.swarm.summary import Summary
from rlpx.engine.swarm.verdict import Circumstances, verdict
from rlpx.engine.swarm.watch import Watch
from rlpx.protocol.bus.swarm import Begin, Report, Returned
from rlpx.protocol.mistakes import ConfigError, file_error

_POLL_SECONDS: Final = 0.1
_MOMENT_SECONDS: Final = 1.0
# The processes send their last report within the time for goodbyes. The command waits a little longer.
_FAREWELL_SECONDS: Final = 15.0
# Time to check that a target without connections still exists: as long as a TCP connect takes on a slow network.
_PROBE_SECONDS: Final = 2.0
_BAR_CHARACTERS: Final = 24


class Run:
    """See the module. `given` has the flags, `begin` is every process's first order, `watch` the engine of `--run-dir`."""

    def __init__(self, given: argparse.Namespace, begin: Begin, watch: Watch | None) -> None:
        self._given = given
        self._begin = begin
        self._scenario = begin.scenario
        self._watch = watch
        self._fleet = SwarmFleet()
        self._summary = Summary()
        self._moments = Moments(watch.cost if watch is not None else lambda: None)
        self._starts_at = 0.0
        self._signals = 0
        # Sessions by process, at the time when the peers began to leave.
        self._established_last: dict[int, int] = {}
        self._dials = Dials(watch.dial) if watch is not None and not begin.target else None

    def carry_out(self) -> tuple[int, str | None]:
        """Carry out the run; returns the exit code, and one line about what is wrong, if anything. Raises `ConfigError`."""
        with _signals(self._on_signal):
            try:
                self._fleet.spawn(self._begin)
                if not self._fleet.await_ready(lambda: not self._signals):
                    raise ConfigError("interrupted before the peers were ready", os.EX_UNAVAILABLE)
                self._prepare_dials()
                self._starts_at = self._fleet.go()
                self._moments.begin(self._starts_at)
                seconds = self._live()
            finally:
                self._fleet.close()
                self._show_progress("")
        is_target_gone = self._has_target_gone()
        if self._watch is not None and not is_target_gone:
            self._watch.settle()
        circumstances = Circumstances(
            has_target=bool(self._begin.target), is_target_gone=is_target_gone, any_reason=self._given.any_reason
        )
        code, problem = verdict(self._scenario, self._summary, circumstances)
        self._print(seconds, problem)
        if self._given.plot:
            self._write_plot()
        return code, problem

    def _live(self) -> float:
        """Run until the time is up and every peer has left; returns how long the peers were present."""
        ends_at = self._starts_at + self._scenario.seconds
        seconds: float | None = None
        gives_up_at = ends_at + _FAREWELL_SECONDS
        while not self._fleet.is_over and self._signals < 2:  # noqa: PLR2004 - a second signal ends the run at once
            now = monotonic()
            if seconds is None and (now >= ends_at or self._signals):
                # The start is set a little ahead, and a signal may come before it.
                seconds, gives_up_at = max(0.0, now - self._starts_at), now + _FAREWELL_SECONDS
                self._leave()
            if now > gives_up_at:
                self._take(list(self._fleet.give_up()))
                break
            self._take(self._fleet.poll(_POLL_SECONDS))
            if self._dials is not None:
                self._dials.carry_out(now - self._starts_at, _POLL_SECONDS)
            if self._watch is not None:
                self._watch.read()
            if self._moments.is_due(now, _MOMENT_SECONDS):
                self._moments.take(now, self._summary.established)
            self._show_progress(self._progress(now))
        self._moments.take(monotonic(), self._summary.established)
        return max(0.0, monotonic() - self._starts_at) if seconds is None else seconds

    def _leave(self) -> None:
        """Begin to leave, because the time is up or there was a signal."""
        if self._dials is not None:
            self._dials.stop()
        self._fleet.leave()

    def _on_signal(self) -> None:
        # Ctrl-C reaches only the command; other signals often reach the whole process group.
        self._fleet.is_leaving = True
        self._signals += 1

    def _take(self, found: list[News]) -> None:
        for news in found:
            if isinstance(news, Report):
                self._moments.add(news)
                self._summary.add(news)
                if not news.is_last:
                    self._established_last[news.index] = news.established
            elif isinstance(news, Lost):
                self._summary.add_loss(news.process, news.cause, len(self._scenario.part(news.process)))
            elif isinstance(news, Returned) and self._dials is not None:
                self._dials.add(monotonic() - self._starts_at, news.peer, self._fleet.enodes[news.peer])

    # -- listening --------------------------------------------------------------------------------------------------------

    def _prepare_dials(self) -> None:
        """Print where the peers listen, or make the engine dial them."""
        rate = self._scenario.ramp.peers_per_s
        out = sys.stderr if self._given.json else sys.stdout
        for peer, enode in sorted(self._fleet.enodes.items()):
            if self._dials is not None:
                self._dials.add(peer / rate if rate else 0.0, peer, enode)
            else:
                out.write(f"listening {enode}\n")
        out.flush()

    # -- the end ----------------------------------------------------------------------------------------------------------

    def _has_target_gone(self) -> bool:
        """Whether a target that answered before no longer does."""
        if self._watch is not None:
            return not self._watch.is_there
        if not self._begin.target or any(self._established_last.values()) or not self._summary.counts["connected"]:
            return False
        address = self._begin.address
        try:
            socket.create_connection((address.host, address.port), _PROBE_SECONDS).close()
        except OSError:
            return True
        return False

    # -- showing ----------------------------------------------------------------------------------------------------------

    def _progress(self, now: float) -> str:
        scenario, summary = self._scenario, self._summary
        seconds = max(0.0, now - self._starts_at)
        done = min(1.0, seconds / scenario.seconds)
        bar = "#" * round(done * _BAR_CHARACTERS)
        return (
            f"[{bar:<{_BAR_CHARACTERS}}] {seconds:.0f}/{scenario.seconds:g} s  "
            f"{summary.established} established of {scenario.peers}, {summary.counts['established']} in all"
        )

    def _show_progress(self, line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    def _print(self, seconds: float, problem: str | None) -> None:
        watch, summary = self._watch, self._summary
        if self._dials is not None:
            summary.counts["dials"] += self._dials.made
            summary.ends.update(
                {f"the engine would not dial: {error}": count for error, count in self._dials.refused.items()}
            )
        if self._given.json:
            document: dict[str, Any] = {
                "scenario": self._given.scenario,
                "seed": self._given.seed,
                "peers": self._scenario.peers,
                "processes": self._scenario.processes,
                **summary.as_json(seconds),
                "engine": None if watch is None else {"counts": dict(watch.counts), "ends": dict(watch.ends)},
                "problem": problem,
            }
            sys.stdout.write(as_json(document, indent=2) + "\n")
            return
        scenario = self._scenario
        sys.stdout.write(
            f"{scenario.peers} peers over {scenario.processes} processes, seed {self._given.seed}, scenario "
            f"{self._given.scenario}: {scenario.description}\n" + summary.as_text(seconds)
        )
        if watch is not None:
            counts, sent, came = watch.counts, summary.counts["messages_out"], summary.counts["messages_in"]
            lost = f", {counts['workers_lost']} of its workers ended" if counts["workers_lost"] else ""
            sys.stdout.write(
                f"\nthe engine counted {counts['established']} established, {counts['closed']} closed, "
                f"{counts['refused']} refused{lost}; {counts['messages_in']} messages in (the swarm sent {sent}), "
                f"{counts['messages_out']} out (the swarm got {came})\n"
            )

    def _write_plot(self) -> None:
        scenario = self._scenario
        title = f"rlpx-swarm {self._given.scenario}: {scenario.peers} peers over {scenario.processes} processes"
        try:
            Path(self._given.plot).write_text(plot(title, self._moments.all), encoding="utf-8")
        except OSError as error:
            raise file_error(f"--plot: {self._given.plot}", error) from error


@contextmanager
def _signals(on_signal: Callable[[], None]) -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        on_signal()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
