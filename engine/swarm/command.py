"""`rlpx-swarm`: simulated peers in processes of their own, against an engine or any client, and a summary of the run.

The peers live in `workers`, which is never imported here: the command starts `python -m rlpx.workers.swarm`, as the engine
starts its workers. It is in this room because it calls the engine's commands and reads its events.
"""

from __future__ import annotations

if __name__ == "__main__":
    from rlpx.engine.process import start

    start.swarm()

import argparse
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rlpx.engine.cli.completion import add_completion
from rlpx.engine.cli.terminal import Arguments, Directory, add_version, fail, typed
from rlpx.engine.client.presence import EngineError, EngineUnavailableError
from rlpx.engine.settings.addresses import resolve
from rlpx.engine.settings.chain import load_chain
from rlpx.engine.settings.conf import scenario_names
from rlpx.engine.settings.files import exists
from rlpx.engine.settings.settings import ListenAddress
from rlpx.engine.swarm.run import Run
from rlpx.engine.swarm.scenario import load_scenario, scenario_file
from rlpx.engine.swarm.watch import Watch
from rlpx.protocol.bus.swarm import Address, Begin, Scenario
from rlpx.protocol.bus.values import EnodeUrl
from rlpx.protocol.eth.forkid import Chain
from rlpx.protocol.mistakes import EXIT_ERROR_ANSWER, ConfigError
from rlpx.protocol.rlpx.enode import EnodeError, parse_enode
from rlpx.protocol.rlpx.host_port import parse_host_port
from rlpx.protocol.wording import Expected, expected_of, wrong

PROGRAM: Final = "rlpx-swarm"
# Descriptors that a process needs besides its sockets.
_SPARE_DESCRIPTORS: Final = 64
_MAX_PORT: Final = 0xFFFF
# The seed is sent as a signed integer of 64 bits.
_MAX_SEED: Final = 2**63 - 1
_EPILOG: Final = (
    "`rlpx-swarm plan --peers N` works out what N peers need of this machine. "
    "Exit codes: 0 everything went as the scenario expects, 1 a faulty peer was not treated as expected, no session was "
    "established, or the engine answered with an error, 64 usage, 69 no peer could connect or the target was gone before "
    "the end, 70 a process of the swarm was lost or another fault of ours, 77 permission, 78 a mistake in the scenario."
)


def parser() -> Arguments:
    """All flags."""
    arguments = Arguments(
        prog=PROGRAM, description="Runs simulated Ethereum peers against an engine or any other client.", epilog=_EPILOG
    )
    add_version(arguments)
    add_completion(arguments)
    arguments.add_argument("--target", metavar="ENODE", help="the node to dial (default: the engine of --run-dir)")
    arguments.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="listen instead of dialling: peer i listens on PORT + i, or each on a free port if PORT is 0",
    )
    arguments.add_argument(
        "--run-dir",
        metavar="DIR",
        type=typed(Directory),
        help="run directory of an engine: its counts, events, CPU and memory are shown; with --listen it dials the peers",
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
    arguments.add_argument("--peers", type=typed(int), metavar="N", help="number of peers, instead of the scenario's")
    arguments.add_argument(
        "--processes", type=typed(int), metavar="P", help="number of processes, instead of the scenario's"
    )
    arguments.add_argument("--seconds", type=typed(float), metavar="S", help="duration, instead of the scenario's")
    arguments.add_argument(
        "--seed", type=typed(int), default=1, metavar="N", help="the same seed makes the same swarm (default: 1)"
    )
    arguments.add_argument(
        "--any-reason",
        action="store_true",
        help="accept any reason for the end of a faulty peer: for clients other than rlpx-engine",
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document instead of text")
    arguments.add_argument("--plot", metavar="FILE", help="write sessions, rates, latencies and costs over time as SVG")
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = parser().parse_args(arguments)
    try:
        code, problem = _carry_out(given)
        # Flush before the verdict: if the reader of stdout has gone, the verdict is not wanted either.
        sys.stdout.flush()
    except ConfigError as error:
        fail(PROGRAM, str(error), error.exit_code)
    except EngineUnavailableError as error:
        fail(PROGRAM, str(error), error.exit_code)
    except EngineError as error:
        fail(PROGRAM, f"{error.name}: {error}", EXIT_ERROR_ANSWER)
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
    """Return the first order for every process. Raises `ConfigError`."""
    chain = _chain(given.chain, watch)
    if given.listen is not None:
        host, port = _listen_address(given.listen)
        if port and port + scenario.peers - 1 > _MAX_PORT:
            raise ConfigError(f"--listen: {scenario.peers} ports from {port} on go beyond {_MAX_PORT}", os.EX_USAGE)
        return Begin(scenario, given.seed, 0, chain, b"", Address(host, port))
    enode = given.target or (watch.enode if watch is not None else None)
    if enode is None and watch is not None:
        raise ConfigError("--run-dir: its engine does not listen; with --listen it can dial the peers", os.EX_USAGE)
    if enode is None:
        raise ConfigError("one of --target, --listen and --run-dir is needed (see --help)", os.EX_USAGE)
    try:
        target = parse_enode(enode)
    except EnodeError as error:
        raise ConfigError(f"--target: {wrong(enode, expected_of(EnodeUrl), str(error))}", os.EX_USAGE) from error
    return Begin(scenario, given.seed, 0, chain, target.id, Address(target.host, target.port))


def _listen_address(text: str) -> tuple[str, int]:
    """Return the numeric address and the port on which the peers listen. Raises `ConfigError`."""
    try:
        host, port = parse_host_port(text)
    except ValueError as error:
        raise ConfigError(f"--listen: {wrong(text, expected_of(ListenAddress), str(error))}", os.EX_USAGE) from error
    try:
        return resolve(host), port
    except OSError as error:
        raise ConfigError(f"--listen: {text}: {error.strerror}", os.EX_UNAVAILABLE) from error


def _check_flags(given: argparse.Namespace) -> None:
    """Check the flags before anything is started. Raises `ConfigError`."""
    if given.listen is not None and given.target is not None:
        raise ConfigError("--listen and --target exclude each other", os.EX_USAGE)
    if not 0 <= given.seed <= _MAX_SEED:
        expected = Expected(f"a whole number from 0 to {_MAX_SEED}", "1")
        raise ConfigError(f"--seed: {wrong(given.seed, expected)}", os.EX_USAGE)
    if given.plot:
        file = Path(given.plot)
        if os.path.isdir(file) or not os.access(file if exists(file) else file.parent, os.W_OK):  # noqa: PTH112 - asks and never raises
            raise ConfigError(f"--plot: {file} cannot be written", os.EX_NOPERM)


def _chain(name: str | None, watch: Watch | None) -> Chain:
    """Return the chain that the flag names, else the engine's if its name is known here. Raises `ConfigError`."""
    if name is not None or watch is None:
        return load_chain(name or "mainnet")
    own = watch.status["chain"]
    try:
        chain = load_chain(own["name"])
    except ConfigError as error:
        raise ConfigError(f"--chain: the engine's is {own['name']!r}: name its file") from error
    if (chain.network_id, "0x" + chain.genesis.hex()) != (own["network_id"], own["genesis"]):
        raise ConfigError(f"--chain: the engine's {own['name']!r} differs from ours: name its file")
    return chain


def _raise_descriptors(scenario: Scenario, *, is_listening: bool) -> None:
    """Raise the limit of descriptors, which the processes inherit. Raises `ConfigError` if the hard limit is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A peer that listens needs a further socket for that.
    needed = len(scenario.part(0)) * (2 if is_listening else 1) + _SPARE_DESCRIPTORS
    if needed > hard:
        ways = "more --processes or a higher ulimit -n" if len(scenario.part(0)) > 1 else "a higher ulimit -n"
        raise ConfigError(f"--peers: a process needs {needed} descriptors and {hard} are allowed: take {ways}")
