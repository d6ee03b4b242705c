"""`rlpx-swarm plan`: measures for about a minute what sessions cost on this machine; says what a number of peers needs."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from rlpx.engine.cli.terminal import Arguments, as_json, fail, typed
from rlpx.engine.settings.conf import scenario_names
from rlpx.engine.swarm import capacity
from rlpx.engine.swarm.capacity import Plan, Prices
from rlpx.engine.swarm.scenario import load_scenario, scenario_file
from rlpx.engine.swarm.trial import Costs, Trial
from rlpx.protocol.bus.swarm import Messages, Scenario
from rlpx.protocol.mistakes import ConfigError
from rlpx.protocol.wording import Expected, wrong

PROGRAM: Final = "rlpx-swarm plan"
# Enough sessions that each is a small part of the sum, and few enough to come within seconds.
TRIAL_PEERS: Final = 400
# They send up to this many times as much as a peer does, to price messages at the rate of more peers. Beyond it, a core is
# full.
FACTOR_MAX: Final = 5.0
QUIET_SECONDS: Final = 10.0
LIVELY_SECONDS: Final = 15.0
CHECK_SECONDS: Final = 20.0
# A check holds as many sessions as the plan is for; more would take longer than anyone waits.
CHECK_PEERS_MAX: Final = 5000
_PEERS_MAX: Final = 1_000_000
_PEERS_PER_PROCESS: Final = 500
_MIB: Final = 1024 * 1024
# The exit code that a shell reports for a program ended by a signal, less the signal's number.
_SIGNALLED: Final = 128


def parser() -> Arguments:
    """All flags."""
    arguments = Arguments(
        prog=PROGRAM,
        description="Measure for about a minute what sessions cost here, and work out what a number of peers needs.",
        epilog="An engine of its own and a small swarm run meanwhile, on loopback only.",
    )
    arguments.add_argument("--peers", type=typed(int), metavar="N", required=True, help="number of peers to plan for")
    arguments.add_argument(
        "--profile",
        metavar="NAME|FILE",
        default="mainnet",
        help=f"the scenario whose messages a peer sends: {', '.join(scenario_names())} or a file (default: mainnet)",
    )
    arguments.add_argument(
        "--session-seconds",
        type=typed(float),
        metavar="S",
        default=capacity.SESSION_SECONDS,
        help=f"how long a session lasts on average (default: {capacity.SESSION_SECONDS:g})",
    )
    arguments.add_argument(
        "--check", action="store_true", help=f"then hold that many peers, {CHECK_PEERS_MAX} at most, and show the error"
    )
    arguments.add_argument("--json", action="store_true", help="one JSON document instead of text")
    return arguments


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    given = parser().parse_args(sys.argv[2:] if arguments is None else arguments)
    # The trial's folder is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(_SIGNALLED + number))
    try:
        text = carry_out(given, tell=_tell)
    except ConfigError as error:
        fail(PROGRAM, str(error), error.exit_code)
    sys.stdout.write(text)


def carry_out(given: argparse.Namespace, tell: Callable[[str], None]) -> str:
    """Measure, work out, check if that is asked for; returns the text to show. Raises `ConfigError`."""
    _check(given)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    profile = load_scenario(scenario_file(given.profile, "--profile"), {})
    price = measure(profile, given.peers, tell)
    found = capacity.plan(price, given.peers, hard, given.session_seconds)
    words = capacity.assumptions(price, given.profile, given.session_seconds)
    more: dict[str, Any] = {}
    if given.check:
        real = hold(profile, given.peers, found.workers, CHECK_SECONDS, tell)
        # In such a short run nobody comes and goes.
        lasting = capacity.plan(msgspec.structs.replace(price), given.peers, hard, float("inf"))
        more["check"] = {"established": real.established, "errors": capacity.errors(lasting, real)}
    if given.json:
        return as_json(capacity.as_json(found, price, words, more), indent=2) + "\n"
    return as_text(found, price, words, more.get("check"))


def _check(given: argparse.Namespace) -> None:
    most = CHECK_PEERS_MAX if given.check else _PEERS_MAX
    if not 1 <= given.peers <= most:
        expected = Expected(f"a whole number from 1 to {most}", "1000")
        raise ConfigError(f"--peers: {wrong(given.peers, expected)}", os.EX_USAGE)
    if not 1 <= given.session_seconds <= 1e9:  # noqa: PLR2004 - thirty years
        expected = Expected("a number of seconds from 1 to 1e9", "1800")
        raise ConfigError(f"--session-seconds: {wrong(given.session_seconds, expected)}", os.EX_USAGE)


def measure(profile: Scenario, peers: int, tell: Callable[[str], None]) -> Prices:
    """The prices of this machine for about as many peers, by two trials of 400. Raises `ConfigError`."""
    factor = min(max(1.0, peers / TRIAL_PEERS), FACTOR_MAX)
    sent = profile.messages
    more = msgspec.structs.replace(
        sent,
        announcements_per_s=sent.announcements_per_s * factor,
        transactions_per_s=sent.transactions_per_s * factor,
        requests_per_s=sent.requests_per_s * factor,
    )
    quiet = msgspec.structs.replace(profile, messages=Messages())
    with Trial(1, TRIAL_PEERS) as trial:
        base = trial.usage()
        at_rest = trial.run(_sized(quiet, TRIAL_PEERS), QUIET_SECONDS, tell)
    with Trial(1, TRIAL_PEERS, reads=("eth.",)) as trial:
        lively = trial.run(_sized(msgspec.structs.replace(profile, messages=more), TRIAL_PEERS), LIVELY_SECONDS, tell)
    if not at_rest.established or not lively.established:
        raise ConfigError("no session was established, so nothing could be measured", os.EX_UNAVAILABLE)
    return capacity.prices(at_rest, lively, (base.engine_bytes, base.worker_bytes), factor=factor)


def hold(profile: Scenario, peers: int, workers: int, seconds: float, tell: Callable[[str], None]) -> Costs:
    """The costs of a real run of this many peers. Raises `ConfigError`."""
    with Trial(workers, peers, reads=("eth.",)) as trial:
        return trial.run(_sized(profile, peers), seconds, tell)


def _sized(scenario: Scenario, peers: int) -> Scenario:
    processes = max(1, peers // _PEERS_PER_PROCESS)
    return msgspec.structs.replace(scenario, peers=peers, processes=min(processes, 64), seconds=86_400.0)


def as_text(found: Plan, price: Prices, words: list[str], check: dict[str, Any] | None) -> str:
    """The plan as text."""
    cores = len(os.sched_getaffinity(0))
    needed = found.engine_cores + found.worker_cores
    lines = [
        f"{found.peers:,} peers need, at the prices of this machine:",
        f"  workers      {found.workers} ({found.descriptors_per_worker:,} descriptors each)",
        f"  memory       {found.memory_bytes / _MIB:,.0f} MiB ({price.session_bytes / 1024:.1f} KiB per session)",
        f"  CPU          {found.engine_cores:.2f} cores for the engine process, {found.worker_cores:.2f} for the workers",
        f"  bandwidth    {found.bits_in_per_s / 1e6:,.1f} Mbit/s in, {found.bits_out_per_s / 1e6:,.1f} out",
        f"  messages     {found.messages_in_per_s:,.0f} a second in, {found.messages_out_per_s:,.0f} out",
        f"  handshakes   {found.handshakes_per_s:.2f} a second",
        f"This machine has {cores} cores: {'enough' if needed <= cores * capacity.BUSY_SHARE else 'too few'}.",
    ]
    if found.engine_cores > capacity.BUSY_SHARE:
        lines.append("The engine process alone would be too busy: let programs read feeds from the workers.")
    handshake = price.session_engine_cpu * 1e6, price.session_worker_cpu * 1e6
    of_session = f"{handshake[0]:.0f} µs in the engine process and {handshake[1]:.0f} in a worker"
    at_rest = f"{(price.idle_engine_cpu + price.idle_worker_cpu) * 1e6:.1f} µs a second"
    of_message = f"{price.message_engine_cpu * 1e6:.1f} and {price.message_worker_cpu * 1e6:.1f} µs"
    lines += [
        "",
        f"Prices: a session {of_session}; at rest {at_rest}; a message {of_message}.",
        "Assumed:",
        *(f"  - {word}" for word in words),
    ]
    if check is not None:
        shown = ", ".join(f"{name} {error:+.0%}" for name, error in check["errors"].items())
        lines += ["", f"Checked with {check['established']:,} sessions: the plan is off by {shown}."]
    return "\n".join(lines) + "\n"


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
