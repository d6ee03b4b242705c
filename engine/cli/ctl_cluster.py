"""`rlpx-ctl --cluster`: commands to the hosts of a fleet, and `rlpx-ctl hosts`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any, Final

import msgspec

from rlpx.engine.cli.ctl_text import as_text
from rlpx.engine.cli.terminal import Arguments, as_json, fail, shown, typed
from rlpx.engine.settings.settings import ClusterName, NatsServers
from rlpx.protocol.mistakes import EXIT_ERROR_ANSWER, ConfigError

HOSTS: Final = "hosts"
COUNTS: Final = "counts"
# What concerns one run directory alone.
ONE_HOST: Final = ("keys", "top")
# The limits that are the fleet's. The others are each host's own.
FLEET_LIMITS: Final = ("max_active_inbound", "max_active_outbound")
OPTIONS: Final = ("cluster", "cluster_name", "cluster_creds", "host")


def add_cluster(arguments: argparse.ArgumentParser, *, is_command: bool = False) -> None:
    """Add the options that name a fleet; commands get them as well, so that they may stand anywhere."""
    unset: Any = argparse.SUPPRESS if is_command else None
    texts = {
        "--cluster": ("NATS", NatsServers, "the NATS servers of a fleet instead, nats://A,B,C: commands go to its hosts"),
        "--cluster-name": ("NAME", ClusterName, "the name of the fleet (default: rlpx)"),
        "--cluster-creds": ("FILE", None, "file with NATS credentials"),
        "--host": ("HOST", ClusterName, "only this host of the fleet"),
    }
    for flag, (metavar, kind, text) in texts.items():
        reader = {"type": typed(kind)} if kind is not None else {}
        arguments.add_argument(flag, metavar=metavar, default=unset, help=text, **reader)  # type: ignore[arg-type]  # as argparse takes them


def check_cluster(arguments: Arguments, given: argparse.Namespace) -> None:
    """Check that the options fit each other. Ends the program otherwise."""
    if given.cluster is None:
        for name in OPTIONS[1:]:
            if getattr(given, name) is not None:
                arguments.error(f"--{name.replace('_', '-')}: only with --cluster")
        if given.command == HOSTS:
            arguments.error("hosts: only with --cluster")
    elif given.command in ONE_HOST:
        arguments.error(f"--cluster: not allowed with {given.command}")
    elif given.command == HOSTS and given.host is not None:
        arguments.error("--host: not allowed with hosts")
    elif given.run_dir is not None or given.connect is not None:
        arguments.error("--cluster: not allowed with --run-dir or --connect")


class Asked(msgspec.Struct, frozen=True):
    """A command for a fleet."""

    program: str
    options: dict[str, Any]
    command: str
    parameters: dict[str, Any]
    seconds: float
    is_json: bool


def carry_out_in_fleet(asked: Asked) -> None:
    """Ask the hosts and write what they answer. Ends the program with 1 if one has an error, or does not answer."""
    try:
        # The libraries are loaded only here: most commands need none of them.
        from rlpx.engine.client.nats_servers import NatsUnavailableError  # noqa: PLC0415 - see above
        from rlpx.engine.cluster.commander import FleetError  # noqa: PLC0415 - see above
    except ImportError:
        fail(asked.program, "--cluster needs nats-py: pip install rlpx-engine[cluster]", os.EX_UNAVAILABLE)
    try:
        is_complete = asyncio.run(_ask(asked))
    except NatsUnavailableError as error:
        fail(asked.program, str(error), os.EX_UNAVAILABLE)
    except ConfigError as error:
        fail(asked.program, str(error), error.exit_code)
    except FleetError as error:
        if asked.is_json:
            sys.stdout.write(as_json({"error": {"name": error.name, "message": str(error), "code": error.code}}, 2) + "\n")
            sys.exit(EXIT_ERROR_ANSWER)
        fail(asked.program, f"{error.name}: {error}", EXIT_ERROR_ANSWER)
    if not is_complete:
        sys.exit(EXIT_ERROR_ANSWER)


async def _ask(asked: Asked) -> bool:
    from rlpx.engine.client.nats_servers import Servers  # noqa: PLC0415 - as above
    from rlpx.engine.cluster.commander import Commander  # noqa: PLC0415 - as above

    options = asked.options
    servers = Servers.named(options["cluster"], options["cluster_creds"] or "")
    async with Commander(servers, options["cluster_name"] or "rlpx") as commander:
        if asked.command == HOSTS:
            hosts = await commander.hosts()
            asked_all = await commander.command("status", {}, None, asked.seconds) if hosts else []
            answers = {answer.host: answer for answer in asked_all}
            _write_hosts(asked, hosts, answers)
            return bool(hosts) and all(answer.result is not None for answer in asked_all)
        answers_of_all = await commander.command(asked.command, asked.parameters, options["host"], asked.seconds)
    results = [answer.result for answer in answers_of_all if answer.result is not None]
    if asked.is_json:
        hosts_json = {
            answer.host: answer.error if answer.error is not None else answer.result
            for answer in answers_of_all
            if not answer.is_silent
        }
        failed = [answer.host for answer in answers_of_all if answer.error is not None]
        silent = [answer.host for answer in answers_of_all if answer.is_silent]
        in_sum = {} if asked.command != COUNTS else {"sum": counts_in_sum(results)}
        sys.stdout.write(as_json({**in_sum, "hosts": hosts_json, "failed": failed, "no_answer": silent}, 2) + "\n")
    else:
        if asked.command == COUNTS and len(results) > 1:
            whole = "the fleet" if len(results) == len(answers_of_all) else f"{len(results)} of {len(answers_of_all)} hosts"
            sys.stdout.write(f"{whole}\n{as_text(asked.command, counts_in_sum(results))}")
        for answer in answers_of_all:
            sys.stdout.write(f"host {answer.host}\n")
            if answer.is_silent:
                sys.stdout.write("no answer\n")
            elif answer.error is not None:
                sys.stdout.write(shown(f"{answer.error['data']['name']}: {answer.error['message']}") + "\n")
            else:
                sys.stdout.write(as_text(asked.command, answer.result))
    return all(answer.error is None and not answer.is_silent for answer in answers_of_all)


def counts_in_sum(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of hosts in sum, with the limits that are the fleet's."""
    summed: dict[str, dict[str, int]] = {}
    for result in results:
        for phase, ways in result.items():
            for way, count in ways.items():
                if phase != "limits":
                    in_phase = summed.setdefault(phase, {})
                    in_phase[way] = in_phase.get(way, 0) + count
                elif way in FLEET_LIMITS:
                    summed.setdefault(phase, {})[way] = count
    return summed


def _write_hosts(asked: Asked, hosts: dict[str, Any], answers: dict[str, Any]) -> None:
    """One line for each host: whether it answers, its sessions and places, and its claims that are not settled."""
    rows = []
    for name, beat in hosts.items():
        if name not in answers:
            continue  # it has left before it was asked
        answer = answers[name]
        status = answer.result or {}
        active, fleet = status.get("counts", {}).get("active", {}), status.get("fleet") or {}
        rows.append(
            {
                "host": name,
                "answers": not answer.is_silent,
                "error": answer.error and answer.error["data"]["name"],
                "inbound": active.get("inbound"),
                "outbound": active.get("outbound"),
                "leased": {way: places["leased"] for way, places in fleet.get("places", {}).items()},
                "unsettled": fleet.get("claims", {}).get("unsettled"),
                "free": {str(way): count for way, count in beat.free.items()},
                "wants": {str(way): count for way, count in beat.wants.items()},
                "node": beat.node,
                "epoch": beat.epoch,
            }
        )
    if asked.is_json:
        sys.stdout.write(as_json(rows, 2) + "\n")
        return
    if not rows:
        sys.stdout.write("no hosts\n")
    for row in rows:
        state = f"{shown(row['inbound'])} inbound, {shown(row['outbound'])} outbound; leased {shown(row['leased'])}"
        state += f"; {row['unsettled']} claims unsettled" if row["unsettled"] else ""
        state = row["error"] or state if row["answers"] else "no answer"
        sys.stdout.write(f"{row['host']}  {state}; free {shown(row['free'])}; node {row['node'][:16]}\n")
