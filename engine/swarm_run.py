"""One run of a swarm, from its first process to the last word: what the processes say becomes progress, summary and plot."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final

from engine.config import EXIT_ERROR_ANSWER, EXIT_PERMISSION, EXIT_SOFTWARE, EXIT_UNAVAILABLE, ConfigError
from engine.swarm_dials import Dials
from engine.swarm_fleet import Lost, News, SwarmFleet
from engine.swarm_plot import plot
from engine.swarm_summary import Moment, Summary
from engine.swarm_watch import Cost, Watch
from engine.terminal import as_json
from protocol.swarm import Begin, Latencies, Report, Returned, percentile

_POLL_SECONDS: Final = 0.1
_MOMENT_SECONDS: Final = 1.0
# The processes report their last word within their farewell, the command waits a little longer.
_FAREWELL_SECONDS: Final = 15.0
# Whether a target is there that nobody is connected to any more: as long as a slow network takes for TCP.
_PROBE_SECONDS: Final = 2.0
_BAR_CHARACTERS: Final = 24


class Run:
    """`given` are the flags, `begin` is what every process is told, `watch` the engine of `--run-dir`."""

    def __init__(self, given: argparse.Namespace, begin: Begin, watch: Watch | None) -> None:
        self._given = given
        self._begin = begin
        self._scenario = begin.scenario
        self._watch = watch
        self._fleet = SwarmFleet()
        self._summary = Summary()
        self._moments: list[Moment] = []
        # Since the last moment.
        self._reports: list[Report] = []
        self._cost: Cost | None = None
        self._moment_at = 0.0
        self._starts_at = 0.0
        self._signals = 0
        # Sessions by process, when the peers began to leave.
        self._established_last: dict[int, int] = {}
        self._is_target_gone = False
        self._dials = Dials(watch.dial) if watch is not None and not begin.target else None

    def carry_out(self) -> tuple[int, str | None]:
        """Do it all; the exit code, and what is wrong in one line. Raises `ConfigError`."""
        with _signals(self._on_signal):
            try:
                self._fleet.spawn(self._begin)
                if not self._fleet.await_ready(lambda: not self._signals):
                    raise ConfigError("interrupted before the peers were ready", EXIT_UNAVAILABLE)
                self._prepare_dials()
                self._starts_at = self._moment_at = self._fleet.go()
                self._cost = self._watch.cost() if self._watch is not None else None
                seconds = self._live()
            finally:
                self._fleet.close()
                self._show_progress("")
        self._is_target_gone = self._has_target_gone()
        if self._watch is not None and not self._is_target_gone:
            self._watch.settle()
        code, problem = self._verdict()
        self._print(seconds, problem)
        if self._given.plot:
            self._write_plot()
        return code, problem

    def _live(self) -> float:
        """Until the time is up and everybody has left; how long the peers were there."""
        ends_at = self._starts_at + self._scenario.seconds
        seconds, gives_up_at = 0.0, ends_at + _FAREWELL_SECONDS
        while not self._fleet.is_over and self._signals < 2:  # noqa: PLR2004 - the second signal is quick
            now = monotonic()
            if not seconds and (now >= ends_at or self._signals):
                seconds, gives_up_at = now - self._starts_at, now + _FAREWELL_SECONDS
                self._leave()
            if now > gives_up_at:
                self._take(list(self._fleet.give_up()))
                break
            self._take(self._fleet.poll(_POLL_SECONDS))
            if self._dials is not None:
                self._dials.carry_out(now - self._starts_at, _POLL_SECONDS)
            if self._watch is not None:
                self._watch.read()
            if now - self._moment_at >= _MOMENT_SECONDS and self._reports:
                self._take_moment(now)
            self._show_progress(self._progress(now))
        self._take_moment(monotonic())
        return seconds or monotonic() - self._starts_at

    def _leave(self) -> None:
        """Time is up, or there was a signal."""
        if self._dials is not None:
            self._dials.stop()
        self._fleet.leave()

    def _on_signal(self) -> None:
        # Ctrl-C reaches the command alone, other signals often the whole group.
        self._fleet.is_leaving = True
        self._signals += 1

    def _take(self, found: list[News]) -> None:
        for news in found:
            if isinstance(news, Report):
                self._reports.append(news)
                self._summary.add(news)
                if not news.is_last:
                    self._established_last[news.index] = news.established
            elif isinstance(news, Lost):
                self._summary.add_loss(news.process, news.cause, len(self._scenario.part(news.process)))
            elif isinstance(news, Returned) and self._dials is not None:
                self._dials.add(monotonic() - self._starts_at, news.peer, self._fleet.enodes[news.peer])

    # -- listening --------------------------------------------------------------------------------------------------------

    def _prepare_dials(self) -> None:
        """Say where the peers listen, or have the engine dial them."""
        rate = self._scenario.ramp.peers_per_s
        out = sys.stderr if self._given.json else sys.stdout
        for peer, enode in sorted(self._fleet.enodes.items()):
            if self._dials is not None:
                self._dials.add(peer / rate if rate else 0.0, peer, enode)
            else:
                out.write(f"listening {enode}\n")
        out.flush()

    # -- judging ----------------------------------------------------------------------------------------------------------

    def _has_target_gone(self) -> bool:
        """Whether nobody answers any more where there was somebody."""
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

    def _verdict(self) -> tuple[int, str | None]:
        """See `carry_out`."""
        summary = self._summary
        counts = summary.counts
        honest = self._scenario.peers * (1 - sum(self._scenario.faults.shares().values()))
        if summary.losses:
            return EXIT_SOFTWARE, f"{len(summary.losses)} of {self._scenario.processes} processes of the swarm were lost"
        if self._is_target_gone:
            return EXIT_UNAVAILABLE, "the target was gone before the end"
        if not counts["connected"]:
            return EXIT_UNAVAILABLE, "nobody could be reached" if self._begin.target else "nobody dialled the peers"
        if not counts["established"] and honest >= 1:
            return EXIT_ERROR_ANSWER, "no session was established; is --chain that of the target?"
        unexpected = [] if self._given.any_reason else summary.unexpected()
        if unexpected:
            return EXIT_ERROR_ANSWER, f"faulty peers were treated otherwise than expected: {', '.join(unexpected)}"
        return 0, None

    # -- showing ----------------------------------------------------------------------------------------------------------

    def _take_moment(self, now: float) -> None:
        reports, self._reports = self._reports, []
        seconds = max(now - self._moment_at, 1e-9)
        self._moment_at = now
        cost = self._watch.cost() if self._watch is not None else None
        cpu = (cost.cpu_seconds - self._cost.cpu_seconds) / seconds if cost is not None and self._cost is not None else None
        self._cost = cost
        handshakes, requests = _merged(reports, "handshake"), _merged(reports, "request")

        def rate(*names: str) -> float:
            return sum(report.counts.get(name, 0) for report in reports for name in names) / seconds

        self._moments.append(
            Moment(
                seconds=now - self._starts_at,
                established=self._summary.established,
                rates={
                    "established": rate("established"),
                    "messages": rate("announcements", "transactions", "requests_sent"),
                    "requests_answered": rate("requests_answered"),
                },
                handshake_p50=percentile(handshakes, 0.5),
                handshake_p99=percentile(handshakes, 0.99),
                request_p99=percentile(requests, 0.99),
                swarm_cpu=sum(report.cpu_seconds for report in reports) / seconds,
                engine_cpu=cpu,
                engine_memory_bytes=cost.memory_bytes if cost is not None else None,
            )
        )

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
            Path(self._given.plot).write_text(plot(title, self._moments))
        except OSError as error:
            raise ConfigError(f"--plot: {self._given.plot}: {error.strerror}", EXIT_PERMISSION) from error


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


def _merged(reports: list[Report], name: str) -> Latencies:
    merged: Latencies = {}
    for report in reports:
        for bucket, count in report.latencies.get(name, {}).items():
            merged[bucket] = merged.get(bucket, 0) + count
    return merged
