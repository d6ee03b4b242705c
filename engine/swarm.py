"""`rlpx-swarm`: simulated peers in processes of their own, against an engine or any client, and what came of it.

The peers live in `workers`, which this side never imports: the command starts `python -m workers.swarm` as the engine starts
its workers. It is here because it calls the engine's commands and reads its events.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

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
from engine.swarm_run import Run
from engine.swarm_scenario import load_scenario, scenario_file, scenario_names
from engine.swarm_watch import Watch
from engine.terminal import Arguments, fail
from protocol.forkid import Chain
from protocol.swarm import Address, Begin, Scenario

PROGRAM: Final = "rlpx-swarm"
# A process needs some descriptors beside its sockets.
_SPARE_DESCRIPTORS: Final = 64
_MOST_PORT: Final = 0xFFFF
# It travels in 64 bits.
_MOST_SEED: Final = 2**63 - 1
_EPILOG: Final = (
    "Exit codes: 0 all as the scenario expects, 1 a faulty peer was treated otherwise than expected, no session was "
    "established, or the engine answered with an error, 64 usage, 69 nobody could be reached or the target was gone before "
    "the end, 70 a process of the swarm was lost or another fault of ours, 77 permission, 78 a mistake in the scenario."
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
        "--chain", metavar="NAME|FILE", help="the chain of the target (default: that of --run-dir's engine, or mainnet)"
    )
    arguments.add_argument("--peers", type=int, metavar="N", help="instead of the scenario's number")
    arguments.add_argument("--processes", type=int, metavar="P", help="instead of the scenario's number")
    arguments.add_argument("--seconds", type=float, metavar="S", help="instead of the scenario's time")
    arguments.add_argument(
        "--seed", type=int, default=1, metavar="N", help="the same seed makes the same swarm (default: 1)"
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
        code, problem = _carry_out(given)
        sys.stdout.flush()
    except ConfigError as error:
        fail(PROGRAM, str(error), error.exit_code)
    except EngineUnavailableError as error:
        fail(PROGRAM, str(error), EXIT_UNAVAILABLE)
    except EngineError as error:
        fail(PROGRAM, f"{error.name}: {error}", EXIT_ERROR_ANSWER)
    except KeyboardInterrupt:
        fail(PROGRAM, "interrupted", EXIT_UNAVAILABLE)
    except BrokenPipeError:
        # The reader of our output has gone; so does what Python would still flush at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if problem is not None:
        fail(PROGRAM, problem, code)


def _carry_out(given: argparse.Namespace) -> tuple[int, str | None]:
    changes = {name: value for name in ("peers", "processes", "seconds") if (value := getattr(given, name)) is not None}
    scenario = load_scenario(scenario_file(given.scenario), changes)
    _check_flags(given)
    _raise_descriptors(scenario, is_listening=given.listen is not None)
    if not given.run_dir:
        return Run(given, begin(given, scenario, None), None).carry_out()
    with Watch(given.run_dir) as watch:
        return Run(given, begin(given, scenario, watch), watch).carry_out()


def begin(given: argparse.Namespace, scenario: Scenario, watch: Watch | None) -> Begin:
    """What every process is told. Raises `ConfigError`."""
    chain = _chain(given.chain, watch)
    if given.listen is not None:
        try:
            host, port = host_port(given.listen)
        except ValueError as error:
            raise ConfigError(f"--listen: {error}", EXIT_USAGE) from error
        if port and port + scenario.peers - 1 > _MOST_PORT:
            raise ConfigError(f"--listen: {scenario.peers} ports from {port} on go beyond {_MOST_PORT}", EXIT_USAGE)
        return Begin(scenario, given.seed, 0, chain, b"", Address(host, port))
    enode = given.target or (watch.enode if watch is not None else None)
    if enode is None:
        raise ConfigError("--target, --listen or --run-dir says against whom (--help says more)", EXIT_USAGE)
    try:
        target = parse_enode(enode)
    except EnodeError as error:
        raise ConfigError(f"--target: {error}", EXIT_USAGE) from error
    return Begin(scenario, given.seed, 0, chain, target.id, Address(target.host, target.port))


def _check_flags(given: argparse.Namespace) -> None:
    """What is wrong is said before there is anything to lose. Raises `ConfigError`."""
    if given.listen is not None and given.target is not None:
        raise ConfigError("--listen and --target exclude each other", EXIT_USAGE)
    if not 0 <= given.seed <= _MOST_SEED:
        raise ConfigError(f"--seed: {given.seed} is not between 0 and {_MOST_SEED}", EXIT_USAGE)
    if given.plot:
        file = Path(given.plot)
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ConfigError(f"--plot: {file} cannot be written", EXIT_PERMISSION)


def _chain(name: str | None, watch: Watch | None) -> Chain:
    """The chain that the flag names, or the engine's where its name is known here. Raises `ConfigError`."""
    if name is not None or watch is None:
        return load_chain(name or "mainnet")
    own = watch.status["chain"]
    try:
        chain = load_chain(own["name"])
    except ConfigError as error:
        raise ConfigError(f"--chain: the engine's is {own['name']!r}: name its file") from error
    if (chain.network_id, "0x" + chain.genesis.hex()) != (own["network_id"], own["genesis"]):
        raise ConfigError(f"--chain: the engine's {own['name']!r} is another than ours: name its file")
    return chain


def _raise_descriptors(scenario: Scenario, *, is_listening: bool) -> None:
    """As many descriptors as are allowed, which the processes inherit. Raises `ConfigError` where they are too few."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Who listens has a socket for that as well.
    needed = len(scenario.part(0)) * (2 if is_listening else 1) + _SPARE_DESCRIPTORS
    if needed > hard:
        ways = "more --processes or a higher ulimit -n" if len(scenario.part(0)) > 1 else "a higher ulimit -n"
        raise ConfigError(f"--peers: a process needs {needed} descriptors and {hard} are allowed: take {ways}")


if __name__ == "__main__":
    main()
