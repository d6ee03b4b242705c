"""`rlpx-swarm`: simulated peers in processes of their own, against an engine or any client, and what came of it.

The peers live in `workers`, which this side never imports: the command starts `python -m workers.swarm` as the engine starts
its workers. It is here because it calls the engine's commands and reads its events.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Final

from engine.client import EngineError, EngineUnavailableError
from engine.config import (
    EXIT_ERROR_ANSWER,
    EXIT_PERMISSION,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    ConfigError,
    host_port,
    load_chain,
)
from engine.dialer import EnodeError, parse_enode
from engine.swarm_fleet import SwarmFleet
from engine.swarm_plot import plot
from engine.swarm_scenario import load_scenario, scenario_file, scenario_names
from engine.swarm_summary import Moment, Summary
from engine.swarm_watch import Cost, Watch
from engine.terminal import Arguments, as_json, fail
from protocol.swarm import Address, Begin, Latencies, Report, Scenario, percentile

PROGRAM: Final = "rlpx-swarm"
_POLL_SECONDS: Final = 0.1
_MOMENT_SECONDS: Final = 1.0
# A process needs some descriptors beside its sockets.
_SPARE_DESCRIPTORS: Final = 64
# The processes report their last word within their farewell, the command waits a little longer.
_FAREWELL_SECONDS: Final = 15.0
_BAR_CHARACTERS: Final = 24
_EPILOG: Final = (
    "Exit codes: 0 all as the scenario expects, 1 a faulty peer was treated otherwise than expected or the engine "
    "answered with an error, 64 usage, 69 nobody could be reached, 70 a fault of ours, 78 a mistake in the scenario."
)


def parser() -> argparse.ArgumentParser:
    """All flags."""
    arguments = Arguments(
        prog=PROGRAM, description="Simulated Ethereum peers, against an engine or any client.", epilog=_EPILOG
    )
    arguments.add_argument("--target", metavar="ENODE", help="whom to dial (default: the engine of --run-dir)")
    arguments.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="be dialled instead: peer i listens on PORT + i, or on a free port each with PORT 0",
    )
    arguments.add_argument(
        "--run-dir",
        metavar="DIR",
        help="an engine's run directory: its counts, events, CPU and memory are shown; with --listen it is told to dial",
    )
    arguments.add_argument(
        "--scenario",
        metavar="NAME|FILE",
        default="smoke",
        help=f"one of {', '.join(scenario_names())}, or a TOML file (default: smoke)",
    )
    arguments.add_argument(
        "--chain", metavar="NAME|FILE", default="mainnet", help="the chain of the target (default: mainnet)"
    )
    arguments.add_argument("--peers", type=int, metavar="N", help="instead of the scenario's number")
    arguments.add_argument("--processes", type=int, metavar="P", help="instead of the scenario's number")
    arguments.add_argument("--seconds", type=float, metavar="S", help="instead of the scenario's time")
    arguments.add_argument(
        "--seed", type=int, default=1, metavar="S", help="the same seed makes the same swarm (default: 1)"
    )
    arguments.add_argument(
        "--any-reason",
        action="store_true",
        help="faulty peers may be ended for any reason: for clients other than rlpx-engine",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document instead of text")
    arguments.add_argument("--plot", metavar="FILE", help="write sessions, rates, latencies and costs over time as SVG")
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = parser().parse_args(arguments)
    try:
        changes = {name: value for name in ("peers", "processes", "seconds") if (value := getattr(given, name)) is not None}
        scenario = load_scenario(scenario_file(given.scenario), changes)
        _raise_descriptors(scenario)
        watch = Watch(given.run_dir) if given.run_dir else None
        try:
            begin = _begin(given, scenario, watch)
            code = Command(given, begin, watch).run()
        finally:
            if watch is not None:
                watch.close()
    except ConfigError as error:
        fail(PROGRAM, str(error), error.exit_code)
    except EngineUnavailableError as error:
        fail(PROGRAM, str(error), EXIT_UNAVAILABLE)
    except EngineError as error:
        fail(PROGRAM, f"{error.name}: {error}", EXIT_ERROR_ANSWER)
    sys.exit(code)


class Command:
    """One run, from the first process to the last word."""

    def __init__(self, given: argparse.Namespace, begin: Begin, watch: Watch | None) -> None:
        self._given = given
        self._begin = begin
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
        # Peers that the engine is still to be told to dial, the next one last.
        self._undialled: list[tuple[float, str]] = []

    def run(self) -> int:
        """The exit code."""
        with _signals(self._on_signal):
            try:
                self._fleet.spawn(self._begin)
                self._prepare_dials()
                self._starts_at = self._moment_at = self._fleet.go()
                self._cost = self._watch.cost() if self._watch is not None else None
                seconds = self._live()
            finally:
                self._fleet.close()
                self._show_progress("")
        if self._watch is not None:
            self._watch.settle()
        self._print(seconds)
        if self._given.plot:
            self._write_plot()
        if not self._summary.counts["connected"]:
            return EXIT_UNAVAILABLE
        is_good = self._given.any_reason or self._summary.is_as_expected
        return 0 if is_good else EXIT_ERROR_ANSWER

    def _live(self) -> float:
        """Until the time is up and everybody has left; how long the peers were there."""
        ends_at = self._starts_at + self._begin.scenario.seconds
        seconds, gives_up_at = 0.0, ends_at + _FAREWELL_SECONDS
        while not self._fleet.is_over and self._signals < 2:  # noqa: PLR2004 - the second signal is quick
            now = monotonic()
            if not seconds and (now >= ends_at or self._signals):
                seconds, gives_up_at = now - self._starts_at, now + _FAREWELL_SECONDS
                self._fleet.leave()
            if now > gives_up_at:
                break
            self._reports += [word for word in self._fleet.poll(_POLL_SECONDS) if isinstance(word, Report)]
            self._dial_due(now)
            if self._watch is not None:
                self._watch.read()
            if now - self._moment_at >= _MOMENT_SECONDS and self._reports:
                self._take_moment(now)
            self._show_progress(self._progress(now))
        self._take_moment(monotonic())
        return seconds or monotonic() - self._starts_at

    def _on_signal(self) -> None:
        self._signals += 1

    # -- listening --------------------------------------------------------------------------------------------------------

    def _prepare_dials(self) -> None:
        """Say where the peers listen, or have the engine dial them."""
        enodes = sorted(self._fleet.enodes.items(), reverse=True)
        if self._watch is not None:
            rate = self._begin.scenario.ramp.peers_per_s
            self._undialled = [(index / rate if rate else 0.0, enode) for index, enode in enodes]
            return
        out = sys.stderr if self._given.json else sys.stdout
        for _, enode in reversed(enodes):
            out.write(f"listening {enode}\n")
        out.flush()

    def _dial_due(self, now: float) -> None:
        ends_at = now + _POLL_SECONDS
        while self._undialled and self._undialled[-1][0] <= now - self._starts_at and monotonic() < ends_at:
            _, enode = self._undialled.pop()
            assert self._watch is not None  # noqa: S101 - only then is there anything to dial
            self._watch.client.call("dial", enode=enode)

    # -- showing ----------------------------------------------------------------------------------------------------------

    def _take_moment(self, now: float) -> None:
        reports, self._reports = self._reports, []
        seconds = max(now - self._moment_at, 1e-9)
        self._moment_at = now
        for report in reports:
            self._summary.add(report)
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
        scenario, summary = self._begin.scenario, self._summary
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

    def _print(self, seconds: float) -> None:
        watch = self._watch
        if self._given.json:
            document: dict[str, Any] = {
                "scenario": self._given.scenario,
                "seed": self._given.seed,
                "peers": self._begin.scenario.peers,
                "processes": self._begin.scenario.processes,
                **self._summary.as_json(seconds),
                "engine": None if watch is None else {"counts": dict(watch.counts), "ends": dict(watch.ends)},
            }
            sys.stdout.write(as_json(document, indent=2) + "\n")
            return
        scenario = self._begin.scenario
        sys.stdout.write(
            f"{scenario.peers} peers over {scenario.processes} processes, seed {self._given.seed}, scenario "
            f"{self._given.scenario}: {scenario.description}\n" + self._summary.as_text(seconds)
        )
        if watch is not None:
            counts = watch.counts
            sys.stdout.write(
                f"\nthe engine saw {counts['established']} established, {counts['closed']} closed, "
                f"{counts['refused']} refused; "
                f"{counts['messages_in']} messages of {self._summary.counts['messages_out']} sent, "
                f"{counts['messages_out']} of which {self._summary.counts['messages_in']} came\n"
            )

    def _write_plot(self) -> None:
        scenario = self._begin.scenario
        title = f"rlpx-swarm {self._given.scenario}: {scenario.peers} peers over {scenario.processes} processes"
        try:
            Path(self._given.plot).write_text(plot(title, self._moments))
        except OSError as error:
            raise ConfigError(f"--plot: {self._given.plot}: {error.strerror}", EXIT_PERMISSION) from error


def _begin(given: argparse.Namespace, scenario: Scenario, watch: Watch | None) -> Begin:
    """What every process is told. Raises `ConfigError`."""
    chain = load_chain(given.chain)
    if given.listen is not None:
        if given.target is not None:
            raise ConfigError("--listen and --target exclude each other", EXIT_USAGE)
        try:
            host, port = host_port(given.listen)
        except ValueError as error:
            raise ConfigError(f"--listen: {error}", EXIT_USAGE) from error
        return Begin(scenario, given.seed, 0, chain, b"", Address(host, port))
    enode = given.target or (watch.enode if watch is not None else None)
    if enode is None:
        raise ConfigError("--target, --listen or --run-dir says against whom (--help says more)", EXIT_USAGE)
    try:
        target = parse_enode(enode)
    except EnodeError as error:
        raise ConfigError(f"--target: {error}", EXIT_USAGE) from error
    return Begin(scenario, given.seed, 0, chain, target.id, Address(target.host, target.port))


def _raise_descriptors(scenario: Scenario) -> None:
    """As many descriptors as are allowed, which the processes inherit. Raises `ConfigError` where they are too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = -(-scenario.peers // scenario.processes) + _SPARE_DESCRIPTORS
    if needed > hard:
        raise ConfigError(f"--peers: {needed} descriptors a process are needed and {hard} allowed; take more --processes")


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


if __name__ == "__main__":
    main()
